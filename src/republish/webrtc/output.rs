//! What goes out to a viewer: paced over UDP, queued a little over TCP.

use super::cursor::Batch;
use super::mux::Path;
use crate::republish::udp::{Bucket, Run, runs};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// What to wait for before more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: all was sent.
    Nothing,
    /// That instant.
    Until(Instant),
    /// The path takes something again.
    Room,
}

/// The way out.
#[derive(Debug)]
pub(super) struct Output {
    bucket: Bucket,
    pending: VecDeque<Run>,
}

impl Output {
    /// For streams of that rate in bytes per second.
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self { bucket: Bucket::new(rate, now), pending: VecDeque::new() }
    }

    /// Takes packets. Ask [`Self::flush`] first whether there is room.
    pub(super) fn push(&mut self, batch: &mut Batch, path: &Path) {
        if batch.sizes.is_empty() {
            return;
        }
        match path {
            Path::Udp { socket, .. } => {
                let bytes: Bytes = batch.bytes.split().freeze();
                self.pending.extend(runs(&bytes, batch.sizes.iter().copied(), socket.max_segments()));
            }
            Path::Tcp(link) => {
                link.send(&batch.bytes, batch.sizes.iter().copied());
                batch.bytes.clear();
            }
        }
        batch.sizes.clear();
    }

    /// Sends what waits, and says what to wait for before there is room.
    pub(super) fn flush(&mut self, path: &Path, now: Instant) -> Wait {
        let (socket, remote, local) = match path {
            Path::Udp { socket, remote, local } => (socket, *remote, *local),
            Path::Tcp(link) => {
                // From before the path changed: lost on the way.
                self.pending.clear();
                return if link.is_full() { Wait::Room } else { Wait::Nothing };
            }
        };
        while let Some(run) = self.pending.front() {
            if let Err(wait) = self.bucket.take(run.len(), now) {
                return Wait::Until(now + wait.max(Duration::from_micros(500)));
            }
            match socket.send_run(remote, local, run) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Wait::Room,
                // Anything else is loss on the way, which datagrams are for.
                _ => drop(self.pending.pop_front()),
            }
        }
        Wait::Nothing
    }
}

/// Sends one datagram at once, past everything that waits: checks and handshakes must not.
pub(super) fn send(path: &Path, datagram: &[u8]) {
    match path {
        Path::Udp { socket, remote, local } => {
            // One that the kernel does not take is lost, as on the way.
            let _ = socket.send_one(*remote, *local, datagram);
        }
        Path::Tcp(link) => link.send(datagram, std::iter::once(datagram.len())),
    }
}

/// Waits until the path takes something again.
pub(super) async fn room(path: &Path) {
    match path {
        Path::Udp { socket, .. } => socket.writable().await,
        Path::Tcp(link) => {
            if !link.room().await {
                // The session hears of it by another way.
                std::future::pending::<()>().await;
            }
        }
    }
}
