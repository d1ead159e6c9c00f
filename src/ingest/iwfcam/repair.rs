//! Asking for pieces that did not come.
//!
//! The camera is weak, so: once per 100 ms at most, a picture three times at most, and only where it helps. Whether a
//! model sends pieces again is not known before it was tried.

use super::config::Retransmission;
use super::reassembly::Reassembly;
use super::wire::{Acknowledgement, Item, TEG};
use std::time::{Duration, Instant};

/// A picture whose pieces stopped coming for so long misses some.
const QUIET: Duration = Duration::from_millis(40);
/// Between two datagrams that ask.
const PAUSE: Duration = Duration::from_millis(100);
/// Pieces asked for at once: a datagram of about 1 kB.
const MOST: usize = 128;
/// How often a picture is asked for.
const TIMES: u8 = 3;
/// Pictures asked for in vain after which a camera is taken not to understand.
const TRIES: u64 = 3;

/// Whether it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    /// It is not known yet whether the camera understands.
    Trying,
    On,
}

/// What is asked for, and when.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    mode: Mode,
    not_before: Option<Instant>,
}

impl Repair {
    /// Tells the reassembly whether to wait for pieces.
    pub(super) fn new(wanted: Retransmission, reassembly: &mut Reassembly) -> Self {
        let mode = match wanted {
            Retransmission::Off => Mode::Off,
            Retransmission::Auto => Mode::Trying,
            Retransmission::On => Mode::On,
        };
        let repair = Self { mode, not_before: None };
        reassembly.set_asking(repair.times());
        repair
    }

    fn times(&self) -> Option<u8> {
        match self.mode {
            Mode::Off => None,
            Mode::Trying => Some(1),
            Mode::On => Some(TIMES),
        }
    }

    /// Learns from what became of earlier requests; writes the next, if it is time.
    pub(super) fn request(
        &mut self,
        reassembly: &mut Reassembly,
        session: u32,
        fps: u8,
        now: Instant,
    ) -> Option<Vec<u8>> {
        if self.mode == Mode::Trying {
            let (repaired, futile) = reassembly.asked();
            let learnt = match (repaired, futile) {
                (1.., _) => Some(Mode::On),
                (0, TRIES..) => Some(Mode::Off),
                _ => None,
            };
            if let Some(mode) = learnt {
                self.mode = mode;
                reassembly.set_asking(self.times());
                let words = if mode == Mode::On { "sends" } else { "does not send" };
                tracing::info!("this camera {words} missing pieces of pictures again when asked to");
            }
        }
        let times = self.times()?;
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return None;
        }
        let pieces = reassembly.ask(now, QUIET, times, MOST);
        if pieces.is_empty() {
            return None;
        }
        self.not_before = Some(now + PAUSE);
        let item = |(number, fragment)| Item::Missing { stream: 0, number, fragment };
        Some(Acknowledgement { session, fps, items: pieces.into_iter().map(item).collect() }.write(TEG))
    }

    /// When [`request`](Self::request) may have something.
    pub(super) fn deadline(&self, reassembly: &Reassembly) -> Option<Instant> {
        let at = reassembly.asking_at(QUIET, self.times()?)?;
        Some(self.not_before.map_or(at, |not_before| at.max(not_before)))
    }
}
