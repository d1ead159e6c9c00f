//! Joins the parts as the configuration says: devices, the bus, republishers; starts, changes and ends them in order.

mod cameras;
pub mod healthcheck;
mod listen;
mod ports_file;

pub use listen::PortError;

use crate::access::{Access, CertificateError, HttpVerdict, Tls};
use crate::bus::{Bus, LINGER};
use crate::config::{self, Auth, CertificateFiles, Config, Listen, UdpPorts};
use crate::ingest::push::ftp;
use crate::ingest::rtsp::Patience;
use crate::ingest::supervisor::Pace;
use crate::ingest::{Doors, Source, mini_doorbell};
use crate::republish::health::Health;
use crate::republish::http::{self, HttpState, Site};
use crate::republish::rtp::Feeds;
use crate::republish::{rtsp, webrtc};
use crate::transcode::{self, Transcoder};
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
    /// How long a device on demand stays connected after its last viewer left, and an encoder goes on.
    pub linger: Duration,
    /// The program whose children encode; by default our own executable.
    pub program: Option<PathBuf>,
    /// The folder whose files replace the pipelines that are part of the program.
    pub pipelines: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports_file: None,
            pace: Pace::default(),
            patience: Patience::default(),
            linger: LINGER,
            program: None,
            pipelines: None,
        }
    }
}

/// The addresses really bound, as in the ports file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Pages and API.
    pub http: Vec<SocketAddr>,
    /// Pages and API over TLS.
    pub https: Vec<SocketAddr>,
    /// RTSP.
    pub rtsp: Vec<SocketAddr>,
    /// RTSP over TLS.
    pub rtsps: Vec<SocketAddr>,
    /// The ports of RTP and RTCP over UDP, one pair for each address that RTSP is served at.
    pub rtsp_udp_ports: Vec<(u16, u16)>,
    /// WebRTC, UDP and TCP; empty if it is off.
    pub webrtc: Vec<SocketAddr>,
    /// Where cameras upload to by FTP; empty if none does.
    pub ftp: Vec<SocketAddr>,
    /// Where mini doorbells upload to; empty if there is none.
    pub mini_doorbell: Vec<SocketAddr>,
}

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be bound.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The certificate cannot be used.
    #[error("`https`: {0}")]
    Certificate(#[from] CertificateError),
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
    tls: Option<Arc<Tls>>,
    bells: Arc<mini_doorbell::Server>,
    addresses: Addresses,
    /// Cancelled to stop listening and to end viewers.
    viewers: CancellationToken,
    /// Cancelled to end everything.
    root: CancellationToken,
    /// What serves viewers.
    serving: TaskTracker,
}

/// As many RTSP connections as file descriptors allow, with some left for pages, cameras and files.
fn rtsp_options(feeds: &Arc<Feeds>, transcoder: &Arc<Transcoder>) -> rtsp::Options {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let options = rtsp::Options::default();
    let most = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
    let (feeds, transcoder) = (Arc::clone(feeds), Arc::clone(transcoder));
    rtsp::Options { connections: options.connections.min(most), feeds, transcoder, ..options }
}

fn webrtc_options(config: &config::Webrtc, feeds: Arc<Feeds>) -> webrtc::Options {
    let (candidates, ice_servers) = (config.candidates.clone(), config.ice_servers.clone());
    webrtc::Options { candidates, ice_servers, feeds, ..webrtc::Options::default() }
}

impl App {
    /// Binds all ports, then starts the devices and serves.
    ///
    /// # Errors
    /// [`StartError`] if a port, the certificate or the ports file is not to be had; nothing runs then.
    pub async fn start(config: Config, options: Options) -> Result<Self, StartError> {
        let root = CancellationToken::new();
        let bus = Bus::new();
        let access = Access::new(config.auth, config.users.clone()).keep_sessions_in(config.store.path.clone());
        access.replace_tokens(config.tokens());
        let access = Arc::new(access);
        let health = Arc::new(Health::default());

        let tls = if config.https.is_some() || config.rtsps.is_some() {
            Some(Arc::new(Tls::new(certificate(&config), &config.store.path)?))
        } else {
            None
        };
        let web_listeners = listen::bind("http: listen", &effective(&config, &config.http.listen)).await?;
        let https_listeners = match &config.https {
            Some(https) => listen::bind("https: listen", &effective(&config, &https.listen)).await?,
            None => Vec::new(),
        };
        let rtsp_addresses = listen::resolve("rtsp: listen", &effective(&config, &config.rtsp.listen)).await?;
        let udp_ports = match config.rtsp.udp_ports {
            UdpPorts::Off => None,
            UdpPorts::Any => Some((0, 0)),
            UdpPorts::Pair(rtp) => Some((rtp, rtp + 1)),
        };
        // Viewers of both protocols share the packets and the encoders.
        let feeds = Arc::<Feeds>::default();
        let transcoder = Arc::new(Transcoder::new(transcode::Options {
            program: options.program.clone().unwrap_or_else(transcode::own_program),
            pipelines: options.pipelines.clone(),
            linger: options.linger,
            ..transcode::Options::default()
        }));
        let rtsp_options = rtsp_options(&feeds, &transcoder);
        let mut rtsp = rtsp::Server::bind(&rtsp_addresses, udp_ports, rtsp_options).map_err(|error| {
            let key = if error.protocol == "UDP" { listen::UDP_PORTS } else { "rtsp: listen" };
            PortError::new(key, error.address, error.source)
        })?;
        if let (Some(rtsps), Some(tls)) = (&config.rtsps, &tls) {
            let addresses = listen::resolve("rtsps: listen", &effective(&config, &rtsps.listen)).await?;
            rtsp.bind_tls(&addresses, tls)
                .map_err(|error| PortError::new("rtsps: listen", error.address, error.source))?;
        }
        let webrtc_addresses = listen::resolve(listen::WEBRTC, &effective(&config, &config.webrtc.listen)).await?;
        let webrtc = match &webrtc_addresses[..] {
            [] => None,
            some => Some(
                webrtc::Server::bind(some, webrtc_options(&config.webrtc, feeds))
                    .map_err(|error| PortError::new(listen::WEBRTC, error.address, error.source))?,
            ),
        };
        // Ports that devices call listen as configured, users or not.
        let ftp_listeners = listen::bind("ftp: listen", &config.ftp.listen).await?;
        let bell_listeners = listen::bind("mini_doorbell: listen", &config.mini_doorbell.listen).await?;
        let presence_sockets = listen::bind_udp("mini_doorbell: presence", &config.mini_doorbell.presence).await?;
        let addresses = Addresses {
            http: listen::addresses(&web_listeners),
            https: listen::addresses(&https_listeners),
            rtsp: rtsp.local_addrs(),
            rtsps: rtsp.tls_addrs(),
            rtsp_udp_ports: rtsp.udp_ports(),
            webrtc: webrtc.as_ref().map(|webrtc| webrtc.local_addrs()).unwrap_or_default(),
            ftp: listen::addresses(&ftp_listeners),
            mini_doorbell: listen::addresses(&bell_listeners),
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

        let doors = Arc::<Doors>::default();
        let mut cameras = Cameras::new(Arc::clone(&bus), Arc::clone(&doors), options, root.child_token());
        cameras.become_those(&config.cameras).await;

        let viewers = root.child_token();
        let state = HttpState {
            outputs: http::Outputs::new(&bus, &transcoder, viewers.clone()),
            bus: Arc::clone(&bus),
            access: Arc::clone(&access),
            health: Arc::clone(&health),
            rtsp: addresses.rtsp.clone().into(),
            rtsps: addresses.rtsps.clone().into(),
            rtsp_statistics: rtsp.statistics(),
            webrtc: webrtc.clone(),
            transcoder,
            whep: Arc::default(),
            options: Arc::new(config.http.clone()),
            families: doors.routes(&bus),
        };
        let site = Arc::new(ArcSwap::from_pointee(Site::new(state.clone())));
        let serving = TaskTracker::new();
        // All are registered before the first is served, so that nobody is told "ready" too early.
        let register = |name, addresses: &[SocketAddr]| -> Vec<_> {
            addresses.iter().map(|address| health.listener(name, *address)).collect()
        };
        let rtsp_up = (register("rtsp", &addresses.rtsp), register("rtsps", &addresses.rtsps));
        let webrtc_up = register("webrtc", &addresses.webrtc);
        let ftp_up = register("ftp", &addresses.ftp);
        let bells_up = register("mini_doorbell", &addresses.mini_doorbell);
        let (http_up, https_up) = (register("http", &addresses.http), register("https", &addresses.https));
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
        let plain = web_listeners.into_iter().zip(http_up).map(|(listener, up)| (listener, None, up));
        let secure = https_listeners.into_iter().zip(https_up).map(|(listener, up)| (listener, tls.clone(), up));
        for (listener, tls, up) in plain.chain(secure) {
            let limits = http::Limits::default();
            let serve = http::serve(listener, tls, Arc::clone(&site), limits, viewers.clone(), serving.clone());
            serving.spawn(async move {
                serve.await;
                drop(up);
            });
        }
        let ftp_options = ftp::Options {
            passive_ports: config.ftp.passive_ports.clone(),
            passive_address: config.ftp.passive_address,
            ..ftp::Options::default()
        };
        for (listener, up) in ftp_listeners.into_iter().zip(ftp_up) {
            let access = Arc::clone(&access);
            let granted = HttpVerdict::Granted(None);
            let login = ftp::Login::new(move |peer, name, token| access.check_token(peer, name, token) == granted);
            let (pushes, options) = (Arc::clone(&doors.pushes), ftp_options.clone());
            let serve = ftp::serve(listener, pushes, login, options, viewers.clone(), serving.clone());
            serving.spawn(async move {
                serve.await;
                drop(up);
            });
        }
        let plan = cameras.usual_plan("", Source::MiniDoorbell(mini_doorbell::Config::default()));
        let unknown = config.mini_doorbell.unknown;
        let bells = mini_doorbell::Server::new(&bus, plan, unknown, mini_doorbell::Options::default());
        let serve = Arc::clone(&bells).serve(bell_listeners, viewers.clone());
        serving.spawn(async move {
            serve.await;
            drop(bells_up);
        });
        for socket in presence_sockets {
            serving.spawn(Arc::clone(&bells).listen_for_presence(socket, viewers.clone()));
        }
        if let Some(announce) = config.mini_doorbell.announce {
            serving.spawn(Arc::clone(&bells).announce(announce, viewers.clone()));
        }
        if let Some(tls) = tls.clone() {
            let cancel = root.child_token();
            tokio::spawn(async move {
                tokio::select! {
                    () = tls.renew() => {}
                    () = cancel.cancelled() => {}
                }
            });
        }
        let Addresses { http, https, rtsp, rtsps, webrtc, ftp, mini_doorbell, .. } = &addresses;
        tracing::info!(
            ?http,
            ?https,
            ?rtsp,
            ?rtsps,
            ?webrtc,
            ?ftp,
            ?mini_doorbell,
            cameras = config.cameras.len(),
            "started"
        );
        Ok(Self { started: config, cameras, state, site, tls, bells, addresses, viewers, root, serving })
    }

    /// The addresses really bound.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The devices.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.state.bus
    }

    /// What takes doorbells' uploads.
    pub fn bells(&self) -> &Arc<mini_doorbell::Server> {
        &self.bells
    }

    /// Renditions and stills.
    pub fn transcoder(&self) -> &Arc<Transcoder> {
        &self.state.transcoder
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
        if let Some(tls) = &self.tls
            && let Err(error) = tls.reload(certificate(&config))
        {
            tracing::error!("`https`: {error}; the certificate stays as it was");
        }
        self.state.access.replace(config.auth, config.users.clone());
        self.state.access.replace_tokens(config.tokens());
        if let Some(webrtc) = &self.state.webrtc {
            webrtc.reload(config.webrtc.candidates.clone(), config.webrtc.ice_servers.clone());
        }
        let state = HttpState { options: Arc::new(config.http.clone()), ..self.state.clone() };
        self.site.store(Arc::new(Site::new(state)));
        if let Err(mistakes) = self.state.transcoder.reload() {
            mistakes.iter().for_each(|mistakes| tracing::error!("{mistakes}; the pipelines stay as they were"));
        }
        self.bells.set_unknown(config.mini_doorbell.unknown);
        self.cameras.become_those(&config.cameras).await;
        self.state.health.set_config_ok(true);
        tracing::info!(cameras = config.cameras.len(), "the configuration was read again");
    }

    /// Ends everything in order: listening, viewers, devices and encoders; within 5 s.
    pub async fn stop(self) {
        self.viewers.cancel();
        self.serving.close();
        if tokio::time::timeout(VIEWERS, self.serving.wait()).await.is_err() {
            tracing::warn!(left = self.serving.len(), "some viewers did not take the goodbye in time");
        }
        tokio::join!(self.cameras.stop(), self.state.transcoder.stop());
        self.root.cancel();
        tracing::info!("stopped");
    }
}

/// The files of the certificate; without any it is self-made.
fn certificate(config: &Config) -> Option<&CertificateFiles> {
    config.https.as_ref()?.certificate.as_ref()
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
    let https = |config: &Config| config.https.as_ref().map(|https| https.listen.clone());
    compare("https: listen", https(old) == https(new));
    compare("rtsps: listen", old.rtsps == new.rtsps);
    compare("rtsp: listen", old.rtsp.listen == new.rtsp.listen);
    compare("rtsp: udp_ports", old.rtsp.udp_ports == new.rtsp.udp_ports);
    compare("webrtc: listen", old.webrtc.listen == new.webrtc.listen);
    compare("ftp: listen", old.ftp.listen == new.ftp.listen);
    let passive = |config: &Config| (config.ftp.passive_ports.clone(), config.ftp.passive_address);
    compare("ftp: passive_ports", passive(old) == passive(new));
    compare("mini_doorbell: listen", old.mini_doorbell.listen == new.mini_doorbell.listen);
    compare("mini_doorbell: presence", old.mini_doorbell.presence == new.mini_doorbell.presence);
    compare("mini_doorbell: announce", old.mini_doorbell.announce == new.mini_doorbell.announce);
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
