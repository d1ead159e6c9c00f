//! WHEP row by row, over real connections: the whole HTTP side and the WebRTC server, with cameras that publish onto the
//! bus directly. Requests are written by hand, so that nothing is added or smoothed over.

mod abuse;
mod authentication;
mod endpoint;
mod offers;
mod plays;
mod sessions;

use super::support::PATIENCE;
use super::support::publisher::{Publisher, Running};
use arc_swap::ArcSwap;
use argon2::PasswordHasher as _;
use fanlight::access::{Access, Auth, Role, User};
use fanlight::bus::Bus;
use fanlight::config::{self, Config, IceServer, Secret};
use fanlight::republish::health::Health;
use fanlight::republish::http::{HttpState, Limits, Outputs, Site, Whep, WhepLimits, serve};
use fanlight::republish::webrtc::{Options, Server};
use fanlight::transcode::{self, Transcoder};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

pub const CHROMIUM: &str = include_str!("../../src/republish/webrtc/testdata/chromium.sdp");
pub const SDP: (&str, &str) = ("content-type", "application/sdp");
pub const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");
/// A page's origin that may.
pub const LISTED: &str = "https://home.example:8123";

/// How a gateway is to be.
#[derive(Clone)]
pub struct Rig {
    pub whep: WhepLimits,
    pub webrtc: Options,
    pub http: config::Http,
    pub access: Arc<Access>,
    pub transcoder: Arc<Transcoder>,
}

/// Encoders are children of the program, which a test is not.
fn transcoder(pipelines: Option<PathBuf>) -> Arc<Transcoder> {
    let program = env!("CARGO_BIN_EXE_fanlight").into();
    Arc::new(Transcoder::new(transcode::Options { program, pipelines, ..transcode::Options::default() }))
}

impl Default for Rig {
    fn default() -> Self {
        let credential = Some(Secret::new("p\"w\\d"));
        let turn = ["turn:turn.example:3478?transport=udp".to_owned(), "turns:turn.example:5349".to_owned()];
        let ice_servers = vec![
            IceServer { urls: vec!["stun:stun.example".into()], username: None, credential: None },
            IceServer { urls: turn.into(), username: Some("fan".into()), credential },
        ];
        Self {
            // A source that is not there is not waited for long.
            whep: WhepLimits { ready_wait: Duration::from_millis(100), ..WhepLimits::default() },
            webrtc: Options { ice_servers, ..Options::default() },
            http: config::Http { allow_origins: vec![LISTED.into()], ..Config::default().http },
            access: Access::open(),
            transcoder: transcoder(None),
        }
    }
}

/// A user whose password is its name and `-password`.
pub fn user(name: &str) -> User {
    let little = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, little);
    let hash = argon2.hash_password(format!("{name}-password").as_bytes()).unwrap().to_string();
    User { name: name.into(), role: Role::Viewer, password_hash: Some(Secret::new(hash)), stream_key: None }
}

/// Two users, `one` and `two`.
pub fn users() -> Arc<Access> {
    Arc::new(Access::new(Auth::Users, vec![user("one"), user("two")]))
}

pub struct Gateway {
    pub bus: Arc<Bus>,
    pub access: Arc<Access>,
    pub address: SocketAddr,
    cancel: CancellationToken,
    cameras: Vec<Running>,
}

impl Gateway {
    pub async fn start(rig: Rig) -> Self {
        let (bus, cancel) = (Bus::new(), CancellationToken::new());
        let webrtc = Server::bind(&["127.0.0.1:0".parse().unwrap()], rig.webrtc).unwrap();
        let transcoder = rig.transcoder;
        let state = HttpState {
            outputs: Outputs::new(&bus, &transcoder, cancel.clone()),
            bus: Arc::clone(&bus),
            access: Arc::clone(&rig.access),
            health: Arc::new(Health::default()),
            rtsp: Arc::from([]),
            rtsps: Arc::default(),
            rtsp_statistics: Arc::default(),
            transcoder,
            webrtc: Some(Arc::clone(&webrtc)),
            whep: Arc::new(Whep::new(rig.whep)),
            options: Arc::new(rig.http),
            families: axum::Router::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let site = Arc::new(ArcSwap::from_pointee(Site::new(state)));
        tokio::spawn(serve(listener, None, site, Limits::default(), cancel.clone(), TaskTracker::new()));
        tokio::spawn(webrtc.serve(Arc::clone(&rig.access), cancel.clone()));
        Self { bus, access: rig.access, address, cancel, cameras: Vec::new() }
    }

    /// With a camera `front` that sends H.264 and PCMU.
    pub async fn with_camera(rig: Rig) -> Self {
        let mut gateway = Self::start(rig).await;
        gateway.camera("front");
        gateway
    }

    pub fn camera(&mut self, name: &str) {
        let mut camera = Publisher::new(&self.bus, name, true);
        camera.pictures(10);
        self.cameras.push(camera.run());
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            text += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text += body;
        // A request that is refused by its head may find the other end closed.
        let _ = socket.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Reply { status, headers, body: body.to_owned() }
    }

    /// Posts Chromium's offer.
    pub async fn offer(&self, path: &str) -> Reply {
        self.ask("POST", path, &[SDP], CHROMIUM).await
    }

    /// The path of the session that a POST to that path made.
    pub fn session(&self, endpoint: &str, created: &Reply) -> String {
        assert_eq!(created.status, 201, "{created:?}");
        let location = created.header("location").unwrap();
        assert!(!location.starts_with('/') && !location.contains("://"), "{location} is not relative");
        let base = Url::parse(&format!("http://{}{endpoint}", self.address)).unwrap();
        base.join(location).unwrap().path().to_owned()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The words of an error.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(json["status"], status);
        json["detail"].as_str().unwrap().to_owned()
    }

    pub fn retry_after(&self) -> u32 {
        self.header("retry-after").unwrap().parse().unwrap()
    }
}

/// A fragment with these credentials, and candidates of every kind.
pub fn fragment(ufrag: &str, pwd: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2113937151 5a9d3c7e-1142-4f08-8b6b-d30c95e427a1.local 50000 typ host\r\n\
         a=candidate:2 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
         a=candidate:3 1 sctp 7 no.such.kind 0 typ moon\r\na=end-of-candidates\r\n"
    )
}

/// The fragment that belongs to [`CHROMIUM`].
pub fn own_fragment() -> String {
    fragment("ROq0", "Led3gsM11ieijp/bSmhlY25v")
}
