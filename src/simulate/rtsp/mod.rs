//! An RTSP camera on loopback, played by gstreamer-rtsp-server: somebody else's implementation of the protocol, so that
//! ours is not tested against its own mistakes.
//!
//! ```text
//!  file ── clip.rs ──► units in memory ── player.rs ──► appsrc ! payloader ── faults.rs ──► gstreamer-rtsp-server ──► clients
//!                                         one timeline   one pipeline a client              desk.rs counts and refuses
//! ```
//! The addresses are those of Hikvision cameras: `/Streaming/Channels/101` is the main stream, `102` the sub stream.

mod cli;
mod clip;
mod desk;
mod faults;
mod player;

pub use cli::{Args, run};
pub use clip::{Audio, Clip, Footage, Video};
pub use desk::{Counters, Refuse};
pub use faults::{Faults, Jump, Switches};

use desk::Desk;
use faults::Wires;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_rtsp_server::{
    RTSP_PERM_MEDIA_FACTORY_ACCESS, RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, RTSP_TOKEN_MEDIA_FACTORY_ROLE, RTSPAuth,
    RTSPFilterResult, RTSPMedia, RTSPMediaFactory, RTSPServer, RTSPToken, gio, gst_rtsp,
};
use player::Player;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// Why a simulated device did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The footage cannot be read or holds nothing to play.
    #[error("{footage}: {text}")]
    Footage {
        /// Which footage: a path or a built-in name.
        footage: String,
        /// What is wrong with it.
        text: String,
    },
    /// A GStreamer element is not installed.
    #[error("the GStreamer element {element} is not installed: it comes with the Debian package {package}")]
    Missing {
        /// The element.
        element: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {text}")]
    Bind {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system says.
        text: String,
    },
    /// GStreamer refuses something that it should not: a broken installation.
    #[error("GStreamer: {0}")]
    GStreamer(String),
    /// The system refuses a thread or a file.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// An option that makes no sense.
    #[error("{0}")]
    Option(String),
}

/// Elements by the Debian package that brings them.
const PACKAGES: &[(&str, &[&str])] = &[
    ("gstreamer1.0-plugins-base", &["giostreamsrc", "parsebin", "appsrc", "decodebin"]),
    ("gstreamer1.0-plugins-good", &["rtph264pay", "rtpbin", "qtdemux", "aacparse", "alawenc", "mulawenc", "jpegenc"]),
    ("gstreamer1.0-plugins-bad", &["h264parse", "h265parse", "x265enc"]),
    ("gstreamer1.0-libav", &["avdec_h264", "avdec_h265", "avdec_aac"]),
    ("libgstreamer1.0-0", &["filesrc"]),
];

fn package(element: &str) -> &'static str {
    PACKAGES.iter().find(|(_, elements)| elements.contains(&element)).map_or("gstreamer1.0-plugins-good", |(p, _)| p)
}

fn require(elements: &[&'static str]) -> Result<(), SimulateError> {
    match elements.iter().find(|element| gst::ElementFactory::find(element).is_none()) {
        Some(element) => Err(SimulateError::Missing { element, package: package(element) }),
        None => Ok(()),
    }
}

fn element(name: &'static str) -> Result<gst::Element, SimulateError> {
    require(&[name])?;
    gst::ElementFactory::make(name).build().map_err(|e| SimulateError::GStreamer(e.to_string()))
}

/// Only simulated devices use GStreamer in this process: `fanlight run` never comes here.
fn init() -> Result<(), SimulateError> {
    gst::init().map_err(|e| SimulateError::GStreamer(e.to_string()))?;
    require(&["parsebin", "appsrc", "giostreamsrc", "qtdemux", "aacparse", "rtph264pay", "rtpbin", "h264parse"])
}

/// What a client must know to be let in.
#[derive(Clone)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login {{ user: {:?}, password: *** }}", self.user)
    }
}

/// How a camera is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What the main stream shows.
    pub main: Arc<Clip>,
    /// What the sub stream shows; without it `/Streaming/Channels/102` is answered with 404.
    pub sub: Option<Arc<Clip>>,
    /// Digest (MD5) and Basic are offered with this; without it everyone is let in.
    pub login: Option<Login>,
    /// How many clients it serves at once, main and sub stream together; `None`: any number.
    pub max_clients: Option<usize>,
    /// How it refuses one more.
    pub refuse: Refuse,
    /// What goes wrong.
    pub faults: Faults,
}

impl Options {
    /// A healthy camera on a free port of 127.0.0.1 that serves anyone.
    pub fn new(main: Arc<Clip>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            main,
            sub: None,
            login: None,
            max_clients: None,
            refuse: Refuse::default(),
            faults: Faults::default(),
        }
    }
}

/// A camera that runs until it is dropped. Then all its connections end at once, as if its power was cut, and the next
/// one can listen on the same port.
#[derive(Debug)]
pub struct Camera {
    address: SocketAddr,
    has_sub: bool,
    desk: Arc<Desk>,
    switches: Arc<Switches>,
    player: Arc<Player>,
    main_loop: glib::MainLoop,
    server: Option<JoinHandle<()>>,
}

const STREAMS: [&str; 2] = ["/Streaming/Channels/101", "/Streaming/Channels/102"];

impl Camera {
    /// Starts a camera. It is live from now on, whether somebody watches or not. Blocks for a moment.
    ///
    /// # Errors
    /// [`SimulateError::Bind`] when the address is taken, [`SimulateError::Missing`] when a plugin is.
    pub fn start(options: Options) -> Result<Self, SimulateError> {
        init()?;
        let clips: Vec<_> = std::iter::once(options.main.clone()).chain(options.sub.clone()).collect();
        let has_sub = options.sub.is_some();
        let desk = Desk::new(options.max_clients, options.refuse, options.login.is_some());
        let switches = Switches::new(&options.faults);
        let server = RTSPServer::new();
        server.set_address(&options.listen.ip().to_string());
        server.set_service(&options.listen.port().to_string());
        if let Some(login) = &options.login {
            server.set_auth(Some(&auth(login)));
        }
        // One thread for everything: a connection that is closed from another thread than the one that reads it is not
        // closed cleanly (GStreamer 1.22), and the limit of clients needs no lock. No request takes long here.
        if let Some(threads) = server.thread_pool() {
            threads.set_max_threads(0);
        }
        let reception = desk.clone();
        server.connect_client_connected(move |_, client| reception.receive(client));
        let listener = server
            .create_source(gio::Cancellable::NONE)
            .map_err(|e| SimulateError::Bind { listen: options.listen, text: e.message().to_owned() })?;
        let port = u16::try_from(server.bound_port()).unwrap_or(options.listen.port());
        let player = Player::start(clips.clone())?;
        let mounts = server.mount_points().unwrap_or_default();
        for (stream, (clip, path)) in clips.iter().zip(STREAMS).enumerate() {
            for path in [path.to_owned(), format!("{path}/")] {
                mounts.add_factory(&path, factory(clip, stream, &player, &switches));
            }
        }
        server.set_mount_points(Some(&mounts));
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        listener.attach(Some(&context));
        let (own, pool) = (main_loop.clone(), server.session_pool());
        let serve = std::thread::Builder::new().name("simulated-rtsp".into()).spawn(move || {
            let served = context.with_thread_default(|| {
                let sessions = pool.clone();
                let sweep = move || {
                    if let Some(pool) = &sessions {
                        pool.cleanup();
                    }
                    glib::ControlFlow::Continue
                };
                let sweeper = glib::timeout_source_new_seconds(2, None, glib::Priority::DEFAULT, sweep);
                sweeper.attach(Some(&context));
                own.run();
                sweeper.destroy();
                listener.destroy();
                server.client_filter(Some(&mut |_, _| RTSPFilterResult::Remove));
                if let Some(pool) = pool {
                    pool.filter(Some(&mut |_, _| RTSPFilterResult::Remove));
                }
            });
            if let Err(error) = served {
                tracing::error!(%error, "the simulated camera got no event loop");
            }
        });
        let mut camera = Self {
            address: SocketAddr::new(options.listen.ip(), port),
            has_sub,
            desk,
            switches,
            player,
            main_loop,
            server: None,
        };
        camera.server = Some(serve?);
        Ok(camera)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The main stream, without user and password.
    pub fn url(&self) -> String {
        self.stream_url(0)
    }

    /// The sub stream, without user and password, if there is one.
    pub fn sub_url(&self) -> Option<String> {
        self.has_sub.then(|| self.stream_url(1))
    }

    fn stream_url(&self, stream: usize) -> String {
        // Whoever listens everywhere is reached here.
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        format!("rtsp://{address}{}", STREAMS.get(stream).copied().unwrap_or_default())
    }

    /// What it has seen so far.
    pub fn counters(&self) -> Counters {
        *self.desk.watch().borrow()
    }

    /// The same, to wait for changes.
    pub fn watch(&self) -> watch::Receiver<Counters> {
        self.desk.watch()
    }

    /// Makes things go wrong while it runs.
    pub fn faults(&self) -> &Switches {
        &self.switches
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // From inside, so that a loop which has not begun to run yet ends too.
        let main_loop = self.main_loop.clone();
        let quit = glib::idle_source_new(None, glib::Priority::HIGH, move || {
            main_loop.quit();
            glib::ControlFlow::Break
        });
        quit.attach(Some(&self.main_loop.context()));
        if let Some(server) = self.server.take() {
            // A thread that panicked has said so; there is nothing left to stop.
            let _ = server.join();
        }
        self.player.stop();
    }
}

fn auth(login: &Login) -> RTSPAuth {
    let auth = RTSPAuth::new();
    let token = RTSPToken::builder().field(RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE).build();
    // A set of bits in C (Basic 1, Digest 2), an enumeration of single ones in the bindings.
    auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::__Unknown(3));
    auth.add_digest(&login.user, &login.password, &token);
    auth.add_basic(&RTSPAuth::make_basic(&login.user, &login.password), &token);
    auth.set_realm(Some("IP Camera"));
    auth
}

const ROLE: &str = "viewer";

fn factory(clip: &Arc<Clip>, stream: usize, player: &Arc<Player>, switches: &Arc<Switches>) -> RTSPMediaFactory {
    let factory = RTSPMediaFactory::new();
    let mut launch = String::from("(");
    for (number, track) in clip.tracks.iter().enumerate() {
        // The queue is short: what a client has not asked to play yet is soon old.
        let source = "appsrc is-live=true format=time block=false max-time=1000000000 leaky-type=downstream";
        let _ = write!(launch, " {source} name=in{number} ! {} name=pay{number}", track.coding.payloader());
    }
    launch.push_str(" )");
    factory.set_launch(&launch);
    // A pipeline for each client, as a camera has a session for each: all are fed by the one lens. A shared one would
    // refuse who comes while it is being taken down behind the last client (503).
    factory.set_shared(false);
    factory.set_protocols(gst_rtsp::RTSPLowerTrans::TCP | gst_rtsp::RTSPLowerTrans::UDP);
    let permissions = gst::Structure::builder(ROLE)
        .field(RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
        .field(RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
        .build();
    factory.add_role_from_structure(&permissions);
    let (clip, player, switches) = (clip.clone(), player.clone(), switches.clone());
    factory.connect_media_configure(move |_, media| {
        if connect(media, &clip, stream, &player, &switches).is_none() {
            tracing::error!("the simulated camera's pipeline is not as it was described");
        }
    });
    factory
}

/// Joins a pipeline that a client has just brought to life with the camera's timeline.
fn connect(
    media: &RTSPMedia,
    clip: &Clip,
    stream: usize,
    player: &Arc<Player>,
    switches: &Arc<Switches>,
) -> Option<()> {
    let bin = media.element().downcast::<gst::Bin>().ok()?;
    let pipeline = bin.parent()?.downcast::<gst::Pipeline>().ok()?;
    // Running time is the camera's age, in every pipeline and whatever the server does with its state: so the timestamps
    // of all streams belong together, and no client's coming and going moves them.
    let (clock, epoch) = player.time_base();
    pipeline.use_clock(Some(clock));
    pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.set_base_time(epoch);
    let wires = Wires::new(switches.clone());
    let mut inputs = Vec::new();
    for (number, track) in clip.tracks.iter().enumerate() {
        let input = bin.by_name(&format!("in{number}"))?.downcast::<gst_app::AppSrc>().ok()?;
        input.set_caps(track.units.first().map(|unit| &unit.caps));
        inputs.push(input);
        wires.attach(&bin.by_name(&format!("pay{number}"))?.static_pad("src")?, track.coding.is_video());
    }
    media.connect_prepared(move |_| wires.prepared.store(true, Relaxed));
    let id = player.add(stream, inputs);
    let player = player.clone();
    media.connect_unprepared(move |_| player.remove(id));
    Some(())
}

#[cfg(test)]
mod tests;
