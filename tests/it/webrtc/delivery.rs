//! Media: starts, catching up, sharing, packets sent again.

use super::Gateway;
use crate::support::publisher::{PPS, SPS};
use crate::support::whep_viewer::{Viewer, Wishes};
use fanlight::media::Kind;

#[tokio::test]
async fn a_viewer_gets_the_cached_key_picture_first_then_pictures_and_sound() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", true);
    camera.pictures(60);
    let camera = camera.run();
    let mut viewer = Viewer::new(Wishes { audio: true, ..Wishes::default() }).await;
    let session = gateway.view(&viewer, &camera.device).await;
    println!("{}\n{}", viewer.offer, session.answer());
    let first = viewer.video().await;
    assert_eq!((first.header.payload_type, &first.payload[..]), (102, SPS));
    assert_eq!(&viewer.video().await.payload[..], PPS);
    assert_eq!(viewer.video().await.payload[0] & 0x1f, 28, "the key picture in fragments");
    let mut sound = 0;
    while sound < 20 {
        let (kind, packet) = viewer.packet().await;
        if kind == Kind::Audio {
            assert_eq!((packet.header.payload_type, packet.payload.len()), (0, 160));
            sound += 1;
        }
    }
}
