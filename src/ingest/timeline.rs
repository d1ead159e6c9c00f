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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const FRAME: i64 = 3_600;

    fn video(depth: Option<u8>) -> (Timeline, TrackId) {
        let mut timeline = Timeline::new();
        let track = timeline.add_track(Kind::Video, 90_000);
        timeline.describe(track, depth, None);
        (timeline, track)
    }

    fn both() -> (Timeline, TrackId, TrackId) {
        let (mut timeline, video) = video(Some(0));
        let audio = timeline.add_track(Kind::Audio, 16_000);
        (timeline, video, audio)
    }

    fn ticks(stamp: Stamp) -> i64 {
        stamp.pts.ticks(90_000) as i64
    }

    fn ms(later: MediaTime, earlier: MediaTime) -> i64 {
        (later.nanos_since(earlier) as f64 / MILLISECOND as f64).round() as i64
    }

    /// Frame numbers in decode order: I, then groups of a P picture and `b` B pictures before it, as a pyramid or not.
    fn b_frames(groups: usize, b: i64, pyramid: bool) -> Vec<i64> {
        let mut frames = vec![0];
        for first in (0..groups as i64).map(|group| group * (b + 1)) {
            frames.push(first + b + 1);
            let middle = first + 1 + b / 2;
            frames.extend((pyramid && b > 0).then_some(middle));
            frames.extend((first + 1..=first + b).filter(|&frame| !pyramid || frame != middle));
        }
        frames
    }

    #[test]
    fn starts_at_the_start_whatever_the_source_counts() {
        for origin in [0, -900_000, i64::from(u32::MAX) * 7, i64::MIN, i64::MAX] {
            let (mut timeline, track) = video(Some(0));
            let first = timeline.stamp(track, origin);
            assert!(ms(first.pts, MediaTime::START) <= 10 && first.pts >= MediaTime::START);
            assert_eq!((first.dts, first.discontinuity), (first.pts, false));
        }
    }

    #[test]
    fn a_steady_source_keeps_its_distances() {
        let (mut timeline, track) = video(Some(0));
        let first = ticks(timeline.stamp(track, 12_345));
        for step in [3_003, 6_006, 9_010, 9_011, 500_000] {
            let stamp = timeline.stamp(track, 12_345 + step);
            assert_eq!((ticks(stamp) - first, stamp.dts, stamp.discontinuity), (step, stamp.pts, false));
        }
    }

    #[test]
    fn visitors_with_unknown_depth_are_learned_without_a_mark() {
        // The demo's clip: 10 pictures a second, Main profile without VUI bitstream restriction.
        let (mut timeline, track) = video(None);
        timeline.describe(track, None, Some(10.0));
        let frames = b_frames(60, 3, false);
        let stamps: Vec<_> = frames.iter().map(|frame| timeline.stamp(track, frame * 9_000)).collect();
        for (frame, stamp) in frames.iter().zip(&stamps) {
            assert_eq!((ticks(*stamp) - ticks(stamps[0]), stamp.discontinuity), (frame * 9_000, false));
        }
        assert_eq!(timeline.reorder_depth(track), 1);
        // The reserve is gone by then: as with a known depth, the sorted pts one picture late.
        let (last, before) = (stamps[stamps.len() - 1], stamps[stamps.len() - 2]);
        assert_eq!((ms(last.pts, last.dts), ms(last.dts, before.dts)), (0, 100));
    }

    #[test]
    fn a_known_depth_gives_the_sorted_times_at_once() {
        let (mut timeline, track) = video(Some(1));
        let dts: Vec<_> = b_frames(3, 2, false)
            .iter()
            .map(|frame| timeline.stamp(track, frame * FRAME).dts.ticks(90_000) as i64 - 900_000)
            .collect();
        assert_eq!(dts[0], -45_000);
        assert_eq!(dts[1..], [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|frame| frame * FRAME));
    }

    #[test]
    fn leading_pictures_of_an_open_gop_at_the_start() {
        for depth in [None, Some(2)] {
            let (mut timeline, track) = video(depth);
            // A key picture, three pictures that are shown before it, as a pyramid, then as usual.
            let stamps = [4, 2, 1, 3, 8, 6, 5, 7].map(|frame| (frame, timeline.stamp(track, frame * FRAME)));
            for (frame, stamp) in stamps {
                assert_eq!((ticks(stamp) - ticks(stamps[0].1), stamp.discontinuity), ((frame - 4) * FRAME, false));
            }
        }
    }

    #[test]
    fn b_pictures_that_turn_up_late_move_the_stream_once() {
        let (mut timeline, track) = video(None);
        let before = 400;
        for frame in 0..before {
            assert!(!timeline.stamp(track, frame * FRAME).discontinuity);
        }
        let frames = b_frames(30, 2, true);
        let stamps: Vec<_> = frames.iter().map(|frame| timeline.stamp(track, (before + frame) * FRAME)).collect();
        assert_eq!(stamps.iter().filter(|stamp| stamp.discontinuity).count(), 1);
        for (frame, stamp) in frames.iter().zip(&stamps).skip(5) {
            assert_eq!(ticks(*stamp) - ticks(stamps[5]), (frame - frames[5]) * FRAME);
        }
    }

    #[test]
    fn a_jump_goes_on_after_a_frame() {
        for jump in [3_600 * 90_000, -3_600 * 90_000, -90_000, 11 * 90_000, i64::MAX / 2] {
            let (mut timeline, track) = video(Some(0));
            (0..10).for_each(|frame| _ = timeline.stamp(track, frame * FRAME));
            let before = timeline.stamp(track, 10 * FRAME);
            let after = timeline.stamp(track, jump);
            let next = timeline.stamp(track, jump + FRAME);
            assert!(after.discontinuity && !next.discontinuity);
            assert!((40..=50).contains(&ms(after.pts, before.pts)), "{after:?} after {before:?}");
            assert_eq!(ticks(next) - ticks(after), FRAME);
        }
    }

    #[test]
    fn b_pictures_around_a_jump_do_not_collide() {
        for (depth, pyramid) in [(Some(1), false), (Some(2), true), (None, true)] {
            let frames = b_frames(30, 3, pyramid);
            for at in 40..56 {
                let (mut timeline, track) = video(depth);
                let ticks =
                    |(place, frame): (usize, &i64)| frame * FRAME + if place < at { 0 } else { -3_600 * 90_000 };
                let stamps: Vec<_> =
                    frames.iter().enumerate().map(|picture| timeline.stamp(track, ticks(picture))).collect();
                let mut shown: Vec<_> = stamps.iter().map(|stamp| stamp.pts).collect();
                shown.sort_unstable();
                // A recorder that counts milliseconds keeps them apart.
                assert!(shown.windows(2).all(|pair| ms(pair[1], pair[0]) >= 1), "{depth:?}, jump at {at}: {shown:?}");
                let (before, after) = stamps.split_at(at);
                let newest = before.iter().map(|stamp| stamp.pts).max().unwrap();
                assert!(after.iter().all(|stamp| stamp.pts > newest), "{depth:?}, jump at {at}");
                assert_eq!(stamps.iter().filter(|stamp| stamp.discontinuity).count(), 1);
            }
        }
    }

    #[test]
    fn nine_seconds_of_silence_are_no_jump() {
        let (mut timeline, track) = video(Some(0));
        let before = timeline.stamp(track, 0);
        let after = timeline.stamp(track, 9 * 90_000);
        assert_eq!((ms(after.pts, before.pts), after.discontinuity), (9_000, false));
    }

    #[test]
    fn a_track_that_was_silent_longer_than_that_comes_back_beside_the_other() {
        let (mut timeline, video, audio) = both();
        timeline.stamp(audio, 0);
        let pictures: Vec<_> = (0..1_500).map(|frame| timeline.stamp(video, frame * FRAME)).collect();
        let sound = timeline.stamp(audio, 60 * 16_000);
        assert!(!sound.discontinuity);
        assert_eq!(ms(sound.pts, pictures[0].pts), 60_000);
    }

    #[test]
    fn a_jump_keeps_sound_and_picture_together() {
        let (mut timeline, video, audio) = both();
        let jump = 3_600;
        let mut marks = (0, 0);
        let mut apart = Vec::new();
        for frame in 0..200_i64 {
            // Sound is sent 200 ms late, so that sound from before the jump comes after the picture that jumped.
            let at = |frame: i64, rate: i64| frame * rate / 25 + if frame >= 100 { jump * rate } else { 0 };
            let picture = timeline.stamp(video, at(frame, 90_000));
            marks.0 += usize::from(picture.discontinuity);
            if frame >= 5 {
                let sound = timeline.stamp(audio, at(frame - 5, 16_000));
                marks.1 += usize::from(sound.discontinuity);
                apart.push(ms(picture.pts, sound.pts));
            }
        }
        assert_eq!(marks, (1, 1));
        assert_eq!((apart[0], apart[50]), (200, 200));
        assert!(apart[94..].iter().all(|&apart| (150..=250).contains(&apart)), "{apart:?}");
        assert_eq!(apart[194], apart[110]);
    }

    #[test]
    fn doubled_and_jittering_stamps_become_unique() {
        let (mut timeline, track) = video(None);
        let stamps: Vec<_> = [0, 0, FRAME, FRAME, FRAME, 2 * FRAME - 9, 2 * FRAME - 300, 3 * FRAME]
            .map(|ticks| timeline.stamp(track, ticks))
            .into();
        for pair in stamps.windows(2) {
            assert!(ms(pair[1].pts, pair[0].pts) >= 1 && pair[1].dts > pair[0].dts);
        }
        assert!(stamps.iter().all(|stamp| !stamp.discontinuity));
        assert_eq!(ticks(stamps[7]) - ticks(stamps[0]), 3 * FRAME);
        assert_eq!(timeline.reorder_depth(track), 0);
    }

    #[test]
    fn sender_reports_move_the_sound_slowly() {
        let (mut timeline, video, audio) = both();
        let ntp = |ms: u64| (4_000_000_000 << 32) + (ms << 32) / 1_000;
        // The sound that RTP-Info put at 0 was recorded 30 ms after the picture there.
        timeline.sender_report(video, ntp(0), 0);
        timeline.sender_report(audio, ntp(30), 0);
        let mut error = Vec::new();
        for second in 0..60 {
            let picture = timeline.stamp(video, second * 90_000);
            let sound = timeline.stamp(audio, second * 16_000);
            error.push(ms(sound.pts, picture.pts));
        }
        assert_eq!((error[0], error[10], error[29], error[31], error[59]), (0, 10, 29, 30, 30));
    }

    #[test]
    fn reports_of_a_clock_that_was_set_are_not_believed() {
        let (mut timeline, video, audio) = both();
        timeline.sender_report(video, 5_000 << 32, 0);
        timeline.sender_report(audio, 1_000 << 32, 0);
        let (picture, sound) = (0..30).fold((None, None), |_, second| {
            (Some(timeline.stamp(video, second * 90_000)), Some(timeline.stamp(audio, second * 16_000)))
        });
        assert_eq!(picture.map(|stamp| stamp.pts), sound.map(|stamp| stamp.pts));
    }

    #[test]
    fn tracks_without_a_common_origin_are_aligned_by_arrival() {
        let (mut timeline, video, audio) = both();
        let picture = timeline.stamp(video, 0);
        let sound = timeline.stamp(audio, 500 * 16_000);
        assert!(ms(sound.pts, picture.pts).abs() <= 10);
    }

    #[test]
    fn a_new_session_goes_on_after_the_old_one() {
        let (mut timeline, track) = video(None);
        let old: Vec<_> = b_frames(20, 2, false).iter().map(|frame| timeline.stamp(track, frame * FRAME)).collect();
        let end = timeline.end().expect("there were pictures");
        assert_eq!(Some(end), old.iter().map(|stamp| stamp.pts).max());
        let mut timeline = Timeline::resume(end);
        let (video, audio) = (timeline.add_track(Kind::Video, 90_000), timeline.add_track(Kind::Audio, 8_000));
        // The sound is behind the picture.
        let picture = timeline.stamp(video, 0);
        let sound = timeline.stamp(audio, -12_000);
        let next = timeline.stamp(video, FRAME);
        assert!(picture.discontinuity && sound.discontinuity);
        assert!(picture.dts > end && sound.dts > end && ms(picture.pts, end) < 1_000);
        assert_eq!(ms(next.pts, sound.pts), 1_540);
    }

    fn clock_rate() -> impl Strategy<Value = u32> {
        prop_oneof![Just(90_000), Just(8_000), Just(44_100), Just(1), any::<u32>()]
    }

    fn tick_steps() -> impl Strategy<Value = i64> {
        prop_oneof![4 => -20_000_i64..20_000, 2 => Just(0), 2 => Just(FRAME), 1 => -2_000_000_i64..2_000_000, 1 => any::<i64>()]
    }

    proptest! {
        #[test]
        fn any_source_keeps_the_promises(
            rates in prop::collection::vec((any::<bool>(), clock_rate(), prop::option::of(0_u8..20)), 1..4),
            steps in prop::collection::vec((0_usize..4, tick_steps(), prop::bool::weighted(0.05), prop::option::weighted(0.1, any::<u64>())), 0..300),
            resumed in any::<bool>(),
        ) {
            let end = MediaTime::new(Duration::from_secs(77));
            let mut timeline = if resumed { Timeline::resume(end) } else { Timeline::new() };
            let mut tracks: Vec<_> = rates.iter().map(|&(video, rate, depth)| {
                let track = timeline.add_track(if video { Kind::Video } else { Kind::Audio }, rate);
                if video {
                    timeline.describe(track, depth, None);
                }
                (track, 0_i64, None::<MediaTime>, BTreeSet::new())
            }).collect();
            for (track, step, absolute, report) in steps {
                let at = track % tracks.len();
                let (track, ticks, last, all) = &mut tracks[at];
                *ticks = if absolute { step } else { ticks.wrapping_add(step) };
                if let Some(ntp) = report {
                    timeline.sender_report(*track, ntp, *ticks);
                }
                let stamp = timeline.stamp(*track, *ticks);
                prop_assert!(last.is_none_or(|last| stamp.dts > last), "dts {:?} after {:?}", stamp.dts, last);
                prop_assert!(stamp.dts <= stamp.pts);
                prop_assert!(stamp.pts.saturating_since(stamp.dts) <= Duration::from_secs(2));
                prop_assert!(!resumed || stamp.dts > end);
                prop_assert!(all.insert(stamp.pts.since_zero()), "pts {:?} twice", stamp.pts);
                *last = Some(stamp.dts);
            }
        }

        #[test]
        fn b_pictures_keep_their_exact_times(
            groups in 1_usize..40, b in 0_i64..5, pyramid in any::<bool>(), known in any::<bool>(),
            frame in 1_500_i64..9_000, origin in any::<i32>(), told in any::<bool>(),
        ) {
            let depth = if b == 0 { 0 } else if pyramid && b > 1 { 2 } else { 1 };
            // Of a slow source whose rate is not known, the reserve holds 500 ms of B pictures.
            let told = told || b * frame > 36_000;
            let (mut timeline, track) = video(None);
            timeline.describe(track, known.then_some(depth), told.then_some(90_000.0 / frame as f64));
            let source: Vec<_> = b_frames(groups, b, pyramid).iter().map(|at| i64::from(origin) + at * frame).collect();
            let stamps: Vec<_> = source.iter().map(|&ticks| timeline.stamp(track, ticks)).collect();
            for (at, stamp) in stamps.iter().enumerate() {
                prop_assert!(!stamp.discontinuity);
                prop_assert_eq!(ticks(*stamp) - ticks(stamps[0]), source[at] - source[0]);
            }
            prop_assert!(timeline.reorder_depth(track) <= depth);
        }
    }
}
