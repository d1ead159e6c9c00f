//! `fan-out-rival URL`: gstreamer-rtsp-server doing the gateway's job. One shared factory pulls the camera over TCP and
//! repeats it to everybody, with default settings apart from no added latency.
use anyhow::{Context, Result};
use fan_out::child::say;
use gstreamer_rtsp_server as server;
use gstreamer_rtsp_server::prelude::*;

fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("which camera?")?;
    gstreamer::init()?;
    let factory = server::RTSPMediaFactory::new();
    factory.set_shared(true);
    factory.set_launch(&format!(
        "( rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay ! h264parse ! rtph264pay name=pay0 pt=96 )"
    ));
    let rtsp = server::RTSPServer::new();
    rtsp.set_address("127.0.0.1");
    rtsp.set_service("0");
    rtsp.mount_points().context("no mount points")?.add_factory("/cam", factory);
    let _source = rtsp.attach(None)?;
    let pool = rtsp.session_pool().context("no session pool")?;
    gstreamer::glib::timeout_add_seconds(5, move || {
        pool.cleanup();
        gstreamer::glib::ControlFlow::Continue
    });
    say(&serde_json::json!({ "listening": format!("127.0.0.1:{}", rtsp.bound_port()) }));
    gstreamer::glib::MainLoop::new(None, false).run();
    Ok(())
}
