//! Every stream of the demo in every player, over TCP and UDP, sound included.

use super::tool::{ffmpeg, ffprobe, gst_launch, words};
use crate::support::{PATIENCE, until};
use fanlight::app::{self, App};
use fanlight::bus::EventKind;
use fanlight::config::{self, Listen, UdpPorts};
use fanlight::simulate::demo::{Demo, Reach};
use futures::StreamExt as _;
use futures::future::join_all;
use retina::client::{PlayOptions, Session, SessionOptions, SetupOptions, Transport};
use retina::codec::{CodecItem, FrameFormat};
use tokio::time::timeout;

/// Streams with their pictures per second and whether they have sound.
const STREAMS: [(&str, &str, bool); 3] =
    [("hall", "10/1", false), ("street", "25/2", true), ("street/sub", "25/2", true)];

struct Running {
    app: App,
    demo: Demo,
}

impl Running {
    /// The demo as `fanlight demo` starts it, but for the gateway's ports.
    async fn start() -> Self {
        let demo = tokio::task::spawn_blocking(|| Demo::start(Reach::Loopback).unwrap()).await.unwrap();
        let mut config = config::load(demo.config()).unwrap();
        let free = Listen::parse("127.0.0.1:0").unwrap();
        config.http.listen = vec![free.clone()];
        config.rtsp.listen = vec![free.clone()];
        config.webrtc.listen = vec![free.clone()];
        config.mini_doorbell.listen = vec![free.clone()];
        config.ftp.listen = vec![free];
        config.rtsp.udp_ports = UdpPorts::Any;
        let program = Some(env!("CARGO_BIN_EXE_fanlight").into());
        let app = App::start(config, app::Options { program, ..app::Options::default() }).await.unwrap();
        for (name, ..) in STREAMS {
            until("every stream is ready", || app.bus().stream(name).is_some_and(|(_, stream)| stream.can_start()))
                .await;
        }
        Self { app, demo }
    }

    fn url(&self, stream: &str) -> String {
        format!("rtsp://{}/{stream}", self.app.addresses().rtsp[0])
    }

    /// One after the other for transports, all streams of one at once.
    async fn each<F: Future<Output = ()>>(&self, play: impl Fn(&'static str, String, &'static str, bool) -> F) {
        for transport in ["tcp", "udp"] {
            join_all(STREAMS.iter().map(|(name, rate, sound)| play(transport, self.url(name), rate, *sound))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffprobe_tells_rates_and_codecs() {
    let demo = Running::start().await;
    demo.each(async |transport, url, rate, sound| {
        let line = format!("-rtsp_transport {transport} -show_streams");
        let found = ffprobe(&line, &url).await;
        let streams = found["streams"].as_array().unwrap();
        assert_eq!(streams[0]["codec_name"], "h264");
        assert_eq!((&streams[0]["r_frame_rate"], &streams[0]["avg_frame_rate"]), (&rate.into(), &rate.into()));
        assert!(streams[0]["width"].as_u64().unwrap() > 300);
        assert_eq!(streams.len(), 1 + usize::from(sound), "{transport} {url}");
        if sound {
            assert_eq!((&streams[1]["codec_name"], &streams[1]["sample_rate"]), (&"aac".into(), &"48000".into()));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_decodes_ten_seconds_without_a_complaint() {
    let demo = Running::start().await;
    demo.each(async |transport, url, _, _| {
        let line = format!("-v error -rtsp_transport {transport} -i URL -t 10 -map 0 -f null -");
        let output = ffmpeg(&line, &url).await;
        assert_eq!(output.log, "", "{transport} {url}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gstreamer_plays() {
    let demo = Running::start().await;
    demo.each(async |transport, url, _, sound| {
        let mut line = format!(
            "rtspsrc name=camera location={url} protocols={transport} \
             camera. ! application/x-rtp,media=video ! rtph264depay ! avdec_h264 ! fakesink name=pictures silent=false"
        );
        let mut wanted = vec![("pictures", 40)];
        if sound {
            line += " camera. ! application/x-rtp,media=audio ! rtpmp4gdepay ! avdec_aac ! fakesink name=sound silent=false";
            wanted.push(("sound", 100));
        }
        gst_launch(&words(&line), &wanted).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retina_plays() {
    let demo = Running::start().await;
    demo.each(async |transport, url, _, sound| {
        let url = url::Url::parse(&url).unwrap();
        let mut session = Session::describe(url, SessionOptions::default()).await.unwrap();
        assert_eq!(session.streams().len(), 1 + usize::from(sound));
        for track in 0..session.streams().len() {
            let transport = match transport {
                "udp" => Transport::Udp(Default::default()),
                _ => Transport::Tcp(Default::default()),
            };
            let options = SetupOptions::default().transport(transport).frame_format(FrameFormat::SIMPLE);
            session.setup(track, options).await.unwrap();
        }
        let mut session = session.play(PlayOptions::default()).await.unwrap().demuxed().unwrap();
        let (mut pictures, mut sounds) = (0, 0);
        while pictures < 50 || sound && sounds < 100 {
            match timeout(PATIENCE, session.next()).await.expect("media in time").expect("no end").unwrap() {
                CodecItem::VideoFrame(picture) => {
                    assert!(pictures > 0 || picture.is_random_access_point(), "starts with a key picture");
                    assert_eq!(picture.loss(), 0);
                    pictures += 1;
                }
                CodecItem::AudioFrame(frame) => {
                    assert_eq!(frame.loss(), 0);
                    sounds += 1;
                }
                _ => {}
            }
        }
    })
    .await;
}

/// The devices that send JPEG, with the form in which they are asked for.
const PICTURES: [&str; 5] = ["door", "corner", "yard", "porch", "yard?video=copy"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_device_of_each_family_plays_and_somebody_rings() {
    let running = Running::start().await;
    let addresses = running.app.addresses();
    running.demo.call(Some((addresses.http[0], addresses.mini_doorbell[0]))).unwrap();
    let events = &running.app.bus().events;
    let visits = || {
        let (events, _) = events.since(None);
        events.into_iter().filter(|event| event.kind == EventKind::Visitor).count()
    };
    until("somebody is at the door", || visits() > 0).await;
    for name in ["corner", "yard", "porch"] {
        let device = running.app.bus().device(name).unwrap();
        until("every device has sent pictures", || device.main().totals().frames > 0).await;
    }
    join_all(PICTURES.iter().map(async |stream| {
        let url = running.url(stream);
        let output = ffmpeg("-v error -rtsp_transport tcp -i URL -an -frames:v 3 -f null -", &url).await;
        assert_eq!(output.log, "", "{url}");
        let depay = if stream.ends_with("copy") { "rtpjpegdepay ! jpegdec" } else { "rtph264depay ! avdec_h264" };
        let line = format!(
            "rtspsrc name=camera location={url} protocols=tcp \
             camera. ! application/x-rtp,media=video ! {depay} ! fakesink name=pictures silent=false"
        );
        gst_launch(&words(&line), &[("pictures", 3)]).await;
    }))
    .await;
    // A player asked for the door's picture for as long as that took, and there was one visitor or, after 30 s, two.
    assert!((1..=4).contains(&visits()), "{} visitors", visits());
}
