//! Media over UDP: one RTP/RTCP socket pair for all viewers, one send call per picture where the kernel segments.

use crate::republish::udp::{Run, Socket, canonical};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// When a viewer was last heard of.
#[derive(Debug)]
pub(super) struct Alive {
    start: Instant,
    millis: AtomicU64,
}

impl Alive {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    pub(super) fn touch(&self) {
        self.millis.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// The socket pair of one listening address.
#[derive(Debug)]
pub(super) struct UdpPair {
    rtp: Socket,
    rtcp: Socket,
    ports: (u16, u16),
    /// Who sends us RTCP from where.
    viewers: Mutex<HashMap<SocketAddr, Weak<Alive>>>,
}

impl UdpPair {
    /// Binds both ports; port 0 means any two neighbouring ones.
    ///
    /// # Errors
    /// The bind error and the port it is about.
    pub(super) fn bind(ip: IpAddr, ports: (u16, u16)) -> Result<Arc<Self>, (u16, io::Error)> {
        if ports.0 != 0 {
            let rtp = Socket::bind(SocketAddr::new(ip, ports.0)).map_err(|error| (ports.0, error))?;
            let rtcp = Socket::bind(SocketAddr::new(ip, ports.1)).map_err(|error| (ports.1, error))?;
            return Ok(Self::new(rtp, rtcp, ports));
        }
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        // Any free port may have an odd number or a taken neighbour.
        for _ in 0..64 {
            let rtp = Socket::bind(SocketAddr::new(ip, 0)).map_err(|error| (0, error))?;
            let port = rtp.socket.local_addr().map_err(|error| (0, error))?.port();
            let Some(next) = port.checked_add(1).filter(|_| port % 2 == 0) else { continue };
            match Socket::bind(SocketAddr::new(ip, next)) {
                Ok(rtcp) => return Ok(Self::new(rtp, rtcp, (port, next))),
                Err(error) => last = error,
            }
        }
        Err((0, last))
    }

    fn new(rtp: Socket, rtcp: Socket, ports: (u16, u16)) -> Arc<Self> {
        Arc::new(Self { rtp, rtcp, ports, viewers: Mutex::default() })
    }

    /// The ports really bound.
    pub(super) fn ports(&self) -> (u16, u16) {
        self.ports
    }

    /// Counts datagrams from those addresses as signs of life, as long as `alive` lives.
    pub(super) fn listen_for(&self, addresses: impl IntoIterator<Item = SocketAddr>, alive: &Arc<Alive>) {
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        viewers.retain(|_, viewer| viewer.strong_count() > 0);
        viewers.extend(addresses.into_iter().map(|address| (canonical(address), Arc::downgrade(alive))));
    }

    /// Reads what viewers send until cancelled.
    pub(super) async fn receive(self: Arc<Self>, cancel: CancellationToken) {
        let (mut rtp, mut rtcp) = ([0; 2048], [0; 2048]);
        loop {
            let received = tokio::select! {
                received = self.rtcp.socket.recv_from(&mut rtcp) => received,
                // Players punch holes into their routers with packets to this port.
                received = self.rtp.socket.recv_from(&mut rtp) => received,
                () = cancel.cancelled() => return,
            };
            let Ok((_, from)) = received else {
                tokio::task::yield_now().await;
                continue;
            };
            let viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(alive) = viewers.get(&canonical(from)).and_then(Weak::upgrade) {
                alive.touch();
            }
        }
    }

    /// Sends an RTCP packet. One that the kernel does not take is lost, as on the way.
    pub(super) fn send_rtcp(&self, to: SocketAddr, from: IpAddr, packet: &[u8]) {
        let _ = self.rtcp.send_one(to, Some(from), packet);
    }

    /// Sends one run of packets (see [`runs`](crate::republish::udp::runs)).
    ///
    /// # Errors
    /// `WouldBlock` when the kernel's buffer is full; others as the kernel reports them.
    pub(super) fn send_run(&self, to: SocketAddr, from: IpAddr, run: &Run) -> io::Result<()> {
        self.rtp.send_run(to, Some(from), run)
    }

    /// How many packets one call may carry.
    pub(super) fn max_segments(&self) -> usize {
        self.rtp.max_segments()
    }

    /// Waits until datagrams can be sent.
    pub(super) async fn writable(&self) {
        self.rtp.writable().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pair_has_neighbouring_ports() {
        let pair = UdpPair::bind(IpAddr::from([127, 0, 0, 1]), (0, 0)).unwrap();
        let (rtp, rtcp) = pair.ports();
        assert_eq!((rtp % 2, rtcp), (0, rtp + 1));
    }
}
