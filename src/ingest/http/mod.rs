//! Cameras that serve JPEG by HTTP: multipart MJPEG, or one picture at a time.

mod config;

pub use config::Config;

use super::{Adapter, AdapterError, DeviceIo};
use async_trait::async_trait;

/// Runs a camera that serves JPEG by HTTP.
#[derive(Debug)]
pub struct Http {}

impl Http {
    /// For that camera.
    pub fn new(_config: &Config) -> Self {
        Self {}
    }
}

#[async_trait]
impl Adapter for Http {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        io.cancel.cancelled().await;
        Ok(())
    }
}
