//! Everything together, on loopback.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod ingest;
mod rtsp_server;
mod support;
