//! Source time stamps to a stream's timeline: one steady line for viewers, whatever the device's clocks do.
//!
//! One [`Timeline`] serves all tracks of a device for one session. All tracks share one offset, so that a jump of the
//! device's clock never breaks lip-sync; a track's own part is its alignment, which sender reports correct by at most
//! 1 ms a second. Times of well-behaved sources keep their exact distances, to the tick of the RTP clock.
//!
//! What a source may do, and what becomes of it:
//!
//! | source | timeline |
//! |--------|----------|
//! | step back over the reorder window, or more than 10 s ahead of every track | discontinuity: a new offset, the track goes on one frame after its newest picture, with room for B pictures to come; the other tracks take the offset over when they jump too |
//! | stamps doubled, or less than a quarter of a frame back | moved to 2 ms after |
//! | B pictures, reorder depth known | `dts` is the smallest of the sorted window of the last depth + 1 `pts` |
//! | B pictures, reorder depth unknown | learned without touching `pts`, see below |
//! | silence of one track, then on | the gap stays |
//! | a new session | [`Timeline::resume`]: goes on after the last `dts` of the one before |
//!
//! **Learning the reorder depth.** It starts at 0 and grows whenever a picture comes after pictures that are shown
//! later. So that `dts` can keep both its promises (strictly rising, never after `pts`) when it grows, `dts` keeps a
//! reserve of about half a second below `pts` at first, and moves on by single ticks where a growing depth takes
//! `dts` back. When 32 pictures have brought nothing new, the reserve shrinks by an eighth of a frame a picture, and
//! `dts` is the sorted window's again. Only when B pictures turn up after that, for the first time, all tracks of the
//! stream are moved ahead once, as a discontinuity. `pts` is never clamped into rising order.

mod order;

use crate::media::{Kind, MediaTime};
use order::Order;
use std::time::Duration;

const SECOND: i128 = 1_000_000_000;
const MILLISECOND: i128 = 1_000_000;
/// A source that goes further ahead than this has jumped (capture: Hikvision cameras after a clock change).
const MAX_AHEAD: i128 = 10 * SECOND;
/// A track whose first unit is this far from the others has no usable common origin; it is aligned by arrival.
const MAX_APART: i128 = 2 * SECOND;
/// Offsets are whole multiples of this, which is a whole number of ticks at every usual RTP clock rate (90 kHz, 44.1
/// kHz, …), so that rounding never changes a distance by a tick.
const GRID: i128 = 10 * MILLISECOND;
/// Sender reports that ask for more are not believed: the device's clock jumped between them.
const MAX_MISALIGNMENT: i128 = 10 * SECOND;
/// Alignment starts above this error, which nobody hears, and then goes on to the end.
const ALIGN_ABOVE: i128 = 5 * MILLISECOND;

/// Turns the time stamps of one session's tracks into times of its stream.
#[derive(Clone, Debug)]
pub struct Timeline {
    tracks: Vec<Track>,
    /// The newest offset from source time to the timeline, and how many there have been.
    base: i128,
    epoch: u64,
    /// No `dts` is at or before this.
    floor: i128,
    /// This session goes on where another one ended.
    resumed: bool,
}

/// A track of the [`Timeline`] that gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrackId(usize);

/// Times of one access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Presentation time; unique within the track.
    pub pts: MediaTime,
    /// Decode time: strictly increasing within the track, never after `pts`, at most 2 s before it.
    pub dts: MediaTime,
    /// The source's clock jumped here, the timeline had to move, or a resumed session begins.
    pub discontinuity: bool,
}

#[derive(Clone, Debug)]
struct Track {
    kind: Kind,
    clock_rate: i128,
    base: i128,
    epoch: u64,
    /// What this track's time is moved by against the common offset.
    align: i128,
    aligning: bool,
    report: Option<Report>,
    last_source: i128,
    order: Order,
}

/// What a sender report says: the sender's wall clock at source time zero, valid within an epoch.
#[derive(Clone, Copy, Debug)]
struct Report {
    origin: i128,
    epoch: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    /// The timeline of a stream's first session. The first access unit is presented at [`MediaTime::START`].
    pub fn new() -> Self {
        let start = nanos(MediaTime::START);
        Self { tracks: Vec::new(), base: 0, epoch: 0, floor: start / 2, resumed: false }
    }

    /// The timeline of a later session of the same stream: all times of all tracks lie after `end`, which is the
    /// [`end`](Self::end) of the session before. The first access unit follows it within a frame or, with B pictures,
    /// the reorder window. To keep the time without pictures on the timeline, add it to `end`.
    pub fn resume(end: MediaTime) -> Self {
        Self { floor: nanos(end), resumed: true, ..Self::new() }
    }

    /// Adds a track with `clock_rate` ticks a second (0 counts as 1). For video, [`describe`](Self::describe) it before
    /// its first access unit as far as it is known.
    pub fn add_track(&mut self, kind: Kind, clock_rate: u32) -> TrackId {
        let clock_rate = i128::from(clock_rate.max(1));
        self.tracks.push(Track {
            kind,
            clock_rate,
            base: self.base,
            epoch: self.epoch,
            align: 0,
            aligning: false,
            report: None,
            last_source: 0,
            order: Order::new(kind, (SECOND / clock_rate).max(1), self.floor),
        });
        TrackId(self.tracks.len() - 1)
    }

    /// Tells what the parameter sets say of a video track: its reorder depth (0 for JPEG; `None` has it learned) and
    /// pictures per second. May be told again at any time; the same values change nothing.
    ///
    /// # Panics
    /// If `track` is another timeline's.
    pub fn describe(&mut self, track: TrackId, reorder_depth: Option<u8>, frame_rate: Option<f64>) {
        self.tracks[track.0].order.describe(reorder_depth, frame_rate);
    }

    /// The reorder depth of a track, as known or as learned so far.
    ///
    /// # Panics
    /// If `track` is another timeline's.
    pub fn reorder_depth(&self, track: TrackId) -> u8 {
        self.tracks[track.0].order.depth()
    }

    /// The latest time given out, where the next session [resumes](Self::resume). `None` before the first.
    pub fn end(&self) -> Option<MediaTime> {
        self.newest().map(media_time)
    }

    /// Takes the pair of times of an RTCP sender report (RFC 3550 section 6.4.1): `ntp` is the 64-bit time stamp, of
    /// which only differences between the tracks matter, and `ticks` the same instant as in [`stamp`](Self::stamp).
    ///
    /// # Panics
    /// If `track` is another timeline's.
    pub fn sender_report(&mut self, track: TrackId, ntp: u64, ticks: i64) {
        let track = &mut self.tracks[track.0];
        // Cameras without a clock send zeros.
        track.report = (ntp != 0).then(|| {
            let wall = (i128::from(ntp) * SECOND) >> 32;
            Report { origin: wall - track.source(ticks), epoch: track.epoch }
        });
    }

    /// The times of the next access unit of a track, in decode order.
    ///
    /// `ticks` counts the track's clock from an origin that all tracks share as well as the protocol lets them (for
    /// RTP the time stamp without wrap less `rtptime` of RTP-Info: `elapsed()` of retina's `Timestamp`). Any value is
    /// taken.
    ///
    /// # Panics
    /// If `track` is another timeline's.
    pub fn stamp(&mut self, track: TrackId, ticks: i64) -> Stamp {
        let id = track.0;
        let source = self.tracks[id].source(ticks);
        let mut discontinuity = match self.tracks[id].order.newest() {
            None => self.start(id, source),
            Some(own) => self.follow(id, source, own),
        };
        self.tracks[id].last_source = source;
        let (pts, dts) = loop {
            let track = &mut self.tracks[id];
            match track.order.place(source + track.base + track.align) {
                Ok(times) => break times,
                Err(order::Missing(by)) => {
                    self.raise(self.tracks[id].epoch, by);
                    discontinuity = true;
                }
            }
        };
        Stamp { pts: media_time(pts), dts: media_time(dts), discontinuity }
    }

    /// The newest `pts` of any track.
    fn newest(&self) -> Option<i128> {
        self.tracks.iter().filter_map(|track| track.order.newest()).max()
    }

    /// Finds the place of a track's first unit.
    fn start(&mut self, id: usize, source: i128) -> bool {
        let lead = self.tracks[id].order.lead();
        match self.newest() {
            None => {
                // The other tracks may begin anywhere near and want room, too.
                let lead = self.tracks.iter().map(|track| track.order.lead()).max().unwrap_or(lead);
                let at = if self.resumed { self.floor + lead } else { nanos(MediaTime::START) };
                self.base = ceil(at - source);
            }
            Some(newest) if (source + self.base - newest).abs() > MAX_APART => {
                self.tracks[id].align = ceil(newest - source - self.base);
            }
            Some(_) => {}
        }
        let track = &mut self.tracks[id];
        (track.base, track.epoch) = (self.base, self.epoch);
        let missing = self.floor + lead - (source + track.base + track.align);
        if missing > 0 {
            self.raise(self.epoch, missing);
        }
        self.resumed
    }

    /// Sees to the offset of a track that is under way; says whether the source jumped.
    fn follow(&mut self, id: usize, source: i128, own: i128) -> bool {
        self.align(id, source);
        let ahead = self.newest().unwrap_or(own) + MAX_AHEAD;
        let (base, epoch) = (self.base, self.epoch);
        let track = &mut self.tracks[id];
        let expected = own + track.order.frame();
        let mut jumped = false;
        if track.epoch != epoch {
            // Another track has jumped. Has this one followed? Its own units from before the jump may still come.
            let off = |base: i128| (source + base + track.align - expected).abs();
            if off(base) < off(track.base) {
                track.join(base, epoch);
                jumped = true;
            }
        }
        let pts = source + track.base + track.align;
        if pts > ahead || track.order.is_jump(pts) {
            // B pictures that follow are shown before this one, yet after everything from before the jump.
            self.base = ceil(expected + track.order.overtaking() - source - track.align);
            self.epoch += 1;
            track.join(self.base, self.epoch);
            return true;
        }
        if jumped && pts + track.order.overtaking() < expected - track.order.frame() {
            self.raise(epoch, expected - pts);
        }
        jumped
    }

    /// Moves everything that follows ahead by at least `by`, for all tracks of an epoch.
    fn raise(&mut self, epoch: u64, by: i128) {
        let by = ceil(by);
        if self.epoch == epoch {
            self.base += by;
        }
        for track in self.tracks.iter_mut().filter(|track| track.epoch == epoch) {
            track.base += by;
        }
    }

    /// Takes the track a step towards where the sender reports put it against the first video track.
    fn align(&mut self, id: usize, source: i128) {
        let reference = self.tracks.iter().position(|track| track.kind == Kind::Video).unwrap_or(0);
        let standard = self.tracks[reference].report;
        let track = &mut self.tracks[id];
        let (Some(standard), Some(report)) = (standard, track.report) else { return };
        if id == reference || standard.epoch != track.epoch || report.epoch != track.epoch {
            return;
        }
        let error = report.origin - standard.origin - track.align;
        if error.abs() > MAX_MISALIGNMENT {
            return;
        }
        track.aligning = error != 0 && (track.aligning || error.abs() > ALIGN_ABOVE);
        if track.aligning {
            let step = (source - track.last_source).clamp(0, SECOND) / 1000;
            track.align += error.clamp(-step, step);
        }
    }
}

impl Track {
    /// Source time in nanoseconds, rounded down.
    fn source(&self, ticks: i64) -> i128 {
        (i128::from(ticks) * SECOND).div_euclid(self.clock_rate)
    }

    /// Takes over a new offset. What sender reports said before no longer holds.
    fn join(&mut self, base: i128, epoch: u64) {
        (self.base, self.epoch, self.report, self.aligning) = (base, epoch, None, false);
    }
}

/// Up to the next multiple of [`GRID`].
fn ceil(nanos: i128) -> i128 {
    -(-nanos).div_euclid(GRID) * GRID
}

fn nanos(time: MediaTime) -> i128 {
    time.nanos_since(MediaTime::default())
}

fn media_time(nanos: i128) -> MediaTime {
    MediaTime::new(Duration::from_nanos(nanos.clamp(0, i128::from(u64::MAX)) as u64))
}

#[cfg(test)]
mod tests;
