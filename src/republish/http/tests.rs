use super::*;
use crate::bus::{Command, CommandError, CommandInfo, CommandRequest, Device, DeviceOptions, Reason, ReasonCode};
use crate::bus::{Limits as RingLimits, State as DeviceState, Stream, SubStream, Upstream};
use crate::media::{AccessUnit, AudioFormat, Codec, Format, MediaTime, TrackInfo, VideoFormat};
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(super) fn device(name: &str) -> Arc<Device> {
    Device::new(DeviceOptions {
        name: name.into(),
        family: "rtsp",
        main: Stream::new(name, RingLimits::default()),
        sub: SubStream::Own(Stream::new(format!("{name}/sub"), RingLimits::default())),
        upstream: Upstream::new(3),
        viewers: Arc::default(),
    })
}

fn online(name: &str) -> Arc<Device> {
    let device = device(name);
    let video = TrackInfo {
        codec: Codec::H264,
        clock_rate: 90_000,
        format: Format::Video(VideoFormat { width: 1280, height: 720, pixel_aspect: (4, 3), ..VideoFormat::default() }),
    };
    let audio = TrackInfo { codec: Codec::Pcmu, clock_rate: 8000, format: Format::Audio(AudioFormat::default()) };
    let ids = device.main().announce(&[video.clone(), audio]);
    for index in 0..26 {
        let time = MediaTime::START + Duration::from_millis(40 * index);
        let unit = AccessUnit {
            pts: time,
            dts: time,
            random_access: index == 0,
            discontinuity: false,
            info: Arc::new(video.clone()),
            payload: Bytes::from_static(b"0123456789"),
        };
        device.main().publish(ids[0], unit);
    }
    device.sub().unwrap().announce(&[TrackInfo { format: Format::Video(VideoFormat::default()), ..video }]);
    device.set_status(DeviceState::Online, None);
    device
}

pub(super) fn options() -> config::Http {
    config::Config::default().http
}

/// The state of a gateway with one camera and two users.
pub(super) fn state() -> HttpState {
    gateway().state
}

pub(super) struct Gateway {
    pub(super) state: HttpState,
    pub(super) router: Router,
    /// Ends what lasts.
    pub(super) cancel: CancellationToken,
}

pub(super) fn gateway_with(options: config::Http, access: Access) -> Gateway {
    let bus = Bus::new();
    bus.add(online("front"));
    let health = Arc::new(Health::default());
    std::mem::forget(health.listener("http", ([127, 0, 0, 1], 8484).into()));
    let rtsp = Arc::from([SocketAddr::from(([0, 0, 0, 0], 18554))]);
    let transcoder = Arc::default();
    let cancel = CancellationToken::new();
    let outputs = Outputs::new(&bus, &transcoder, cancel.clone());
    let state = HttpState {
        bus: Arc::clone(&bus),
        access: Arc::new(access),
        health,
        rtsp,
        rtsps: Arc::default(),
        rtsp_statistics: Arc::default(),
        webrtc: None,
        transcoder,
        // Tables of tests ask more than any viewer.
        whep: Arc::new(Whep::new(WhepLimits { offers: 100_000, changes: 100_000, ..WhepLimits::default() })),
        outputs,
        options: Arc::new(options),
        families: Arc::new(crate::ingest::Doors::default()).routes(&bus),
    };
    Gateway { router: router(state.clone()), state, cancel }
}

pub(super) fn gateway() -> Gateway {
    gateway_with(options(), testing::users())
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: axum::http::HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], status);
        assert_eq!(json["type"], "about:blank");
        json["detail"].as_str().unwrap().to_owned()
    }
}

pub(super) async fn answer(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

impl Gateway {
    /// The answer as it begins.
    pub(super) async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "fan.lan:8484");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(([192, 0, 2, 9], 40_000).into()));
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        answer(self.open(method, path, headers).await).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[("authorization", testing::ADMIN)]).await
    }

    pub(super) fn front(&self) -> Arc<Device> {
        self.state.bus.device("front").unwrap()
    }
}

/// Seen: 512 of them closed the listener to everybody else.
#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_given_up() {
    let gateway = gateway();
    let never = futures::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
    let request =
        Request::post("/v1/session").header("host", "fan.lan:8484").header("content-type", "application/json");
    let mut request = request.body(Body::from_stream(never)).unwrap();
    request.extensions_mut().insert(Peer(([192, 0, 2, 9], 40_000).into()));
    let answer = answer(gateway.router.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(answer.status, 408);
    assert!(answer.body.contains("within 10 s"), "{}", answer.body);
}

#[tokio::test]
async fn a_camera_is_described_as_promised() {
    let gateway = gateway();
    let front = gateway.front();
    front.viewers.rtsp.store(2, std::sync::atomic::Ordering::Relaxed);
    let answer = gateway.get("/v1/cameras/front").await;
    assert_eq!(answer.status, 200);
    let mut json = answer.json();
    let since = json["since"].take();
    let since: jiff::Timestamp = since.as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(since).as_secs() < 60);
    assert!(json["last_frame_age_ms"].take().as_u64().unwrap() < 60_000);
    assert_eq!(
        json,
        serde_json::json!({
            "name": "front", "family": "rtsp", "state": "online", "reason": null, "reason_code": null, "since": null,
            "on_demand": false, "sub": true,
            "tracks": [
                { "stream": "front", "kind": "video", "codec": "h264", "width": 1280, "height": 720,
                  "pixel_aspect": [4, 3], "fps": 25.0, "native": true },
                { "stream": "front", "kind": "audio", "codec": "pcmu", "width": null, "height": null,
                  "pixel_aspect": null, "fps": null, "native": true },
                { "stream": "front/sub", "kind": "video", "codec": "h264", "width": null, "height": null,
                  "pixel_aspect": null, "fps": 0.0, "native": true }
            ],
            "upstream_connections": 0, "upstream_limit": 3, "viewers": { "rtsp": 2, "webrtc": 0, "mjpeg": 0 },
            "frames": 26, "bytes": 260, "lost": 0, "last_frame_age_ms": null, "commands": []
        })
    );
    let list = gateway.get("/v1/cameras").await.json();
    assert_eq!(list["cameras"][0]["name"], "front");
}

#[tokio::test]
async fn a_reason_is_shown() {
    let gateway = gateway();
    let text = "all places are taken; close another app".to_owned();
    gateway.front().set_status(DeviceState::Offline, Some(Reason { code: ReasonCode::Busy, text }));
    let json = gateway.get("/v1/cameras/front").await.json();
    assert_eq!(json["state"], "offline");
    assert_eq!(json["reason"], "all places are taken; close another app");
    assert_eq!(json["reason_code"], "busy");
}

#[tokio::test]
async fn everything_but_healthz_and_options_needs_a_user() {
    let gateway = gateway();
    for path in ["/", "/v1/cameras", "/v1/cameras/front", "/metrics", "/readyz", "/nothing", "/camera/front"] {
        let answer = gateway.ask("GET", path, &[]).await;
        answer.problem(401);
        assert_eq!(answer.header("www-authenticate"), r#"Basic realm="Fanlight", charset="UTF-8""#);
    }
    gateway.ask("POST", "/v1/cameras/front/commands/reboot", &[]).await.problem(401);
    for _ in 0..20 {
        let wrong = format!("Bearer {}", rand::random::<u64>());
        gateway.ask("GET", "/v1/cameras", &[("authorization", &wrong)]).await;
    }
    let answer = gateway.ask("GET", "/v1/cameras", &[("authorization", "Bearer guessed-again")]).await;
    answer.problem(429);
    assert_eq!(answer.header("retry-after"), "60");
    assert_eq!(gateway.ask("GET", "/healthz", &[]).await.body, "ok\n");
    assert_eq!(gateway.ask("GET", "/healthz", &[("host", "")]).await.status, 200);
    let options = gateway.ask("OPTIONS", "/v1/cameras", &[]).await;
    assert_eq!((options.status.as_u16(), options.header("allow")), (204, "GET,HEAD"));
}

#[tokio::test]
async fn errors_are_problems() {
    let gateway = gateway();
    assert_eq!(gateway.get("/nothing").await.problem(404), "there is nothing at /nothing");
    assert_eq!(gateway.get("/v1/cameras/back").await.problem(404), "there is no camera named \"back\"");
    gateway.get("/v1/cameras/%ff").await.problem(400);
    let admin = ("authorization", testing::ADMIN);
    let answer = gateway.ask("DELETE", "/v1/cameras", &[admin]).await;
    answer.problem(405);
    assert_eq!(answer.header("allow"), "GET,HEAD");
    gateway.ask("POST", "/v1/cameras/front/commands/x", &[admin, ("content-length", "9999999")]).await.problem(413);
    for host in ["", "a b", "<x>", "fan:port"] {
        gateway.ask("GET", "/v1/cameras", &[admin, ("host", host)]).await.problem(400);
    }
    let head = gateway.ask("HEAD", "/v1/cameras", &[admin]).await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn foreign_errors_and_panics_become_problems_too() {
    let state = gateway().state;
    let routes = Router::new()
        .route("/panic", routing::get(|| async { panic!("a secret place") as &str }))
        .route("/plain", routing::get(|| async { (StatusCode::UNSUPPORTED_MEDIA_TYPE, "only JSON, please") }))
        .route("/bare", routing::get(|| async { StatusCode::UNSUPPORTED_MEDIA_TYPE }))
        .route("/ours", routing::get(|| async { (StatusCode::BAD_GATEWAY, "internal detail") }));
    let gateway =
        Gateway { router: guarded(routes, Router::new(), state.clone()), state, cancel: CancellationToken::new() };
    assert!(!gateway.get("/panic").await.problem(500).contains("secret"));
    assert_eq!(gateway.get("/plain").await.problem(415), "only JSON, please");
    assert_eq!(gateway.get("/bare").await.problem(415), "this path does not take a body of that content type");
    assert!(!gateway.get("/ours").await.problem(502).contains("internal"));
}

#[tokio::test]
async fn readyz_tells_which_listener_is_down() {
    let gateway = gateway();
    let guard = gateway.state.health.listener("rtsp", ([127, 0, 0, 1], 8554).into());
    assert_eq!(gateway.get("/readyz").await.json()["listeners"][1]["address"], "127.0.0.1:8554");
    drop(guard);
    assert_eq!(gateway.get("/readyz").await.problem(503), "not listening any more: rtsp");
    // A health check has no password.
    assert_eq!(gateway.ask("GET", "/readyz", &[]).await.problem(503), "not listening any more: rtsp");
}

#[tokio::test]
async fn the_playlist_names_the_host_that_was_asked() {
    let gateway = gateway();
    let admin = ("authorization", testing::ADMIN);
    for (host, location) in [
        ("fan.lan:8484", "rtsp://admin@fan.lan:18554/front"),
        ("192.0.2.1", "rtsp://admin@192.0.2.1:18554/front"),
        ("[::1]:8484", "rtsp://admin@[::1]:18554/front"),
    ] {
        let answer = gateway.ask("GET", "/v1/cameras/front/stream.xspf", &[admin, ("host", host)]).await;
        assert_eq!(answer.header("content-type"), "application/xspf+xml");
        assert!(answer.body.contains(&format!("<location>{location}</location>")), "{}", answer.body);
    }
    gateway.get("/v1/cameras/back/stream.xspf").await.problem(404);
}

fn offer(device: &Arc<Device>, answer: Result<(), CommandError>) {
    let (sender, mut receiver) = mpsc::channel::<CommandRequest>(1);
    let command = Command::OpenDoor(Some("2".into()));
    let info = CommandInfo { name: "open_door/2".into(), title: "Back door".into(), command };
    device.serve_commands(vec![info], Some(sender));
    tokio::spawn(async move {
        while let Some(request) = receiver.recv().await {
            assert_eq!(request.command, Command::OpenDoor(Some("2".into())));
            let _ = request.answer.send(answer.clone());
        }
    });
}

#[tokio::test]
async fn commands_are_declared_and_for_administrators() {
    let gateway = gateway();
    let path = "/v1/cameras/front/commands/open_door/2";
    let (admin, viewer) = (("authorization", testing::ADMIN), ("authorization", testing::VIEWER));
    gateway.ask("POST", path, &[admin]).await.problem(404);
    offer(&gateway.front(), Ok(()));
    let answer = gateway.ask("POST", path, &[admin]).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, r#"{"result":"done"}"#));
    gateway.ask("POST", path, &[viewer]).await.problem(403);
    gateway.ask("POST", "/v1/cameras/front/commands/open_door", &[admin]).await.problem(404);
    gateway.ask("POST", "/v1/cameras/back/commands/open_door/2", &[admin]).await.problem(404);
    assert_eq!(gateway.get(path).await.problem(405), format!("{path} does not take this method; see the Allow header"));
    let json = gateway.get("/v1/cameras/front").await.json();
    assert_eq!(json["commands"], serde_json::json!([{ "name": "open_door/2", "title": "Back door" }]));
}

#[tokio::test]
async fn what_became_of_a_command_is_told() {
    let gateway = gateway();
    let path = "/v1/cameras/front/commands/open_door/2";
    for (answer, status, result) in [
        (Err(CommandError::Refused("the door is locked from inside".into())), 409, "refused"),
        (Err(CommandError::Absent), 503, "absent"),
        (Err(CommandError::Unknown), 504, "unknown"),
    ] {
        offer(&gateway.front(), answer);
        let answer = gateway.ask("POST", path, &[("authorization", testing::ADMIN)]).await;
        let detail = answer.problem(status);
        assert_eq!(answer.json()["result"], result);
        assert!(status != 409 || detail.contains("locked from inside"));
    }
    gateway.front().serve_commands(Vec::new(), None);
    gateway.front().set_status(DeviceState::Offline, None);
    assert_eq!(gateway.ask("POST", path, &[("authorization", testing::ADMIN)]).await.problem(503), "front is offline");
}

#[tokio::test]
async fn other_origins_get_nothing_unless_listed() {
    let listed = config::Http { allow_origins: vec!["https://ha.example.net".into()], ..options() };
    let gateway = gateway_with(listed, testing::users());
    offer(&gateway.front(), Ok(()));
    let admin = ("authorization", testing::ADMIN);
    let path = "/v1/cameras/front/commands/open_door/2";
    for (origin, status) in [
        ("http://fan.lan:8484", 200),
        ("https://ha.example.net", 200),
        ("http://fan.lan", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let answer = gateway.ask("POST", path, &[admin, ("origin", origin)]).await;
        assert_eq!(answer.status, status, "{origin}");
    }
    assert_eq!(gateway.ask("POST", path, &[admin, ("sec-fetch-site", "cross-site")]).await.status, 403);

    let read = async |origin| gateway.ask("GET", "/v1/cameras", &[admin, ("origin", origin)]).await;
    assert_eq!(read("https://ha.example.net").await.header("access-control-allow-origin"), "https://ha.example.net");
    assert_eq!(read("https://evil.example").await.header("access-control-allow-origin"), "");
    for (referer, policy) in [("https://ha.example.net/", "cross-origin"), ("https://evil.example/", "same-origin")] {
        let picture = gateway.ask("GET", "/assets/icon.svg", &[admin, ("referer", referer)]).await;
        assert_eq!(picture.header("cross-origin-resource-policy"), policy);
    }
    let preflight = [("origin", "https://ha.example.net"), ("access-control-request-method", "POST")];
    let answer = gateway.ask("OPTIONS", path, &preflight).await;
    assert!(answer.status.is_success());
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(answer.header("content-security-policy").contains("frame-ancestors 'self' https://ha.example.net"));
}

#[tokio::test]
async fn a_page_that_points_its_name_here_gets_nothing() {
    let open = || testing::open();
    let gateway = gateway_with(options(), open());
    assert_eq!(gateway.ask("GET", "/v1/cameras", &[("host", "localhost:8484")]).await.status, 200);
    gateway.ask("GET", "/v1/cameras", &[("host", "evil.example")]).await.problem(421);
    let hosts = config::Http { hosts: vec!["fan.example.net".into()], ..options() };
    let gateway = gateway_with(hosts, open());
    assert_eq!(gateway.ask("GET", "/v1/cameras", &[("host", "Fan.Example.net")]).await.status, 200);
    gateway.ask("GET", "/v1/cameras", &[("host", "evil.example")]).await.problem(421);
}

#[tokio::test]
async fn browsers_are_told_to_be_careful() {
    let gateway = gateway();
    for (path, policy, caching) in [
        ("/", "default-src 'none'; script-src 'self'; style-src 'self'", "no-cache"),
        ("/camera/front", "default-src 'none'; script-src 'self'; style-src 'self'", "no-cache"),
        ("/v1/cameras", "default-src 'none'; frame", "no-store"),
    ] {
        let answer = gateway.get(path).await;
        assert!(answer.header("content-security-policy").starts_with(policy));
        assert!(answer.header("content-security-policy").ends_with("frame-ancestors 'self'"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), caching);
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let page = gateway.get("/camera/front").await;
    assert!(page.body.contains(r#"data-rtsp-port="18554" data-rtsps-port="""#));
    let tag = page.header("etag").to_owned();
    let headers = [("authorization", testing::ADMIN), ("if-none-match", tag.as_str())];
    let again = gateway.ask("GET", "/camera/front", &headers).await;
    assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""));
    let version = gateway.get("/assets/version").await.body;
    assert!(page.body.contains(&format!("data-version=\"{version}\"")));
    assert_eq!(gateway.get("/assets/js/wall.js").await.header("content-type"), "text/javascript; charset=utf-8");
    gateway.get("/assets/../Cargo.toml").await.problem(404);
}

#[tokio::test]
async fn metrics_count() {
    let gateway = gateway();
    gateway.state.health.set_config_ok(false);
    gateway.front().viewers.rtsp.store(3, std::sync::atomic::Ordering::Relaxed);
    gateway.state.rtsp_statistics.dropped.store(4, std::sync::atomic::Ordering::Relaxed);
    let answer = gateway.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "fanlight_config_ok 0",
        "fanlight_listener_up{listener=\"http\",address=\"127.0.0.1:8484\"} 1",
        "fanlight_camera_up{camera=\"front\"} 1",
        "fanlight_camera_state{camera=\"front\",state=\"online\"} 1",
        "fanlight_camera_state{camera=\"front\",state=\"offline\"} 0",
        "fanlight_frames_total{camera=\"front\",stream=\"front\"} 26",
        "fanlight_bytes_total{camera=\"front\",stream=\"front\"} 260",
        "fanlight_lost_total{camera=\"front\",stream=\"front/sub\"} 0",
        "fanlight_upstream_connections{camera=\"front\"} 0",
        "fanlight_upstream_limit{camera=\"front\"} 3",
        "fanlight_rtsp_dropped_total 4",
        "fanlight_viewers{camera=\"front\",kind=\"rtsp\"} 3",
        "fanlight_viewers{camera=\"front\",kind=\"mjpeg\"} 0",
        "fanlight_mjpeg_pictures_total 0",
        "fanlight_event_listeners 0",
    ] {
        assert!(answer.body.lines().any(|written| written == line), "{line} in\n{}", answer.body);
    }
    assert!(answer.body.contains("process_resident_memory_bytes "));
}

/// Users for these tests.
pub(super) mod testing {
    use crate::access::{Access, Auth, Role, User, password};
    use crate::config::Secret;

    pub(in super::super) const ADMIN: &str = "Bearer admin-password";
    pub(in super::super) const VIEWER: &str = "Bearer viewer-password";

    fn user(name: &str, role: Role) -> User {
        let little = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None).unwrap();
        let hash = password::hash_with(&format!("{name}-password"), little).unwrap();
        User { name: name.into(), role, password_hash: Some(Secret::new(hash)), stream_key: None }
    }

    pub(in super::super) fn list() -> Vec<User> {
        static LIST: std::sync::OnceLock<Vec<User>> = std::sync::OnceLock::new();
        LIST.get_or_init(|| vec![user("admin", Role::Admin), user("viewer", Role::Viewer)]).clone()
    }

    pub(in super::super) fn users() -> Access {
        Access::new(Auth::Users, list())
    }

    pub(in super::super) fn open() -> Access {
        Access::new(Auth::None, Vec::new())
    }
}
