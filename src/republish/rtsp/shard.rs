//! Viewers that are level with the live edge, written to by one task: one write per viewer and picture.
//!
//! A task per viewer costs 1.35 to 1.54 times the bare system calls, one task for many 1.03 to 1.1 (measured). A shard
//! never waits for a viewer: one that does not take a picture whole moves to a [slow lane](super::viewer::SlowLane).

use super::viewer::{Delivered, SlowLane, Viewer};
use crate::republish::rtp::{Feed, Item, Position};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// The most viewers of one shard, so that several cores can share a stream's viewers.
const MEMBERS: usize = 128;

/// A feed and the shards of its viewers.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) feed: Arc<Feed>,
    shards: Mutex<Vec<Weak<Shard>>>,
    tasks: TaskTracker,
}

impl Hub {
    pub(super) fn new(feed: Arc<Feed>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { feed, shards: Mutex::default(), tasks })
    }

    /// A shard with room for one more viewer, which holds it while it plays.
    pub(super) fn shard(self: &Arc<Self>) -> Arc<Shard> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|shard| shard.strong_count() > 0);
        let found = shards.iter().filter_map(Weak::upgrade).find(|shard| {
            let free = shard
                .places
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < MEMBERS).then_some(taken + 1));
            free.is_ok()
        });
        found.unwrap_or_else(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let shard = Arc::new(Shard {
                sender,
                places: AtomicUsize::new(1),
                tasks: self.tasks.clone(),
                _hub: Arc::clone(self),
            });
            shards.push(Arc::downgrade(&shard));
            self.tasks.spawn(run(Arc::clone(&self.feed), receiver, Arc::downgrade(&shard)));
            shard
        })
    }
}

/// What a viewer holds of its shard. The shard's task ends with the last of them.
#[derive(Debug)]
pub(super) struct Shard {
    /// Bounded by nature: a viewer sends one message when it becomes level and one when it leaves.
    sender: mpsc::UnboundedSender<Message>,
    places: AtomicUsize,
    tasks: TaskTracker,
    /// Keeps the feed of this stream the one that newcomers find.
    _hub: Arc<Hub>,
}

#[derive(Debug)]
enum Message {
    Join(Arc<Viewer>, Position),
    Leave(u64),
}

impl Shard {
    /// Takes a viewer that has sent everything before `position`.
    pub(super) fn join(&self, viewer: Arc<Viewer>, position: Position) {
        // A failed send means that the task ended with the runtime.
        let _ = self.sender.send(Message::Join(viewer, position));
    }

    /// Lets a viewer go and its place with it. Call it once for each [`Hub::shard`].
    pub(super) fn leave(&self, viewer: &Viewer) {
        self.places.fetch_sub(1, Ordering::Relaxed);
        let _ = self.sender.send(Message::Leave(viewer.id));
    }

    /// Serves a viewer in a slow lane of its own.
    pub(super) fn slow_lane(self: &Arc<Self>, lane: SlowLane) {
        self.tasks.spawn(lane.run());
    }
}

async fn run(feed: Arc<Feed>, mut messages: mpsc::UnboundedReceiver<Message>, shard: Weak<Shard>) {
    let mut head = feed.watch();
    let mut members: Vec<Arc<Viewer>> = Vec::new();
    let mut position = feed.end();
    let mut items: Vec<Item> = Vec::new();
    loop {
        tokio::select! {
            biased;
            message = messages.recv() => match message {
                None => return,
                Some(Message::Leave(id)) => {
                    members.retain(|member| member.id != id);
                    continue;
                }
                Some(Message::Join(viewer, from)) => {
                    position = step(&feed, &mut members, position, &mut items, &shard);
                    items.clear();
                    if feed.read(from, &mut items).is_none() {
                        slow_lane(&shard, viewer, from);
                        continue;
                    }
                    if serve(&viewer, from, position, &items, &shard) {
                        members.push(viewer);
                    }
                }
            },
            changed = head.changed(), if !members.is_empty() => if changed.is_err() { return },
        }
        head.mark_unchanged();
        position = step(&feed, &mut members, position, &mut items, &shard);
    }
}

/// Writes what is new to all members and answers the place after it.
fn step(
    feed: &Arc<Feed>,
    members: &mut Vec<Arc<Viewer>>,
    position: Position,
    items: &mut Vec<Item>,
    shard: &Weak<Shard>,
) -> Position {
    if members.is_empty() {
        return feed.end();
    }
    let mut position = position;
    // Reads again after the last item: a feed that pushed and ended at once wakes this task only once.
    loop {
        items.clear();
        let Some(end) = feed.read(position, items) else {
            // The feed ended, or this task did not run for seconds: each viewer's slow lane says which.
            for member in members.drain(..) {
                slow_lane(shard, member, position);
            }
            return feed.end();
        };
        if items.is_empty() {
            return end;
        }
        members.retain(|member| serve(member, position, end, items, shard));
        position = end;
    }
}

/// Writes the items from `from` up to `end`; false if the viewer left the shard over it.
fn serve(viewer: &Arc<Viewer>, from: Position, end: Position, items: &[Item], shard: &Weak<Shard>) -> bool {
    let mut position = from;
    for item in items {
        if position >= end {
            break;
        }
        match viewer.deliver(item) {
            Delivered::Done => position = position.next(),
            Delivered::Begun => {
                slow_lane(shard, Arc::clone(viewer), position.next());
                return false;
            }
            Delivered::Blocked => {
                slow_lane(shard, Arc::clone(viewer), position);
                return false;
            }
            Delivered::Gone => return false,
        }
    }
    true
}

fn slow_lane(shard: &Weak<Shard>, viewer: Arc<Viewer>, position: Position) {
    if let Some(shard) = shard.upgrade() {
        shard.slow_lane(SlowLane::at(viewer, Arc::clone(&shard), position));
    }
}
