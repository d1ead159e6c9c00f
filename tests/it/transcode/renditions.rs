//! What comes out of each rendition.

use super::clip::{Clip, Picture, Playing, decode, decode_sound, number};
use super::{children, take, transcoder, turn, watch};
use crate::support::until;
use fanlight::media::{AccessUnit, Codec, MediaTime, annex_b};
use std::sync::Arc;
use std::time::Duration;

const BYTE_STREAM: &str = "h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au";

/// Times rise, and key pictures come every 2 s at most.
fn in_order(units: &[AccessUnit]) {
    assert!(units[0].random_access, "it begins with a key picture");
    for pair in units.windows(2) {
        assert!(pair[0].dts < pair[1].dts && pair[0].pts < pair[1].pts, "{:?} {:?}", pair[0].pts, pair[1].pts);
    }
    let keys: Vec<_> = units.iter().filter(|unit| unit.random_access).map(|unit| unit.pts).collect();
    for pair in keys.windows(2) {
        assert!(pair[1].saturating_since(pair[0]) <= Duration::from_millis(2_001), "{keys:?}");
    }
    assert!(units.iter().all(|unit| unit.pts == unit.dts));
}

/// Every browser plays it: constrained baseline, parameter sets before each key picture, no reordering.
fn for_browsers(units: &[AccessUnit]) {
    for unit in units.iter().filter(|unit| unit.random_access) {
        let sps = annex_b::nal_units(&unit.payload).find(|nal| nal[0] & 0x1f == 7).expect("an SPS in front");
        assert_eq!((sps[1], sps[2] & 0x40), (66, 0x40), "constrained baseline");
        assert!(annex_b::nal_units(&unit.payload).any(|nal| nal[0] & 0x1f == 8), "a PPS in front");
        let video = unit.info.video().unwrap();
        assert_eq!((video.reorder_depth, video.parameter_sets.len()), (Some(0), 2));
    }
}

/// The numbers in the pictures belong to their times: picture n was shown n times 40 ms after the first.
fn numbers_fit(pictures: &[Picture]) {
    for picture in pictures {
        let at = MediaTime::START
            + Duration::from_secs(1)
            + Duration::from_millis(40) * number(&picture.luma, picture.stride);
        let off = picture.pts.nanos_since(at).unsigned_abs();
        assert!(off < 2_000_000, "picture {} is at {:?}", number(&picture.luma, picture.stride), picture.pts);
    }
}

/// B pictures in a pyramid, open to the last reorder: everything that comes out is in order and at its own time.
#[tokio::test(flavor = "multi_thread")]
async fn b_pictures_come_out_in_order_at_their_own_times() {
    let _turn = turn().await;
    let encode =
        format!("x264enc bframes=3 b-adapt=false b-pyramid=true key-int-max=100 speed-preset=veryfast ! {BYTE_STREAM}");
    let clip = tokio::task::spawn_blocking(move || Clip::numbered(&encode, Codec::H264, 400)).await.unwrap();
    let went_back = clip.units.windows(2).any(|pair| pair[1].pts < pair[0].pts);
    assert!(went_back, "the clip has B pictures");
    let playing = Playing::start("porch", Arc::clone(&clip), 150);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    assert!(children().is_empty(), "asking starts nothing");
    let mut reader = watch(rendition.stream()).await;
    let units = take(&mut reader, 120).await;
    in_order(&units);
    for_browsers(&units);
    // It begins where the camera is now, not at the key picture 50 pictures ago.
    let late = playing.stream.latest().unwrap().saturating_since(units[119].pts);
    assert!(units[0].pts >= clip.units[140].pts, "{:?}", units[0].pts);
    assert!(late < Duration::from_secs(1), "{late:?}");
    let pictures = decode(&units);
    assert_eq!(pictures.len(), 120);
    numbers_fit(&pictures);
    let video = units[0].info.video().unwrap();
    assert_eq!((video.width, video.height, video.pixel_aspect), (320, 240, (1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_footage_keeps_its_rate_and_every_picture() {
    let _turn = turn().await;
    let playing = Playing::start("visitors", Clip::visitors(), 25);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    let units = take(&mut reader, 45).await;
    in_order(&units);
    for_browsers(&units);
    for pair in units.windows(2) {
        let step = pair[1].pts.saturating_since(pair[0].pts);
        assert!(step.abs_diff(Duration::from_millis(100)) < Duration::from_millis(2), "{step:?}");
    }
    let pictures = decode(&units);
    assert!(pictures.len() == 45 && pictures.iter().all(|picture| (picture.width, picture.height) == (768, 432)));
    let state = &transcoder.states()[0];
    assert!(state.running && state.units_in >= 45 && state.units_out >= 45 && state.restarts == 0, "{state:?}");
    assert_eq!((state.source.as_str(), state.pipeline.as_str()), ("visitors", "h264-to-h264"));
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_becomes_h264() {
    let _turn = turn().await;
    let encode = "x265enc speed-preset=ultrafast key-int-max=50 option-string=bframes=2 ! h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au";
    let clip = tokio::task::spawn_blocking(move || Clip::numbered(encode, Codec::H265, 250)).await.unwrap();
    let playing = Playing::start("yard", clip, 60);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    let units = take(&mut reader, 60).await;
    in_order(&units);
    for_browsers(&units);
    numbers_fit(&decode(&units));
}

/// Odd sizes lose a row and a column, which 4:2:0 cannot have.
#[tokio::test(flavor = "multi_thread")]
async fn jpeg_of_an_odd_size_becomes_h264() {
    let _turn = turn().await;
    let encode = "videoscale ! video/x-raw,width=321,height=241 ! jpegenc";
    let clip = tokio::task::spawn_blocking(move || Clip::numbered(encode, Codec::Jpeg, 200)).await.unwrap();
    assert_eq!(clip.units[0].info.video().map(|video| (video.width, video.height)), Some((321, 241)));
    let playing = Playing::start("hall", clip, 10);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    let units = take(&mut reader, 60).await;
    in_order(&units);
    for_browsers(&units);
    let pictures = decode(&units);
    numbers_fit(&pictures);
    assert_eq!((pictures[0].width, pictures[0].height), (320, 240));
}

/// Pixels that are no squares stay so, and the H.264 says how they are.
#[tokio::test(flavor = "multi_thread")]
async fn the_shape_of_pixels_is_kept_and_jpeg_gets_square_ones() {
    let _turn = turn().await;
    let encode = format!(
        "capssetter caps=video/x-raw,pixel-aspect-ratio=4/3 ! x264enc bframes=1 key-int-max=25 speed-preset=veryfast ! {BYTE_STREAM}"
    );
    let clip = tokio::task::spawn_blocking(move || Clip::numbered(&encode, Codec::H264, 400)).await.unwrap();
    assert_eq!(clip.units[0].info.video().map(|video| video.pixel_aspect), Some((4, 3)));
    let playing = Playing::start("narrow", clip, 30);
    let transcoder = transcoder();
    let h264 = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let units = take(&mut watch(h264.stream()).await, 10).await;
    assert_eq!(units[0].info.video().map(|video| (video.width, video.pixel_aspect)), Some((320, (4, 3))));

    let pages = transcoder.rendition(&playing.stream, playing.track, Codec::Jpeg).unwrap();
    let units = take(&mut watch(pages.stream()).await, 25).await;
    let video = units[0].info.video().unwrap();
    assert_eq!((video.pixel_aspect, video.height), ((1, 1), 240));
    assert!((426..=427).contains(&video.width), "{}", video.width);
    assert!(units.iter().all(|unit| unit.random_access && unit.payload.starts_with(&[0xff, 0xd8])));
    let span = units[24].pts.saturating_since(units[0].pts);
    assert!(span >= Duration::from_millis(2_300), "24 steps at 10 a second took {span:?}");
    assert!(span <= Duration::from_millis(3_500), "24 steps at 10 a second took {span:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn aac_becomes_opus_that_sounds_and_stays_in_time() {
    let _turn = turn().await;
    let clip = tokio::task::spawn_blocking(|| Clip::tone(15)).await.unwrap();
    let playing = Playing::start("street", clip, 40);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::Opus).unwrap();
    let units = take(&mut watch(rendition.stream()).await, 150).await;
    // The first packet is cut where the sound begins.
    for pair in units[1..].windows(2) {
        let step = pair[1].pts.saturating_since(pair[0].pts);
        assert!(step.abs_diff(Duration::from_millis(20)) < Duration::from_millis(3), "{step:?}");
    }
    assert_eq!((units[0].info.clock_rate, units[0].info.codec), (48_000, Codec::Opus));
    let late = playing.stream.latest().unwrap().nanos_since(units[149].pts);
    assert!((-50_000_000..500_000_000).contains(&late), "{late} ns behind its source");
    let sound = decode_sound(&units);
    assert!(sound.len() >= 48_000 * 2, "{} samples", sound.len());
    // The second half, as the first may begin with the encoder's own silence.
    let half = &sound[sound.len() / 2..];
    let crossings = half.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
    let hertz = crossings as f64 / 2.0 / (half.len() as f64 / 48_000.0);
    assert!((435.0..445.0).contains(&hertz), "a tone of 440 Hz became one of {hertz} Hz");
}

/// A request makes a key picture, many make one a second.
#[tokio::test(flavor = "multi_thread")]
async fn key_pictures_come_when_asked_for_but_no_more_than_one_a_second() {
    let _turn = turn().await;
    let encode = format!("x264enc bframes=2 key-int-max=250 speed-preset=veryfast ! {BYTE_STREAM}");
    let clip = tokio::task::spawn_blocking(move || Clip::numbered(&encode, Codec::H264, 400)).await.unwrap();
    let playing = Playing::start("door", clip, 30);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    take(&mut reader, 10).await;
    let mut units = Vec::new();
    for _ in 0..100 {
        rendition.request_key();
        units.extend(take(&mut reader, 1).await);
    }
    let keys = units.iter().filter(|unit| unit.random_access).count();
    assert!((3..=5).contains(&keys), "{keys} key pictures in 4 s");
}

/// When the source's track is gone, viewers of the rendition are ended, and asking again makes another.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_source_is_the_end_of_its_renditions() {
    let _turn = turn().await;
    let playing = Playing::start("gone", Clip::visitors(), 25);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let again = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    assert!(Arc::ptr_eq(&rendition, &again), "all who ask share one");
    let mut reader = watch(rendition.stream()).await;
    take(&mut reader, 3).await;
    playing.stop();
    playing.stream.end();
    while reader.next().await.is_some() {}
    until("the encoder is gone", || children().is_empty() && zombies_gone()).await;
    until("the rendition is forgotten", || transcoder.states().is_empty()).await;
}

fn zombies_gone() -> bool {
    super::zombies() == 0
}

/// Another size: another encoder, whose pictures go on after those of the one before.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_another_size_go_on_in_the_same_rendition() {
    let _turn = turn().await;
    let clip = tokio::task::spawn_blocking(|| {
        let encode = format!("x264enc bframes=2 key-int-max=50 speed-preset=veryfast ! {BYTE_STREAM}");
        let large = format!("videoscale ! video/x-raw,width=640,height=480 ! {encode}");
        Clip::numbered(&encode, Codec::H264, 100).then(&Clip::numbered(&large, Codec::H264, 150))
    });
    let playing = Playing::start("resized", clip.await.unwrap(), 10);
    let transcoder = transcoder();
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    let mut units = take(&mut reader, 20).await;
    while units.last().unwrap().info.video().map(|video| video.width) != Some(640) {
        units.extend(take(&mut reader, 1).await);
    }
    let changed = units.last().unwrap();
    assert!(changed.random_access && changed.info.video().unwrap().height == 480);
    units.extend(take(&mut reader, 20).await);
    assert!(units.windows(2).all(|pair| pair[0].dts < pair[1].dts));
    let pictures = decode(&units[units.len() - 21..]);
    assert!(pictures.iter().all(|picture| (picture.width, picture.height) == (640, 480)));
    assert_eq!(transcoder.states()[0].restarts, 0, "that is no failure");
}
