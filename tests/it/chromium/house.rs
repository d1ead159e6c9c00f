//! Simulated cameras and the whole gateway in front of them, for a browser.

use crate::support::until;
use fanlight::app::{self, App};
use fanlight::config;
use fanlight::simulate::rtsp::{Audio, Camera, Clip, Footage, Options, Video};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

pub(super) struct House {
    app: Option<App>,
    http: SocketAddr,
    yaml: String,
    /// In the order given; they end with the house.
    _cameras: Vec<Camera>,
}

impl House {
    /// Those cameras, nobody signs in.
    pub(super) async fn of(cameras: Vec<(&str, Options)>) -> Self {
        Self::with("auth: none", cameras, "").await
    }

    /// The same with `who` may watch, and with lines of YAML for further cameras, which need not be there.
    pub(super) async fn with(who: &str, cameras: Vec<(&str, Options)>, more: &str) -> Self {
        let mut yaml = format!("rtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\n{who}\ncameras:\n");
        if cameras.is_empty() && more.is_empty() {
            yaml += "  {}\n";
        }
        let mut started = Vec::new();
        let mut names = Vec::new();
        for (name, options) in cameras {
            let camera = tokio::task::spawn_blocking(|| Camera::start(options).unwrap()).await.unwrap();
            let sub = camera.sub_url().map_or_else(String::new, |sub| format!(", sub: \"{sub}\""));
            writeln!(yaml, "  {name}: {{ source: {{ rtsp: {{ url: \"{}\"{sub} }} }} }}", camera.url()).unwrap();
            started.push(camera);
            names.push(name);
        }
        yaml += more;
        let mut house = Self { app: None, http: ([127, 0, 0, 1], 0).into(), yaml, _cameras: started };
        house.start().await;
        for name in names {
            let (_, stream) = house.app().bus().stream(name).unwrap();
            until("the camera's first key picture", || stream.can_start()).await;
        }
        house
    }

    /// A camera that plays that film as it is.
    pub(super) async fn playing(film: &Path) -> Self {
        Self::of(vec![("porch", footage(Footage::File(film.to_owned())).await)]).await
    }

    /// Starts the gateway again at the same address.
    pub(super) async fn start(&mut self) {
        let listen = format!("http: {{ listen: \"{}\" }}\nwebrtc: {{ listen: \"127.0.0.1:0\" }}\n", self.http);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fanlight.yaml");
        std::fs::write(&file, listen + &self.yaml).unwrap();
        let options = app::Options { program: Some(env!("CARGO_BIN_EXE_fanlight").into()), ..app::Options::default() };
        let app = App::start(config::load(&file).unwrap(), options).await.unwrap();
        self.http = app.addresses().http[0];
        self.app = Some(app);
    }

    pub(super) async fn stop(&mut self) {
        self.app.take().unwrap().stop().await;
    }

    pub(super) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.http
    }

    /// The address of a page.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }
}

/// A camera that plays that footage.
pub(super) async fn footage(footage: Footage) -> Options {
    Options::new(clip(footage).await)
}

pub(super) async fn clip(footage: Footage) -> Arc<Clip> {
    let load = move || Clip::load(&footage, Video::AsIs, Audio::AsIs).unwrap();
    tokio::task::spawn_blocking(load).await.unwrap()
}

/// The two cameras of the demo: B pictures and a transcoder; a second stream and sound.
pub(super) async fn demo() -> Vec<(&'static str, Options)> {
    let street = clip(Footage::Street).await;
    vec![
        ("hall", footage(Footage::Visitors).await),
        ("street", Options { sub: Some(Arc::clone(&street)), ..Options::new(street) }),
    ]
}
