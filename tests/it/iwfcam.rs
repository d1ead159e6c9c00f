//! IWFCam cameras behind the whole gateway: simulated cameras on loopback, each on an address of its own; what the
//! gateway shows of them is compared with what they sent.

mod loss;
mod restarts;
mod sound;

use crate::gateway::{Gateway, ms};
use crate::support::PATIENCE;
use fanlight::app::{App, Options};
use fanlight::bus::{Reader, Want};
use fanlight::config;
use fanlight::ingest::Source;
use fanlight::media::AccessUnit;
use fanlight::simulate::iwfcam::{Camera, Counters, Options as CameraOptions, Scene, Sound, bars};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Pictures of 320x240, about 5 kB, on any free ports of that address.
fn options(host: u8) -> CameraOptions {
    let (discovery_port, media_port, width, height) = (0, 0, 320, 240);
    let address = Ipv4Addr::new(127, 0, 4, host);
    CameraOptions { address, discovery_port, media_port, width, height, ..CameraOptions::default() }
}

fn camera(options: CameraOptions) -> Camera {
    Camera::start(options, bars(320, 240).unwrap(), Sound::tone(true)).unwrap()
}

/// Its lines in the configuration.
fn entry(name: &str, camera: &Camera, more: &str) -> String {
    let discovery = camera.discovery();
    format!(
        "  {name}: {{ source: {{ iwfcam: {{ address: {}, discovery_port: {}{more} }} }} }}\n",
        discovery.ip(),
        discovery.port()
    )
}

async fn gateway(cameras: &str) -> Gateway {
    // The real waits between attempts: they are part of what is promised.
    Gateway::start(cameras, Options::default()).await
}

async fn seen(camera: &Camera, what: &str, condition: impl FnMut(&Counters) -> bool) -> Counters {
    let mut watch = camera.watch();
    match timeout(PATIENCE, watch.wait_for(condition)).await {
        Ok(counters) => *counters.unwrap(),
        Err(_) => panic!("the camera waits in vain until {what}: {:?}", camera.counters()),
    }
}

/// Nothing was sent that no gateway may send by itself.
fn harmless(camera: &Camera) {
    let counters = camera.counters();
    assert_eq!((counters.never, counters.on_request), (0, 0), "{counters:?}");
    assert!(counters.commands > 0, "{counters:?}");
}

/// Pictures as the bus has them, all of them.
struct Pictures {
    reader: Reader,
    before: Option<u64>,
}

impl Pictures {
    async fn of(app: &App, name: &str) -> Self {
        let stream = Arc::clone(app.bus().device(name).unwrap().main());
        assert!(timeout(PATIENCE, stream.ready()).await.expect("a first picture"));
        Self { reader: stream.subscribe(Want::Video), before: None }
    }

    async fn unit(&mut self) -> AccessUnit {
        timeout(PATIENCE, self.reader.next()).await.expect("a picture").expect("no end").1
    }

    /// The number of the next picture, which is byte for byte one that was sent, and none that came before.
    async fn next(&mut self, scene: &Scene) -> u64 {
        let unit = self.unit().await;
        let counter = Scene::counter(&unit.payload).expect("one of the camera's");
        assert_eq!(unit.payload, scene.picture(counter), "torn");
        assert!(self.before.is_none_or(|before| counter > before), "{counter} after {:?}", self.before);
        self.before = Some(counter);
        counter
    }
}

/// A browser's `<img>`: pictures over HTTP, one after the other.
struct Mjpeg {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Mjpeg {
    async fn of(http: SocketAddr, name: &str) -> Self {
        let mut socket = TcpStream::connect(http).await.unwrap();
        // Version 1.0: the body comes as it is, not in chunks.
        let request = format!("GET /v1/cameras/{name}/mjpeg HTTP/1.0\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        Self { socket, read: Vec::new() }
    }

    async fn more(&mut self) {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.read)).await.expect("something to read").unwrap();
        assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&self.read));
    }

    async fn until(&mut self, bytes: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(bytes.len()).position(|found| found == bytes) {
                return self.read.drain(..at + bytes.len()).collect();
            }
            self.more().await;
        }
    }

    /// The next picture's number; it is byte for byte one that was sent.
    async fn next(&mut self, scene: &Scene) -> u64 {
        self.until(b"Content-Length: ").await;
        let length: usize = String::from_utf8(self.until(b"\r\n").await).unwrap().trim().parse().unwrap();
        self.until(b"\r\n\r\n").await;
        while self.read.len() < length {
            self.more().await;
        }
        let picture: Vec<u8> = self.read.drain(..length).collect();
        let counter = Scene::counter(&picture).expect("one of the camera's");
        assert_eq!(picture, scene.picture(counter), "torn");
        counter
    }
}

/// As a house with cameras that are found by their `uid`, but on loopback, whose broadcast address is another.
async fn on_loopback(cameras: &str) -> (tempfile::NamedTempFile, App) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}{cameras}", crate::gateway::OPEN)).unwrap();
    let mut config = config::load(file.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    for camera in &mut config.cameras {
        if let Source::Iwfcam(source) = &mut camera.source {
            source.broadcast = Ipv4Addr::new(127, 255, 255, 255);
        }
    }
    let app = App::start(config, Options::default()).await.unwrap();
    (file, app)
}

fn program() -> Option<PathBuf> {
    Some(crate::gateway::process::PROGRAM.into())
}
