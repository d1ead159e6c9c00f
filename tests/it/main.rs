//! Everything together, on loopback.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may say what it measured")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod app;
mod chromium;
mod corpus;
mod gateway;
mod http_camera;
mod ingest;
mod ingest_simulated;
mod iwfcam;
mod mini_doorbell;
mod netns;
mod players;
mod program;
mod push;
mod rtsp_jpeg;
mod rtsp_server;
mod secure;
mod stills;
mod support;
mod transcode;
mod web;
mod webrtc;
mod whep;
