//! The port, and the sessions on it.

use super::answer::{self, Security, Terms};
use super::candidates;
use super::fragment::Fragment;
use super::mux::{self, Routes};
use super::offer::{IceCredentials, Offer};
use super::peer::{Ice, Identity, Secure, new_credentials};
use super::plan::Plan;
use super::session::Session;
use super::tcp;
use super::viewer::{Arrangement, Viewer};
use crate::access::crowd::{Counted, Crowd};
use crate::access::{Access, User};
use crate::bus::Device;
use crate::config::{Candidate, Host, IceServer};
use crate::republish::BindError;
use crate::republish::rtp::Feeds;
use crate::republish::udp::Socket;
use arc_swap::ArcSwap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Names among the candidates are looked up again after this: addresses at home change.
const LOOK_UP: Duration = Duration::from_secs(60);
/// How often any free port is tried until both protocols have the same.
const ATTEMPTS: usize = 32;

/// What can be set; the defaults suit browsers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses that viewers are told besides ours.
    pub candidates: Vec<Candidate>,
    /// Servers that viewers are told.
    pub ice_servers: Vec<IceServer>,
    /// The most viewers at once.
    pub viewers: usize,
    /// The most viewers at once from one address.
    pub per_address: usize,
    /// How long a viewer may take until ICE and DTLS are up.
    pub connect_within: Duration,
    /// A viewer that was silent for this long is asked whether it is there, again and again.
    pub ask_after: Duration,
    /// A viewer that was silent for this long is gone.
    pub silent_after: Duration,
    /// Packets that are shared with other servers.
    pub feeds: Arc<Feeds>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            candidates: Vec::new(),
            ice_servers: Vec::new(),
            viewers: 1_024,
            per_address: 256,
            connect_within: Duration::from_secs(10),
            ask_after: Duration::from_secs(1),
            silent_after: Duration::from_secs(4),
            feeds: Arc::default(),
        }
    }
}

/// Running totals since the start, and what is now.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Sessions now, connected or not.
    pub sessions: AtomicUsize,
    /// Viewers that were connected.
    pub viewers: AtomicU64,
    /// RTP packets sent, retransmissions included.
    pub packets: AtomicU64,
    /// RTP packets sent again because a viewer missed them.
    pub retransmitted: AtomicU64,
    /// Pictures left out for viewers that were late.
    pub dropped: AtomicU64,
    /// RTP packets that viewers reported as lost and never got.
    pub lost: AtomicU64,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// As many viewers as there may be.
    #[error("there are {0} viewers already, as many as are served at once")]
    Full(usize),
    /// As many viewers from that address as there may be.
    #[error("there are {0} viewers from this address already, as many as are served at once")]
    PerAddress(usize),
    /// The offer cannot be answered.
    #[error("the offer cannot be answered: {0}")]
    Bad(String),
}

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) statistics: Arc<Statistics>,
    pub(super) identity: Identity,
    pub(super) routes: Arc<Routes>,
    /// Candidate lines for viewers from elsewhere depend on this, and for those on this machine.
    bound: Vec<SocketAddr>,
    /// Configured candidates, looked up.
    configured: ArcSwap<Vec<SocketAddr>>,
    wanted: ArcSwap<Vec<Candidate>>,
    ice_servers: ArcSwap<Vec<IceServer>>,
    reloaded: tokio::sync::Notify,
    pub(super) access: OnceLock<Arc<Access>>,
    /// Ends all sessions.
    pub(super) cancel: CancellationToken,
    pub(super) tasks: TaskTracker,
    crowd: Arc<Crowd>,
}

impl Shared {
    /// The candidate lines for a viewer.
    pub(super) fn candidates(&self, nearby: bool) -> Vec<String> {
        let mut addresses = candidates::hosts(&self.bound, nearby);
        for address in self.configured.load().iter() {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        candidates::lines(&addresses)
    }
}

/// The server with its sockets bound.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Taken when serving begins.
    sockets: Mutex<Vec<(Arc<Socket>, TcpListener)>>,
}

impl Server {
    /// Binds a UDP socket and a TCP listener of one number for each address (`[::]` takes IPv4 too); port 0 is any, the
    /// same for both. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] with the first address that is taken.
    pub fn bind(listen: &[SocketAddr], options: Options) -> Result<Arc<Self>, BindError> {
        let mut sockets = Vec::new();
        let mut bound = Vec::new();
        for &address in listen {
            let (udp, listener) = bind_both(address)?;
            bound.extend(listener.local_addr().ok());
            sockets.push((Arc::new(udp), listener));
        }
        let failed = |error| BindError {
            protocol: "DTLS",
            address: listen.first().copied().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            source: io::Error::other(error),
        };
        let shared = Shared {
            statistics: Arc::default(),
            identity: Identity::new().map_err(failed)?,
            routes: Arc::default(),
            bound,
            // Addresses need no look-up and are there from the first viewer on.
            configured: ArcSwap::default(),
            wanted: ArcSwap::from_pointee(options.candidates.clone()),
            ice_servers: ArcSwap::from_pointee(options.ice_servers.clone()),
            reloaded: tokio::sync::Notify::new(),
            access: OnceLock::new(),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            crowd: Arc::default(),
            options,
        };
        let shared = Arc::new(shared);
        shared.configured.store(Arc::new(shared.addresses_configured()));
        Ok(Arc::new(Self { shared, sockets: Mutex::new(sockets) }))
    }

    /// The addresses really bound, in the order given.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.shared.bound.clone()
    }

    /// Totals that go on counting while the server runs.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.shared.statistics)
    }

    /// The STUN and TURN servers that viewers are told.
    pub fn ice_servers(&self) -> Arc<Vec<IceServer>> {
        self.shared.ice_servers.load_full()
    }

    /// Tells newcomers other addresses and servers from now on; those who watch stay.
    pub fn reload(&self, candidates: Vec<Candidate>, ice_servers: Vec<IceServer>) {
        self.shared.wanted.store(Arc::new(candidates));
        self.shared.ice_servers.store(Arc::new(ice_servers));
        self.shared.configured.store(Arc::new(self.shared.addresses_configured()));
        self.shared.reloaded.notify_one();
    }

    /// Serves until cancelled, then says goodbye to all viewers and returns.
    pub async fn serve(self: Arc<Self>, access: Arc<Access>, cancel: CancellationToken) {
        let shared = &self.shared;
        // It is served once; a second time would have no sockets either.
        let _ = shared.access.set(access);
        let sockets = std::mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        let options = Arc::new(shared.options.clone());
        for (socket, listener) in sockets {
            let (routes, cancel) = (Arc::clone(&shared.routes), shared.cancel.clone());
            shared.tasks.spawn(mux::receive(socket, Arc::clone(&routes), cancel.clone()));
            let tasks = shared.tasks.clone();
            shared.tasks.spawn(tcp::accept(listener, routes, Arc::clone(&options), tasks, cancel));
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = shared.look_up() => {}
        }
        shared.cancel.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
    }

    /// A session for that offer. Answers at once; media flows when ICE and DTLS are up and the sources are ready. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`CreateError`] says why not.
    pub fn create(
        &self,
        offer: &Offer,
        plan: Plan,
        device: Arc<Device>,
        peer: IpAddr,
        user: Option<Arc<User>>,
    ) -> Result<Session, CreateError> {
        let shared = &self.shared;
        if shared.cancel.is_cancelled() {
            return Err(CreateError::Bad("the server is about to stop".into()));
        }
        let place = Place::take(shared, peer)?;
        let security = Security::of(offer).map_err(CreateError::Bad)?;
        let local = new_credentials();
        let candidates = shared.candidates(peer.is_loopback());
        let ssrc = (rand::random(), rand::random());
        let terms = Terms {
            ice: &local,
            fingerprint: shared.identity.fingerprint(),
            active: security.active,
            candidates: &candidates,
            ssrc,
        };
        let text = answer::write(offer, &plan, &terms);
        let secure = Secure::new(&shared.identity, security.fingerprints, security.active).map_err(CreateError::Bad)?;
        let (registration, inbox) = shared.routes.register(&local.ufrag);
        let (commands, received) = mpsc::channel(4);
        let session = Session::new(text, commands);
        let viewer = Viewer::new(Arrangement {
            shared: Arc::clone(shared),
            ice: Ice::new(shared.identity.clone(), local, offer.ice.clone()),
            secure,
            registration,
            inbox,
            commands: received,
            plan,
            ssrc,
            device,
            peer,
            user,
            session: session.clone(),
            created: Instant::now(),
        });
        shared.tasks.spawn(async move {
            viewer.run().await;
            drop(place);
        });
        Ok(session)
    }
}

/// What a session may be asked by its owner.
impl Shared {
    /// Those of the configured candidates that need no look-up.
    fn addresses_configured(&self) -> Vec<SocketAddr> {
        let port = self.bound.first().map_or(0, SocketAddr::port);
        let wanted = self.wanted.load();
        let address = |candidate: &Candidate| match candidate.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, candidate.port.unwrap_or(port))),
            Host::Name(_) => None,
        };
        wanted.iter().filter_map(address).collect()
    }

    /// Looks names among the candidates up, now and then again; never ends.
    async fn look_up(&self) {
        let port = self.bound.first().map_or(0, SocketAddr::port);
        loop {
            let wanted = self.wanted.load_full();
            if wanted.iter().any(|candidate| matches!(candidate.host, Host::Name(_))) {
                let found = candidates::resolve(&wanted, port).await;
                // Unless the configuration was read again in the meantime.
                if Arc::ptr_eq(&wanted, &self.wanted.load_full()) {
                    self.configured.store(Arc::new(found));
                }
                let _ = tokio::time::timeout(LOOK_UP, self.reloaded.notified()).await;
            } else {
                self.reloaded.notified().await;
            }
        }
    }

    /// The answer to a restart.
    pub(super) fn restarted(&self, ice: IceCredentials, nearby: bool) -> Fragment {
        Fragment { ice: Some(ice), candidates: self.candidates(nearby), end_of_candidates: true }
    }
}

/// A session's place among all and among those of its address, until it is dropped.
#[derive(Debug)]
struct Place {
    statistics: Arc<Statistics>,
    _counted: Counted,
}

impl Place {
    fn take(shared: &Arc<Shared>, peer: IpAddr) -> Result<Self, CreateError> {
        let Options { viewers, per_address, .. } = shared.options;
        let counted = shared.crowd.count(peer.to_canonical(), per_address);
        let counted = counted.ok_or(CreateError::PerAddress(per_address))?;
        let sessions = &shared.statistics.sessions;
        let taken =
            sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < viewers).then_some(now + 1));
        taken.map_err(CreateError::Full)?;
        Ok(Self { statistics: Arc::clone(&shared.statistics), _counted: counted })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.statistics.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Both protocols on one number.
fn bind_both(address: SocketAddr) -> Result<(Socket, TcpListener), BindError> {
    let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let listener = listen_tcp(address).map_err(|source| BindError { protocol: "TCP", address, source })?;
        let bound = listener.local_addr().map_err(|source| BindError { protocol: "TCP", address, source })?;
        match Socket::bind(SocketAddr::new(address.ip(), bound.port())) {
            Ok(socket) => return Ok((socket, listener)),
            Err(source) if attempts == 0 => return Err(BindError { protocol: "UDP", address, source }),
            // Any free TCP port may be taken in UDP.
            Err(_) => {}
        }
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(256)?;
    TcpListener::from_std(socket.into())
}
