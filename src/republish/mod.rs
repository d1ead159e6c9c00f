//! Viewers are served here: each protocol reads the [bus](crate::bus) and knows nothing of devices.

pub mod health;
pub mod http;
pub mod rtp;
pub mod rtsp;
mod udp;
pub mod webrtc;

use std::io;
use std::net::SocketAddr;

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {protocol} {address}: {source}")]
pub struct BindError {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}
