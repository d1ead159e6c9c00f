//! Devices come in here: one folder a family. Each publishes access units and events to the [bus](crate::bus) and
//! carries out commands; none knows who watches.
//!
//! To add a family: a folder with its protocol, its variant of [`Source`], its arm in [`spawn`].

mod card;
pub mod discover;
mod doors;
pub mod drive;
pub mod http;
pub mod iwfcam;
pub mod jpeg;
mod links;
mod login;
pub mod mini_doorbell;
mod publish;
pub mod push;
pub mod rtsp;
mod running;
mod serve;
pub mod session;
mod source;
pub mod still;
pub mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
mod threads;
pub mod timeline;

pub use doors::Doors;
pub use jpeg::Rotation;
pub use running::{Plan, Running, spawn};
pub use source::Source;
pub use still::Still;

use crate::bus::{Bus, Device, ReasonCode, Stream};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a session with a device may touch.
#[derive(Clone, Debug)]
pub struct DeviceIo {
    /// Where events are told.
    pub bus: Arc<Bus>,
    /// The device: its connection limit, commands and status.
    pub device: Arc<Device>,
    /// The stream that this session feeds.
    pub stream: Arc<Stream>,
    /// Say goodbye to the device and return soon after this is cancelled.
    pub cancel: CancellationToken,
    /// How far pictures are to be turned, for families whose pictures can be.
    pub rotation: Rotation,
    /// Set it to true once media flows: from then on the device counts as online. False again says that nothing comes any
    /// more although the session goes on.
    pub playing: watch::Sender<bool>,
}

/// Why a session with a device ended.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct AdapterError {
    /// What the supervisor's back-off and the device's `reason_code` follow.
    pub code: ReasonCode,
    /// A sentence a person can act on, without secrets.
    pub text: String,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl AdapterError {
    /// An error that says it all itself.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), source: None }
    }
}

/// One session with a device, from connecting to the end.
#[async_trait]
pub trait Adapter: Send + Sync + 'static {
    /// Connects, publishes until the device goes or `io.cancel` is cancelled, and says goodbye.
    ///
    /// # Errors
    /// Whatever ended the session, unless it was cancelled.
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError>;
}

#[async_trait]
impl Adapter for Box<dyn Adapter> {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        (**self).run(io).await
    }
}
