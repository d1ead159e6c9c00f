//! Never more than `max_connections` to the camera, whatever is asked at once.

use super::viewers::{Carrier, Viewer, all_see_more};
use super::{CameraOptions, Gateway, Options, kill, ms, options, quick, start, visitors};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn main_sub_viewers_and_reloads_together_stay_within_the_limit() {
    for limit in [1, 2] {
        // It would serve more, and counts.
        let generous =
            move |listen: String| move || CameraOptions { sub: Some(visitors()), ..options(visitors, &listen) };
        let mut camera = start(generous("127.0.1.6:0".into())).await;
        let (address, main, sub) = (camera.address(), camera.url(), camera.sub_url().unwrap());
        let entry = |more: &str| {
            let source = format!("{{ rtsp: {{ url: \"{main}\", sub: \"{sub}\" }} }}");
            format!("  front: {{ source: {source}, max_connections: {limit}{more} }}\n")
        };
        let mut gateway = Gateway::start(&entry(""), Options { pace: quick(), ..Options::default() }).await;
        let server = gateway.rtsp();
        let staying = ["front", "front/sub"].map(|path| Viewer::start(server, path, Carrier::Tcp));
        for round in 0..12 {
            // They come and go, on both streams and by both transports; some before there is a picture.
            let passing: Vec<_> = ["front", "front/sub", "front", "front/sub"]
                .into_iter()
                .zip([Carrier::Tcp, Carrier::Udp, Carrier::Udp, Carrier::Tcp])
                .map(|(path, carrier)| Viewer::start(server, path, carrier))
                .collect();
            gateway.reload(&entry(["", ", on_demand: true"][round % 2])).await;
            if round % 4 == 3 {
                all_see_more(&passing, 2).await;
            }
            if round == 5 {
                let counters = camera.counters();
                assert!(counters.peak_clients <= limit as u64, "{counters:?}");
                kill(camera).await;
                tokio::time::sleep(ms(300)).await;
                camera = start(generous(address.to_string())).await;
            }
        }
        all_see_more(&staying, 12).await;
        let counters = camera.counters();
        assert!(counters.peak_clients <= limit as u64, "{counters:?}");
        assert_eq!(counters.clients, limit as u64, "{counters:?}");
        let told = gateway.camera("front").await;
        assert_eq!((&told["upstream_connections"], &told["upstream_limit"]), (&limit.into(), &limit.into()), "{told}");
    }
}
