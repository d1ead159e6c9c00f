//! Datagrams: sockets that send runs of packets in one call, and what paces them.

use crate::republish::rtp::PacketUnit;
use bytes::Bytes;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The most bytes in one send: 64 KiB with IP and UDP headers, less a margin.
const MAX_SEND: usize = 64_000;
/// How many bytes may go out at once at a start.
const BUCKET: usize = 64 << 10;
/// The least rate of a start burst, in bytes per second: 20 Mbit/s.
const LEAST_RATE: u64 = 20_000_000 / 8;
/// Kernel buffer for outgoing datagrams: a key picture to many viewers at once.
const SEND_BUFFER: usize = 4 << 20;

/// A socket that sends and receives several datagrams in one call where the kernel can.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    /// Binds a socket; `[::]` takes IPv4 too.
    ///
    /// # Errors
    /// What the system answers.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, state })
    }

    /// Sends one run of packets (see [`runs`]) from that address of ours.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel's buffer is full; others as the kernel reports them.
    pub(super) fn send_run(&self, to: SocketAddr, from: Option<IpAddr>, run: &Run) -> io::Result<()> {
        let segment_size = (run.segment < run.bytes.len()).then_some(run.segment);
        self.send(&Transmit { destination: to, ecn: None, contents: &run.bytes, segment_size, src_ip: from })
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// As [`Self::send_run`].
    pub(super) fn send_one(&self, to: SocketAddr, from: Option<IpAddr>, packet: &[u8]) -> io::Result<()> {
        self.send(&Transmit { destination: to, ecn: None, contents: packet, segment_size: None, src_ip: from })
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), transmit))
    }

    /// Waits for datagrams of one sender.
    ///
    /// # Errors
    /// What the system answers.
    pub(super) async fn receive(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            let received =
                self.socket.try_io(Interest::READABLE, || self.state.recv((&self.socket).into(), buffers, meta));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    /// How many packets one call may carry.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Waits until datagrams can be sent.
    pub(super) async fn writable(&self) {
        if self.socket.writable().await.is_err() {
            tokio::task::yield_now().await;
        }
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
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
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
}
