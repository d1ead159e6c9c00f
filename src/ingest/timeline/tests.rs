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
            let ticks = |(place, frame): (usize, &i64)| frame * FRAME + if place < at { 0 } else { -3_600 * 90_000 };
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
