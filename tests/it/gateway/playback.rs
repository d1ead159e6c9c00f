//! What retina, a client by somebody else, plays of ours is what the camera's file holds: bytes, order, times, lip-sync.

use super::{Gateway, Options, options, start, street, visitors};
use crate::support::PATIENCE;
use fanlight::media::annex_b;
use futures::StreamExt as _;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use retina::client::{Demuxed, PlayOptions, Session, SessionOptions, SetupOptions, Transport, UdpTransportOptions};
use retina::codec::{CodecItem, FrameFormat, ParameterSetInsertion, aac, h26x};
use std::time::Duration;
use tokio::time::timeout;

/// One picture or sound frame of the file: its bytes without what travels beside pictures, its time in ns.
struct Unit {
    bytes: Vec<u8>,
    pts: i64,
}

/// A track of the footage in decode order, read by GStreamer.
fn source(file: &str, pad: &str, parser: &str) -> Vec<Unit> {
    gst::init().unwrap();
    let path = format!("{}/src/simulate/footage/{file}", env!("CARGO_MANIFEST_DIR"));
    let launch =
        format!("filesrc location=\"{path}\" ! qtdemux name=d d.{pad} ! {parser} ! appsink name=out sync=false");
    let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut units = Vec::new();
    while let Ok(sample) = out.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let bytes = buffer.map_readable().unwrap().to_vec();
        let pts = i64::try_from(buffer.pts().unwrap().nseconds()).unwrap();
        units.push(Unit { bytes: if pad.starts_with("video") { slices(&bytes) } else { bytes }, pts });
    }
    pipeline.set_state(gst::State::Null).unwrap();
    units
}

const H264: &str = "h264parse ! video/x-h264,stream-format=byte-stream,alignment=au";
const AAC: &str = "aacparse ! audio/mpeg,stream-format=raw";

/// The slices of an access unit, one after the other.
fn slices(annex_b: &[u8]) -> Vec<u8> {
    annex_b::nal_units(annex_b).filter(|nal| matches!(nal[0] & 0x1f, 1..=5)).flatten().copied().collect()
}

/// One unit as it arrived: bytes, time in ns since PLAY, and, once a sender report has told, by the common clock.
struct Arrived {
    bytes: Vec<u8>,
    pts: i64,
    wall: Option<i64>,
}

async fn play(url: &str, transport: Transport) -> Demuxed {
    let describe = Session::describe(url.parse().unwrap(), SessionOptions::default());
    let mut session = timeout(PATIENCE, describe).await.expect("an answer").unwrap();
    let format = FrameFormat {
        h26x_framing: h26x::Framing::AnnexB,
        parameter_set_insertion: ParameterSetInsertion::Never,
        aac_framing: aac::Framing::Raw,
    };
    for track in 0..session.streams().len() {
        let options = SetupOptions::default().transport(transport.clone()).frame_format(format);
        session.setup(track, options).await.unwrap();
    }
    // The default policies: retina insists on a good RTP-Info.
    session.play(PlayOptions::default()).await.unwrap().demuxed().unwrap()
}

/// So many pictures, and all sound that came with them.
async fn receive(session: &mut Demuxed, pictures: usize) -> [Vec<Arrived>; 2] {
    let mut arrived = [Vec::new(), Vec::new()];
    // Of each track: nanoseconds of the common clock minus those since PLAY.
    let mut clocks = [None, None];
    let ns = |ticks: i64, rate: u32| i64::try_from(i128::from(ticks) * 1_000_000_000 / i128::from(rate)).unwrap();
    let rates: Vec<u32> = session.streams().iter().map(|stream| stream.clock_rate_hz()).collect();
    let video = session.streams().iter().position(|stream| stream.media() == "video").unwrap();
    while arrived[0].len() < pictures {
        let item = timeout(PATIENCE, session.next()).await.expect("media").expect("no end").unwrap();
        let (stream, time, bytes) = match item {
            CodecItem::VideoFrame(frame) => {
                assert_eq!(frame.loss(), 0);
                (frame.stream_id(), frame.timestamp(), slices(frame.data()))
            }
            CodecItem::AudioFrame(frame) => {
                assert_eq!(frame.loss(), 0);
                (frame.stream_id(), frame.timestamp(), frame.data().to_vec())
            }
            CodecItem::Rtcp(packets) => {
                let Some(time) = packets.rtp_timestamp() else { continue };
                for packet in packets.pkts() {
                    if let Ok(Some(report)) = packet.as_sender_report() {
                        let ntp = (u128::from(report.ntp_timestamp().0) * 1_000_000_000) >> 32;
                        let since_play = ns(time.elapsed(), rates[packets.stream_id()]);
                        clocks[packets.stream_id()] = Some(i64::try_from(ntp).unwrap() - since_play);
                    }
                }
                continue;
            }
            _ => continue,
        };
        let pts = ns(time.elapsed(), rates[stream]);
        let wall = clocks[stream].map(|clock: i64| clock + pts);
        arrived[usize::from(stream != video)].push(Arrived { bytes, pts, wall });
    }
    arrived
}

/// Checks that what arrived is a stretch of the file, which the camera plays in a loop: nothing missing, nothing twice,
/// each at its time. Answers the place of the first unit.
fn compare(arrived: &[Arrived], source: &[Unit], tolerance: Duration) -> usize {
    let tolerance = i64::try_from(tolerance.as_nanos()).unwrap();
    let fits = |start: usize| {
        arrived.iter().zip(source.iter().cycle().skip(start)).all(|(arrived, unit)| arrived.bytes == unit.bytes)
    };
    let start = (0..source.len()).find(|start| fits(*start)).expect("the same units in the same order");
    for (index, pair) in arrived.windows(2).enumerate() {
        let (a, b) = ((start + index) % source.len(), (start + index + 1) % source.len());
        let distance = pair[1].pts - pair[0].pts;
        if b > a {
            let expected = source[b].pts - source[a].pts;
            assert!(
                (distance - expected).abs() <= tolerance,
                "unit {b}: {distance} ns after {a}, {expected} in the file"
            );
        }
    }
    start
}

/// RTP counts 11 us a tick, and each of two conversions may round.
const TICKS: Duration = Duration::from_micros(23);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_pictures_come_in_decode_order_with_their_own_times() {
    let camera = start(|| options(visitors, "127.0.1.9:0")).await;
    let entry = format!("  front: {{ source: \"{}\" }}\n", camera.url());
    let gateway = Gateway::start(&entry, Options::default()).await;
    let file = source("visitors.mp4", "video_0", H264);
    let url = format!("rtsp://{}/front", gateway.rtsp());
    for transport in [Transport::default(), Transport::Udp(UdpTransportOptions::default())] {
        let mut session = play(&url, transport).await;
        let [pictures, _] = receive(&mut session, 45).await;
        compare(&pictures, &file, TICKS);
        assert!(
            pictures.windows(2).any(|pair| pair[1].pts < pair[0].pts),
            "B-pictures are shown before what they need"
        );
        let mut times: Vec<_> = pictures.iter().map(|picture| picture.pts).collect();
        times.sort_unstable();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "no two at the same time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_and_pictures_come_whole_and_together() {
    let camera = start(|| options(street, "127.0.1.9:0")).await;
    let entry = format!("  street: {{ source: \"{}\" }}\n", camera.url());
    let gateway = Gateway::start(&entry, Options::default()).await;
    let (file, sound) = (source("street.mp4", "video_0", H264), source("street.mp4", "audio_0", AAC));
    let mut session = play(&format!("rtsp://{}/street", gateway.rtsp()), Transport::default()).await;
    let names: Vec<_> = session.streams().iter().map(|stream| stream.encoding_name().to_owned()).collect();
    assert_eq!(names, ["h264", "mpeg4-generic"]);
    let [pictures, frames] = receive(&mut session, 90).await;
    let video_from = compare(&pictures, &file, TICKS);
    // The camera's loop is sewn at whole frames of sound, so times are those of the file within one round only.
    let audio_from = compare(&frames, &sound, Duration::from_micros(50));
    assert!(frames.len() > 250, "{} frames of sound", frames.len());

    // Lip-sync, by the sender reports: the same distance between a picture and a frame of sound as in the file.
    let length = 1_000_000_000 * i64::try_from(file.len()).unwrap() * 2 / 25;
    let (picture, frame) = (&pictures[45], &frames[frames.len() / 2]);
    let in_file = file[(video_from + 45) % file.len()].pts - sound[(audio_from + frames.len() / 2) % sound.len()].pts;
    let here = picture.wall.expect("reports come first") - frame.wall.expect("reports come first");
    let off = (here - in_file).rem_euclid(length);
    let off = off.min(length - off);
    assert!(off < 25_000_000, "sound and pictures are {off} ns apart");
}
