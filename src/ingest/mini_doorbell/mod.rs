//! GuoGee and ELLE "Mini Doorbell": a button that pushes one JPEG a visitor to a server, which we are.
//!
//! Sold about 2016 to 2018 under many names (apps "Mini Doorbells", VStarcam "Doorcam"). The base unit in the house opens
//! a TCP connection to port 39090, writes a [header](wire) and the picture, and closes. The server never answers. A server
//! that closes first, while the unit still sends, wedges the unit until it is power-cycled (firmware 1.3.0, read), so what
//! is not wanted is read to the end and thrown away, or the connection is reset.
//!
//! Sources: `door_bell_server.c` of a user with a real unit; firmware 1.3.0, whose header routine was executed; the
//! vendor's Android source for the names of fields. A capture of a real unit is not known.

mod config;
pub mod upload;
pub mod visits;
pub mod wire;

pub use config::Config;
pub use wire::BellId;

use super::{Adapter, AdapterError, DeviceIo, Doors};
use async_trait::async_trait;
use std::sync::Arc;

/// The TCP port that the units call.
pub const PORT: u16 = 39_090;

/// The bells that are known, and those that are not.
#[derive(Debug, Default)]
pub struct Bells {}

/// Runs one bell.
#[derive(Debug)]
pub struct MiniDoorbell {}

impl MiniDoorbell {
    /// The bell of that configuration.
    pub fn new(_config: &Config, _doors: Arc<Doors>) -> Self {
        Self {}
    }
}

#[async_trait]
impl Adapter for MiniDoorbell {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        io.playing.send_replace(true);
        io.cancel.cancelled().await;
        Ok(())
    }
}
