//! Fan-out measured side by side: Fanlight, a bare floor, gstreamer-rtsp-server, and the load tool's own camera.
//!
//! ```text
//! camera ── one session ──► server under test ──► N viewers (one thread, one process)
//!   │ stamps each picture with the wall clock          │ read the stamp: latency, frame numbers, losses
//!   └───────────── all on loopback, every process fresh for every row ─────────────┘
//! ```
//! See `benches/README.md` for what is measured and how far to trust it.

pub mod camera;
pub mod clip;
pub mod floor;
pub mod modes;
pub mod plan;
pub mod receiver;
pub mod run;
pub mod server;
pub mod stamp;
pub mod viewer;
pub mod viewers;
pub mod webdriver;
pub mod webrtc;

pub use harness::{child, machine, process, rtsp, table};
