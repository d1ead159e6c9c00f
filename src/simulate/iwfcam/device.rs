//! The camera's side of the protocol without I/O: datagrams and time go in, datagrams come out.

use super::Options;
use crate::ingest::iwfcam::wire::{
    Acknowledgement, Answer, Control, Found, Item, LIVE_AUDIO, LIVE_VIDEO, LiveFormat, Login, LoginAnswer, LoginResult,
    Media, MediaStream, Message, Notice, PictureHead, Policy, Request, SearchAnswer, TEG, Token, policy,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// A live client that was not heard for so long is dropped (V).
pub const LIVE_LIMIT: Duration = Duration::from_secs(6);
/// And one that has no media (V).
const IDLE_LIMIT: Duration = Duration::from_secs(45);
/// Pictures kept for whoever asks for pieces again.
const KEPT: usize = 64;

/// Which of its two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Searches.
    Discovery,
    /// Login, control and media.
    Media,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// From which port.
    pub from: Port,
    /// To whom.
    pub to: SocketAddrV4,
    /// What.
    pub bytes: Vec<u8>,
    /// A piece of media: its session, stream, number, fragment and how many there are.
    pub piece: Option<Piece>,
}

/// Which piece of media a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The frame's number.
    pub number: u16,
    /// The piece's place.
    pub fragment: u16,
    /// How many there are.
    pub fragments: u16,
    /// A picture, or else sound.
    pub video: bool,
}

/// What happened, for whoever reads along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Somebody searched.
    Searched(SocketAddrV4),
    /// Somebody tried to log in, and what came of it.
    LoggedIn(SocketAddrV4, LoginResult),
    /// A control command: id, value, and whether it may be sent at all.
    Controlled(u32, u32, Policy),
    /// A command on purpose not heard.
    Ignored,
    /// A client with that session number is gone: it closed, or was not heard any more.
    Gone(u32),
    /// Pieces were asked for again.
    Asked(usize),
}

#[derive(Clone, Debug)]
struct Slot {
    client: SocketAddrV4,
    heard: Instant,
    bits: u32,
}

/// A camera.
#[derive(Debug)]
pub struct Device {
    options: Options,
    /// Where it is, for its own messages.
    local: SocketAddrV4,
    slots: BTreeMap<u32, Slot>,
    number: u16,
    started: Instant,
    /// What is still to be missed, of searches, logins and each control id.
    deaf: BTreeMap<u32, u32>,
    /// Recent pictures by number, cut.
    kept: VecDeque<(u16, Vec<Vec<u8>>)>,
    happened: Vec<Happened>,
    fps: u32,
}

/// The keys of logins and searches in [`Device::deaf`]; control ids are smaller.
const LOGINS: u32 = u32::MAX;
const SEARCHES: u32 = u32::MAX - 1;

impl Device {
    /// A camera that was just switched on. `local` is the address and port that it tells.
    pub fn new(options: Options, local: SocketAddrV4, now: Instant) -> Self {
        let (number, fps) = (options.first_number, options.fps);
        Self {
            options,
            local,
            slots: BTreeMap::new(),
            number,
            started: now,
            deaf: BTreeMap::new(),
            kept: VecDeque::new(),
            happened: Vec::new(),
            fps,
        }
    }

    /// What happened since this was last asked.
    pub fn happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    /// Forgets its clients, its clock and its numbers, as after a power cut.
    pub fn reboot(&mut self, now: Instant) {
        self.slots.clear();
        self.kept.clear();
        self.deaf.clear();
        (self.number, self.started) = (self.options.first_number, now);
    }

    /// Clients that are logged in, as session number and address.
    pub fn clients(&self) -> impl Iterator<Item = (u32, SocketAddrV4)> + '_ {
        self.slots.iter().map(|(session, slot)| (*session, slot.client))
    }

    /// Takes a datagram.
    pub fn received(&mut self, on: Port, from: SocketAddrV4, bytes: &[u8], now: Instant) -> Vec<Datagram> {
        match (on, TEG.parse(bytes)) {
            (Port::Discovery, Ok(Message::Search)) => {
                if self.is_deaf(SEARCHES) {
                    return Vec::new();
                }
                self.happened.push(Happened::Searched(from));
                self.search_answers(from)
            }
            (Port::Media, Ok(Message::Login(login))) => {
                if self.is_deaf(LOGINS) {
                    return Vec::new();
                }
                self.login(&login, from, now)
            }
            (Port::Media, Ok(Message::Control(control))) => self.control(&control, from, now),
            (Port::Media, Ok(Message::ControlAnswer(control))) => {
                self.hear(control.session, from, now);
                Vec::new()
            }
            (Port::Media, Ok(Message::Acknowledgement(acknowledgement))) => {
                self.acknowledged(&acknowledgement, from, now)
            }
            _ => Vec::new(),
        }
    }

    /// Drops clients that were not heard for too long.
    pub fn expire(&mut self, now: Instant) -> Vec<Datagram> {
        let live = self.options.slot_timeout;
        let late = |slot: &Slot| now >= slot.heard + if slot.bits == 0 { IDLE_LIMIT.max(live) } else { live };
        let gone: Vec<_> = self.slots.iter().filter(|(_, slot)| late(slot)).map(|(session, _)| *session).collect();
        gone.into_iter().filter_map(|session| self.drop_client(session)).collect()
    }

    /// Cuts a picture for everybody who wants pictures.
    pub fn picture(&mut self, jpeg: &[u8], now: Instant) -> Vec<Datagram> {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let clock = self.clock(now);
        let pieces: Vec<&[u8]> = jpeg.chunks(self.options.fragment_size).collect();
        let head = PictureHead {
            total: jpeg.len() as u32,
            fragments: pieces.len() as u32,
            width: self.options.width,
            height: self.options.height,
            clock,
        };
        let head = if self.options.no_head { Vec::new() } else { head.bytes() };
        let bodies: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let mut out = Vec::new();
        for (session, slot) in self.slots.iter().filter(|(_, slot)| slot.bits & LIVE_VIDEO != 0) {
            for fragment in 0..bodies.len() {
                out.extend(piece(*session, slot.client, number, fragment, &bodies, &head));
            }
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        // What stands before the first piece belongs to it.
        self.kept.push_back((number, std::iter::once(head).chain(bodies).collect()));
        out
    }

    /// A block of sound for everybody who wants sound.
    pub fn sound(&mut self, block: &[u8], now: Instant) -> Vec<Datagram> {
        self.number = self.number.wrapping_add(1);
        let clock = self.clock(now).to_le_bytes();
        let listening = self.slots.iter().filter(|(_, slot)| slot.bits & LIVE_AUDIO != 0);
        let datagram = |(session, slot): (&u32, &Slot)| {
            let stream = MediaStream::Audio;
            let media =
                Media { session: *session, stream, number: self.number, fragment: 0, extra: &clock, body: block };
            let piece = Piece { number: self.number, fragment: 0, fragments: 1, video: false };
            let bytes = media.write(TEG);
            Datagram { from: Port::Media, to: slot.client, bytes, piece: Some(piece) }
        };
        listening.map(datagram).collect()
    }

    fn clock(&self, now: Instant) -> u32 {
        if self.options.no_clock {
            return 0;
        }
        // Modulo 2^32, as the camera's counter.
        1 + now.saturating_duration_since(self.started).as_millis() as u32
    }

    fn is_deaf(&mut self, what: u32) -> bool {
        let most = if what == SEARCHES { self.options.ignore_searches } else { self.options.ignore_first };
        let left = self.deaf.entry(what).or_insert(most);
        let deaf = *left > 0;
        *left = left.saturating_sub(1);
        if deaf {
            self.happened.push(Happened::Ignored);
        }
        deaf
    }

    /// The vendor's camera answers to the asker, to the asker's port on its subnet's broadcast, and to everybody's port
    /// for searches, all three times. Here: to the asker, three times; that many are the same to whoever asks.
    fn search_answers(&self, to: SocketAddrV4) -> Vec<Datagram> {
        let [_, id1, id2] = self.options.ids.0;
        let found = Found {
            ids: [id1, id2],
            media_port: self.local.port(),
            local: *self.local.ip(),
            uid: self.options.uid.clone(),
        };
        let bytes = SearchAnswer { valid: true, cameras: vec![found] }.write(TEG);
        vec![Datagram { from: Port::Discovery, to, bytes, piece: None }; 3]
    }

    fn login(&mut self, login: &Login, from: SocketAddrV4, now: Instant) -> Vec<Datagram> {
        let nowhere = |address: SocketAddrV4| *address.ip() == Ipv4Addr::UNSPECIFIED;
        let client = if nowhere(login.public) { login.local } else { login.public };
        let known = self.slots.iter().find(|(_, slot)| slot.client == client).map(|(session, _)| *session);
        let free = (1..=self.options.slots).find(|session| !self.slots.contains_key(session));
        let (result, session) = if login.ids != self.options.ids || nowhere(client) {
            (LoginResult::WrongIds, 0)
        } else if Some(login.token) != Token::from_digits(&self.options.token) {
            (LoginResult::WrongToken, 0)
        } else if let Some(session) = known.or(free) {
            // A repeated login takes the media away again (V).
            self.slots.insert(session, Slot { client, heard: now, bits: 0 });
            (LoginResult::Accepted, session)
        } else {
            (LoginResult::Full, 0)
        };
        self.happened.push(Happened::LoggedIn(from, result));
        let answer = LoginAnswer {
            ids: self.options.ids,
            result,
            session: session as i32,
            media_port: self.local.port(),
            local: *self.local.ip(),
            clients: self.slots.len() as u16,
            name: self.options.name.clone(),
        };
        let send = |bytes| Datagram { from: Port::Media, to: from, bytes, piece: None };
        let mut out = vec![send(answer.write(TEG))];
        out.extend((result == LoginResult::Accepted).then(|| send(self.live_answer(session, 0))));
        out
    }

    fn live_answer(&self, session: u32, bits: u32) -> Vec<u8> {
        let (width, height) = (self.options.width.into(), self.options.height.into());
        Answer::Live(bits, LiveFormat { width, height, fps: self.fps, format: *b"MJPG" }).write(TEG, session)
    }

    /// The client of that number, if it is the one that it says it is.
    fn hear(&mut self, session: u32, from: SocketAddrV4, now: Instant) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(&session).filter(|slot| slot.client == from)?;
        slot.heard = now;
        Some(slot)
    }

    fn control(&mut self, control: &Control<'_>, from: SocketAddrV4, now: Instant) -> Vec<Datagram> {
        self.happened.push(Happened::Controlled(control.id, control.value, policy(control.id, control.value)));
        if self.is_deaf(control.id) {
            return Vec::new();
        }
        let session = control.session;
        let microphone = if self.options.no_audio { LIVE_VIDEO } else { LIVE_VIDEO | LIVE_AUDIO };
        let Some(slot) = self.hear(session, from, now) else { return Vec::new() };
        let send = |bytes| vec![Datagram { from: Port::Media, to: from, bytes, piece: None }];
        match control.request() {
            Some(Request::Live(bits)) => {
                slot.bits = bits & microphone;
                let bits = slot.bits;
                send(self.live_answer(session, bits))
            }
            Some(Request::Close) => {
                self.slots.remove(&session);
                self.happened.push(Happened::Gone(session));
                send(Answer::Close.write(TEG, session))
            }
            Some(Request::Heartbeat { .. }) | None => Vec::new(),
        }
    }

    /// Frees a place, and tells whoever had it.
    pub fn drop_client(&mut self, session: u32) -> Option<Datagram> {
        let slot = self.slots.remove(&session)?;
        self.happened.push(Happened::Gone(session));
        Some(Datagram { from: Port::Media, to: slot.client, bytes: Notice::Close.write(TEG, session), piece: None })
    }

    fn acknowledged(&mut self, what: &Acknowledgement, from: SocketAddrV4, now: Instant) -> Vec<Datagram> {
        if self.hear(what.session, from, now).is_none() {
            return Vec::new();
        }
        let missing: Vec<_> = what
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Missing { stream: 0, number, fragment } => Some((*number, usize::from(*fragment))),
                _ => None,
            })
            .collect();
        self.happened.push(Happened::Asked(missing.len()));
        if !self.options.answer_missing {
            return Vec::new();
        }
        let again = |(number, fragment): (u16, usize)| {
            let (_, kept) = self.kept.iter().find(|(kept, _)| *kept == number)?;
            let (head, bodies) = kept.split_first()?;
            piece(what.session, from, number, fragment, bodies, head)
        };
        missing.into_iter().filter_map(again).collect()
    }
}

/// One piece of a picture.
fn piece(
    session: u32,
    to: SocketAddrV4,
    number: u16,
    fragment: usize,
    bodies: &[Vec<u8>],
    head: &[u8],
) -> Option<Datagram> {
    let body = bodies.get(fragment)?;
    let place = u16::try_from(fragment).ok()?;
    let extra = if fragment == 0 { head } else { &[] };
    let media = Media { session, stream: MediaStream::Video, number, fragment: place, extra, body };
    let piece = Piece { number, fragment: place, fragments: bodies.len() as u16, video: true };
    Some(Datagram { from: Port::Media, to, bytes: media.write(TEG), piece: Some(piece) })
}
