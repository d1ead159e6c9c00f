//! `?video=copy` by receivers of other people: what they decode is the camera's picture, sample by sample.
//!
//! RFC 2435 counts sizes in units of 8 pixels: of 644x482 a receiver is told 648x488, and shows the padding that the
//! picture's last blocks are coded with. Nothing in the packets or in what players read of the description says better
//! (GStreamer takes `x-dimensions` only for pictures over 2040 pixels), so the comparison is of the part that is shown.

use super::pictures::{Coding, Planes, VGA, ingested, picture, split};
use super::{Camera, FRAME, Gateway};
use crate::players::tool::{gst_launch, succeed, words};
use crate::support::PATIENCE;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use retina::client::{
    PlayOptions, Session, SessionOptions, SetupOptions, TcpTransportOptions, Transport, UdpTransportOptions,
};
use retina::codec::CodecItem;
use std::path::Path;
use tokio::time::timeout;
use turbojpeg::Subsamp;

/// Pictures that each receiver must show.
const SHOWN: usize = 3;

struct Case {
    name: &'static str,
    /// What the camera sends.
    sent: Bytes,
}

fn coded(name: &'static str, coding: Coding) -> Case {
    Case { name, sent: picture(coding, 7) }
}

fn cases() -> Vec<Case> {
    let wide = Coding { sampling: Subsamp::Sub2x1, ..VGA };
    let optimised = |coding| Coding { optimised: true, ..coding };
    let odd = |coding| Coding { width: 644, height: 482, ..coding };
    let data = |name: &str| std::fs::read(format!("{}/src/media/testdata/{name}", env!("CARGO_MANIFEST_DIR")));
    vec![
        coded("four-two-zero", VGA),
        coded("four-two-two", wide),
        coded("optimised-420", optimised(VGA)),
        coded("optimised-422", optimised(wide)),
        coded("odd-420", odd(VGA)),
        coded("odd-422", odd(wide)),
        Case { name: "restart-420", sent: data("libjpeg-420-restart.jpg").unwrap().into() },
        Case { name: "restart-422", sent: data("libjpeg-422-restart.jpg").unwrap().into() },
        Case { name: "large", sent: picture(Coding { width: 2_040, height: 1_536, ..VGA }, 3) },
    ]
}

async fn by_ffmpeg(url: &str, transport: &str, file: &Path) -> Vec<Vec<u8>> {
    let line =
        format!("-hide_banner -nostdin -nostats -v warning -rtsp_transport {transport} -i {url} -frames:v {SHOWN}");
    let mut arguments = words(&line);
    arguments.extend(words("-c copy -f mjpeg"));
    arguments.push(file.display().to_string());
    let output = succeed("ffmpeg", &arguments).await;
    let about_time = |line: &&str| line.contains("Timestamps are unset") || line.contains("monoton");
    assert_eq!(output.log.lines().filter(|line| !about_time(line)).collect::<Vec<_>>(), Vec::<&str>::new());
    split(&std::fs::read(file).unwrap()).into_iter().map(<[u8]>::to_vec).collect()
}

async fn by_gstreamer(url: &str, transport: &str, file: &Path) -> Vec<Vec<u8>> {
    let line = format!(
        "rtspsrc location={url} protocols={transport} latency=100 ! rtpjpegdepay ! tee name=t \
         t. ! queue ! filesink buffer-mode=unbuffered sync=false location={} \
         t. ! queue ! jpegdec ! fakesink name=shown silent=false sync=false",
        file.display()
    );
    // The file is written in another thread than the one that is watched.
    gst_launch(&words(&line), &[("shown", SHOWN + 3)]).await;
    split(&std::fs::read(file).unwrap()).into_iter().map(<[u8]>::to_vec).collect()
}

async fn by_retina(url: &str, transport: &str) -> Vec<Vec<u8>> {
    let describe = Session::describe(url.parse().unwrap(), SessionOptions::default());
    let mut session = timeout(PATIENCE, describe).await.expect("an answer").unwrap();
    let transport = match transport {
        "tcp" => Transport::Tcp(TcpTransportOptions::default()),
        _ => Transport::Udp(UdpTransportOptions::default()),
    };
    session.setup(0, SetupOptions::default().transport(transport)).await.unwrap();
    let mut session = session.play(PlayOptions::default()).await.unwrap().demuxed().unwrap();
    let mut pictures = Vec::new();
    while pictures.len() < SHOWN {
        let item = timeout(PATIENCE, session.next()).await.expect("media").expect("no end").unwrap();
        if let CodecItem::VideoFrame(frame) = item {
            assert_eq!(frame.loss(), 0);
            pictures.push(frame.data().to_vec());
        }
    }
    pictures
}

async fn exact(transport: &str) {
    let (gateway, folder) = (Gateway::start(), tempfile::tempdir().unwrap());
    for case in cases() {
        let camera = Camera::new(&gateway.bus, case.name, false);
        let running = camera.run(vec![ingested(&case.sent)], FRAME * 3);
        let url = gateway.url(&format!("{}?video=copy", case.name));
        let file = |who: &str| folder.path().join(format!("{}-{who}.mjpeg", case.name));
        let (ffmpeg, gstreamer) = (file("ffmpeg"), file("gstreamer"));
        let seen = tokio::join!(
            by_ffmpeg(&url, transport, &ffmpeg),
            by_gstreamer(&url, transport, &gstreamer),
            by_retina(&url, transport)
        );
        let sent = Planes::decode(&case.sent);
        let padded = (sent.size.0.next_multiple_of(8), sent.size.1.next_multiple_of(8));
        for (who, pictures) in [("ffmpeg", seen.0), ("GStreamer", seen.1), ("retina", seen.2)] {
            assert!(pictures.len() >= SHOWN, "{} by {who}: {} pictures", case.name, pictures.len());
            for picture in pictures {
                let shown = Planes::decode(&picture);
                assert_eq!(shown.size, padded, "{} by {who}", case.name);
                assert!(shown.crop(sent.size) == sent, "{} by {who} is another picture", case.name);
            }
        }
        drop(running);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp() {
    exact("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_udp() {
    exact("udp").await;
}

/// Slices of an encoder that works in several threads are told apart by restart markers.
#[tokio::test(flavor = "multi_thread")]
async fn restart_markers_of_ffmpeg_come_through() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slices.jpg").display().to_string();
    let line = "-v error -f lavfi -i testsrc2=size=640x480 -frames:v 1 -slices 8 -c:v mjpeg -huffman default -pix_fmt yuvj420p";
    let mut arguments = words(line);
    arguments.push(file.clone());
    succeed("ffmpeg", &arguments).await;
    let sent = Bytes::from(std::fs::read(&file).unwrap());
    assert_eq!(fanlight::media::jpeg::parse(&sent).unwrap().restart_interval, Some(40));
    let gateway = Gateway::start();
    let running = Camera::new(&gateway.bus, "slices", false).run(vec![ingested(&sent)], FRAME);
    let url = gateway.url("slices?video=copy");
    let seen = join_all(["tcp", "udp"].map(|transport| by_retina(&url, transport))).await;
    let own = Planes::decode(&sent);
    assert!(seen.iter().flatten().all(|picture| Planes::decode(picture) == own));
    let shown = by_ffmpeg(&url, "tcp", &folder.path().join("ffmpeg.mjpeg")).await;
    assert!(shown.iter().all(|picture| Planes::decode(picture) == own));
    drop(running);
}
