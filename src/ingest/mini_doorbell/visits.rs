//! From uploads to visits: repeats are folded, torn attempts wait for the whole one, floods are dropped.
//!
//! A unit whose attempt fails builds a new header with a new sequence number around the same picture (firmware, read), so
//! a repeat is known by the unit and the picture, never by the sequence.
//!
//! Memory is bounded: 4,096 fingerprints of pictures and 64 torn pictures, 4.3 MiB in all.

use super::upload::Upload;
use super::wire::{BellId, Header};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The same picture of the same unit within this time is the same visitor.
pub const REPEAT: Duration = Duration::from_secs(10);
/// A torn attempt waits so long for a whole one: the unit tries again after 50 ms.
pub const TORN: Duration = Duration::from_secs(2);
/// Visitors of one unit a minute.
const MOST_A_MINUTE: usize = 30;
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
    at: Instant,
    length: usize,
    hash: [u8; 32],
    whole: bool,
}

impl Seen {
    fn new(visit: &Visit, at: Instant) -> Self {
        Self {
            id: visit.id(),
            at,
            length: visit.body.len(),
            hash: Sha256::digest(&visit.body).into(),
            whole: visit.whole,
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

/// Visits of all units in the last minute.
#[derive(Debug, Default)]
pub struct Visits {
    seen: VecDeque<Seen>,
    torn: Vec<Torn>,
}

impl Visits {
    /// Judges an upload.
    pub fn took(&mut self, upload: Upload, now: Instant) -> Verdict {
        let minute = Duration::from_secs(60);
        while self.seen.front().is_some_and(|seen| now.saturating_duration_since(seen.at) > minute) {
            self.seen.pop_front();
        }
        let Upload { header, body, whole } = upload;
        let mut visit = Visit { header, body, whole, late: false };
        let id = visit.id();
        if whole {
            // This is what the torn one wanted to be.
            self.torn.retain(|torn| torn.visit.id() != id);
        }
        let own = || self.seen.iter().filter(|seen| seen.id == id);
        let recent = || own().filter(|seen| now.saturating_duration_since(seen.at) <= REPEAT);
        let new = Seen::new(&visit, now);
        let same = |seen: &Seen| seen.id == id && (seen.length, seen.hash) == (new.length, new.hash);
        if recent().any(same) {
            // Each repeat may be followed by another, on a network that is bad for long.
            self.seen.retain(|seen| !same(seen));
            self.remember(new);
            return Verdict::Repeat;
        }
        if own().count() >= MOST_A_MINUTE {
            return Verdict::Flood;
        }
        if !whole {
            // A beginning of a picture that came whole a moment ago is an old attempt that ended late.
            if recent().next().is_some() {
                return Verdict::Repeat;
            }
            self.torn.retain(|torn| torn.visit.id() != id);
            if self.torn.len() >= MOST_TORN {
                return Verdict::Flood;
            }
            if self.torn.iter().filter(|torn| !torn.visit.body.is_empty()).count() >= MOST_TORN_PICTURES {
                visit.body = Bytes::new();
            }
            let until = now + TORN;
            self.torn.push(Torn { until, visit });
            return Verdict::Waits(until);
        }
        visit.late = recent().any(|seen| !seen.whole && seen.begins(&visit.body));
        self.remember(new);
        Verdict::New(visit)
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
            self.remember(Seen::new(&torn.visit, now));
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

    const BELL: BellId = BellId([0, 0xff, 2, 0, 1, 2, 3, 0]);
    const OTHER: BellId = BellId([0, 0xff, 2, 0, 9, 9, 9, 0]);

    fn upload(id: BellId, sequence: u16, body: &'static [u8], whole: bool) -> Upload {
        Upload { header: Header::new(id, function::VISITOR, sequence, 4), body: Bytes::from_static(body), whole }
    }

    fn is_new(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::New(_))
    }

    #[test]
    fn the_same_picture_twice_is_one_visitor() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(is_new(&visits.took(upload(BELL, 1, b"face", true), now)));
        assert_eq!(visits.took(upload(BELL, 2, b"face", true), now + second), Verdict::Repeat);
        assert!(is_new(&visits.took(upload(OTHER, 1, b"face", true), now + second)), "another bell");
        assert!(is_new(&visits.took(upload(BELL, 2, b"other face", true), now + second)), "another picture");
        // Ten seconds after the last of them it is another visitor.
        for n in 1..10 {
            assert_eq!(visits.took(upload(BELL, 3, b"face", true), now + n * 9 * second), Verdict::Repeat);
        }
        assert!(is_new(&visits.took(upload(BELL, 3, b"face", true), now + 92 * second)), "later");
    }

    #[test]
    fn a_torn_attempt_and_a_whole_one_are_one_visitor() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        let verdict = visits.took(upload(BELL, 1, b"fa", false), now);
        assert_eq!(verdict, Verdict::Waits(now + TORN));
        let soon = now + Duration::from_millis(50);
        assert!(is_new(&visits.took(upload(BELL, 2, b"face", true), soon)));
        assert_eq!((visits.next_due(), visits.due(now + TORN).len()), (None, 0));
        assert_eq!(visits.took(upload(BELL, 1, b"fa", false), soon), Verdict::Repeat, "an end that comes late");
    }

    #[test]
    fn a_torn_attempt_alone_is_a_visitor_after_a_while() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        visits.took(upload(BELL, 1, b"fa", false), now);
        visits.took(upload(BELL, 2, b"fac", false), now);
        assert!(visits.due(now).is_empty());
        let due = visits.due(now + TORN);
        assert_eq!(due.len(), 1);
        assert_eq!((&due[0].body[..], due[0].whole), (&b"fac"[..], false));
        assert_eq!(visits.took(upload(BELL, 3, b"fac", false), now + TORN), Verdict::Repeat);
        // The whole one comes after all: its picture belongs to that visitor.
        let Verdict::New(late) = visits.took(upload(BELL, 4, b"face", true), now + 2 * TORN) else {
            panic!("no visit")
        };
        assert!(late.late);
        let Verdict::New(other) = visits.took(upload(BELL, 5, b"other", true), now + 2 * TORN) else { panic!("none") };
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
            told += usize::from(matches!(visits.took(upload, now), Verdict::Waits(_)));
            assert!(visits.held() <= MOST_TORN_PICTURES * 60_000);
        }
        assert_eq!((told, visits.due(now + TORN).len(), visits.held()), (MOST_TORN, MOST_TORN, 0));
        for n in 0..10_000_u32 {
            let id = BellId(u64::from(n).to_be_bytes());
            assert!(is_new(&visits.took(upload(id, 1, b"other", true), now + TORN)), "{n}");
        }
        assert!(visits.seen.len() <= MOST_SEEN);
    }

    #[test]
    fn a_flood_is_dropped_and_others_are_not() {
        let (mut visits, now) = (Visits::default(), Instant::now());
        let bodies: Vec<Upload> =
            (0..40_u8).map(|n| Upload { body: Bytes::copy_from_slice(&[n]), ..upload(BELL, 1, b"", true) }).collect();
        let verdicts: Vec<_> = bodies.into_iter().map(|upload| visits.took(upload, now)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| is_new(verdict)).count(), MOST_A_MINUTE);
        assert_eq!(verdicts.last(), Some(&Verdict::Flood));
        assert!(is_new(&visits.took(upload(OTHER, 1, b"face", true), now)));
        assert!(is_new(&visits.took(upload(BELL, 1, b"face", true), now + Duration::from_secs(61))));
    }
}
