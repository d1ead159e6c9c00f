//! A device protocol without I/O: bytes and time go in, things to do come out.
//!
//! A [`Session`] holds no socket, reads no clock and never waits, so tests drive it with invented bytes and instants.
//! Its driver (`drive.rs`) owns the sockets. After each input the driver calls [`Session::poll`] until it
//! answers [`Output::Wait`], then sleeps until that instant or the next input, whichever comes first.

use crate::bus::{Command, CommandError, CommandInfo, EventKind, ReasonCode};
use crate::media::TrackInfo;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Instant;

/// A socket of a session, by a number that the session chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub u8);

/// What a [`Link`] is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A UDP socket that sends to and receives from anybody: the session checks who it was.
    Udp {
        /// The local address; port 0 is any. If the port is taken, any other is bound: [`Session::opened`] tells.
        local: SocketAddr,
        /// Whom it will talk to, if that is known. [`Session::opened`] then tells the local address that leads there,
        /// where the socket is bound to the unspecified one.
        toward: Option<SocketAddr>,
        /// Other sockets of this machine may listen on the same port, as everybody who waits for answers to a broadcast.
        shared: bool,
    },
    /// A TCP connection to that address.
    Tcp(SocketAddr),
}

/// One coded picture or audio frame of a session, with the device's own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The device's time in ticks of the track's clock rate, not wrapped, from an origin that all tracks share.
    pub ticks: i64,
    /// A decoder may start here.
    pub random_access: bool,
    /// Units were lost just before this one.
    pub discontinuity: bool,
    /// The coded bytes, in the form that [`media`](crate::media) promises, but for JPEG: any whole JPEG picture, which
    /// is checked and brought into that form where it leaves ingest.
    pub payload: Bytes,
}

/// Names a command until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u64);

/// The next thing to do.
#[derive(Debug)]
pub enum Output {
    /// Open a socket under that name, in place of one that had it.
    Open(Link, Endpoint),
    /// Close it.
    Close(Link),
    /// Send bytes: a datagram to that address, or more of the stream of a connection (`to` is `None`).
    Send {
        /// On which socket.
        via: Link,
        /// To whom, for datagrams.
        to: Option<SocketAddr>,
        /// What.
        bytes: Bytes,
    },
    /// The tracks from now on, in place of those before. Those that continue keep their readers.
    Tracks(Vec<TrackInfo>),
    /// A unit of the track of that index in the last [`Output::Tracks`].
    Media(usize, Sample),
    /// So many pictures never arrived whole.
    Lost(u64),
    /// Nothing has come for too long; the session goes on and looks for the device. The next [`Output::Media`] ends it.
    Away,
    /// Something happened at the device; with a picture of it, if there is one.
    Event(EventKind, Option<Bytes>),
    /// What the device can be asked to do from now on.
    Commands(Vec<CommandInfo>),
    /// The answer to a command.
    Answer(CommandId, Result<(), CommandError>),
    /// Nothing before that instant, or before the next input if it is `None`.
    Wait(Option<Instant>),
    /// The goodbye is said; nothing comes after this.
    Done,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SessionError {
    /// What the back-off and the device's `reason_code` follow.
    pub code: ReasonCode,
    /// A sentence a person can act on, without secrets.
    pub text: String,
}

impl SessionError {
    /// An error with that sentence.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// One talk with a device. See the [module](self) for how it is driven.
pub trait Session: Send {
    /// A socket that was asked for is open: a connection is established, a UDP socket bound to `local`.
    ///
    /// # Errors
    /// Whatever ends the session.
    fn opened(&mut self, via: Link, local: SocketAddr, now: Instant) -> Result<(), SessionError>;

    /// One datagram, or whatever one read of a connection returned.
    ///
    /// # Errors
    /// Whatever ends the session: a bad byte of a stream does, a bad datagram does not.
    fn received(&mut self, via: Link, from: SocketAddr, bytes: &[u8], now: Instant) -> Result<(), SessionError>;

    /// A socket could not be opened, or a connection ended.
    ///
    /// # Errors
    /// Whatever ends the session; by default this does.
    fn closed(&mut self, via: Link, why: &str, now: Instant) -> Result<(), SessionError> {
        let _ = (via, now);
        Err(SessionError::new(ReasonCode::Unreachable, why))
    }

    /// The instant named by [`Output::Wait`] has come.
    ///
    /// # Errors
    /// Whatever ends the session.
    fn timeout(&mut self, now: Instant) -> Result<(), SessionError>;

    /// Asks the device to do something; answered by [`Output::Answer`].
    fn command(&mut self, id: CommandId, command: Command, now: Instant);

    /// Say goodbye, so that the device frees its slot at once instead of timing us out; then [`Output::Done`].
    fn close(&mut self, now: Instant);

    /// The next thing to do.
    fn poll(&mut self) -> Output;
}
