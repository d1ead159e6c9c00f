use super::*;
use crate::bus::Limits;
use crate::media::{AudioFormat, Codec, Format, VideoFormat};

fn info(codec: Codec) -> TrackInfo {
    match codec.kind() {
        Kind::Video => TrackInfo { codec, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) },
        Kind::Audio => TrackInfo { codec, clock_rate: 8_000, format: Format::Audio(AudioFormat::default()) },
    }
}

fn at(millis: u64) -> MediaTime {
    MediaTime::START + Duration::from_millis(millis)
}

struct Camera {
    stream: Arc<Stream>,
    video: TrackId,
    audio: TrackId,
}

impl Camera {
    fn new() -> Self {
        let stream = Stream::new("porch", Limits::default());
        let ids = stream.announce(&[info(Codec::H264), info(Codec::Pcmu)]);
        Self { stream, video: ids[0], audio: ids[1] }
    }

    fn picture(&self, pts: u64, dts: u64, key: bool, size: usize) {
        let mut payload = vec![0, 0, 0, 1, if key { 0x65 } else { 0x41 }];
        payload.resize(5 + size, 7);
        let unit = AccessUnit {
            pts: at(pts),
            dts: at(dts),
            random_access: key,
            discontinuity: false,
            info: Arc::new(info(Codec::H264)),
            payload: payload.into(),
        };
        self.stream.publish(self.video, unit);
    }

    fn sound(&self, millis: u64) {
        let unit = AccessUnit {
            pts: at(millis),
            dts: at(millis),
            random_access: true,
            discontinuity: false,
            info: Arc::new(info(Codec::Pcmu)),
            payload: Bytes::from_static(&[0xff; 160]),
        };
        self.stream.publish(self.audio, unit);
    }

    /// 25 pictures a second with a key picture each second, sound every 20 ms.
    fn play(&self, from: u64, to: u64) {
        for millis in (from..to).step_by(20) {
            if millis % 40 == 0 {
                self.picture(millis, millis, millis % 1_000 == 0, 3_000);
            }
            self.sound(millis + 5);
        }
    }
}

/// Lets the pump run until it has taken everything published.
async fn settle(feed: &Feed) {
    let mut end = feed.end();
    loop {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let now = feed.end();
        if now == end {
            return;
        }
        end = now;
    }
}

fn units(feed: &Feed, mut position: Position) -> Vec<Arc<PacketUnit>> {
    let mut out = Vec::new();
    loop {
        match feed.next(position, false) {
            Next::Item(Item::Unit(unit)) => out.push(unit),
            Next::Item(Item::Report(..)) => {}
            _ => return out,
        }
        position = position.next();
    }
}

#[tokio::test]
async fn a_newcomer_starts_at_the_cached_key_with_exact_numbers() {
    let camera = Camera::new();
    camera.play(0, 2_500);
    let feed = Feed::of(&camera.stream).unwrap();
    let joined = feed.join(Start::Key, &[true, true]).unwrap();
    let sent = units(&feed, joined.position);
    let first = |track: usize| sent.iter().find(|unit| unit.head.track == track).unwrap();
    assert_eq!(first(0).head.pts, at(2_000));
    assert!(first(0).head.key);
    assert_eq!(joined.tracks[0].seq, first(0).head.first_seq);
    assert_eq!(joined.tracks[0].rtp_time, first(0).head.rtp_time);
    assert_eq!(first(1).head.pts, at(2_005));
    assert_eq!(joined.tracks[1].seq, first(1).head.first_seq);
    // The sound's clock at the instant of the first picture, 5 ms before the first sound.
    assert_eq!(first(1).head.rtp_time.wrapping_sub(joined.tracks[1].rtp_time), 40);
}

#[tokio::test]
async fn everybody_gets_the_same_bytes() {
    let camera = Camera::new();
    camera.play(0, 1_500);
    let feed = Feed::of(&camera.stream).unwrap();
    let early = feed.join(Start::Key, &[true, true]).unwrap();
    camera.play(1_500, 1_900);
    settle(&feed).await;
    let late = feed.join(Start::Key, &[true, true]).unwrap();
    assert_eq!(early.tracks[0].seq, late.tracks[0].seq);
    let (a, b) = (units(&feed, early.position), units(&feed, late.position));
    assert!(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.framed(0).as_ptr() == b.framed(0).as_ptr()));
}

#[tokio::test]
async fn sequence_numbers_have_no_gap_across_the_start_and_live() {
    let camera = Camera::new();
    camera.play(0, 1_500);
    let feed = Feed::of(&camera.stream).unwrap();
    let joined = feed.join(Start::Key, &[true, true]).unwrap();
    camera.play(1_500, 1_980);
    settle(&feed).await;
    let mut expected = joined.tracks[0].seq;
    for unit in units(&feed, joined.position).iter().filter(|unit| unit.head.video) {
        assert_eq!(unit.head.first_seq, expected);
        expected = unit.next_seq();
    }
    assert_eq!(feed.seqs(feed.end())[0], expected);
}

#[tokio::test]
async fn a_squeezed_start_ends_at_the_live_edge_and_sends_no_old_sound() {
    let camera = Camera::new();
    camera.play(0, 1_900);
    let feed = Feed::of(&camera.stream).unwrap();
    let joined = feed.join(Start::Squeeze, &[true, true]).unwrap();
    let mut position = joined.position;
    let mut times = Vec::new();
    while let Next::Item(item) = feed.next(position, false) {
        if let Item::Unit(unit) = item
            && unit.head.video
        {
            times.push(unit.head.rtp_time.wrapping_add(joined.add_time(position, &unit, 90_000)));
        }
        position = position.next();
    }
    assert_eq!(times.len(), 23);
    assert_eq!(joined.tracks[0].rtp_time, times[0]);
    let spans: Vec<_> = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(spans.iter().all(|span| (1..=90_000).contains(span)), "{spans:?}");
    assert!(times[22].wrapping_sub(times[0]) <= 90 * 50);
    assert_eq!(joined.audio_from, at(1_880));
    camera.play(1_900, 1_960);
    settle(&feed).await;
    let Next::Item(Item::Unit(unit)) = feed.next(position, false) else { panic!() };
    assert_eq!(joined.add_time(position, &unit, 90_000), 0);
}

#[tokio::test]
async fn a_live_start_waits_for_the_next_key() {
    let camera = Camera::new();
    camera.play(0, 1_500);
    let feed = Feed::of(&camera.stream).unwrap();
    let after = feed.end();
    assert!(feed.join(Start::Live(after), &[true, false]).is_none());
    camera.play(1_500, 2_100);
    settle(&feed).await;
    let joined = feed.join(Start::Live(after), &[true, false]).unwrap();
    assert_eq!(units(&feed, joined.position)[0].head.pts, at(2_000));
}

#[tokio::test]
async fn a_late_viewer_jumps_to_the_newest_key_and_a_punctual_one_does_not() {
    let camera = Camera::new();
    camera.play(0, 1_500);
    let feed = Feed::of(&camera.stream).unwrap();
    let position = feed.join(Start::Key, &[true, true]).unwrap().position;
    camera.play(1_500, 1_960);
    settle(&feed).await;
    assert!(matches!(feed.next(position, false), Next::Item(_)));
    for from in (1_960..6_200).step_by(200) {
        camera.play(from, from + 200);
        settle(&feed).await;
    }
    let Next::Jump { to, audio_from, pictures_before } = feed.next(position, false) else { panic!() };
    assert_eq!(audio_from, at(6_000));
    assert_eq!(pictures_before, 6_000 / 40 - 1_000 / 40);
    let Next::Item(Item::Unit(key)) = feed.next(to, false) else { panic!() };
    assert!(key.head.key && key.head.pts == at(6_000));
}

#[tokio::test]
async fn who_has_just_started_is_not_late() {
    let camera = Camera::new();
    camera.play(0, 1_960);
    let feed = Feed::of(&camera.stream).unwrap();
    let mut position = feed.join(Start::Key, &[true, true]).unwrap().position;
    let end = feed.end();
    // The next key picture comes while the cached GOP is being sent, and time goes on.
    for from in (1_960..3_200).step_by(200) {
        camera.play(from, from + 200);
        settle(&feed).await;
    }
    assert!(matches!(feed.next(position, false), Next::Jump { .. }));
    while position < end {
        assert!(matches!(feed.next(position, true), Next::Item(_)));
        position = position.next();
    }
}

#[tokio::test]
async fn memory_stays_near_one_gop() {
    let camera = Camera::new();
    camera.play(0, 1_000);
    let feed = Feed::of(&camera.stream).unwrap();
    for second in 1..60 {
        camera.play(second * 1_000, second * 1_000 + 1_000);
        settle(&feed).await;
    }
    let state = feed.state();
    let span = state.newest.saturating_since(state.units_from(0).next().unwrap().head.dts);
    assert!(span <= Duration::from_millis(2_600), "{span:?}");
    let held: usize = state.units_from(0).map(|unit| unit.size()).sum();
    assert_eq!(state.bytes, held);
    assert!(state.keys.iter().all(|key| *key >= state.first));
}

#[tokio::test]
async fn reports_are_repeated_on_one_line() {
    let camera = Camera::new();
    camera.play(0, 200);
    let feed = Feed::of(&camera.stream).unwrap();
    let joined = feed.join(Start::Key, &[true, true]).unwrap();
    let mut reports = vec![joined.tracks[0].report.clone()];
    let mut position = joined.position;
    for step in 1..60 {
        camera.play(step * 200, step * 200 + 200);
        settle(&feed).await;
        let mut items = Vec::new();
        position = feed.read(position, &mut items).unwrap();
        reports.extend(items.into_iter().filter_map(|item| match item {
            Item::Report(0, rtcp) => Some(rtcp),
            _ => None,
        }));
    }
    assert_eq!(reports.len(), 3);
    let point = |rtcp: &Bytes| {
        let ntp = u64::from_be_bytes(rtcp[8..16].try_into().unwrap());
        (ntp, u32::from_be_bytes(rtcp[16..20].try_into().unwrap()))
    };
    let (ntp, time) = point(&reports[0]);
    for report in &reports[1..] {
        let (later_ntp, later_time) = point(report);
        let seconds = (later_ntp - ntp) as f64 / f64::from(u32::MAX);
        let ticks = f64::from(later_time.wrapping_sub(time));
        assert!((seconds * 90_000.0 - ticks).abs() < 2.0, "{seconds} s, {ticks} ticks");
    }
}

#[tokio::test]
async fn the_feed_ends_with_its_video_track_and_the_work_with_the_last_viewer() {
    let camera = Camera::new();
    camera.play(0, 500);
    let feed = Feed::of(&camera.stream).unwrap();
    assert_eq!(camera.stream.demand.count(), 1);
    camera.stream.announce(&[info(Codec::H265), info(Codec::Pcmu)]);
    settle(&feed).await;
    assert!(feed.ended());
    assert!(matches!(feed.next(feed.end(), false), Next::Ended));
    let other = Feed::of(&camera.stream).unwrap();
    assert!(!other.ended());
    drop((feed, other));
    while camera.stream.demand.count() > 0 {
        tokio::task::yield_now().await;
    }
}
