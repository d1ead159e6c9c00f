//! The FTP server that cameras upload to: `libunftp`, with nothing behind it but the [door](super::door).
//!
//! A camera's account is its name and token. What is done with uploads says `account.rs`; this file is about connections.
//!
//! * libunftp keeps a command in memory until its line ends, however long it is (0.24, read). So what a client writes goes
//!   through a relay of ours, line by line, to a session on loopback; a longer line than any client's ends the connection.
//! * Passive mode only (PASV and EPSV): a server that connects to where a client tells it can be made to knock at other
//!   doors. The data port is bound on the address that the client has reached us at. Any host that reaches that port before
//!   the client does can send in its place, as always with FTP.
//! * Places are for those who sign in: a client that does not in time is closed, and sooner if another one comes and no
//!   place is left.
//! * Plain FTP: the token goes over the network as it is, like that of an `http://` push.

mod account;

use super::door::Pushes;
use account::{Account, Accounts, Key, Visitor};
use async_trait::async_trait;
use libunftp::ServerBuilder;
use libunftp::options::Binder;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The TCP port where it listens unless the configuration names another.
pub const PORT: u16 = 2121;
/// The ports of its data connections, likewise.
pub const PASSIVE_PORTS: RangeInclusive<u16> = 50_000..=50_009;
/// Commands of one session; an upload takes about six. The server keeps something for each `USER` of a session and lets
/// go of all of it one inside the other: some ten thousand overflow the stack (found by a test of ours; read in libunftp
/// 0.24, `controlchan/control_loop.rs`).
const MAX_COMMANDS: usize = 1_000;
/// No command is longer, in bytes: names of files are at most 255.
const MAX_LINE: usize = 1024;
/// Data ports that one session may keep open for connections that do not come.
const MAX_OPEN: usize = 2;

/// Tells whether a client at that address has the password of that camera.
#[derive(Clone)]
pub struct Login(Arc<Check>);

type Check = dyn Fn(IpAddr, &str, &str) -> bool + Send + Sync;

impl Login {
    /// Asks that function: address, camera, password.
    pub fn new(check: impl Fn(IpAddr, &str, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// How it serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ports for data connections; 0 means any.
    pub passive_ports: RangeInclusive<u16>,
    /// The address that clients are told to open data connections to; without it the one that they have reached us at.
    pub passive_address: Option<Ipv4Addr>,
    /// Sessions at once.
    pub connections: usize,
    /// The same from one address.
    pub per_address: usize,
    /// Who has not signed in for so long is closed, whatever else it says.
    pub sign_in: Duration,
    /// A session in which nothing happens ends after this, in whole seconds.
    pub idle: Duration,
    /// How long an upload may take as a whole, and between two pieces.
    pub upload: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            passive_ports: PASSIVE_PORTS,
            passive_address: None,
            connections: 64,
            per_address: 4,
            sign_in: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            upload: (Duration::from_secs(60), Duration::from_secs(10)),
        }
    }
}

/// Serves until cancelled; sessions are tasks of `tasks` and end as well.
pub async fn serve(
    listener: TcpListener,
    pushes: Arc<Pushes>,
    login: Login,
    options: Options,
    cancel: CancellationToken,
    tasks: TaskTracker,
) {
    let mut guests = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        let (client, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Without file descriptors trying again at once would be a busy loop.
                tracing::warn!(%error, "an FTP connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = peer.ip().to_canonical();
        if !make_room(&mut guests, peer, &options).await {
            tracing::debug!(%peer, "too many FTP connections; closed");
            continue;
        }
        let known = watch::Sender::new(false);
        let visitor = Visitor {
            peer,
            pushes: Arc::clone(&pushes),
            login: login.clone(),
            upload: options.upload,
            known: known.clone(),
            cancel: cancel.clone(),
        };
        let options = options.clone();
        let task = tasks.spawn(async move {
            if let Err(error) = session(client, visitor, &options).await {
                tracing::debug!(%peer, %error, "an FTP connection ended");
            }
        });
        guests.push_back(Guest { peer, known, task });
    }
}

/// One session, as those see it who wait for its place.
struct Guest {
    peer: IpAddr,
    known: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Whether there is a place for one more from that address. If need be, the oldest session that has not signed in is
/// closed for it: one of the same address where that has too many, so that nobody shuts out others.
async fn make_room(guests: &mut VecDeque<Guest>, peer: IpAddr, options: &Options) -> bool {
    guests.retain(|guest| !guest.task.is_finished());
    let crowded = guests.iter().filter(|guest| guest.peer == peer).count() >= options.per_address;
    if !crowded && guests.len() < options.connections {
        return true;
    }
    let stranger = |guest: &Guest| !*guest.known.borrow() && (!crowded || guest.peer == peer);
    let Some(oldest) = guests.iter().position(stranger).and_then(|index| guests.remove(index)) else { return false };
    tracing::debug!(peer = %oldest.peer, "an FTP client that has not signed in is closed for another one");
    oldest.task.abort();
    // What it held is given back now.
    let _ = oldest.task.await;
    true
}

/// Returns when the client should have signed in and has not.
async fn overdue(known: &watch::Sender<bool>, patience: Duration) {
    let mut known = known.subscribe();
    if tokio::time::timeout(patience, known.wait_for(|known| *known)).await.is_ok() {
        std::future::pending().await
    }
}

/// One client, from its connection to its end.
async fn session(client: TcpStream, visitor: Visitor, options: &Options) -> io::Result<()> {
    client.set_nodelay(true)?;
    let here = client.local_addr()?.ip().to_canonical();
    let (outer, inner) = pair().await?;
    let (cancel, known) = (visitor.cancel.clone(), visitor.known.clone());
    let passive = options.passive_address.or(match here {
        IpAddr::V4(here) => Some(here),
        // PASV has no way to say it; EPSV says the port only.
        IpAddr::V6(_) => None,
    });
    let accounts = Arc::new(Accounts::new(visitor));
    let storage = Arc::clone(&accounts);
    let server = ServerBuilder::<Account, Key>::with_user_detail_provider(
        Box::new(move || Account::new(Arc::clone(&storage))),
        Arc::clone(&accounts) as Arc<_>,
    )
    .authenticator(accounts)
    .greeting("Fanlight takes pictures")
    .idle_session_timeout(options.idle.as_secs().max(1))
    .passive_ports(options.passive_ports.clone())
    .passive_host(passive.unwrap_or(Ipv4Addr::UNSPECIFIED))
    .binder(Ports { here, open: Vec::new() })
    .build()
    .map_err(io::Error::other)?;
    let relay = async {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = outer.into_split();
        tokio::select! {
            ended = lines(from_client, to_server) => ended,
            ended = answers(from_server, to_client) => ended,
            () = cancel.cancelled() => Ok(()),
            () = overdue(&known, options.sign_in) => Err(io::Error::other("nobody has signed in")),
        }
        // Both ends are closed here, and so the session ends.
    };
    let (served, relayed) = tokio::join!(server.service(inner), relay);
    served.map_err(|error| io::Error::other(format!("{error:?}")))?;
    relayed
}

/// Both ends of a connection on loopback.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    near.set_nodelay(true)?;
    loop {
        // Another program may have been quicker.
        let (far, from) = listener.accept().await?;
        if from == near.local_addr()? {
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}

/// Hands on whole lines, of one session so many at most.
async fn lines(from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut from = BufReader::with_capacity(MAX_LINE, from);
    let mut line = Vec::new();
    for commands in 1.. {
        line.clear();
        (&mut from).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            // The client has gone, or goes on for too long.
            let whole = line.len() < MAX_LINE;
            return if whole { Ok(()) } else { Err(io::Error::other("a command is longer than any")) };
        }
        if commands > MAX_COMMANDS {
            return Err(io::Error::other("there are more commands than any camera needs; it may come again"));
        }
        to.write_all(&line).await?;
    }
    Ok(())
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// Finds ports for data connections.
#[derive(Debug)]
struct Ports {
    /// The address that the client has reached us at.
    here: IpAddr,
    /// Ports that were bound, and may still wait for their connection.
    open: Vec<u16>,
}

#[async_trait]
impl Binder for Ports {
    async fn bind(&mut self, _: IpAddr, ports: RangeInclusive<u16>) -> io::Result<TcpSocket> {
        let here = self.here;
        // What can be bound again waits for nobody.
        self.open.retain(|&port| bind(SocketAddr::new(here, port)).is_err());
        if self.open.len() >= MAX_OPEN {
            return Err(io::Error::other("data connections were asked for and not opened"));
        }
        let count = u32::from(ports.end().saturating_sub(*ports.start())) + 1;
        let first = rand::random_range(0..count);
        let candidates = (0..count).filter_map(|step| {
            let offset = u16::try_from((first + step) % count).ok()?;
            ports.start().checked_add(offset)
        });
        for port in candidates {
            if let Ok(socket) = bind(SocketAddr::new(here, port)) {
                self.open.push(socket.local_addr()?.port());
                return Ok(socket);
            }
        }
        tracing::warn!(?ports, "no port of `ftp: passive_ports` is free for an FTP data connection");
        Err(io::ErrorKind::AddrInUse.into())
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of before must not keep a port; one that is listened at cannot be taken all the same.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
