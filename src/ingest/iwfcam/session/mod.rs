//! Who says what when.
//!
//! | state  | what it does | what ends it |
//! |--------|--------------|--------------|
//! | search | searches at 0, 0.3, 1, 2 and 5 s; from 2 s on also listens where answers to broadcasts go | an answer: login · 8 s: the session ends, and the next begins after the supervisor's back-off |
//! | login  | closes the session before, if there was one; two logins 20 ms apart, each second | accepted: start · other ids: once more with these · full: again and again for 12 s · 5 unanswered: a failed attempt · 3 of those, or the token refused: the session ends |
//! | start  | two live requests 20 ms apart, each half second, four times | media or an answer: live · 2.5 s: login |
//! | live   | a live request every 2 s, two if the last had no answer; each second after 3 s without pictures | 6 s without pictures: login from the same port, or a search if its `uid` is known: it may be elsewhere · 15 s: search · closed by the camera: login |
//! | stop   | live off twice, close twice, 15 ms apart | an answer, or 300 ms |
//!
//! Times are those of the vendor's app and of two clients known to work. A camera lets go of a client that it has not
//! heard for 6 s.

mod due;
mod heard;
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
/// Searches without a picture after the last of them.
const MOST_SEARCHES: u32 = 2;
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
        self.config.media_port.or(found.port(from, self.config.discovery_port)).filter(|_| ours)
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
