//! Cameras that speak RTSP.

mod config;

pub use config::{Config, Transport};
