//! One RTSP viewer without a thread of its own: DESCRIBE, SETUP, PLAY, then packets until it goes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::plan::{self, Leave, Outcome, Transport};
use crate::receiver::Receiver;
use crate::rtsp;
use crate::stamp::now_us;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Describing,
    SettingUp,
    Starting,
    Playing,
}

/// A connected viewer.
#[derive(Debug)]
pub struct Viewer {
    plan: plan::Viewer,
    stream: TcpStream,
    udp: Option<(UdpSocket, UdpSocket)>,
    phase: Phase,
    url: String,
    base: String,
    session: String,
    cseq: u32,
    /// Bytes of a message that has not come completely.
    rest: Vec<u8>,
    receiver: Receiver,
    live_us: u64,
    stalled: bool,
    resumed_us: Option<u64>,
    missing_before: u64,
    live_again_ms: Option<f64>,
}

impl Viewer {
    /// Begins to connect. The connection reports as `tokens.0`, UDP media as `tokens.1`.
    ///
    /// # Errors
    /// No socket can be made.
    pub fn connect(
        plan: plan::Viewer,
        whole: &plan::Plan,
        registry: &Registry,
        tokens: (Token, Token),
    ) -> Result<Self> {
        let server: SocketAddr = whole.server.parse().context("server address")?;
        let connected_us = now_us();
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(size) = plan.receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        match socket.connect(&server.into()) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => return Err(e.into()),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, tokens.0, Interest::READABLE | Interest::WRITABLE)?;
        let udp = match plan.transport {
            Transport::Tcp | Transport::WebRtc => None,
            Transport::Udp => {
                let (mut rtp, rtcp) = udp_pair()?;
                registry.register(&mut rtp, tokens.1, Interest::READABLE)?;
                Some((rtp, rtcp))
            }
        };
        let at = |ms: u64| whole.start_us + ms * 1000;
        let window = plan.timed.then(|| (at(whole.window_ms.0), at(whole.window_ms.1)));
        let url = format!("rtsp://{}{}", whole.server, whole.path);
        Ok(Self {
            plan,
            stream,
            udp,
            phase: Phase::Connecting,
            base: url.clone(),
            url,
            session: String::new(),
            cseq: 0,
            rest: Vec::new(),
            receiver: Receiver::new(connected_us, window),
            live_us: whole.live_ms * 1000,
            stalled: false,
            resumed_us: None,
            missing_before: 0,
            live_again_ms: None,
        })
    }

    /// The connection can be written: it is there.
    ///
    /// # Errors
    /// It was refused.
    pub fn writable(&mut self) -> Result<()> {
        if self.phase != Phase::Connecting {
            return Ok(());
        }
        if let Some(error) = self.stream.take_error()? {
            bail!("connect: {error}");
        }
        match self.stream.peer_addr() {
            Err(e) if e.kind() == ErrorKind::NotConnected => return Ok(()),
            other => other?,
        };
        self.phase = Phase::Describing;
        let url = self.url.clone();
        self.request("DESCRIBE", &url, "Accept: application/sdp\r\n")
    }

    /// Reads what there is; `buffer` is scratch memory shared by all viewers. True when the viewer has what it came for.
    ///
    /// # Errors
    /// The server refused, closed, or broke the framing.
    pub fn readable(&mut self, buffer: &mut [u8]) -> Result<bool> {
        if self.stalled || self.phase == Phase::Connecting {
            return Ok(false);
        }
        loop {
            let have = self.rest.len();
            buffer[..have].copy_from_slice(&self.rest);
            let read = match self.stream.read(&mut buffer[have..]) {
                Ok(0) => bail!("closed by the server"),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            let total = have + read;
            let used = self.consume(&buffer[..total], now_us())?;
            self.rest.clear();
            self.rest.extend_from_slice(&buffer[used..total]);
            if self.satisfied() {
                return Ok(true);
            }
            if total < buffer.len() {
                return Ok(false); // a short read of a stream socket has emptied it: epoll(7)
            }
        }
    }

    /// Reads what has come over UDP. True when the viewer has what it came for.
    pub fn readable_udp(&mut self, buffer: &mut [u8]) -> bool {
        if let Some((rtp, _)) = &self.udp
            && !self.stalled
        {
            while let Ok(size) = rtp.recv(buffer) {
                let now = now_us();
                self.receiver.packet(&buffer[..size], now);
                note_live(&mut self.receiver, self.resumed_us, self.live_us, &mut self.live_again_ms, now);
            }
        }
        self.satisfied()
    }

    fn satisfied(&self) -> bool {
        self.plan.leave_at_key && self.receiver.seen.first_key_ms.is_some()
    }

    /// Takes complete messages from the front and tells how many bytes they had.
    fn consume(&mut self, bytes: &[u8], now: u64) -> Result<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..) {
            match rest {
                [] => break,
                [b'$', channel, high, low, ..] => {
                    let size = 4 + usize::from(u16::from_be_bytes([*high, *low]));
                    let Some(message) = rest.get(4..size) else { break };
                    if *channel == 0 {
                        self.receiver.packet(message, now);
                    }
                    at += size;
                }
                [b'$', ..] => break,
                text => {
                    ensure!(text.starts_with(&b"RTSP"[..text.len().min(4)]), "framing lost");
                    let Some((message, size)) = rtsp::parse(text)? else { break };
                    self.response(&message)?;
                    at += size;
                }
            }
        }
        note_live(&mut self.receiver, self.resumed_us, self.live_us, &mut self.live_again_ms, now);
        Ok(at)
    }

    fn response(&mut self, message: &rtsp::Message) -> Result<()> {
        if self.phase == Phase::Playing {
            return Ok(()); // to a keep-alive
        }
        ensure!(message.status() == 200, "{:?}: {}", self.phase, message.start);
        match self.phase {
            Phase::Describing => {
                if let Some(base) = message.header("content-base") {
                    self.base = base.to_owned();
                }
                let control = rtsp::video_control(&String::from_utf8_lossy(&message.body), &self.base);
                let transport = match &self.udp {
                    None => "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n".to_owned(),
                    Some((rtp, _)) => {
                        let port = rtp.local_addr()?.port();
                        format!("Transport: RTP/AVP;unicast;client_port={port}-{}\r\n", port + 1)
                    }
                };
                self.phase = Phase::SettingUp;
                self.request("SETUP", &control, &transport)
            }
            Phase::SettingUp => {
                let session = message.header("session").unwrap_or("");
                self.session = session.split(';').next().unwrap_or("").to_owned();
                self.phase = Phase::Starting;
                let base = self.base.clone();
                self.request("PLAY", &base, "Range: npt=0.000-\r\n")
            }
            _ => {
                self.phase = Phase::Playing;
                Ok(())
            }
        }
    }

    fn request(&mut self, method: &str, url: &str, headers: &str) -> Result<()> {
        self.cseq += 1;
        let session = if self.session.is_empty() { String::new() } else { format!("Session: {}\r\n", self.session) };
        let text =
            format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: fan-out\r\n{session}{headers}\r\n", self.cseq);
        // a few hundred bytes now and then always fit
        self.stream.write_all(text.as_bytes()).with_context(|| method.to_owned())
    }

    /// Tells the server that this viewer is still there.
    ///
    /// # Errors
    /// The connection is over.
    pub fn keep_alive(&mut self) -> Result<()> {
        if self.phase != Phase::Playing || self.stalled {
            return Ok(());
        }
        let base = self.base.clone();
        self.request("OPTIONS", &base, "")
    }

    /// Reads nothing from now on.
    pub fn stall(&mut self) {
        self.stalled = true;
    }

    /// Reads on. The caller then calls [`Self::readable`]: what came meanwhile is not announced again.
    pub fn resume(&mut self) {
        self.stalled = false;
        self.resumed_us = Some(now_us());
        self.missing_before = self.receiver.seen.missing;
    }

    /// Goes.
    pub fn leave(mut self, how: Leave, error: Option<String>) -> (Outcome, Vec<u32>) {
        if how == Leave::Teardown && error.is_none() && !self.session.is_empty() {
            let base = self.base.clone();
            let _ = self.request("TEARDOWN", &base, ""); // the server may be gone first
        }
        let seen = self.receiver.seen;
        let nothing = || (seen.pictures == 0).then(|| format!("no picture ({:?})", self.phase));
        let outcome = Outcome {
            group: self.plan.group,
            transport: self.plan.transport,
            error: error.or_else(nothing),
            skipped: if self.resumed_us.is_some() { seen.missing - self.missing_before } else { 0 },
            seen,
            live_again_ms: self.live_again_ms,
        };
        (outcome, self.receiver.latency_us)
    }
}

fn note_live(receiver: &mut Receiver, resumed: Option<u64>, live_us: u64, live_again_ms: &mut Option<f64>, now: u64) {
    if let Some(live) = receiver.take_live()
        && let Some(resumed) = resumed
        && live_again_ms.is_none()
        && live.decodable
        && live.age_us <= live_us
    {
        *live_again_ms = Some(now.saturating_sub(resumed) as f64 / 1e3);
    }
}

/// An even port for RTP and the odd one above it for RTCP.
fn udp_pair() -> Result<(UdpSocket, UdpSocket)> {
    let bind = |port: u16| -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(1 << 20)?; // as players do; the kernel caps it at net.core.rmem_max
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        Ok(UdpSocket::from_std(socket.into()))
    };
    for _ in 0..1000 {
        let port = 2 * fastrand::u16(10_000..32_000);
        if let (Ok(rtp), Ok(rtcp)) = (bind(port), bind(port + 1)) {
            return Ok((rtp, rtcp));
        }
    }
    bail!("no free pair of UDP ports")
}
