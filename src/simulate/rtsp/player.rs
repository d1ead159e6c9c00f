//! The camera's lens: one timeline, from the camera's start on, that goes through the clip again and again without a
//! seam and feeds every open pipeline with what is live now.

use super::clip::{Clip, Track, Unit};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Behind by more than this (the machine slept), the player goes on with what is live rather than catching up.
const BEHIND: u64 = 2_000_000_000;
/// How often a stopped player looks whether it is still needed.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// Where a track's next unit lies on the endless timeline. All times in nanoseconds from the camera's start.
///
/// Video repeats at whole multiples of the clip's length. Audio frames rarely fit that length, so audio runs on with its
/// own frame length and takes the sound of the new round with the first frame that begins in it: timestamps
/// stay even and the sound is never off by more than one frame.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    round: u64,
    index: usize,
    shift: u64,
}

impl Cursor {
    /// At the unit that is live at `now`: the last one due by then, or the very first.
    fn at(clip: &Clip, track: &Track, now: u64) -> Self {
        let round = (now / clip.length).saturating_sub(1);
        let mut live = Self { round, index: 0, shift: round * clip.length };
        let mut next = live;
        while next.unit(track).is_some_and(|unit| next.shift + unit.dts <= now) {
            live = next;
            next.advance(clip, track);
        }
        live
    }

    fn unit(self, track: &Track) -> Option<&Unit> {
        track.units.get(self.index)
    }

    fn advance(&mut self, clip: &Clip, track: &Track) {
        let end = self.unit(track).map_or(0, |unit| self.shift + unit.dts + unit.duration);
        self.index += 1;
        let next_round = (self.round + 1) * clip.length;
        let wraps = match self.unit(track) {
            None => true,
            Some(unit) => !track.coding.is_video() && self.shift + unit.dts >= next_round,
        };
        if wraps {
            let first = track.units.first().map_or(0, |unit| unit.dts);
            self.round += 1;
            self.index = 0;
            self.shift =
                if track.coding.is_video() { next_round } else { end.max(next_round + first).saturating_sub(first) };
        }
    }
}

/// One pipeline's inputs, in the order of the clip's tracks.
#[derive(Debug)]
struct Feed {
    id: u64,
    stream: usize,
    inputs: Vec<gst_app::AppSrc>,
}

/// One track of one stream.
#[derive(Debug)]
struct Lane {
    stream: usize,
    track: usize,
    cursor: Cursor,
    /// What was sent last: a pipeline that joins begins with it.
    live: Option<gst::Sample>,
}

#[derive(Debug, Default)]
struct State {
    feeds: Vec<Feed>,
    /// Empty while nobody watches.
    lanes: Vec<Lane>,
    last_id: u64,
    stop: bool,
}

#[derive(Debug)]
pub(super) struct Player {
    clips: Vec<Arc<Clip>>,
    clock: gst::Clock,
    epoch: gst::ClockTime,
    state: Mutex<State>,
    wake: Condvar,
}

impl Player {
    /// `clips[0]` is the main stream, `clips[1]` the sub stream if there is one. Time starts now.
    pub(super) fn start(clips: Vec<Arc<Clip>>) -> std::io::Result<Arc<Self>> {
        let clock = gst::SystemClock::obtain();
        let epoch = clock.time();
        let player = Arc::new(Self { clips, clock, epoch, state: Mutex::default(), wake: Condvar::new() });
        let own = player.clone();
        std::thread::Builder::new().name("simulated-lens".into()).spawn(move || own.run())?;
        Ok(player)
    }

    /// The clock and its time at the camera's start: what a pipeline must take as clock and base time.
    pub(super) fn time_base(&self) -> (&gst::Clock, gst::ClockTime) {
        (&self.clock, self.epoch)
    }

    /// Feeds these inputs from now on, at once with what is live now; the answer is for [`Player::remove`].
    pub(super) fn add(&self, stream: usize, inputs: Vec<gst_app::AppSrc>) -> u64 {
        let mut state = self.lock();
        for lane in state.lanes.iter().filter(|lane| lane.stream == stream) {
            if let (Some(input), Some(live)) = (inputs.get(lane.track), &lane.live) {
                push(input, live);
            }
        }
        state.last_id += 1;
        let id = state.last_id;
        state.feeds.push(Feed { id, stream, inputs });
        self.wake.notify_one();
        id
    }

    pub(super) fn remove(&self, id: u64) {
        self.lock().feeds.retain(|feed| feed.id != id);
    }

    /// Ends the thread once the last pipeline is gone. Not before: a request that is still being answered waits for the
    /// first picture, and its connection stays open until then.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.clock.time().saturating_sub(self.epoch).nseconds()
    }

    fn lanes(&self) -> Vec<Lane> {
        let now = self.now();
        let clips = self.clips.iter().enumerate();
        clips
            .flat_map(|(stream, clip)| {
                let tracks = clip.tracks.iter().enumerate();
                tracks.map(move |(number, track)| Lane {
                    stream,
                    track: number,
                    cursor: Cursor::at(clip, track, now),
                    live: None,
                })
            })
            .collect()
    }

    fn track(&self, lane: &Lane) -> Option<(&Clip, &Track)> {
        let clip = self.clips.get(lane.stream)?;
        Some((clip, clip.tracks.get(lane.track)?))
    }

    fn run(self: &Arc<Self>) {
        let mut state = self.lock();
        // Whoever might still bring a pipeline (a factory, a pipeline being built) holds a reference.
        while !state.stop || Arc::strong_count(self) > 1 {
            if state.feeds.is_empty() {
                state.lanes.clear();
                state = if state.stop {
                    self.wake.wait_timeout(state, LAST_LOOK).unwrap_or_else(PoisonError::into_inner).0
                } else {
                    self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
                };
                continue;
            }
            if state.lanes.is_empty() {
                state.lanes = self.lanes();
            }
            let State { lanes, feeds, .. } = &mut *state;
            let due = |lane: &Lane| {
                let (_, track) = self.track(lane)?;
                Some(lane.cursor.shift + lane.cursor.unit(track)?.dts)
            };
            let next = lanes.iter_mut().filter_map(|lane| Some((due(lane)?, lane))).min_by_key(|(at, _)| *at);
            let Some((at, lane)) = next else { return };
            let now = self.now();
            if at > now {
                let pause = Duration::from_nanos(at - now);
                state = self.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if now - at > BEHIND {
                lanes.clear();
                continue;
            }
            let Some((clip, track)) = self.track(lane) else { return };
            let Some(sample) = lane.cursor.unit(track).map(|unit| sample(unit, lane.cursor.shift)) else { return };
            lane.live = Some(sample.clone());
            lane.cursor.advance(clip, track);
            let inputs: Vec<gst_app::AppSrc> = feeds
                .iter()
                .filter(|feed| feed.stream == lane.stream)
                .filter_map(|feed| feed.inputs.get(lane.track).cloned())
                .collect();
            drop(state);
            inputs.iter().for_each(|input| push(input, &sample));
            state = self.lock();
        }
    }
}

fn push(input: &gst_app::AppSrc, sample: &gst::Sample) {
    // A pipeline that is being torn down refuses; it is taken off the list in a moment.
    let _ = input.push_sample(sample);
}

/// The unit at its place on the endless timeline; the bytes are shared.
fn sample(unit: &Unit, shift: u64) -> gst::Sample {
    let mut buffer = unit.buffer.copy();
    let fields = buffer.make_mut();
    fields.set_pts(gst::ClockTime::from_nseconds(shift + unit.pts));
    fields.set_dts(gst::ClockTime::from_nseconds(shift + unit.dts));
    fields.set_duration(gst::ClockTime::from_nseconds(unit.duration));
    fields.unset_flags(gst::BufferFlags::DISCONT);
    gst::Sample::builder().buffer(&buffer).caps(&unit.caps).build()
}

#[cfg(test)]
mod tests {
    use super::super::clip::{Audio, Footage, Video};
    use super::*;

    /// Decode times and durations of the first `count` units from `now` on.
    fn walk(clip: &Clip, track: usize, now: u64, count: usize) -> Vec<(u64, u64)> {
        let track = &clip.tracks[track];
        let mut cursor = Cursor::at(clip, track, now);
        std::iter::repeat_with(|| {
            let unit = cursor.unit(track).unwrap();
            let at = (cursor.shift + unit.dts, unit.duration);
            cursor.advance(clip, track);
            at
        })
        .take(count)
        .collect()
    }

    #[test]
    fn the_loop_has_no_seam() {
        let clip = Clip::load(&Footage::Street, Video::AsIs, Audio::AsIs).unwrap();
        for (track, count) in [(0, 377 * 3), (1, 1416 * 3)] {
            let times = walk(&clip, track, 0, count);
            for pair in times.windows(2) {
                let (gap, expected) = (pair[1].0 - pair[0].0, pair[0].1);
                assert!(gap.abs_diff(expected) <= 1_000, "track {track}: {gap} after a unit of {expected} ns");
            }
        }
    }

    #[test]
    fn sound_and_picture_stay_together_for_a_day() {
        let clip = Clip::load(&Footage::Street, Video::AsIs, Audio::AsIs).unwrap();
        let audio = &clip.tracks[1];
        let mut cursor = Cursor::at(&clip, audio, 0);
        while cursor.round < 86_400 / 30 {
            cursor.advance(&clip, audio);
            let off = cursor.shift - cursor.round * clip.length;
            assert!(off < 22_000_000, "{off} ns in round {}", cursor.round);
        }
    }

    #[test]
    fn starts_with_what_is_live() {
        let clip = Clip::load(&Footage::Street, Video::AsIs, Audio::AsIs).unwrap();
        for now in [0, 1, 1_234_567_890, clip.length - 1, clip.length, clip.length * 5 + 4_321] {
            for track in [0, 1] {
                let (at, duration) = walk(&clip, track, now, 1)[0];
                let first = clip.tracks[track].units[0].dts;
                assert!((at <= now && now - at <= duration + 1_000) || at == first, "{at} is not live at {now}");
            }
        }
    }
}
