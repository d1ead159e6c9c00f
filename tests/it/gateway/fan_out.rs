//! Any number of viewers cost the camera one connection and one DESCRIBE.

use super::viewers::{Carrier, Viewer, all_see_more};
use super::{CameraOptions, Gateway, Options, kill, options, start, visitors};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_viewers_cost_one_connection_between_two_failures() {
    let one_client = |listen: String| move || CameraOptions { max_clients: Some(1), ..options(visitors, &listen) };
    let camera = start(one_client("127.0.1.1:0".into())).await;
    let address = camera.address();
    let gateway = Gateway::start(&format!("  front: {}\n", source(&camera.url())), Options::default()).await;
    // They come while the gateway is on its way to the camera.
    let viewers: Vec<_> = (0..60)
        .map(|number| Viewer::start(gateway.rtsp(), "front", if number < 50 { Carrier::Tcp } else { Carrier::Udp }))
        .collect();
    all_see_more(&viewers, 12).await;
    let counters = camera.counters();
    assert_eq!((counters.accepted, counters.asked, counters.describes), (1, 1, 1), "{counters:?}");
    assert_eq!((counters.peak, counters.plays, counters.refused), (1, 1, 0), "{counters:?}");
    let told = gateway.camera("front").await;
    assert_eq!((&told["viewers"]["rtsp"], &told["upstream_connections"]), (&60.into(), &1.into()), "{told}");

    let mut camera = camera;
    for _ in 0..2 {
        kill(camera).await;
        camera = start(one_client(address.to_string())).await;
        all_see_more(&viewers, 12).await;
        let counters = camera.counters();
        assert_eq!((counters.accepted, counters.asked, counters.describes), (1, 1, 1), "{counters:?}");
        assert_eq!((counters.peak, counters.plays, counters.refused), (1, 1, 0), "{counters:?}");
    }
    let told = gateway.camera("front").await;
    assert_eq!((&told["viewers"]["rtsp"], &told["state"]), (&60.into(), &"online".into()), "{told}");
    gateway.app.stop().await;
}

fn source(url: &str) -> String {
    format!("{{ source: \"{url}\", max_connections: 1 }}")
}
