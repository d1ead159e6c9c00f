//! Decode times of one track. All times here are nanoseconds of the timeline.

use super::{MILLISECOND, SECOND};
use crate::media::Kind;

/// The largest reorder depth of H.264 and H.265 (a picture buffer of 16).
const MAX_DEPTH: u8 = 16;
const WINDOW: usize = MAX_DEPTH as usize + 1;
/// `dts` is never further than this before `pts`, and a step back never longer without being a jump.
const MAX_REORDER: i128 = 2 * SECOND;
/// How far a track without reordering may step back without being taken to have jumped.
const MAX_JITTER: i128 = 100 * MILLISECOND;
/// Room below `pts` for pictures to come that are shown before, at the start and while the reorder depth is being
/// learned: this or six pictures.
const RESERVE: i128 = 500 * MILLISECOND;
const MAX_RESERVE: i128 = 1500 * MILLISECOND;
/// How far a doubled time is moved: far enough that containers which count milliseconds keep the two apart (measured:
/// times a tick of 90 kHz apart are the same in Matroska and in ffmpeg's MP4, which warns).
const APART: i128 = 2 * MILLISECOND;
/// Pictures without anything new until the depth counts as learned. B pictures show within one run of them.
const CALM: u32 = 32;

/// Works out `dts` from `pts` as they come in decode order.
#[derive(Clone, Debug)]
pub(super) struct Order {
    tick: i128,
    /// The depth that was told, if any: it needs no reserve.
    told: Option<u8>,
    depth: u8,
    reserve: i128,
    calm: u32,
    last_dts: i128,
    /// The furthest that a picture was shown before one decoded earlier.
    overtaking: i128,
    /// The largest `pts` so far, largest first.
    largest: Vec<i128>,
    /// A frame's duration as announced or usual.
    usual_frame: i128,
}

/// A `pts` would have to be this much later, so that `dts` can go before it.
#[derive(Debug)]
pub(super) struct Missing(pub(super) i128);

impl Order {
    /// Every `dts` will be after `floor`; `tick` is the shortest distance of two times.
    pub(super) fn new(kind: Kind, tick: i128, floor: i128) -> Self {
        let (told, reserve, usual_frame) = match kind {
            Kind::Video => (None, RESERVE, 40 * MILLISECOND),
            Kind::Audio => (Some(0), 0, 20 * MILLISECOND),
        };
        let largest = Vec::with_capacity(WINDOW + 1);
        Self { tick, overtaking: 0, told, depth: 0, reserve, calm: 0, last_dts: floor, largest, usual_frame }
    }

    pub(super) fn describe(&mut self, depth: Option<u8>, frame_rate: Option<f64>) {
        if let Some(rate) = frame_rate.filter(|rate| (1.0..=1000.0).contains(rate)) {
            self.usual_frame = (SECOND as f64 / rate) as i128;
        }
        let depth = depth.map(|depth| depth.min(MAX_DEPTH));
        match depth {
            Some(told) if self.told != depth => (self.depth, self.reserve) = (told, 0),
            None if self.largest.is_empty() => (self.depth, self.reserve) = (0, self.wanted_reserve()),
            _ => {}
        }
        self.told = depth;
    }

    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    /// The largest `pts`, once there was one.
    pub(super) fn newest(&self) -> Option<i128> {
        self.largest.first().copied()
    }

    /// How much earlier than the next picture those after it may be shown, going by what was.
    pub(super) fn overtaking(&self) -> i128 {
        self.overtaking
    }

    /// How long a frame lasts: the median distance of the last pictures, else what was announced. Doubled stamps do not
    /// count as distances.
    pub(super) fn frame(&self) -> i128 {
        let mut gaps = [0; WINDOW];
        let mut count = 0;
        for gap in self.largest.windows(2).map(|pair| pair[0] - pair[1]).filter(|&gap| gap > APART) {
            gaps[count] = gap;
            count += 1;
        }
        match &mut gaps[..count] {
            [] => self.usual_frame,
            gaps => *gaps.select_nth_unstable(count / 2).1,
        }
        .min(SECOND)
    }

    /// How far a first `pts` should be after the floor.
    pub(super) fn lead(&self) -> i128 {
        let reserve = if self.depth > 0 { self.wanted_reserve() } else { self.reserve };
        reserve + i128::from(self.depth) * self.tick + self.usual_frame
    }

    /// Whether `pts` is further back than reordering or jitter explain.
    pub(super) fn is_jump(&self, pts: i128) -> bool {
        let Some(newest) = self.newest() else { return false };
        let window = match self.told {
            Some(0) => MAX_JITTER,
            _ => (self.frame() * WINDOW as i128).min(MAX_REORDER),
        };
        newest - pts > window || self.larger_than(pts) > usize::from(MAX_DEPTH)
    }

    /// The final `pts` and the `dts` of the next picture.
    ///
    /// # Errors
    /// [`Missing`] if `pts` cannot stay without breaking a promise. The next call with a `pts` moved by that succeeds.
    pub(super) fn place(&mut self, pts: i128) -> Result<(i128, i128), Missing> {
        let pts = self.unique(pts);
        let larger = self.larger_than(pts).min(usize::from(MAX_DEPTH)) as u8;
        if larger > self.depth {
            (self.depth, self.calm) = (larger, 0);
        }
        let after_last = self.last_dts + self.tick;
        if pts < after_last {
            if self.told.is_none() {
                (self.reserve, self.calm) = (self.wanted_reserve(), 0);
            }
            return Err(Missing(after_last + self.reserve + self.frame() - pts));
        }
        if self.largest.is_empty() {
            // Room for the leading pictures of an open GOP, which come next and are shown before.
            let before = pts - self.wanted_reserve();
            self.largest.extend((0..i128::from(self.depth)).map(|back| before - back * self.tick));
        }
        self.overtaking = self.overtaking.max(self.newest().map_or(0, |newest| newest - pts));
        let at = self.larger_than(pts);
        self.largest.insert(at, pts);
        self.largest.truncate(WINDOW);
        let sorted = self.largest.get(usize::from(self.depth)).or(self.largest.last()).copied().unwrap_or(pts);
        let dts = sorted.min(pts - self.reserve).max(pts - MAX_REORDER).max(after_last);
        self.last_dts = dts;
        self.calm = self.calm.saturating_add(1);
        if self.calm > CALM {
            self.reserve = (self.reserve - self.frame() / 8).max(0);
        }
        Ok((pts, dts))
    }

    fn wanted_reserve(&self) -> i128 {
        (6 * self.usual_frame).clamp(RESERVE, MAX_RESERVE)
    }

    fn larger_than(&self, pts: i128) -> usize {
        self.largest.iter().take_while(|&&known| known > pts).count()
    }

    /// Moves a doubled time, and jitter where there is no reordering, to just after what was before.
    fn unique(&self, mut pts: i128) -> i128 {
        let Some(newest) = self.newest() else { return pts };
        let jitter = self.told == Some(0) || self.depth == 0 && newest - pts < self.frame() / 4;
        if pts <= newest && jitter {
            return newest + APART.max(self.tick);
        }
        for known in self.largest.iter().rev() {
            if (known - pts).abs() <= self.tick / 2 {
                pts = known + APART.max(self.tick);
            }
        }
        pts
    }
}
