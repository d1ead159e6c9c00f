//! Simulated devices on loopback: for the demo, for the tests, and for people who write adapters.
pub mod rtsp;
