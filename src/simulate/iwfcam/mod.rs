//! An IWFCam camera: JPEG pictures and ADPCM over UDP, with the faults of its network and its firmware on request.
//!
//! [`Device`] is the camera without sockets, [`Network`] the way to its clients, [`Scene`] what it sees, and [`Camera`]
//! all of them on real ports. It does what the vendor's camera does as far as that is known, and is as strict: ids and
//! token are checked, media goes to the address written in the login, and commands count only from there with the right
//! session number.

mod cli;
mod device;
mod footage;
mod network;
mod scene;
#[cfg(test)]
mod tests;

pub use cli::{Args, run};
pub use device::{Datagram, Device, Happened, LIVE_LIMIT, Piece, Port};
pub use footage::{Shown, footage};
pub use network::Network;
pub use scene::{Scene, Sound};

use super::SimulateError;
use crate::ingest::iwfcam::wire::{DISCOVERY_PORT, Ids, LoginResult, Policy, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between two blocks of sound.
const BLOCK_EVERY: Duration = Duration::from_millis(128);
/// How often clients are looked at.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);
/// Pictures in a loop of [`Scene::bars`].
pub(super) const LOOP: u32 = 30;

/// What kind of camera.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens, on both ports.
    pub address: Ipv4Addr,
    /// The port for searches; 0 is any.
    pub discovery_port: u16,
    /// The port for the rest; 0 is any.
    pub media_port: u16,
    /// Also hear searches that are broadcast on this address, as 127.255.255.255 for cameras on loopback.
    pub broadcast: Option<Ipv4Addr>,
    /// Its name for good.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// What a login must quote; not zero is a camera that has called home.
    pub ids: Ids,
    /// The 12 hexadecimal digits that a login must have.
    pub token: String,
    /// Places for clients, 1 to 8.
    pub slots: u32,
    /// A live client that it does not hear for so long is dropped.
    pub slot_timeout: Duration,
    /// Width that it tells of its pictures, in pixels.
    pub width: u16,
    /// Height that it tells.
    pub height: u16,
    /// Pictures per second.
    pub fps: u32,
    /// It has no microphone.
    pub no_audio: bool,
    /// It leaves out the 16 bytes before a picture's first piece.
    pub no_head: bool,
    /// Its clock is not filled in.
    pub no_clock: bool,
    /// The number before its first picture's.
    pub first_number: u16,
    /// Media bytes of a datagram.
    pub fragment_size: usize,
    /// It sends pieces again that a client asks for.
    pub answer_missing: bool,
    /// So many copies of the login, and of each control command, are not heard.
    pub ignore_first: u32,
    /// So many searches are not heard.
    pub ignore_searches: u32,
    /// What its network does.
    pub faults: Faults,
}

/// What a network does to datagrams: shares of them, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Never arrive, either way.
    pub loss: f64,
    /// Arrive 1 to 4 datagrams later: media only.
    pub reorder: f64,
    /// Arrive twice: media only.
    pub duplicate: f64,
    /// Are preceded by one that is no message.
    pub malformed: f64,
    /// Which ones: the same seed does the same.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST,
            discovery_port: DISCOVERY_PORT,
            media_port: 17_900,
            broadcast: None,
            uid: "DEMO001-0011223344AB-1A2B3C".to_owned(),
            name: "IPCAM".to_owned(),
            ids: Ids::default(),
            token: Token::NO_PASSWORD.to_owned(),
            slots: 8,
            slot_timeout: LIVE_LIMIT,
            width: 640,
            height: 480,
            fps: 15,
            no_audio: false,
            no_head: false,
            no_clock: false,
            first_number: 0,
            fragment_size: 1032,
            answer_missing: false,
            ignore_first: 0,
            ignore_searches: 0,
            faults: Faults::default(),
        }
    }
}

/// What a camera has done and seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Searches heard.
    pub searches: u64,
    /// Logins let in, repeated ones too.
    pub logins: u64,
    /// Logins refused.
    pub refused: u64,
    /// Clients now.
    pub clients: u64,
    /// Control commands heard.
    pub commands: u64,
    /// Control commands that nobody may send (see [`Policy::Never`]).
    pub never: u64,
    /// Control commands that only a camera's user may send.
    pub on_request: u64,
    /// Searches, logins and commands missed on purpose.
    pub ignored: u64,
    /// Pieces that clients asked for again.
    pub asked: u64,
    /// Pictures sent, counted once a client.
    pub pictures: u64,
    /// Of these, how many the network let through whole.
    pub whole: u64,
    /// Datagrams that the network lost.
    pub lost: u64,
}

/// A camera on real ports. It is switched off when this is dropped.
#[derive(Debug)]
pub struct Camera {
    discovery: SocketAddrV4,
    media: SocketAddrV4,
    scene: Arc<Scene>,
    counters: watch::Receiver<Counters>,
    orders: mpsc::UnboundedSender<Order>,
    _guard: DropGuard,
}

/// What a camera is told from outside its protocol.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Neither hear nor send for so long; then as after a power cut.
    Reboot(Duration),
    /// Neither hear nor send for so long; then go on as if nothing had been.
    Outage(Duration),
}

impl Camera {
    /// Switches a camera on that sees `scene` and hears `sound`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A port that cannot be bound.
    pub fn start(options: Options, scene: Scene, sound: Sound) -> Result<Self, SimulateError> {
        let discovery = bind(options.address, options.discovery_port)?;
        let media = bind(options.address, options.media_port)?;
        let (at_discovery, at_media) = (local(&discovery)?, local(&media)?);
        let broadcast = options.broadcast.map(|address| bind(address, at_discovery.port())).transpose()?;
        let (tell, counters) = watch::channel(Counters::default());
        let (orders, ordered) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let scene = Arc::new(scene);
        let running = Running {
            device: Device::new(options.clone(), at_media, Instant::now()),
            inward: Network::new(Faults { reorder: 0.0, duplicate: 0.0, ..options.faults }, 1),
            outward: Network::new(options.faults, 2),
            through: HashMap::new(),
            counters: Counters::default(),
            tell,
            scene: Arc::clone(&scene),
            sound,
            discovery,
            broadcast,
            media,
            options,
        };
        tokio::spawn(running.run(ordered, cancel.clone()));
        Ok(Self { discovery: at_discovery, media: at_media, scene, counters, orders, _guard: cancel.drop_guard() })
    }

    /// Where it hears searches.
    pub fn discovery(&self) -> SocketAddrV4 {
        self.discovery
    }

    /// Where it takes logins.
    pub fn media(&self) -> SocketAddrV4 {
        self.media
    }

    /// What it sees: [`Scene::picture`] gives the bytes that it sent.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    /// The same, to wait for.
    pub fn watch(&self) -> watch::Receiver<Counters> {
        self.counters.clone()
    }

    /// Switches it off, and on again after that time.
    pub fn reboot(&self, off: Duration) {
        // It is gone only if the runtime is.
        let _ = self.orders.send(Order::Reboot(off));
    }

    /// Cuts its network for that time.
    pub fn outage(&self, off: Duration) {
        let _ = self.orders.send(Order::Outage(off));
    }
}

fn bind(address: Ipv4Addr, port: u16) -> Result<UdpSocket, SimulateError> {
    let listen = SocketAddr::from((address, port));
    let bound = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Several cameras hear the same broadcasts, and a gateway on this machine may listen for answers on that port.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&listen.into())?;
        UdpSocket::from_std(socket.into())
    };
    bound().map_err(|error: std::io::Error| SimulateError::Bind { listen, text: error.to_string() })
}

fn local(socket: &UdpSocket) -> Result<SocketAddrV4, SimulateError> {
    match socket.local_addr()? {
        SocketAddr::V4(local) => Ok(local),
        SocketAddr::V6(_) => Err(SimulateError::System(std::io::Error::other("an IPv4 socket with an IPv6 address"))),
    }
}

struct Running {
    device: Device,
    inward: Network<()>,
    outward: Network<Datagram>,
    /// Pieces of recent pictures that got through, by client and number: bit by bit, and how many there are.
    through: HashMap<(SocketAddrV4, u16), Pieces>,
    counters: Counters,
    tell: watch::Sender<Counters>,
    scene: Arc<Scene>,
    sound: Sound,
    discovery: UdpSocket,
    broadcast: Option<UdpSocket>,
    media: UdpSocket,
    options: Options,
}

#[derive(Default)]
struct Pieces {
    there: Vec<bool>,
    counted: bool,
}

/// What a camera waits for.
enum Input {
    Datagram(Port, SocketAddr, usize),
    Picture,
    Block,
    Expire,
    Order(Order),
}

impl Running {
    async fn run(mut self, mut ordered: mpsc::UnboundedReceiver<Order>, cancel: CancellationToken) {
        let period = Duration::from_secs(1) / self.options.fps.max(1);
        let mut pictures = tokio::time::interval(period);
        pictures.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut blocks = tokio::time::interval(BLOCK_EVERY);
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        expire.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut counter = 0_u64;
        let mut off: Option<(Instant, bool)> = None;
        let (mut buffer, mut second) = (vec![0; 2048], vec![0; 2048]);
        loop {
            let broadcast = async {
                match &self.broadcast {
                    Some(socket) => socket.recv_from(&mut second).await,
                    None => std::future::pending().await,
                }
            };
            let mut first = vec![0; 2048];
            let input = tokio::select! {
                () = cancel.cancelled() => return,
                Some(order) = ordered.recv() => Input::Order(order),
                Ok((length, from)) = self.media.recv_from(&mut buffer) => Input::Datagram(Port::Media, from, length),
                Ok((length, from)) = self.discovery.recv_from(&mut first) => {
                    buffer = first;
                    Input::Datagram(Port::Discovery, from, length)
                }
                Ok((length, from)) = broadcast => {
                    buffer.clone_from(&second);
                    Input::Datagram(Port::Discovery, from, length)
                }
                _ = pictures.tick() => Input::Picture,
                _ = blocks.tick() => Input::Block,
                _ = expire.tick() => Input::Expire,
            };
            let now = Instant::now();
            if let Some((until, reboot)) = off {
                if now < until {
                    // The picture's number goes on where only the network is cut.
                    continue;
                }
                off = None;
                if reboot {
                    self.device.reboot(now);
                }
            }
            let out = match input {
                Input::Order(Order::Reboot(time)) => {
                    off = Some((now + time, true));
                    continue;
                }
                Input::Order(Order::Outage(time)) => {
                    off = Some((now + time, false));
                    continue;
                }
                Input::Datagram(on, SocketAddr::V4(from), length) => {
                    let arrived = self.inward.pass(());
                    let bytes = buffer.get(..length).unwrap_or_default();
                    arrived.into_iter().flat_map(|()| self.device.received(on, from, bytes, now)).collect()
                }
                Input::Datagram(..) => Vec::new(),
                Input::Picture => {
                    let picture = self.scene.picture(counter);
                    counter += 1;
                    self.device.picture(&picture, now)
                }
                Input::Block if self.options.no_audio => Vec::new(),
                Input::Block => {
                    let block = self.sound.block();
                    self.device.sound(&block, now)
                }
                Input::Expire => self.device.expire(now),
            };
            for datagram in out {
                self.send(datagram).await;
            }
            self.count();
        }
    }

    /// Through the network, whatever that makes of it.
    async fn send(&mut self, datagram: Datagram) {
        let out = match datagram.piece {
            Some(_) => {
                if let Some(garbage) = self.outward.garbage() {
                    let _ = self.media.send_to(&garbage, datagram.to).await;
                }
                self.outward.pass(datagram)
            }
            // Reordering and doubling are for media; answers only get lost.
            None => {
                let arrived = self.inward.pass(());
                if arrived.is_empty() { Vec::new() } else { vec![datagram] }
            }
        };
        for datagram in out {
            if let Some(piece) = datagram.piece.filter(|piece| piece.video) {
                self.arrived(datagram.to, piece);
            }
            let socket = match datagram.from {
                Port::Discovery => &self.discovery,
                Port::Media => &self.media,
            };
            // Nobody there is what happens to cameras too.
            let _ = socket.send_to(&datagram.bytes, datagram.to).await;
        }
    }

    fn arrived(&mut self, to: SocketAddrV4, piece: Piece) {
        if !self.through.contains_key(&(to, piece.number)) {
            self.counters.pictures += 1;
            // Pictures of a few seconds ago are done with.
            let number = piece.number;
            self.through.retain(|(_, old), _| number.wrapping_sub(*old) < 256);
        }
        let pieces = self.through.entry((to, piece.number)).or_default();
        pieces.there.resize(piece.fragments.into(), false);
        if let Some(there) = pieces.there.get_mut(usize::from(piece.fragment)) {
            *there = true;
        }
        if !pieces.counted && pieces.there.iter().all(|there| *there) {
            pieces.counted = true;
            self.counters.whole += 1;
        }
    }

    fn count(&mut self) {
        for happened in self.device.happened() {
            let counters = &mut self.counters;
            match happened {
                Happened::Searched(_) => counters.searches += 1,
                Happened::LoggedIn(_, LoginResult::Accepted) => counters.logins += 1,
                Happened::LoggedIn(..) => counters.refused += 1,
                Happened::Controlled(id, value, policy) => {
                    counters.commands += 1;
                    counters.never += u64::from(policy == Policy::Never);
                    counters.on_request += u64::from(policy == Policy::OnRequest);
                    if policy != Policy::Needed {
                        tracing::warn!(id, value, ?policy, "a command that no gateway may send by itself");
                    }
                }
                Happened::Ignored => counters.ignored += 1,
                Happened::Gone(_) => {}
                Happened::Asked(pieces) => counters.asked += pieces as u64,
            }
        }
        self.counters.clients = self.device.clients().count() as u64;
        self.counters.lost = self.outward.lost + self.inward.lost;
        let counters = self.counters;
        self.tell.send_if_modified(|told| std::mem::replace(told, counters) != counters);
    }
}

/// Scenes made once a process, by size.
static SCENES: Mutex<Vec<((u16, u16), Scene)>> = Mutex::new(Vec::new());

/// [`Scene::bars`] of that size, made once a process.
///
/// # Errors
/// Those of [`Scene::bars`].
pub fn bars(width: u16, height: u16) -> Result<Scene, SimulateError> {
    let mut scenes = SCENES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, scene)) = scenes.iter().find(|(size, _)| *size == (width, height)) {
        return Ok(scene.clone());
    }
    let scene = Scene::bars(width, height, LOOP)?;
    scenes.push(((width, height), scene.clone()));
    Ok(scene)
}
