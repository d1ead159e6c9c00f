//! PATCH and DELETE.

use super::*;
use crate::support::until;

const NEW: (&str, &str) = ("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k");

struct Made {
    gateway: Gateway,
    session: String,
    etag: String,
    answer: String,
}

async fn made(rig: Rig) -> Made {
    let gateway = Gateway::with_camera(rig).await;
    let created = gateway.offer("/whep/front").await;
    let session = gateway.session("/whep/front", &created);
    Made { session, etag: created.header("etag").unwrap().to_owned(), answer: created.body, gateway }
}

impl Made {
    async fn patch(&self, if_match: Option<&str>, body: &str) -> Reply {
        let if_match = if_match.map(|value| ("if-match", value));
        let headers: Vec<_> = [FRAGMENT].into_iter().chain(if_match).collect();
        self.gateway.ask("PATCH", &self.session, &headers, body).await
    }
}

#[tokio::test]
async fn trickle_204_whatever_the_kind_of_candidate() {
    let made = made(Rig::default()).await;
    for body in [own_fragment().as_str(), "a=end-of-candidates\r\n", ""] {
        let reply = made.patch(Some(&made.etag), body).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{body}");
    }
    // With one among several, and with "*" where nothing is new.
    assert_eq!(made.patch(Some(&format!("\"x\", {}", made.etag)), &own_fragment()).await.status, 204);
    assert_eq!(made.patch(Some("*"), &own_fragment()).await.status, 204);
}

#[tokio::test]
async fn no_if_match_428() {
    let made = made(Rig::default()).await;
    assert!(made.patch(None, &own_fragment()).await.problem(428).contains("If-Match"));
}

#[tokio::test]
async fn wrong_etag_412() {
    let made = made(Rig::default()).await;
    let weak = format!("W/{}", made.etag);
    for wrong in ["\"another\"", weak.as_str(), "\"a\", \"b\""] {
        made.patch(Some(wrong), &own_fragment()).await.problem(412);
    }
}

#[tokio::test]
async fn another_content_type_415_and_broken_fragment_400() {
    let made = made(Rig::default()).await;
    let headers = [SDP, ("if-match", made.etag.as_str())];
    made.gateway.ask("PATCH", &made.session, &headers, &own_fragment()).await.problem(415);
    let words = made.patch(Some(&made.etag), "a=mid:0\r\nwhat?\r\n").await.problem(400);
    assert!(words.contains("line 2"), "{words}");
    made.patch(Some("*"), "a=ice-ufrag:ysXw\r\n").await.problem(400);
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("no {start} in {text}"))
}

#[tokio::test]
async fn ice_restart_200_with_a_fragment_and_a_new_etag() {
    let made = made(Rig::default()).await;
    let reply = made.patch(Some("*"), &fragment(NEW.0, NEW.1)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/trickle-ice-sdpfrag"));
    let etag = reply.header("etag").unwrap();
    assert!(etag != made.etag && etag.starts_with('"'));
    for name in ["a=ice-ufrag:", "a=ice-pwd:"] {
        assert_ne!(line(&reply.body, name), line(&made.answer, name));
    }
    assert_eq!(line(&reply.body, "a=mid:"), "0");
    assert!(line(&reply.body, "a=candidate:").contains("127.0.0.1"));
    // Candidates of the old session come too late, those of the new one are taken.
    made.patch(Some(&made.etag), &own_fragment()).await.problem(412);
    assert_eq!(made.patch(Some(etag), &fragment(NEW.0, NEW.1)).await.status, 204);
    // And once more.
    let again = made.patch(Some("*"), &fragment("next", NEW.1)).await;
    assert_eq!(again.status, 200);
    assert_ne!(line(&again.body, "a=ice-ufrag:"), line(&reply.body, "a=ice-ufrag:"));
}

#[tokio::test]
async fn delete_200_and_later_requests_404() {
    let made = made(Rig::default()).await;
    let viewers = &made.gateway.bus.device("front").unwrap().viewers;
    assert_eq!(made.gateway.ask("DELETE", &made.session, &[], "").await.status, 200);
    made.gateway.ask("DELETE", &made.session, &[], "").await.problem(404);
    made.patch(Some(&made.etag), &own_fragment()).await.problem(404);
    made.patch(Some("*"), &fragment(NEW.0, NEW.1)).await.problem(404);
    until("nobody watches", || viewers.webrtc.load(std::sync::atomic::Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn other_methods_405_and_unknown_sessions_404() {
    let made = made(Rig::default()).await;
    for method in ["GET", "HEAD", "POST", "PUT"] {
        let reply = made.gateway.ask(method, &made.session, &[SDP], CHROMIUM).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("PATCH,DELETE")), "{method}");
    }
    let guessed = format!("/whep/front/{:032x}", 7);
    made.gateway.ask("DELETE", &guessed, &[], "").await.problem(404);
    // Its own id below another endpoint, cut off, or with something more.
    let id = made.session.rsplit('/').next().unwrap();
    for path in [format!("/whep/front/sub/{id}"), format!("/whep/back/{id}"), format!("/whep/front/{}", &id[..31])] {
        made.gateway.ask("DELETE", &path, &[], "").await.problem(404);
    }
    assert_eq!(made.gateway.ask("DELETE", &format!("/front/whep/{id}"), &[], "").await.status, 200, "one resource");
}

#[tokio::test]
async fn a_viewer_that_never_comes_is_gone() {
    let mut rig = Rig::default();
    rig.webrtc.connect_within = Duration::from_millis(50);
    let made = made(rig).await;
    let start = std::time::Instant::now();
    while made.patch(Some("*"), &own_fragment()).await.status != 404 {
        assert!(start.elapsed() < PATIENCE);
    }
}
