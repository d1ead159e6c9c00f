//! What happened at the devices: told at once, and the last hundred kept for pages that reconnect.

use crate::media::MediaTime;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// How many events are kept.
const KEPT: usize = 100;

/// Names an event; later events have greater ids, also after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A doorbell was pressed.
    Visitor,
    /// The bell of the own floor.
    FloorBell,
    /// A tamper or alarm contact.
    Alarm,
    /// Motion began or ended.
    Motion(bool),
    /// The passive infrared sensor began or ended to see somebody.
    Pir(bool),
    /// The device came.
    Online,
    /// The device went.
    Offline,
    /// A door was opened.
    DoorOpened,
    /// An outlet was switched.
    Power(bool),
    /// What a device adds.
    Other(String),
}

impl EventKind {
    /// The name in JSON and topics.
    pub fn name(&self) -> &str {
        match self {
            Self::Visitor => "visitor",
            Self::FloorBell => "floor_bell",
            Self::Alarm => "alarm",
            Self::Motion(_) => "motion",
            Self::Pir(_) => "pir",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::DoorOpened => "door_opened",
            Self::Power(_) => "power",
            Self::Other(name) => name,
        }
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name; an update of an event carries the same.
    pub id: EventId,
    /// The device's name.
    pub device: String,
    /// When it was noticed, by our clock.
    pub at: SystemTime,
    /// Where it lies on the device's stream, if it has one.
    pub pts: Option<MediaTime>,
    /// What happened.
    pub kind: EventKind,
    /// A JPEG picture of it.
    pub picture: Option<Bytes>,
}

/// The events of all devices.
#[derive(Debug)]
pub struct Events {
    live: broadcast::Sender<Arc<Event>>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    last_id: u64,
    events: VecDeque<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            live: broadcast::Sender::new(KEPT),
            kept: Mutex::new(Kept { last_id: 0, events: VecDeque::with_capacity(KEPT) }),
        }
    }
}

impl Events {
    /// Tells everybody that something happened just now.
    pub fn tell(&self, device: &str, kind: EventKind, pts: Option<MediaTime>, picture: Option<Bytes>) -> Arc<Event> {
        let at = SystemTime::now();
        let micros = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // The time makes ids rise across restarts, the last id makes them rise when the clock steps back.
        kept.last_id = micros.max(kept.last_id + 1);
        let id = EventId(kept.last_id);
        let event = Arc::new(Event { id, device: device.to_owned(), at, pts, kind, picture });
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::clone(&event));
        // Nobody listening is not an error.
        let _ = self.live.send(Arc::clone(&event));
        event
    }

    /// The kept events after that id, oldest first, and a receiver of all that follow, without a gap between them.
    pub fn since(&self, id: Option<EventId>) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = kept.events.iter().filter(|event| id.is_none_or(|id| event.id > id)).cloned().collect();
        (missed, self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_comes_back_misses_nothing() {
        let events = Events::default();
        let first = events.tell("front", EventKind::Online, None, None);
        let second = events.tell("front", EventKind::Visitor, None, None);
        assert!(second.id > first.id);
        let (missed, mut live) = events.since(Some(first.id));
        assert_eq!(missed.len(), 1);
        assert_eq!(missed[0].kind, EventKind::Visitor);
        events.tell("front", EventKind::Offline, None, None);
        assert_eq!(live.recv().await.unwrap().kind, EventKind::Offline);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let events = Events::default();
        for _ in 0..KEPT + 20 {
            events.tell("front", EventKind::Motion(true), None, None);
        }
        assert_eq!(events.since(None).0.len(), KEPT);
    }
}
