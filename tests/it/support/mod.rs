//! What several tests need.

pub mod camera;
pub mod chromium;
pub mod http;
pub mod publisher;
pub mod routes;
pub mod rtsp_client;
pub mod tls;
pub mod whep_viewer;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: tests share two cores.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
