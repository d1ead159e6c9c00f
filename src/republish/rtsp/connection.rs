//! One RTSP connection: requests in, answers out, one session.

mod play;
mod setup;

use super::form::{Key, Served, Unserved};
use super::message::{BadRequest, Incoming, Request, RequestReader, Response, Status};
use super::output::{Output, Socket};
use super::server::Shared;
use super::shard::Shard;
use super::target::Options;
use super::udp::{Alive, UdpPair};
use super::viewer::{Route, Viewer};
use crate::access::{RtspVerdict, User};
use crate::bus::{Device, Stream};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How much is read at once.
const READ: usize = 4 << 10;
const PUBLIC: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";

/// Who is at the other end, and what serves it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Our address as the client sees it.
    pub(super) local: SocketAddr,
    /// The socket pair for media over UDP, if that is switched on.
    pub(super) udp: Option<Arc<UdpPair>>,
    /// Whether it speaks TLS: its URLs begin with `rtsps`.
    pub(super) secure: bool,
}

impl Peer {
    fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(shared: &Arc<Shared>, socket: Socket, peer: Peer, cancel: CancellationToken) {
    let span = tracing::info_span!("viewer", peer = %peer.address);
    let ending = cancel.clone();
    let output = Arc::new(Output::new(socket, cancel.child_token(), shared.options.patience));
    let mut connection = Connection {
        shared: Arc::clone(shared),
        output,
        peer,
        alive: Arc::new(Alive::new()),
        described: None,
        session: None,
        user: None,
        player: Player::default(),
        idle_since: Instant::now(),
    };
    async {
        connection.run().await;
        if ending.is_cancelled() {
            connection.say_goodbye();
        }
        connection.stop();
    }
    .instrument(span)
    .await;
}

struct Connection {
    shared: Arc<Shared>,
    output: Arc<Output>,
    peer: Peer,
    alive: Arc<Alive>,
    described: Option<Described>,
    session: Option<Session>,
    user: Option<Arc<User>>,
    player: Player,
    /// Since when there is no session: a connection is for one, whatever else it asks.
    idle_since: Instant,
}

/// What is to be known of a player, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Player {
    #[default]
    Other,
    /// Paces itself by time stamps, so that it would stay as late as it starts.
    Paced,
    /// Gives the first picture no time stamp.
    Ffmpeg,
}

impl Player {
    fn of(agent: &str) -> Self {
        let named = |names: &[&str]| names.iter().any(|name| agent.contains(name));
        if named(&["GStreamer", "LibVLC", "VLC"]) {
            Self::Paced
        } else if named(&["Lavf", "FFmpeg"]) {
            // Frigate calls itself "FFmpeg Frigate/0.16".
            Self::Ffmpeg
        } else {
            Self::Other
        }
    }
}

/// What DESCRIBE told, or would have.
#[derive(Clone)]
struct Described {
    path: String,
    device: Arc<Device>,
    stream: Arc<Stream>,
    tracks: Vec<Served>,
    options: Options,
}

struct Session {
    id: String,
    source: Described,
    setups: Vec<(Key, Route)>,
    playing: Option<Playing>,
}

struct Playing {
    viewer: Arc<Viewer>,
    shard: Arc<Shard>,
    device: Arc<Device>,
    since: Instant,
}

/// An answer other than success.
struct Refusal {
    status: Status,
    /// Why, for the player's log.
    words: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    fn with(status: Status, header: &'static str, value: impl Into<String>) -> Self {
        Self { status, words: String::new(), headers: vec![(header, value.into())] }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, words: String::new(), headers: Vec::new() }
    }
}

impl From<Unserved> for Refusal {
    fn from(unserved: Unserved) -> Self {
        match unserved {
            Unserved::NotReady(words) => not_ready(words),
            Unserved::NotAcceptable(words) => Self { status: Status::NotAcceptable, words, headers: Vec::new() },
            Unserved::Gone => Status::NotFound.into(),
        }
    }
}

impl Connection {
    async fn run(&mut self) {
        let mut reader = RequestReader::default();
        let closed = self.output.closed().clone();
        let mut users = self.shared.access.sessions_changed();
        loop {
            loop {
                match reader.read() {
                    Ok(None) => break,
                    Ok(Some(Incoming::Request(request))) => {
                        self.alive.touch();
                        tokio::select! {
                            () = self.request(&request) => {}
                            () = closed.cancelled() => return,
                        }
                    }
                    Ok(Some(Incoming::Interleaved { .. } | Incoming::Response)) => self.alive.touch(),
                    Err(error) => {
                        self.refuse_bad(&error);
                        if !error.recoverable {
                            self.output.flush().await;
                            return;
                        }
                    }
                }
                if !self.output.flush().await {
                    return;
                }
            }
            let alive = if self.session.is_some() { self.alive.last() } else { self.idle_since };
            let silent_until = alive + self.shared.options.session_timeout;
            let may_be_silent = self.session.as_ref().is_some_and(Session::plays_over_tcp);
            tokio::select! {
                readable = self.output.socket().readable() => {
                    if readable.is_err() {
                        return;
                    }
                }
                () = closed.cancelled() => return,
                changed = users.changed() => {
                    let valid = || self.shared.access.is_valid(self.peer.ip(), self.user.as_deref());
                    if changed.is_ok() && (self.session.is_none() || valid()) {
                        continue;
                    }
                    tracing::info!("the user was changed or removed, the session is closed");
                    self.say_goodbye();
                    return;
                }
                () = tokio::time::sleep_until(silent_until.into()), if !may_be_silent => {
                    // Datagrams may have been a sign of life since.
                    if self.session.is_none() || self.alive.last() + self.shared.options.session_timeout <= Instant::now() {
                        tracing::info!("no sign of life, the session is closed");
                        return;
                    }
                    continue;
                }
            }
            let buffer = reader.buffer();
            buffer.reserve(READ);
            match self.output.socket().try_read_buf(buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn refuse_bad(&self, error: &BadRequest) {
        tracing::debug!(%error, "a request that cannot be read");
        self.output.answer(Response::new(error.status, error.cseq.as_deref()).into_bytes());
    }

    async fn request(&mut self, request: &Request) {
        if let Some(agent) = request.header("User-Agent") {
            self.player = Player::of(agent);
        }
        let cseq = request.cseq();
        let result = match self.authorise(request).await {
            Ok(()) => self.handle(request).await,
            Err(refusal) => Err(refusal),
        };
        match result {
            // PLAY has answered already: its answer must come before its packets.
            Ok(None) => {}
            Ok(Some(response)) => self.output.answer(response.into_bytes()),
            Err(Refusal { status, words, headers }) => {
                let response =
                    headers.iter().fold(Response::saying(status, &words, cseq), |response, (name, value)| {
                        response.header(name, value)
                    });
                self.output.answer(response.into_bytes());
            }
        }
    }

    async fn authorise(&mut self, request: &Request) -> Result<(), Refusal> {
        // A nonce lives for minutes, a session for months: what only keeps or ends one's own session was allowed with
        // it, and players do not expect a challenge in the middle.
        let own = ["GET_PARAMETER", "SET_PARAMETER", "PAUSE", "TEARDOWN"].contains(&request.method.as_str());
        if request.method == "OPTIONS" || (own && self.session.is_some()) {
            return Ok(());
        }
        let access = &self.shared.access;
        let authorization = request.header("Authorization");
        match access.check_rtsp(self.peer.ip(), &request.method, &request.uri, authorization).await {
            RtspVerdict::Granted(user) => {
                self.user = user;
                Ok(())
            }
            RtspVerdict::Challenge { stale } => {
                let challenges = access.rtsp_challenges(stale);
                let headers = challenges.into_iter().map(|value| ("WWW-Authenticate", value)).collect();
                Err(Refusal { status: Status::Unauthorized, words: String::new(), headers })
            }
            RtspVerdict::Limited => Err(Refusal::with(Status::Forbidden, "Retry-After", "10")),
        }
    }

    async fn handle(&mut self, request: &Request) -> Result<Option<Response>, Refusal> {
        if let Some(feature) = request.header("Require").filter(|_| request.method != "OPTIONS") {
            return Err(Refusal::with(Status::OptionNotSupported, "Unsupported", feature));
        }
        let ok = || Response::new(Status::Ok, request.cseq());
        match request.method.as_str() {
            "OPTIONS" => Ok(Some(self.with_session(ok().header("Public", PUBLIC)))),
            "DESCRIBE" => self.describe(request).await.map(Some),
            "SETUP" => self.setup(request).await.map(Some),
            "PLAY" => self.play(request).await,
            "PAUSE" => {
                self.check_session(request)?;
                self.stop_playing();
                Ok(Some(self.with_session(ok())))
            }
            "TEARDOWN" => {
                self.check_session(request)?;
                self.stop();
                Ok(Some(ok()))
            }
            // Keepalives; there are no parameters to get or set.
            "GET_PARAMETER" | "SET_PARAMETER" => {
                if request.header("Session").is_some() {
                    self.check_session(request)?;
                }
                Ok(Some(self.with_session(ok())))
            }
            "ANNOUNCE" | "RECORD" | "REDIRECT" => Err(Refusal::with(Status::MethodNotAllowed, "Allow", PUBLIC)),
            _ => Err(Refusal::with(Status::NotImplemented, "Public", PUBLIC)),
        }
    }

    fn with_session(&self, response: Response) -> Response {
        let timeout = self.shared.options.session_timeout.as_secs();
        match &self.session {
            Some(session) => response.header("Session", &format!("{};timeout={timeout}", session.id)),
            None => response,
        }
    }

    /// The session that the request names, which must be ours.
    fn check_session(&mut self, request: &Request) -> Result<&mut Session, Refusal> {
        let named = request.header("Session").map(|value| value.split(';').next().unwrap_or_default().trim());
        match &mut self.session {
            Some(session) if named.is_none_or(|id| id == session.id) => Ok(session),
            _ => Err(Status::SessionNotFound.into()),
        }
    }
}

impl Session {
    fn plays_over_tcp(&self) -> bool {
        self.playing.is_some() && self.setups.iter().all(|(_, route)| matches!(route, Route::Tcp { .. }))
    }
}

/// Says why, if that is known.
fn not_ready(words: String) -> Refusal {
    Refusal { words, ..Refusal::with(Status::ServiceUnavailable, "Retry-After", "5") }
}
