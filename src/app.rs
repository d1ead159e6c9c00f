//! Joins the parts as the configuration says: devices, the bus, republishers; starts, changes and ends them in order.

mod cameras;
pub mod healthcheck;
mod listen;
mod ports_file;

pub use listen::PortError;

use crate::access::Access;
use crate::bus::{Bus, LINGER};
use crate::config::{self, Auth, Config, Listen, UdpPorts};
use crate::ingest::rtsp::Patience;
use crate::ingest::supervisor::Pace;
use crate::republish::health::Health;
use crate::republish::http::{self, HttpState, Site};
use crate::republish::rtp::Feeds;
use crate::republish::{rtsp, webrtc};
use arc_swap::ArcSwap;
use cameras::Cameras;
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long viewers may take to be told goodbye.
const VIEWERS: Duration = Duration::from_millis(1500);

/// What does not stand in the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to write the addresses really bound.
    pub ports_file: Option<PathBuf>,
    /// How long to wait between attempts to reach a device.
    pub pace: Pace,
    /// How long to wait for a device's answers and media.
    pub patience: Patience,
    /// How long a device on demand stays connected after its last viewer left.
    pub linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { ports_file: None, pace: Pace::default(), patience: Patience::default(), linger: LINGER }
    }
}

/// The addresses really bound, as in the ports file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Pages and API.
    pub http: Vec<SocketAddr>,
    /// RTSP.
    pub rtsp: Vec<SocketAddr>,
    /// The ports of RTP and RTCP over UDP, one pair for each address that RTSP is served at.
    pub rtsp_udp_ports: Vec<(u16, u16)>,
    /// WebRTC, UDP and TCP; empty if it is off.
    pub webrtc: Vec<SocketAddr>,
}

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be bound.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The ports file could not be written.
    #[error("cannot write the addresses to {path}: {source}", path = path.display())]
    PortsFile {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The running program.
#[derive(Debug)]
pub struct App {
    /// The configuration that we started with: what was bound follows from it.
    started: Config,
    cameras: Cameras,
    state: HttpState,
    site: Arc<ArcSwap<Site>>,
    addresses: Addresses,
    /// Cancelled to stop listening and to end viewers.
    viewers: CancellationToken,
    /// Cancelled to end everything.
    root: CancellationToken,
    /// What serves viewers.
    serving: TaskTracker,
}

/// As many RTSP connections as file descriptors allow, with some left for pages, cameras and files.
fn rtsp_options(feeds: &Arc<Feeds>) -> rtsp::Options {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let options = rtsp::Options::default();
    let most = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
    rtsp::Options { connections: options.connections.min(most), feeds: Arc::clone(feeds), ..options }
}

fn webrtc_options(config: &config::Webrtc, feeds: Arc<Feeds>) -> webrtc::Options {
    let (candidates, ice_servers) = (config.candidates.clone(), config.ice_servers.clone());
    webrtc::Options { candidates, ice_servers, feeds, ..webrtc::Options::default() }
}

impl App {
    /// Binds all ports, then starts the devices and serves.
    ///
    /// # Errors
    /// [`StartError`] if a port or the ports file is not to be had; nothing runs then.
    pub async fn start(config: Config, options: Options) -> Result<Self, StartError> {
        let root = CancellationToken::new();
        let bus = Bus::new();
        let access = Access::new(config.auth, config.users.clone()).keep_sessions_in(config.store.path.clone());
        let access = Arc::new(access);
        let health = Arc::new(Health::default());

        let web_listeners = listen::bind("http: listen", &effective(&config, &config.http.listen)).await?;
        let rtsp_addresses = listen::resolve("rtsp: listen", &effective(&config, &config.rtsp.listen)).await?;
        let udp_ports = match config.rtsp.udp_ports {
            UdpPorts::Off => None,
            UdpPorts::Any => Some((0, 0)),
            UdpPorts::Pair(rtp) => Some((rtp, rtp + 1)),
        };
        // Viewers of both protocols share the packets.
        let feeds = Arc::<Feeds>::default();
        let rtsp = rtsp::Server::bind(&rtsp_addresses, udp_ports, rtsp_options(&feeds)).map_err(|error| {
            let key = if error.protocol == "UDP" { listen::UDP_PORTS } else { "rtsp: listen" };
            PortError::new(key, error.address, error.source)
        })?;
        let webrtc_addresses = listen::resolve(listen::WEBRTC, &effective(&config, &config.webrtc.listen)).await?;
        let webrtc = match &webrtc_addresses[..] {
            [] => None,
            some => Some(
                webrtc::Server::bind(some, webrtc_options(&config.webrtc, feeds))
                    .map_err(|error| PortError::new(listen::WEBRTC, error.address, error.source))?,
            ),
        };
        let addresses = Addresses {
            http: listen::addresses(&web_listeners),
            rtsp: rtsp.local_addrs(),
            rtsp_udp_ports: rtsp.udp_ports(),
            webrtc: webrtc.as_ref().map(|webrtc| webrtc.local_addrs()).unwrap_or_default(),
        };
        if let Some(path) = &options.ports_file {
            let failed = |source| StartError::PortsFile { path: path.clone(), source };
            ports_file::write(path, &addresses).map_err(failed)?;
        }
        if access.loopback_only() {
            tracing::warn!(
                "there are no users, so pages, API, RTSP and WebRTC are on this machine only: `fanlight password admin` \
                 prints a line for `users:` that opens them to the network, `auth: none` opens them to everybody"
            );
        }

        let mut cameras = Cameras::new(Arc::clone(&bus), options, root.child_token());
        cameras.become_those(&config.cameras).await;

        let state = HttpState {
            bus: Arc::clone(&bus),
            access: Arc::clone(&access),
            health: Arc::clone(&health),
            rtsp: addresses.rtsp.clone().into(),
            rtsp_statistics: rtsp.statistics(),
            webrtc: webrtc.clone(),
            transcoder: Arc::default(),
            whep: Arc::default(),
            options: Arc::new(config.http.clone()),
        };
        let site = Arc::new(ArcSwap::from_pointee(Site::new(state.clone())));
        let viewers = root.child_token();
        let serving = TaskTracker::new();
        // All are registered before the first is served, so that nobody is told "ready" too early.
        let rtsp_up: Vec<_> = addresses.rtsp.iter().map(|address| health.listener("rtsp", *address)).collect();
        let webrtc_up: Vec<_> = addresses.webrtc.iter().map(|address| health.listener("webrtc", *address)).collect();
        let http_up: Vec<_> = addresses.http.iter().map(|address| health.listener("http", *address)).collect();
        let serve = rtsp.serve(Arc::clone(&bus), Arc::clone(&access), viewers.clone());
        serving.spawn(async move {
            serve.await;
            drop(rtsp_up);
        });
        if let Some(webrtc) = webrtc {
            let serve = webrtc.serve(Arc::clone(&access), viewers.clone());
            serving.spawn(async move {
                serve.await;
                drop(webrtc_up);
            });
        }
        for (listener, up) in web_listeners.into_iter().zip(http_up) {
            let limits = http::Limits::default();
            let serve = http::serve(listener, Arc::clone(&site), limits, viewers.clone(), serving.clone());
            serving.spawn(async move {
                serve.await;
                drop(up);
            });
        }
        tracing::info!(http = ?addresses.http, rtsp = ?addresses.rtsp, webrtc = ?addresses.webrtc, cameras = config.cameras.len(), "started");
        Ok(Self { started: config, cameras, state, site, addresses, viewers, root, serving })
    }

    /// The addresses really bound.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The devices.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.state.bus
    }

    /// Notes that the configuration, read again, cannot be used: nothing changes but `fanlight_config_ok`.
    pub fn keep(&self) {
        self.state.health.set_config_ok(false);
    }

    /// Goes over to the configuration as read again.
    pub async fn reload(&mut self, config: Config) {
        for key in needs_restart(&self.started, &config) {
            tracing::warn!("`{key}` has changed; that takes effect after a restart");
        }
        self.state.access.replace(config.auth, config.users.clone());
        if let Some(webrtc) = &self.state.webrtc {
            webrtc.reload(config.webrtc.candidates.clone(), config.webrtc.ice_servers.clone());
        }
        let state = HttpState { options: Arc::new(config.http.clone()), ..self.state.clone() };
        self.site.store(Arc::new(Site::new(state)));
        self.cameras.become_those(&config.cameras).await;
        self.state.health.set_config_ok(true);
        tracing::info!(cameras = config.cameras.len(), "the configuration was read again");
    }

    /// Ends everything in order: listening, viewers, devices; within 5 s.
    pub async fn stop(self) {
        self.viewers.cancel();
        self.serving.close();
        if tokio::time::timeout(VIEWERS, self.serving.wait()).await.is_err() {
            tracing::warn!(left = self.serving.len(), "some viewers did not take the goodbye in time");
        }
        self.cameras.stop().await;
        self.root.cancel();
        tracing::info!("stopped");
    }
}

/// Keys that differ and are only read at start.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut compare = |key, same: bool| {
        if !same {
            keys.push(key);
        }
    };
    compare("http: listen", old.http.listen == new.http.listen);
    compare("rtsp: listen", old.rtsp.listen == new.rtsp.listen);
    compare("rtsp: udp_ports", old.rtsp.udp_ports == new.rtsp.udp_ports);
    compare("webrtc: listen", old.webrtc.listen == new.webrtc.listen);
    compare("store: path", old.store == new.store);
    if is_closed(old) && !is_closed(new) {
        // The listeners are on loopback still.
        compare("users", false);
    }
    keys
}

/// Where to listen in truth: as configured, or on loopback while anybody may do anything.
fn effective(config: &Config, listens: &[Listen]) -> Vec<Listen> {
    if !is_closed(config) {
        return listens.to_vec();
    }
    let mut local: Vec<Listen> = Vec::new();
    for listen in listens.iter().flat_map(Listen::on_loopback) {
        if !local.contains(&listen) {
            local.push(listen);
        }
    }
    local
}

/// Whether users are asked for and there is none.
fn is_closed(config: &Config) -> bool {
    config.auth == Auth::Users && config.users.is_empty()
}
