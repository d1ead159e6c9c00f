//! Cameras that serve JPEG by HTTP, through the whole gateway.

use crate::gateway::{Gateway, get, ms, quick};
use crate::support::{PATIENCE, until};
use fanlight::app::Options;
use fanlight::ingest::http::multipart::Multipart;
use fanlight::simulate::http::{Camera, Counters, Faults, Login, Options as CameraOptions, Scheme};
use fanlight::simulate::iwfcam::Scene;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn camera(options: CameraOptions) -> Camera {
    Camera::start(options, Scene::bars(320, 240, 6).unwrap()).await.unwrap()
}

fn at(listen: &str) -> CameraOptions {
    CameraOptions { listen: listen.parse().unwrap(), fps: 20.0, ..CameraOptions::default() }
}

async fn gateway(cameras: &str) -> Gateway {
    Gateway::start(cameras, Options { pace: quick(), linger: ms(200), ..Options::default() }).await
}

/// Who watches `/v1/cameras/NAME/mjpeg`.
struct Viewer {
    socket: TcpStream,
    parts: Multipart,
}

impl Viewer {
    async fn open(http: SocketAddr, name: &str) -> Self {
        let mut socket = TcpStream::connect(http).await.unwrap();
        let request = format!("GET /v1/cameras/{name}/mjpeg HTTP/1.0\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        // The head of the answer is skipped like anything that stands before the first part.
        Self { socket, parts: Multipart::new("multipart/x-mixed-replace; boundary=fanlight", 1 << 20) }
    }

    /// The next picture.
    async fn picture(&mut self) -> bytes::Bytes {
        let read = async {
            loop {
                if let Some(picture) = self.parts.next_picture().unwrap() {
                    return picture;
                }
                let mut bytes = [0; 16 << 10];
                let count = self.socket.read(&mut bytes).await.unwrap();
                assert!(count > 0, "the gateway hung up");
                self.parts.push(&bytes[..count]);
            }
        };
        timeout(PATIENCE, read).await.expect("a picture")
    }

    /// Waits for a picture with a number that fits.
    async fn number(&mut self, fits: impl Fn(u64) -> bool) -> u64 {
        let look = async {
            loop {
                let number = Scene::counter(&self.picture().await).expect("the camera's own bytes");
                if fits(number) {
                    return number;
                }
            }
        };
        timeout(PATIENCE, look).await.expect("such a picture")
    }
}

async fn seen(camera: &Camera, what: &str, condition: impl FnMut(&Counters) -> bool) {
    let mut watch = camera.watch();
    let waited = timeout(PATIENCE, watch.wait_for(condition)).await.is_ok();
    assert!(waited, "in vain until {what}: {:?}", camera.counters());
}

/// The camera's state and why.
async fn state(gateway: &Gateway, name: &str) -> (String, String) {
    let camera = gateway.camera(name).await;
    let text = |key: &str| camera[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason_code"))
}

async fn reaches(gateway: &Gateway, name: &str, wanted: (&str, &str)) {
    let begin = std::time::Instant::now();
    loop {
        let now = state(gateway, name).await;
        if (now.0.as_str(), now.1.as_str()) == wanted {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{name} is {now:?} and not {wanted:?}");
        tokio::time::sleep(ms(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_opened_once_for_all_and_comes_back_under_its_viewers() {
    let login = Login { user: "ann".into(), password: "p@ss/word".into(), scheme: Scheme::Digest, nonce_lasts: 1 };
    let options = CameraOptions { login: Some(login), ..at("127.0.61.1:0") };
    let first = camera(options.clone()).await;
    let address = first.address();
    let gateway = gateway(&format!("  lane:\n    source: http://ann:p%40ss%2Fword@{address}/video\n")).await;
    let mut viewers = [Viewer::open(gateway.http(), "lane").await, Viewer::open(gateway.http(), "lane").await];
    for viewer in &mut viewers {
        let number = viewer.number(|_| true).await;
        viewer.number(|next| next > number + 3).await;
    }
    assert_eq!((first.counters().streams, first.counters().connections), (1, 1), "{:?}", first.counters());
    let told = gateway.camera("lane").await;
    assert_eq!((&told["family"], &told["upstream_connections"]), (&"http".into(), &1.into()), "{told}");
    assert_eq!(told["tracks"][0]["codec"], "jpeg", "{told}");

    drop(first);
    reaches(&gateway, "lane", ("offline", "unreachable")).await;
    let (status, _) = get(gateway.http(), "/v1/cameras/lane/push", "").await;
    assert!((400..500).contains(&status), "nobody pushes into such a camera: {status}");
    let second = camera(CameraOptions { listen: address, ..options }).await;
    // Its numbers begin anew.
    for viewer in &mut viewers {
        viewer.number(|number| number < 100).await;
        viewer.picture().await;
    }
    assert_eq!(second.counters().streams, 1, "{:?}", second.counters());
    reaches(&gateway, "lane", ("online", "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_on_demand_is_asked_only_while_somebody_watches() {
    let camera = camera(at("127.0.61.2:0")).await;
    let source = format!("{{ http: {{ url: \"{}\", every: 100ms }} }}", camera.url("/snapshot.jpg"));
    let gateway = gateway(&format!("  lane:\n    source: {source}\n    on_demand: true\n")).await;
    reaches(&gateway, "lane", ("idle", "")).await;
    assert_eq!(camera.counters().requests, 0);
    let mut viewer = Viewer::open(gateway.http(), "lane").await;
    let number = viewer.number(|_| true).await;
    viewer.number(|next| next > number).await;
    assert_eq!(camera.counters().most_busy, 1);
    drop(viewer);
    reaches(&gateway, "lane", ("idle", "")).await;
    seen(&camera, "the connection is closed", |counters| counters.open == 0).await;
    let asked = camera.counters().requests;
    // The newest picture stays, and asking for it wakes nobody.
    let (status, _) = get_bytes(gateway.http(), "/v1/cameras/lane/snapshot.jpg").await;
    assert_eq!((status, camera.counters().requests), (200, asked));
}

/// Status and body of an answer that is no text.
async fn get_bytes(http: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let exchange = async {
        let mut socket = TcpStream::connect(http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[end..].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_told_in_words_and_is_over_by_itself() {
    let stalls = camera(CameraOptions {
        faults: Faults { stall_after: Some(Duration::from_millis(300)), ..Faults::default() },
        ..at("127.0.61.3:0")
    })
    .await;
    let page = camera(at("127.0.61.4:0")).await;
    let busy =
        camera(CameraOptions { faults: Faults { status: Some(503), ..Faults::default() }, ..at("127.0.61.5:0") }).await;
    let cameras = format!(
        "  stalls:\n    source: {}\n  page:\n    source: {}\n  busy:\n    source: {}\n",
        stalls.url("/video"),
        page.url("/"),
        busy.url("/video")
    );
    let patience = fanlight::ingest::rtsp::Patience { silence: ms(300), ..Default::default() };
    let options = Options { pace: quick(), patience, ..Options::default() };
    let gateway = Gateway::start(&cameras, options).await;
    reaches(&gateway, "page", ("offline", "unsupported")).await;
    reaches(&gateway, "busy", ("offline", "busy")).await;
    reaches(&gateway, "stalls", ("offline", "silent")).await;
    let reason = gateway.camera("page").await["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("a web page"), "{reason}");
    // It is asked again, and falls silent again.
    seen(&stalls, "it is asked again", |counters| counters.streams >= 3).await;
    let address = busy.address();
    drop(busy);
    let _free = camera(CameraOptions { listen: address, ..at("127.0.61.5:0") }).await;
    reaches(&gateway, "busy", ("online", "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_seldom_changes_is_a_stream_all_the_same() {
    // A picture in 1,000 s.
    let camera = camera(CameraOptions { fps: 0.001, ..at("127.0.61.6:0") }).await;
    let source = format!("{{ http: {{ url: \"{}\", every: 100ms }} }}", camera.url("/snapshot.jpg"));
    let gateway = gateway(&format!("  lane:\n    source: {source}\n")).await;
    let mut viewer = Viewer::open(gateway.http(), "lane").await;
    let first = viewer.picture().await;
    assert_eq!((viewer.picture().await, viewer.picture().await), (first.clone(), first));
    let told = gateway.camera("lane").await;
    assert_eq!(told["frames"], 1, "{told}");
    until("it says so", || camera.counters().unchanged > 5).await;
}
