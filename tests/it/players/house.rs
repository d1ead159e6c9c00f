//! Cameras and the whole gateway in front of them, in this process.

use crate::support::until;
use fanlight::app::{self, App};
use fanlight::bus::Want;
use fanlight::config;
use fanlight::simulate::rtsp::{Audio, Camera, Clip, Footage, Options, Video};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct House {
    app: App,
    /// They end with the house.
    _cameras: Vec<Camera>,
}

impl House {
    /// A gateway on free ports in front of those cameras, ready to be watched.
    pub(super) async fn of(cameras: Vec<(&str, Options)>) -> Self {
        let mut yaml = String::from(
            "http: { listen: \"127.0.0.1:0\" }\nrtsp: { listen: \"127.0.0.1:0\", udp_ports: 0 }\nwebrtc: { listen: \"127.0.0.1:0\" }\nauth: none\ncameras:\n",
        );
        let mut started = Vec::new();
        for (name, options) in cameras {
            let camera = tokio::task::spawn_blocking(|| Camera::start(options).unwrap()).await.unwrap();
            writeln!(yaml, "  {name}: {{ source: \"{}\" }}", camera.url()).unwrap();
            started.push(camera);
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fanlight.yaml");
        std::fs::write(&file, yaml).unwrap();
        let app = App::start(config::load(&file).unwrap(), app::Options::default()).await.unwrap();
        let house = Self { app, _cameras: started };
        house.ready().await;
        house
    }

    /// The same with one camera that plays `file` as it is.
    pub(super) async fn playing(file: &Path) -> Self {
        Self::of(vec![("porch", Options::new(load(Footage::File(file.to_owned())).await))]).await
    }

    /// Until viewers can start everywhere.
    async fn ready(&self) {
        for device in self.app.bus().devices() {
            for stream in device.streams() {
                until("the camera's first key picture", || stream.can_start()).await;
            }
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.app.addresses().rtsp[0]
    }

    pub(super) fn http(&self) -> SocketAddr {
        self.app.addresses().http[0]
    }

    /// How old the newest key picture of a stream is, by its pictures' times.
    pub(super) fn key_age(&self, stream: &str) -> Duration {
        let (_, stream) = self.app.bus().stream(stream).unwrap();
        let mut reader = stream.subscribe(Want::All);
        let mut times = Vec::new();
        while let Some((_, unit)) = reader.try_next() {
            times.push(unit.dts);
        }
        times.last().unwrap().saturating_since(times[0])
    }

    pub(super) fn url(&self, stream: &str) -> String {
        format!("rtsp://{}/{stream}", self.address())
    }
}

/// Footage as it is.
pub(super) async fn load(footage: Footage) -> Arc<Clip> {
    load_as(footage, Audio::AsIs).await
}

/// Footage as it is, with that sound.
pub(super) async fn load_as(footage: Footage, audio: Audio) -> Arc<Clip> {
    let load = move || Clip::load(&footage, Video::AsIs, audio).unwrap();
    tokio::task::spawn_blocking(load).await.unwrap()
}
