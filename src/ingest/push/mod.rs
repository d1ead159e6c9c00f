//! Pictures that something else brings: a camera's alarm post, a script, an FTP client.

mod config;

pub use config::Config;

use super::{Adapter, AdapterError, DeviceIo, Doors};
use crate::bus::Bus;
use async_trait::async_trait;
use axum::Router;
use std::sync::Arc;

/// Who takes pushed pictures, by the camera's name.
#[derive(Debug, Default)]
pub struct Pushes {}

/// What is served by HTTP.
pub(super) fn routes(_doors: &Arc<Doors>, _bus: &Arc<Bus>) -> Router {
    Router::new()
}

/// Runs a camera whose pictures are pushed.
#[derive(Debug)]
pub struct Push {}

impl Push {
    /// For that camera.
    pub fn new(_config: &Config, _doors: Arc<Doors>) -> Self {
        Self {}
    }
}

#[async_trait]
impl Adapter for Push {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        io.playing.send_replace(true);
        io.cancel.cancelled().await;
        Ok(())
    }
}
