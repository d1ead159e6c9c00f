//! Viewers are served here: each protocol reads the [bus](crate::bus) and knows nothing of devices.

mod crowd;
pub mod health;
pub mod http;
pub mod rtp;
pub mod rtsp;
mod udp;
pub mod webrtc;
