//! Which feeds there are, so that all viewers of the same tracks share one.

use super::feed::{self, Feed};
use crate::bus::{Stream, TrackId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Tracks by the addresses of their streams, which a living feed keeps from being used again.
type Key = Vec<(usize, TrackId)>;

/// The feeds that somebody watches now.
#[derive(Debug, Default)]
pub struct Feeds(Mutex<HashMap<Key, Weak<Feed>>>);

impl Feeds {
    /// The feed of those tracks, started if nobody watches them yet; `None` if there is none of them. Must be called
    /// within a tokio runtime.
    pub fn get(&self, sources: &[(Arc<Stream>, TrackId)]) -> Option<Arc<Feed>> {
        let key: Key = sources.iter().map(|(stream, track)| (Arc::as_ptr(stream).addr(), *track)).collect();
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|_, feed| feed.strong_count() > 0);
        if let Some(feed) = feeds.get(&key).and_then(Weak::upgrade).filter(|feed| !feed.ended()) {
            return Some(feed);
        }
        let feed = Feed::start(sources)?;
        feeds.insert(key, Arc::downgrade(&feed));
        Some(feed)
    }

    /// The feed of all tracks that the stream has now.
    pub fn of(&self, stream: &Arc<Stream>) -> Option<Arc<Feed>> {
        self.get(&feed::sources(stream))
    }
}
