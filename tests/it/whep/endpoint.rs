//! POST, and what else an endpoint answers.

use super::*;
use fanlight::bus::{Reason, ReasonCode, State, Want};
use fanlight::media::{Codec, Format, TrackInfo, VideoFormat};

#[tokio::test]
async fn post_of_a_valid_offer() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    let reply = gateway.offer("/whep/front").await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/sdp"));
    assert_eq!(reply.header("accept-patch"), Some("application/trickle-ice-sdpfrag"));
    let etag = reply.header("etag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");
    let location = reply.header("location").unwrap();
    let id = location.strip_prefix("front/").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{location}");
    assert_eq!(
        reply.all("link"),
        [
            "<stun:stun.example>; rel=\"ice-server\"",
            "<turn:turn.example:3478?transport=udp>; rel=\"ice-server\"; username=\"fan\"; credential=\"p\\\"w\\\\d\"; \
             credential-type=\"password\"",
            "<turns:turn.example:5349>; rel=\"ice-server\"; username=\"fan\"; credential=\"p\\\"w\\\\d\"; \
             credential-type=\"password\"",
        ]
    );
    assert!(reply.body.starts_with("v=0\r\n"));
    let again = gateway.offer("/whep/front").await;
    assert_ne!((again.header("location"), again.header("etag")), (Some(location), Some(etag)));
}

#[tokio::test]
async fn both_forms_of_the_address_lead_to_sessions_that_resolve() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    for endpoint in ["/whep/front", "/whep/front/sub", "/front/whep", "/front/sub/whep"] {
        let created = gateway.offer(endpoint).await;
        let session = gateway.session(endpoint, &created);
        assert!(session.starts_with(&format!("{endpoint}/")), "{session}");
        assert_eq!(gateway.ask("DELETE", &session, &[], "").await.status, 200);
        // Under a path prefix, too.
        let base = Url::parse(&format!("https://ha.example/ingress/x{endpoint}")).unwrap();
        let resolved = base.join(created.header("location").unwrap()).unwrap();
        assert_eq!(resolved.path(), format!("/ingress/x{session}"));
    }
}

#[tokio::test]
async fn another_content_type_415_and_broken_sdp_400() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    for headers in [&[("content-type", "application/json")][..], &[("content-type", "application/sdpx")], &[]] {
        let reply = gateway.ask("POST", "/whep/front", headers, CHROMIUM).await;
        assert!(reply.problem(415).contains("Content-Type: application/sdp"));
    }
    let with_parameter = [("content-type", "Application/SDP; charset=utf-8")];
    assert_eq!(gateway.ask("POST", "/whep/front", &with_parameter, CHROMIUM).await.status, 201);
    let broken = gateway.ask("POST", "/whep/front", &[SDP], "v=0\r\nwhat?\r\n").await.problem(400);
    assert!(broken.contains("line 2"), "{broken}");
    gateway.ask("POST", "/whep/front", &[SDP], "").await.problem(400);
    gateway.ask("POST", "/whep/front", &[SDP], &"x".repeat((64 << 10) + 1)).await.problem(413);
}

#[tokio::test]
async fn unknown_camera_404() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    for path in ["/whep/back", "/back/whep", "/whep/front/other", "/front/other/whep", "/whep", "/whep/"] {
        let reply = gateway.offer(path).await;
        assert!([404, 405].contains(&reply.status), "{path}: {reply:?}");
    }
    assert!(gateway.offer("/whep/back").await.problem(404).contains("back"));
    gateway.ask("HEAD", "/whep/back", &[], "").await;
    assert_eq!(gateway.ask("GET", "/whep/back", &[], "").await.status, 404);
}

#[tokio::test]
async fn no_codec_in_common_406_names_both_sides() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    let only_vp8 = CHROMIUM.replace("H264/90000", "VP8/90000");
    let words = gateway.ask("POST", "/whep/front", &[SDP], &only_vp8).await.problem(406);
    assert!(words.contains("front sends H.264") && words.contains("the viewer takes VP8, VP9, AV1"), "{words}");
    let only_sound = &CHROMIUM.replace("BUNDLE 0 1", "BUNDLE 1");
    let (start, end) = (only_sound.find("m=video").unwrap(), only_sound.find("m=audio").unwrap());
    let only_sound = format!("{}{}", &only_sound[..start], &only_sound[end..]);
    let words = gateway.ask("POST", "/whep/front", &[SDP], &only_sound).await.problem(406);
    assert!(words.contains("sound alone is not served"), "{words}");
}

#[tokio::test]
async fn source_not_live_in_time_409() {
    let gateway = Gateway::start(Rig::default()).await;
    let silent = Publisher::new(&gateway.bus, "silent", false);
    let reason = Reason { code: ReasonCode::Busy, text: "all its places are taken".into() };
    silent.device.set_status(State::Offline, Some(reason));
    let reply = gateway.offer("/whep/silent").await;
    assert_eq!(reply.problem(409), "no picture of silent in time; silent is offline: all its places are taken");
    assert!(reply.retry_after() >= 1);
}

#[tokio::test]
async fn a_picture_that_comes_in_time_is_waited_for() {
    let rig = Rig { whep: WhepLimits { ready_wait: PATIENCE, ..WhepLimits::default() }, ..Rig::default() };
    let gateway = Gateway::start(rig).await;
    let mut late = Publisher::new(&gateway.bus, "late", false);
    let wanted = Arc::clone(&late.stream);
    let publish = async {
        crate::support::until("it is wanted", || wanted.demand.count() > 0).await;
        late.picture();
    };
    let (reply, ()) = tokio::join!(gateway.offer("/whep/late"), publish);
    assert_eq!(reply.status, 201, "{reply:?}");
    // Nobody watches a stream that only waits to be watched.
    crate::support::until("the wait is over", || wanted.demand.count() <= 1).await;
}

#[tokio::test]
async fn viewer_limit_503() {
    let mut rig = Rig::default();
    rig.webrtc.viewers = 2;
    let gateway = Gateway::with_camera(rig).await;
    let first = gateway.offer("/whep/front").await;
    let session = gateway.session("/whep/front", &first);
    assert_eq!(gateway.offer("/front/whep").await.status, 201);
    let full = gateway.offer("/whep/front").await;
    assert!(full.problem(503).contains("2 viewers"));
    assert!(full.retry_after() >= 1);
    // Who leaves makes room.
    assert_eq!(gateway.ask("DELETE", &session, &[], "").await.status, 200);
    let start = std::time::Instant::now();
    while gateway.offer("/whep/front").await.status != 201 {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn head_and_get_on_the_endpoint() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    for path in ["/whep/front", "/front/whep"] {
        let head = gateway.ask("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.header("content-type"), head.body.as_str()), (200, Some("application/sdp"), ""));
        assert_eq!(head.all("link").len(), 3, "pages learn the ICE servers before they offer");
        let get = gateway.ask("GET", path, &[], "").await;
        assert_eq!((get.status, get.body.as_str()), (204, ""));
    }
}

#[tokio::test]
async fn options_with_cors_for_listed_origins_only() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    let plain = gateway.ask("OPTIONS", "/whep/front", &[], "").await;
    assert_eq!((plain.status, plain.header("accept-post")), (200, Some("application/sdp")));
    assert_eq!(plain.header("access-control-allow-origin"), None);
    // Everybody may ask, so no passwords are told.
    assert_eq!(plain.all("link"), ["<stun:stun.example>; rel=\"ice-server\""]);
    let preflight = |origin| [("origin", origin), ("access-control-request-method", "POST")];
    let listed = gateway.ask("OPTIONS", "/front/whep", &preflight(LISTED), "").await;
    assert_eq!((listed.status, listed.header("accept-post")), (200, Some("application/sdp")));
    assert_eq!(listed.header("access-control-allow-origin"), Some(LISTED));
    let foreign = gateway.ask("OPTIONS", "/whep/front", &preflight("https://evil.example"), "").await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    // Without any origin listed there is no CORS at all.
    let alone = Rig { http: Config::default().http, ..Rig::default() };
    let alone = Gateway::with_camera(alone).await.ask("OPTIONS", "/whep/front", &preflight(LISTED), "").await;
    assert_eq!((alone.status, alone.header("accept-post")), (200, Some("application/sdp")));
    assert_eq!(alone.header("access-control-allow-origin"), None);
}

/// A camera that sends H.265, which Chromium's offer does not have.
fn hevc(gateway: &Gateway) -> Publisher {
    let mut camera = Publisher::new(&gateway.bus, "hevc", false);
    let info = TrackInfo { codec: Codec::H265, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) };
    camera.change_video(info);
    camera.pictures(5);
    camera
}

#[tokio::test]
async fn a_camera_that_needs_an_encoder_that_is_not_there_406_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "about: none\nfrom: h265\nto: h264\ncandidates:\n  - about: none\n    launch: >\n      \
        appsrc name=in is-live=true format=time ! nosuchelement name=enc ! appsink name=out sync=false\n";
    std::fs::write(folder.path().join("h265-to-h264.yaml"), pipeline).unwrap();
    let transcoder = transcoder(Some(folder.path().to_owned()));
    let gateway = Gateway::start(Rig { transcoder: Arc::clone(&transcoder), ..Rig::default() }).await;
    let camera = hevc(&gateway);
    // It is found out when somebody wants it.
    let rendition = transcoder.rendition(&camera.stream, camera.stream.tracks()[0].0, Codec::H264).unwrap();
    let _reader = rendition.stream().subscribe(Want::All);
    crate::support::until("the element is missed", || rendition.trouble().is_some()).await;
    let words = gateway.offer("/whep/hevc").await.problem(406);
    assert!(words.contains("hevc sends H.265") && words.contains("the viewer takes VP8, VP9, H264"), "{words}");
    assert!(words.contains("cannot be transcoded") && words.contains("nosuchelement"), "{words}");
}

#[tokio::test]
async fn a_rendition_is_answered_at_once() {
    // These pictures are none that a decoder could read: an answer that waited for the encoder's would never come.
    let gateway = Gateway::start(Rig::default()).await;
    let _camera = hevc(&gateway);
    let reply = gateway.offer("/whep/hevc").await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert!(reply.body.contains("a=rtpmap:108 H264/90000"), "{}", reply.body);
}
