//! The configuration is read again: what stays the same is not touched, what changes says goodbye first.

use super::process::Process;
use super::viewers::{Carrier, Viewer, all_see_more};
use super::{CameraOptions, Gateway, OPEN, Options, get, options, quick, seen, start, street, visitors};
use crate::support::camera::{Act, Camera as Scripted, Options as Script};
use crate::support::rtsp_client::Client;
use crate::support::{PATIENCE, until};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fanlight::bus::State;
use std::sync::atomic::Ordering::SeqCst;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_cameras_are_untouched_and_changed_ones_say_goodbye_first() {
    let one_client = || CameraOptions { max_clients: Some(1), ..options(visitors, "127.0.1.5:0") };
    let (same, changed, removed) = (start(one_client).await, start(one_client).await, start(one_client).await);
    let (same_url, url) = (same.url(), changed.url());
    let before = format!(
        "  same: {{ source: \"{same_url}\" }}\n  changed: {{ source: \"{url}\" }}\n  removed: {{ source: \"{}\" }}\n",
        removed.url()
    );
    let mut gateway = Gateway::start(&before, Options { pace: quick(), ..Options::default() }).await;
    let viewer = |name| Viewer::start(gateway.rtsp(), name, Carrier::Tcp);
    let staying = [viewer("same"), viewer("changed"), Viewer::start(gateway.rtsp(), "changed", Carrier::Udp)];
    let leaving = [viewer("removed")];
    all_see_more(&staying, 3).await;
    all_see_more(&leaving, 3).await;

    // The same camera, written another way: another entry, hence another session.
    let after = format!(
        "  changed: {{ source: {{ rtsp: {{ url: \"{url}?again\" }} }} }}\n  same: {{ source: \"{same_url}\" }}\n  \
         new: {{ source: \"{same_url}\", on_demand: true }}\n"
    );
    gateway.reload(&after).await;
    for viewer in &leaving {
        viewer.is_ended().await;
    }
    seen(&removed, "it is left", |counters| counters.open == 0 && counters.teardowns == 1).await;
    let counters = seen(&changed, "it is opened again", |counters| counters.plays == 2).await;
    assert_eq!((counters.teardowns, counters.refused, counters.accepted), (1, 0, 2), "{counters:?}");
    all_see_more(&staying, 15).await;
    let counters = same.counters();
    assert_eq!((counters.accepted, counters.describes, counters.teardowns), (1, 1, 0), "{counters:?}");
    assert_eq!(gateway.camera("changed").await["viewers"]["rtsp"], 2, "viewers that stayed count");
    assert_eq!(get(gateway.http(), "/v1/cameras/removed", "").await.0, 404);
    assert_eq!(gateway.camera("new").await["state"], "idle");
    let mut late = Client::connect(gateway.rtsp(), "removed").await;
    let uri = late.base.clone();
    assert_eq!(late.request("DESCRIBE", &uri, &[]).await.status, 404);
    drop(staying);
    until("those who leave later are counted out", || {
        gateway.app.bus().device("changed").unwrap().viewers.rtsp.load(SeqCst) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_of_a_second_stream_that_is_gone_are_ended_and_come_back_to_the_main_one() {
    let camera = start(|| CameraOptions { sub: Some(visitors()), ..options(visitors, "127.0.1.5:0") }).await;
    let (main, sub) = (camera.url(), camera.sub_url().unwrap());
    let with = |max: usize| {
        format!("  front: {{ source: {{ rtsp: {{ url: \"{main}\", sub: \"{sub}\" }} }}, max_connections: {max} }}\n")
    };
    let mut gateway = Gateway::start(&with(2), Options { pace: quick(), ..Options::default() }).await;
    let viewers = ["front", "front/sub"].map(|path| Viewer::start(gateway.rtsp(), path, Carrier::Tcp));
    all_see_more(&viewers, 3).await;
    assert_eq!(camera.counters().clients, 2);
    gateway.reload(&with(1)).await;
    viewers[1].is_ended().await;
    let goal = viewers[0].pictures() + 15;
    viewers[0].sees(goal).await;
    let again = [Viewer::start(gateway.rtsp(), "front/sub", Carrier::Tcp)];
    all_see_more(&again, 3).await;
    let counters = camera.counters();
    assert_eq!((counters.clients, counters.plays), (1, 3), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_stay_as_long_as_the_codec_does() {
    let first = start(|| options(visitors, "127.0.1.5:0")).await;
    let second = start(|| options(street, "127.0.1.5:0")).await;
    let third = start(|| {
        use fanlight::simulate::rtsp::{Audio, Clip, Footage, Video};
        let clip = Clip::load(&Footage::Visitors, Video::Jpeg, Audio::None).unwrap();
        CameraOptions { main: clip, ..options(visitors, "127.0.1.5:0") }
    })
    .await;
    let source = |url: String| format!("  front: {{ source: \"{url}\" }}\n");
    let mut gateway = Gateway::start(&source(first.url()), Options { pace: quick(), ..Options::default() }).await;
    let viewers = [Viewer::start(gateway.rtsp(), "front", Carrier::Tcp)];
    all_see_more(&viewers, 3).await;
    // Another device altogether, of another size and with sound; pictures are H.264 still.
    gateway.reload(&source(second.url())).await;
    seen(&second, "it is opened", |counters| counters.plays == 1).await;
    all_see_more(&viewers, 15).await;
    // JPEG cannot go on as H.264.
    gateway.reload(&source(third.url())).await;
    viewers[0].is_ended().await;
    let again = [Viewer::start(gateway.rtsp(), "front", Carrier::Tcp)];
    all_see_more(&again, 3).await;
}

/// By SIGHUP, as an administrator does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_changes_nothing_and_a_good_one_sends_removed_users_away() {
    let camera = start(|| CameraOptions { max_clients: Some(1), ..options(visitors, "127.0.1.5:0") }).await;
    let config = |users: &str| {
        let open = OPEN.replace("auth: none\n", &format!("users:\n{users}"));
        format!("{open}  front: {{ source: \"{}\" }}\n", camera.url())
    };
    let user = |name: &str, key: &str| format!("  - {{ name: {name}, role: viewer, stream_key: {key} }}\n");
    let (stays, goes) = (user("stays", "stays-key-1234567"), user("goes", "goes-key-12345678"));
    let monitor = {
        let hash = fanlight::access::password::hash("monitor-password").unwrap();
        format!("  - {{ name: monitor, role: admin, password_hash: \"{hash}\" }}\n")
    };
    let login = format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode("monitor:monitor-password"));
    let process = Process::start(&config(&format!("{monitor}{stays}{goes}")), |_, _| {}).await;
    let play = async |name: &str, key: &str| {
        let mut client = Client::connect(process.rtsp(), "front").await;
        client.authorization = Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{key}"))));
        client.play().await;
        client
    };
    let mut staying = play("stays", "stays-key-1234567").await;
    let mut going = play("goes", "goes-key-12345678").await;
    going.rtp(0).await;
    let config_ok = async || {
        let (_, metrics) = get(process.http(), "/metrics", &login).await;
        metrics.lines().find(|line| line.starts_with("fanlight_config_ok")).unwrap().to_owned()
    };
    assert_eq!(config_ok().await, "fanlight_config_ok 1");

    // Two mistakes, both told, nothing changed: the one user that this file names would have been another.
    let broken = config(&user("other", "other-key-1234567")).replace("source:", "sorce:");
    process.reload(&format!("{broken}colour: blue\n"));
    until("it is told", || !process.lines("ERROR", "nothing was changed").is_empty()).await;
    assert_eq!(config_ok().await, "fanlight_config_ok 0");
    let mistakes = process.lines("ERROR", "fanlight.yaml:");
    assert!(mistakes.len() >= 2 && mistakes.iter().any(|line| line.contains("colour")), "{mistakes:?}");
    for _ in 0..20 {
        staying.rtp(0).await;
        going.rtp(0).await;
    }

    process.reload(&config(&format!("{monitor}{stays}")));
    until("it is told", || !process.lines("INFO", "the configuration was read again").is_empty()).await;
    while going.frame_or_end().await.is_some() {}
    assert_eq!(config_ok().await, "fanlight_config_ok 1");
    for _ in 0..20 {
        staying.rtp(0).await;
    }
    let counters = camera.counters();
    assert_eq!((counters.accepted, counters.teardowns), (1, 0), "{counters:?}");
}

/// A camera that ignores the goodbye keeps its connection for a while; who is renamed, removed and added again, or
/// changed meanwhile, waits for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reloads_never_opens_a_second_connection() {
    let acts = vec![Act::Hang("TEARDOWN"), Act::Play, Act::Hang("TEARDOWN"), Act::Play];
    let camera = Scripted::start(Script { acts, max_clients: 1, ..Script::default() }).await;
    let entry = |name: &str, more: &str| format!("  {name}: {{ source: \"{}\"{more} }}\n", camera.url());
    let mut gateway = Gateway::start(&entry("front", ""), Options { pace: quick(), ..Options::default() }).await;
    online(&gateway, "front").await;
    gateway.reload("  other: { source: \"rtsp://127.0.1.5:9/none\" }\n").await;
    gateway.reload(&entry("porch", "")).await;
    online(&gateway, "porch").await;
    for round in 0..12 {
        let more = ["", ", on_demand: true"][round % 2];
        let name = ["porch", "front"][round / 3 % 2];
        gateway.reload(&entry(name, more)).await;
        if round % 4 == 0 {
            online(&gateway, name).await;
        }
    }
    gateway.reload(&entry("front", "")).await;
    online(&gateway, "front").await;
    assert_eq!(camera.seen.refused.load(SeqCst), 0);
    assert!(camera.seen.connections.load(SeqCst) >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_limit_holds_before_the_old_connections_are_closed() {
    let acts = vec![Act::Hang("TEARDOWN"), Act::Hang("TEARDOWN"), Act::Play];
    let camera = Scripted::start(Script { acts, max_clients: 2, ..Script::default() }).await;
    let entry = |max: usize| format!("  front: {{ source: \"{}\", max_connections: {max} }}\n", camera.url());
    let mut gateway = Gateway::start(&entry(1), Options { pace: quick(), ..Options::default() }).await;
    online(&gateway, "front").await;
    // The second one is allowed beside the first, which does not go.
    gateway.reload(&entry(2)).await;
    until("the second is open", || camera.seen.count("PLAY") == 2).await;
    // And now both have to go before a third may come.
    gateway.reload(&entry(1)).await;
    until("the third is open", || camera.seen.count("PLAY") == 3).await;
    assert_eq!((camera.seen.open.load(SeqCst), camera.seen.peak.load(SeqCst)), (1, 2));
    assert_eq!(gateway.camera("front").await["upstream_connections"], 1);
}

async fn online(gateway: &Gateway, name: &str) {
    let mut status = gateway.app.bus().device(name).unwrap().watch_status();
    let online = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.state == State::Online)).await;
    online.unwrap_or_else(|_| panic!("{name} does not come online")).unwrap();
}
