//! A camera that serves JPEG by HTTP, with the faults of such cameras on request.
//!
//! | path | answer |
//! |------|--------|
//! | `/video` | `multipart/x-mixed-replace`, at its own pace |
//! | `/snapshot.jpg` | the picture of the moment, with `ETag`; 304 where it is the one the client has |
//! | `/moved` | leads to `/video` |
//! | `/` | a web page |

mod cli;
mod login;
mod server;

pub use cli::{Args, run};
pub use login::{Login, Scheme};

use super::SimulateError;
use super::iwfcam::Scene;
use crate::ingest::http::Fingerprint;
use serde::Serialize;
use server::Shared;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What kind of camera.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 is any.
    pub listen: SocketAddr,
    /// It speaks TLS, with a certificate of its own making.
    pub https: bool,
    /// Who may see its pictures; everybody if there is none.
    pub login: Option<Login>,
    /// Pictures a second, not 0.
    pub fps: f64,
    /// Streams at once; who comes then gets 503.
    pub max_clients: Option<usize>,
    /// What goes wrong.
    pub faults: Faults,
}

/// What goes wrong. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// A stream falls silent after so long, and stays open.
    pub stall_after: Option<Duration>,
    /// A stream is cut off in mid-picture after so long.
    pub close_after: Option<Duration>,
    /// The second half of each so-many-th picture is missing.
    pub truncate_every: Option<u64>,
    /// Parts say nothing of their length.
    pub no_length: bool,
    /// Another boundary than the one that is announced.
    pub wrong_boundary: bool,
    /// Lines end with LF alone.
    pub lf_only: bool,
    /// Every answer is this status.
    pub status: Option<u16>,
    /// The picture at `/snapshot.jpg` has neither `ETag` nor 304.
    pub no_etag: bool,
    /// An answer to `/snapshot.jpg` takes so long.
    pub slow: Option<Duration>,
    /// `/snapshot.jpg` closes the connection after each answer.
    pub close: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            https: false,
            login: None,
            fps: 10.0,
            max_clients: None,
            faults: Faults::default(),
        }
    }
}

/// What happened to the camera since it was switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests, whatever came of them.
    pub requests: u64,
    /// Requests answered now, a stream included.
    pub busy: u64,
    /// The most of them at once.
    pub most_busy: u64,
    /// Requests without the login, or with a wrong one.
    pub refused: u64,
    /// Requests with a login, right or wrong.
    pub logins: u64,
    /// Streams begun.
    pub streams: u64,
    /// Pictures sent.
    pub pictures: u64,
    /// 304: the client has the picture.
    pub unchanged: u64,
}

/// A running camera. Dropping it cuts its power: nobody is told goodbye.
#[derive(Debug)]
pub struct Camera {
    address: SocketAddr,
    fingerprint: Option<Fingerprint>,
    counters: watch::Receiver<Counters>,
    _task: AbortOnDropHandle<()>,
}

impl Camera {
    /// Switches a camera on that shows this scene.
    ///
    /// # Errors
    /// [`SimulateError::Bind`] if the port is taken.
    pub async fn start(options: Options, scene: Scene) -> Result<Self, SimulateError> {
        let listen = options.listen;
        let bind = |error: std::io::Error| SimulateError::Bind { listen, text: error.to_string() };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (tls, fingerprint) = match options.https.then(|| server::tls(listen)).transpose()? {
            Some((tls, fingerprint)) => (Some(tls), Some(fingerprint)),
            None => (None, None),
        };
        let shared = Arc::new(Shared::new(options, scene));
        let counters = shared.counters.subscribe();
        let task = AbortOnDropHandle::new(tokio::spawn(server::serve(listener, tls, shared)));
        Ok(Self { address, fingerprint, counters, _task: task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate's, if it speaks TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The URL of that path.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.fingerprint.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    /// The same, and all changes.
    pub fn watch(&self) -> watch::Receiver<Counters> {
        self.counters.clone()
    }
}
