//! A camera on demand is left alone while nobody watches; second streams are where they should be.

use super::viewers::{Carrier, Viewer, all_see_more};
use super::{CameraOptions, Gateway, Options, kill, ms, options, quick, seen, start, visitors};
use crate::support::rtsp_client::Client;
use crate::support::until;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_opened_for_the_first_viewer_and_closed_after_the_last() {
    assert_eq!(Options::default().linger, Duration::from_secs(10));
    let camera = start(|| CameraOptions { max_clients: Some(1), ..options(visitors, "127.0.1.7:0") }).await;
    let entry = format!("  front: {{ source: \"{}\", on_demand: true }}\n", camera.url());
    let linger = ms(700);
    let gateway = Gateway::start(&entry, Options { pace: quick(), linger, ..Options::default() }).await;
    for round in 1..=3 {
        assert_eq!(gateway.camera("front").await["state"], "idle");
        // DESCRIBE alone wakes it.
        let mut first = Client::connect(gateway.rtsp(), "front").await;
        let uri = first.base.clone();
        assert_eq!(first.request("DESCRIBE", &uri, &[]).await.status, 200);
        let counters = camera.counters();
        assert_eq!((counters.accepted, counters.plays, counters.open), (round, round, 1), "{counters:?}");
        drop(first);
        // Who comes while it lingers finds it open, who leaves before others do does not close it.
        let viewers = [Carrier::Tcp, Carrier::Udp].map(|carrier| Viewer::start(gateway.rtsp(), "front", carrier));
        all_see_more(&viewers, 2).await;
        let [stays, goes] = viewers;
        drop(goes);
        let stays = [stays];
        all_see_more(&stays, 20).await;
        drop(stays);
        let left = std::time::Instant::now();
        let counters = seen(&camera, "it is left", |counters| counters.open == 0).await;
        assert!(left.elapsed() >= linger, "after {:?}", left.elapsed());
        assert_eq!((counters.accepted, counters.teardowns, counters.refused), (round, round, 0), "{counters:?}");
        let mut status = gateway.app.bus().device("front").unwrap().watch_status();
        status.wait_for(|status| status.state == fanlight::bus::State::Idle).await.unwrap();
    }
    // No events: coming and going on demand is nobody's business but the first success.
    let (events, _) = gateway.app.bus().events.since(None);
    assert_eq!(events.len(), 1, "{events:?}");
}

/// Hours-old pictures look live: who comes while the camera is gone waits for it, who watches stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shown_pictures_of_a_camera_that_is_gone() {
    let camera = start(|| options(visitors, "127.0.1.7:0")).await;
    let address = camera.address();
    let entry = format!("  front: {{ source: \"{}\" }}\n", camera.url());
    let gateway = Gateway::start(&entry, Options { pace: quick(), ..Options::default() }).await;
    let staying = [Viewer::start(gateway.rtsp(), "front", Carrier::Tcp)];
    all_see_more(&staying, 3).await;
    let before = gateway.app.bus().device("front").unwrap().main().latest();
    kill(camera).await;
    let stream = Arc::clone(gateway.app.bus().device("front").unwrap().main());
    until("it is gone", || !stream.can_start()).await;
    assert!(stream.newest_key().is_some(), "a still picture may be old");
    let mut late = Client::connect(gateway.rtsp(), "front").await;
    let uri = late.base.clone();
    let asked = tokio::spawn(async move { (late.request("DESCRIBE", &uri, &[]).await.status, late) });
    // Long enough for any answer from the cache.
    tokio::time::sleep(ms(500)).await;
    assert!(!asked.is_finished(), "answered while the camera is gone");
    let camera = start(move || options(visitors, &address.to_string())).await;
    assert_eq!(asked.await.unwrap().0, 200);
    assert_eq!(camera.counters().plays, 1);
    all_see_more(&staying, 3).await;
    assert!(stream.latest() > before, "the timeline goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_streams_on_demand_are_opened_apart() {
    let camera = start(|| CameraOptions { sub: Some(visitors()), ..options(visitors, "127.0.1.7:0") }).await;
    let (main, sub) = (camera.url(), camera.sub_url().unwrap());
    let entry = format!("  front: {{ source: {{ rtsp: {{ url: \"{main}\", sub: \"{sub}\" }} }}, on_demand: true }}\n");
    let options = Options { pace: quick(), linger: ms(200), ..Options::default() };
    let gateway = Gateway::start(&entry, options).await;
    let sub = [Viewer::start(gateway.rtsp(), "front/sub", Carrier::Tcp)];
    all_see_more(&sub, 3).await;
    assert_eq!((camera.counters().accepted, camera.counters().clients), (1, 1));
    let main = [Viewer::start(gateway.rtsp(), "front", Carrier::Tcp)];
    all_see_more(&main, 3).await;
    assert_eq!((camera.counters().accepted, camera.counters().clients), (2, 2));
    drop(sub);
    seen(&camera, "the second stream is left", |counters| counters.clients == 1).await;
    all_see_more(&main, 3).await;
    drop(main);
    seen(&camera, "both are left", |counters| counters.open == 0 && counters.teardowns == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_stream_is_served_where_there_is_one() {
    let camera = start(|| CameraOptions { sub: Some(visitors()), ..options(visitors, "127.0.1.7:0") }).await;
    let (main, sub) = (camera.url(), camera.sub_url().unwrap());
    let entries = format!(
        "  without: {{ source: \"{main}\" }}\n  \
         with: {{ source: {{ rtsp: {{ url: \"{main}\", sub: \"{sub}\" }} }} }}\n  \
         narrow: {{ source: {{ rtsp: {{ url: \"{main}\", sub: \"{sub}\" }} }}, max_connections: 1 }}\n"
    );
    let gateway = Gateway::start(&entries, Options { pace: quick(), ..Options::default() }).await;
    let paths = ["without", "with", "with/sub", "narrow", "narrow/sub"];
    let viewers = paths.map(|path| Viewer::start(gateway.rtsp(), path, Carrier::Tcp));
    all_see_more(&viewers, 3).await;
    for path in ["without/sub", "nobody", "with/sub/sub", "with/main"] {
        let mut client = Client::connect(gateway.rtsp(), path).await;
        let uri = client.base.clone();
        assert_eq!(client.request("DESCRIBE", &uri, &[]).await.status, 404, "{path}");
    }
    assert_eq!(camera.counters().clients, 4);
    assert_eq!(gateway.camera("narrow").await["viewers"]["rtsp"], 2);
}
