//! Mini doorbells: base units that upload a picture for each visitor, with faults on request.
//!
//! [`Bell`] is one unit's upload, with its retries; [`Doorbells`] are several units that ring by themselves, register by
//! UDP, and answer those who look for them. They do what the firmware does as far as that is known, and report a server
//! that closes first: it would have wedged a real unit.

mod cli;
mod control;
mod picture;

pub use cli::{Args, run};
pub use picture::{LONGEST, corners, footage, upside_down};

use super::SimulateError;
use crate::ingest::mini_doorbell::BellId;
use crate::ingest::mini_doorbell::wire::{Carrier, HEADER, Header, function};
use bytes::Bytes;
use socket2::SockRef;
use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes that a unit hands to TCP at once.
const PIECE: usize = 2_000;
/// Between the last acknowledgement and FIN.
const BEFORE_FIN: Duration = Duration::from_millis(5);
/// Between a failed attempt and the next.
const RETRY: Duration = Duration::from_millis(50);
/// Attempts in all.
const ATTEMPTS: u32 = 6;
/// How often the kernel is asked whether all is acknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a unit's TCP waits for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// What an endless upload ends with, should nobody reset it.
const ENDLESS: usize = 16 << 20;

/// What is wrong with an upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// FIN in the middle of the picture, and no second attempt.
    Truncated,
    /// RST at 70 % of the first attempt, then a second one.
    Reset,
    /// 64 KiB more than announced.
    Oversize,
    /// Bytes that never end, behind the picture.
    Endless,
    /// 20 kB of noise without a header.
    Garbage,
    /// A good header, and noise instead of a picture.
    NoJpeg,
    /// A header that announces no picture.
    NoPicture,
    /// A connection without a byte.
    Empty,
    /// An HTTP request.
    Http,
    /// A header, and then nothing for good.
    Hang,
}

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was acknowledged, at that attempt.
    Sent(u32),
    /// All attempts failed; the unit would take the next visitor.
    GaveUp,
    /// The server closed before everything was sent: a real unit would need to be unplugged.
    Wedged,
}

/// One unit.
#[derive(Clone, Debug)]
pub struct Bell {
    /// Where it uploads to.
    pub server: SocketAddr,
    /// The address it uses, as one of 127.0.0.x; by default any.
    pub source: Option<IpAddr>,
    /// Its id.
    pub id: BellId,
    /// What is wrong with its uploads.
    pub fault: Fault,
    /// Bytes a second; by default as fast as it goes.
    pub rate: Option<u32>,
    /// Wait after each write until it is acknowledged, as units do. It takes a look into `/proc/net/tcp` each time, so
    /// leave it out for hundreds of units.
    pub acknowledged: bool,
    /// Attempts at an upload; units make 6.
    pub attempts: u32,
    /// The sequence of the last attempt; each has another.
    pub sequence: u16,
}

impl Bell {
    /// A unit without faults.
    pub fn new(server: SocketAddr, id: BellId) -> Self {
        Self {
            server,
            source: None,
            id,
            fault: Fault::None,
            rate: None,
            acknowledged: true,
            attempts: ATTEMPTS,
            sequence: 0,
        }
    }

    /// Somebody presses the button, or whatever else `function` stands for.
    pub async fn ring(&mut self, function: u8, picture: &[u8]) -> Outcome {
        for attempt in 1..=self.attempts {
            // New for each attempt, 0 to 254.
            self.sequence = (self.sequence + 37) % 255;
            let fault = match self.fault {
                Fault::Reset if attempt > 1 => Fault::None,
                fault => fault,
            };
            match timeout(PATIENCE, self.attempt(fault, function, picture)).await {
                Ok(Ok(Attempt::Sent)) => return Outcome::Sent(attempt),
                Ok(Ok(Attempt::Wedged)) => return Outcome::Wedged,
                Ok(Ok(Attempt::Failed) | Err(_)) | Err(_) => sleep(RETRY).await,
            }
        }
        Outcome::GaveUp
    }

    /// The bytes of an upload, but for what never ends.
    fn stream(&self, fault: Fault, function: u8, picture: &[u8]) -> Vec<u8> {
        let noise =
            |count: u32, from: u32| (0..count).map(move |n| ((n ^ from).wrapping_mul(2_654_435_761) >> 24) as u8);
        let with_header = |body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
            let header = Header::new(self.id, function, self.sequence, length).write(Carrier::Tcp);
            [&header[..], body].concat()
        };
        match fault {
            Fault::None | Fault::Reset | Fault::Endless => with_header(picture),
            Fault::Truncated => {
                let mut whole = with_header(picture);
                whole.truncate(HEADER + picture.len() / 2);
                whole
            }
            Fault::Oversize => with_header(picture).into_iter().chain(noise(64 << 10, 1)).collect(),
            Fault::Garbage => noise(20_000, 2).collect(),
            Fault::NoJpeg => with_header(&noise(picture.len() as u32, u32::from(self.id.0[6])).collect::<Vec<_>>()),
            Fault::NoPicture => with_header(&[]),
            Fault::Empty => Vec::new(),
            Fault::Http => b"GET / HTTP/1.1\r\nHost: doorbell\r\n\r\n".to_vec(),
            Fault::Hang => with_header(picture).into_iter().take(HEADER).collect(),
        }
    }

    async fn attempt(&self, fault: Fault, function: u8, picture: &[u8]) -> io::Result<Attempt> {
        let bytes = self.stream(fault, function, picture);
        let mut socket = self.connect().await?;
        let (piece, pause) = match self.rate {
            None => (PIECE, Duration::ZERO),
            Some(rate) => {
                let piece = (rate / 10).clamp(1, PIECE as u32);
                (piece as usize, Duration::from_secs(1) * piece / rate.max(1))
            }
        };
        let until = if fault == Fault::Reset { bytes.len() * 7 / 10 } else { bytes.len() };
        let mut rest = bytes.get(..until).unwrap_or_default();
        while !rest.is_empty() {
            let (next, more) = rest.split_at(piece.min(rest.len()));
            rest = more;
            socket.write_all(next).await?;
            if self.acknowledged {
                acknowledged(&socket).await;
            }
            sleep(pause).await;
            // After the last byte the server may close.
            if (!rest.is_empty() || fault == Fault::Reset)
                && let Some(attempt) = heard(&socket)?
            {
                return Ok(attempt);
            }
        }
        match fault {
            Fault::Reset => {
                SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
                return Ok(Attempt::Failed);
            }
            Fault::Hang => {
                let ended = socket.read(&mut [0]).await;
                return Ok(if ended.is_ok() { Attempt::Wedged } else { Attempt::Failed });
            }
            Fault::Endless => {
                for _ in 0..ENDLESS / PIECE {
                    socket.write_all(&[0x55; PIECE]).await?;
                }
            }
            _ => {}
        }
        sleep(BEFORE_FIN).await;
        socket.shutdown().await?;
        // The server has nothing to say. Once everything is acknowledged it may close, but a reset is an error still.
        let ended = socket.read(&mut [0]).await;
        Ok(if ended.is_ok() { Attempt::Sent } else { Attempt::Failed })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = if self.server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let socket = socket.connect(self.server).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

enum Attempt {
    Sent,
    Failed,
    Wedged,
}

/// What the server did in the middle of an upload, where it should do nothing.
fn heard(socket: &TcpStream) -> io::Result<Option<Attempt>> {
    match socket.try_read(&mut [0]) {
        // It closed, or said something: nobody knows what a unit makes of that.
        Ok(_) => Ok(Some(Attempt::Wedged)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the kernel's table of connections says of bytes that are not acknowledged, by local address. Reading it takes
/// long where there are many connections, so all units share it.
static UNACKNOWLEDGED: Mutex<Option<(Instant, HashSet<SocketAddr>)>> = Mutex::const_new(None);

/// Waits until the other side has acknowledged everything.
async fn acknowledged(socket: &TcpStream) {
    let Ok(local) = socket.local_addr() else { return };
    let written = Instant::now();
    loop {
        let mut shared = UNACKNOWLEDGED.lock().await;
        if shared.as_ref().is_none_or(|(read, _)| *read < written) {
            let now = Instant::now();
            // Where there is no such table there is nothing to wait for.
            let table = procfs::net::tcp().unwrap_or_default();
            let waiting = table.into_iter().filter(|entry| entry.tx_queue > 0);
            *shared = Some((now, waiting.map(|entry| entry.local_address).collect()));
        }
        if !shared.as_ref().is_some_and(|(_, table)| table.contains(&local)) {
            return;
        }
        if shared.as_ref().is_some_and(|(read, _)| read.elapsed() > LOOK_EVERY) {
            *shared = None;
        }
        drop(shared);
        sleep(LOOK_EVERY).await;
    }
}

/// Several units.
#[derive(Clone, Debug)]
pub struct Options {
    /// The first one; the others follow it.
    pub bell: Bell,
    /// How many; each after the first has the next id, and the next address if the first has one.
    pub count: u8,
    /// Each rings so often, one after the other; by default only when told to.
    pub every: Option<Duration>,
    /// What rings mean.
    pub function: u8,
    /// Where they hear those who look for them, port 5880 on a real one. Answers only where it is given.
    pub control: Option<SocketAddr>,
    /// Where they register every 3 s.
    pub register: Option<SocketAddr>,
    /// How often they register.
    pub register_every: Duration,
}

impl Options {
    /// One unit that rings when told to.
    pub fn new(server: SocketAddr) -> Self {
        let id = BellId([0, 0xff, 2, 0, 0x56, 0x34, 0x12, 0]);
        Self {
            bell: Bell::new(server, id),
            count: 1,
            every: None,
            function: function::VISITOR,
            control: None,
            register: None,
            register_every: Duration::from_secs(3),
        }
    }
}

/// What several units have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Visitors.
    pub rings: u64,
    /// Of these, uploaded.
    pub sent: u64,
    /// Attempts that were needed for those.
    pub attempts: u64,
    /// Given up after six attempts.
    pub gave_up: u64,
    /// Units that the server wedged. They ring no more.
    pub wedged: u64,
    /// Looks for units that were answered.
    pub queries: u64,
    /// Times that a unit was told where to upload to.
    pub redirected: u64,
}

/// Units that ring by themselves. They are unplugged when this is dropped.
#[derive(Debug)]
pub struct Doorbells {
    counters: watch::Receiver<Counters>,
    buttons: Vec<mpsc::Sender<()>>,
    ids: Vec<BellId>,
    control: Option<SocketAddr>,
    _guard: DropGuard,
}

/// What all units share.
#[derive(Debug)]
struct Shared {
    counters: watch::Sender<Counters>,
    pictures: Vec<Bytes>,
    /// Where they upload to now.
    server: watch::Sender<SocketAddr>,
}

impl Doorbells {
    /// Plugs units in that show `pictures` one after the other, which should be [`upside_down`]. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// A port that cannot be bound; no pictures.
    pub fn start(options: Options, pictures: Vec<Bytes>) -> Result<Self, SimulateError> {
        if pictures.is_empty() {
            return Err(SimulateError::System(io::Error::new(ErrorKind::InvalidInput, "no pictures to show")));
        }
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared {
            counters: watch::Sender::default(),
            pictures,
            server: watch::Sender::new(options.bell.server),
        });
        let bells: Vec<Bell> = (0..options.count).map(|n| options.bell.clone().next(n)).collect();
        let ids: Vec<BellId> = bells.iter().map(|bell| bell.id).collect();
        let control = options.control.map(control::bind).transpose().map_err(SimulateError::System)?;
        let control_address = control.as_ref().and_then(|socket| socket.local_addr().ok());
        let units = control::Units {
            ids: ids.clone(),
            socket: control,
            register: options.register,
            register_every: options.register_every,
            shared: Arc::clone(&shared),
        };
        tokio::spawn(cancel.clone().run_until_cancelled_owned(units.run()));
        let mut buttons = Vec::new();
        for (n, bell) in bells.into_iter().enumerate() {
            let (button, pressed) = mpsc::channel(1);
            let count = u32::from(options.count.max(1));
            // One after the other, not all at once.
            let rhythm = options.every.map(|every| (every * n as u32 / count, every));
            let life = live(bell, pressed, rhythm, options.function, Arc::clone(&shared));
            tokio::spawn(cancel.clone().run_until_cancelled_owned(life));
            buttons.push(button);
        }
        let counters = shared.counters.subscribe();
        Ok(Self { counters, buttons, ids, control: control_address, _guard: cancel.drop_guard() })
    }

    /// Presses the button of that unit, counted from 0. A second visitor during an upload gets no picture, as with a real
    /// unit.
    pub fn press(&self, unit: usize) {
        if let Some(button) = self.buttons.get(unit) {
            // It is busy: only the chime rings.
            let _ = button.try_send(());
        }
    }

    /// The ids of the units.
    pub fn ids(&self) -> &[BellId] {
        &self.ids
    }

    /// Where they hear those who look for them.
    pub fn control(&self) -> Option<SocketAddr> {
        self.control
    }

    /// What they have done so far.
    pub fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    /// What they have done, and all changes.
    pub fn watch(&self) -> watch::Receiver<Counters> {
        self.counters.clone()
    }
}

impl Bell {
    /// The n-th unit after this one.
    fn next(mut self, n: u8) -> Self {
        self.id.0[6] = self.id.0[6].wrapping_add(n);
        self.source = self.source.map(|source| match source {
            IpAddr::V4(source) => Ipv4Addr::from_bits(source.to_bits().wrapping_add(n.into())).into(),
            IpAddr::V6(_) => source,
        });
        self
    }
}

/// One unit until it is wedged.
async fn live(
    mut bell: Bell,
    mut pressed: mpsc::Receiver<()>,
    rhythm: Option<(Duration, Duration)>,
    function: u8,
    shared: Arc<Shared>,
) {
    let mut next = rhythm.map(|(first, _)| Instant::now() + first);
    let mut pictures = shared.pictures.iter().cycle().skip(bell.id.0[6].into());
    loop {
        tokio::select! {
            button = pressed.recv() => if button.is_none() { return },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                next = next.zip(rhythm).map(|(next, (_, every))| next + every);
            }
        }
        let Some(picture) = pictures.next() else { return };
        bell.server = *shared.server.borrow();
        let outcome = bell.ring(function, picture).await;
        shared.counters.send_modify(|counters| {
            counters.rings += 1;
            match outcome {
                Outcome::Sent(attempts) => {
                    counters.sent += 1;
                    counters.attempts += u64::from(attempts);
                }
                Outcome::GaveUp => counters.gave_up += 1,
                Outcome::Wedged => counters.wedged += 1,
            }
        });
        if outcome == Outcome::Wedged {
            tracing::warn!(id = %bell.id, "the server closed first: a real unit would have to be unplugged now");
            return;
        }
    }
}
