//! What happened at the devices: told at once, and the last hundred kept with their pictures.
//!
//! Who is kept when there are more than a hundred: a visitor of yesterday must still be there although a camera came and
//! went all night, and the visitors of one door although the button of another is stuck. So comings and goings and what
//! else only [begins and ends](EventKind::is_state) keep 30 of the places when others want them; and of those that have
//! to share, the (device, kind) with the most events gives its oldest one.
//!
//! Nobody gets more places by inventing things. Kinds that devices name themselves are one kind of theirs. Devices that
//! nobody configured, and what is of no device, are [guests](Events::set_guest): they share as if they were one device
//! with one kind, and keep 30 of the places when others want them.
//!
//! Pictures are kept up to 32 MiB together: the oldest go first, those of guests before others while guests have more
//! than 8 MiB, and their events stay without them.

use crate::media::MediaTime;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// How many events are kept.
const KEPT: usize = 100;
/// How many of them may be states while moments want the places.
const STATES: usize = 30;
/// How many of them may be of guests while others want the places.
const GUESTS: usize = 30;
/// Bytes of all pictures that are kept.
const PICTURES: usize = 32 << 20;
/// Bytes of guests' pictures among them while others want the room.
const GUEST_PICTURES: usize = 8 << 20;
/// Events that may wait for one listener, enough for a house where everything rings at once. They wait without their
/// pictures, so that a listener that does not read holds little.
const WAITING: usize = 1024;
/// Kinds that are counted each on their own; what devices and people invent beyond them is counted together.
const KINDS: usize = 64;

/// Names an event, or a change of one; later ones are greater, also after a restart.
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

    /// Whether it tells of a state that began or ended, not of a moment at which somebody was there.
    pub fn is_state(&self) -> bool {
        matches!(self, Self::Online | Self::Offline | Self::Motion(_) | Self::Pir(_) | Self::Power(_))
    }

    /// Whether what it tells of began or was switched on, for the kinds that do both.
    pub fn on(&self) -> Option<bool> {
        match self {
            Self::Motion(on) | Self::Pir(on) | Self::Power(on) => Some(*on),
            _ => None,
        }
    }
}

/// One event. Its picture is kept apart: [`Events::picture`] has it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name; an update of an event carries the same.
    pub id: EventId,
    /// When it was told or last updated, in the order of all ids: who knows everything up to here knows this event as it
    /// is.
    pub changed: EventId,
    /// The device's name; empty where it is of no device.
    pub device: String,
    /// When it was noticed, by our clock.
    pub at: SystemTime,
    /// Where it lies on the device's stream, if it has one.
    pub pts: Option<MediaTime>,
    /// What happened.
    pub kind: EventKind,
    /// What the kind alone does not say.
    pub detail: Map<String, Value>,
    /// Which picture of it is kept, 1 being the first that it had; `None` if there is none, or none any more.
    pub picture: Option<u32>,
}

/// What listeners get.
#[derive(Clone, Debug)]
pub enum Told {
    /// Something happened.
    New(Arc<Event>),
    /// There is more about something that was told before.
    Update(Arc<Event>),
}

impl Told {
    /// The event as it is now.
    pub fn event(&self) -> &Arc<Event> {
        match self {
            Self::New(event) | Self::Update(event) => event,
        }
    }
}

/// Which of the kept events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of that device only.
    pub device: Option<String>,
    /// Of the kinds with these names only; empty: all.
    pub kinds: Vec<String>,
    /// Older than that one only.
    pub before: Option<EventId>,
}

/// The events of all devices.
#[derive(Debug)]
pub struct Events {
    live: broadcast::Sender<Told>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last_id: u64,
    /// In the order of their ids.
    events: Vec<Entry>,
    /// Bytes of their pictures.
    bytes: usize,
    counts: BTreeMap<String, u64>,
    /// Names of devices that nobody configured.
    guests: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    picture: Option<Bytes>,
    /// How many pictures it has had.
    pictures: u32,
    /// It was told of a guest.
    guest: bool,
}

/// Events that give their oldest one together: of that device (`None`: of all guests), of that kind (`None`: of all that
/// devices name themselves, or that guests tell), states or not.
type Group<'a> = (Option<&'a str>, Option<&'a str>, bool);

impl Entry {
    fn group(&self) -> Group<'_> {
        let Event { device, kind, .. } = &*self.event;
        let own = !self.guest;
        let named = own && !matches!(kind, EventKind::Other(_));
        (own.then_some(device), named.then_some(kind.name()), kind.is_state())
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { live: broadcast::Sender::new(WAITING), kept: Mutex::default() }
    }
}

impl Events {
    /// Tells everybody that something happened just now.
    pub fn tell(&self, device: &str, kind: EventKind, pts: Option<MediaTime>, picture: Option<Bytes>) -> Arc<Event> {
        self.tell_with(device, kind, pts, picture, Map::new())
    }

    /// The same, with what the kind alone does not say.
    pub fn tell_with(
        &self,
        device: &str,
        kind: EventKind,
        pts: Option<MediaTime>,
        picture: Option<Bytes>,
        detail: Map<String, Value>,
    ) -> Arc<Event> {
        let at = SystemTime::now();
        let picture = picture.filter(|picture| picture.len() <= PICTURES);
        let mut kept = self.kept();
        let id = kept.next_id(at);
        kept.count(kind.name());
        let guest = kept.is_guest(device);
        let (device, number) = (device.to_owned(), picture.as_ref().map(|_| 1));
        let event = Arc::new(Event { id, changed: id, device, at, pts, kind, detail, picture: number });
        kept.bytes += picture.as_ref().map_or(0, Bytes::len);
        kept.events.push(Entry { event: Arc::clone(&event), picture, pictures: number.unwrap_or(0), guest });
        if kept.events.len() > KEPT {
            kept.drop_one();
        }
        kept.drop_pictures();
        // Nobody listening is not an error.
        let _ = self.live.send(Told::New(Arc::clone(&event)));
        event
    }

    /// Tells everybody that there is a better picture of that event; answers the event as it is now, or nothing if the
    /// event is not kept any more, or the picture is too large to be.
    pub fn update(&self, id: EventId, picture: Bytes) -> Option<Arc<Event>> {
        if picture.len() > PICTURES {
            return None;
        }
        let mut kept = self.kept();
        let index = kept.place(id)?;
        let changed = kept.next_id(SystemTime::now());
        let entry = kept.events.get_mut(index)?;
        entry.pictures += 1;
        let event = Arc::new(Event { changed, picture: Some(entry.pictures), ..Event::clone(&entry.event) });
        entry.event = Arc::clone(&event);
        let length = picture.len();
        let before = entry.picture.replace(picture).map_or(0, |before| before.len());
        kept.bytes = kept.bytes - before + length;
        kept.drop_pictures();
        let _ = self.live.send(Told::Update(Arc::clone(&event)));
        Some(event)
    }

    /// What is kept of what changed after that id, in the order of its changes, and a receiver of all that follows,
    /// without a gap between them. `None` gives all that is kept.
    pub fn since(&self, id: Option<EventId>) -> (Vec<Arc<Event>>, broadcast::Receiver<Told>) {
        let kept = self.kept();
        let mut missed = kept.list(|event| id.is_none_or(|id| event.changed > id));
        missed.sort_by_key(|event| event.changed);
        (missed, self.live.subscribe())
    }

    /// The newest of those that are wanted, newest first, at most so many; and whether there are older ones.
    pub fn newest(&self, wanted: &Wanted, most: usize) -> (Vec<Arc<Event>>, bool) {
        let fits = |event: &Event| {
            wanted.device.as_ref().is_none_or(|device| event.device == *device)
                && (wanted.kinds.is_empty() || wanted.kinds.iter().any(|kind| kind == event.kind.name()))
                && wanted.before.is_none_or(|before| event.id < before)
        };
        let mut found = self.kept().list(fits);
        found.reverse();
        let older = found.len() > most;
        found.truncate(most);
        (found, older)
    }

    /// An event that is kept.
    pub fn get(&self, id: EventId) -> Option<Arc<Event>> {
        let kept = self.kept();
        let entry = kept.events.get(kept.place(id)?)?;
        Some(Arc::clone(&entry.event))
    }

    /// The JPEG picture of an event, if it is kept, and its number among the event's pictures, from 1.
    pub fn picture(&self, id: EventId) -> Option<(u32, Bytes)> {
        let kept = self.kept();
        let entry = kept.events.get(kept.place(id)?)?;
        Some((entry.pictures, entry.picture.clone()?))
    }

    /// How many were told since the start, by kind; updates are not counted.
    pub fn counts(&self) -> Vec<(String, u64)> {
        self.kept().counts.iter().map(|(kind, &count)| (kind.clone(), count)).collect()
    }

    /// What is told of that device from now on counts as a guest's, or does not any more: a device that is there because
    /// somebody on the network said so, not because the configuration names it. Whoever makes such devices bounds them.
    pub fn set_guest(&self, device: &str, guest: bool) {
        let mut kept = self.kept();
        if guest {
            kept.guests.insert(device.to_owned());
        } else {
            kept.guests.remove(device);
        }
    }

    /// Whether what is told of that device counts as a guest's; what is of no device (the empty name) always does.
    pub fn is_guest(&self, device: &str) -> bool {
        self.kept().is_guest(device)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The time makes ids rise across restarts, the last id makes them rise when the clock steps back.
    fn next_id(&mut self, at: SystemTime) -> EventId {
        let micros = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.last_id = micros.max(self.last_id + 1);
        EventId(self.last_id)
    }

    fn count(&mut self, kind: &str) {
        let known = self.counts.contains_key(kind) || self.counts.len() < KINDS;
        *self.counts.entry(if known { kind } else { "other" }.to_owned()).or_default() += 1;
    }

    fn is_guest(&self, device: &str) -> bool {
        device.is_empty() || self.guests.contains(device)
    }

    fn place(&self, id: EventId) -> Option<usize> {
        self.events.binary_search_by_key(&id, |entry| entry.event.id).ok()
    }

    fn list(&self, fits: impl Fn(&Event) -> bool) -> Vec<Arc<Event>> {
        self.events.iter().map(|entry| &entry.event).filter(|event| fits(event)).cloned().collect()
    }

    /// Drops the one that the others can best do without; see the top of this file.
    fn drop_one(&mut self) {
        let count = |fits: &dyn Fn(&Entry) -> bool| self.events.iter().filter(|entry| fits(entry)).count();
        let from_guests = count(&|entry| entry.guest) > GUESTS;
        let from_states = count(&|entry| entry.event.kind.is_state()) > STATES;
        let shares = |entry: &&Entry| {
            if from_guests { entry.guest } else { entry.event.kind.is_state() == from_states }
        };
        let mut groups = HashMap::<Group, usize>::new();
        for entry in self.events.iter().filter(shares) {
            *groups.entry(entry.group()).or_default() += 1;
        }
        let most = groups.values().copied().max();
        // The first one is the oldest.
        let first = self.events.iter().position(|entry| shares(&entry) && groups.get(&entry.group()).copied() == most);
        if let Some(first) = first {
            let gone = self.events.remove(first);
            self.bytes -= gone.picture.map_or(0, |picture| picture.len());
        }
    }

    /// Drops pictures until they fit.
    fn drop_pictures(&mut self) {
        if self.bytes <= PICTURES {
            return;
        }
        let guests = self.events.iter().filter(|entry| entry.guest);
        let mut of_guests: usize = guests.filter_map(|entry| entry.picture.as_ref()).map(Bytes::len).sum();
        for guests_first in [true, false] {
            for entry in &mut self.events {
                if self.bytes <= PICTURES || (guests_first && of_guests <= GUEST_PICTURES) {
                    break;
                }
                if guests_first && !entry.guest {
                    continue;
                }
                if let Some(picture) = entry.picture.take() {
                    self.bytes -= picture.len();
                    of_guests -= if entry.guest { picture.len() } else { 0 };
                    Arc::make_mut(&mut entry.event).picture = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Option<Bytes> {
        Some(Bytes::from(vec![0; length]))
    }

    fn count(events: &Events, device: &str, kind: &EventKind) -> usize {
        events.since(None).0.iter().filter(|event| event.device == device && event.kind == *kind).count()
    }

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
        let Told::New(told) = live.recv().await.unwrap() else { panic!("something new") };
        assert_eq!(told.kind, EventKind::Offline);
    }

    #[tokio::test]
    async fn an_update_is_told_and_found_later() {
        let events = Events::default();
        let bell = events.tell("front", EventKind::Visitor, None, None);
        let other = events.tell("front", EventKind::Online, None, None);
        let (_, mut live) = events.since(None);
        assert_eq!((bell.picture, events.picture(bell.id)), (None, None));
        let updated = events.update(bell.id, Bytes::from_static(b"face")).unwrap();
        assert!(updated.id == bell.id && updated.changed > other.id && updated.picture == Some(1));
        let Told::Update(told) = live.recv().await.unwrap() else { panic!("an update") };
        assert_eq!((told.id, told.changed), (bell.id, updated.changed));
        assert_eq!(events.picture(bell.id), Some((1, Bytes::from_static(b"face"))));
        let changed = |since| events.since(Some(since)).0.iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(changed(bell.id), [other.id, bell.id], "in the order of changes");
        assert_eq!(changed(other.id), [bell.id], "who knew the event hears of its update");
        assert!(changed(updated.changed).is_empty());
        events.update(bell.id, Bytes::from_static(b"better face")).unwrap();
        assert_eq!(events.picture(bell.id).unwrap().0, 2);
        assert!(events.update(EventId(1), Bytes::new()).is_none() && events.get(EventId(1)).is_none());
        assert_eq!(events.counts(), [("online".to_owned(), 1), ("visitor".to_owned(), 1)]);
    }

    #[test]
    fn a_camera_that_comes_and_goes_all_night_pushes_no_visitor_out() {
        let events = Events::default();
        let visitors: Vec<_> = (0..70).map(|_| events.tell("front", EventKind::Visitor, None, None).id).collect();
        for _ in 0..500 {
            events.tell("yard", EventKind::Offline, None, None);
            events.tell("yard", EventKind::Online, None, None);
            events.tell("yard", EventKind::Motion(true), None, None);
        }
        let kept = events.since(None).0;
        assert_eq!(kept.len(), KEPT);
        assert!(visitors.iter().all(|id| events.get(*id).is_some()));
        assert_eq!(count(&events, "yard", &EventKind::Online), 10);
        // With nobody else there, states may have all places; moments take them back down to what states keep.
        let events = Events::default();
        (0..KEPT + 20).for_each(|_| drop(events.tell("yard", EventKind::Offline, None, None)));
        assert_eq!(count(&events, "yard", &EventKind::Offline), KEPT);
        (0..KEPT + 20).for_each(|_| drop(events.tell("front", EventKind::Visitor, None, None)));
        assert_eq!(count(&events, "yard", &EventKind::Offline), STATES);
        assert_eq!(count(&events, "front", &EventKind::Visitor), KEPT - STATES);
    }

    #[test]
    fn a_stuck_button_takes_no_place_from_other_doors() {
        let events = Events::default();
        for _ in 0..20 {
            events.tell("front", EventKind::Visitor, None, None);
            events.tell("", EventKind::Other("new_doorbell".into()), None, None);
        }
        (0..1_000).for_each(|_| drop(events.tell("back", EventKind::Visitor, None, None)));
        let alarm = events.tell("back", EventKind::Alarm, None, None);
        assert_eq!(count(&events, "front", &EventKind::Visitor), 20);
        assert_eq!(count(&events, "", &EventKind::Other("new_doorbell".into())), 20);
        assert_eq!(count(&events, "back", &EventKind::Visitor), KEPT - 41);
        assert!(events.get(alarm.id).is_some());
        // What is left of it is the newest.
        let (newest, older) = events.newest(&Wanted { device: Some("back".into()), ..Wanted::default() }, 2);
        assert_eq!((newest[0].id, older), (alarm.id, true));
    }

    #[test]
    fn pictures_are_bounded_in_bytes_and_the_oldest_go_first() {
        let events = Events::default();
        let told: Vec<_> = (0..9).map(|_| events.tell("front", EventKind::Visitor, None, bytes(4 << 20)).id).collect();
        let has = |id: EventId| (events.get(id).unwrap().picture.is_some(), events.picture(id).is_some());
        assert_eq!(has(told[0]), (false, false), "the event stays without its picture");
        assert!(told[1..].iter().all(|&id| has(id) == (true, true)));
        // A better picture counts in place of the one before.
        events.update(told[1], Bytes::from(vec![0; 5 << 20]));
        assert_eq!((has(told[1]), has(told[2])), ((false, false), (true, true)));
        assert_eq!(events.update(told[1], Bytes::from_static(b"small")).unwrap().picture, Some(3), "no number twice");
        let large = events.tell("front", EventKind::Visitor, None, bytes(PICTURES + 1));
        assert_eq!((large.picture, has(told[2])), (None, (true, true)), "one that cannot be kept drops no others");
        for _ in 0..2 * KEPT {
            events.tell("front", EventKind::Visitor, None, bytes(1 << 20));
        }
        assert_eq!(events.kept().bytes, PICTURES);
        (0..KEPT).for_each(|_| drop(events.tell("front", EventKind::Visitor, None, None)));
        assert_eq!(events.kept().bytes, 0);
    }

    #[test]
    fn invented_bells_push_no_visitor_out() {
        let events = Events::default();
        let real: Vec<_> = (0..20).map(|_| events.tell("front", EventKind::Visitor, None, bytes(1 << 20)).id).collect();
        for bell in 0..400 {
            let name = format!("bell_{bell}");
            events.set_guest(&name, true);
            events.tell(&name, EventKind::Online, None, None);
            events.tell(&name, EventKind::Visitor, None, bytes(1 << 20));
            events.tell("", EventKind::Other("new_doorbell".into()), None, bytes(1 << 20));
        }
        assert!(real.iter().all(|id| events.picture(*id).is_some()), "visitors are there, with their pictures");
        let of_guests = || events.since(None).0.iter().filter(|event| events.is_guest(&event.device)).count();
        assert_eq!(of_guests(), KEPT - 20, "nobody else wants the places");
        let many: Vec<_> = (0..50).map(|_| events.tell("front", EventKind::Visitor, None, None).id).collect();
        assert!(real.iter().chain(&many).all(|id| events.get(*id).is_some()));
        assert_eq!(of_guests(), GUESTS);
        // One that the configuration names by now is no guest.
        events.set_guest("bell_7", false);
        let named = events.tell("bell_7", EventKind::Visitor, None, None).id;
        (0..400).for_each(|_| drop(events.tell("bell_8", EventKind::Visitor, None, None)));
        assert!(events.get(named).is_some() && real[1..].iter().all(|id| events.get(*id).is_some()));
    }

    #[test]
    fn invented_kinds_push_no_visitor_out() {
        let events = Events::default();
        let real: Vec<_> = (0..20).map(|_| events.tell("front", EventKind::Visitor, None, None).id).collect();
        (0..250).for_each(|kind| drop(events.tell("yard", EventKind::Other(format!("k{kind}")), None, None)));
        assert!(real.iter().all(|id| events.get(*id).is_some()));
    }

    #[test]
    fn pages_go_back_without_gaps() {
        let events = Events::default();
        for round in 0..30 {
            let (device, kind) = [("front", EventKind::Visitor), ("yard", EventKind::Online)][round % 2].clone();
            events.tell(device, kind, None, None);
        }
        let mut wanted = Wanted { kinds: vec!["visitor".into(), "alarm".into()], ..Wanted::default() };
        let (mut seen, mut more) = (Vec::new(), true);
        while more {
            let (page, older) = events.newest(&wanted, 4);
            wanted.before = page.last().map(|event| event.id);
            seen.extend(page.iter().map(|event| event.id));
            more = older;
        }
        assert_eq!(seen.len(), 15);
        assert!(seen.is_sorted_by(|newer, older| newer > older));
    }

    #[test]
    fn invented_kinds_are_counted_together() {
        let events = Events::default();
        (0..200).for_each(|kind| drop(events.tell("front", EventKind::Other(format!("k{kind}")), None, None)));
        let counts = events.counts();
        assert_eq!(counts.len(), KINDS + 1);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 200);
    }
}
