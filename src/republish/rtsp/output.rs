//! The write half of an RTSP connection, shared by its answers and its media.
//!
//! Whoever writes holds the lock for one `write` call at most. What the kernel does not take is kept as pending and
//! always finished first, so that no frame ever begins in the middle of another.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

/// Names one viewer of a connection: media of a viewer that was paused or torn down must not be written any more.
pub(super) type ViewerId = u64;

/// What became of media handed to [`Output::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The kernel took all of it.
    All,
    /// It was begun; the rest is pending.
    Part,
    /// The kernel takes nothing now, or something else is pending.
    Nothing,
    /// This viewer may not write (any more), or the connection is gone.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Bytes>,
    viewer: Option<ViewerId>,
    failed: bool,
}

/// What an RTSP connection reads from and writes to.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    /// Our end of a [tunnel](super::tunnel) through TLS.
    Tunnel(UnixStream),
}

impl Socket {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Tunnel(socket) => socket.readable().await,
        }
    }

    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read_buf(buffer),
            Self::Tunnel(socket) => socket.try_read_buf(buffer),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.writable().await,
            Self::Tunnel(socket) => socket.writable().await,
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Tunnel(socket) => socket.try_write(bytes),
        }
    }
}

/// A connection's socket and what is still to be written to it.
#[derive(Debug)]
pub(super) struct Output {
    socket: Socket,
    state: Mutex<State>,
    /// Cancelled when the connection is to be closed.
    closed: CancellationToken,
    /// How long a connection that takes not one byte is kept.
    patience: Duration,
}

impl Output {
    pub(super) fn new(socket: Socket, closed: CancellationToken, patience: Duration) -> Self {
        Self { socket, state: Mutex::default(), closed, patience }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets that viewer write media, and nobody else.
    pub(super) fn admit(&self, viewer: Option<ViewerId>) {
        self.state().viewer = viewer;
    }

    /// Writes media of that viewer, if nothing is pending.
    pub(super) fn send(&self, viewer: ViewerId, bytes: &Bytes) -> Sent {
        let mut state = self.state();
        if state.failed || state.viewer != Some(viewer) {
            return Sent::Gone;
        }
        if !state.pending.is_empty() {
            return Sent::Nothing;
        }
        match self.socket.try_write(bytes) {
            Ok(count) if count == bytes.len() => Sent::All,
            Ok(0) => self.fail(&mut state),
            Ok(count) => {
                state.pending.push_back(bytes.slice(count..));
                Sent::Part
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Nothing,
            Err(_) => self.fail(&mut state),
        }
    }

    fn fail(&self, state: &mut State) -> Sent {
        state.failed = true;
        state.pending.clear();
        self.closed.cancel();
        Sent::Gone
    }

    /// Queues an answer behind what is pending and writes what the kernel takes.
    pub(super) fn answer(&self, bytes: Bytes) {
        let mut state = self.state();
        if !state.failed {
            state.pending.push_back(bytes);
            self.write_pending(&mut state);
        }
    }

    /// Answers whether nothing is left.
    fn write_pending(&self, state: &mut State) -> bool {
        while let Some(front) = state.pending.front_mut() {
            match self.socket.try_write(front) {
                Ok(0) => drop(self.fail(state)),
                Ok(count) => {
                    front.advance(count);
                    if front.is_empty() {
                        state.pending.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => drop(self.fail(state)),
            }
        }
        true
    }

    /// Waits until nothing is pending; false if the connection failed or took no byte for the patience.
    pub(super) async fn flush(&self) -> bool {
        loop {
            {
                let mut state = self.state();
                if state.failed {
                    return false;
                }
                if self.write_pending(&mut state) {
                    return !state.failed;
                }
            }
            if !self.writable().await {
                return false;
            }
        }
    }

    /// Waits until the kernel takes bytes; false if it took none for the patience, or the connection is closed.
    pub(super) async fn writable(&self) -> bool {
        let writable = tokio::select! {
            writable = tokio::time::timeout(self.patience, self.socket.writable()) => writable,
            () = self.closed.cancelled() => return false,
        };
        if !matches!(writable, Ok(Ok(()))) {
            self.fail(&mut self.state());
            return false;
        }
        true
    }
}
