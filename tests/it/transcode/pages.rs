//! What pages, metrics and the command line say about encoders.

use super::clip::{Clip, Playing};
use super::{children, options, take, turn, watch};
use axum::body::Body;
use axum::http::Request;
use fanlight::access::Access;
use fanlight::bus::{Bus, Device, DeviceOptions, SubStream, Upstream};
use fanlight::config::{Auth, Config};
use fanlight::media::Codec;
use fanlight::republish::http::{HttpState, Outputs, Peer, router};
use fanlight::transcode::{Pipelines, Transcoder, check};
use http_body_util::BodyExt as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fanlight");

async fn get(state: &HttpState, path: &str) -> String {
    let peer = Peer(SocketAddr::from(([127, 0, 0, 1], 4000)));
    let request = Request::get(path).header("host", "localhost").extension(peer).body(Body::empty()).unwrap();
    let answer = router(state.clone()).oneshot(request).await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn encoders_are_counted_and_shown_while_they_run() {
    let _turn = turn().await;
    let playing = Playing::start("front", Clip::visitors(), 25);
    let bus = Bus::new();
    bus.add(Device::new(DeviceOptions {
        name: "front".into(),
        family: "rtsp",
        main: Arc::clone(&playing.stream),
        sub: SubStream::Main,
        upstream: Upstream::new(1),
        viewers: Arc::default(),
    }));
    let transcoder = Arc::new(Transcoder::new(options()));
    let state = HttpState {
        outputs: Outputs::new(&bus, &transcoder, CancellationToken::new()),
        bus,
        access: Arc::new(Access::new(Auth::None, Vec::new())),
        health: Arc::default(),
        rtsp: Arc::default(),
        rtsps: Arc::default(),
        rtsp_statistics: Arc::default(),
        transcoder,
        webrtc: None,
        whep: Arc::default(),
        options: Arc::new(Config::default().http),
        families: axum::Router::new(),
    };
    assert!(!get(&state, "/metrics").await.contains("fanlight_encoders{"));
    let rendition = state.transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    take(&mut reader, 12).await;
    let metrics = get(&state, "/metrics").await;
    let labels = "{camera=\"front\",rendition=\"h264-to-h264\"}";
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name}{labels} ")));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    };
    assert_eq!((value("fanlight_encoders"), value("fanlight_encoder_restarts_total")), (1.0, 0.0));
    assert!(value("fanlight_encoder_units_out_total") >= 12.0 && value("fanlight_encoder_units_in_total") >= 12.0);

    let camera: serde_json::Value = serde_json::from_str(&get(&state, "/v1/cameras/front").await).unwrap();
    let tracks = camera["tracks"].as_array().unwrap();
    assert_eq!(tracks.len(), 2, "{camera}");
    assert_eq!((&tracks[0]["native"], &tracks[1]["native"]), (&true.into(), &false.into()));
    assert_eq!((&tracks[1]["codec"], &tracks[1]["width"]), (&"h264".into(), &768.into()));

    drop(reader);
    crate::support::until("the encoder is gone", || children().is_empty()).await;
    crate::support::until("it is known", || state.transcoder.states().iter().all(|state| !state.running)).await;
    let camera: serde_json::Value = serde_json::from_str(&get(&state, "/v1/cameras/front").await).unwrap();
    assert_eq!(camera["tracks"].as_array().unwrap().len(), 1);
    assert!(get(&state, "/metrics").await.contains(&format!("fanlight_encoders{labels} 0")));
}

/// Every candidate that this machine can build is without mistakes, and the software ones can all be built where the
/// packages of the tests are.
#[tokio::test(flavor = "multi_thread")]
async fn the_pipelines_of_the_program_can_be_built() {
    let findings = check(Path::new(PROGRAM), &Pipelines::default()).await.unwrap();
    assert_eq!(findings, []);
}

#[test]
fn check_names_file_and_element() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fanlight.yaml"), "auth: none\n").unwrap();
    let pipelines = folder.path().join("pipelines");
    std::fs::create_dir(&pipelines).unwrap();
    let check = |text: &str| {
        std::fs::write(pipelines.join("jpeg-to-h264.yaml"), text).unwrap();
        let output =
            Command::new(PROGRAM).args(["check", "--config"]).arg(folder.path().join("fanlight.yaml")).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let good =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/jpeg-to-h264.yaml")).unwrap();
    assert_eq!(check(&good), (Some(0), String::new()));
    let (code, said) = check(&good.replace("! x264enc ", "! x265encc "));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("jpeg-to-h264.yaml") && said.contains("no GStreamer element named x265encc"), "{said}");
    let (code, said) = check(&good.replace("speed-preset=ultrafast", "speed-preset=ultrafats"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("jpeg-to-h264.yaml") && said.contains("speed-preset"), "{said}");
    let (code, said) = check(&good.replace("from: jpeg", "from: jpg"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("jpeg-to-h264.yaml:2:7: expected one of h264"), "{said}");
}

/// The child alone: it ends with its input, and says what it does not understand.
#[test]
fn the_child_ends_with_its_input_and_is_hidden() {
    let run = |input: &'static [u8]| {
        let mut child = Command::new(PROGRAM)
            .arg("rendition")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(b""), (Some(0), String::new()));
    let (code, said) = run(b"nonsense");
    assert_eq!(code, Some(1));
    assert!(said.contains("no message is of the kind 110"), "{said}");
    let help = Command::new(PROGRAM).arg("--help").output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains("rendition"));
}

/// Not a promise but a figure: what the demo's camera with B pictures costs, and how long its first picture takes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for half a minute"]
async fn measure() {
    let _turn = turn().await;
    let playing = Playing::start("visitors", Clip::visitors(), 28);
    let transcoder = Transcoder::new(options());
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    for _ in 0..5 {
        let begin = std::time::Instant::now();
        let mut reader = watch(rendition.stream()).await;
        let first = take(&mut reader, 1).await.pop().unwrap();
        let behind = playing.stream.latest().unwrap().saturating_since(first.pts);
        println!("first picture after {:?}, {behind:?} behind the newest", begin.elapsed());
        drop(reader);
        crate::support::until("the encoder is gone", || children().is_empty()).await;
    }
    let mut reader = watch(rendition.stream()).await;
    take(&mut reader, 20).await;
    let busy = |pid: i32| {
        let stat = procfs::process::Process::new(pid).unwrap().stat().unwrap();
        (stat.utime + stat.stime, stat.rss * procfs::page_size() / 1024)
    };
    let pid = children()[0];
    let (before, begin) = (busy(pid).0, std::time::Instant::now());
    let (mut behind, mut bytes) = (Vec::new(), 0);
    while begin.elapsed() < Duration::from_secs(10) {
        let unit = take(&mut reader, 1).await.pop().unwrap();
        bytes += unit.payload.len();
        behind.push(playing.stream.latest().unwrap().saturating_since(unit.pts));
    }
    let (after, resident) = busy(pid);
    behind.sort();
    let milliseconds = (after - before) as f64 * 1000.0 / procfs::ticks_per_second() as f64;
    println!(
        "{:.1} ms of CPU a second, {resident} KiB, {:.0} kbit/s, behind the newest picture sent: median {:?}, most {:?}",
        milliseconds / begin.elapsed().as_secs_f64(),
        bytes as f64 * 8.0 / 1000.0 / begin.elapsed().as_secs_f64(),
        behind[behind.len() / 2],
        behind.last().unwrap(),
    );
}
