//! Signing in and out, through the whole router.

use crate::access::{Access, Auth, User};
use crate::config;
use crate::republish::http::tests::{Answer, Gateway, answer, gateway, gateway_with, options, testing};
use crate::republish::http::{Peer, guarded};
use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::{Router, routing};
use http_body_util::BodyExt;
use std::time::Duration;
use tower::ServiceExt;

async fn sign_in(gateway: &Gateway, media_type: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method("POST").uri("/v1/session").header("content-type", media_type);
    for (name, value) in [("host", "fan.lan:8484")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(Peer(([192, 0, 2, 9], 40_000).into()));
    answer(gateway.router.clone().oneshot(request).await.unwrap()).await
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const LOGIN: &str = r#"{ "name": "viewer", "password": "viewer-password" }"#;

#[tokio::test]
async fn who_signs_in_gets_a_cookie_that_opens() {
    let gateway = gateway();
    let answer = sign_in(&gateway, JSON, LOGIN, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""));
    let cookie = answer.header("set-cookie").to_owned();
    let (token, attributes) = cookie.split_once(';').unwrap();
    assert_eq!(attributes, " HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000");
    let answer = gateway.ask("GET", "/v1/session", &[("cookie", token)]).await;
    assert_eq!(answer.json(), serde_json::json!({ "user": "viewer", "role": "viewer" }));
    assert_eq!(answer.header("set-cookie"), "", "still young");
    assert_eq!(gateway.ask("GET", "/v1/cameras", &[("cookie", token)]).await.status, 200);
    // A stale one beside it, as from another gateway on this host, is no hindrance.
    let two = format!("a=b; fanlight_session=1.x.viewer; {token}");
    assert_eq!(gateway.ask("GET", "/v1/cameras", &[("cookie", &two)]).await.status, 200);
    let out = gateway.ask("DELETE", "/v1/session", &[("cookie", token)]).await;
    assert_eq!(out.status, 204);
    assert_eq!(out.header("set-cookie"), "fanlight_session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");

    // The end of the user is the end of the session.
    gateway.state.access.replace(Auth::Users, testing::list().into_iter().take(1).collect());
    gateway.ask("GET", "/v1/cameras", &[("cookie", token)]).await.problem(401);
}

#[tokio::test]
async fn wrong_sign_ins_are_refused_and_limited() {
    let gateway = gateway();
    for (media_type, body, status) in [
        (JSON, r#"{ "name": "viewer", "password": "admin-password" }"#, 401),
        (JSON, r#"{ "name": "nobody", "password": "viewer-password" }"#, 401),
        (JSON, r#"{ "name": "viewer" }"#, 400),
        (JSON, "", 400),
        ("text/plain", LOGIN, 415),
        ("", LOGIN, 415),
    ] {
        let answer = sign_in(&gateway, media_type, body, &[]).await;
        answer.problem(status);
        assert_eq!(answer.header("set-cookie"), "");
        assert_eq!(answer.header("www-authenticate").starts_with("Bearer"), status == 401);
    }
    assert_eq!(sign_in(&gateway, JSON, LOGIN, &[("origin", "https://evil.example")]).await.status, 403);
    for n in 0..20 {
        let body = format!(r#"{{ "name": "viewer", "password": "guess number {n}" }}"#);
        sign_in(&gateway, JSON, &body, &[]).await;
    }
    let answer = sign_in(&gateway, JSON, LOGIN, &[]).await;
    answer.problem(429);
    assert_eq!(answer.header("retry-after"), "60");
    let page = sign_in(&gateway, FORM, "name=viewer&password=viewer-password&next=/", &[]).await;
    assert!(page.status == 429 && page.body.contains("Wait a minute"), "{}", page.body);
}

#[tokio::test]
async fn the_sign_in_page_works_without_script() {
    let gateway = gateway();
    let html = ("accept", "text/html");
    let page = gateway.ask("GET", "/camera/front?kiosk&x=y", &[html]).await;
    assert_eq!(page.status, 401);
    for part in [
        r#"action="../v1/session""#,
        r#"href="../assets/style.css""#,
        r#"name="next" value="/camera/front?kiosk&amp;x=y""#,
    ] {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
    assert!(page.header("content-security-policy").contains("form-action 'self'"));
    assert!(gateway.ask("GET", "/", &[html]).await.body.contains(r#"action="./v1/session""#));

    let good = "name=viewer&password=viewer-password&next=%2Fcamera%2Ffront%3Fkiosk";
    let origin = ("origin", "http://fan.lan:8484");
    let answer = sign_in(&gateway, FORM, good, &[origin]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "../camera/front?kiosk"));
    assert!(answer.header("set-cookie").starts_with("fanlight_session="));
    let elsewhere = good.replace("%2Fcamera", "%2F%2Fevil.example");
    assert_eq!(sign_in(&gateway, FORM, &elsewhere, &[]).await.header("location"), "../");
    let wrong = sign_in(&gateway, FORM, &good.replace("viewer-p", "p"), &[]).await;
    assert_eq!((wrong.status.as_u16(), wrong.header("content-type")), (401, "text/html; charset=utf-8"));
    assert!(wrong.body.contains("Wrong name or password.") && wrong.body.contains("value=\"/camera/front?kiosk\""));
    assert!(!wrong.body.contains("password-"));
}

#[tokio::test]
async fn a_cookie_is_secure_where_the_outside_is() {
    let proxied =
        config::Http { trusted_proxies: config::Network::parse("192.0.2.9").into_iter().collect(), ..options() };
    let gateway = gateway_with(proxied, testing::users());
    let headers = [("x-forwarded-for", "203.0.113.5"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "fan.lan")];
    let answer = sign_in(&gateway, JSON, LOGIN, &headers).await;
    assert!(answer.header("set-cookie").ends_with("; Secure"), "{}", answer.header("set-cookie"));
    // Another name: no plain page may replace a secure cookie.
    assert!(answer.header("set-cookie").starts_with("fanlight_session_tls="));
    let origin = ("origin", "https://fan.lan");
    let answer = sign_in(&gateway, JSON, LOGIN, &[headers[0], headers[1], headers[2], origin]).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
}

#[tokio::test]
async fn where_nobody_signs_in_the_session_is_nobodys() {
    let gateway = gateway_with(options(), testing::open());
    let session = gateway.ask("GET", "/v1/session", &[("cookie", "fanlight_session=1.2.viewer")]).await;
    assert_eq!(session.json(), serde_json::json!({ "user": null, "role": "admin" }));
    let answer = sign_in(&gateway, JSON, LOGIN, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("set-cookie")), (204, ""));
}

#[tokio::test]
async fn without_users_others_are_told_how_to_make_one() {
    let gateway = gateway_with(options(), Access::new(Auth::Users, Vec::new()));
    let answer = gateway.ask("GET", "/", &[("accept", "text/html")]).await;
    assert!(answer.problem(401).contains("fanlight password"));
    assert!(answer.header("www-authenticate").starts_with("Basic"));
}

#[tokio::test]
async fn what_has_no_end_ends_with_its_user() {
    let gateway = gateway();
    let endless = || async { Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>()) };
    let routes = Router::new().route("/endless", routing::get(endless));
    let router = guarded(routes, Router::new(), gateway.state.clone());
    let request = || {
        let request = Request::builder().uri("/endless").header("host", "fan").header("authorization", testing::VIEWER);
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(([192, 0, 2, 9], 40_000).into()));
        request
    };
    let response = router.oneshot(request()).await.unwrap();
    let mut end = Box::pin(response.into_body().collect());
    let admin = testing::list().remove(0);
    let changed = User { stream_key: Some(config::Secret::new("another key for streams")), ..admin };
    gateway.state.access.replace(Auth::Users, vec![changed, testing::list().remove(1)]);
    assert!(futures::poll!(&mut end).is_pending(), "somebody else was changed");
    gateway.state.access.replace(Auth::Users, testing::list().into_iter().take(1).collect());
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("it ends").expect("as if it were complete");
}
