//! HTTPS and RTSPS: the same as in the clear, with one certificate for both.

use crate::support::camera::{Camera, Options as CameraOptions, VIDEO};
use crate::support::rtsp_client::Client;
use crate::support::tls::Trusting;
use crate::support::{PATIENCE, http};
use fanlight::access::password;
use fanlight::app::{App, Options, StartError};
use fanlight::config::{self, Config};
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PLACES: &str = "http: { listen: \"127.0.0.1:0\" }\nrtsp: { listen: \"127.0.0.1:0\", udp_ports: 0 }\nwebrtc: { listen: \"127.0.0.1:0\" }\n\
                      rtsps: { listen: \"127.0.0.1:0\" }\nstore: { path: state }\n";

fn read(folder: &Path, text: &str) -> Config {
    let file = folder.join("fanlight.yaml");
    std::fs::write(&file, text).unwrap();
    config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

struct Gateway {
    folder: TempDir,
    app: App,
    camera: Camera,
}

impl Gateway {
    /// With a camera `front`; `more` holds `https:` and users.
    async fn start(more: &str) -> Self {
        let camera = Camera::start(CameraOptions { media: VIDEO, ..CameraOptions::default() }).await;
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{PLACES}{more}\ncameras: {{ front: {{ source: \"{}\" }} }}\n", camera.url());
        let app = App::start(read(folder.path(), &text), Options::default()).await.unwrap();
        Self { folder, app, camera }
    }

    fn trusting(&self) -> Trusting {
        Trusting::of(&self.folder.path().join("state/tls/cert.pem"))
    }

    fn https(&self) -> SocketAddr {
        self.app.addresses().https[0]
    }

    fn rtsps(&self) -> SocketAddr {
        self.app.addresses().rtsps[0]
    }

    async fn viewer(&self) -> Client {
        let socket = self.trusting().plain(self.rtsps()).await;
        let mut client = Client::on(socket, self.rtsps(), "front");
        client.base = client.base.replace("rtsp://", "rtsps://");
        client
    }
}

const HTTPS: &str = "https: { listen: \"127.0.0.1:0\" }\n";

/// One request and its whole answer.
async fn ask(client: &Trusting, server: SocketAddr, request: &str) -> String {
    let mut stream = client.connect(server).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_sign_in_over_tls() {
    let hash = password::hash("correct horse").unwrap();
    let users = format!("users: [{{ name: ann, role: viewer, password_hash: \"{hash}\" }}]");
    let gateway = Gateway::start(&format!("{HTTPS}{users}")).await;
    let (client, server) = (gateway.trusting(), gateway.https());
    let page = format!("GET / HTTP/1.1\r\nHost: {server}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    let answer = ask(&client, server, &page).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("<form"), "{answer}");

    let body = r#"{ "name": "ann", "password": "correct horse" }"#;
    let sign_in = format!(
        "POST /v1/session HTTP/1.1\r\nHost: {server}\r\nOrigin: https://{server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = ask(&client, server, &sign_in).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let ready = format!("GET /readyz HTTP/1.1\r\nHost: {server}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
    let answer = ask(&client, server, &ready).await;
    for name in ["http", "https", "rtsp", "rtsps"] {
        assert!(answer.contains(&format!("\"name\":\"{name}\"")), "{name} in {answer}");
    }
    // The key that signed it is kept, for after a restart.
    assert_eq!(std::fs::read(gateway.folder.path().join("state/session.key")).unwrap().len(), 32);
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_goes_within_tls_only() {
    let gateway = Gateway::start("auth: none").await;
    let mut client = gateway.viewer().await;
    let uri = client.base.clone();
    let described = client.request("DESCRIBE", &uri, &[]).await;
    assert_eq!((described.status, described.header("Content-Base")), (200, Some(format!("{uri}/").as_str())));
    let track = format!("{uri}/trackID=0");
    let udp = client.request("SETUP", &track, &[("Transport", "RTP/AVP;unicast;client_port=40000-40001")]).await;
    assert_eq!(udp.status, 461, "in the clear it does not go out");
    let play = client.play().await;
    assert!(play.header("RTP-Info").unwrap().starts_with(&format!("url={uri}/trackID=0")), "{play:?}");
    for _ in 0..200 {
        client.frame().await;
    }
    assert_eq!(http::json(gateway.app.addresses().http[0], "/v1/cameras/front").await["viewers"]["rtsp"], 1);
    // The camera is open once, whoever watches.
    let mut plain = Client::connect(gateway.app.addresses().rtsp[0], "front").await;
    plain.play().await;
    plain.frame().await;
    assert_eq!(gateway.camera.seen.count("DESCRIBE"), 1);
    let app = gateway.app;
    app.stop().await;
    let end = async { while client.frame_or_end().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the goodbye comes, and the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_again_and_bad_ones_keep_the_old() {
    let other = tempfile::tempdir().unwrap();
    let made = App::start(read(other.path(), &format!("{PLACES}{HTTPS}auth: none")), Options::default()).await.unwrap();
    made.stop().await;
    let given = other.path().join("state/tls");
    let trusting = Trusting::of(&given.join("cert.pem"));

    let mut gateway = Gateway::start(&format!("{HTTPS}auth: none")).await;
    let self_made = gateway.trusting();
    assert!(self_made.connect(gateway.https()).await.is_ok() && trusting.connect(gateway.https()).await.is_err());
    let text = format!(
        "{PLACES}auth: none\nhttps: {{ listen: \"127.0.0.1:0\", cert_file: {0}/cert.pem, key_file: {0}/key.pem }}",
        given.display()
    );
    gateway.app.reload(read(gateway.folder.path(), &text)).await;
    for server in [gateway.https(), gateway.rtsps()] {
        assert!(trusting.connect(server).await.is_ok() && self_made.connect(server).await.is_err());
    }
    std::fs::write(given.join("key.pem"), "broken").unwrap();
    gateway.app.reload(read(gateway.folder.path(), &text)).await;
    assert!(trusting.connect(gateway.https()).await.is_ok());
    // At the start there is no old one to keep.
    let started = App::start(read(gateway.folder.path(), &text), Options::default()).await;
    assert!(matches!(started, Err(StartError::Certificate(_))), "{started:?}");
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_read_takes_nothing_from_the_others() {
    let gateway = Gateway::start("auth: none").await;
    let mut stalled = gateway.viewer().await;
    stalled.play().await;
    let mut other = gateway.viewer().await;
    other.play().await;
    for _ in 0..2_000 {
        other.frame().await;
    }
    // What comes then is whole frames.
    for _ in 0..500 {
        stalled.frame().await;
    }
    gateway.app.stop().await;
}

#[tokio::test]
async fn without_users_tls_is_for_this_machine_too() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = "https: { listen: \"0.0.0.0:0\" }\nrtsps: { listen: \"0.0.0.0:0\" }\n";
    let text = PLACES.replace("rtsps: { listen: \"127.0.0.1:0\" }\n", everywhere);
    let app = App::start(read(folder.path(), &text), Options::default()).await.unwrap();
    for address in app.addresses().https.iter().chain(&app.addresses().rtsps) {
        assert!(address.ip().is_loopback(), "{address}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_taken_port_names_its_key() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    for (key, other) in [("https", "rtsps"), ("rtsps", "https")] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "http: {{ listen: \"127.0.0.1:0\" }}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\nwebrtc: {{ listen: \"127.0.0.1:0\" }}\nauth: none\n\
             {key}: {{ listen: \"{address}\" }}\n{other}: {{ listen: \"127.0.0.1:0\" }}\n"
        );
        match App::start(read(folder.path(), &text), Options::default()).await {
            Err(StartError::Port(error)) => {
                let text = error.to_string();
                assert!(text.contains(&format!("`{key}: listen` ({address}) is taken")), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_plays_rtsps() {
    let gateway = Gateway::start("auth: none").await;
    let url = format!("rtsps://{}/front", gateway.rtsps());
    let arguments =
        ["-v", "error", "-rtsp_transport", "tcp", "-i", &url, "-frames:v", "20", "-c", "copy", "-f", "null", "-"];
    let run = tokio::process::Command::new("ffmpeg").args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("ffmpeg ends").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    gateway.app.stop().await;
}
