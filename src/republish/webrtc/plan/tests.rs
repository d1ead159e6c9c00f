use super::*;
use crate::bus::Limits;
use crate::media::{AccessUnit, AudioFormat, Format, VideoFormat};
use bytes::Bytes;

const CHROMIUM: &str = include_str!("../testdata/chromium.sdp");
const FIREFOX: &str = include_str!("../testdata/firefox.sdp");
const AIORTC: &str = include_str!("../testdata/aiortc.sdp");
const WEBRTCBIN: &str = include_str!("../testdata/webrtcbin.sdp");

fn offer(text: &str) -> Offer {
    Offer::parse(text).expect("it is whole")
}

fn video(codec: Codec, sps: &'static [u8], reorder_depth: Option<u8>) -> TrackInfo {
    let parameter_sets = if sps.is_empty() { Vec::new() } else { vec![Bytes::from_static(sps)] };
    let format = Format::Video(VideoFormat { reorder_depth, parameter_sets, ..VideoFormat::default() });
    TrackInfo { codec, clock_rate: 90_000, format }
}

fn audio(codec: Codec) -> TrackInfo {
    TrackInfo { codec, clock_rate: 8000, format: Format::Audio(AudioFormat::default()) }
}

fn stream(infos: &[TrackInfo]) -> Arc<Stream> {
    let stream = Stream::new("porch", Limits::default());
    stream.announce(infos);
    stream
}

/// Publishes pictures that are shown at these times.
fn publish(stream: &Arc<Stream>, times: &[u64]) {
    let (track, info) = stream.tracks()[0].clone();
    for (index, time) in times.iter().enumerate() {
        let dts = MediaTime::START + Duration::from_millis(40 * index as u64);
        let unit = AccessUnit {
            pts: MediaTime::START + Duration::from_millis(*time),
            dts,
            random_access: index == 0,
            discontinuity: false,
            info: Arc::clone(&info),
            payload: Bytes::from_static(b"picture"),
        };
        stream.publish(track, unit);
    }
}

/// Payload types and codecs of pictures and sound.
fn lanes(text: &str, infos: &[TrackInfo]) -> Result<(u8, Option<u8>), String> {
    let plan = plan(&offer(text), &stream(infos), &Transcoder::default()).map_err(|none| none.to_string())?;
    let video = plan.video.expect("pictures are a must");
    assert!(matches!(video.source, LaneSource::Native(..)));
    Ok((video.payload_type, plan.audio.map(|lane| lane.payload_type)))
}

const BASELINE: &[u8] = &[0x67, 0x42, 0xc0, 0x1f];
const MAIN: &[u8] = &[0x67, 0x4d, 0x00, 0x1f];
const HIGH: &[u8] = &[0x67, 0x64, 0x00, 0x28];

#[test]
fn every_player_is_given_its_payload_type() {
    let of = |text, sps| lanes(text, &[video(Codec::H264, sps, Some(0)), audio(Codec::Pcma)]);
    // Constrained Baseline, Main, and for High what is nearest to it.
    assert_eq!(of(CHROMIUM, BASELINE), Ok((108, Some(8))));
    assert_eq!(of(CHROMIUM, MAIN), Ok((116, Some(8))));
    assert_eq!(of(CHROMIUM, HIGH), Ok((116, Some(8))));
    assert_eq!(of(CHROMIUM, &[]), Ok((108, Some(8))));
    let with_high = CHROMIUM.replace("mode=1;profile-level-id=f4001f", "mode=1;profile-level-id=640c1f");
    assert_eq!(of(&with_high, HIGH), Ok((41, Some(8))));
    for sps in [BASELINE, MAIN, HIGH] {
        assert_eq!(of(FIREFOX, sps), Ok((126, Some(8))));
        // It has no other than both kinds of Baseline.
        assert_eq!(of(AIORTC, sps), Ok((if sps == BASELINE { 101 } else { 99 }, Some(8))));
        // It names no mode and no profile, and has Opus alone for sound.
        assert_eq!(of(WEBRTCBIN, sps), Ok((96, None)));
    }
}

#[test]
fn format_parameters_come_back_as_they_were_offered() {
    let stream = stream(&[video(Codec::H264, BASELINE, Some(0))]);
    let plan = plan(&offer(FIREFOX), &stream, &Transcoder::default()).expect("H.264 is common");
    let lane = plan.video.expect("there are pictures");
    assert_eq!(lane.fmtp, "profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1");
    assert_eq!(lane.codec, Codec::H264);
}

#[test]
fn a_mode_that_we_do_not_send_is_no_codec_in_common() {
    let mode_0 = CHROMIUM.replace("packetization-mode=1", "packetization-mode=0");
    let refused = lanes(&mode_0, &[video(Codec::H264, BASELINE, Some(0))]).expect_err("mode 1 is not offered");
    assert!(
        refused.starts_with(
            "no codec in common: porch sends H.264, the viewer takes VP8, VP9, H264 (packetization-mode=0), AV1;"
        ),
        "{refused}"
    );
}

#[test]
fn sound_is_no_must() {
    let camera = [video(Codec::H264, BASELINE, Some(0))];
    assert_eq!(lanes(CHROMIUM, &camera), Ok((108, None)));
    let with = |codec| [camera[0].clone(), audio(codec)];
    assert_eq!(lanes(CHROMIUM, &with(Codec::Opus)), Ok((108, Some(111))));
    assert_eq!(lanes(CHROMIUM, &with(Codec::Pcmu)), Ok((108, Some(0))));
    // Nothing here makes Opus of it.
    assert_eq!(lanes(CHROMIUM, &with(Codec::Aac)), Ok((108, None)));
    let (before, after) = CHROMIUM.split_at(CHROMIUM.find("m=audio").expect("it is there"));
    let unwanted = format!("{before}{}", after.replace("recvonly", "inactive"));
    assert_eq!(lanes(&unwanted, &with(Codec::Pcmu)), Ok((108, None)));
    let mono = CHROMIUM.replace("opus/48000/2", "opus/48000");
    assert_eq!(lanes(&mono, &with(Codec::Opus)), Ok((108, None)));
    // Of two the one that needs no encoder.
    let two = [camera[0].clone(), audio(Codec::Aac), audio(Codec::Pcma)];
    assert_eq!(lanes(CHROMIUM, &two), Ok((108, Some(8))));
}

#[test]
fn sound_alone_is_refused() {
    let refused = lanes(CHROMIUM, &[audio(Codec::Pcmu)]).expect_err("no pictures");
    assert_eq!(refused, "porch has no pictures, and sound alone is not served");
    let (before, after) = CHROMIUM.split_at(CHROMIUM.find("m=audio").expect("it is there"));
    let unwanted = format!("{}{after}", before.replace("recvonly", "sendonly"));
    let camera = [video(Codec::H264, BASELINE, Some(0)), audio(Codec::Pcmu)];
    assert!(lanes(&unwanted, &camera).expect_err("no pictures are wanted").contains("no video section that receives"));
}

#[test]
fn h265_goes_to_who_offers_it() {
    let offered = CHROMIUM.replace("H264/90000", "H265/90000");
    let offered = offered.replace(
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST",
    );
    let offered = offered.replace(
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f",
        "level-id=180;profile-id=2;tier-flag=0;tx-mode=SRST",
    );
    let main_10: &[u8] = &[0x42, 1, 1, 2, 0x20];
    let main: &[u8] = &[0x42, 1, 1, 1, 0x60];
    assert_eq!(lanes(&offered, &[video(Codec::H265, main_10, Some(0))]), Ok((116, None)));
    // Without parameters it is Main, as with them.
    assert!(matches!(lanes(&offered, &[video(Codec::H265, main, Some(0))]), Ok((102..=108, None))));
    let refused = lanes(CHROMIUM, &[video(Codec::H265, main, Some(0))]).expect_err("H.265 is not offered");
    assert!(refused.contains("porch sends H.265") && refused.contains("VP8"), "{refused}");
    assert!(refused.contains("cannot be transcoded to H.264 here"), "{refused}");
}

#[test]
fn pictures_out_of_order_are_not_passed_on() {
    let refused = |info: TrackInfo, times: &[u64]| {
        let stream = stream(&[info]);
        publish(&stream, times);
        plan(&offer(CHROMIUM), &stream, &Transcoder::default()).err().map(|none| none.to_string())
    };
    assert_eq!(refused(video(Codec::H264, HIGH, Some(0)), &[0, 120, 40, 80]), None, "what the stream says counts");
    let transcoded = refused(video(Codec::H264, HIGH, Some(2)), &[0, 40]);
    assert!(transcoded.is_some_and(|text| text.contains("cannot be transcoded to H.264 here")));
    assert_eq!(refused(video(Codec::H264, HIGH, None), &[0, 40, 80, 120]), None);
    assert!(refused(video(Codec::H264, HIGH, None), &[0, 120, 40, 80]).is_some());
    assert!(refused(video(Codec::Jpeg, &[], None), &[0, 40]).is_some_and(|text| text.contains("JPEG")));
}

#[tokio::test(start_paused = true)]
async fn a_few_pictures_are_waited_for_where_only_they_tell_the_order() {
    let open = stream(&[video(Codec::H264, HIGH, None)]);
    publish(&open, &[0]);
    let begin = tokio::time::Instant::now();
    settle(&open).await;
    assert_eq!(begin.elapsed(), TELLING_WAIT);
    publish(&open, &[0, 120, 40, 80]);
    let said = stream(&[video(Codec::H264, HIGH, Some(0))]);
    publish(&said, &[0]);
    let begin = tokio::time::Instant::now();
    settle(&open).await;
    settle(&said).await;
    assert!(begin.elapsed().is_zero());
}

#[tokio::test]
async fn what_browsers_cannot_show_is_a_rendition() {
    let transcoder = Transcoder::default();
    let renditions = |infos: &[TrackInfo]| {
        let plan = plan(&offer(CHROMIUM), &stream(infos), &transcoder).expect("it can be made");
        [plan.video, plan.audio].map(|lane| {
            lane.map(|lane| (lane.payload_type, lane.codec, matches!(lane.source, LaneSource::Rendition(_))))
        })
    };
    let h264 = Some((108, Codec::H264, true));
    let jpeg = TrackInfo { codec: Codec::Jpeg, ..video(Codec::Jpeg, &[], None) };
    assert_eq!(renditions(&[jpeg]), [h264, None]);
    assert_eq!(
        renditions(&[video(Codec::H265, &[], Some(0)), audio(Codec::Aac)]),
        [h264, Some((111, Codec::Opus, true))]
    );
    // B pictures, with sound as it is.
    let b = video(Codec::H264, HIGH, Some(2));
    assert_eq!(renditions(&[b, audio(Codec::Pcma)]), [h264, Some((8, Codec::Pcma, false))]);
}
