//! The whole gateway: started, changed by a reload, and ended in order.

use crate::support::camera::{Camera, Options as CameraOptions, VIDEO};
use crate::support::rtsp_client::Client;
use crate::support::{PATIENCE, http, until};
use fanlight::app::{App, Options, StartError};
use fanlight::config::{self, Config};
use fanlight::ingest::supervisor::Pace;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// A configuration with these cameras, everything else on port 0.
fn configuration(auth: &str, cameras: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanlight.yaml");
    let text = format!(
        "http: {{ listen: \"127.0.0.1:0\" }}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\nwebrtc: {{ listen: \"127.0.0.1:0\" }}\n{auth}\ncameras:\n{cameras}"
    );
    std::fs::write(&file, text).unwrap();
    config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn camera(name: &str, camera: &Camera, more: &str) -> String {
    format!("  {name}: {{ source: \"{}\"{more} }}\n", camera.url())
}

async fn device() -> Camera {
    Camera::start(CameraOptions { media: VIDEO, max_clients: 1, ..CameraOptions::default() }).await
}

async fn start(config: Config) -> App {
    let step = (Duration::from_millis(20), Duration::from_millis(50));
    let pace = Pace { lost: step, busy: step, ..Pace::default() };
    App::start(config, Options { pace, ..Options::default() }).await.unwrap()
}

fn http_of(app: &App) -> SocketAddr {
    app.addresses().http[0]
}

async fn viewer(app: &App, path: &str) -> Client {
    let mut viewer = Client::connect(app.addresses().rtsp[0], path).await;
    viewer.play().await;
    viewer.frame().await;
    viewer
}

/// Reads on until the server closes.
async fn ended(viewer: &mut Client) {
    tokio::time::timeout(PATIENCE, async { while viewer.frame_or_end().await.is_some() {} }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_all_and_the_end_is_told_to_both_sides() {
    let front = device().await;
    let app = start(configuration("auth: none", &camera("front", &front, ""))).await;
    let mut viewers = Vec::new();
    for _ in 0..5 {
        viewers.push(viewer(&app, "front").await);
    }
    let json = http::json(http_of(&app), "/v1/cameras/front").await;
    assert_eq!(json["state"], "online");
    assert_eq!(json["upstream_connections"], 1);
    assert_eq!(json["viewers"]["rtsp"], 5);
    assert_eq!(http::get(http_of(&app), "/readyz").await.0, 200);
    assert_eq!((front.seen.peak.load(SeqCst), front.seen.count("DESCRIBE")), (1, 1));

    let http = http_of(&app);
    let begin = Instant::now();
    app.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    for viewer in &mut viewers {
        ended(viewer).await;
    }
    assert_eq!(front.seen.count("TEARDOWN"), 1);
    assert!(tokio::net::TcpStream::connect(http).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_touches_only_what_differs() {
    let (same, changed, removed, added) = (device().await, device().await, device().await, device().await);
    let before = camera("same", &same, "") + &camera("changed", &changed, "") + &camera("removed", &removed, "");
    let mut app = start(configuration("auth: none", &before)).await;
    let mut of_same = viewer(&app, "same").await;
    let mut of_changed = viewer(&app, "changed").await;
    let mut of_removed = viewer(&app, "removed").await;

    let after = camera("same", &same, "")
        + &camera("changed", &changed, ", max_connections: 2")
        + &camera("added", &added, ", on_demand: true");
    app.reload(configuration("auth: none", &after)).await;
    ended(&mut of_removed).await;
    // The viewer of the changed camera goes on with pictures of the new session, over the same connection.
    until("the changed camera was opened again", || changed.seen.count("PLAY") == 2).await;
    let describe = http::json(http_of(&app), "/v1/cameras/changed").await;
    assert_eq!((&describe["viewers"]["rtsp"], &describe["upstream_limit"]), (&1.into(), &2.into()));
    assert_eq!(changed.seen.count("TEARDOWN"), 1);
    for viewer in [&mut of_same, &mut of_changed] {
        for _ in 0..500 {
            viewer.frame().await;
        }
    }
    assert_eq!((same.seen.count("DESCRIBE"), same.seen.count("TEARDOWN")), (1, 0));
    until("the removed camera was told goodbye", || removed.seen.count("TEARDOWN") == 1).await;
    until("and left alone", || removed.seen.open.load(SeqCst) == 0).await;
    assert_eq!(http::get(http_of(&app), "/v1/cameras/removed").await.0, 404);
    assert_eq!(http::json(http_of(&app), "/v1/cameras/added").await["name"], "added");
    drop(viewer(&app, "added").await);
    app.stop().await;
    until("all are closed", || [&same, &changed, &added].iter().all(|camera| camera.seen.open.load(SeqCst) == 0)).await;
}

#[tokio::test]
async fn a_mistake_in_the_configuration_changes_nothing_but_the_metric() {
    let front = device().await;
    let mut app = start(configuration("auth: none", &camera("front", &front, ""))).await;
    until("the camera plays", || front.seen.count("PLAY") == 1).await;
    let ok = async |app: &App, value: u8| {
        let (_, metrics) = http::get(http_of(app), "/metrics").await;
        assert!(metrics.contains(&format!("\nfanlight_config_ok {value}\n")), "{metrics}");
    };
    ok(&app, 1).await;
    app.keep();
    ok(&app, 0).await;
    assert_eq!(http::get(http_of(&app), "/v1/cameras/front").await.0, 200);
    app.reload(configuration("auth: none", &camera("front", &front, ""))).await;
    ok(&app, 1).await;
    assert_eq!(front.seen.count("DESCRIBE"), 1);
    app.stop().await;
}

#[tokio::test]
async fn users_are_swapped_and_sessions_of_removed_ones_end() {
    let front = device().await;
    let users = |key: &str| format!("users: [{{ name: frigate, role: viewer, stream_key: {key} }}]");
    let first = users("a-key-of-24-characters-1");
    let mut app = start(configuration(&first, &camera("front", &front, ""))).await;
    assert_eq!(http::get(http_of(&app), "/v1/cameras").await.0, 401);
    let mut viewer = Client::connect(app.addresses().rtsp[0], "front").await;
    let basic = |key: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("frigate:{key}")))
    };
    let login = basic("a-key-of-24-characters-1");
    let authorization = ("Authorization", login.as_str());
    let uri = viewer.base.clone();
    assert_eq!(viewer.request("DESCRIBE", &uri, &[]).await.status, 401);
    assert_eq!(viewer.request("DESCRIBE", &uri, &[authorization]).await.status, 200);
    let transport = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
    let setup = viewer.request("SETUP", &format!("{uri}/trackID=0"), &[authorization, transport]).await;
    assert_eq!(setup.status, 200);
    assert_eq!(viewer.request("PLAY", &uri, &[authorization]).await.status, 200);
    viewer.frame().await;

    app.reload(configuration(&users("a-key-of-24-characters-2"), &camera("front", &front, ""))).await;
    ended(&mut viewer).await;
    let mut again = Client::connect(app.addresses().rtsp[0], "front").await;
    assert_eq!(again.request("DESCRIBE", &uri, &[authorization]).await.status, 401);
    app.stop().await;
}

#[tokio::test]
async fn without_users_only_this_machine_is_served() {
    let mut config = configuration("auth: users", "  {}\n");
    config.http.listen = vec!["0.0.0.0:0", "127.0.0.1:0"].into_iter().filter_map(config::Listen::parse).collect();
    config.rtsp.listen = config.http.listen.clone();
    let app = start(config.clone()).await;
    for address in app.addresses().http.iter().chain(&app.addresses().rtsp) {
        assert!(address.ip().is_loopback(), "{address}");
    }
    app.stop().await;
    config.auth = config::Auth::None;
    let app = start(config).await;
    assert!(app.addresses().rtsp[0].ip().is_unspecified());
    app.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_helps() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut config = configuration("auth: none", "  {}\n");
    config.rtsp.listen = vec![config::Listen::parse(&format!("127.0.0.1:{port}")).unwrap()];
    match App::start(config, Options::default()).await {
        Err(StartError::Port(error)) => {
            let text = error.to_string();
            assert!(text.contains(&format!("port {port} of `rtsp: listen`")) && text.contains("is free"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}
