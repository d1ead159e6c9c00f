//! Whose sessions these are.

use super::*;
use base64::prelude::{BASE64_STANDARD, Engine as _};

fn guarded() -> Rig {
    Rig { access: users(), ..Rig::default() }
}

const ONE: (&str, &str) = ("authorization", "Bearer one-password");
const TWO: (&str, &str) = ("authorization", "Bearer two-password");

#[tokio::test]
async fn bearer_and_basic_work_and_nobody_gets_401() {
    let gateway = Gateway::with_camera(guarded()).await;
    for method in ["POST", "HEAD", "GET"] {
        let reply = gateway.ask(method, "/whep/front", &[SDP], CHROMIUM).await;
        assert_eq!(reply.status, 401, "{method}");
        assert!(reply.all("link").is_empty());
    }
    let basic = format!("Basic {}", BASE64_STANDARD.encode("two:two-password"));
    for login in [ONE, ("authorization", basic.as_str())] {
        let created = gateway.ask("POST", "/whep/front", &[SDP, login], CHROMIUM).await;
        let session = gateway.session("/whep/front", &created);
        gateway.ask("DELETE", &session, &[], "").await.problem(401);
        assert_eq!(gateway.ask("DELETE", &session, &[login], "").await.status, 200);
    }
}

#[tokio::test]
async fn a_session_is_there_for_its_own_user_only() {
    let gateway = Gateway::with_camera(guarded()).await;
    let created = gateway.ask("POST", "/whep/front", &[SDP, ONE], CHROMIUM).await;
    let session = gateway.session("/whep/front", &created);
    gateway.ask("DELETE", &session, &[TWO], "").await.problem(404);
    let any = ("if-match", "*");
    gateway.ask("PATCH", &session, &[FRAGMENT, any, TWO], &own_fragment()).await.problem(404);
    assert_eq!(gateway.ask("PATCH", &session, &[FRAGMENT, any, ONE], &own_fragment()).await.status, 204);
}

#[tokio::test]
async fn sessions_of_a_removed_user_end() {
    let gateway = Gateway::with_camera(guarded()).await;
    let created = gateway.ask("POST", "/whep/front", &[SDP, ONE], CHROMIUM).await;
    let session = gateway.session("/whep/front", &created);
    gateway.access.replace(Auth::None, Vec::new());
    gateway.access.replace(Auth::Users, vec![user("two")]);
    gateway.access.replace(Auth::Users, vec![user("one"), user("two")]);
    let start = std::time::Instant::now();
    let any = ("if-match", "*");
    while gateway.ask("PATCH", &session, &[FRAGMENT, any, ONE], &own_fragment()).await.status != 404 {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn preflight_needs_no_login_and_tells_listed_origins_what_they_may() {
    let gateway = Gateway::with_camera(guarded()).await;
    let created = gateway.ask("POST", "/whep/front", &[SDP, ONE, ("origin", LISTED)], CHROMIUM).await;
    let session = gateway.session("/whep/front", &created);
    let exposed = created.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
    for header in ["location", "link", "etag", "accept-patch", "retry-after"] {
        assert!(exposed.split(',').any(|name| name.trim() == header), "{header} in {exposed}");
    }
    for (path, method) in [("/whep/front", "POST"), (session.as_str(), "PATCH"), (session.as_str(), "DELETE")] {
        let asked = [
            ("origin", LISTED),
            ("access-control-request-method", method),
            ("access-control-request-headers", "authorization,content-type,if-match"),
        ];
        let reply = gateway.ask("OPTIONS", path, &asked, "").await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(LISTED)));
        assert!(reply.header("access-control-allow-methods").unwrap().contains(method));
        let allowed = reply.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
        for header in ["authorization", "content-type", "if-match"] {
            assert!(allowed.contains(header), "{header} in {allowed}");
        }
    }
    let foreign = [SDP, ONE, ("origin", "https://evil.example")];
    gateway.ask("POST", "/whep/front", &foreign, CHROMIUM).await.problem(403);
}
