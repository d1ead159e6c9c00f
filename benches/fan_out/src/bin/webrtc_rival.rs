//! `fan-out-webrtc-rival URL`: the `webrtc` crate doing the gateway's job for WebRTC viewers.
use anyhow::{Context, Result};

fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("which camera?")?;
    fan_out::webrtc::rival::serve(&url, fan_out::child::listen()?)
}
