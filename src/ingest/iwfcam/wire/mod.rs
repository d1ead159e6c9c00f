//! Bytes to messages and back. Everything is little-endian, but ports inside address fields, which are big-endian.
//!
//! Sources of the facts, as the tables below name them: **C** and **D**, two clients by different authors for two MJPEG
//! cameras, checked on the wire; **G**, a bridge made from captures of the vendor's app with an H.264 model of the
//! family; **V**, the vendor's phone library read statically, which holds the camera's side too but may differ from a
//! camera's firmware.
//!
//! **Every datagram** begins with the same eight bytes:
//!
//! | bytes | field     | meaning                                                  | source  |
//! |-------|-----------|----------------------------------------------------------|---------|
//! | 0..4  | signature | `1TEG` search and login, `2TEG` all that follows; `0TEG` is for the cloud and never ours | C D G |
//! | 4..6  | command   | depends on the signature                                 | C D G   |
//! | 6..8  | length    | of what follows; a datagram may be longer, never shorter | C D G V |
//!
//! | signature | command | message                               | source |
//! |-----------|---------|---------------------------------------|--------|
//! | `1TEG`    | 0x0b    | [search](Message::Search)             | C D G V |
//! | `1TEG`    | 0x0c    | [its answer](SearchAnswer)            | C D G V |
//! | `1TEG`    | 0x0d    | [login](Login)                        | C D V  |
//! | `1TEG`    | 0x0e    | [its answer](LoginAnswer)             | C V    |
//! | `2TEG`    | 0x01    | [control command](Control)            | C D G V |
//! | `2TEG`    | 0x02    | [its answer](Control)                 | C V    |
//! | `2TEG`    | 0x03    | [media](Media)                        | C D G V |
//! | `2TEG`    | 0x04    | [received and missing](Acknowledgement) | G V  |
//!
//! What cannot be written is what a gateway must never send: there is no way to build a control command but
//! [`Request`], and nothing at all for the cloud.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod control;
mod login;
mod media;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod vectors;

pub use control::{Answer, Control, LIVE_AUDIO, LIVE_VIDEO, LiveFormat, Notice, Policy, Request, policy};
pub use login::{Found, Ids, Login, LoginAnswer, LoginResult, SearchAnswer, Token};
pub use media::{Acknowledgement, Item, MOST_FRAGMENTS, MOST_MEDIA, Media, MediaStream, PictureHead};

use std::net::{Ipv4Addr, SocketAddrV4};

/// The port that cameras are searched on (C D G).
pub const DISCOVERY_PORT: u16 = 10_104;

/// Bytes of the header that every datagram has.
pub(super) const HEADER: usize = 8;

const SEARCH: u16 = 0x0b;
const SEARCH_ANSWER: u16 = 0x0c;
const LOGIN: u16 = 0x0d;
const LOGIN_ANSWER: u16 = 0x0e;
const CONTROL: u16 = 0x01;
const CONTROL_ANSWER: u16 = 0x02;
const MEDIA: u16 = 0x03;
const ACKNOWLEDGEMENT: u16 = 0x04;

/// Why a datagram is no message. It is counted and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The datagram ends before a field does.
    #[error("{field}: {need} bytes needed, {have} there")]
    Short {
        /// The field.
        field: &'static str,
        /// Its bytes.
        need: usize,
        /// Those that are left.
        have: usize,
    },
    /// It is none of this protocol's.
    #[error("no known signature")]
    Signature,
    /// A command that a gateway has no use for.
    #[error("unknown command {0:#04x}")]
    Command(u16),
    /// A field holds what cannot be.
    #[error("{field} cannot be {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
}

/// A whole datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// "Who is there?": u32 1, eight zero bytes (C D G).
    Search,
    /// A camera answers a search.
    SearchAnswer(SearchAnswer),
    /// A client logs in.
    Login(Login),
    /// The camera answers a login.
    LoginAnswer(LoginAnswer),
    /// One side wants something.
    Control(Control<'a>),
    /// The other side answers that.
    ControlAnswer(Control<'a>),
    /// A piece of a picture, or a block of sound.
    Media(Media<'a>),
    /// What a client has received and what it misses.
    Acknowledgement(Acknowledgement),
}

/// The bytes that families of cameras with this protocol differ in.
///
/// The vendor's library of 2018 sends other signatures and searches on another port; commands and fields are the same
/// (V). Whether any camera still speaks like that is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Signature of search and login.
    pub session: [u8; 4],
    /// Signature of control and media.
    pub peer: [u8; 4],
    /// The port that cameras are searched on.
    pub discovery_port: u16,
}

/// Cameras as they are sold (C D G).
pub const TEG: Profile = Profile { session: *b"1TEG", peer: *b"2TEG", discovery_port: DISCOVERY_PORT };
/// The vendor's library of 2018 (V): 0x99AAEE01 and 0x99AAEE02.
pub const NUMBERED: Profile =
    Profile { session: [0x01, 0xee, 0xaa, 0x99], peer: [0x02, 0xee, 0xaa, 0x99], discovery_port: 10_210 };

impl Profile {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`WireError`] names the field that did not fit, or says that it is no message of this protocol. Bytes behind the
    /// announced length are ignored.
    pub fn parse(self, datagram: &[u8]) -> Result<Message<'_>, WireError> {
        let mut header = Reader(datagram);
        let signature = header.array("signature")?;
        let command = header.u16("command")?;
        let length = header.u16("length")?;
        let body = Reader(header.bytes("data", usize::from(length))?);
        if signature == self.session {
            match command {
                SEARCH => login::search(body),
                SEARCH_ANSWER => SearchAnswer::parse(body).map(Message::SearchAnswer),
                LOGIN => Login::parse(body).map(Message::Login),
                LOGIN_ANSWER => LoginAnswer::parse(body).map(Message::LoginAnswer),
                other => Err(WireError::Command(other)),
            }
        } else if signature == self.peer {
            match command {
                CONTROL => Control::parse(body).map(Message::Control),
                CONTROL_ANSWER => Control::parse(body).map(Message::ControlAnswer),
                MEDIA => Media::parse(body).map(Message::Media),
                ACKNOWLEDGEMENT => Acknowledgement::parse(body).map(Message::Acknowledgement),
                other => Err(WireError::Command(other)),
            }
        } else {
            Err(WireError::Signature)
        }
    }

    /// A search.
    pub fn search(self) -> Vec<u8> {
        let mut out = self.session(SEARCH, 12);
        out.u32(1);
        out.zeros(8);
        out.0
    }

    fn session(self, command: u16, length: usize) -> Writer {
        Writer::new(self.session, command, length)
    }

    fn peer(self, command: u16, length: usize) -> Writer {
        Writer::new(self.peer, command, length)
    }
}

/// What is left of a datagram.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, field: &'static str, need: usize) -> Result<&'a [u8], WireError> {
        let short = WireError::Short { field, need, have: self.0.len() };
        let (taken, rest) = self.0.split_at_checked(need).ok_or(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let (taken, rest) =
            self.0.split_first_chunk().ok_or(WireError::Short { field, need: N, have: self.0.len() })?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn port(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_be_bytes)
    }

    fn ip(&mut self, field: &'static str) -> Result<Ipv4Addr, WireError> {
        self.array::<4>(field).map(Ipv4Addr::from)
    }

    /// A text of `N` bytes, padded with NUL; what is no ASCII is left out.
    fn text<const N: usize>(&mut self, field: &'static str) -> Result<String, WireError> {
        let bytes = self.array::<N>(field)?;
        let text = bytes.iter().take_while(|byte| **byte != 0);
        Ok(text.filter(|byte| byte.is_ascii_graphic() || **byte == b' ').map(|byte| char::from(*byte)).collect())
    }
}

/// A datagram while it is written.
struct Writer(Vec<u8>);

impl Writer {
    fn new(signature: [u8; 4], command: u16, length: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + length);
        bytes.extend_from_slice(&signature);
        let mut out = Self(bytes);
        out.u16(command);
        // Nothing that is written here is longer: pieces of pictures are at most `MOST_MEDIA` bytes.
        out.u16(u16::try_from(length).unwrap_or(u16::MAX));
        out
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Port, then address, as login requests and the answers to searches have it.
    fn port_and_ip(&mut self, address: SocketAddrV4) {
        self.bytes(&address.port().to_be_bytes());
        self.bytes(&address.ip().octets());
    }

    /// A text in `length` bytes, padded with NUL.
    fn text(&mut self, text: &str, length: usize) {
        let end = self.0.len() + length;
        self.0.extend(text.bytes().take(length));
        self.0.resize(end, 0);
    }
}
