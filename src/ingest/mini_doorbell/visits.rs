//! From uploads to visits: repeats are folded, torn attempts wait for the whole one, floods are dropped.
//!
//! A unit whose attempt fails builds a new header with a new sequence number around the same picture (firmware, read), so
//! a repeat is known by the unit and the picture, never by the sequence.

use super::upload::Upload;
use super::wire::BellId;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The same picture of the same unit within this time is the same visitor.
const REPEAT: Duration = Duration::from_secs(10);
/// A torn attempt waits so long for a whole one: the unit tries again after 50 ms.
const TORN: Duration = Duration::from_secs(2);
/// Visitors of one unit a minute.
const MOST_A_MINUTE: usize = 30;
/// Units that are remembered for a minute. More at once is a flood of invented ids.
const MOST_UNITS: usize = 1_024;

/// Somebody was at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The unit.
    pub id: BellId,
    /// What it was about; see [`function`](super::wire::function).
    pub function: u8,
    /// What came as the picture; empty if nothing did.
    pub body: Bytes,
    /// All of it came.
    pub whole: bool,
}

#[derive(Debug)]
struct Seen {
    id: BellId,
    at: Instant,
    length: usize,
    hash: [u8; 32],
}

#[derive(Debug)]
struct Torn {
    until: Instant,
    visit: Visit,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A visit, now.
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
        let id = upload.id();
        let visit = Visit { id, function: upload.header.function, body: upload.body, whole: upload.whole };
        let (length, hash) = (visit.body.len(), <[u8; 32]>::from(Sha256::digest(&visit.body)));
        if visit.whole {
            // This is what the torn one wanted to be.
            self.torn.retain(|torn| torn.visit.id != id);
        }
        let own = || self.seen.iter().filter(|seen| seen.id == id);
        let recent = |seen: &&Seen| now.saturating_duration_since(seen.at) <= REPEAT;
        if own().filter(recent).any(|seen| (seen.length, seen.hash) == (length, hash)) {
            return Verdict::Repeat;
        }
        if own().count() >= MOST_A_MINUTE || self.seen.len() >= MOST_UNITS * 2 || self.torn.len() >= MOST_UNITS {
            return Verdict::Flood;
        }
        if !visit.whole {
            // A beginning of a picture that came whole a moment ago is an old attempt that ended late.
            if own().any(|seen| recent(&seen)) {
                return Verdict::Repeat;
            }
            let until = now + TORN;
            self.torn.retain(|torn| torn.visit.id != id);
            self.torn.push(Torn { until, visit });
            return Verdict::Waits(until);
        }
        self.seen.push_back(Seen { id, at: now, length, hash });
        Verdict::New(visit)
    }

    /// Torn attempts that nothing better followed: a missed visitor is worse than a missing picture.
    pub fn due(&mut self, now: Instant) -> Vec<Visit> {
        let (due, waiting) = std::mem::take(&mut self.torn).into_iter().partition(|torn| torn.until <= now);
        self.torn = waiting;
        let due: Vec<Torn> = due;
        for torn in &due {
            let (length, hash) = (torn.visit.body.len(), Sha256::digest(&torn.visit.body).into());
            self.seen.push_back(Seen { id: torn.visit.id, at: now, length, hash });
        }
        due.into_iter().map(|torn| torn.visit).collect()
    }

    /// When [`Self::due`] has something.
    pub fn next_due(&self) -> Option<Instant> {
        self.torn.iter().map(|torn| torn.until).min()
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
        assert!(is_new(&visits.took(upload(BELL, 3, b"face", true), now + 11 * second)), "later");
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
