//! Pushed pictures through the whole gateway, by HTTP and FTP.

mod ftp;
mod http;
mod simulated;
mod who;

use crate::support::{PATIENCE, until};
use fanlight::app::{App, Options};
use fanlight::config;
use fanlight::simulate::iwfcam::{Scene, bars};
use std::io::Write as _;
use std::net::SocketAddr;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// On any free ports of loopback.
pub(crate) const PORTS: &str = "http: { listen: \"127.0.0.1:0\" }\nrtsp: { listen: \"127.0.0.1:0\", udp_ports: 0 }\n\
    webrtc: { listen: \"127.0.0.1:0\" }\nftp: { listen: \"127.0.0.1:0\", passive_ports: 0 }\n";
pub(crate) const TOKEN: &str = "yards-own-token";

struct Gateway {
    app: App,
}

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Gateway {
    /// With a camera `yard` that has a token, one `motion` whose pictures are motion, and one that speaks RTSP.
    async fn start(rest: &str) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        let cameras = format!(
            "cameras:\n  yard: {{ source: {{ push: {{ token: {TOKEN} }} }} }}\n  motion: {{ source: {{ push: {{ token: another-token, event: motion }} }} }}\n  \
             open: {{ source: \"push:\" }}\n  front: {{ source: \"rtsp://127.0.0.1:9/x\", on_demand: true }}\n"
        );
        write!(file, "{PORTS}{rest}\n{cameras}").unwrap();
        let config = config::load(file.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let gateway = Self { app: App::start(config, Options::default()).await.unwrap() };
        until("all doors are open", || {
            let online = |name: &str| gateway.app.bus().device(name).unwrap().status().state.name() == "online";
            ["yard", "motion", "open"].into_iter().all(online)
        })
        .await;
        gateway
    }

    fn http(&self) -> SocketAddr {
        self.app.addresses().http[0]
    }

    fn ftp(&self) -> SocketAddr {
        self.app.addresses().ftp[0]
    }

    /// Sends a request with a body.
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let exchange = async {
            let mut socket = TcpStream::connect(self.http()).await.unwrap();
            let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += &format!("Content-Length: {}\r\n\r\n", body.len());
            socket.write_all(head.as_bytes()).await.unwrap();
            // Who is refused before the end need not go on.
            let _ = socket.write_all(body).await;
            read_answer(&mut socket).await
        };
        timeout(PATIENCE, exchange).await.expect("an answer from HTTP")
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// The newest picture of a camera, as a client gets it.
    async fn snapshot(&self, camera: &str) -> Vec<u8> {
        let answer = self.get(&format!("/v1/cameras/{camera}/snapshot.jpg")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.body
    }

    /// The events of a camera that are of no interest to the supervisor, newest first.
    async fn events(&self, camera: &str) -> Vec<serde_json::Value> {
        let events = self.get(&format!("/v1/events?camera={camera}")).await.json();
        let interesting =
            |event: &&serde_json::Value| !["online", "offline"].contains(&event["kind"].as_str().unwrap());
        events["events"].as_array().unwrap().iter().filter(interesting).cloned().collect()
    }
}

async fn read_answer(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes).await;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// Pictures that differ.
fn scene() -> Scene {
    bars(320, 240).unwrap()
}
