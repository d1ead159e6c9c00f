//! The newest units of a stream's tracks: the cache that late readers start from, and the queue of all readers.
//!
//! Synchronous and without clocks; [`super::Stream`] adds the lock and the wake-up. The ring is never empty-handed for
//! a reader's sake: publishing evicts by span and bytes alone, and a reader that fell behind jumps to a key picture.

use super::TrackId;
use crate::media::{AccessUnit, Kind, MediaTime, TrackInfo};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How much a ring keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Oldest GOPs go while the tracks span more than this and a newer key picture remains.
    pub span: Duration,
    /// Oldest GOPs go while the payloads are more than this many bytes; a single GOP over it loses its start.
    pub bytes: usize,
    /// A reader further behind the newest unit than this goes on at the newest key picture.
    pub lag: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { span: Duration::from_secs(10), bytes: 32 << 20, lag: Duration::from_secs(1) }
    }
}

#[derive(Debug)]
struct Track {
    id: TrackId,
    info: Arc<TrackInfo>,
    /// Units at positions `first..first + units.len()`.
    units: VecDeque<AccessUnit>,
    first: u64,
    /// Positions of the random access units of a video track.
    keys: VecDeque<u64>,
    /// Positions of the units that were shown before.
    repeats: VecDeque<u64>,
    /// Units before this position are from before an interruption: nobody starts there.
    interrupted: u64,
    bytes: usize,
}

impl Track {
    /// The newest key picture at which a reader may start.
    fn newest_start(&self) -> Option<u64> {
        self.keys.back().copied().filter(|key| *key >= self.interrupted)
    }

    fn end(&self) -> u64 {
        self.first + self.units.len() as u64
    }

    fn at(&self, position: u64) -> Option<&AccessUnit> {
        usize::try_from(position.checked_sub(self.first)?).ok().and_then(|index| self.units.get(index))
    }

    fn pop(&mut self) -> usize {
        let Some(unit) = self.units.pop_front() else {
            return 0;
        };
        if self.keys.front() == Some(&self.first) {
            self.keys.pop_front();
        }
        if self.repeats.front() == Some(&self.first) {
            self.repeats.pop_front();
        }
        self.first += 1;
        self.bytes -= unit.payload.len();
        unit.payload.len()
    }

    fn span(&self) -> Duration {
        match (self.units.front(), self.units.back()) {
            (Some(oldest), Some(newest)) => newest.dts.saturating_since(oldest.dts),
            _ => Duration::ZERO,
        }
    }

    fn first_at_or_after(&self, pts: MediaTime) -> u64 {
        self.first + self.units.partition_point(|unit| unit.pts < pts) as u64
    }
}

/// Where a reader is: the next position in each track it reads.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    next: Vec<(TrackId, u64)>,
    /// The video track among them: without it the reader ends, while sound may go.
    video: Option<TrackId>,
    started: bool,
}

/// What [`Ring::read`] found.
#[derive(Debug)]
pub(super) enum Read {
    /// The next unit in decode order.
    Unit(TrackId, AccessUnit),
    /// Nothing yet; wait for the next publication.
    Pending,
    /// The video track, or the last track, is gone: its codec changed.
    Ended,
}

#[derive(Debug)]
pub(super) struct Ring {
    tracks: Vec<Track>,
    limits: Limits,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(limits: Limits) -> Self {
        Self { tracks: Vec::new(), limits, bytes: 0 }
    }

    pub(super) fn add(&mut self, id: TrackId, info: Arc<TrackInfo>) {
        let (units, keys, repeats) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        self.tracks.push(Track { id, info, units, first: 0, keys, repeats, interrupted: 0, bytes: 0 });
    }

    pub(super) fn remove(&mut self, id: TrackId) {
        self.tracks.retain(|track| track.id != id);
        self.bytes = self.tracks.iter().map(|track| track.bytes).sum();
    }

    /// Has later readers start at what comes from now on; those who read already go on.
    pub(super) fn interrupt(&mut self) {
        for track in &mut self.tracks {
            track.interrupted = track.end();
        }
    }

    /// Forgets all units; tracks and places in them stay.
    pub(super) fn clear(&mut self) {
        for track in &mut self.tracks {
            while !track.units.is_empty() {
                self.bytes -= track.pop();
            }
        }
    }

    pub(super) fn infos(&self) -> impl Iterator<Item = (TrackId, &Arc<TrackInfo>)> {
        self.tracks.iter().map(|track| (track.id, &track.info))
    }

    /// Appends a unit; answers false if the track is not (any more) in the ring.
    pub(super) fn push(&mut self, id: TrackId, unit: AccessUnit) -> bool {
        self.append(id, unit, false)
    }

    /// The same with a unit that was shown before, which is no picture more.
    pub(super) fn push_repeat(&mut self, id: TrackId, unit: AccessUnit) -> bool {
        self.append(id, unit, true)
    }

    fn append(&mut self, id: TrackId, unit: AccessUnit, repeat: bool) -> bool {
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == id) else {
            return false;
        };
        track.info = Arc::clone(&unit.info);
        if unit.random_access && unit.info.kind() == Kind::Video {
            track.keys.push_back(track.end());
        }
        if repeat {
            track.repeats.push_back(track.end());
        }
        track.bytes += unit.payload.len();
        self.bytes += unit.payload.len();
        track.units.push_back(unit);
        self.evict();
        true
    }

    fn video(&self) -> Option<usize> {
        self.tracks.iter().position(|track| track.info.kind() == Kind::Video)
    }

    fn evict(&mut self) {
        let Limits { span, bytes, .. } = self.limits;
        let video = self.video();
        if let Some(video) = video.and_then(|index| self.tracks.get_mut(index)) {
            while let Some(&second) = video.keys.get(1)
                && (video.span() > span || self.bytes > bytes)
            {
                while video.first < second {
                    self.bytes -= video.pop();
                }
            }
            // Before the first key picture nothing can start, and a GOP without end must not eat the memory.
            while self.bytes > bytes && video.units.len() > 1 {
                self.bytes -= video.pop();
            }
        }
        let (from, kept) = match video.and_then(|index| self.tracks.get(index)) {
            Some(video) => (video.units.front().map(|unit| unit.dts), video.span().max(span)),
            None => (None, span),
        };
        for track in self.tracks.iter_mut().filter(|track| track.info.kind() == Kind::Audio) {
            while track.units.len() > 1
                && (track.span() > kept
                    || self.bytes > bytes
                    || from.is_some_and(|from| track.units.front().is_some_and(|unit| unit.dts < from)))
            {
                self.bytes -= track.pop();
            }
        }
    }

    /// Whether a reader could start now: a key picture is there, or a stream without video has a frame.
    pub(super) fn can_start(&self) -> bool {
        match self.video() {
            Some(video) => self.tracks.get(video).is_some_and(|video| video.newest_start().is_some()),
            None => self.tracks.iter().any(|track| track.end() > track.interrupted.max(track.first)),
        }
    }

    /// Video pictures per second over the last `window` of the ring.
    pub(super) fn picture_rate(&self, window: Duration) -> f64 {
        let Some(video) = self.video().and_then(|index| self.tracks.get(index)) else {
            return 0.0;
        };
        let Some(newest) = video.units.back() else {
            return 0.0;
        };
        let since = newest.dts.saturating_sub(window);
        let places = (video.first..video.end()).rev().zip(video.units.iter().rev());
        let recent = places.take_while(|(_, unit)| unit.dts >= since);
        let mut times = recent.filter(|(at, _)| video.repeats.binary_search(at).is_err()).map(|(_, unit)| unit.dts);
        let Some(latest) = times.next() else {
            return 0.0;
        };
        let (more, oldest) = times.fold((0_u32, latest), |(count, _), dts| (count + 1, dts));
        let span = latest.saturating_since(oldest).as_secs_f64();
        if span > 0.0 { f64::from(more) / span } else { 0.0 }
    }

    /// A cursor over those tracks; it starts at the newest key picture once there is one.
    pub(super) fn cursor(&self, tracks: &[TrackId]) -> Cursor {
        let is_video = |id: &TrackId| self.tracks.iter().any(|t| t.id == *id && t.info.kind() == Kind::Video);
        Cursor {
            next: tracks.iter().map(|&id| (id, 0)).collect(),
            video: tracks.iter().copied().find(is_video),
            started: false,
        }
    }

    /// The next unit of the cursor's tracks, in decode order among what is there.
    pub(super) fn read(&self, cursor: &mut Cursor) -> Read {
        cursor.next.retain(|(id, _)| self.tracks.iter().any(|track| track.id == *id));
        let lost_video = cursor.video.is_some_and(|video| cursor.next.iter().all(|(id, _)| *id != video));
        if lost_video || cursor.next.is_empty() {
            return Read::Ended;
        }
        let mut skipped = false;
        if !cursor.started {
            if !self.start(cursor) {
                return Read::Pending;
            }
            cursor.started = true;
        } else if self.lagging(cursor) {
            skipped = self.start(cursor);
        }
        let mut best: Option<(usize, &AccessUnit, u64)> = None;
        for (slot, (id, next)) in cursor.next.iter().enumerate() {
            let Some(track) = self.tracks.iter().find(|track| track.id == *id) else {
                continue;
            };
            let position = (*next).max(track.first);
            if let Some(unit) = track.at(position)
                && best.is_none_or(|(_, other, _)| unit.dts < other.dts)
            {
                best = Some((slot, unit, position));
            }
        }
        let Some((slot, unit, position)) = best else {
            return Read::Pending;
        };
        let mut unit = unit.clone();
        let Some((id, next)) = cursor.next.get_mut(slot) else {
            return Read::Pending;
        };
        unit.discontinuity |= skipped || position > *next;
        *next = position + 1;
        Read::Unit(*id, unit)
    }

    /// Whether the reader is so late that it should go on at a newer key picture.
    fn lagging(&self, cursor: &Cursor) -> bool {
        cursor.next.iter().any(|(id, next)| {
            let Some(track) = self.tracks.iter().find(|track| track.id == *id) else {
                return false;
            };
            let (Some(key), Some(newest)) = (track.newest_start(), track.units.back()) else {
                return false;
            };
            if *next < track.first {
                return true;
            }
            key > *next && track.at(*next).is_some_and(|unit| newest.dts.saturating_since(unit.dts) > self.limits.lag)
        })
    }

    /// Sets the cursor to the newest key picture, and audio to its first frame at or after that picture's pts.
    fn start(&self, cursor: &mut Cursor) -> bool {
        let reads = |id: TrackId| cursor.next.iter().any(|(wanted, _)| *wanted == id);
        let video = self.tracks.iter().find(|track| track.info.kind() == Kind::Video && reads(track.id));
        let from = match video {
            Some(video) => match video.newest_start().and_then(|key| Some((key, video.at(key)?.pts))) {
                Some(key) => Some(key),
                None => return false,
            },
            None => None,
        };
        for (id, next) in &mut cursor.next {
            let Some(track) = self.tracks.iter().find(|track| track.id == *id) else {
                continue;
            };
            *next = match from {
                Some((key, _)) if track.info.kind() == Kind::Video => key,
                Some((_, pts)) => track.first_at_or_after(pts),
                None => track.end().saturating_sub(1).max(track.first),
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{AudioFormat, Codec, Format, VideoFormat};
    use bytes::Bytes;

    const VIDEO: TrackId = TrackId(1);
    const AUDIO: TrackId = TrackId(2);

    fn info(codec: Codec) -> Arc<TrackInfo> {
        let format = match codec.kind() {
            Kind::Video => Format::Video(VideoFormat::default()),
            Kind::Audio => Format::Audio(AudioFormat::default()),
        };
        Arc::new(TrackInfo { codec, clock_rate: 90_000, format })
    }

    fn unit(codec: Codec, millis: u64, key: bool, size: usize) -> AccessUnit {
        let time = MediaTime::new(Duration::from_millis(millis));
        AccessUnit {
            pts: time,
            dts: time,
            random_access: key,
            discontinuity: false,
            info: info(codec),
            payload: Bytes::from(vec![0; size]),
        }
    }

    fn ring(limits: Limits) -> Ring {
        let mut ring = Ring::new(limits);
        ring.add(VIDEO, info(Codec::H264));
        ring.add(AUDIO, info(Codec::Pcmu));
        ring
    }

    /// 25 pictures a second, a key picture each second, audio every 20 ms.
    fn fill(ring: &mut Ring, from: u64, to: u64) {
        for millis in (from..to).step_by(20) {
            if millis % 40 == 0 {
                ring.push(VIDEO, unit(Codec::H264, millis, millis % 1000 == 0, 100));
            }
            ring.push(AUDIO, unit(Codec::Pcmu, millis + 1, true, 10));
        }
    }

    fn next(ring: &Ring, cursor: &mut Cursor) -> Option<(TrackId, u64, bool)> {
        match ring.read(cursor) {
            Read::Unit(id, unit) => Some((id, unit.pts.since_zero().as_millis() as u64, unit.discontinuity)),
            Read::Pending | Read::Ended => None,
        }
    }

    #[test]
    fn a_cleared_ring_starts_nobody_and_goes_on() {
        let mut ring = ring(Limits::default());
        fill(&mut ring, 0, 3_500);
        let mut before = ring.cursor(&[VIDEO]);
        assert_eq!(next(&ring, &mut before), Some((VIDEO, 3_000, false)));
        ring.clear();
        assert!(!ring.can_start() && ring.bytes == 0 && ring.picture_rate(Duration::from_secs(5)) == 0.0);
        let mut after = ring.cursor(&[VIDEO]);
        assert_eq!((next(&ring, &mut before), next(&ring, &mut after)), (None, None));
        fill(&mut ring, 9_000, 9_100);
        assert_eq!(next(&ring, &mut before), Some((VIDEO, 9_000, true)));
        assert_eq!(next(&ring, &mut after), Some((VIDEO, 9_000, false)));
    }

    #[test]
    fn a_late_reader_starts_at_the_newest_key_with_the_sound_that_belongs_to_it() {
        let mut ring = ring(Limits::default());
        fill(&mut ring, 0, 3_500);
        let mut cursor = ring.cursor(&[VIDEO, AUDIO]);
        assert_eq!(next(&ring, &mut cursor), Some((VIDEO, 3_000, false)));
        assert_eq!(next(&ring, &mut cursor), Some((AUDIO, 3_001, false)));
    }

    #[test]
    fn nothing_starts_before_the_first_key_picture() {
        let mut ring = ring(Limits::default());
        fill(&mut ring, 40, 900);
        let mut cursor = ring.cursor(&[VIDEO, AUDIO]);
        assert!(next(&ring, &mut cursor).is_none());
        assert!(!ring.can_start());
        fill(&mut ring, 900, 1_100);
        assert_eq!(next(&ring, &mut cursor), Some((VIDEO, 1_000, false)));
    }

    #[test]
    fn a_reader_that_fell_behind_goes_on_at_a_key_picture_and_is_told() {
        let mut ring = ring(Limits::default());
        fill(&mut ring, 0, 1_500);
        let mut cursor = ring.cursor(&[VIDEO, AUDIO]);
        assert_eq!(next(&ring, &mut cursor), Some((VIDEO, 1_000, false)));
        fill(&mut ring, 1_500, 5_100);
        assert_eq!(next(&ring, &mut cursor), Some((VIDEO, 5_000, true)));
        assert_eq!(next(&ring, &mut cursor), Some((AUDIO, 5_001, false)));
    }

    #[test]
    fn a_reader_in_a_gop_longer_than_its_lag_loses_nothing() {
        let mut ring = ring(Limits::default());
        for millis in (0..8_000).step_by(40) {
            ring.push(VIDEO, unit(Codec::H264, millis, millis == 0, 100));
        }
        let mut cursor = ring.cursor(&[VIDEO]);
        let mut expected = 0;
        while let Some((_, millis, gap)) = next(&ring, &mut cursor) {
            assert_eq!((millis, gap), (expected, false));
            expected += 40;
        }
        assert_eq!(expected, 8_000);
    }

    #[test]
    fn whole_gops_go_by_span_and_one_stays() {
        let mut ring = ring(Limits { span: Duration::from_secs(2), ..Limits::default() });
        fill(&mut ring, 0, 10_000);
        let oldest = ring.tracks[0].units.front().unwrap();
        assert!(oldest.random_access);
        assert!(oldest.dts >= MediaTime::new(Duration::from_millis(7_000)));
        assert!(ring.tracks[1].units.front().unwrap().dts >= oldest.dts);
    }

    #[test]
    fn memory_is_bounded_even_when_a_gop_never_ends() {
        let mut ring = ring(Limits { bytes: 10_000, ..Limits::default() });
        for millis in (0..100_000).step_by(40) {
            ring.push(VIDEO, unit(Codec::H264, millis, millis == 0, 100));
        }
        assert!(ring.bytes <= 10_000);
        assert_eq!(ring.bytes, ring.tracks.iter().map(|track| track.bytes).sum::<usize>());
        assert!(!ring.can_start());
    }

    #[test]
    fn sound_alone_is_bounded_too() {
        let mut ring = Ring::new(Limits { span: Duration::from_secs(1), ..Limits::default() });
        ring.add(AUDIO, info(Codec::Pcmu));
        for millis in (0..10_000).step_by(20) {
            ring.push(AUDIO, unit(Codec::Pcmu, millis, true, 10));
        }
        assert!(ring.tracks[0].units.len() <= 52);
        let mut cursor = ring.cursor(&[AUDIO]);
        assert_eq!(next(&ring, &mut cursor), Some((AUDIO, 9_980, false)));
    }

    #[test]
    fn after_an_interruption_newcomers_wait_and_readers_go_on() {
        let mut ring = ring(Limits::default());
        fill(&mut ring, 0, 500);
        let mut reading = ring.cursor(&[VIDEO]);
        assert_eq!(next(&ring, &mut reading), Some((VIDEO, 0, false)));
        ring.interrupt();
        assert!(!ring.can_start());
        let mut late = ring.cursor(&[VIDEO]);
        assert!(next(&ring, &mut late).is_none());
        assert_eq!(next(&ring, &mut reading), Some((VIDEO, 40, false)));
        fill(&mut ring, 500, 1_100);
        assert!(ring.can_start());
        assert_eq!(next(&ring, &mut late), Some((VIDEO, 1_000, false)));
    }

    #[test]
    fn readers_end_with_the_video_track_and_live_on_without_sound() {
        let mut ring = ring(Limits::default());
        fill(&mut ring, 0, 500);
        let mut cursor = ring.cursor(&[VIDEO, AUDIO]);
        ring.remove(AUDIO);
        assert_eq!(next(&ring, &mut cursor), Some((VIDEO, 0, false)));
        ring.remove(VIDEO);
        assert!(matches!(ring.read(&mut cursor), Read::Ended));
        assert_eq!(ring.bytes, ring.tracks.iter().map(|track| track.bytes).sum::<usize>());
    }
}
