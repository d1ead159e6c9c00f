//! Snapshots and multipart JPEG.

use super::{Answer, ask, ask_from, jpegs};
use crate::gateway::{Gateway, get, kill, ms, options, quick, seen, start, visitors};
use crate::support::rtsp_client::Client;
use crate::support::whep_viewer::{Viewer, Wishes};
use crate::support::{PATIENCE, until};
use bytes::Bytes;
use fanlight::app::Options;
use fanlight::bus::{Device, DeviceOptions, Limits, State, Stream, SubStream, TrackId, Upstream};
use fanlight::media::{AccessUnit, Codec, Format, MediaTime, TrackInfo, VideoFormat};
use fanlight::simulate::rtsp::Options as CameraOptions;
use futures::future::join_all;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SNAPSHOT: &str = "/v1/cameras/front/snapshot.jpg";
const MJPEG: &str = "/v1/cameras/front/mjpeg";

fn size(jpeg: &[u8]) -> (usize, usize) {
    let image = turbojpeg::decompress(jpeg, turbojpeg::PixelFormat::GRAY).expect("a whole picture");
    (image.width, image.height)
}

async fn metric(http: SocketAddr, name: &str) -> u64 {
    let (_, text) = get(http, "/metrics", "").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

/// The next picture of a multipart body, with its header fields; `None` at the end.
async fn part(answer: &mut Answer) -> Option<(String, Vec<u8>)> {
    let head = loop {
        let chunk = answer.chunk().await?;
        if chunk.starts_with(b"Content-Type: image/jpeg\r\n") {
            break String::from_utf8(chunk).unwrap();
        }
        assert!(chunk.ends_with(b"--fanlight\r\n"), "{}", String::from_utf8_lossy(&chunk));
    };
    let picture = answer.chunk().await?;
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", picture.len())), "{head}");
    Some((head, picture))
}

async fn picture(answer: &mut Answer) -> Vec<u8> {
    part(answer).await.expect("a picture").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_snapshots_at_once_cost_one_decoding() {
    let camera = start(|| options(jpegs, "127.0.2.1:0")).await;
    let entry = format!("  front: {{ source: \"{}\" }}\n", camera.url());
    let gateway = Gateway::start(&entry, Options { pace: quick(), ..Options::default() }).await;
    let http = gateway.http();
    let stream = Arc::clone(gateway.app.bus().device("front").unwrap().main());
    until("a picture is there", || stream.newest_key().is_some()).await;
    let whole = size(&ask(http, SNAPSHOT).await.body().await);
    // No further pictures: all hundred ask for the same one.
    kill(camera).await;
    until("the camera is gone", || !stream.can_start()).await;
    assert_eq!(metric(http, "fanlight_stills_scaled_total").await, 0);
    let asked = (0..100).map(|number| async move {
        let path = format!("{SNAPSHOT}?width=320");
        let mut answer = ask_from([127, 0, 0, 1 + number % 2], None, http, &path, "").await;
        assert_eq!((answer.status(), answer.field("content-type")), (200, Some("image/jpeg")));
        answer.body().await
    });
    let pictures = join_all(asked).await;
    assert_eq!(size(&pictures[0]), (320, (whole.1 * 320 + whole.0 / 2) / whole.0));
    assert!(pictures.iter().all(|picture| *picture == pictures[0]));
    assert_eq!(metric(http, "fanlight_stills_scaled_total").await, 1);
    assert_eq!(metric(http, "fanlight_snapshots_total").await, 101);
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_camera_is_woken_for_who_asks_for_a_new_picture_only() {
    let camera = start(|| options(jpegs, "127.0.2.2:0")).await;
    let entry = format!("  front: {{ source: \"{}\", on_demand: true }}\n", camera.url());
    let gateway = Gateway::start(&entry, Options { pace: quick(), linger: ms(300), ..Options::default() }).await;
    let http = gateway.http();
    let answer = ask(http, SNAPSHOT).await;
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("5")));
    assert_eq!(camera.counters().accepted, 0);
    let mut answer = ask(http, &format!("{SNAPSHOT}?max_age=2s")).await;
    assert_eq!((answer.status(), answer.field("age")), (200, Some("0")), "{}", answer.head);
    size(&answer.body().await);
    assert_eq!(camera.counters().accepted, 1);
    seen(&camera, "it is left", |counters| counters.open == 0).await;
    // It is shown as it was then.
    let answer = ask(http, SNAPSHOT).await;
    assert_eq!((answer.status(), camera.counters().accepted), (200, 1));
    let told = gateway.camera("front").await;
    assert_eq!((&told["on_demand"], &told["sub"]), (&true.into(), &false.into()));
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_outputs_at_once_cost_the_camera_one_connection() {
    let one = |listen: String| move || CameraOptions { max_clients: Some(1), ..options(jpegs, &listen) };
    let camera = start(one("127.0.2.3:0".into())).await;
    let address = camera.address();
    let entry = format!("  front: {{ source: \"{}\", max_connections: 1 }}\n", camera.url());
    let program = Some(env!("CARGO_BIN_EXE_fanlight").into());
    let gateway = Gateway::start(&entry, Options { pace: quick(), program, ..Options::default() }).await;
    let http = gateway.http();
    // They come while the gateway is on its way to the camera.
    let mut watching = join_all((0..5).map(|_| ask(http, MJPEG))).await;
    let mut small = ask(http, &format!("{MJPEG}?width=160&fps=5")).await;
    let mut listening = ask(http, "/v1/events/stream").await;
    let mut rtsp = Client::connect(gateway.rtsp(), "front?video=copy").await;
    rtsp.play().await;
    let mut browser = Viewer::of(http, "/whep/front", Wishes::default()).await;
    browser.video().await;
    let asked = join_all((0..20).map(|_| async move {
        let path = format!("{SNAPSHOT}?max_age=200ms");
        let mut answer = ask(http, &path).await;
        assert_eq!(answer.status(), 200);
        size(&answer.body().await)
    }));
    let whole = asked.await[0];
    for answer in &mut watching {
        assert_eq!(answer.field("content-type"), Some("multipart/x-mixed-replace; boundary=fanlight"));
        for _ in 0..3 {
            assert_eq!(size(&picture(answer).await), whole);
        }
    }
    assert_eq!(size(&picture(&mut small).await).0, 160);
    rtsp.rtp(0).await;
    assert!(listening.chunk().await.is_some());
    let told = gateway.camera("front").await;
    assert_eq!(told["viewers"], serde_json::json!({ "rtsp": 1, "webrtc": 1, "mjpeg": 6 }));
    assert_eq!(told["upstream_connections"], 1);
    let counters = camera.counters();
    assert_eq!((counters.accepted, counters.describes, counters.refused), (1, 1, 0), "{counters:?}");

    // Everybody stays while it is away.
    kill(camera).await;
    let mut status = gateway.app.bus().device("front").unwrap().watch_status();
    status.wait_for(|status| status.state == State::Offline).await.unwrap();
    let camera = start(one(address.to_string())).await;
    let before = gateway.app.bus().device("front").unwrap().main().newest_key().unwrap().at;
    for answer in watching.iter_mut().chain([&mut small]) {
        loop {
            let (head, _) = part(answer).await.expect("it goes on");
            let at = head.lines().find_map(|line| line.strip_prefix("X-Timestamp: ")).unwrap().to_owned();
            let at = Duration::from_secs_f64(at.parse().unwrap());
            if at > before.duration_since(std::time::UNIX_EPOCH).unwrap() + ms(1) {
                break;
            }
        }
    }
    let counters = camera.counters();
    assert_eq!((counters.accepted, counters.refused), (1, 0), "{counters:?}");

    // The program ends in time although nobody leaves.
    let begin = Instant::now();
    gateway.app.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    for answer in &mut watching {
        while part(answer).await.is_some() {}
    }
    while listening.chunk().await.is_some() {}
}

/// A camera on the bus that sends whatever it is told to.
struct Puppet {
    stream: Arc<Stream>,
    track: TrackId,
    info: Arc<TrackInfo>,
    sent: u32,
}

impl Puppet {
    fn new(gateway: &Gateway) -> Self {
        let stream = Stream::new("front", Limits::default());
        gateway.app.bus().add(Device::new(DeviceOptions {
            name: "front".into(),
            family: "rtsp",
            main: Arc::clone(&stream),
            sub: SubStream::None,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        }));
        let info = TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) };
        let track = stream.announce(std::slice::from_ref(&info))[0];
        Self { stream, track, info: Arc::new(info), sent: 0 }
    }

    /// Bytes that begin with their number: whether they are a picture is nobody's business on the way.
    fn send(&mut self) {
        self.sent += 1;
        let mut payload = vec![0; 40_000];
        payload[..4].copy_from_slice(&self.sent.to_be_bytes());
        let time = MediaTime::START + ms(10) * self.sent;
        let (random_access, discontinuity, payload) = (true, false, Bytes::from(payload));
        let info = Arc::clone(&self.info);
        self.stream
            .publish(self.track, AccessUnit { pts: time, dts: time, random_access, discontinuity, info, payload });
    }
}

fn number(picture: &[u8]) -> u32 {
    u32::from_be_bytes(picture[..4].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_skips_and_holds_up_nobody() {
    let gateway = Gateway::start("  {}\n", Options::default()).await;
    let http = gateway.http();
    let mut camera = Puppet::new(&gateway);
    camera.send();
    let mut slow = ask_from([127, 0, 0, 1], Some(4 << 10), http, MJPEG, "").await;
    let mut quick = ask(http, MJPEG).await;
    assert_eq!((number(&picture(&mut slow).await), number(&picture(&mut quick).await)), (1, 1));
    for sent in 2..=200 {
        camera.send();
        assert_eq!(number(&picture(&mut quick).await), sent, "the other one sees every picture");
    }
    // The socket's buffers hold a few; what comes after them is the newest.
    let mut seen = vec![1];
    while seen.last() != Some(&200) {
        seen.push(number(&picture(&mut slow).await));
    }
    assert!(seen.is_sorted_by(|before, after| before < after), "{seen:?}");
    assert!(seen.len() < 30, "8 MB were not kept for it: {seen:?}");
    let last = seen.pop().zip(seen.pop()).map(|(last, before)| last - before);
    assert!(last > Some(100), "the rest was skipped: {last:?}");

    // One that reads nothing at all cannot hold up the end.
    for _ in 0..200 {
        camera.send();
    }
    let begin = Instant::now();
    gateway.app.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_not_counted_and_a_removed_camera_ends_its_viewers() {
    let mut gateway = Gateway::start("  {}\n", Options::default()).await;
    let http = gateway.http();
    let mut camera = Puppet::new(&gateway);
    camera.send();
    let mut answers = join_all((0..3).map(|_| ask(http, MJPEG))).await;
    for answer in &mut answers {
        picture(answer).await;
    }
    let viewers = Arc::clone(&gateway.app.bus().device("front").unwrap().viewers);
    let count = || viewers.mjpeg.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(count(), 3);
    drop(answers.pop());
    // Seen although nothing is being written.
    until("one has left", || count() == 2).await;
    // A reload that does not touch the camera leaves them alone; it knows nothing of this one.
    gateway.reload("  {}\n").await;
    camera.send();
    assert_eq!(number(&picture(&mut answers[0]).await), 2);
    picture(&mut answers[1]).await;
    gateway.app.bus().remove("front");
    for answer in &mut answers {
        assert!(part(answer).await.is_none());
    }
    until("all have left", || count() == 0).await;
    gateway.app.stop().await;
}

/// Somebody else's reader of multipart JPEG.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_reads_it() {
    let camera = start(|| options(jpegs, "127.0.2.4:0")).await;
    let entry = format!("  front: {{ source: \"{}\" }}\n", camera.url());
    let gateway = Gateway::start(&entry, Options { pace: quick(), ..Options::default() }).await;
    let url = format!("http://{}{MJPEG}", gateway.http());
    let arguments = ["-v", "warning", "-f", "mpjpeg", "-i", &url, "-frames:v", "12", "-f", "framemd5", "-"];
    let mut command = tokio::process::Command::new("ffmpeg");
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}");
    let frames: Vec<_> = text.lines().filter(|line| line.starts_with("0,")).collect();
    assert_eq!(frames.len(), 12, "{text}{log}");
    gateway.app.stop().await;
}

/// With our own executable for children.
fn transcoding() -> Options {
    let program = Some(env!("CARGO_BIN_EXE_fanlight").into());
    Options { pace: quick(), linger: ms(300), program, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_codecs_become_jpeg_for_who_asks() {
    let one = || CameraOptions { max_clients: Some(1), ..options(visitors, "127.0.2.6:0") };
    let camera = start(one).await;
    let entry = format!("  front: {{ source: \"{}\", on_demand: true }}\n", camera.url());
    let gateway = Gateway::start(&entry, transcoding()).await;
    let http = gateway.http();
    // Asked for while it sleeps.
    let mut watching = ask(http, MJPEG).await;
    let whole = size(&picture(&mut watching).await);
    let mut second = ask(http, &format!("{MJPEG}?width=160")).await;
    assert_eq!(size(&picture(&mut second).await).0, 160);
    for _ in 0..5 {
        assert_eq!(size(&picture(&mut watching).await), whole);
    }
    drop((watching, second));
    seen(&camera, "it is left", |counters| counters.open == 0).await;
    let counters = camera.counters();
    assert_eq!((counters.accepted, counters.refused), (1, 0), "{counters:?}");

    let asked = (0..60).map(|_| async move {
        let mut answer = ask(http, SNAPSHOT).await;
        assert_eq!(answer.status(), 200, "{}", answer.head);
        size(&answer.body().await)
    });
    assert!(join_all(asked).await.iter().all(|size| *size == whole));
    assert_eq!(metric(http, "fanlight_stills_decoded_total").await, 1);
    assert_eq!(camera.counters().accepted, 1, "no snapshot woke it");
    gateway.app.stop().await;
}

/// Nothing on this machine makes JPEG of it: that is said, instead of an answer that never shows anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said() {
    let camera = start(|| options(visitors, "127.0.2.7:0")).await;
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "about: a test's\nfrom: h264\nto: jpeg\ncandidates:\n  - about: none\n    launch: >\n      \
                    appsrc name=in ! avdec_nothing ! jpegenc name=enc ! appsink name=out\n";
    std::fs::write(folder.path().join("h264-to-jpeg.yaml"), pipeline).unwrap();
    let options = Options { pipelines: Some(folder.path().to_owned()), ..transcoding() };
    let gateway = Gateway::start(&format!("  front: {{ source: \"{}\" }}\n", camera.url()), options).await;
    let stream = Arc::clone(gateway.app.bus().device("front").unwrap().main());
    until("a picture is there", || stream.can_start()).await;
    for path in [MJPEG, SNAPSHOT, MJPEG] {
        let (status, text) = get(gateway.http(), path, "").await;
        assert_eq!(status, 503, "{path}: {text}");
        assert!(text.contains("avdec_nothing") && text.contains("\"detail\""), "{text}");
    }
    assert_eq!(gateway.camera("front").await["viewers"]["mjpeg"], 0);
    gateway.app.stop().await;
}
