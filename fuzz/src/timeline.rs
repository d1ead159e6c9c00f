//! The timeline, fed a list of steps.

use fanlight::ingest::timeline::{Timeline, TrackId};
use fanlight::media::{Kind, MediaTime};
use std::time::Duration;

const CLOCK_RATES: [u32; 8] = [90_000, 8_000, 16_000, 44_100, 48_000, 1_000, 1, u32::MAX];

struct Track {
    id: TrackId,
    ticks: i64,
    frame: i64,
    last: Option<MediaTime>,
}

/// Access units an input may make, so that five minutes are enough for a million inputs.
const MAX_UNITS: usize = 500;

/// Plays the input:
///
/// | bytes | meaning |
/// |-------|---------|
/// | first | bit 0: a resumed session; bits 1 and 2: tracks less one |
/// | one a track | bits 0 to 2: clock rate; bit 3: sound; bits 4 to 7: reorder depth, 15 for unknown |
/// | then, one a step | bits 0 and 1: track; bits 2 to 4: what to do, see [`step`]; bits 5 to 7 and following bytes: by how much |
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let head = input.byte();
    let end = MediaTime::new(Duration::from_secs(100));
    let resumed = head & 1 == 1;
    let mut timeline = if resumed { Timeline::resume(end) } else { Timeline::new() };
    let mut tracks: Vec<Track> = (0..=head >> 1 & 3).map(|_| add_track(&mut timeline, input.byte())).collect();
    let mut units = 0;
    while !input.0.is_empty() && units < MAX_UNITS {
        units += 1;
        let step = input.byte();
        let index = usize::from(step & 3) % tracks.len();
        let track = &mut tracks[index];
        if !self::step(&mut timeline, track, step, &mut input, &mut units) {
            continue;
        }
        let stamp = timeline.stamp(track.id, track.ticks);
        assert!(track.last.is_none_or(|last| stamp.dts > last), "dts {:?} after {:?}", stamp.dts, track.last);
        assert!(stamp.dts <= stamp.pts && stamp.pts.saturating_since(stamp.dts) <= Duration::from_secs(2));
        assert!(!resumed || stamp.dts > end);
        track.last = Some(stamp.dts);
        assert!(timeline.end().is_some_and(|end| end >= stamp.pts));
    }
}

fn add_track(timeline: &mut Timeline, byte: u8) -> Track {
    let rate = CLOCK_RATES[usize::from(byte & 7)];
    let kind = if byte & 8 == 0 { Kind::Video } else { Kind::Audio };
    let id = timeline.add_track(kind, rate);
    if kind == Kind::Video {
        timeline.describe(id, depth(byte >> 4), None);
    }
    Track { id, ticks: 0, frame: i64::from(rate / 25), last: None }
}

/// Moves the track's clock; says whether an access unit comes then.
fn step(timeline: &mut Timeline, track: &mut Track, step: u8, input: &mut Input<'_>, units: &mut usize) -> bool {
    let small = i64::from(step >> 5);
    match step >> 2 & 7 {
        // On and back by frames, by ticks, and to anywhere.
        0 => track.ticks = track.ticks.wrapping_add(small * track.frame),
        1 => track.ticks = track.ticks.wrapping_sub(small * track.frame),
        2 => track.ticks = track.ticks.wrapping_add(i64::from(i16::from_le_bytes(input.take()))),
        3 => track.ticks = track.ticks.wrapping_add(i64::from(i32::from_le_bytes(input.take()))),
        4 => track.ticks = i64::from_le_bytes(input.take()),
        5 => {
            timeline.sender_report(track.id, u64::from_le_bytes(input.take()), track.ticks);
            return false;
        }
        6 => {
            let [told, rate] = input.take();
            timeline.describe(track.id, depth(told), (rate > 0).then_some(f64::from(rate)));
            return false;
        }
        // A run of steady frames.
        _ => {
            for _ in 0..small * 8 {
                *units += 1;
                track.ticks = track.ticks.wrapping_add(track.frame);
                let stamp = timeline.stamp(track.id, track.ticks);
                assert!(track.last.is_none_or(|last| stamp.dts > last) && stamp.dts <= stamp.pts);
                track.last = Some(stamp.dts);
            }
            track.ticks = track.ticks.wrapping_add(track.frame);
        }
    }
    true
}

fn depth(told: u8) -> Option<u8> {
    (told < 15).then_some(told)
}

/// Bytes to take from; zeros behind the end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        let mut bytes = [0; N];
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }
}
