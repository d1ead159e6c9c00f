//! From the offer to the picture, with the `webrtc` crate as the player.

use super::*;
use crate::support::until;
use crate::support::whep_viewer::{Viewer, Wishes};
use fanlight::media::Kind;
use fanlight::republish::webrtc::Fragment;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_plays_restarts_ice_and_leaves() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    let device = gateway.bus.device("front").unwrap();
    let mut viewer = Viewer::new(Wishes { audio: true, ..Wishes::default() }).await;
    let created = gateway.ask("POST", "/front/whep", &[SDP], &viewer.offer).await;
    let session = gateway.session("/front/whep", &created);
    viewer.answer(&created.body).await;
    let (mut pictures, mut sound) = (false, false);
    while !(pictures && sound) {
        let (kind, packet) = viewer.packet().await;
        pictures |= kind == Kind::Video && packet.header.payload_type == 102;
        sound |= kind == Kind::Audio && packet.header.payload_type == 0;
    }
    assert_eq!(device.viewers.webrtc.load(Relaxed), 1);

    viewer.restart().await;
    let ice = viewer.parsed().ice;
    let headers = [FRAGMENT, ("if-match", "*")];
    let restarted = gateway.ask("PATCH", &session, &headers, &fragment(&ice.ufrag, &ice.pwd)).await;
    assert_eq!(restarted.status, 200, "{restarted:?}");
    let ours = Fragment::parse(&restarted.body).unwrap();
    let new = ours.ice.unwrap();
    assert!(!ours.candidates.is_empty() && ours.end_of_candidates);
    // The answer with the new credentials, as a player makes it.
    let line = |line: &str| match line.split_once(':') {
        Some(("a=ice-ufrag", _)) => format!("a=ice-ufrag:{}\r\n", new.ufrag),
        Some(("a=ice-pwd", _)) => format!("a=ice-pwd:{}\r\n", new.pwd),
        _ => format!("{line}\r\n"),
    };
    viewer.answer(&created.body.lines().map(line).collect::<String>()).await;
    for _ in 0..100 {
        viewer.video().await;
    }

    assert_eq!(gateway.ask("DELETE", &session, &[], "").await.status, 200);
    until("nobody watches", || device.viewers.webrtc.load(Relaxed) == 0).await;
}
