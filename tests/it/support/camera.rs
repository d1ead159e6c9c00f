//! An RTSP camera that misbehaves as the script says: just enough of RFC 2326, RFC 3550 and RFC 6184 to be taken for
//! one, and exact counts of what it was asked.

use fanlight::media::annex_b;
use md5::{Digest as _, Md5};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;
use url::Url;

/// What the camera does on one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Plays on and on.
    Play,
    /// Closes the connection as soon as it is accepted.
    CloseAtOnce,
    /// Answers this method with this status.
    Refuse(&'static str, u16),
    /// Never answers this method.
    Hang(&'static str),
    /// Closes the connection at this method.
    CloseAt(&'static str),
    /// Plays so many pictures, then stays connected and sends nothing.
    SilentAfter(usize),
    /// Plays so many pictures, then sound alone.
    SoundAfter(usize),
    /// Plays so many pictures, then closes.
    CloseAfter(usize),
    /// After so many pictures the timestamps jump by so many ticks.
    JumpAfter(usize, i32),
    /// After so many pictures its encoder starts over: another SSRC, other sequence numbers and timestamps.
    StartOverAfter(usize),
    /// Leaves out each n-th picture, with its sequence numbers.
    LoseEvery(usize),
    /// Sends no key pictures.
    NoKeys,
}

/// What the camera is.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What it does on each connection in turn; the last goes on.
    pub(crate) acts: Vec<Act>,
    /// Clients above this get 453.
    pub(crate) max_clients: usize,
    /// User name and password, for Digest.
    pub(crate) login: Option<(&'static str, &'static str)>,
    /// Media lines after the session part of the SDP.
    pub(crate) media: &'static str,
    /// Whether it takes RTP over TCP.
    pub(crate) tcp: bool,
    /// Real time between pictures. The timestamps say 40 ms.
    pub(crate) interval: Duration,
}

/// Video alone.
pub(crate) const VIDEO: &str = "m=video 0 RTP/AVP 96\r\na=control:trackID=0\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1\r\n";
/// Video, sound that is usable, sound that is not, metadata.
pub(crate) const EVERYTHING: &str = "m=audio 0 RTP/AVP 97\r\na=control:trackID=9\r\na=rtpmap:97 G726-32/8000\r\n\
    m=video 0 RTP/AVP 96\r\na=control:trackID=0\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n\
    m=audio 0 RTP/AVP 0\r\na=control:trackID=1\r\n\
    m=application 0 RTP/AVP 107\r\na=control:trackID=3\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n";
/// Nothing that can be used.
pub(crate) const METADATA: &str =
    "m=application 0 RTP/AVP 107\r\na=control:trackID=3\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n";

impl Default for Options {
    fn default() -> Self {
        Self {
            acts: vec![Act::Play],
            max_clients: 8,
            login: None,
            media: VIDEO,
            tcp: true,
            interval: Duration::from_millis(4),
        }
    }
}

/// What the camera has seen, all its lives together.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections accepted.
    pub(crate) connections: AtomicUsize,
    /// Connections open.
    pub(crate) open: AtomicUsize,
    /// The most that were open at once.
    pub(crate) peak: AtomicUsize,
    /// Clients refused because there were too many.
    pub(crate) refused: AtomicUsize,
    /// Methods in the order they came, with the last part of the URL.
    pub(crate) requests: Mutex<Vec<(String, String)>>,
}

impl Seen {
    /// How many requests of that method came.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|(seen, _)| seen == method).count()
    }

    /// The tracks set up, in order.
    pub(crate) fn set_up(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(method, _)| method == "SETUP").map(|(_, track)| track.clone()).collect()
    }
}

/// A camera on loopback; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Camera {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    killed: CancellationToken,
    listening: tokio::task::JoinHandle<()>,
}

/// Not the address that the clients' own sockets get: a client that knocks again and again at a closed port of its own
/// address can end up connected to itself.
const HOST: &str = "127.0.0.2:0";

impl Camera {
    pub(crate) async fn start(options: Options) -> Self {
        Self::start_at(HOST.parse().unwrap(), options, Arc::default()).await
    }

    /// Starts at that address and counts on.
    pub(crate) async fn start_at(address: SocketAddr, options: Options, seen: Arc<Seen>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let killed = CancellationToken::new();
        let listening = tokio::spawn(listen(listener, Arc::new(options), Arc::clone(&seen), killed.clone()));
        Self { address, seen, killed, listening }
    }

    pub(crate) fn url(&self) -> Url {
        Url::parse(&format!("rtsp://{}/main", self.address)).unwrap()
    }

    pub(crate) fn sub_url(&self) -> Url {
        Url::parse(&format!("rtsp://{}/sub", self.address)).unwrap()
    }

    /// Kills it: all its connections and its listener are gone when this returns.
    pub(crate) async fn kill(mut self) {
        self.killed.cancel();
        let _ = (&mut self.listening).await;
        while self.seen.open.load(SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.killed.cancel();
    }
}

async fn listen(listener: TcpListener, options: Arc<Options>, seen: Arc<Seen>, killed: CancellationToken) {
    let lives = seen.connections.load(SeqCst);
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = killed.cancelled() => return,
        };
        // A connection whose end came before this one began is no client any more, though its task may not know yet.
        for _ in 0..50 {
            if seen.open.load(SeqCst) < options.max_clients {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let number = seen.connections.fetch_add(1, SeqCst) - lives;
        let open = seen.open.fetch_add(1, SeqCst) + 1;
        seen.peak.fetch_max(open, SeqCst);
        let act = options.acts.get(number).or(options.acts.last()).copied().unwrap();
        let (options, seen, killed) = (Arc::clone(&options), Arc::clone(&seen), killed.clone());
        tokio::spawn(async move {
            let mut connection = Connection::new(socket, act, &options, &seen, open > options.max_clients);
            tokio::select! {
                _ = connection.serve() => {}
                () = killed.cancelled() => {}
            }
            drop(connection);
            seen.open.fetch_sub(1, SeqCst);
        });
    }
}

struct Connection<'a> {
    socket: TcpStream,
    peer: SocketAddr,
    act: Act,
    options: &'a Options,
    seen: &'a Seen,
    too_many: bool,
    /// By track: where media goes.
    sinks: HashMap<String, Sink>,
    playing: bool,
    sent: usize,
    sequence: HashMap<String, u16>,
    ssrc: u32,
    clock: u32,
}

enum Sink {
    Channel(u8),
    Udp(UdpSocket),
}

struct Request {
    method: String,
    url: String,
    headers: HashMap<String, String>,
}

const NONCE: &str = "0123456789abcdef";
const REALM: &str = "IP Camera(E0001)";

impl<'a> Connection<'a> {
    fn new(socket: TcpStream, act: Act, options: &'a Options, seen: &'a Seen, too_many: bool) -> Self {
        let peer = socket.peer_addr().unwrap();
        // Each session counts from somewhere else.
        let clock = (u32::MAX - 90_000).wrapping_add(u32::from(peer.port()) * 16);
        Self {
            socket,
            peer,
            act,
            options,
            seen,
            too_many,
            sinks: HashMap::new(),
            playing: false,
            sent: 0,
            sequence: HashMap::new(),
            ssrc: 0xcafe_0000,
            clock,
        }
    }

    async fn serve(&mut self) -> std::io::Result<()> {
        if matches!(self.act, Act::CloseAtOnce) {
            return Ok(());
        }
        let mut buffer = Vec::new();
        let mut ticks = tokio::time::interval(self.options.interval);
        loop {
            tokio::select! {
                read = self.socket.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(request) = take_request(&mut buffer) {
                        if !self.answer(&request).await? {
                            return Ok(());
                        }
                    }
                }
                _ = ticks.tick(), if self.playing => {
                    if !self.picture().await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Answers; false closes the connection.
    async fn answer(&mut self, request: &Request) -> std::io::Result<bool> {
        let Request { method, url, headers } = request;
        let track = url.rsplit('/').next().unwrap_or_default().to_owned();
        self.seen.requests.lock().unwrap().push((method.clone(), track.clone()));
        let cseq = headers.get("cseq").cloned().unwrap_or_default();
        let refused = match self.act {
            Act::Hang(at) if at == method => return Ok(true),
            Act::CloseAt(at) if at == method => return Ok(false),
            Act::Refuse(at, status) if at == method => Some(status),
            _ if self.too_many => {
                self.seen.refused.fetch_add(1, SeqCst);
                Some(453)
            }
            _ if !self.authorized(request) => Some(401),
            _ => None,
        };
        let (status, more, body) = match (refused, method.as_str()) {
            (Some(401), _) => {
                let challenge = format!(
                    "WWW-Authenticate: Digest realm=\"{REALM}\", nonce=\"{NONCE}\", stale=\"FALSE\"\r\n\
                     WWW-Authenticate: Basic realm=\"{REALM}\"\r\n"
                );
                (401, challenge, String::new())
            }
            (Some(status), _) => (status, String::new(), String::new()),
            (None, "DESCRIBE") => {
                let sdp = format!("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=camera\r\nt=0 0\r\n{}", self.options.media);
                (200, format!("Content-Type: application/sdp\r\nContent-Base: {url}/\r\n"), sdp)
            }
            (None, "SETUP") => match self.set_up(&track, headers.get("transport").map_or("", String::as_str)).await? {
                Some(transport) => (200, format!("Session:        77;timeout=60\r\n{transport}"), String::new()),
                None => (461, String::new(), String::new()),
            },
            (None, "PLAY") => {
                self.playing = true;
                (200, "Session: 77\r\n".to_owned(), String::new())
            }
            (None, _) => (200, String::new(), String::new()),
        };
        let mut answer = format!("RTSP/1.0 {status} x\r\nCSeq: {cseq}\r\n{more}");
        if !body.is_empty() {
            write!(answer, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        answer += "\r\n";
        answer += &body;
        self.socket.write_all(answer.as_bytes()).await?;
        Ok(method != "TEARDOWN")
    }

    /// RFC 2069 Digest, as the family does it.
    fn authorized(&self, request: &Request) -> bool {
        let Some((user, password)) = self.options.login else { return true };
        let Some(authorization) = request.headers.get("authorization") else { return false };
        let ha1 = md5(&format!("{user}:{REALM}:{password}"));
        let ha2 = md5(&format!("{}:{}", request.method, request.url));
        authorization.contains(&format!("response=\"{}\"", md5(&format!("{ha1}:{NONCE}:{ha2}"))))
    }

    async fn set_up(&mut self, track: &str, transport: &str) -> std::io::Result<Option<String>> {
        let parameter = |name: &str| {
            let value = transport.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
            value.split('-').next()?.parse::<u16>().ok()
        };
        let (sink, answer) = if transport.contains("TCP") {
            if !self.options.tcp {
                return Ok(None);
            }
            let channel = parameter("interleaved").unwrap();
            let answer = format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1);
            (Sink::Channel(channel as u8), answer)
        } else {
            let port = parameter("client_port").unwrap();
            let socket = UdpSocket::bind((self.socket.local_addr()?.ip(), 0)).await?;
            socket.connect((self.peer.ip(), port)).await?;
            let own = socket.local_addr()?.port();
            let answer =
                format!("RTP/AVP;unicast;client_port={port}-{};server_port={own}-{}", port + 1, own.wrapping_add(1));
            (Sink::Udp(socket), answer)
        };
        self.sinks.insert(track.to_owned(), sink);
        Ok(Some(format!("Transport: {answer}\r\n")))
    }

    /// Sends the next picture and the sound that goes with it; false closes the connection.
    async fn picture(&mut self) -> std::io::Result<bool> {
        match self.act {
            Act::SilentAfter(pictures) if self.sent >= pictures => return Ok(true),
            Act::CloseAfter(pictures) if self.sent >= pictures => return Ok(false),
            Act::JumpAfter(pictures, by) if self.sent == pictures => self.clock = self.clock.wrapping_add_signed(by),
            Act::StartOverAfter(pictures) if self.sent == pictures => {
                self.ssrc += 0x100;
                self.sequence.clear();
                self.clock = 0;
            }
            _ => {}
        }
        let pictures = pictures();
        let index = match self.act {
            Act::NoKeys => 1 + self.sent % 24,
            _ => self.sent % pictures.len(),
        };
        let lost = matches!(self.act, Act::LoseEvery(nth) if self.sent % nth == nth - 1);
        self.sent += 1;
        let (clock, nals) = (self.clock, &pictures[index]);
        self.clock = self.clock.wrapping_add(3_600);
        let blind = matches!(self.act, Act::SoundAfter(pictures) if self.sent > pictures);
        for (position, nal) in nals.iter().enumerate().filter(|_| !blind) {
            for (payload, last) in fragments(nal) {
                let mark = last && position + 1 == nals.len();
                self.send("trackID=0", 96, mark, clock, &payload, lost).await?;
            }
        }
        if self.sinks.contains_key("trackID=1") {
            // 40 ms of silence.
            self.send("trackID=1", 0, false, clock / 90 * 8, &[0xff; 320], false).await?;
        }
        Ok(true)
    }

    async fn send(
        &mut self,
        track: &str,
        payload_type: u8,
        mark: bool,
        clock: u32,
        payload: &[u8],
        lost: bool,
    ) -> std::io::Result<()> {
        let Some(sink) = self.sinks.get(track) else { return Ok(()) };
        let sequence = self.sequence.entry(track.to_owned()).or_insert(0xfff0);
        *sequence = sequence.wrapping_add(1);
        if lost {
            return Ok(());
        }
        let mut packet = vec![0x80, payload_type | u8::from(mark) << 7];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&clock.to_be_bytes());
        packet.extend_from_slice(&(self.ssrc + u32::from(payload_type)).to_be_bytes());
        packet.extend_from_slice(payload);
        match sink {
            Sink::Channel(channel) => {
                let mut framed = vec![b'$', *channel];
                framed.extend_from_slice(&(packet.len() as u16).to_be_bytes());
                framed.extend_from_slice(&packet);
                self.socket.write_all(&framed).await
            }
            // A viewer that is gone is no error of the camera's.
            Sink::Udp(socket) => socket.send(&packet).await.map(drop).or(Ok(())),
        }
    }
}

/// Takes a whole request from the front of what was read; interleaved frames are dropped.
fn take_request(buffer: &mut Vec<u8>) -> Option<Request> {
    while let [b'$', _, high, low, ..] = buffer[..] {
        let end = 4 + usize::from(u16::from_be_bytes([high, low]));
        if buffer.len() < end {
            return None;
        }
        buffer.drain(..end);
    }
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, url) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some(Request { method, url, headers })
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// The NAL units of each picture of the test clip.
fn pictures() -> Vec<Vec<&'static [u8]>> {
    let clip = include_bytes!("../../data/baseline-192x144-25fps-gop25.h264");
    let mut pictures = vec![Vec::new()];
    for nal in annex_b::nal_units(clip) {
        pictures.last_mut().unwrap().push(nal);
        if matches!(nal[0] & 0x1f, 1 | 5) {
            pictures.push(Vec::new());
        }
    }
    pictures.pop();
    pictures
}

/// RTP payloads of a NAL unit: itself, or FU-A fragments (RFC 6184 section 5.8), and whether it is the last.
fn fragments(nal: &[u8]) -> Vec<(Vec<u8>, bool)> {
    const MOST: usize = 1_000;
    if nal.len() <= MOST {
        return vec![(nal.to_vec(), true)];
    }
    let chunks: Vec<_> = nal[1..].chunks(MOST).collect();
    let last = chunks.len() - 1;
    let fragment = |(index, chunk): (usize, &&[u8])| {
        let flags = u8::from(index == 0) << 7 | u8::from(index == last) << 6;
        let mut payload = vec![nal[0] & 0xe0 | 28, flags | nal[0] & 0x1f];
        payload.extend_from_slice(chunk);
        (payload, index == last)
    };
    chunks.iter().enumerate().map(fragment).collect()
}
