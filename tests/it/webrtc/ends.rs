//! How sessions end, and who may have one.

use super::{Gateway, HERE, Relay, plan};
use crate::support::publisher::Publisher;
use crate::support::until;
use crate::support::whep_viewer::{Viewer, Wishes};
use fanlight::access::{Auth, Role, User};
use fanlight::config::Secret;
use fanlight::republish::webrtc::{CreateError, Options, Session};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

async fn ended(session: &Session) {
    let closed = session.closed();
    until("the session is over", || closed.is_cancelled()).await;
}

async fn watching(gateway: &Gateway) -> (crate::support::publisher::Running, Viewer, Session) {
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let camera = camera.run();
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.view(&viewer, &camera.device).await;
    viewer.video().await;
    (camera, viewer, session)
}

#[tokio::test]
async fn a_viewer_that_vanished_is_gone_within_five_seconds() {
    let gateway = Gateway::start();
    let relay = Relay::start(gateway.address, 0).await;
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let camera = camera.run();
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.create(&viewer, &camera.device);
    viewer.answer(&relay.redirect(session.answer())).await;
    viewer.video().await;
    let begin = Instant::now();
    drop(relay);
    ended(&session).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(camera.device.viewers.webrtc.load(Ordering::Relaxed), 0);
    until("nobody watches", || camera.stream.demand.count() == 0).await;
}

#[tokio::test]
async fn a_silent_viewer_that_answers_stays() {
    let options = Options {
        ask_after: Duration::from_millis(50),
        silent_after: Duration::from_millis(600),
        ..Options::default()
    };
    let gateway = Gateway::with(options, "127.0.0.1:0");
    let (_camera, mut viewer, session) = watching(&gateway).await;
    viewer.packets_for(Duration::from_secs(2)).await;
    assert!(!session.closed().is_cancelled());
}

#[tokio::test]
async fn goodbyes_are_told_and_heard() {
    let gateway = Gateway::start();
    let (camera, relay) = (gateway.camera("yard", false), Relay::start(gateway.address, 0).await);
    let camera = {
        let mut camera = camera;
        camera.pictures(5);
        camera
    };
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.create(&viewer, &camera.device);
    viewer.answer(&relay.redirect(session.answer())).await;
    viewer.video().await;
    assert_eq!(relay.alerts(), 0);
    session.close();
    ended(&session).await;
    until("the viewer is told", || relay.alerts() == 1).await;

    let (camera, viewer, session) = watching(&gateway).await;
    let begin = Instant::now();
    viewer.close().await;
    ended(&session).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "not by waiting");
    until("nobody is counted", || camera.device.viewers.webrtc.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn the_end_of_the_server_is_told_to_all() {
    let mut gateway = Gateway::start();
    let (_camera, _viewer, session) = watching(&gateway).await;
    gateway.cancel.cancel();
    tokio::time::timeout(Duration::from_secs(2), &mut gateway.serving).await.unwrap().unwrap();
    assert!(session.closed().is_cancelled());
    let other = Viewer::new(Wishes::default()).await;
    let device = Publisher::new(&gateway.bus, "yard", false).device;
    let offer = other.parsed();
    gateway.server.create(&offer, plan(&device, false), device, HERE, None).unwrap_err();
}

#[tokio::test]
async fn a_camera_that_is_removed_or_sends_another_codec_ends_its_viewers() {
    let gateway = Gateway::start();
    let (_camera, _viewer, session) = watching(&gateway).await;
    gateway.bus.remove("porch");
    ended(&session).await;

    let (camera, _viewer, session) = watching(&gateway).await;
    let mut info = (*camera.stream.tracks()[0].1).clone();
    info.codec = fanlight::media::Codec::H265;
    camera.stream.announce(&[info]);
    ended(&session).await;
}

#[tokio::test]
async fn a_user_that_is_removed_loses_the_session() {
    let gateway = Gateway::start();
    let user = |key: &str| User {
        name: "guest".into(),
        role: Role::Viewer,
        password_hash: None,
        stream_key: Some(Secret::new(key)),
    };
    gateway.access.replace(Auth::Users, vec![user("0123456789ab")]);
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let viewer = Viewer::new(Wishes::default()).await;
    let device = Arc::clone(&camera.device);
    let create = || {
        let guest = Some(Arc::new(user("0123456789ab")));
        gateway.server.create(&viewer.parsed(), plan(&device, false), Arc::clone(&device), HERE, guest).unwrap()
    };
    let session = create();
    viewer.accept(&session).await;
    gateway
        .access
        .replace(Auth::Users, vec![user("0123456789ab"), User { name: "other".into(), ..user("abcdefghijkl") }]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!session.closed().is_cancelled(), "others are no reason");
    gateway.access.replace(Auth::Users, vec![user("another key!")]);
    ended(&session).await;
}

#[tokio::test]
async fn who_does_not_connect_is_dropped_and_places_are_given_back() {
    let options =
        Options { connect_within: Duration::from_millis(300), viewers: 2, per_address: 1, ..Options::default() };
    let gateway = Gateway::with(options, "127.0.0.1:0");
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let viewer = Viewer::new(Wishes::default()).await;
    let create = |address: [u8; 4]| {
        let (offer, device) = (viewer.parsed(), Arc::clone(&camera.device));
        gateway.server.create(&offer, plan(&device, false), device, address.into(), None)
    };
    let first = create([192, 0, 2, 1]).unwrap();
    assert!(matches!(create([192, 0, 2, 1]), Err(CreateError::PerAddress(1))));
    let second = create([192, 0, 2, 2]).unwrap();
    assert!(matches!(create([192, 0, 2, 3]), Err(CreateError::Full(2))));
    ended(&first).await;
    ended(&second).await;
    until("both places are free", || gateway.statistics.sessions.load(Ordering::Relaxed) == 0).await;
    create([192, 0, 2, 1]).unwrap();
}
