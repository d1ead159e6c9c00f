//! The devices of the demo: one of each family, on loopback.

use crate::access::password;
use crate::config::Secret;
use crate::ingest::mini_doorbell::BellId;
use crate::simulate::http::Scheme;
use crate::simulate::iwfcam::{Scene, Shown, Sound};
use crate::simulate::rtsp::{Audio, Clip, Footage, Video};
use crate::simulate::{SimulateError, http, iwfcam, mini_doorbell, push, rtsp};
use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use url::Url;

/// What a cheap camera allows.
pub(super) const MAX_CLIENTS: usize = 3;
/// How often somebody is at the door.
const VISITS: Duration = Duration::from_secs(30);
/// How often the porch pushes a picture.
const PUSHES: Duration = Duration::from_secs(10);
/// User name and password of every simulated camera that asks for them.
pub(super) const LOGIN: &str = "demo";

/// All of them, until they are dropped.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) hall: rtsp::Camera,
    pub(super) street: rtsp::Camera,
    pub(super) corner: iwfcam::Camera,
    pub(super) yard: http::Camera,
    /// What the porch shows when it pushes.
    pub(super) token: Secret,
    /// What the ones that call the gateway show.
    door: Vec<Bytes>,
    porch: (Scene, u32),
    /// Those, once there is a gateway to call.
    callers: Mutex<Option<(mini_doorbell::Doorbells, push::Pusher)>>,
    /// Where all but the RTSP cameras run.
    runtime: Option<Runtime>,
}

impl Devices {
    /// Switches on those that are called. Blocks for some seconds while footage is read.
    pub(super) fn start() -> Result<Self, SimulateError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(SimulateError::System)?;
        // Encoding footage as JPEG takes a while: side by side.
        let (street, visitors, door) = std::thread::scope(|scope| {
            let street = scope.spawn(|| iwfcam::footage(&Footage::Street));
            let door = scope.spawn(|| mini_doorbell::footage(&Footage::Visitors));
            let visitors = iwfcam::footage(&Footage::Visitors);
            let join = |_| SimulateError::System(std::io::Error::other("the footage could not be read"));
            Ok::<_, SimulateError>((street.join().map_err(join)??, visitors?, door.join().map_err(join)??))
        })?;
        let load = |footage| Clip::load(&footage, Video::AsIs, Audio::AsIs);
        let limited = |clip| rtsp::Options { max_clients: Some(MAX_CLIENTS), ..rtsp::Options::new(clip) };
        let hall = rtsp::Camera::start(limited(load(Footage::Visitors)?))?;
        let clip = load(Footage::Street)?;
        let login = rtsp::Login { user: LOGIN.into(), password: LOGIN.into() };
        let options = rtsp::Options { sub: Some(clip.clone()), login: Some(login), ..limited(clip) };
        Ok(Self {
            hall,
            street: rtsp::Camera::start(options)?,
            corner: corner(&runtime, street)?,
            yard: yard(&runtime, &visitors)?,
            token: password::random_key(),
            door,
            porch: (visitors.scene, visitors.fps),
            callers: Mutex::default(),
            runtime: Some(runtime),
        })
    }

    /// The id of the doorbell.
    pub(super) fn bell(&self) -> BellId {
        mini_doorbell::Options::new((Ipv4Addr::LOCALHOST, 0).into()).bell.id
    }

    /// Plugs in those that call the gateway: the doorbell, whose first visitor is there at once, and the porch.
    pub(super) fn call(&self, http: SocketAddr, bells: SocketAddr) -> Result<(), SimulateError> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let _inside = runtime.enter();
        let options = mini_doorbell::Options { every: Some(VISITS), ..mini_doorbell::Options::new(bells) };
        let door = mini_doorbell::Doorbells::start(options, self.door.clone())?;
        let to = Url::parse(&format!("http://{http}/v1/cameras/porch/push"));
        let to = to.map_err(|error| SimulateError::System(std::io::Error::other(error)))?;
        let (scene, fps) = self.porch.clone();
        let options =
            push::Options { token: Some(self.token.reveal().to_owned()), every: PUSHES, fps, ..push::Options::new(to) };
        let porch = push::Pusher::start(options, scene);
        *self.callers.lock().unwrap_or_else(PoisonError::into_inner) = Some((door, porch));
        Ok(())
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // May happen within a runtime, where waiting for this one is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn corner(runtime: &Runtime, shown: Shown) -> Result<iwfcam::Camera, SimulateError> {
    let _inside = runtime.enter();
    let Shown { scene, fps, samples } = shown;
    let (width, height) = scene.size();
    let no_audio = samples.is_empty();
    let usual = iwfcam::Options::default();
    let options = iwfcam::Options { discovery_port: 0, media_port: 0, width, height, fps, no_audio, ..usual };
    iwfcam::Camera::start(options, scene, Sound::new(samples, false))
}

fn yard(runtime: &Runtime, shown: &Shown) -> Result<http::Camera, SimulateError> {
    let login = http::Login { user: LOGIN.into(), password: LOGIN.into(), scheme: Scheme::Digest, nonce_lasts: 0 };
    let options = http::Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        login: Some(login),
        fps: shown.fps.into(),
        max_clients: Some(1),
        ..http::Options::default()
    };
    runtime.block_on(http::Camera::start(options, shown.scene.clone()))
}
