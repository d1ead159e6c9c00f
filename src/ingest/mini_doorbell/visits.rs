//! From uploads to visits: repeats are folded, torn attempts wait for the whole one, floods are dropped.
//!
//! A unit whose attempt fails builds a new header with a new sequence number around the same picture (firmware, read), so
//! a repeat is known by the unit and the picture, never by the sequence.
//!
//! Anybody on the network can send a unit's id, so that nobody mutes a unit by ringing in its name: each address that
//! uses an id has an allowance of its own, uploads without a picture are a part of it, and the address that is known to
//! send the unit's pictures does not share what all others may send together. Torn attempts and their repeats are matched
//! within one address.
//!
//! Memory is bounded: 4,096 fingerprints of pictures, 64 torn pictures and 1,024 addresses, 4.6 MiB in all.

use super::picture;
use super::upload::Upload;
use super::wire::{BellId, Header};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The same picture of the same unit within this time is the same visitor.
pub const REPEAT: Duration = Duration::from_secs(10);
/// A torn attempt waits so long for a whole one: the unit tries again after 50 ms.
pub const TORN: Duration = Duration::from_secs(2);
/// Visitors a minute that one address may tell of one unit.
const MOST_A_MINUTE: usize = 30;
/// How many of them may come without a picture that can be shown.
const MOST_POOR: usize = 10;
/// Visitors a minute that all addresses together may tell of one unit, but for the one that is known to be the unit's.
const MOST_OF_OTHERS: usize = 3 * MOST_A_MINUTE;
/// How many of them may come without a picture that can be shown.
const MOST_POOR_OF_OTHERS: usize = 3 * MOST_POOR;
/// Units whose addresses are known.
const MOST_UNITS: usize = 1_024;
/// A unit has moved if nothing came from its address for so long, and a picture comes from another. This long, because
/// bells may be silent for days, and else whoever waits could take the unit's place.
const MOVED: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Visits that are remembered for a minute. More at once is a flood of invented ids, and the oldest are forgotten.
const MOST_SEEN: usize = 4_096;
/// Torn pictures that are kept. More lose their bytes, but are visits still.
const MOST_TORN_PICTURES: usize = 64;
/// Torn attempts that wait. More are dropped.
const MOST_TORN: usize = 1_024;

/// Somebody was at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// What the unit says; among it, what the visit is about: [`function`](super::wire::function).
    pub header: Header,
    /// What came as the picture; empty if nothing did.
    pub body: Bytes,
    /// All of it came.
    pub whole: bool,
    /// The picture of a visit that was told before, without it: no new visitor.
    pub late: bool,
}

impl Visit {
    /// The unit.
    pub fn id(&self) -> BellId {
        self.header.id
    }
}

#[derive(Debug)]
struct Seen {
    id: BellId,
    from: IpAddr,
    at: Instant,
    length: usize,
    hash: [u8; 32],
    whole: bool,
    /// It is a picture, as far as its markers tell.
    usable: bool,
}

impl Seen {
    fn new(visit: &Visit, from: IpAddr, at: Instant) -> Self {
        Self {
            id: visit.id(),
            from,
            at,
            length: visit.body.len(),
            hash: Sha256::digest(&visit.body).into(),
            whole: visit.whole,
            usable: visit.whole && picture::look(&visit.body).is_ok(),
        }
    }

    /// Whether that picture begins with what came here.
    fn begins(&self, body: &[u8]) -> bool {
        body.get(..self.length).is_some_and(|start| <[u8; 32]>::from(Sha256::digest(start)) == self.hash)
    }
}

#[derive(Debug)]
struct Torn {
    until: Instant,
    from: IpAddr,
    visit: Visit,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A visit, now; or the picture of one, if it is [late](Visit::late).
    New(Visit),
    /// Seen already.
    Repeat,
    /// Torn: it is a visit unless a whole one comes until then.
    Waits(Instant),
    /// Too many in a minute.
    Flood,
}

/// Where a unit's pictures come from.
#[derive(Debug)]
struct Home {
    address: IpAddr,
    last: Instant,
}

impl Home {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > MOVED
    }
}

/// Visits of all units in the last minute.
#[derive(Debug, Default)]
pub struct Visits {
    seen: VecDeque<Seen>,
    torn: Vec<Torn>,
    homes: HashMap<BellId, Home>,
}

impl Visits {
    /// Judges an upload from that address.
    pub fn took(&mut self, upload: Upload, from: IpAddr, now: Instant) -> Verdict {
        let minute = Duration::from_secs(60);
        while self.seen.front().is_some_and(|seen| now.saturating_duration_since(seen.at) > minute) {
            self.seen.pop_front();
        }
        let Upload { header, body, whole } = upload;
        let mut visit = Visit { header, body, whole, late: false };
        let id = visit.id();
        if whole {
            // This is what the torn one wanted to be.
            self.torn.retain(|torn| (torn.visit.id(), torn.from) != (id, from));
        }
        let recent = || {
            let own = self.seen.iter().filter(|seen| seen.id == id);
            own.filter(|seen| now.saturating_duration_since(seen.at) <= REPEAT)
        };
        let recent_here = || recent().filter(|seen| seen.from == from);
        let new = Seen::new(&visit, from, now);
        let same = |seen: &Seen| seen.id == id && (seen.length, seen.hash) == (new.length, new.hash);
        if recent().any(same) {
            // Each repeat may be followed by another, on a network that is bad for long.
            self.seen.retain(|seen| !same(seen));
            self.remember(new);
            return Verdict::Repeat;
        }
        if !self.allows(&new) {
            return Verdict::Flood;
        }
        if !whole {
            // A beginning of a picture that came whole a moment ago is an old attempt that ended late.
            if recent_here().next().is_some() {
                return Verdict::Repeat;
            }
            self.torn.retain(|torn| (torn.visit.id(), torn.from) != (id, from));
            if self.torn.len() >= MOST_TORN {
                return Verdict::Flood;
            }
            if self.torn.iter().filter(|torn| !torn.visit.body.is_empty()).count() >= MOST_TORN_PICTURES {
                visit.body = Bytes::new();
            }
            let until = now + TORN;
            self.torn.push(Torn { until, from, visit });
            return Verdict::Waits(until);
        }
        visit.late = recent_here().any(|seen| !seen.whole && seen.begins(&visit.body));
        self.settle(&new);
        self.remember(new);
        Verdict::New(visit)
    }

    /// Whether the unit, and who speaks for it, may tell of one more.
    fn allows(&self, new: &Seen) -> bool {
        let home = self.homes.get(&new.id).map(|home| home.address);
        let fits = |of: &dyn Fn(&Seen) -> bool, most: usize, most_poor: usize| {
            let (mut all, mut poor) = (0, 0);
            for seen in self.seen.iter().filter(|seen| seen.id == new.id && of(seen)) {
                all += 1;
                poor += usize::from(!seen.usable);
            }
            all < most && (new.usable || poor < most_poor)
        };
        fits(&|seen| seen.from == new.from, MOST_A_MINUTE, MOST_POOR)
            && (home == Some(new.from) || fits(&|seen| Some(seen.from) != home, MOST_OF_OTHERS, MOST_POOR_OF_OTHERS))
    }

    /// Learns where a unit's pictures come from. Who has a place keeps it.
    fn settle(&mut self, new: &Seen) {
        if !new.usable {
            return;
        }
        let home = Home { address: new.from, last: new.at };
        match self.homes.get_mut(&new.id) {
            Some(old) if old.address == new.from || old.is_old(new.at) => *old = home,
            Some(_) => {}
            None => {
                if self.homes.len() >= MOST_UNITS {
                    self.homes.retain(|_, home| !home.is_old(new.at));
                }
                if self.homes.len() < MOST_UNITS {
                    self.homes.insert(new.id, home);
                }
            }
        }
    }

    fn remember(&mut self, seen: Seen) {
        if self.seen.len() >= MOST_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    /// Torn attempts that nothing better followed: a missed visitor is worse than a missing picture.
    pub fn due(&mut self, now: Instant) -> Vec<Visit> {
        let (due, waiting) = std::mem::take(&mut self.torn).into_iter().partition(|torn| torn.until <= now);
        self.torn = waiting;
        let due: Vec<Torn> = due;
        for torn in &due {
            self.remember(Seen::new(&torn.visit, torn.from, now));
        }
        due.into_iter().map(|torn| torn.visit).collect()
    }

    /// When [`Self::due`] has something.
    pub fn next_due(&self) -> Option<Instant> {
        self.torn.iter().map(|torn| torn.until).min()
    }

    /// Bytes of torn pictures that wait.
    pub fn held(&self) -> usize {
        self.torn.iter().map(|torn| torn.visit.body.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Header, function};
    use super::*;
    use crate::ingest::testing::picture;
    use std::net::Ipv4Addr;

    const BELL: BellId = BellId([0, 0xff, 2, 0, 1, 2, 3, 0]);
    const OTHER: BellId = BellId([0, 0xff, 2, 0, 9, 9, 9, 0]);

    fn upload(id: BellId, sequence: u16, body: &'static [u8], whole: bool) -> Upload {
        Upload { header: Header::new(id, function::VISITOR, sequence, 4), body: Bytes::from_static(body), whole }
    }

    const UNIT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 20));
    const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 21));
    const FAKE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 66));

    fn is_new(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::New(_))
    }

    #[test]
    fn the_same_picture_twice_is_one_visitor() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(is_new(&visits.took(upload(BELL, 1, b"face", true), UNIT, now)));
        assert_eq!(visits.took(upload(BELL, 2, b"face", true), UNIT, now + second), Verdict::Repeat);
        assert!(is_new(&visits.took(upload(OTHER, 1, b"face", true), UNIT, now + second)), "another bell");
        assert!(is_new(&visits.took(upload(BELL, 2, b"other face", true), UNIT, now + second)), "another picture");
        // Ten seconds after the last of them it is another visitor.
        for n in 1..10 {
            assert_eq!(visits.took(upload(BELL, 3, b"face", true), UNIT, now + n * 9 * second), Verdict::Repeat);
        }
        assert!(is_new(&visits.took(upload(BELL, 3, b"face", true), UNIT, now + 92 * second)), "later");
    }

    #[test]
    fn a_torn_attempt_and_a_whole_one_are_one_visitor() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        let verdict = visits.took(upload(BELL, 1, b"fa", false), UNIT, now);
        assert_eq!(verdict, Verdict::Waits(now + TORN));
        let soon = now + Duration::from_millis(50);
        assert!(is_new(&visits.took(upload(BELL, 2, b"face", true), UNIT, soon)));
        assert_eq!((visits.next_due(), visits.due(now + TORN).len()), (None, 0));
        assert_eq!(visits.took(upload(BELL, 1, b"fa", false), UNIT, soon), Verdict::Repeat, "an end that comes late");
    }

    #[test]
    fn a_torn_attempt_alone_is_a_visitor_after_a_while() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        visits.took(upload(BELL, 1, b"fa", false), UNIT, now);
        visits.took(upload(BELL, 2, b"fac", false), UNIT, now);
        assert!(visits.due(now).is_empty());
        let due = visits.due(now + TORN);
        assert_eq!(due.len(), 1);
        assert_eq!((&due[0].body[..], due[0].whole), (&b"fac"[..], false));
        assert_eq!(visits.took(upload(BELL, 3, b"fac", false), UNIT, now + TORN), Verdict::Repeat);
        // The whole one comes after all: its picture belongs to that visitor.
        let Verdict::New(late) = visits.took(upload(BELL, 4, b"face", true), UNIT, now + 2 * TORN) else {
            panic!("no visit")
        };
        assert!(late.late);
        let Verdict::New(other) = visits.took(upload(BELL, 5, b"other", true), UNIT, now + 2 * TORN) else {
            panic!("none")
        };
        assert!(!other.late);
    }

    #[test]
    fn torn_pictures_of_many_units_are_bounded() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        let body = Bytes::from(vec![0; 60_000]);
        let mut told = 0;
        for n in 0..3_000_u32 {
            let id = BellId(u64::from(n).to_be_bytes());
            let upload = Upload { body: body.clone(), ..upload(id, 1, b"", false) };
            told += usize::from(matches!(visits.took(upload, UNIT, now), Verdict::Waits(_)));
            assert!(visits.held() <= MOST_TORN_PICTURES * 60_000);
        }
        assert_eq!((told, visits.due(now + TORN).len(), visits.held()), (MOST_TORN, MOST_TORN, 0));
        for n in 0..10_000_u32 {
            let id = BellId(u64::from(n).to_be_bytes());
            assert!(is_new(&visits.took(upload(id, 1, b"other", true), UNIT, now + TORN)), "{n}");
        }
        assert!(visits.seen.len() <= MOST_SEEN);
    }

    /// Rings in a minute that are heard, of so many different ones.
    fn heard(visits: &mut Visits, from: IpAddr, bodies: impl Iterator<Item = Bytes>, now: Instant) -> usize {
        let verdicts = bodies.map(|body| visits.took(Upload { body, ..upload(BELL, 1, b"", true) }, from, now));
        verdicts.filter(is_new).count()
    }

    /// Pictures that can be shown, all different: bytes behind a picture's end are no fault.
    fn pictures(of: &'static str, count: u16) -> impl Iterator<Item = Bytes> {
        let good = picture(16, 16, 1);
        (0..count).map(move |n| Bytes::from([&good[..], of.as_bytes(), &n.to_be_bytes()].concat()))
    }

    fn tiny(of: u8, count: u8) -> impl Iterator<Item = Bytes> {
        (0..count).map(move |n| Bytes::copy_from_slice(&[of, n]))
    }

    #[test]
    fn a_flood_is_dropped_and_others_are_not() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        assert_eq!(heard(&mut visits, UNIT, pictures("a", 40), now), MOST_A_MINUTE);
        assert_eq!(visits.took(upload(BELL, 1, b"face", true), UNIT, now), Verdict::Flood);
        assert!(is_new(&visits.took(upload(OTHER, 1, b"face", true), UNIT, now)));
        assert!(is_new(&visits.took(upload(BELL, 1, b"face", true), UNIT, now + Duration::from_secs(61))));
    }

    #[test]
    fn nobody_mutes_a_bell_by_ringing_in_its_name() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        assert_eq!(heard(&mut visits, FAKE, tiny(99, 40), now), MOST_POOR);
        assert_eq!(heard(&mut visits, UNIT, pictures("real", 1), now), 1, "a unit of which nothing is known yet");
        assert_eq!(heard(&mut visits, FAKE, pictures("fake", 40), now), MOST_A_MINUTE - MOST_POOR);
        // Who has many addresses has not more than all others together may send; the unit's own is not among them.
        let fakes = (0..40_u8).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)));
        let more: usize = (0..).zip(fakes.clone()).map(|(of, fake)| heard(&mut visits, fake, tiny(of, 40), now)).sum();
        assert_eq!(more, MOST_POOR_OF_OTHERS - MOST_POOR);
        let more: usize = ["a", "b", "c", "d"]
            .into_iter()
            .zip(fakes)
            .map(|(of, fake)| heard(&mut visits, fake, pictures(of, 40), now))
            .sum();
        assert_eq!(more, MOST_OF_OTHERS - MOST_A_MINUTE - (MOST_POOR_OF_OTHERS - MOST_POOR));
        assert_eq!(heard(&mut visits, UNIT, pictures("real again", 40), now), MOST_A_MINUTE - 1);
    }

    #[test]
    fn a_torn_attempt_is_not_spoilt_from_elsewhere() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        assert!(is_new(&visits.took(upload(BELL, 1, b"fake", true), FAKE, now)));
        assert_eq!(visits.took(upload(BELL, 1, b"fa", false), UNIT, now), Verdict::Waits(now + TORN));
        assert!(is_new(&visits.took(upload(BELL, 1, b"more", true), FAKE, now)));
        visits.took(upload(BELL, 1, b"", false), FAKE, now);
        assert_eq!(visits.due(now + TORN).iter().map(|visit| &visit.body[..]).collect::<Vec<_>>(), [b"fa"]);
        // A beginning from elsewhere makes no visitor late.
        visits.took(upload(OTHER, 1, b"f", false), FAKE, now);
        assert_eq!(visits.due(now + TORN).len(), 1);
        let Verdict::New(visit) = visits.took(upload(OTHER, 1, b"face", true), UNIT, now + TORN) else {
            panic!("no visit")
        };
        assert!(!visit.late);
    }

    #[test]
    fn a_unit_keeps_its_address_and_may_move() {
        let (mut visits, start) = (Visits::default(), Instant::now());
        let home = |visits: &Visits| visits.homes.get(&BELL).map(|home| home.address);
        heard(&mut visits, UNIT, tiny(0, 1), start);
        assert_eq!(home(&visits), None, "anybody can send that");
        heard(&mut visits, UNIT, pictures("a", 1), start);
        heard(&mut visits, FAKE, pictures("b", 1), start + MOVED);
        assert_eq!(home(&visits), Some(UNIT));
        for n in 0..2 * MOST_UNITS as u64 {
            let (id, body) = (BellId(n.to_be_bytes()), picture(16, 16, 1));
            visits.took(Upload { body, ..upload(id, 1, b"", true) }, FAKE, start + MOVED);
        }
        assert_eq!((home(&visits), visits.homes.len()), (Some(UNIT), MOST_UNITS));
        heard(&mut visits, OTHERS, pictures("c", 1), start + MOVED + REPEAT);
        assert_eq!(home(&visits), Some(OTHERS));
    }
}
