//! Who says what when.
//!
//! | state  | what it does | what ends it |
//! |--------|--------------|--------------|
//! | search | searches at 0, 0.3, 1, 2 and 5 s; from 2 s on also listens where answers to broadcasts go | an answer: login · 8 s: the session ends, and the next begins after the supervisor's back-off |
//! | login  | closes the session before, if there was one; two logins 20 ms apart, each second | accepted: start · other ids: once more with these · full: again and again for 12 s · 5 unanswered: a failed attempt · 3 of those, or the token refused: the session ends |
//! | start  | two live requests 20 ms apart, each half second, four times | media or an answer: live · 2.5 s: login |
//! | live   | a live request every 2 s, two if the last had no answer; each second after 3 s without pictures | 6 s without pictures: login from the same port · 15 s: search · closed by the camera: login |
//! | stop   | live off twice, close twice, 15 ms apart | an answer, or 300 ms |
//!
//! Times are those of the vendor's app and of two clients known to work. A camera lets go of a client that it has not
//! heard for 6 s.

mod memory;
#[cfg(test)]
mod tests;

pub use memory::Memory;

use super::receiver::{NotJpeg, Receiver};
use super::wire::{
    Control, Found, LIVE_AUDIO, LIVE_VIDEO, Login, LoginAnswer, LoginResult, Media, Message, Notice, Request, TEG,
};
use super::{CLOUD_NAMES, CLOUD_PORTS, Config};
use crate::bus::{Command, CommandError, ReasonCode};
use crate::ingest::session::{CommandId, Endpoint, Link, Output, Session, SessionError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Searches go out and answers come in here, at any port.
const SEARCH: Link = Link(0);
/// Where answers to broadcasts go: some cameras answer only there (V).
const LISTEN: Link = Link(1);
/// Everything else, at a port that stays the same.
const MEDIA: Link = Link(2);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SEARCHES: [Duration; 5] = [ms(0), ms(300), ms(1_000), ms(2_000), ms(5_000)];
const LISTEN_AFTER: Duration = ms(2_000);
const SEARCH_LIMIT: Duration = ms(8_000);
/// Between the two copies of a login or live request.
const COPY: Duration = ms(20);
/// Between the two copies of a goodbye.
const GOODBYE_COPY: Duration = ms(15);
const LOGIN_EVERY: Duration = ms(1_000);
const LOGIN_ROUNDS: u32 = 5;
/// Attempts to log in, or to get media after a login.
const ATTEMPTS: u32 = 3;
/// Login is repeated so often while all places are taken: a place that times out is ours within 2 s.
const FULL_EVERY: Duration = ms(1_500);
/// Twice what a camera needs to notice that its client is gone.
const FULL_LIMIT: Duration = ms(12_000);
/// Ids that are refused with others again, so many times.
const MOST_IDS: u32 = 3;
const LIVE_EVERY: Duration = ms(500);
const LIVE_ROUNDS: u32 = 4;
const START_LIMIT: Duration = ms(2_500);
const KEEPALIVE: Duration = ms(2_000);
const QUIET: Duration = ms(3_000);
const RESEND: Duration = ms(1_000);
const SILENT: Duration = ms(6_000);
const GONE: Duration = ms(15_000);
/// Pauses before the login after the camera closed the session once, twice, three times within [`KICKS_WITHIN`].
const KICKED: [Duration; 3] = [ms(0), ms(1_000), ms(3_000)];
const KICKS_WITHIN: Duration = ms(30_000);
const GOODBYE: Duration = ms(300);

/// What is wanted of a camera.
const WANTED: u32 = LIVE_VIDEO | LIVE_AUDIO;

/// A session with an IWFCam camera.
#[derive(Debug)]
pub struct Iwfcam {
    config: Config,
    memory: Memory,
    out: VecDeque<Output>,
    state: State,
    /// Where the camera is, and its port for all but searches.
    camera: Option<SocketAddrV4>,
    /// Where it sends to.
    local: Option<SocketAddrV4>,
    /// The number that all messages to the camera quote.
    session: Option<u32>,
    /// Datagrams to the camera that are due later, in the order of their times.
    later: VecDeque<(Instant, Bytes)>,
    receiver: Receiver,
    /// Attempts that came to nothing since there were pictures.
    failed: u32,
    /// Times that the camera named its ids.
    ids_named: u32,
    /// A refusal without a known meaning.
    refusal: Option<LoginResult>,
    /// When the last picture came, once the camera is silent.
    lost: Option<Instant>,
    /// Searches since there were pictures.
    searches: u32,
    /// How often the camera closed the session lately, and when it last did.
    kicks: (usize, Option<Instant>),
    wake: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Search {
        /// When its socket was open.
        since: Option<Instant>,
        sent: usize,
        listening: bool,
    },
    /// The socket for the camera is not open yet.
    Opening,
    Login {
        next: Instant,
        round: u32,
        /// Since when all places are taken.
        full: Option<Instant>,
    },
    Start {
        since: Instant,
        next: Instant,
        round: u32,
    },
    Live {
        keepalive: Instant,
        /// The last live request was answered.
        answered: bool,
        /// When the last piece of a picture came.
        heard: Instant,
        resend: Instant,
    },
    Stop {
        until: Instant,
        /// Why the session ends, if nobody asked for it.
        error: Option<SessionError>,
    },
    Done,
}

impl Iwfcam {
    /// A session with the camera of `config`, of which `memory` knows what earlier sessions learnt.
    pub fn new(config: Config, memory: Memory, now: Instant) -> Self {
        let receiver = Receiver::new(config.retransmission, memory.now().has_sound, now);
        let mut session = Self {
            config,
            memory,
            out: VecDeque::new(),
            state: State::Done,
            camera: None,
            local: None,
            session: None,
            later: VecDeque::new(),
            receiver,
            failed: 0,
            ids_named: 0,
            refusal: None,
            lost: None,
            searches: 0,
            kicks: (0, None),
            wake: None,
        };
        session.search();
        session
    }

    fn search(&mut self) {
        self.searches += 1;
        (self.lost, self.failed, self.ids_named) = (None, 0, 0);
        // The memory keeps the number, so that the next login closes what is left of this session.
        (self.session, self.local) = (None, None);
        self.later.clear();
        self.out.push_back(Output::Close(MEDIA));
        self.open(SEARCH, 0, self.config.address.map(|ip| SocketAddrV4::new(ip, self.config.discovery_port)), false);
        self.state = State::Search { since: None, sent: 0, listening: false };
    }

    fn open(&mut self, link: Link, port: u16, toward: Option<SocketAddrV4>, shared: bool) {
        let local = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        self.out.push_back(Output::Open(link, Endpoint::Udp { local, toward: toward.map(Into::into), shared }));
    }

    /// Searches where the camera may be.
    fn send_search(&mut self) {
        let mut targets = Vec::with_capacity(3);
        targets.extend(self.config.address);
        if self.config.uid.is_some() {
            targets.extend([Some(self.config.broadcast), self.memory.now().address].into_iter().flatten());
        }
        targets.dedup();
        let bytes = Bytes::from(TEG.search());
        for ip in targets {
            let to = Some(SocketAddr::from((ip, self.config.discovery_port)));
            self.out.push_back(Output::Send { via: SEARCH, to, bytes: bytes.clone() });
        }
    }

    /// Whether that answer is our camera's; its port for the rest then.
    fn is_ours(&self, found: &Found, from: SocketAddrV4) -> Option<u16> {
        let ours = match (&self.config.uid, self.config.address) {
            (Some(uid), _) => found.uid.eq_ignore_ascii_case(uid),
            (None, address) => address == Some(*from.ip()),
        };
        let announced = Some(found.media_port).filter(|port| *port != 0);
        // G takes the source port then, unless that is the one for searches.
        let source = Some(from.port()).filter(|port| *port != self.config.discovery_port);
        self.config.media_port.or(announced).or(source).filter(|_| ours)
    }

    fn found(&mut self, camera: SocketAddrV4) {
        self.camera = Some(camera);
        self.out.extend([Output::Close(SEARCH), Output::Close(LISTEN)]);
        self.memory.change(|memory| memory.address = Some(*camera.ip()));
        let port = self.memory.now().port.unwrap_or_else(|| memory::first_port(&self.config.name()));
        self.open(MEDIA, port, Some(camera), false);
        self.state = State::Opening;
    }

    /// Sends to the camera now.
    fn send(&mut self, bytes: Bytes) {
        let to = self.camera.map(SocketAddr::from);
        self.out.push_back(Output::Send { via: MEDIA, to, bytes });
    }

    fn request(&mut self, request: Request) -> Option<Bytes> {
        Some(request.write(TEG, self.session?).into())
    }

    /// Sends two copies, as cameras miss datagrams.
    fn send_twice(&mut self, bytes: Bytes, now: Instant) {
        self.send(bytes.clone());
        self.later.push_back((now + COPY, bytes));
    }

    fn log_in(&mut self, next: Instant) {
        self.state = State::Login { next, round: 0, full: None };
    }

    fn send_login(&mut self, now: Instant) {
        let Some(local) = self.local else { return };
        let public = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let login = Login { ids: self.memory.now().ids, public, local, token: self.config.wire_token() };
        self.send_twice(login.write(TEG).into(), now);
    }

    /// Goes on after an attempt that came to nothing.
    fn attempt_failed(&mut self, now: Instant, silent: &str) -> Result<(), SessionError> {
        self.failed += 1;
        if self.failed < ATTEMPTS {
            self.log_in(now);
            return Ok(());
        }
        let name = self.config.name();
        let error = match self.refusal {
            Some(LoginResult::WrongIds) => {
                let text = format!("{name} refuses the ids that it names itself");
                SessionError::new(ReasonCode::Unsupported, text)
            }
            Some(LoginResult::Other(number)) => {
                let text = format!("{name} refuses to let us in, for an unknown reason (number {number})");
                SessionError::new(ReasonCode::Unsupported, text)
            }
            _ => SessionError::new(ReasonCode::Silent, format!("{name} {silent}")),
        };
        self.fail(error, now)
    }

    /// Ends the session with an error, but says goodbye first if the camera holds a place for us.
    fn fail(&mut self, error: SessionError, now: Instant) -> Result<(), SessionError> {
        if self.session.is_none() || self.local.is_none() {
            self.state = State::Done;
            return Err(error);
        }
        self.goodbye(Some(error), now);
        Ok(())
    }

    fn goodbye(&mut self, error: Option<SessionError>, now: Instant) {
        self.later.clear();
        let (off, close) = (self.request(Request::Live(0)), self.request(Request::Close));
        let copies = off.iter().chain(&off).chain(&close).chain(&close).cloned();
        for (copy, bytes) in (0..).zip(copies) {
            self.later.push_back((now + GOODBYE_COPY * copy, bytes));
        }
        self.state = State::Stop { until: now + GOODBYE, error };
    }

    fn finish(&mut self) -> Result<(), SessionError> {
        self.later.clear();
        match std::mem::replace(&mut self.state, State::Done) {
            State::Stop { error: Some(error), .. } => Err(error),
            _ => {
                self.out.push_back(Output::Done);
                Ok(())
            }
        }
    }

    /// The answer to a login.
    fn login_answer(&mut self, answer: &LoginAnswer, now: Instant) -> Result<(), SessionError> {
        let State::Login { next, round, full } = &mut self.state else {
            // The copy's answer, or a late one.
            if let State::Start { .. } = self.state
                && let (LoginResult::Accepted, Ok(session @ 1..)) = (answer.result, u32::try_from(answer.session))
            {
                self.session = Some(session);
            }
            return Ok(());
        };
        if *round == 0 && full.is_none() {
            // None was sent: it is the answer to one of an earlier attempt.
            return Ok(());
        }
        self.refusal = Some(answer.result);
        match answer.result {
            LoginResult::Accepted => {
                // Not above 0 is "closed": the next round asks again.
                if let Ok(session @ 1..) = u32::try_from(answer.session) {
                    self.logged_in(session, answer, now);
                }
            }
            LoginResult::WrongIds => {
                // The answer to the copy, with the ids that are being quoted already, says nothing new.
                if answer.ids != self.memory.now().ids && self.ids_named < MOST_IDS {
                    self.ids_named += 1;
                    self.memory.change(|memory| memory.ids = answer.ids);
                    self.later.clear();
                    self.log_in(now);
                }
            }
            LoginResult::Full => {
                let since = *full.get_or_insert(now);
                (*next, *round) = (now + FULL_EVERY, 0);
                self.later.clear();
                if now >= since + FULL_LIMIT {
                    return self.full(now);
                }
            }
            LoginResult::WrongToken => {
                let name = self.config.name();
                let text = format!(
                    "{name} refuses the token: if a password is set in its app, give `token` the 12 hexadecimal digits \
                     that the app sends"
                );
                return self.fail(SessionError::new(ReasonCode::Denied, text), now);
            }
            LoginResult::Other(_) => {}
        }
        Ok(())
    }

    fn full(&mut self, now: Instant) -> Result<(), SessionError> {
        let text = format!(
            "{} has no place for us: close its app, and whatever else watches it, such as a second gateway",
            self.config.name()
        );
        self.fail(SessionError::new(ReasonCode::Busy, text), now)
    }

    fn logged_in(&mut self, session: u32, answer: &LoginAnswer, now: Instant) {
        self.session = Some(session);
        // A second copy of the login would take the pictures away again (V).
        self.later.clear();
        self.receiver.clear();
        self.refusal = None;
        let warned = self.memory.now().warned;
        let called_home = answer.ids.0 != [0; 3];
        self.memory.change(|memory| {
            memory.session = Some(session);
            memory.warned = true;
            if called_home {
                memory.ids = answer.ids;
            }
        });
        let (camera, clients) = (self.config.name(), answer.clients);
        tracing::debug!(camera, name = answer.name, session, clients, "logged in");
        if !warned {
            let address = self.camera.map(|camera| camera.ip().to_string()).unwrap_or_default();
            let was = if called_home { "has called home before (it has a number from there)" } else { "calls home" };
            tracing::warn!(
                "this camera {was} whenever it can, to {} and others by UDP ports {} and {}: block {address} from the \
                 internet in the router; nothing here needs that",
                CLOUD_NAMES.join(", "),
                CLOUD_PORTS[0],
                CLOUD_PORTS[1],
            );
        }
        self.start(now);
    }

    fn start(&mut self, now: Instant) {
        self.state = State::Start { since: now, next: now, round: 0 };
    }

    fn live(&mut self, now: Instant) {
        self.state = State::Live { keepalive: now + KEEPALIVE, answered: true, heard: now, resend: now + QUIET };
    }

    fn media(&mut self, piece: &Media<'_>, now: Instant) -> Result<(), SessionError> {
        if let State::Login { round: 2.., .. } = self.state
            && piece.session > 0
        {
            // It does not answer but sends: the number is all that was needed.
            tracing::debug!(session = piece.session, "media without an answer to the login");
            self.session = Some(piece.session);
            self.memory.change(|memory| memory.session = Some(piece.session));
            self.later.clear();
            self.receiver.clear();
            self.start(now);
        }
        if self.session != Some(piece.session) {
            // Of a session before ours, or of somebody else's.
            return Ok(());
        }
        if matches!(self.state, State::Start { .. }) {
            self.live(now);
        }
        let State::Live { heard, .. } = &mut self.state else { return Ok(()) };
        if piece.stream == super::wire::MediaStream::Video {
            *heard = now;
            (self.failed, self.lost, self.searches) = (0, None, 0);
        }
        self.receiver.media(piece, now, &mut self.out).or_else(|NotJpeg| self.not_jpeg(now))
    }

    fn not_jpeg(&mut self, now: Instant) -> Result<(), SessionError> {
        let text = format!(
            "{} sends H.264: of this family only cameras that send JPEG pictures are supported",
            self.config.name()
        );
        self.fail(SessionError::new(ReasonCode::Unsupported, text), now)
    }

    /// The camera wants something.
    fn control(&mut self, control: &Control<'_>, now: Instant) -> Result<(), SessionError> {
        let ours = self.session == Some(control.session);
        if control.notice() != Some(Notice::Close) || !ours {
            return Ok(());
        }
        let heard = match self.state {
            State::Start { .. } => now,
            State::Live { heard, .. } => heard,
            _ => return Ok(()),
        };
        self.session = None;
        self.memory.change(|memory| memory.session = None);
        self.later.clear();
        let lately = self.kicks.1.is_some_and(|last| now < last + KICKS_WITHIN);
        let before = if lately { self.kicks.0 } else { 0 };
        self.kicks = (before + 1, Some(now));
        self.lost.get_or_insert(heard);
        match KICKED.get(before) {
            Some(pause) => {
                tracing::debug!("the camera closed the session");
                self.log_in(now + *pause);
                Ok(())
            }
            None => {
                let text = format!(
                    "{} ends the session again and again: something else watches it, such as its app or a second gateway",
                    self.config.name()
                );
                self.fail(SessionError::new(ReasonCode::Busy, text), now)
            }
        }
    }

    /// The camera answers a control command.
    fn control_answer(&mut self, answer: &Control<'_>, now: Instant) -> Result<(), SessionError> {
        if self.session != Some(answer.session) {
            return Ok(());
        }
        match &mut self.state {
            State::Stop { .. } if answer.is_close() => {
                self.memory.change(|memory| memory.session = None);
                return self.finish();
            }
            State::Start { .. } if answer.live_bits().is_some_and(|bits| bits & LIVE_VIDEO != 0) => {
                if let Some(format) = answer.live_format() {
                    tracing::debug!(?format, "live");
                }
                self.live(now);
            }
            State::Live { answered, .. } => *answered |= answer.live_bits().is_some(),
            _ => {}
        }
        Ok(())
    }

    /// Does what is due by now, and works out when the next thing is.
    fn step(&mut self, now: Instant) -> Result<(), SessionError> {
        loop {
            while self.later.front().is_some_and(|(at, _)| *at <= now) {
                let due = self.later.pop_front();
                due.into_iter().for_each(|(_, bytes)| self.send(bytes));
            }
            if !self.step_state(now)? {
                break;
            }
        }
        let live = matches!(self.state, State::Live { .. });
        let media = if live { self.receiver.deadline(now) } else { None };
        let later = self.later.front().map(|(at, _)| *at);
        self.wake = [self.state_deadline(), later, media].into_iter().flatten().min();
        Ok(())
    }

    /// Does what the state has to do by now; says whether to look again.
    fn step_state(&mut self, now: Instant) -> Result<bool, SessionError> {
        if let (State::Start { .. } | State::Live { .. } | State::Login { .. }, Some(lost)) = (&self.state, self.lost)
            && now >= lost + GONE
        {
            if self.searches >= 2 {
                let text = format!("{} lets us in but sends no pictures", self.config.name());
                self.fail(SessionError::new(ReasonCode::Silent, text), now)?;
            } else {
                self.search();
            }
            return Ok(true);
        }
        match &mut self.state {
            State::Search { since: Some(since), sent, listening } => {
                let passed = now.saturating_duration_since(*since);
                let due = SEARCHES.iter().filter(|at| passed >= **at).count();
                if due > *sent {
                    *sent = due;
                    let listen = passed >= LISTEN_AFTER && !std::mem::replace(listening, passed >= LISTEN_AFTER);
                    if listen {
                        self.open(LISTEN, self.config.discovery_port, None, true);
                    }
                    self.send_search();
                }
                if passed < SEARCH_LIMIT {
                    return Ok(false);
                }
                match (self.config.address, self.config.media_port) {
                    (Some(ip), Some(port)) => self.found(SocketAddrV4::new(ip, port)),
                    _ => {
                        self.state = State::Done;
                        return Err(SessionError::new(ReasonCode::Unreachable, self.not_found()));
                    }
                }
            }
            State::Search { since: None, .. } | State::Opening | State::Done => return Ok(false),
            State::Login { next, round, full } => {
                if full.is_some_and(|since| now >= since + FULL_LIMIT) {
                    self.full(now)?;
                    return Ok(true);
                }
                if now < *next {
                    return Ok(false);
                }
                if *round == LOGIN_ROUNDS {
                    self.attempt_failed(now, "is there but does not answer logins")?;
                    return Ok(true);
                }
                (*next, *round) = (now + LOGIN_EVERY, *round + 1);
                self.send_login(now);
            }
            State::Start { since, next, round } => {
                if now >= *since + START_LIMIT {
                    self.attempt_failed(now, "lets us in but sends no pictures")?;
                    return Ok(true);
                }
                if *round == LIVE_ROUNDS || now < *next {
                    return Ok(false);
                }
                (*next, *round) = (now + LIVE_EVERY, *round + 1);
                let live = self.request(Request::Live(WANTED));
                live.into_iter().for_each(|bytes| self.send_twice(bytes, now));
            }
            State::Live { .. } => return self.step_live(now),
            State::Stop { until, .. } => {
                if now < *until {
                    return Ok(false);
                }
                self.finish()?;
            }
        }
        Ok(true)
    }

    fn step_live(&mut self, now: Instant) -> Result<bool, SessionError> {
        self.receiver.advance(now, &mut self.out).or_else(|NotJpeg| self.not_jpeg(now))?;
        let session = self.session.unwrap_or_default();
        if let Some(bytes) = self.receiver.request(session, now) {
            self.send(bytes.into());
        }
        let State::Live { keepalive, answered, heard, resend } = &mut self.state else { return Ok(true) };
        if now >= *heard + SILENT {
            self.lost.get_or_insert(*heard);
            self.later.clear();
            tracing::debug!("no pictures for {} s, so the login is repeated", SILENT.as_secs());
            self.log_in(now);
            return Ok(true);
        }
        let twice = if now >= *heard + QUIET && now >= *resend {
            *resend = now + RESEND;
            true
        } else if now >= *keepalive {
            !*answered
        } else {
            return Ok(false);
        };
        (*keepalive, *answered) = (now + KEEPALIVE, false);
        match self.request(Request::Live(WANTED)) {
            Some(live) if twice => self.send_twice(live, now),
            Some(live) => self.send(live),
            None => {}
        }
        Ok(true)
    }

    fn state_deadline(&self) -> Option<Instant> {
        let gone = self.lost.map(|lost| lost + GONE);
        let own = match &self.state {
            State::Search { since, sent, .. } => {
                return since.map(|since| since + SEARCHES.get(*sent).copied().unwrap_or(SEARCH_LIMIT));
            }
            State::Opening | State::Done => return None,
            State::Stop { until, .. } => return Some(*until),
            State::Login { next, full, .. } => full.map_or(*next, |since| (*next).min(since + FULL_LIMIT)),
            State::Start { since, next, round } => {
                let end = *since + START_LIMIT;
                if *round == LIVE_ROUNDS { end } else { end.min(*next) }
            }
            State::Live { keepalive, heard, resend, .. } => {
                (*keepalive).min(*heard + SILENT).min((*resend).max(*heard + QUIET))
            }
        };
        Some(gone.map_or(own, |gone| own.min(gone)))
    }

    fn not_found(&self) -> String {
        let port = self.config.discovery_port;
        match (&self.config.uid, self.config.address) {
            (Some(uid), _) => format!(
                "no camera with the UID {uid} answers a search of the local network (broadcast to UDP port {port})"
            ),
            (None, address) => format!(
                "{} does not answer a search (UDP port {port}): is the camera on, and is that still its address?",
                address.unwrap_or(Ipv4Addr::UNSPECIFIED)
            ),
        }
    }
}

/// The address as the protocol knows it.
fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Some(SocketAddrV4::new(ip, address.port())),
        IpAddr::V6(_) => None,
    }
}

impl Session for Iwfcam {
    fn opened(&mut self, via: Link, local: SocketAddr, now: Instant) -> Result<(), SessionError> {
        match (via, &mut self.state) {
            (SEARCH, State::Search { since, .. }) => *since = Some(now),
            (MEDIA, State::Opening) => {
                // What is written into the login is where the camera sends to.
                let local = v4(local).filter(|local| !local.ip().is_unspecified()).ok_or_else(|| {
                    let text = format!("no way leads to {}", self.config.name());
                    SessionError::new(ReasonCode::Unreachable, text)
                })?;
                self.local = Some(local);
                let before = self.memory.now().session;
                self.memory.change(|memory| memory.port = Some(local.port()));
                self.later.clear();
                if let Some(before) = before {
                    let close = Bytes::from(Request::Close.write(TEG, before));
                    self.send(close.clone());
                    self.later.push_back((now + GOODBYE_COPY, close));
                    self.log_in(now + GOODBYE_COPY * 2);
                } else {
                    self.log_in(now);
                }
            }
            _ => {}
        }
        self.step(now)
    }

    fn received(&mut self, via: Link, from: SocketAddr, bytes: &[u8], now: Instant) -> Result<(), SessionError> {
        let message = TEG.parse(bytes);
        let Some(from) = v4(from) else { return Ok(()) };
        match (via, message) {
            (_, Err(error)) => tracing::trace!(%from, %error, "a datagram that is none of the protocol's"),
            (SEARCH | LISTEN, Ok(Message::SearchAnswer(answer))) => {
                let searching = matches!(self.state, State::Search { since: Some(_), .. });
                let camera = answer.cameras.iter().find_map(|found| Some((self.is_ours(found, from)?, found.local)));
                if let Some((port, local)) = camera
                    && searching
                    && answer.valid
                {
                    if local != *from.ip() {
                        tracing::debug!(says = %local, from = %from.ip(), "the camera takes its address for another");
                    }
                    self.found(SocketAddrV4::new(*from.ip(), port));
                }
            }
            (MEDIA, Ok(message)) if self.camera.is_some_and(|camera| camera.ip() == from.ip()) => match message {
                Message::LoginAnswer(answer) => self.login_answer(&answer, now)?,
                Message::Media(piece) => self.media(&piece, now)?,
                Message::Control(control) => self.control(&control, now)?,
                Message::ControlAnswer(answer) => self.control_answer(&answer, now)?,
                Message::Search | Message::SearchAnswer(_) | Message::Login(_) | Message::Acknowledgement(_) => {}
            },
            _ => {}
        }
        let has_sound = self.receiver.has_sound();
        if has_sound.is_some() && has_sound != self.memory.now().has_sound {
            self.memory.change(|memory| memory.has_sound = has_sound);
        }
        self.step(now)
    }

    fn closed(&mut self, via: Link, why: &str, now: Instant) -> Result<(), SessionError> {
        if via == LISTEN {
            // Something that does not share the port has it; most cameras answer to the other socket too.
            tracing::debug!(why, "no answers to broadcasts can be heard");
            return self.step(now);
        }
        self.state = State::Done;
        Err(SessionError::new(ReasonCode::Unreachable, why))
    }

    fn timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        self.step(now)
    }

    fn command(&mut self, id: CommandId, _: Command, _: Instant) {
        let refused = CommandError::Refused("cameras of this family take no commands".to_owned());
        self.out.push_back(Output::Answer(id, Err(refused)));
    }

    fn close(&mut self, now: Instant) {
        match &mut self.state {
            // It is being left already; nobody waits for the reason any more.
            State::Stop { error, .. } => *error = None,
            State::Done => {}
            _ if self.session.is_some() && self.local.is_some() => self.goodbye(None, now),
            _ => {
                self.later.clear();
                self.state = State::Done;
                self.out.push_back(Output::Done);
            }
        }
        // Leaving does not fail: errors are for sessions that somebody still wants.
        let _ = self.step(now);
    }

    fn poll(&mut self) -> Output {
        self.out.pop_front().unwrap_or(Output::Wait(self.wake))
    }
}
