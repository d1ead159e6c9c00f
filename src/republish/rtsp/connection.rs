//! One RTSP connection: requests in, answers out, one session.

use super::message::{BadRequest, Incoming, Request, RequestReader, Response, Status};
use super::output::Output;
use super::sdp;
use super::server::Shared;
use super::shard::Shard;
use super::target::{Options, StartOption, Target};
use super::transport::{self, Transport};
use super::udp::{Alive, UdpPair};
use super::viewer::{Counts, Route, SlowLane, Viewer};
use crate::access::{RtspVerdict, User};
use crate::bus::{Device, Stream, TrackId};
use crate::media::{Kind, TrackInfo};
use crate::republish::rtp::{Feed, Item, Joined, Start, bye};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::net::TcpStream;
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
}

impl Peer {
    fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: Peer, cancel: CancellationToken) {
    shared.statistics.connections.fetch_add(1, Ordering::Relaxed);
    let span = tracing::info_span!("viewer", peer = %peer.address);
    let ending = cancel.clone();
    let output = Arc::new(Output::new(socket, cancel.child_token(), shared.options.patience));
    let mut connection = Connection {
        shared: Arc::clone(&shared),
        output,
        peer,
        alive: Arc::new(Alive::new()),
        described: None,
        session: None,
        user: None,
        paced_player: false,
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
    shared.statistics.connections.fetch_sub(1, Ordering::Relaxed);
}

struct Connection {
    shared: Arc<Shared>,
    output: Arc<Output>,
    peer: Peer,
    alive: Arc<Alive>,
    described: Option<Described>,
    session: Option<Session>,
    user: Option<Arc<User>>,
    /// The player paces itself by time stamps, so that it would stay as late as it starts.
    paced_player: bool,
}

/// What DESCRIBE told, or would have.
#[derive(Clone)]
struct Described {
    path: String,
    device: Arc<Device>,
    stream: Arc<Stream>,
    tracks: Vec<(TrackId, Arc<TrackInfo>)>,
    options: Options,
}

struct Session {
    id: String,
    source: Described,
    setups: Vec<(TrackId, Route)>,
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
    headers: Vec<(&'static str, String)>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, headers: Vec::new() }
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
            let silent_until = self.alive.last() + self.shared.options.session_timeout;
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
                    if self.alive.last() + self.shared.options.session_timeout <= Instant::now() {
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
            self.paced_player = ["GStreamer", "LibVLC", "VLC"].iter().any(|name| agent.contains(name));
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
            Err(Refusal { status, headers }) => {
                let response = headers
                    .iter()
                    .fold(Response::new(status, cseq), |response, (name, value)| response.header(name, value));
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
                Err(Refusal { status: Status::Unauthorized, headers })
            }
            RtspVerdict::Limited => {
                Err(Refusal { status: Status::Forbidden, headers: vec![("Retry-After", "10".into())] })
            }
        }
    }

    async fn handle(&mut self, request: &Request) -> Result<Option<Response>, Refusal> {
        if let Some(feature) = request.header("Require").filter(|_| request.method != "OPTIONS") {
            return Err(Refusal { status: Status::OptionNotSupported, headers: vec![("Unsupported", feature.into())] });
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
            "ANNOUNCE" | "RECORD" | "REDIRECT" => {
                Err(Refusal { status: Status::MethodNotAllowed, headers: vec![("Allow", PUBLIC.into())] })
            }
            _ => Err(Refusal { status: Status::NotImplemented, headers: vec![("Public", PUBLIC.into())] }),
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

    /// The stream that a target names, once it has a key picture.
    async fn source(&self, target: &Target) -> Result<Described, Refusal> {
        let known = || {
            let session = self.session.as_ref().map(|session| &session.source);
            session.into_iter().chain(&self.described)
        };
        if let Some(known) = known().find(|known| target.path.is_empty() || known.path == target.path)
            && !known.stream.ended().is_cancelled()
            && target.track.is_some()
        {
            return Ok(known.clone());
        }
        let path = match target.path.as_str() {
            "" => known().next().map(|known| known.path.clone()).ok_or(Status::NotFound)?,
            path => path.to_owned(),
        };
        let (device, stream) = self.shared.bus.stream(&path).ok_or(Status::NotFound)?;
        let wait = self.shared.options.ready_wait;
        match tokio::time::timeout(wait, stream.ready()).await {
            Ok(true) => {}
            Ok(false) => return Err(Status::NotFound.into()),
            Err(_) => {
                let reason = device.status().reason.map(|reason| reason.text);
                tracing::info!(path, reason, "no picture in time for a viewer");
                return Err(not_ready());
            }
        }
        let options = target.options;
        let tracks = stream.tracks();
        let tracks = tracks.into_iter().filter(|(_, info)| !(options.no_audio && info.kind() == Kind::Audio)).collect();
        Ok(Described { path, device, stream, tracks, options })
    }

    async fn describe(&mut self, request: &Request) -> Result<Response, Refusal> {
        let target = Target::parse(&request.uri);
        let source = self.source(&Target { track: None, ..target }).await?;
        let tracks = source.tracks.iter().enumerate().map(|(index, (_, info))| (index, &**info));
        let local = self.peer.local.ip().to_canonical();
        let body = sdp::describe(&source.path, tracks, local, rand::random::<u32>().into()).map_err(|error| {
            tracing::warn!(path = source.path, %error, "cannot describe the stream");
            not_ready()
        })?;
        let response = Response::new(Status::Ok, request.cseq())
            .header("Content-Base", &self.base(&request.uri, &source.path))
            .body("application/sdp", body);
        self.described = Some(source);
        Ok(response)
    }

    /// The stream's URL with a slash at the end, at the host that the client asked for.
    fn base(&self, uri: &str, path: &str) -> String {
        let authority = uri.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
        let host = authority.map(|authority| authority.rsplit('@').next().unwrap_or(authority));
        match host.filter(|host| !host.is_empty()) {
            Some(host) => format!("rtsp://{host}/{path}/"),
            None => {
                let local = SocketAddr::new(self.peer.local.ip().to_canonical(), self.peer.local.port());
                format!("rtsp://{local}/{path}/")
            }
        }
    }

    async fn setup(&mut self, request: &Request) -> Result<Response, Refusal> {
        if request.header("Session").is_some() {
            self.check_session(request)?;
        }
        if self.session.as_ref().is_some_and(|session| session.playing.is_some()) {
            return Err(Status::MethodNotValidInThisState.into());
        }
        let target = Target::parse(&request.uri);
        let mut source = self.source(&target).await?;
        if let Some(session) = &self.session
            && session.source.path != source.path
        {
            return Err(Status::MethodNotValidInThisState.into());
        }
        if let Some(described) = self.described.as_ref().filter(|described| described.path == source.path) {
            // The query of the DESCRIBE counts where the URL of the SETUP has lost it.
            let (asked, told) = (target.options, described.options);
            source.options.start = asked.start.or(told.start);
            source.tracks.clone_from(&described.tracks);
        }
        let done = |id: &TrackId| self.session.iter().flat_map(|session| &session.setups).any(|(known, _)| known == id);
        let track = match target.track {
            Some(index) => source.tracks.get(index),
            // One control URL for one track; with more, the next one that is not set up.
            None => source.tracks.iter().find(|(id, _)| !done(id)),
        };
        let &(track, _) = track.ok_or(Status::NotFound)?;
        let transport = transport::choose(request.all("Transport"), self.peer.udp.is_some());
        let route = transport.and_then(|transport| self.route(transport, track)).ok_or(Status::UnsupportedTransport)?;
        let text = match route {
            Route::Tcp { rtp, rtcp } => format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp};mode=\"PLAY\""),
            Route::Udp { rtp, rtcp } => {
                let (ours_rtp, ours_rtcp) = self.peer.udp.as_ref().map(|pair| pair.ports()).unwrap_or_default();
                let (theirs_rtp, theirs_rtcp) = (rtp.port(), rtcp.port());
                format!(
                    "RTP/AVP;unicast;client_port={theirs_rtp}-{theirs_rtcp};server_port={ours_rtp}-{ours_rtcp};mode=\"PLAY\""
                )
            }
        };
        let session = self.session.get_or_insert_with(|| Session {
            id: format!("{:016x}", rand::random::<u64>()),
            source,
            setups: Vec::new(),
            playing: None,
        });
        session.setups.retain(|(known, _)| *known != track);
        session.setups.push((track, route));
        Ok(self.with_session(Response::new(Status::Ok, request.cseq()).header("Transport", &text)))
    }

    /// The route that a transport means, if it fits the session's others.
    fn route(&self, transport: Transport, track: TrackId) -> Option<Route> {
        let setups = self.session.iter().flat_map(|session| &session.setups);
        let others: Vec<_> = setups.filter(|(id, _)| *id != track).map(|(_, route)| *route).collect();
        match transport {
            Transport::Tcp { rtp, rtcp } => {
                if others.iter().any(|route| matches!(route, Route::Udp { .. })) {
                    return None;
                }
                let taken = |channel: u8| {
                    others.iter().any(|route| match route {
                        Route::Tcp { rtp, rtcp } => *rtp == channel || *rtcp == channel,
                        Route::Udp { .. } => false,
                    })
                };
                let asked = rtp.zip(rtcp).filter(|(rtp, rtcp)| rtp != rtcp && !taken(*rtp) && !taken(*rtcp));
                let free = || (0..=126).map(|pair| (pair * 2, pair * 2 + 1)).find(|(a, b)| !taken(*a) && !taken(*b));
                let (rtp, rtcp) = asked.or_else(free)?;
                Some(Route::Tcp { rtp, rtcp })
            }
            Transport::Udp { rtp, rtcp } => {
                if others.iter().any(|route| matches!(route, Route::Tcp { .. })) {
                    return None;
                }
                // Media goes to the address that the connection comes from, whatever the header says.
                let ip = self.peer.address.ip();
                Some(Route::Udp { rtp: SocketAddr::new(ip, rtp), rtcp: SocketAddr::new(ip, rtcp) })
            }
        }
    }

    async fn play(&mut self, request: &Request) -> Result<Option<Response>, Refusal> {
        let paced_player = self.paced_player;
        let session = self.check_session(request)?;
        if session.setups.is_empty() {
            return Err(Status::MethodNotValidInThisState.into());
        }
        if session.playing.is_some() {
            let response = Response::new(Status::Ok, request.cseq()).header("Range", "npt=now-");
            return Ok(Some(self.with_session(response)));
        }
        let target = Target::parse(&request.uri);
        let start = target.options.start.or(session.source.options.start).unwrap_or(if paced_player {
            StartOption::Squeeze
        } else {
            StartOption::Key
        });
        let (source, setups) = (session.source.clone(), session.setups.clone());
        let hub = self.shared.hub(&source.stream).ok_or_else(not_ready)?;
        let feed = &hub.feed;
        let routes: Vec<_> = feed
            .tracks()
            .iter()
            .map(|track| setups.iter().find(|(id, _)| *id == track.id).map(|(_, route)| *route))
            .collect();
        if routes.iter().flatten().count() < setups.len() {
            // The camera came back with another codec between SETUP and PLAY.
            return Err(Status::SessionNotFound.into());
        }
        let wanted: Vec<_> = routes.iter().map(Option::is_some).collect();
        let joined = self.join(feed, start, &wanted).await;
        let udp_addresses = |route: &Route| match *route {
            Route::Udp { rtp, rtcp } => Some([rtp, rtcp]),
            Route::Tcp { .. } => None,
        };
        let udp_addresses: Vec<_> = routes.iter().flatten().filter_map(udp_addresses).flatten().collect();
        let udp = self.peer.udp.clone().filter(|_| !udp_addresses.is_empty());
        if let Some(pair) = &udp {
            pair.listen_for(udp_addresses, &self.alive);
        }
        let base = self.base(&request.uri, &source.path);
        let index_of = |id: TrackId| source.tracks.iter().position(|(known, _)| *known == id);
        let info: Vec<_> = feed
            .tracks()
            .iter()
            .zip(&joined.tracks)
            .filter(|(track, _)| setups.iter().any(|(id, _)| *id == track.id))
            .filter_map(|(track, start)| {
                let (index, seq, time) = (index_of(track.id)?, start.seq as u16, start.rtp_time);
                Some(format!("url={base}trackID={index};seq={seq};rtptime={time}"))
            })
            .collect();
        let response =
            Response::new(Status::Ok, request.cseq()).header("Range", "npt=now-").header("RTP-Info", &info.join(","));
        self.output.answer(self.with_session(response).into_bytes());

        let via = if udp.is_some() { "udp" } else { "tcp" };
        let viewer = Arc::new(Viewer {
            id: self.shared.viewer_id(),
            feed: Arc::clone(feed),
            output: Arc::clone(&self.output),
            udp: udp.map(|pair| (pair, self.peer.local.ip())),
            routes,
            stop: CancellationToken::new(),
            counts: Counts::default(),
        });
        self.output.admit(Some(viewer.id));
        let shard = hub.shard();
        source.device.viewers.rtsp.fetch_add(1, Ordering::Relaxed);
        self.shared.statistics.viewers.fetch_add(1, Ordering::Relaxed);
        tracing::info!(stream = source.path, via, ?start, "joined");
        shard.slow_lane(SlowLane::start(Arc::clone(&viewer), Arc::clone(&shard), joined));
        if let Some(session) = &mut self.session {
            session.playing = Some(Playing { viewer, shard, device: source.device, since: Instant::now() });
        }
        Ok(None)
    }

    /// Where to start; waits for a key picture if there is none, or if the next one was asked for.
    async fn join(&self, feed: &Feed, start: StartOption, wanted: &[bool]) -> Joined {
        let start = match start {
            StartOption::Key => Start::Key,
            StartOption::Squeeze => Start::Squeeze,
            StartOption::Live => Start::Live(feed.end()),
        };
        let mut head = feed.watch();
        let in_time = tokio::time::timeout(self.shared.options.ready_wait, async {
            loop {
                head.mark_unchanged();
                if let Some(joined) = feed.join(start, wanted) {
                    return Some(joined);
                }
                head.changed().await.ok()?;
            }
        });
        let joined = in_time.await.ok().flatten();
        joined.unwrap_or_else(|| feed.join(Start::Now, wanted).expect("starting at the end needs nothing"))
    }

    /// Tells the viewer that its stream is over, if its connection takes it at once.
    fn say_goodbye(&self) {
        let Some(playing) = self.session.as_ref().and_then(|session| session.playing.as_ref()) else { return };
        for (index, track) in playing.viewer.feed.tracks().iter().enumerate() {
            playing.viewer.deliver(&Item::Report(index, bye(track.ssrc)));
        }
    }

    fn stop_playing(&mut self) {
        let Some(playing) = self.session.as_mut().and_then(|session| session.playing.take()) else { return };
        self.output.admit(None);
        playing.viewer.stop.cancel();
        playing.shard.leave(&playing.viewer);
        playing.device.viewers.rtsp.fetch_sub(1, Ordering::Relaxed);
        let (units, dropped) = (
            playing.viewer.counts.units.load(Ordering::Relaxed),
            playing.viewer.counts.dropped.load(Ordering::Relaxed),
        );
        self.shared.statistics.units.fetch_add(units, Ordering::Relaxed);
        self.shared.statistics.dropped.fetch_add(dropped, Ordering::Relaxed);
        let seconds = playing.since.elapsed().as_secs();
        tracing::info!(units, dropped, seconds, "left");
    }

    /// Ends the session.
    fn stop(&mut self) {
        self.stop_playing();
        self.session = None;
    }
}

impl Session {
    fn plays_over_tcp(&self) -> bool {
        self.playing.is_some() && self.setups.iter().all(|(_, route)| matches!(route, Route::Tcp { .. }))
    }
}

fn not_ready() -> Refusal {
    Refusal { status: Status::ServiceUnavailable, headers: vec![("Retry-After", "5".into())] }
}
