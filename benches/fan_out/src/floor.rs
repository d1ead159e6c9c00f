//! The floor: the least a server can do for N viewers over TCP. One thread, one epoll, pictures packetised once, one
//! `writev` of the same bytes per picture and socket. It makes the pictures itself and receives nothing, so a gateway that
//! comes near it does its receiving, depacketising and bookkeeping in the difference.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::clip::Packer;
use crate::rtsp::{self, Handshake, Then};

const LISTENER: Token = Token(usize::MAX);

#[derive(Debug)]
struct Viewer {
    stream: TcpStream,
    input: Vec<u8>,
    handshake: Handshake,
    playing: bool,
    /// The rest of a picture that the socket took only in part; pictures are left out until it is gone.
    rest: Vec<u8>,
}

impl Viewer {
    /// False when the connection is over.
    fn readable(&mut self, packer: &Packer, sdp: &str) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => self.input.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let Ok(requests) = rtsp::requests(&mut self.input) else { return false };
        for request in requests {
            let (answer, then) = self.handshake.answer(&request, sdp, false, |url| packer.rtp_info(url));
            if !self.send(answer.as_bytes()) || then == Then::Close {
                return false;
            }
            self.playing |= then == Then::Play;
        }
        true
    }

    /// What does not fit is kept; false when the connection is over.
    fn send(&mut self, bytes: &[u8]) -> bool {
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(bytes);
            return true;
        }
        match self.stream.write_vectored(&[IoSlice::new(bytes)]) {
            Ok(n) => self.rest.extend_from_slice(&bytes[n..]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => self.rest.extend_from_slice(bytes),
            Err(_) => return false,
        }
        true
    }

    fn picture(&mut self, framed: &[u8]) -> bool {
        if !self.playing {
            return true;
        }
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            if !self.send(&rest) {
                return false;
            }
            if !self.rest.is_empty() {
                return true;
            }
        }
        self.send(framed)
    }
}

/// Serves until the process is ended.
///
/// # Errors
/// The listener or epoll fails.
pub fn serve(mut packer: Packer, listener: std::net::TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut viewers: Vec<Option<Viewer>> = Vec::new();
    let sdp = packer.clip().sdp();
    let start = Instant::now();
    loop {
        let due = start + Duration::from_micros(packer.due_us());
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            let framed = packer.next_picture();
            for slot in &mut viewers {
                if slot.as_mut().is_some_and(|v| !v.picture(framed)) {
                    *slot = None;
                }
            }
            continue;
        }
        if let Err(e) = poll.poll(&mut events, Some(wait)) {
            if e.kind() == ErrorKind::Interrupted {
                continue;
            }
            return Err(e.into());
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.set_nodelay(true);
                    let free = viewers.iter().position(Option::is_none).unwrap_or_else(|| {
                        viewers.push(None);
                        viewers.len() - 1
                    });
                    poll.registry().register(&mut stream, Token(free), Interest::READABLE)?;
                    let handshake = Handshake::default();
                    let viewer = Viewer { stream, input: Vec::new(), handshake, playing: false, rest: Vec::new() };
                    viewers[free] = Some(viewer);
                }
            } else if let Some(slot) = viewers.get_mut(event.token().0)
                && slot.as_mut().is_some_and(|v| !v.readable(&packer, &sdp))
            {
                *slot = None;
            }
        }
    }
}
