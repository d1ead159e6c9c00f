//! Cameras that speak RTSP (RFC 2326), by way of retina.
//!
//! One [`Rtsp`] runs the sessions of one stream: DESCRIBE, SETUP of the first usable picture and sound tracks, PLAY,
//! TEARDOWN. Metadata tracks are never set up: they can be silent for minutes, and their RTP-Info trips strict
//! clients (Hikvision family). A connection counts from before it is opened until it is closed on both sides, the
//! TEARDOWN included: cameras that take few clients count the same way.

mod config;
mod connect;
mod error;
mod loss;
mod receive;
mod slot;
mod track;

pub use config::{Config, Transport};

use super::{Adapter, AdapterError, DeviceIo};
use async_trait::async_trait;
use connect::Carrier;
use retina::client::Credentials;
use slot::Slot;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// How long to wait for a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the TCP connection, names included.
    pub connect: Duration,
    /// For the answer to a request.
    pub answer: Duration,
    /// For the next picture or sound on a main stream.
    pub silence: Duration,
    /// The same on a second stream, which may be slow.
    pub silence_sub: Duration,
    /// For the first random access picture, before a session starts without one.
    pub key: Duration,
    /// For the answer to TEARDOWN.
    pub goodbye: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            silence_sub: Duration::from_secs(8),
            key: Duration::from_secs(20),
            goodbye: Duration::from_secs(1),
        }
    }
}

/// Sessions with one stream of an RTSP camera.
#[derive(Debug)]
pub struct Rtsp {
    /// Without user name and password.
    url: Url,
    credentials: Option<Credentials>,
    transport: Transport,
    patience: Patience,
    /// Which stream this is, for [`Patience`].
    silence: Duration,
    /// What worked last, for [`Transport::Auto`].
    carrier: Mutex<Option<Carrier>>,
    told: Told,
}

/// What has been said once and need not be said again at each reconnection.
#[derive(Debug, Default)]
struct Told {
    left_out: AtomicBool,
    no_key: AtomicBool,
}

impl Rtsp {
    /// Sessions with the camera's main stream.
    pub fn main(config: &Config, patience: Patience) -> Self {
        Self::new(&config.url, config, patience, patience.silence)
    }

    /// Sessions with the camera's second stream, if it is configured.
    pub fn sub(config: &Config, patience: Patience) -> Option<Self> {
        config.sub.as_ref().map(|url| Self::new(url, config, patience, patience.silence_sub))
    }

    fn new(url: &Url, config: &Config, patience: Patience, silence: Duration) -> Self {
        let (url, credentials) = connect::split_credentials(url, config);
        Self {
            url,
            credentials,
            transport: config.transport,
            patience,
            silence,
            carrier: Mutex::default(),
            told: Told::default(),
        }
    }

    fn carrier(&self) -> std::sync::MutexGuard<'_, Option<Carrier>> {
        self.carrier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Adapter for Rtsp {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        let permit = tokio::select! {
            permit = io.device.upstream().acquire() => permit,
            () = io.cancel.cancelled() => return Ok(()),
        };
        // Declared before the session, hence dropped after it, whatever ends this function: the permit goes back when
        // the connection is closed.
        let slot = Slot::new(permit);
        let result = tokio::select! {
            biased;
            () = io.cancel.cancelled() => Ok(()),
            result = self.session(&io, &slot) => result,
        };
        slot.closed(self.patience.goodbye).await;
        result
    }
}

impl Rtsp {
    async fn session(&self, io: &DeviceIo, slot: &Slot) -> Result<(), AdapterError> {
        let opened = self.open(slot.group()).await?;
        self.receive(io, opened).await
    }
}
