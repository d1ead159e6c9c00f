//! The whole gateway between simulated cameras and viewers: what it promises, promise by promise.
//!
//! Cameras listen on addresses of their own (127.0.x.y), each test on another: a camera that comes back finds its port
//! free, and whoever knocks at a closed port of its own address can end up connected to itself.

mod ending;
mod fan_out;
mod kills;
mod limits;
mod on_demand;
mod playback;
pub(crate) mod process;
mod reload;
mod trouble;
mod viewers;

use crate::support::PATIENCE;
use fanlight::app::{App, Options};
use fanlight::config;
use fanlight::ingest::supervisor::Pace;
use fanlight::simulate::rtsp::{Audio, Camera, Clip, Counters, Footage, Options as CameraOptions, Video};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// On any free ports of loopback, open to everybody.
pub(crate) const OPEN: &str = "http: { listen: \"127.0.0.1:0\" }\nrtsp: { listen: \"127.0.0.1:0\", udp_ports: 0 }\nwebrtc: { listen: \"127.0.0.1:0\" }\nauth: none\ncameras:\n";

/// Waits between attempts of a tenth of the usual, so that tests see many.
pub(crate) fn quick() -> Pace {
    Pace { lost: (ms(100), ms(400)), busy: (ms(200), ms(400)), ..Pace::default() }
}

/// The program in this process.
pub(crate) struct Gateway {
    file: NamedTempFile,
    pub(crate) app: App,
}

impl Gateway {
    /// With the lines below `cameras:`.
    pub(crate) async fn start(cameras: &str, options: Options) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        write!(file, "{OPEN}{cameras}").unwrap();
        let config = config::load(file.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        // Encoders are our program's children, not the tests'.
        let program = options.program.clone().or_else(|| Some(env!("CARGO_BIN_EXE_fanlight").into()));
        Self { file, app: App::start(config, Options { program, ..options }).await.unwrap() }
    }

    /// Reads other lines below `cameras:`, as SIGHUP does.
    pub(crate) async fn reload(&mut self, cameras: &str) {
        std::fs::write(self.file.path(), format!("{OPEN}{cameras}")).unwrap();
        let config = config::load(self.file.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        self.app.reload(config).await;
    }

    pub(crate) fn rtsp(&self) -> SocketAddr {
        self.app.addresses().rtsp[0]
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.app.addresses().http[0]
    }

    /// One camera as `/v1/cameras` tells it.
    pub(crate) async fn camera(&self, name: &str) -> serde_json::Value {
        camera_at(self.http(), name, "").await
    }
}

async fn camera_at(http: SocketAddr, name: &str, headers: &str) -> serde_json::Value {
    let (status, body) = get(http, &format!("/v1/cameras/{name}"), headers).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Status, and headers with body.
pub(crate) async fn get(http: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let exchange = async {
        let mut socket = TcpStream::connect(http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer from HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// H.264 with B-frames, 10 pictures a second, a key picture each second.
pub(crate) fn visitors() -> Arc<Clip> {
    static CLIP: OnceLock<Arc<Clip>> = OnceLock::new();
    CLIP.get_or_init(|| Clip::load(&Footage::Visitors, Video::AsIs, Audio::AsIs).unwrap()).clone()
}

/// H.264 without B-frames, 12.5 pictures a second, a key picture each 4.8 s, AAC.
fn street() -> Arc<Clip> {
    static CLIP: OnceLock<Arc<Clip>> = OnceLock::new();
    CLIP.get_or_init(|| Clip::load(&Footage::Street, Video::AsIs, Audio::AsIs).unwrap()).clone()
}

pub(crate) fn options(clip: fn() -> Arc<Clip>, listen: &str) -> CameraOptions {
    CameraOptions { listen: listen.parse().unwrap(), ..CameraOptions::new(clip()) }
}

/// A camera starts in a moment, but not in no time: the runtime goes on meanwhile.
pub(crate) async fn start(options: impl FnOnce() -> CameraOptions + Send + 'static) -> Camera {
    tokio::task::spawn_blocking(|| Camera::start(options()).unwrap()).await.unwrap()
}

/// As if its power was cut; it is gone when this returns.
pub(crate) async fn kill(camera: Camera) {
    tokio::task::spawn_blocking(|| drop(camera)).await.unwrap();
}

pub(crate) async fn seen(camera: &Camera, what: &str, condition: impl FnMut(&Counters) -> bool) -> Counters {
    let mut watch = camera.watch();
    match timeout(PATIENCE, watch.wait_for(condition)).await {
        Ok(counters) => *counters.unwrap(),
        Err(_) => panic!("the camera waits in vain until {what}: {:?}", camera.counters()),
    }
}
