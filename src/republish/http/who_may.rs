//! Who may what, for every route there is. A route without a row fails the first test: add one to [`ROWS`].

use super::tests::{Gateway, gateway_with, options, testing};
use super::*;
use crate::access::{Auth, Limits as AccessLimits};
use axum::body::Body;
use axum::http::Request;
use std::collections::BTreeSet;
use std::path::Path;
use tower::ServiceExt;

/// Who may use a method of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Everybody, under any name and from any page.
    Alive,
    /// Everybody, but not under a foreign name and not for foreign pages: assets, signing in.
    Open,
    /// Users; people who are none get the sign-in page.
    Page,
    /// Users.
    Sees,
    /// Users with the role admin.
    Commands,
}
use Door::{Alive, Commands, Open, Page, Sees};

/// All routes as they are written in the source, with their methods. HEAD comes with GET.
const ROWS: &[(&str, &[(&str, Door)])] = &[
    ("/", &[("GET", Page)]),
    ("/camera/{name}", &[("GET", Page)]),
    ("/visitors", &[("GET", Page)]),
    ("/assets/version", &[("GET", Open)]),
    ("/assets/{*path}", &[("GET", Open)]),
    ("/healthz", &[("GET", Alive)]),
    ("/readyz", &[("GET", Sees)]),
    ("/metrics", &[("GET", Sees)]),
    ("/v1/session", &[("GET", Sees), ("POST", Open), ("DELETE", Sees)]),
    ("/v1/cameras", &[("GET", Sees)]),
    ("/v1/cameras/{name}", &[("GET", Sees)]),
    ("/v1/cameras/{name}/stream.xspf", &[("GET", Sees)]),
    ("/v1/cameras/{name}/snapshot.jpg", &[("GET", Sees)]),
    ("/v1/cameras/{name}/mjpeg", &[("GET", Sees)]),
    ("/v1/events", &[("GET", Sees)]),
    ("/v1/events/stream", &[("GET", Sees)]),
    ("/v1/events/{id}/picture.jpg", &[("GET", Sees)]),
    ("/v1/mini-doorbell/unknown", &[("GET", Sees)]),
    ("/v1/mini-doorbell/unknown/{id}/picture.jpg", &[("GET", Sees)]),
    ("/v1/mini-doorbell/damaged/{id}", &[("GET", Sees)]),
    ("/v1/cameras/{name}/commands/{*command}", &[("POST", Commands)]),
    ("/v1/cameras/{name}/push", &[("POST", Commands), ("PUT", Commands)]),
    ("/whep/{name}", &[("GET", Sees), ("POST", Sees)]),
    ("/whep/{name}/sub", &[("GET", Sees), ("POST", Sees)]),
    ("/{name}/whep", &[("GET", Sees), ("POST", Sees)]),
    ("/{name}/sub/whep", &[("GET", Sees), ("POST", Sees)]),
    ("/whep/{name}/{session}", &[("PATCH", Sees), ("DELETE", Sees)]),
    ("/whep/{name}/sub/{session}", &[("PATCH", Sees), ("DELETE", Sees)]),
    ("/{name}/whep/{session}", &[("PATCH", Sees), ("DELETE", Sees)]),
    ("/{name}/sub/whep/{session}", &[("PATCH", Sees), ("DELETE", Sees)]),
];

/// A path as a client would write it.
fn example(template: &str) -> String {
    let segment = |segment: &str| match segment {
        "{name}" => "front".to_owned(),
        "{*command}" => "open_door/2".to_owned(),
        "{*path}" => "js/page.js".to_owned(),
        other if other.starts_with('{') => "x".to_owned(),
        other => other.to_owned(),
    };
    template.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The first argument of each `.route(` in the source of the program, tests left out.
fn routes_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routes_in(&path, found);
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".rs") || name == "tests.rs" || name == "who_may.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        if !text.contains("axum") {
            continue;
        }
        assert!(
            !text.contains(".nest(") && !text.contains("route_service("),
            "{}: routes of a form unknown here",
            name
        );
        for after in text.split(".route(").skip(1) {
            let literal = after.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            found.insert(literal.unwrap_or_else(|| panic!("{name}: a route that is no plain text")).to_owned());
        }
    }
}

fn gateway() -> Gateway {
    let listed = config::Http { allow_origins: vec![LISTED.into()], ..options() };
    let generous = AccessLimits { failures: 100_000, ..AccessLimits::default() };
    gateway_with(listed, Access::with_limits(Auth::Users, testing::list(), generous))
}

const LISTED: &str = "https://ha.example.net";

#[tokio::test]
async fn every_route_has_its_row() {
    let mut found = BTreeSet::new();
    routes_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let rows: BTreeSet<String> = ROWS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(found, rows, "routes in the source, and rows of this table");
    let gateway = gateway();
    for (path, methods) in ROWS {
        let mut expected: BTreeSet<&str> = methods.iter().map(|(method, _)| *method).collect();
        if expected.contains("GET") {
            expected.insert("HEAD");
        }
        let answer = ask(&gateway, "OPTIONS", &example(path), &[]).await;
        let allow = answer.header("allow").to_owned();
        let allowed: BTreeSet<&str> = allow.split(',').map(str::trim).filter(|method| *method != "OPTIONS").collect();
        assert_eq!(allowed, expected, "methods of {path}, as OPTIONS tells them");
    }
}

/// Status and headers; a body may never end.
struct Head(axum::http::response::Parts);

impl Head {
    fn header(&self, name: &str) -> &str {
        self.0.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Head {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "fan.lan:8484");
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer(([192, 0, 2, 9], 40_000).into()));
    Head(gateway.router.clone().oneshot(request).await.unwrap().into_parts().0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Viewer,
    Admin,
}

/// Everything that a client can show, and whose it is.
fn callers(gateway: &Gateway) -> Vec<(&'static str, String, Who)> {
    use base64::Engine as _;
    let basic = |login: &str| format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(login));
    let cookie = |name: &str| {
        let user = testing::list().into_iter().find(|user| user.name == name).unwrap();
        let token = gateway.state.access.session(&user).unwrap();
        format!("other=x; fanlight_session={token}")
    };
    let forged = cookie("admin").replace('.', ".0");
    vec![
        ("x-nothing", String::new(), Who::Nobody),
        ("authorization", basic("viewer:viewer-password"), Who::Viewer),
        ("authorization", basic("admin:admin-password"), Who::Admin),
        ("authorization", testing::VIEWER.into(), Who::Viewer),
        ("authorization", testing::ADMIN.into(), Who::Admin),
        ("cookie", cookie("viewer"), Who::Viewer),
        ("cookie", cookie("admin"), Who::Admin),
        ("authorization", basic("admin:viewer-password"), Who::Nobody),
        ("authorization", "Bearer wrong-password".into(), Who::Nobody),
        ("authorization", "Digest username=admin, nonce=x, response=x".into(), Who::Nobody),
        ("cookie", forged, Who::Nobody),
        ("cookie", "fanlight_session=".into(), Who::Nobody),
    ]
}

/// The status with which the guard or a role refuses, if it is to.
fn refusal(door: Door, who: Who, host_known: bool, origin_good: bool) -> Option<u16> {
    match (door, who) {
        (Alive, _) => None,
        _ if !host_known => Some(421),
        _ if !origin_good => Some(403),
        (Open, _) | (_, Who::Admin) | (Page | Sees, Who::Viewer) => None,
        (_, Who::Nobody) => Some(401),
        (Commands, Who::Viewer) => Some(403),
    }
}

/// Paused: who may see a camera without a picture waits for one.
#[tokio::test(start_paused = true)]
async fn every_door_opens_to_whom_it_should() {
    let gateway = gateway();
    let callers = callers(&gateway);
    let mut asked = 0;
    for (path, methods) in ROWS {
        let path = example(path);
        let head = methods.iter().find(|(method, _)| *method == "GET").map(|(_, door)| ("HEAD", *door));
        for (method, door) in methods.iter().copied().chain(head) {
            for (header, value, who) in &callers {
                for (host, host_known) in
                    [("fan.lan:8484", true), ("192.0.2.1:8484", true), ("evil.example:8484", false)]
                {
                    let own = format!("http://{host}");
                    for (origin, good) in [
                        ("", true),
                        (own.as_str(), true),
                        (LISTED, true),
                        ("https://evil.example", false),
                        ("null", false),
                    ] {
                        let mut headers = vec![(*header, value.as_str()), ("host", host)];
                        if !origin.is_empty() {
                            headers.push(("origin", origin));
                        }
                        let status = ask(&gateway, method, &path, &headers).await.0.status.as_u16();
                        let refused = Some(status).filter(|status| [401, 403, 421, 429].contains(status));
                        let expected = refusal(door, *who, host_known, good);
                        assert_eq!(refused, expected, "{method} {path} by {who:?} with {headers:?}: {status}");
                        asked += 1;
                    }
                }
            }
        }
    }
    assert!(asked > 2000, "{asked}");
}

#[tokio::test]
async fn whoever_is_nobody_is_asked_in_a_form_that_helps() {
    let gateway = gateway();
    let browser = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    for (path, methods) in ROWS {
        let path = example(path);
        for (method, door) in methods.iter().filter(|(_, door)| matches!(door, Page | Sees | Commands)) {
            let plain = ask(&gateway, method, &path, &[]).await;
            assert_eq!(plain.header("content-type"), "application/problem+json", "{method} {path}");
            assert!(plain.header("www-authenticate").starts_with("Basic "), "{method} {path}");
            // What our own pages fetch must not open the browser's password box.
            for sign in [("referer", "http://fan.lan:8484/camera/front"), ("cookie", "fanlight_session=old")] {
                let fetched = ask(&gateway, method, &path, &[sign]).await;
                assert!(fetched.header("www-authenticate").starts_with("Bearer "), "{method} {path} {sign:?}");
            }
            let shown = ask(&gateway, method, &path, &[browser]).await;
            assert_eq!(shown.0.status, 401);
            if *door == Page {
                assert_eq!(shown.header("content-type"), "text/html; charset=utf-8", "{path}");
                assert!(shown.header("www-authenticate").starts_with("Bearer "), "{path}");
            } else {
                assert_eq!(shown.header("content-type"), "application/problem+json", "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_cookie_or_a_password_raises_no_event_by_get() {
    let gateway = gateway();
    for (header, value, _) in callers(&gateway) {
        for method in ["GET", "HEAD"] {
            let answer = ask(&gateway, method, "/v1/cameras/front/events/motion", &[(header, &value)]).await;
            assert_eq!(answer.0.status, 401, "{method} {header}: {value}");
        }
    }
    // With nothing to be asked for, it is one more path that does not exist yet.
    let admin = ("authorization", testing::ADMIN);
    assert_eq!(ask(&gateway, "POST", "/v1/cameras/front/events/motion", &[admin]).await.0.status, 404);
}
