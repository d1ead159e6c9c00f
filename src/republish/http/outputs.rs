//! What answers with pictures, and answers that last, share: it outlives a reload of the configuration.

use super::HttpState;
use super::asked::Client;
use super::events::Board;
use super::guard::Caller;
use super::problem::Problem;
use super::stills::Stills;
use crate::access::crowd::{Counted, Crowd};
use crate::access::{Access, User};
use crate::bus::Bus;
use crate::transcode::Transcoder;
use axum::http::StatusCode;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How many answers that last, of one kind, one client may have. Browsers open six connections to a host; several
/// tablets may be behind one address.
const PER_ADDRESS: usize = 32;

/// Stills, and what multipart JPEG and server-sent events need. One for the program.
#[derive(Debug)]
pub struct Outputs {
    pub(super) stills: Arc<Stills>,
    pub(super) board: Arc<Board>,
    pub(super) mjpeg: Arc<Crowd>,
    pub(super) listeners: Arc<Crowd>,
    pub(super) counted: Counters,
    cancel: CancellationToken,
}

/// Running totals for `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Snapshots answered with a picture.
    pub(super) snapshots: AtomicU64,
    /// Pictures written to readers of multipart JPEG.
    pub(super) pictures: AtomicU64,
}

impl Outputs {
    /// For the devices of that bus. What lasts ends when `cancel` is cancelled.
    pub fn new(bus: &Arc<Bus>, transcoder: &Arc<Transcoder>, cancel: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            stills: Stills::new(transcoder),
            board: Board::new(bus, transcoder, cancel.clone()),
            mjpeg: Arc::default(),
            listeners: Arc::default(),
            counted: Counters::default(),
            cancel,
        })
    }

    /// A place for an answer that lasts. A trusted proxy that does not say for whom it asks speaks for many.
    pub(super) fn place(&self, crowd: &Arc<Crowd>, client: Client, state: &HttpState) -> Result<Counted, Problem> {
        let full = || {
            let detail = format!("there are {PER_ADDRESS} of these for this address already; close one");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(10)
        };
        let most = if state.trusts(client.ip) { usize::MAX } else { PER_ADDRESS };
        crowd.count(client.ip, most).ok_or_else(full)
    }

    /// How long an answer to this caller may last.
    pub(super) fn stay(&self, access: &Arc<Access>, caller: &Caller, client: Client) -> Stay {
        let mut changed = access.sessions_changed();
        // The user may have been removed since the request came.
        changed.mark_changed();
        let (access, cancel) = (Arc::clone(access), self.cancel.clone());
        Stay { cancel, access, changed, client: client.ip, user: caller.0.clone() }
    }
}

/// How long an answer may last: until the program ends, or its user is removed or changed.
#[derive(Debug)]
pub(super) struct Stay {
    cancel: CancellationToken,
    access: Arc<Access>,
    changed: watch::Receiver<u64>,
    client: IpAddr,
    user: Option<Arc<User>>,
}

impl Stay {
    /// Waits until it is over. Cancel safe.
    pub(super) async fn over(&mut self) {
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                // Cannot fail: we hold what sends.
                _ = self.changed.changed() => {}
            }
            if !self.access.is_valid(self.client, self.user.as_deref()) {
                return;
            }
        }
    }
}
