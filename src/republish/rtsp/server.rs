//! Listening, accepting, and what all connections share.

use super::connection::{self, Peer};
use super::output::Socket as Media;
use super::shard::Hub;
use super::tunnel;
use super::udp::UdpPair;
use crate::access::crowd::Crowd;
use crate::access::{Access, Tls};
use crate::bus::{Bus, Stream, TrackId};
use crate::republish::BindError;
use crate::republish::rtp::Feeds;
use crate::transcode::Transcoder;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Unsent bytes the kernel keeps for a connection: a stalled viewer holds no more than this of stale video.
const UNSENT: u32 = 256 << 10;

/// What can be set; the defaults are what players expect.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long DESCRIBE and PLAY wait for a key picture.
    pub ready_wait: Duration,
    /// The session time-out told to clients, and how long a UDP session or an idle connection lives without a sign of
    /// life.
    pub session_timeout: Duration,
    /// How long a connection that takes not one byte is kept.
    pub patience: Duration,
    /// The most connections at once; more are closed as they come.
    pub connections: usize,
    /// The most connections at once from one address: many recorders may stand behind one router.
    pub per_address: usize,
    /// Packets that are shared with other servers.
    pub feeds: Arc<Feeds>,
    /// What makes H.264 of JPEG cameras' pictures, shared with other servers.
    pub transcoder: Arc<Transcoder>,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ready_wait: Duration::from_secs(8),
            session_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(45),
            connections: 4_096,
            per_address: 1_024,
            feeds: Arc::default(),
            transcoder: Arc::default(),
            handshake: Duration::from_secs(10),
        }
    }
}

/// Running totals since the start, and what is now.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Connections open now.
    pub connections: AtomicUsize,
    /// Viewers that began to play.
    pub viewers: AtomicU64,
    /// Access units written to viewers.
    pub units: AtomicU64,
    /// Pictures left out for viewers that were late.
    pub dropped: AtomicU64,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bus: Arc<Bus>,
    pub(super) access: Arc<Access>,
    pub(super) options: Options,
    pub(super) statistics: Arc<Statistics>,
    pub(super) tasks: TaskTracker,
    crowd: Arc<Crowd>,
    next_viewer: AtomicU64,
    hubs: Mutex<Vec<Weak<Hub>>>,
}

impl Shared {
    pub(super) fn viewer_id(&self) -> u64 {
        self.next_viewer.fetch_add(1, Ordering::Relaxed)
    }

    /// The hub that serves newcomers with those tracks; `None` if there is none of them.
    pub(super) fn hub(&self, sources: &[(Arc<Stream>, TrackId)]) -> Option<Arc<Hub>> {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.retain(|hub| hub.strong_count() > 0);
        // A track may have come or gone since a hub's feed began; those who watch it stay with what they were told.
        let feed = self.options.feeds.get(sources)?;
        let mut known = hubs.iter().filter_map(Weak::upgrade);
        if let Some(hub) = known.find(|hub| Arc::ptr_eq(&hub.feed, &feed)) {
            return Some(hub);
        }
        let hub = Hub::new(feed, self.tasks.clone());
        hubs.push(Arc::downgrade(&hub));
        Some(hub)
    }
}

/// The server with its sockets bound.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<(TcpListener, Option<Arc<UdpPair>>)>,
    secure: Vec<(TcpListener, Arc<Tls>)>,
    statistics: Arc<Statistics>,
    options: Options,
}

impl Server {
    /// Binds all sockets: a TCP listener for each address (`[::]` takes IPv4 too), and with `udp_ports` an RTP/RTCP
    /// socket pair beside each (port 0: any two neighbouring ones). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] with the first address that is taken.
    pub fn bind(listen: &[SocketAddr], udp_ports: Option<(u16, u16)>, options: Options) -> Result<Self, BindError> {
        let mut pairs: HashMap<std::net::IpAddr, Arc<UdpPair>> = HashMap::new();
        let mut listeners = Vec::new();
        for &address in listen {
            let listener = listen_tcp(address).map_err(|source| BindError { protocol: "TCP", address, source })?;
            let pair = match (udp_ports, pairs.get(&address.ip())) {
                (None, _) => None,
                (Some(_), Some(pair)) => Some(Arc::clone(pair)),
                (Some(ports), None) => {
                    let pair = UdpPair::bind(address.ip(), ports).map_err(|(port, source)| BindError {
                        protocol: "UDP",
                        address: SocketAddr::new(address.ip(), port),
                        source,
                    })?;
                    pairs.insert(address.ip(), Arc::clone(&pair));
                    Some(pair)
                }
            };
            listeners.push((listener, pair));
        }
        Ok(Self { listeners, secure: Vec::new(), statistics: Arc::default(), options })
    }

    /// Binds more TCP listeners, for RTSP over TLS. Viewers there get their media within the connection only: over UDP
    /// it would go out in the clear.
    ///
    /// # Errors
    /// [`BindError`] with the first address that is taken.
    pub fn bind_tls(&mut self, listen: &[SocketAddr], tls: &Arc<Tls>) -> Result<(), BindError> {
        for &address in listen {
            let listener = listen_tcp(address).map_err(|source| BindError { protocol: "TCP", address, source })?;
            self.secure.push((listener, Arc::clone(tls)));
        }
        Ok(())
    }

    /// The addresses really bound for RTSP over TLS, in the order given.
    pub fn tls_addrs(&self) -> Vec<SocketAddr> {
        self.secure.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// The addresses really bound, in the order given.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// The UDP ports really bound, one pair for each address listened on; the same where addresses share one.
    pub fn udp_ports(&self) -> Vec<(u16, u16)> {
        self.listeners.iter().filter_map(|(_, pair)| Some(pair.as_ref()?.ports())).collect()
    }

    /// Totals that go on counting while the server runs.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Serves until cancelled, then says goodbye to all viewers and returns.
    pub async fn serve(self, bus: Arc<Bus>, access: Arc<Access>, cancel: CancellationToken) {
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            bus,
            access,
            options: self.options,
            statistics: self.statistics,
            tasks: tasks.clone(),
            crowd: Arc::default(),
            next_viewer: AtomicU64::new(1),
            hubs: Mutex::default(),
        });
        let mut receiving: Vec<Arc<UdpPair>> = Vec::new();
        for (listener, pair) in self.listeners {
            if let Some(pair) = &pair
                && !receiving.iter().any(|known| Arc::ptr_eq(known, pair))
            {
                receiving.push(Arc::clone(pair));
                tasks.spawn(Arc::clone(pair).receive(cancel.clone()));
            }
            tasks.spawn(accept(listener, pair, None, Arc::clone(&shared), cancel.clone()));
        }
        for (listener, tls) in self.secure {
            tasks.spawn(accept(listener, None, Some(tls), Arc::clone(&shared), cancel.clone()));
        }
        cancel.cancelled().await;
        tasks.close();
        tasks.wait().await;
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    TcpListener::from_std(socket.into())
}

/// Says that connections are closed at once, and not more often than this.
const COMPLAIN: Duration = Duration::from_secs(30);

async fn accept(
    listener: TcpListener,
    udp: Option<Arc<UdpPair>>,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
) {
    let mut complained: Option<Instant> = None;
    let mut complain = move |what: &str| {
        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
            complained = Some(Instant::now());
            tracing::warn!("{what}; said at most every {} s", COMPLAIN.as_secs());
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: the connection stays in the queue, so do not spin on it.
                complain(&format!("cannot accept an RTSP connection: {error}"));
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if shared.statistics.connections.load(Ordering::Relaxed) >= shared.options.connections {
            complain("too many RTSP connections, more are closed at once");
            continue;
        }
        let Some(counted) = shared.crowd.count(address.ip().to_canonical(), shared.options.per_address) else {
            complain(&format!("too many RTSP connections from {}, more are closed at once", address.ip()));
            continue;
        };
        if let Err(error) = tune(&socket, shared.options.patience) {
            tracing::debug!(%error, %address, "the connection was gone before it began");
            continue;
        }
        let Ok(local) = socket.local_addr() else { continue };
        let peer = Peer { address, local, udp: udp.clone(), secure: tls.is_some() };
        let (serving, tls, cancel) = (Arc::clone(&shared), tls.clone(), cancel.child_token());
        shared.statistics.connections.fetch_add(1, Ordering::Relaxed);
        shared.tasks.spawn(async move {
            match tls {
                None => connection::serve(&serving, Media::Tcp(socket), peer, cancel).await,
                Some(tls) => tunnel::serve(&serving, &tls, socket, peer, cancel).await,
            }
            serving.statistics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(counted);
        });
    }
}

fn tune(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(patience))?;
    let (idle, interval) = (Duration::from_secs(30), Duration::from_secs(5));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3))
}
