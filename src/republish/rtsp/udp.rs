//! Media over UDP: one RTP/RTCP socket pair for all viewers, one send call per picture where the kernel segments.

use crate::republish::rtp::PacketUnit;
use bytes::Bytes;
use quinn_udp::{Transmit, UdpSocketState};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// The most bytes in one send: 64 KiB with IP and UDP headers, less a margin.
const MAX_SEND: usize = 64_000;
/// How many bytes may go out at once at a start.
const BUCKET: usize = 64 << 10;
/// The least rate of a start burst, in bytes per second: 20 Mbit/s.
const LEAST_RATE: u64 = 20_000_000 / 8;
/// Kernel buffer for outgoing datagrams: a key picture to many viewers at once.
const SEND_BUFFER: usize = 4 << 20;

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

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
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
            let rtp = bind(SocketAddr::new(ip, ports.0)).map_err(|error| (ports.0, error))?;
            let rtcp = bind(SocketAddr::new(ip, ports.1)).map_err(|error| (ports.1, error))?;
            return Self::new(rtp, rtcp, ports).map_err(|error| (ports.0, error));
        }
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        // Any free port may have an odd number or a taken neighbour.
        for _ in 0..64 {
            let rtp = bind(SocketAddr::new(ip, 0)).map_err(|error| (0, error))?;
            let port = rtp.local_addr().map_err(|error| (0, error))?.port();
            let Some(next) = port.checked_add(1).filter(|_| port % 2 == 0) else { continue };
            match bind(SocketAddr::new(ip, next)) {
                Ok(rtcp) => return Self::new(rtp, rtcp, (port, next)).map_err(|error| (port, error)),
                Err(error) => last = error,
            }
        }
        Err((0, last))
    }

    fn new(rtp: std::net::UdpSocket, rtcp: std::net::UdpSocket, ports: (u16, u16)) -> io::Result<Arc<Self>> {
        let socket = |socket: std::net::UdpSocket| {
            let state = UdpSocketState::new((&socket).into())?;
            Ok::<_, io::Error>(Socket { socket: UdpSocket::from_std(socket)?, state })
        };
        Ok(Arc::new(Self { rtp: socket(rtp)?, rtcp: socket(rtcp)?, ports, viewers: Mutex::default() }))
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
        let transmit =
            Transmit { destination: to, ecn: None, contents: packet, segment_size: None, src_ip: Some(from) };
        let _ = self.rtcp.send(&transmit);
    }

    /// Sends one run of packets (see [`runs`]).
    ///
    /// # Errors
    /// `WouldBlock` when the kernel's buffer is full; others as the kernel reports them.
    pub(super) fn send_run(&self, to: SocketAddr, from: IpAddr, run: &Run) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: &run.bytes,
            segment_size: (run.segment < run.bytes.len()).then_some(run.segment),
            src_ip: Some(from),
        };
        self.rtp.send(&transmit)
    }

    /// How many packets one call may carry.
    pub(super) fn max_segments(&self) -> usize {
        self.rtp.state.max_gso_segments()
    }

    /// Waits until datagrams can be sent.
    pub(super) async fn writable(&self) {
        if self.rtp.socket.writable().await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

impl Socket {
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), transmit))
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // The kernel cuts this to its limit without an error.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// An IPv4 address that came through a dual-stack socket is the same viewer.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Packets that one call can send: all of one size, the last one not larger.
#[derive(Clone, Debug)]
pub(super) struct Run {
    bytes: Bytes,
    segment: usize,
}

impl Run {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Splits packets that lie one after the other in `bytes` into runs of at most `max_segments`.
pub(super) fn runs(bytes: &Bytes, sizes: impl Iterator<Item = usize>, max_segments: usize) -> Vec<Run> {
    let mut out = Vec::new();
    let (mut start, mut end, mut segment, mut count, mut last) = (0, 0, 0, 0, 0);
    let mut finish = |range: std::ops::Range<usize>, segment| {
        if !range.is_empty() && range.end <= bytes.len() {
            out.push(Run { bytes: bytes.slice(range), segment });
        }
    };
    for size in sizes {
        let fits =
            count > 0 && last == segment && size <= segment && count < max_segments && end - start + size <= MAX_SEND;
        if !fits {
            finish(start..end, segment);
            (start, segment, count) = (end, size, 0);
        }
        end += size;
        count += 1;
        last = size;
    }
    finish(start..end, segment);
    out
}

/// The runs of a unit as it is.
pub(super) fn unit_runs(unit: &PacketUnit, max_segments: usize) -> Vec<Run> {
    runs(unit.datagrams(), unit.packet_sizes(), max_segments)
}

/// Spreads a start burst over time, so that neither the viewer's buffer nor a wireless link overflows.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    rate: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket; it refills at the larger of four times the stream's rate (bytes per second) and 20 Mbit/s.
    pub(super) fn new(stream_rate: u64, now: Instant) -> Self {
        let rate = (stream_rate.saturating_mul(4)).max(LEAST_RATE) as f64;
        Self { tokens: BUCKET as f64, rate, filled: now }
    }

    /// Takes `size` bytes, or says how long to wait for them. More than the bucket holds waits for a full one.
    pub(super) fn take(&mut self, size: usize, now: Instant) -> Result<(), Duration> {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + since * self.rate).min(BUCKET as f64);
        let needed = (size.min(BUCKET)) as f64;
        if self.tokens >= needed {
            self.tokens -= size as f64;
            return Ok(());
        }
        Err(Duration::from_secs_f64((needed - self.tokens) / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_the_kernel_can_segment() {
        let sizes = [20, 8, 1_212, 1_212, 300, 1_212, 1_212];
        let bytes = Bytes::from(vec![0; sizes.iter().sum()]);
        let got: Vec<_> = runs(&bytes, sizes.into_iter(), 64).iter().map(|run| (run.len(), run.segment)).collect();
        assert_eq!(got, [(28, 20), (2_724, 1_212), (2_424, 1_212)]);
        let many = Bytes::from(vec![0; 1_212 * 100]);
        let got: Vec<_> = runs(&many, std::iter::repeat_n(1_212, 100), 64).iter().map(Run::len).collect();
        assert_eq!(got, [1_212 * 52, 1_212 * 48]);
        assert_eq!(runs(&many, std::iter::repeat_n(1_212, 100), 1).len(), 100);
    }

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(0, start);
        assert_eq!(bucket.take(BUCKET, start), Ok(()));
        let wait = bucket.take(25_000, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(10));
        assert_eq!(bucket.take(25_000, start + wait), Ok(()));
        let full = start + Duration::from_secs(5);
        assert_eq!(bucket.take(1 << 20, full), Ok(()));
        assert!(bucket.take(1, full).is_err());
    }

    #[tokio::test]
    async fn a_pair_has_neighbouring_ports() {
        let pair = UdpPair::bind(IpAddr::from([127, 0, 0, 1]), (0, 0)).unwrap();
        let (rtp, rtcp) = pair.ports();
        assert_eq!((rtp % 2, rtcp), (0, rtp + 1));
    }
}
