//! The sockets of one session.

use super::session::{Endpoint, Link};
use bytes::{Buf as _, Bytes};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

/// Room for a burst of datagrams while the task has no turn.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The largest datagram there is, and how much is read from a connection at once.
const READ: usize = 64 << 10;
/// How long a connection may take to be established.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes that may wait for a connection that takes none.
const UNSENT: usize = 256 << 10;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// One socket.
struct Open {
    link: Link,
    state: State,
}

enum State {
    Udp(UdpSocket),
    Connecting(Connecting),
    Tcp {
        socket: TcpStream,
        peer: SocketAddr,
        /// To be written, oldest first.
        unsent: VecDeque<Bytes>,
    },
}

/// What came of a socket.
pub(super) enum Happened<'a> {
    /// It is open, at this local address.
    Opened(SocketAddr),
    /// Bytes from that address.
    Received(SocketAddr, &'a [u8]),
    /// It could not be opened, or it ended; and why.
    Closed(String),
}

/// The same before the bytes are borrowed.
enum Found {
    Opened(SocketAddr),
    Received(SocketAddr, usize),
    Closed(String),
}

/// All sockets of a session.
pub(super) struct Links {
    open: Vec<Open>,
    /// What is told before anything is read.
    news: VecDeque<(Link, Found)>,
    /// Where to look first, so that a busy socket does not starve the others.
    turn: usize,
    buffer: Box<[u8]>,
}

impl Default for Links {
    fn default() -> Self {
        Self { open: Vec::new(), news: VecDeque::new(), turn: 0, buffer: vec![0; READ].into() }
    }
}

impl Links {
    /// Opens a socket; [`Self::next`] tells what became of it.
    pub(super) fn open(&mut self, link: Link, endpoint: Endpoint) {
        self.close(link);
        let state = match endpoint {
            Endpoint::Udp { local, toward, shared } => match udp(local, shared).and_then(|socket| {
                let bound = socket.local_addr()?;
                Ok((toward.map_or(Ok(bound), |peer| way(bound, peer))?, socket))
            }) {
                Ok((local, socket)) => {
                    self.news.push_back((link, Found::Opened(local)));
                    State::Udp(socket)
                }
                Err(error) => {
                    let why = format!("cannot open a UDP socket at {local}: {error}");
                    self.news.push_back((link, Found::Closed(why)));
                    return;
                }
            },
            Endpoint::Tcp(to) => State::Connecting(Box::pin(async move {
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer");
                let socket = tokio::time::timeout(CONNECT, TcpStream::connect(to)).await.map_err(late)??;
                socket.set_nodelay(true)?;
                Ok(socket)
            })),
        };
        self.open.push(Open { link, state });
    }

    /// Closes a socket; nothing is told of it any more.
    pub(super) fn close(&mut self, link: Link) {
        self.open.retain(|open| open.link != link);
        self.news.retain(|(of, _)| *of != link);
    }

    /// Sends a datagram, or queues bytes for a connection. What the network does not take is lost, as datagrams are; a
    /// connection that takes nothing at all is closed.
    pub(super) fn send(&mut self, via: Link, to: Option<SocketAddr>, bytes: Bytes) {
        let Some(open) = self.open.iter_mut().find(|open| open.link == via) else { return };
        match (&mut open.state, to) {
            (State::Udp(socket), Some(to)) => {
                let send = |to: SocketAddr| {
                    if let Err(error) = socket.try_send_to(&bytes, to) {
                        tracing::debug!(%error, %to, "a datagram was not sent");
                    }
                };
                if to.ip() == Ipv4Addr::BROADCAST {
                    everywhere(to.port()).into_iter().for_each(send);
                } else {
                    send(to);
                }
            }
            (State::Tcp { unsent, .. }, _) => {
                unsent.push_back(bytes);
                if unsent.iter().map(Bytes::len).sum::<usize>() > UNSENT {
                    let why = "the device takes no bytes any more".to_owned();
                    self.news.push_back((via, Found::Closed(why)));
                    self.open.retain(|open| open.link != via);
                }
            }
            (State::Udp(_), None) | (State::Connecting(_), _) => {
                tracing::debug!("a session sent something before its socket was open, or without an address");
            }
        }
    }

    /// Waits for the next thing to happen. Cancel safe.
    pub(super) async fn next(&mut self) -> (Link, Happened<'_>) {
        let (link, found) = poll_fn(|context| self.poll(context)).await;
        let happened = match found {
            Found::Opened(local) => Happened::Opened(local),
            Found::Received(from, count) => Happened::Received(from, self.buffer.get(..count).unwrap_or_default()),
            Found::Closed(why) => Happened::Closed(why),
        };
        (link, happened)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Link, Found)> {
        if let Some(news) = self.news.pop_front() {
            return Poll::Ready(news);
        }
        self.turn = self.turn.wrapping_add(1);
        for step in 0..self.open.len() {
            let index = self.turn.wrapping_add(step) % self.open.len();
            let Some(open) = self.open.get_mut(index) else { continue };
            if let Poll::Ready(found) = open.state.poll(context, &mut self.buffer) {
                let link = open.link;
                if matches!(found, Found::Closed(_)) {
                    self.open.remove(index);
                }
                return Poll::Ready((link, found));
            }
        }
        Poll::Pending
    }
}

impl State {
    fn poll(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Found> {
        let mut into = ReadBuf::new(buffer);
        match self {
            Self::Udp(socket) => loop {
                match socket.poll_recv_from(context, &mut into) {
                    Poll::Ready(Ok(from)) => return Poll::Ready(Found::Received(from, into.filled().len())),
                    // What an earlier datagram met, as "port unreachable"; the socket itself is well.
                    Poll::Ready(Err(error)) => tracing::debug!(%error, "an answer to a datagram"),
                    Poll::Pending => return Poll::Pending,
                }
            },
            Self::Connecting(connecting) => match connecting.as_mut().poll(context) {
                Poll::Ready(Ok(socket)) => match (socket.local_addr(), socket.peer_addr()) {
                    (Ok(local), Ok(peer)) => {
                        *self = Self::Tcp { socket, peer, unsent: VecDeque::new() };
                        Poll::Ready(Found::Opened(local))
                    }
                    (Err(error), _) | (_, Err(error)) => Poll::Ready(Found::Closed(error.to_string())),
                },
                Poll::Ready(Err(error)) => Poll::Ready(Found::Closed(error.to_string())),
                Poll::Pending => Poll::Pending,
            },
            Self::Tcp { socket, peer, unsent } => {
                while let Some(front) = unsent.front_mut() {
                    match Pin::new(&mut *socket).poll_write(context, front) {
                        Poll::Ready(Ok(count)) => {
                            front.advance(count);
                            if front.is_empty() {
                                unsent.pop_front();
                            }
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Found::Closed(error.to_string())),
                        Poll::Pending => break,
                    }
                }
                match Pin::new(socket).poll_read(context, &mut into) {
                    Poll::Ready(Ok(())) if into.filled().is_empty() => {
                        Poll::Ready(Found::Closed("the device closed the connection".into()))
                    }
                    Poll::Ready(Ok(())) => Poll::Ready(Found::Received(*peer, into.filled().len())),
                    Poll::Ready(Err(error)) => Poll::Ready(Found::Closed(error.to_string())),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

/// A UDP socket at that address, or at any port of it if that one is taken.
fn udp(local: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let bind = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(shared)?;
        // The kernel gives what it allows.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        if address.is_ipv4() {
            socket.set_broadcast(true)?;
        }
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    bind(local).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse if local.port() != 0 && !shared => bind(SocketAddr::new(local.ip(), 0)),
        _ => Err(error),
    })
}

/// Everybody on all our networks: what goes to the one address for all leaves by one interface only, and cameras often
/// have a network of their own.
fn everywhere(port: u16) -> Vec<SocketAddr> {
    let networks = super::discover::broadcasts().unwrap_or_else(|_| [Ipv4Addr::BROADCAST].into());
    networks.into_iter().map(|network| SocketAddr::from((network, port))).collect()
}

/// The local address that leads to `peer`, where the socket is bound to any: the kernel knows it for a socket that is
/// connected, which for UDP sends nothing.
fn way(bound: SocketAddr, peer: SocketAddr) -> io::Result<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let probe = std::net::UdpSocket::bind(SocketAddr::new(bound.ip(), 0))?;
    probe.connect(peer)?;
    Ok(SocketAddr::new(probe.local_addr()?.ip(), bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_on_all_networks() {
        let all = everywhere(10_104);
        assert!(all.contains(&SocketAddr::from((Ipv4Addr::BROADCAST, 10_104))));
        assert!(
            all.iter().all(|to| to.port() == 10_104 && !to.ip().is_unspecified() && !to.ip().is_loopback()),
            "{all:?}"
        );
    }
}
