//! Pieces to pictures. A picture comes out whole or not at all.
//!
//! Pieces may come in any order, twice, or not at all, and pieces of several pictures mixed. The rules, whose reasons
//! are measurements of what a client without them does (1 % loss: damaged pictures among those it shows):
//!
//! 1. The first piece of a new number opens a picture; pieces of the last 64 numbers that are done with are dropped. A
//!    number far from the newest means that the camera counts anew: everything is forgotten.
//! 2. A piece that is there already is dropped.
//! 3. Where the first piece told how many there are, the picture is whole when all of them are there; the bytes must
//!    be as many as it told.
//! 4. Where it did not, the pieces from the first to the last seen must be there, begin with FF D8 and end with FF D9,
//!    and either a later picture has begun or nothing more came for 30 ms.
//! 5. A picture is given up when two later ones are whole, or after 300 ms (1 s while pieces are asked for again).
//! 6. Pictures leave in the order of their numbers. For a number that was not seen at all, the next waits 30 ms.
//!
//! **What loss costs**: where each piece is lost with the chance p, a picture of k pieces arrives whole with the chance
//! (1 - p)^k. Every picture that arrives whole leaves, whatever the order and the doubles. For k = 7, with 3 % late and 3 %
//! doubled, of 910 pictures each (and of 400 where pieces are asked for again):
//!
//! | lost | (1 - p)^7 | published | published where pieces are asked for again |
//! |------|-----------|-----------|--------------------------------------------|
//! | 1 %  | 0.932     | 0.937     |                                            |
//! | 5 %  | 0.698     | 0.724     | 0.998                                      |
//! | 10 % | 0.478     | 0.466     | 0.995                                      |
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::wire::{MOST_FRAGMENTS, Media, PictureHead};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Finished numbers that are remembered.
const REMEMBERED: usize = 64;
/// A number that is further ahead of the newest than this, or more than [`REMEMBERED`] behind, is no neighbour of it.
const AHEAD: i16 = 128;
/// Pictures that may be unfinished at once, and while pieces are asked for again.
const OPEN: (usize, usize) = (8, 32);
/// How long a picture may take, and while pieces are asked for again.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// Quiet for so long, a picture that looks whole is; and a number that nobody has seen is not coming.
const QUIET: Duration = Duration::from_millis(30);
/// What was asked for comes within this, or not at all.
const ANSWER: Duration = Duration::from_millis(120);
/// The largest picture: vendors' cameras refuse more than 132,096 bytes, their app 2048 pieces of 1032.
const MOST_BYTES: usize = 2 << 20;
/// What unfinished pictures may hold together.
const MOST_HELD: usize = 4 << 20;
/// So much padding behind the end of a picture is cut off; more is no padding.
const PADDING: usize = 64;

/// What became of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is whole: JPEG, from FF D8 to FF D9.
    Picture(Whole),
    /// It is whole, but H.264 or H.265 with start codes.
    AnnexB,
    /// It never came whole, or is none.
    Lost {
        /// Its number.
        number: u16,
        /// Pieces that did not come, as far as that is known.
        missing: usize,
    },
}

/// A whole picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its number.
    pub number: u16,
    /// FF D8 to FF D9.
    pub bytes: Bytes,
    /// The camera's clock in milliseconds, where it tells it.
    pub clock: Option<u32>,
    /// When its first piece came.
    pub begun: Instant,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is kept.
    Kept,
    /// It was there already.
    Doubled,
    /// Its picture is done with, or later ones are out already.
    Late,
    /// It contradicts itself or what came before.
    Bad,
}

/// Pictures that are not finished.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    /// In the order of their numbers.
    open: VecDeque<Picture>,
    /// Bytes of `open`.
    held: usize,
    /// Numbers of pictures that are done with, newest last.
    done: VecDeque<u16>,
    /// Numbers of recent blocks of sound: one counter for both is usual.
    others: VecDeque<u16>,
    newest: Option<u16>,
    /// The number after the last that left.
    next: Option<u16>,
    /// Pieces are asked for again, so many times a picture.
    asking: Option<u8>,
    restarted: usize,
    repaired: u64,
    futile: u64,
}

#[derive(Clone, Debug)]
struct Picture {
    number: u16,
    head: Option<PictureHead>,
    /// In the order of their arrival.
    bytes: Vec<u8>,
    /// Where in `bytes` each piece is.
    pieces: Vec<Option<Range<usize>>>,
    count: usize,
    broken: bool,
    begun: Instant,
    /// When the newest piece came.
    last: Instant,
    asked: u8,
    asked_at: Instant,
    answered: bool,
}

/// Whether `a` comes before `b`, modulo 65,536.
fn before(a: u16, b: u16) -> bool {
    a != b && a.wrapping_sub(b) > 0x7fff
}

fn remember(ring: &mut VecDeque<u16>, number: u16) {
    if ring.len() == REMEMBERED {
        ring.pop_front();
    }
    ring.push_back(number);
}

impl Reassembly {
    /// Forgets everything, as after a login. Pictures that were unfinished are told as lost by the next
    /// [`poll`](Self::poll).
    pub fn clear(&mut self) {
        let restarted = self.restarted + self.open.len();
        let (asking, repaired, futile) = (self.asking, self.repaired, self.futile);
        *self = Self { asking, restarted, repaired, futile, ..Self::default() };
    }

    /// Pieces are asked for again, so many times a picture, or not: whether to wait for them.
    pub fn set_asking(&mut self, times: Option<u8>) {
        self.asking = times;
    }

    /// How many pictures got pieces that had been asked for, and how many did not although they had been asked for.
    pub fn asked(&self) -> (u64, u64) {
        (self.repaired, self.futile)
    }

    /// That number is a block of sound, so there is no picture of it to wait for.
    pub fn other(&mut self, number: u16) {
        remember(&mut self.others, number);
    }

    /// Takes a piece of a picture.
    pub fn push(&mut self, piece: &Media<'_>, now: Instant) -> Piece {
        let (number, head) = (piece.number, piece.picture_head());
        if self.done.contains(&number) {
            return Piece::Late;
        }
        if let Some(newest) = self.newest {
            let ahead = number.wrapping_sub(newest) as i16;
            if ahead > AHEAD || ahead < -(REMEMBERED as i16) {
                self.clear();
            }
        }
        if self.next.is_some_and(|next| before(number, next)) {
            return Piece::Late;
        }
        if head.is_some_and(|head| !plausible(head)) {
            return Piece::Bad;
        }
        let at = self.open.partition_point(|picture| before(picture.number, number));
        if self.open.get(at).is_none_or(|picture| picture.number != number) {
            self.open.insert(at, Picture::new(number, now));
            if self.newest.is_none_or(|newest| before(newest, number)) {
                self.newest = Some(number);
            }
        }
        let Some(picture) = self.open.get_mut(at) else { return Piece::Bad };
        let result = picture.push(piece, head, now);
        if result == Piece::Kept {
            self.held += piece.body.len();
        }
        result
    }

    /// What is to be told next.
    pub fn poll(&mut self, now: Instant) -> Option<Came> {
        if self.restarted > 0 {
            self.restarted -= 1;
            return Some(Came::Lost { number: self.newest.unwrap_or(0), missing: 0 });
        }
        let crowded = self.open.len() > self.limit(OPEN) || self.held > MOST_HELD;
        let front = self.open.front()?;
        let out = if front.broken {
            true
        } else if self.is_whole(front, now) {
            crowded || self.follows(front.number) || now >= front.last + QUIET
        } else {
            let overtaken = self.asking.is_none() && {
                let later = self.open.iter().skip(1).filter(|picture| self.is_whole(picture, now));
                later.take(2).count() == 2
            };
            crowded || overtaken || now >= self.given_up(front)
        };
        if !out {
            return None;
        }
        let whole = self.is_whole(front, now);
        let picture = self.open.pop_front()?;
        self.held = self.held.saturating_sub(picture.bytes.len());
        self.next = Some(picture.number.wrapping_add(1));
        remember(&mut self.done, picture.number);
        self.repaired += u64::from(picture.answered);
        self.futile += u64::from(picture.asked > 0 && !picture.answered);
        Some(picture.finish(whole))
    }

    /// When [`poll`](Self::poll), which has nothing to tell now, may have something even if nothing comes.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let front = self.open.front()?;
        let quiet = self.open.iter().filter(|picture| picture.looks_whole()).map(|picture| picture.last + QUIET);
        // What is whole and waits for the one before is not given up.
        let front = if self.is_whole(front, now) { front.last + QUIET } else { self.given_up(front) };
        quiet.filter(|at| *at > now).chain([front]).min()
    }

    /// Pieces to ask for again, as number and piece: of pictures for which nothing came for `quiet`, unless they were
    /// asked for `times` times or a moment ago. Counts them as asked for.
    pub fn ask(&mut self, now: Instant, quiet: Duration, times: u8, most: usize) -> Vec<(u16, u16)> {
        let newest = self.newest;
        let mut asked = Vec::new();
        for picture in &mut self.open {
            if picture.asking_at(quiet, times).is_none_or(|at| now < at) {
                continue;
            }
            let missing = picture.missing(newest == Some(picture.number));
            let room = most.saturating_sub(asked.len());
            if missing.is_empty() || room == 0 {
                continue;
            }
            asked.extend(missing.into_iter().take(room).map(|piece| (picture.number, piece)));
            picture.asked += 1;
            picture.asked_at = now;
        }
        asked
    }

    /// When [`ask`](Self::ask) has something to ask for.
    pub fn asking_at(&self, quiet: Duration, times: u8) -> Option<Instant> {
        let newest = self.newest;
        let incomplete = self.open.iter().filter(|picture| !picture.missing(newest == Some(picture.number)).is_empty());
        incomplete.filter_map(|picture| picture.asking_at(quiet, times)).min()
    }

    fn limit<T>(&self, (usually, asking): (T, T)) -> T {
        if self.asking.is_some() { asking } else { usually }
    }

    fn is_whole(&self, picture: &Picture, now: Instant) -> bool {
        let later = self.newest.is_some_and(|newest| before(picture.number, newest));
        picture.looks_whole() && (picture.head.is_some() || later || now >= picture.last + QUIET)
    }

    /// Whether every number between the last that left and this one is sound.
    fn follows(&self, number: u16) -> bool {
        self.next.is_some_and(|next| {
            let gap = number.wrapping_sub(next);
            usize::from(gap) <= REMEMBERED && (0..gap).all(|step| self.others.contains(&next.wrapping_add(step)))
        })
    }

    fn given_up(&self, picture: &Picture) -> Instant {
        let patience = picture.begun + self.limit(PATIENCE);
        match self.asking {
            Some(times) if picture.asked >= times => patience.min(picture.asked_at + ANSWER),
            _ => patience,
        }
    }
}

fn plausible(head: PictureHead) -> bool {
    let (fragments, total) = (head.fragments as usize, head.total as usize);
    (1..=MOST_FRAGMENTS).contains(&fragments) && (fragments..=MOST_BYTES).contains(&total)
}

impl Picture {
    fn new(number: u16, now: Instant) -> Self {
        Self {
            number,
            head: None,
            bytes: Vec::new(),
            pieces: Vec::new(),
            count: 0,
            broken: false,
            begun: now,
            last: now,
            asked: 0,
            asked_at: now,
            answered: false,
        }
    }

    fn push(&mut self, piece: &Media<'_>, head: Option<PictureHead>, now: Instant) -> Piece {
        let index = usize::from(piece.fragment);
        if self.pieces.get(index).is_some_and(Option::is_some) {
            return Piece::Doubled;
        }
        if self.head.is_some_and(|head| index >= head.fragments as usize) {
            return Piece::Bad;
        }
        if let Some(head) = head {
            // Pieces beyond what it tells are there already, so one of them lies.
            self.broken |= self.pieces.len() > head.fragments as usize;
            self.bytes.reserve((head.total as usize).saturating_sub(self.bytes.len()));
            self.head = Some(head);
        }
        if self.pieces.len() <= index {
            self.pieces.resize(index + 1, None);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(piece.body);
        if let Some(slot) = self.pieces.get_mut(index) {
            *slot = Some(start..self.bytes.len());
        }
        self.count += 1;
        self.last = now;
        self.answered |= self.asked > 0;
        let total = self.head.map_or(MOST_BYTES, |head| head.total as usize);
        self.broken |= self.bytes.len() > total;
        Piece::Kept
    }

    /// All pieces are there, as far as can be told.
    fn looks_whole(&self) -> bool {
        match self.head {
            Some(head) => self.count == head.fragments as usize,
            None => {
                self.count == self.pieces.len()
                    && self.piece(0).starts_with(&[0xff, 0xd8])
                    && end_of_image(&self.tail()).is_some()
            }
        }
    }

    fn piece(&self, index: usize) -> &[u8] {
        let range = self.pieces.get(index).cloned().flatten();
        range.and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    /// The last bytes of the last pieces, as many as it takes to see the end: it may lie across two pieces.
    fn tail(&self) -> Vec<u8> {
        let mut tail = VecDeque::new();
        for index in (0..self.pieces.len()).rev() {
            let piece = self.piece(index);
            if piece.is_empty() || tail.len() >= PADDING {
                break;
            }
            piece.iter().rev().take(PADDING).for_each(|byte| tail.push_front(*byte));
        }
        tail.into()
    }

    /// Pieces that are not there. Where nobody told how many there are: those before the last seen, and three more if
    /// that is not the end and the picture is the newest; later ones may not exist.
    fn missing(&self, newest: bool) -> Vec<u16> {
        let end = match self.head {
            Some(head) if newest => (head.fragments as usize).min(self.pieces.len() + 3),
            Some(head) => head.fragments as usize,
            None => {
                let ended = end_of_image(&self.tail()).is_some();
                (self.pieces.len() + if ended { 0 } else { 3 }).min(MOST_FRAGMENTS)
            }
        };
        (0..end).filter(|index| self.pieces.get(*index).is_none_or(Option::is_none)).map(|index| index as u16).collect()
    }

    fn asking_at(&self, quiet: Duration, times: u8) -> Option<Instant> {
        let again = if self.asked == 0 { self.begun } else { self.asked_at + ANSWER };
        (self.asked < times && !self.broken).then(|| again.max(self.last + quiet))
    }

    /// The picture, if it is one.
    fn finish(self, whole: bool) -> Came {
        let expected = self.head.map_or(self.pieces.len(), |head| head.fragments as usize);
        let missing = expected.saturating_sub(self.count);
        let lost = Came::Lost { number: self.number, missing };
        let told = self.head.is_none_or(|head| head.total as usize == self.bytes.len());
        if !whole || self.broken || !told {
            return lost;
        }
        let clock = self.head.map(|head| head.clock);
        let (number, begun) = (self.number, self.begun);
        let mut bytes = self.in_order();
        if bytes.starts_with(&[0xff, 0xd8]) {
            let Some(end) = end_of_image(&bytes) else { return lost };
            bytes.truncate(end);
            Came::Picture(Whole { number, bytes: bytes.into(), clock, begun })
        } else if bytes.iter().take(12).collect::<Vec<_>>().windows(3).any(|code| matches!(code, [0, 0, 1])) {
            Came::AnnexB
        } else {
            lost
        }
    }

    /// The bytes in the order of the pieces: as they are, if they came so.
    fn in_order(self) -> Vec<u8> {
        let starts = self.pieces.iter().flatten().map(|range| range.start);
        if starts.is_sorted() {
            return self.bytes;
        }
        let pieces = self.pieces.iter().flatten().filter_map(|range| self.bytes.get(range.clone()));
        pieces.flatten().copied().collect()
    }
}

/// Where the picture ends that ends these bytes, but for padding.
fn end_of_image(bytes: &[u8]) -> Option<usize> {
    let from = bytes.len().saturating_sub(PADDING);
    let tail = bytes.get(from..)?;
    tail.windows(2).rposition(|marker| marker == [0xff, 0xd9]).map(|at| from + at + 2)
}

#[cfg(test)]
mod tests;
