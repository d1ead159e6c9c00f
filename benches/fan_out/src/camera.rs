//! The load tool's camera: stamps and sends the clip over interleaved TCP, limited to a few sessions as cameras are. One
//! tokio thread, one task that writes to everybody; an implementation of its own, so that it can vouch for the floor.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::child::say;
use crate::clip::Packer;
use crate::rtsp::{self, Handshake, Then};

#[derive(Debug)]
struct Session {
    id: u64,
    write: OwnedWriteHalf,
    playing: bool,
    rest: Vec<u8>,
}

impl Session {
    /// Answers are short and go before media; false when the connection is over.
    fn send(&mut self, bytes: &[u8]) -> bool {
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(bytes);
            return true;
        }
        match self.write.try_write(bytes) {
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
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() && !self.send(&rest) {
            return false;
        }
        !self.rest.is_empty() || self.send(framed)
    }
}

/// Sessions now, at most at once, in all, and refused.
#[derive(Debug, Default)]
struct Counts {
    open: usize,
    peak: usize,
    total: usize,
    refused: usize,
}

impl Counts {
    fn say(&self, event: &str) {
        let Self { open, peak, total, refused } = self;
        say(&serde_json::json!({ "event": event, "open": open, "peak": peak, "total": total, "refused": refused }));
    }
}

#[derive(Debug)]
struct Camera {
    packer: Packer,
    sdp: String,
    limit: usize,
    sessions: Vec<Session>,
    counts: Counts,
}

/// Serves until the process is ended; each opened, closed or refused session is a line of JSON on standard output.
///
/// # Errors
/// The runtime cannot be made.
pub fn serve(packer: Packer, listener: std::net::TcpListener, limit: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sdp = packer.clip().sdp();
    let camera = Camera { packer, sdp, limit, sessions: Vec::new(), counts: Counts::default() };
    let camera = Rc::new(RefCell::new(camera));
    listener.set_nonblocking(true)?;
    LocalSet::new().block_on(&runtime, async {
        spawn_local(accept(TcpListener::from_std(listener)?, camera.clone()));
        let start = tokio::time::Instant::now();
        say(&serde_json::json!({ "event": "start", "unix_us": crate::stamp::now_us() }));
        loop {
            let due = start + Duration::from_micros(camera.borrow().packer.due_us());
            tokio::time::sleep_until(due).await;
            let camera = &mut *camera.borrow_mut();
            let framed = camera.packer.next_picture();
            for session in &mut camera.sessions {
                if !session.picture(framed) {
                    session.playing = false; // its reader ends it
                }
            }
        }
    })
}

async fn accept(listener: TcpListener, camera: Rc<RefCell<Camera>>) {
    for id in 0.. {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let camera = camera.clone();
        spawn_local(async move {
            let opened = serve_one(id, stream, &camera).await;
            let camera = &mut *camera.borrow_mut();
            camera.sessions.retain(|s| s.id != id);
            if opened {
                camera.counts.open -= 1;
                camera.counts.say("close");
            }
        });
    }
}

/// True if a session had been set up.
async fn serve_one(id: u64, stream: TcpStream, camera: &RefCell<Camera>) -> bool {
    let _ = stream.set_nodelay(true);
    let (mut read, write) = stream.into_split();
    camera.borrow_mut().sessions.push(Session { id, write, playing: false, rest: Vec::new() });
    let (mut input, mut handshake, mut opened) = (Vec::new(), Handshake::default(), false);
    while let Some(requests) = next_requests(&mut read, &mut input).await {
        let camera = &mut *camera.borrow_mut();
        for request in requests {
            let full = camera.counts.open >= camera.limit;
            let (answer, then) = handshake.answer(&request, &camera.sdp, full, |url| camera.packer.rtp_info(url));
            if answer.starts_with("RTSP/1.0 453") {
                camera.counts.refused += 1;
                camera.counts.say("refused");
            }
            let Some(session) = camera.sessions.iter_mut().find(|s| s.id == id) else { return opened };
            if !session.send(answer.as_bytes()) || then == Then::Close {
                return opened;
            }
            session.playing |= then == Then::Play;
            if then == Then::Opened {
                opened = true;
                camera.counts.open += 1;
                camera.counts.total += 1;
                camera.counts.peak = camera.counts.peak.max(camera.counts.open);
                camera.counts.say("open");
            }
        }
    }
    opened
}

async fn next_requests(read: &mut OwnedReadHalf, input: &mut Vec<u8>) -> Option<Vec<rtsp::Message>> {
    match read.read_buf(input).await {
        Ok(0) | Err(_) => None,
        Ok(_) => rtsp::requests(input).ok(),
    }
}
