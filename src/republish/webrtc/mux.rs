//! All viewers on one port: which of them a datagram is for.
//!
//! A STUN request names its session by our user fragment; everything else is known by the address it comes from, once an
//! authentic request came from there. Whatever else arrives is dropped without a word.

use super::peer::{Class, fragment_of};
use super::tcp::Link;
use crate::republish::udp::{Socket, canonical};
use bytes::Bytes;
use quinn_udp::RecvMeta;
use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Addresses that one session may be reached at.
const MOST_ADDRESSES: usize = 16;
/// Datagrams that wait for a session's task; more are lost, as on the way.
const WAITING: usize = 64;
/// What one receive call may bring: the kernel joins datagrams of one sender.
const RECEIVE: usize = 64 << 10;
/// The longest datagram that a viewer has reason to send.
const LONGEST: usize = 2_048;

/// A way to a viewer.
#[derive(Clone, Debug)]
pub(super) enum Path {
    /// Datagrams.
    Udp {
        /// By which of our sockets.
        socket: Arc<Socket>,
        /// To where.
        remote: SocketAddr,
        /// From the address that was asked.
        local: Option<IpAddr>,
    },
    /// A TCP connection of the viewer's.
    Tcp(Arc<Link>),
}

impl Path {
    /// The viewer's address.
    pub(super) fn remote(&self) -> SocketAddr {
        match self {
            Self::Udp { remote, .. } => canonical(*remote),
            Self::Tcp(link) => canonical(link.remote()),
        }
    }

    /// `udp` or `tcp`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Udp { .. } => "udp",
            Self::Tcp(_) => "tcp",
        }
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Udp { socket, remote, local },
                Self::Udp { socket: other_socket, remote: other_remote, local: other_local },
            ) => Arc::ptr_eq(socket, other_socket) && remote == other_remote && local == other_local,
            (Self::Tcp(link), Self::Tcp(other)) => Arc::ptr_eq(link, other),
            _ => false,
        }
    }
}

/// What came in for a session.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) path: Path,
    pub(super) datagram: Bytes,
}

/// Where a session's datagrams go.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    id: u64,
    sender: mpsc::Sender<Arrived>,
}

impl Inbox {
    /// Hands a datagram over; false if the session is gone.
    pub(super) fn deliver(&self, arrived: Arrived) -> bool {
        !matches!(self.sender.try_send(arrived), Err(mpsc::error::TrySendError::Closed(_)))
    }

    /// Waits until the session is gone.
    pub(super) async fn ended(&self) {
        self.sender.closed().await;
    }
}

/// A key of the table of addresses: a socket by its address in memory, and the viewer's address.
type Source = (usize, SocketAddr);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    fragments: HashMap<String, Inbox>,
    sources: HashMap<Source, Inbox>,
}

/// Who is where.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<Table>);

impl Routes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session, known by that fragment.
    pub(super) fn register(self: &Arc<Self>, fragment: &str) -> (Registration, mpsc::Receiver<Arrived>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut table = self.table();
        table.next += 1;
        let inbox = Inbox { id: table.next, sender };
        table.fragments.insert(fragment.to_owned(), inbox.clone());
        drop(table);
        let fragments = vec![fragment.to_owned()];
        (Registration { routes: Arc::clone(self), inbox, fragments, sources: Vec::new() }, receiver)
    }

    /// The session that this datagram is for.
    pub(super) fn find(&self, datagram: &[u8], source: Option<Source>) -> Option<Inbox> {
        let class = Class::of(datagram);
        if class == Class::Other {
            return None;
        }
        let fragment = (class == Class::Stun).then(|| fragment_of(datagram)).flatten();
        let table = self.table();
        match fragment {
            Some(fragment) => table.fragments.get(fragment).cloned(),
            None => table.sources.get(&source?).cloned(),
        }
    }
}

/// A session's entries, which go with it.
#[derive(Debug)]
pub(super) struct Registration {
    routes: Arc<Routes>,
    inbox: Inbox,
    fragments: Vec<String>,
    sources: Vec<Source>,
}

impl Registration {
    /// Makes the session known by another fragment too; of older ones the latest stays valid.
    pub(super) fn add_fragment(&mut self, fragment: &str) {
        let mut table = self.routes.table();
        table.fragments.insert(fragment.to_owned(), self.inbox.clone());
        self.fragments.push(fragment.to_owned());
        while self.fragments.len() > 2 {
            table.fragments.remove(&self.fragments.remove(0));
        }
    }

    /// What comes from there is this session's from now on: an authentic check came that way.
    pub(super) fn add_path(&mut self, path: &Path) {
        let Path::Udp { socket, remote, .. } = path else { return };
        let source = source(socket, *remote);
        if self.sources.contains(&source) {
            return;
        }
        let mut table = self.routes.table();
        table.sources.insert(source, self.inbox.clone());
        self.sources.push(source);
        if self.sources.len() > MOST_ADDRESSES {
            let oldest = self.sources.remove(0);
            remove(&mut table, oldest, self.inbox.id);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = self.routes.table();
        for fragment in &self.fragments {
            table.fragments.remove(fragment);
        }
        for source in &self.sources {
            remove(&mut table, *source, self.inbox.id);
        }
    }
}

/// Removes an address, unless another session lives there by now.
fn remove(table: &mut Table, source: Source, id: u64) {
    if table.sources.get(&source).is_some_and(|inbox| inbox.id == id) {
        table.sources.remove(&source);
    }
}

fn source(socket: &Arc<Socket>, remote: SocketAddr) -> Source {
    (Arc::as_ptr(socket).addr(), canonical(remote))
}

/// Reads a socket until cancelled.
pub(super) async fn receive(socket: Arc<Socket>, routes: Arc<Routes>, cancel: CancellationToken) {
    let mut buffer = vec![0; RECEIVE];
    loop {
        let mut meta = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(&mut buffer)];
        let received = tokio::select! {
            received = socket.receive(&mut buffers, &mut meta) => received,
            () = cancel.cancelled() => return,
        };
        if received.is_err() {
            // An ICMP answer to something we sent, mostly.
            tokio::task::yield_now().await;
            continue;
        }
        let [meta] = meta;
        let received = buffer.get(..meta.len).unwrap_or_default();
        for datagram in received.chunks(meta.stride.max(1)).filter(|datagram| datagram.len() <= LONGEST) {
            let Some(inbox) = routes.find(datagram, Some(source(&socket, meta.addr))) else { continue };
            let path = Path::Udp { socket: Arc::clone(&socket), remote: meta.addr, local: meta.dst_ip };
            inbox.deliver(Arrived { path, datagram: Bytes::copy_from_slice(datagram) });
        }
    }
}
