//! Sessions by their ids, as long as they last.

use crate::media::Kind;
use crate::republish::webrtc::{IceCredentials, Offer, Session};
use axum::http::{HeaderMap, header};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<u128, Arc<Entry>>>);

/// A session as its URL stands for it.
#[derive(Debug)]
pub(super) struct Entry {
    id: u128,
    /// The stream that it was made for: its URL goes on from that stream's.
    path: String,
    /// The name of who made it.
    user: Option<String>,
    pub(super) session: Session,
    /// The section that fragments are written for.
    pub(super) kind: Kind,
    pub(super) mid: String,
    pub(super) current: tokio::sync::Mutex<Current>,
}

/// The ICE session as it is now.
#[derive(Debug)]
pub(super) struct Current {
    /// The viewer's side.
    pub(super) ice: IceCredentials,
    /// Its strong entity tag, in quotes.
    pub(super) etag: String,
}

impl Current {
    fn new(ice: IceCredentials) -> Self {
        Self { ice, etag: format!("\"{:016x}\"", rand::random::<u64>()) }
    }

    /// From now on this is another ICE session.
    pub(super) fn restarted(&mut self, ice: IceCredentials) {
        *self = Self::new(ice);
    }
}

impl Entry {
    pub(super) fn new(session: Session, path: String, user: Option<&str>, offer: Offer) -> Self {
        let (kind, section) = offer.leader();
        let mid = section.map_or_else(String::new, |section| section.mid.clone());
        let current = tokio::sync::Mutex::new(Current::new(offer.ice));
        Self { id: rand::random(), path, user: user.map(str::to_owned), session, kind, mid, current }
    }
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<u128, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a session until it is over. Answers its id and entity tag. As many as the WebRTC server lets in.
    pub(super) fn add(self: &Arc<Self>, mut entry: Entry) -> (String, String) {
        let etag = entry.current.get_mut().etag.clone();
        let closed = entry.session.closed();
        let entry = Arc::new(entry);
        self.all().insert(entry.id, Arc::clone(&entry));
        let id = format!("{:032x}", entry.id);
        let sessions = Arc::downgrade(self);
        tokio::spawn(async move {
            closed.cancelled().await;
            if let Some(sessions) = sessions.upgrade() {
                sessions.remove(&entry);
            }
        });
        (id, etag)
    }

    /// The session of that id, if it belongs to that stream and that user.
    pub(super) fn find(&self, id: &str, path: &str, user: Option<&str>) -> Option<Arc<Entry>> {
        let id = u128::from_str_radix(id, 16).ok().filter(|_| id.len() == 32)?;
        let entry = Arc::clone(self.all().get(&id)?);
        let own = entry.path == path && entry.user.as_deref() == user && !entry.session.closed().is_cancelled();
        own.then_some(entry)
    }

    pub(super) fn remove(&self, entry: &Entry) {
        self.all().remove(&entry.id);
    }
}

/// `If-Match` (RFC 9110 section 13.1.1).
#[derive(Debug)]
pub(super) enum Matches {
    Any,
    Tags(Vec<String>),
}

impl Matches {
    /// `None` if the request has no such line.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut tags = Vec::new();
        for value in headers.get_all(header::IF_MATCH) {
            let value = String::from_utf8_lossy(value.as_bytes());
            tags.extend(value.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()));
        }
        match tags.as_slice() {
            [] => None,
            // A browser's code may well have put the asterisk in quotes, as RFC 9725's examples do.
            [any] if any == "*" || any == "\"*\"" => Some(Self::Any),
            _ => Some(Self::Tags(tags)),
        }
    }

    /// Strong comparison: a weak tag never matches. One that lost its quotes on the way does.
    pub(super) fn allow(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|tag| tag == etag || tag == etag.trim_matches('"')),
        }
    }
}
