//! What goes wrong with a simulated camera, on request: before its start or while it runs.

use gstreamer as gst;
use gstreamer::prelude::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Faults that a camera starts with. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The camera falls silent after it has sent for so long: the connection stays open, requests are answered, no RTP
    /// comes. Counted for each client from its own start, so that a reconnect helps for a while.
    pub stall_after: Option<Duration>,
    /// Every n-th video picture is lost on the way: none of its RTP packets is sent, their sequence numbers are used up.
    pub drop_every: Option<u32>,
    /// RTP timestamps of all tracks jump again and again.
    pub jump: Option<Jump>,
}

/// Jumping RTP timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// How far: milliseconds, forward or (negative) backward. Jumps add up.
    pub by_ms: i64,
    /// How often, counted from the camera's start.
    pub every: Duration,
}

/// The switches of a running camera's faults.
#[derive(Debug, Default)]
pub struct Switches {
    stalled: AtomicBool,
    stall_after_ns: AtomicU64,
    drop_every: AtomicU32,
    jump_by_ms: AtomicI64,
    jump_every_ns: AtomicU64,
    moved_ms: AtomicI64,
}

impl Switches {
    pub(super) fn new(faults: &Faults) -> Arc<Self> {
        let switches = Self::default();
        switches.stall_after_ns.store(faults.stall_after.map_or(0, nanoseconds), Relaxed);
        switches.drop_every(faults.drop_every);
        if let Some(jump) = faults.jump {
            switches.jump_by_ms.store(jump.by_ms, Relaxed);
            switches.jump_every_ns.store(nanoseconds(jump.every), Relaxed);
        }
        Arc::new(switches)
    }

    /// `true`: no more RTP from now on, with every connection left open. `false`: it goes on with what is live then.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Loses every n-th video picture from now on; `None` and 0 lose none.
    pub fn drop_every(&self, pictures: Option<u32>) {
        self.drop_every.store(pictures.unwrap_or(0), Relaxed);
    }

    /// Moves the RTP timestamps of all tracks by so many milliseconds, forward or backward, once, now.
    pub fn jump(&self, by_ms: i64) {
        self.moved_ms.fetch_add(by_ms, Relaxed);
    }

    /// How far the timestamps of what lies at `at` (nanoseconds from the camera's start) are off, in milliseconds.
    fn offset_ms(&self, at: u64) -> i64 {
        let jumps = at.checked_div(self.jump_every_ns.load(Relaxed)).unwrap_or(0);
        let moved = i64::try_from(jumps).unwrap_or(0).saturating_mul(self.jump_by_ms.load(Relaxed));
        self.moved_ms.load(Relaxed).saturating_add(moved)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What one pipeline's faults share: all its tracks fall silent together.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) switches: Arc<Switches>,
    /// Set once the pipeline is prepared. Before that, packets pass even in a stall: DESCRIBE waits for the first ones.
    pub(super) prepared: AtomicBool,
    /// When the pipeline's first packet was due, nanoseconds from the camera's start.
    first: Mutex<Option<u64>>,
}

impl Wires {
    pub(super) fn new(switches: Arc<Switches>) -> Arc<Self> {
        Arc::new(Self { switches, prepared: AtomicBool::new(false), first: Mutex::default() })
    }

    fn silent(&self, at: u64) -> bool {
        let first = *self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(at);
        let limit = self.switches.stall_after_ns.load(Relaxed);
        let over = limit > 0 && at.saturating_sub(first) >= limit;
        self.prepared.load(Relaxed) && (over || self.switches.stalled.load(Relaxed))
    }

    /// Puts the faults on a payloader's output.
    pub(super) fn attach(self: &Arc<Self>, pad: &gst::Pad, is_video: bool) {
        let wires = self.clone();
        let mut pictures = Pictures::default();
        let pictures = Mutex::new(std::mem::take(&mut pictures));
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(mask, move |pad, info| {
            let first = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => Some(buffer.as_ref()),
                Some(gst::PadProbeData::BufferList(list)) => list.get(0),
                _ => None,
            };
            let Some(first) = first else { return gst::PadProbeReturn::Ok };
            let at = first.dts_or_pts().map_or(0, gst::ClockTime::nseconds);
            if wires.silent(at) {
                return gst::PadProbeReturn::Drop;
            }
            if is_video {
                let every = wires.switches.drop_every.load(Relaxed);
                let mut pictures = pictures.lock().unwrap_or_else(PoisonError::into_inner);
                if pictures.lost(timestamp(first), every) {
                    return gst::PadProbeReturn::Drop;
                }
            }
            let offset = wires.switches.offset_ms(at);
            if offset != 0 {
                let caps = pad.current_caps();
                let rate = caps.as_ref().and_then(|c| c.structure(0)?.get::<i32>("clock-rate").ok()).unwrap_or(90_000);
                let ticks = wrap(i128::from(offset) * i128::from(rate) / 1000);
                match &mut info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => shift(buffer.make_mut(), ticks),
                    Some(gst::PadProbeData::BufferList(list)) => list.make_mut().foreach_mut(|mut buffer, _| {
                        shift(buffer.make_mut(), ticks);
                        ControlFlow::Continue(Some(buffer))
                    }),
                    _ => {}
                }
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Counts pictures by their RTP timestamps.
#[derive(Debug, Default)]
struct Pictures {
    timestamp: Option<u32>,
    count: u64,
}

impl Pictures {
    /// Whether a packet with this timestamp belongs to a picture that gets lost.
    fn lost(&mut self, timestamp: Option<u32>, every: u32) -> bool {
        if timestamp.is_some() && timestamp != self.timestamp {
            self.timestamp = timestamp;
            self.count += 1;
        }
        every > 0 && self.count.is_multiple_of(u64::from(every))
    }
}

/// RFC 3550 section 5.1: octets 4 to 7.
fn timestamp(packet: &gst::BufferRef) -> Option<u32> {
    let mut bytes = [0; 4];
    packet.copy_to_slice(4, &mut bytes).ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn shift(packet: &mut gst::BufferRef, ticks: u32) {
    if let Some(old) = timestamp(packet) {
        // Fails only for a packet shorter than the field just read.
        let _ = packet.copy_from_slice(4, &old.wrapping_add(ticks).to_be_bytes());
    }
}

/// RTP timestamps count modulo 2^32.
fn wrap(ticks: i128) -> u32 {
    u32::try_from(ticks.rem_euclid(1 << 32)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_add_up_and_go_both_ways() {
        let every = Duration::from_secs(10);
        let switches = Switches::new(&Faults { jump: Some(Jump { by_ms: -3_600_000, every }), ..Faults::default() });
        assert_eq!(switches.offset_ms(9_999_999_999), 0);
        assert_eq!(switches.offset_ms(10_000_000_000), -3_600_000);
        assert_eq!(switches.offset_ms(25_000_000_000), -7_200_000);
        switches.jump(500);
        assert_eq!(switches.offset_ms(0), 500);
        assert_eq!(wrap(-90_000), u32::MAX - 89_999);
    }

    #[test]
    fn whole_pictures_are_lost() {
        let mut pictures = Pictures::default();
        let stamps = [10, 10, 20, 30, 30, 30, 40];
        let lost: Vec<bool> = stamps.iter().map(|t| pictures.lost(Some(*t), 3)).collect();
        assert_eq!(lost, [false, false, false, true, true, true, false]);
    }
}
