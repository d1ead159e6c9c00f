//! WebRTC viewers (WHEP).

pub mod fragment;
pub mod offer;
