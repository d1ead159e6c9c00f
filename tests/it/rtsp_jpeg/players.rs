//! Players of other people play both forms of a JPEG camera, over TCP and UDP, and the request sequences of those that
//! cannot run here.

use super::pictures::{VGA, picture};
use super::{Camera, FRAME, Gateway, Running, turn};
use crate::players::tool::{ffmpeg, ffprobe, gst_launch, words};
use crate::support::PATIENCE;
use crate::support::rtsp_client::Client;
use futures::StreamExt as _;
use retina::client::{
    PlayOptions, Session, SessionOptions, SetupOptions, TcpTransportOptions, Transport, UdpTransportOptions,
};
use retina::codec::{CodecItem, FrameFormat};
use tokio::net::UdpSocket;
use tokio::time::timeout;

fn start() -> (Gateway, Running) {
    let gateway = Gateway::start();
    let pictures: Vec<_> = (0..15).map(|number| picture(VGA, number)).collect();
    let running = Camera::new(&gateway.bus, "hall", true).run(pictures, FRAME);
    (gateway, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn ffprobe_and_ffmpeg() {
    let _turn = turn().await;
    let (gateway, running) = start();
    for (path, codec) in [("hall", "h264"), ("hall?video=copy", "mjpeg")] {
        let url = gateway.url(path);
        for transport in ["tcp", "udp"] {
            let found = ffprobe(&format!("-rtsp_transport {transport} -show_streams"), &url).await;
            let streams = found["streams"].as_array().unwrap();
            assert_eq!(streams.len(), 2, "{found}");
            assert_eq!((&streams[0]["codec_name"], &streams[1]["codec_name"]), (&codec.into(), &"pcm_mulaw".into()));
            assert_eq!((&streams[0]["width"], &streams[0]["height"]), (&640.into(), &480.into()));
            let line = format!("-v warning -rtsp_transport {transport} -i URL -an -frames:v 20 -f null -");
            let output = ffmpeg(&line, &url).await;
            // What any RTSP source gets (see the recorders' tests), and a word on the range that JPEG pictures have.
            let usual = |line: &&str| {
                ["Timestamps are unset", "monoton", "deprecated pixel format"].iter().any(|word| line.contains(word))
            };
            let strange: Vec<_> = output.log.lines().filter(|line| !usual(line)).collect();
            assert!(strange.is_empty(), "{path} over {transport}: {strange:?}");
        }
    }
    drop(running);
}

/// Frigate's two inputs: what it records it copies, what it detects on it decodes; neither has anything to say.
#[tokio::test(flavor = "multi_thread")]
async fn frigate_finds_nothing_to_say() {
    let _turn = turn().await;
    let (gateway, running) = start();
    let folder = tempfile::tempdir().unwrap();
    let input = "-v warning -threads 2 -user_agent FFmpeg_Frigate/0.16 -rtsp_transport tcp -timeout 10000000 -i URL";
    let record = "-f segment -segment_time 2 -segment_format mp4 -reset_timestamps 1 -c copy -an -t 6";
    let line = format!("{input} {record} {}/%03d.mp4", folder.path().display());
    let output = ffmpeg(&line, &gateway.url("hall")).await;
    let usual = |line: &&str| ["Timestamps are unset", "monoton"].iter().any(|word| line.contains(word));
    assert!(output.log.lines().filter(usual).count() <= 2, "{}", output.log);
    assert!(output.log.lines().all(|line| usual(&line)), "{}", output.log);
    let segments = std::fs::read_dir(folder.path()).unwrap().count();
    assert!((2..=4).contains(&segments), "{segments} segments of 2 s in 6 s: key pictures every 2 s");
    let detect = format!("{input} -r 5 -vf fps=5,scale=320:240 -threads 2 -t 4 -f rawvideo -pix_fmt yuv420p -");
    let output = ffmpeg(&detect, &gateway.url("hall")).await;
    assert_eq!(output.log, "");
    assert!(output.stdout.len() >= 15 * 320 * 240 * 3 / 2);
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer() {
    let _turn = turn().await;
    let (gateway, running) = start();
    for (path, decode) in [("hall", "rtph264depay ! avdec_h264"), ("hall?video=copy", "rtpjpegdepay ! jpegdec")] {
        for transport in ["tcp", "udp"] {
            let line = format!(
                "rtspsrc name=s location={} protocols={transport} latency=100 \
                 s. ! application/x-rtp,media=video ! {decode} ! fakesink name=shown silent=false \
                 s. ! application/x-rtp,media=audio ! rtppcmudepay ! fakesink name=heard silent=false",
                gateway.url(path)
            );
            gst_launch(&words(&line), &[("shown", 20), ("heard", 40)]).await;
        }
    }
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn retina() {
    let _turn = turn().await;
    let (gateway, running) = start();
    for (path, encoding) in [("hall", "h264"), ("hall?video=copy", "jpeg")] {
        let transports =
            [Transport::Tcp(TcpTransportOptions::default()), Transport::Udp(UdpTransportOptions::default())];
        for transport in transports {
            let describe = Session::describe(gateway.url(path).parse().unwrap(), SessionOptions::default());
            let mut session = timeout(PATIENCE, describe).await.expect("an answer").unwrap();
            assert_eq!(session.streams()[0].encoding_name(), encoding);
            for track in 0..2 {
                let options = SetupOptions::default().transport(transport.clone()).frame_format(FrameFormat::SIMPLE);
                session.setup(track, options).await.unwrap();
            }
            let mut session = session.play(PlayOptions::default()).await.unwrap().demuxed().unwrap();
            let (mut pictures, mut sounds) = (0, 0);
            while pictures < 20 || sounds < 20 {
                match timeout(PATIENCE, session.next()).await.expect("media").expect("no end").unwrap() {
                    CodecItem::VideoFrame(frame) => {
                        assert_eq!(frame.loss(), 0);
                        assert!(pictures > 0 || frame.is_random_access_point());
                        pictures += 1;
                    }
                    CodecItem::AudioFrame(_) => sounds += 1,
                    _ => {}
                }
            }
        }
    }
    drop(running);
}

/// VLC: UDP first; its URLs are the Content-Base with the control appended, so the query is lost after the DESCRIBE.
#[tokio::test(flavor = "multi_thread")]
async fn vlc() {
    let _turn = turn().await;
    let (gateway, running) = start();
    let agent = ("User-Agent", "LibVLC/3.0.18 (LIVE555 Streaming Media v2016.11.28)");
    for (path, payload_type) in [("hall", 96), ("hall?video=copy", 26)] {
        let mut client = gateway.client(path).await;
        let uri = client.base.clone();
        client.request("OPTIONS", &uri, &[agent]).await;
        let describe = client.request("DESCRIBE", &uri, &[agent, ("Accept", "application/sdp")]).await;
        let base = describe.header("Content-Base").unwrap().to_owned();
        assert!(base.ends_with("/hall/"), "{base}");
        let mut sockets = Vec::new();
        for track in 0..2 {
            let rtp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let rtcp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (a, b) = (rtp.local_addr().unwrap().port(), rtcp.local_addr().unwrap().port());
            let transport = format!("RTP/AVP;unicast;client_port={a}-{b}");
            let control = format!("{base}trackID={track}");
            let setup = client.request("SETUP", &control, &[agent, ("Transport", &transport)]).await;
            assert_eq!(setup.status, 200, "{setup:?}");
            sockets.push((rtp, rtcp));
        }
        let play = client.request("PLAY", &base, &[agent, ("Range", "npt=0.000-")]).await;
        assert_eq!(play.header("RTP-Info").unwrap().split(',').count(), 2);
        let mut packet = [0; 2_000];
        for ((rtp, rtcp), payload_type) in sockets.iter().zip([payload_type, 0]) {
            timeout(PATIENCE, rtcp.recv_from(&mut packet)).await.expect("a report").unwrap();
            assert_eq!(packet[1], 200, "a sender report comes first");
            timeout(PATIENCE, rtp.recv_from(&mut packet)).await.expect("media").unwrap();
            assert_eq!(packet[1] & 0x7f, payload_type);
        }
        assert_eq!(client.request("TEARDOWN", &base, &[agent]).await.status, 200);
    }
    drop(running);
}

/// Who sets up without having asked what there is gets the form that the URL names.
#[tokio::test(flavor = "multi_thread")]
async fn setup_without_describe() {
    let _turn = turn().await;
    let (gateway, running) = start();
    for (query, payload_type) in [("", 96), ("?video=copy", 26)] {
        let mut client: Client = gateway.client("hall").await;
        let track = format!("{}/trackID=0{query}", client.base);
        let setup = client.request("SETUP", &track, &[("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1")]).await;
        assert_eq!(setup.status, 200, "{setup:?}");
        let uri = client.base.clone();
        assert_eq!(client.request("PLAY", &uri, &[]).await.status, 200);
        loop {
            let (channel, packet) = client.frame().await;
            if channel == 0 {
                assert_eq!(packet[1] & 0x7f, payload_type);
                break;
            }
        }
    }
    drop(running);
}
