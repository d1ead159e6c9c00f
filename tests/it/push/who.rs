//! Who may push.

use super::{Gateway, TOKEN, scene};
use crate::gateway::process::Process;
use crate::support::PATIENCE;
use crate::whep::user;
use fanlight::config::Role;
use tokio::time::timeout;

/// Path, headers, status.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

fn users() -> String {
    let line = |name: &str, role: Role| {
        let hash = user(name).password_hash.unwrap();
        format!("  - {{ name: {name}, role: {}, password_hash: \"{}\" }}\n", role.name(), hash.reveal())
    };
    format!("users:\n{}{}", line("boss", Role::Admin), line("guest", Role::Viewer))
}

fn basic(name: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{name}:{name}-password")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_or_an_admin_and_nobody_else() {
    let gateway = Gateway::start(&users()).await;
    let picture = scene().picture(1);
    let (boss, guest, bearer) = (basic("boss"), basic("guest"), format!("Bearer {TOKEN}"));
    let (with, others) = (format!("/v1/cameras/yard/push?token={TOKEN}"), "/v1/cameras/yard/push?token=another-token");
    let plain = "/v1/cameras/yard/push";
    let foreign = ("Origin", "https://evil.example");
    let cases: [Case<'_>; 15] = [
        (plain, &[], 401),
        (with.as_str(), &[], 200),
        (plain, &[("Authorization", &bearer)], 200),
        (plain, &[("Authorization", &boss)], 200),
        (plain, &[("Authorization", "Bearer boss-password")], 200),
        (plain, &[("Authorization", &guest)], 403),
        (plain, &[("Authorization", "Bearer guest-password")], 403),
        (plain, &[("Authorization", "Bearer nonsense")], 401),
        (others, &[], 401),
        ("/v1/cameras/yard/push?token=", &[], 401),
        ("/v1/cameras/open/push?token=", &[], 401),
        (with.as_str(), &[foreign], 403),
        (plain, &[("Authorization", &boss), foreign], 403),
        // Its token opens nothing else.
        ("/v1/cameras/motion/push?token=yards-own-token", &[], 401),
        ("/v1/cameras/nobody/push?token=yards-own-token", &[], 401),
    ];
    for (path, headers, status) in cases {
        let answer = gateway.send("POST", path, headers, &picture).await;
        assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
        assert!(!answer.text().contains(TOKEN));
    }
    for path in ["/v1/cameras", "/v1/cameras/yard", "/v1/cameras/yard/snapshot.jpg", "/v1/cameras/yard/push"] {
        let answer = gateway.send("GET", &format!("{path}?token={TOKEN}"), &[("Authorization", &bearer)], b"").await;
        assert_eq!(answer.status, 401, "{path}");
    }
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_limited_but_does_not_lock_out_who_has_the_token() {
    let gateway = Gateway::start(&users()).await;
    let picture = scene().picture(1);
    let push = async |token: &str| {
        gateway.send("POST", &format!("/v1/cameras/yard/push?token={token}"), &[], &picture).await.status
    };
    assert_eq!(push(TOKEN).await, 200);
    let mut answers = Vec::new();
    for number in 0..30 {
        answers.push(push(&number.to_string()).await);
    }
    assert!(answers.contains(&401) && answers.ends_with(&[429]), "{answers:?}");
    assert_eq!(push(TOKEN).await, 200, "shown from here before");
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_change_with_the_configuration() {
    let mut gateway = Gateway::start(&users()).await;
    let picture = scene().picture(1);
    let path = format!("/v1/cameras/yard/push?token={TOKEN}");
    assert_eq!(gateway.send("POST", &path, &[], &picture).await.status, 200);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.yaml");
    let cameras = "cameras: { yard: { source: { push: { token: a-new-one-now } } } }";
    std::fs::write(&file, format!("{}{}{cameras}\n", super::PORTS, users())).unwrap();
    gateway.app.reload(fanlight::config::load(&file).unwrap()).await;
    assert_eq!(gateway.send("POST", &path, &[], &picture).await.status, 401);
    let pushed = async || gateway.send("POST", "/v1/cameras/yard/push?token=a-new-one-now", &[], &picture).await.status;
    let mut status = pushed().await;
    // The door of the changed camera opens a moment later.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while status == 503 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        status = pushed().await;
    }
    assert_eq!(status, 200);
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_never_holds_a_token() {
    let config =
        format!("{}cameras: {{ yard: {{ source: {{ push: {{ token: {TOKEN} }} }} }} }}\n{}", super::PORTS, users());
    let process = Process::start(&config, |_, command| {
        command.env("RUST_LOG", "trace");
    })
    .await;
    for path in [format!("/v1/cameras/yard/push?token={TOKEN}"), format!("/v1/cameras/none/push?token={TOKEN}")] {
        let (status, _) =
            timeout(PATIENCE, crate::support::http::post(process.http(), &path, "text/plain", "hello")).await.unwrap();
        assert!([401, 415, 503].contains(&status), "{status}");
    }
    let ftp = process.address("ftp");
    super::ftp::dialogue(ftp, &["USER yard", &format!("PASS {TOKEN}"), "QUIT"]).await;
    super::ftp::dialogue(ftp, &["USER none", &format!("PASS {TOKEN}"), "QUIT"]).await;
    let log = process.log();
    assert!(log.contains("wrong user name or password"), "{log}");
    assert!(!log.contains(TOKEN), "{}", log.lines().filter(|line| line.contains(TOKEN)).collect::<String>());
}
