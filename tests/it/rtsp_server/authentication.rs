//! Who may see: challenges, Digest and Basic, stale nonces, users that change.

use super::Gateway;
use crate::support::rtsp_client::{Client, Reply};
use fanlight::access::{Access, Auth, Limits, Role, User};
use fanlight::config::Secret;
use fanlight::republish::rtsp::Options;
use md5::{Digest as _, Md5};
use sha2::Sha256;
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "k3yOfTheRecorder";

fn user(key: &str) -> User {
    User { name: "frigate".into(), role: Role::Viewer, password_hash: None, stream_key: Some(Secret::new(key)) }
}

fn guarded(limits: Limits) -> (Gateway, Arc<Access>) {
    let access = Arc::new(Access::with_limits(Auth::Users, vec![user(KEY)], limits));
    (Gateway::guarded(Options::default(), "127.0.0.1:0", true, Arc::clone(&access)), access)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The answer to a challenge without `qop`, as ffmpeg, live555 and GStreamer give it.
fn answer(challenge: &str, method: &str, uri: &str, key: &str) -> String {
    let field = |name: &str| challenge.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap();
    let sha = challenge.contains("SHA-256");
    let hash = |text: String| if sha { hex(&Sha256::digest(text)) } else { hex(&Md5::digest(text)) };
    let (realm, nonce) = (field("realm"), field("nonce"));
    let ha1 = hash(format!("frigate:{realm}:{key}"));
    let ha2 = hash(format!("{method}:{uri}"));
    let response = hash(format!("{ha1}:{nonce}:{ha2}"));
    let algorithm = if sha { ", algorithm=SHA-256" } else { "" };
    format!(
        "Digest username=\"frigate\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\"{algorithm}"
    )
}

async fn describe(client: &mut Client, authorization: Option<&str>) -> Reply {
    let uri = client.base.clone();
    let headers: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
    client.request("DESCRIBE", &uri, &headers).await
}

#[tokio::test]
async fn three_challenges_in_the_order_that_players_need() {
    let (gateway, _) = guarded(Limits::default());
    gateway.camera("porch").pictures(1);
    let mut client = Client::connect(gateway.address, "porch").await;
    assert_eq!(client.request("OPTIONS", "*", &[]).await.status, 200, "OPTIONS needs no authentication");
    let reply = describe(&mut client, None).await;
    assert_eq!(reply.status, 401);
    let challenges = reply.all("WWW-Authenticate");
    assert_eq!(challenges.len(), 3);
    for (challenge, algorithm) in challenges.iter().zip(["SHA-256", "MD5"]) {
        assert!(challenge.starts_with("Digest realm=\"") && challenge.contains("\", nonce=\""));
        assert!(challenge.ends_with(&format!(", algorithm={algorithm}")), "{challenge}");
    }
    assert!(challenges[2].starts_with("Basic realm=\""));
}

#[tokio::test]
async fn digest_with_either_hash_and_basic_open_the_door_and_a_wrong_key_does_not() {
    let (gateway, _) = guarded(Limits::default());
    gateway.camera("porch").pictures(1);
    for challenge in 0..2 {
        let mut client = Client::connect(gateway.address, "porch").await;
        let refused = describe(&mut client, None).await;
        let challenge = refused.all("WWW-Authenticate")[challenge].to_owned();
        let uri = client.base.clone();
        assert_eq!(describe(&mut client, Some(&answer(&challenge, "DESCRIBE", &uri, "wrong"))).await.status, 401);
        assert_eq!(describe(&mut client, Some(&answer(&challenge, "DESCRIBE", &uri, KEY))).await.status, 200);
        // An answer for another method or another camera does not count.
        let track = format!("{uri}/trackID=0");
        let transport = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
        let wrong = answer(&challenge, "DESCRIBE", &track, KEY);
        assert_eq!(client.request("SETUP", &track, &[transport, ("Authorization", &wrong)]).await.status, 401);
        let right = answer(&challenge, "SETUP", &track, KEY);
        assert_eq!(client.request("SETUP", &track, &[transport, ("Authorization", &right)]).await.status, 200);
        let right = answer(&challenge, "PLAY", &format!("{uri}/"), KEY);
        assert_eq!(client.request("PLAY", &uri, &[("Authorization", &right)]).await.status, 200);
    }
    use base64::Engine;
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("frigate:{KEY}")));
    let mut client = Client::connect(gateway.address, "porch").await;
    assert_eq!(describe(&mut client, Some(&basic)).await.status, 200);
}

#[tokio::test]
async fn an_old_nonce_is_stale_and_no_failure() {
    let (gateway, _) = guarded(Limits { nonce: Duration::from_millis(50), failures: 1, ..Limits::default() });
    gateway.camera("porch").pictures(1);
    let mut client = Client::connect(gateway.address, "porch").await;
    let refused = describe(&mut client, None).await;
    let challenge = refused.all("WWW-Authenticate")[1].to_owned();
    let uri = client.base.clone();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut stale = describe(&mut client, Some(&answer(&challenge, "DESCRIBE", &uri, KEY))).await;
    assert_eq!(stale.status, 401);
    assert!(stale.all("WWW-Authenticate")[1].contains(", stale=true, algorithm=MD5"));
    // A client on a slow machine may need more than one turn.
    while stale.status != 200 {
        let challenge = stale.all("WWW-Authenticate")[1].to_owned();
        stale = describe(&mut client, Some(&answer(&challenge, "DESCRIBE", &uri, KEY))).await;
    }
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let (gateway, _) = guarded(Limits { failures: 3, forgive: Duration::from_secs(3_600), ..Limits::default() });
    gateway.camera("porch").pictures(1);
    let mut client = Client::connect(gateway.address, "porch").await;
    let refused = describe(&mut client, None).await;
    let challenge = refused.all("WWW-Authenticate")[1].to_owned();
    let uri = client.base.clone();
    for guess in 0..3 {
        let guess = answer(&challenge, "DESCRIBE", &uri, &format!("guess{guess}"));
        assert_eq!(describe(&mut client, Some(&guess)).await.status, 401);
    }
    let right = answer(&challenge, "DESCRIBE", &uri, KEY);
    assert_eq!(describe(&mut client, Some(&right)).await.status, 403);
}

#[tokio::test]
async fn sessions_end_with_their_user() {
    let (gateway, access) = guarded(Limits::default());
    let mut camera = gateway.camera("porch");
    camera.pictures(5);
    let mut client = Client::connect(gateway.address, "porch").await;
    let refused = describe(&mut client, None).await;
    let challenge = refused.all("WWW-Authenticate")[0].to_owned();
    let uri = client.base.clone();
    let transport = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
    let setup = answer(&challenge, "SETUP", &uri, KEY);
    client.request("SETUP", &uri, &[transport, ("Authorization", &setup)]).await;
    let play = answer(&challenge, "PLAY", &uri, KEY);
    assert_eq!(client.request("PLAY", &uri, &[("Authorization", &play)]).await.status, 200);
    client.picture(0).await;
    let other = User { name: "else".into(), ..user("another") };
    access.replace(Auth::Users, vec![user(KEY), other.clone()]);
    camera.picture();
    while client.picture(0).await < 5 {}
    access.replace(Auth::Users, vec![user("changed"), other]);
    while client.frame_or_end().await.is_some() {}
}
