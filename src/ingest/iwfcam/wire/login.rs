//! Search and login.

use super::{LOGIN, LOGIN_ANSWER, Message, Profile, Reader, SEARCH_ANSWER, WireError};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

/// More cameras than this are not read from one answer. On a local network there is one.
const MOST_FOUND: usize = 8;
/// Bytes of the fields of a camera that has no more than its first 60.
const ITEM: usize = 60;

/// The three numbers by which a camera knows that a login is meant for it. Zero until it has talked to its cloud (V).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids(pub [u32; 3]);

/// The answer to a search, 76 bytes with one camera.
///
/// | bytes  | field       | meaning                                          | source |
/// |--------|-------------|--------------------------------------------------|--------|
/// | 8..12  | status      | 1 = valid                                        | C V    |
/// | 12..16 | count       | of cameras, 60 bytes each; 1 on a local network  | V      |
/// | 16..   | cameras     | see [`Found`]                                    |        |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchAnswer {
    /// Whether the camera says that the answer is valid.
    pub valid: bool,
    /// The cameras; an answer to a search on the local network names one.
    pub cameras: Vec<Found>,
}

/// A camera in the answer to a search; offsets from the first byte of the datagram, for the first camera.
///
/// | bytes  | field       | meaning                                          | source |
/// |--------|-------------|--------------------------------------------------|--------|
/// | 16..20 | type        | 0                                                | V      |
/// | 20..24 | id1         | 0 without contact to the cloud                   | V      |
/// | 24..28 | id2         | the cloud's number of the camera, 0 without      | G V    |
/// | 28..34 | public address and port | zero                                 | V      |
/// | 34..36 | media port  | big-endian; mostly 17900                         | C D G V |
/// | 36..40 | local address |                                                | C D V  |
/// | 40..72 | UID         | ASCII, padded with NUL                           | G V    |
/// | 72..74 | web port    | not known to be of use                           | V      |
/// | 74..76 | padding     |                                                  | V      |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The second and third of its [`Ids`].
    pub ids: [u32; 2],
    /// Where it takes logins; 0 if it does not say.
    pub media_port: u16,
    /// Its address as it sees it. The datagram's source is what counts.
    pub local: Ipv4Addr,
    /// Its name for good.
    pub uid: String,
}

impl Found {
    /// Where it takes logins, by its answer that came from `from`; `None` if that cannot be told.
    pub fn port(&self, from: SocketAddrV4, discovery_port: u16) -> Option<u16> {
        let announced = Some(self.media_port).filter(|port| *port != 0);
        // G takes the source port then, unless that is the one for searches.
        announced.or(Some(from.port()).filter(|port| *port != discovery_port))
    }
}

/// A login on the local network, 48 bytes.
///
/// | bytes  | field          | meaning                                       | source |
/// |--------|----------------|-----------------------------------------------|--------|
/// | 8..20  | ids            | see [`Ids`]                                   | C D zero, V the meaning |
/// | 20..26 | public address, port | zero                                    | C D V  |
/// | 26..28 | local port     | big-endian; the one that it is sent from      | C D    |
/// | 28..32 | local address  | the one that it is sent from                  | C D    |
/// | 32..48 | token          | see [`Token`]                                 | C D    |
///
/// Media goes to the address **written here**, and later commands count only from there (V). A longer form adds 16 bytes
/// for a second password (V); they are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Whom it is for.
    pub ids: Ids,
    /// Where the client is outside its network; unspecified on a local one.
    pub public: SocketAddrV4,
    /// Where the client is.
    pub local: SocketAddrV4,
    /// What it knows.
    pub token: Token,
}

/// What lets a client in: byte 9, then 12 hexadecimal digits, padded to 16 bytes with NUL (C D G).
///
/// How the digits come from a password is unknown; without one they are always the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

/// The answer to a login, 92 bytes.
///
/// | bytes  | field       | meaning                                          | source |
/// |--------|-------------|--------------------------------------------------|--------|
/// | 8..20  | ids         | the camera's own                                 | V      |
/// | 20..24 | result      | see [`LoginResult`]                              | V      |
/// | 24..28 | session     | signed; 1 to 8; not above 0 means "closed"       | V      |
/// | 28..34 | the client's public address and port |                         | V      |
/// | 34..36 | media port  | big-endian                                       | V      |
/// | 36..40 | the camera's local address |                                   | V      |
/// | 40..46 | relay       | zero                                             | V      |
/// | 46..48 | clients     | those that are connected, 1 to 8                 | V      |
/// | 48..80 | name        | ASCII, padded with NUL                           | V      |
/// | 80..84 | rights      | not zero: may manage the camera                  | V      |
/// | 84..92 | unknown     | zero                                             | V      |
///
/// Older cameras may send less: the first 28 bytes are needed, the rest is read as far as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginAnswer {
    /// The camera's ids: a login that it refused for its ids is repeated with these.
    pub ids: Ids,
    /// Whether the client is in.
    pub result: LoginResult,
    /// Its number, which all later messages quote; not above 0 means that the camera closed the session.
    pub session: i32,
    /// Where the camera takes what follows; 0 if it does not say.
    pub media_port: u16,
    /// The camera's address as it sees it; unspecified if it does not say.
    pub local: Ipv4Addr,
    /// Clients that are connected; 0 if it does not say.
    pub clients: u16,
    /// The camera's name; empty if it does not say.
    pub name: String,
}

/// How a login went (V).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginResult {
    /// 0.
    Accepted,
    /// 1: the ids are not the camera's. The answer holds the right ones.
    WrongIds,
    /// 2: all places for clients are taken.
    Full,
    /// 3.
    WrongToken,
    /// A failure without a known name.
    Other(u32),
}

impl LoginResult {
    fn number(self) -> u32 {
        match self {
            Self::Accepted => 0,
            Self::WrongIds => 1,
            Self::Full => 2,
            Self::WrongToken => 3,
            Self::Other(number) => number,
        }
    }
}

impl Token {
    /// The token of cameras without a password, seen by two authors on two models.
    pub const NO_PASSWORD: &'static str = "9e8040834b3a";

    /// From its 12 hexadecimal digits; `None` if they are not.
    pub fn from_digits(digits: &str) -> Option<Self> {
        let fits = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| {
            let mut bytes = [0; 16];
            let token = std::iter::once(9).chain(digits.bytes().map(|byte| byte.to_ascii_lowercase()));
            bytes.iter_mut().zip(token).for_each(|(to, byte)| *to = byte);
            Self(bytes)
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

pub(super) fn search(mut body: Reader<'_>) -> Result<Message<'_>, WireError> {
    body.bytes("search", 12)?;
    Ok(Message::Search)
}

impl SearchAnswer {
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, WireError> {
        let status = body.u32("status")?;
        let count = body.u32("number of cameras")?;
        let count = usize::try_from(count).unwrap_or(MOST_FOUND).min(MOST_FOUND);
        let cameras: Result<_, _> = (0..count).map(|_| Found::parse(&mut body)).collect();
        Ok(Self { valid: status == 1, cameras: cameras? })
    }

    /// The datagram.
    pub fn write(&self, profile: Profile) -> Vec<u8> {
        let mut out = profile.session(SEARCH_ANSWER, 8 + ITEM * self.cameras.len());
        out.u32(self.valid.into());
        out.u32(self.cameras.len() as u32);
        for camera in &self.cameras {
            out.u32(0);
            camera.ids.iter().for_each(|id| out.u32(*id));
            out.zeros(6);
            out.port_and_ip(SocketAddrV4::new(camera.local, camera.media_port));
            out.text(&camera.uid, 32);
            out.zeros(4);
        }
        out.0
    }
}

impl Found {
    fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let _kind = body.u32("type")?;
        let ids = [body.u32("id1")?, body.u32("id2")?];
        body.bytes("public address", 6)?;
        let media_port = body.port("media port")?;
        let local = body.ip("local address")?;
        let uid = body.text::<32>("UID")?;
        body.bytes("web port", 4)?;
        Ok(Self { ids, media_port, local, uid })
    }
}

impl Login {
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, WireError> {
        let ids = Ids([body.u32("id0")?, body.u32("id1")?, body.u32("id2")?]);
        let public_ip = body.ip("public address")?;
        let public_port = body.port("public port")?;
        let local_port = body.port("local port")?;
        let local_ip = body.ip("local address")?;
        let token = Token(body.array("token")?);
        let public = SocketAddrV4::new(public_ip, public_port);
        Ok(Self { ids, public, local: SocketAddrV4::new(local_ip, local_port), token })
    }

    /// The datagram.
    pub fn write(&self, profile: Profile) -> Vec<u8> {
        let mut out = profile.session(LOGIN, 40);
        self.ids.0.iter().for_each(|id| out.u32(*id));
        out.bytes(&self.public.ip().octets());
        out.bytes(&self.public.port().to_be_bytes());
        out.port_and_ip(self.local);
        out.bytes(&self.token.0);
        out.0
    }
}

impl LoginAnswer {
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, WireError> {
        let ids = Ids([body.u32("id0")?, body.u32("id1")?, body.u32("id2")?]);
        let result = match body.u32("result")? {
            0 => LoginResult::Accepted,
            1 => LoginResult::WrongIds,
            2 => LoginResult::Full,
            3 => LoginResult::WrongToken,
            other => LoginResult::Other(other),
        };
        let session = i32::from_le_bytes(body.array("session number")?);
        let mut rest = || -> Result<_, WireError> {
            body.bytes("public address", 6)?;
            let media_port = body.port("media port")?;
            let local = body.ip("local address")?;
            body.bytes("relay", 6)?;
            Ok((media_port, local, body.u16("clients")?))
        };
        let (media_port, local, clients) = rest().unwrap_or((0, Ipv4Addr::UNSPECIFIED, 0));
        let name = body.text::<32>("name").unwrap_or_default();
        Ok(Self { ids, result, session, media_port, local, clients, name })
    }

    /// The datagram.
    pub fn write(&self, profile: Profile) -> Vec<u8> {
        let mut out = profile.session(LOGIN_ANSWER, 84);
        self.ids.0.iter().for_each(|id| out.u32(*id));
        out.u32(self.result.number());
        out.bytes(&self.session.to_le_bytes());
        out.zeros(6);
        out.port_and_ip(SocketAddrV4::new(self.local, self.media_port));
        out.zeros(6);
        out.u16(self.clients);
        out.text(&self.name, 32);
        out.u32(u32::from(self.result == LoginResult::Accepted));
        out.zeros(8);
        out.0
    }
}
