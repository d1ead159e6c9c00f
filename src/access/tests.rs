//! Who is let in, who is not, and what it costs.

use super::*;
use crate::config::Secret;
use argon2::Params;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const KEY: &str = "stream-key-of-ann";
const PASSWORD: &str = "correct horse";
const URI: &str = "rtsp://192.0.2.1:8554/front";

fn hash(password: &str) -> Secret {
    let little = Params::new(Params::MIN_M_COST, 1, 1, None).expect("valid");
    Secret::new(password::hash_with(password, little).expect("hashed"))
}

fn ann() -> User {
    let (hash, key) = (hash(PASSWORD), Secret::new(KEY));
    User { name: "ann".into(), role: Role::Admin, password_hash: Some(hash), stream_key: Some(key) }
}

fn bob() -> User {
    User { name: "bob".into(), role: Role::Viewer, password_hash: Some(hash("battery staple")), stream_key: None }
}

fn access() -> Access {
    Access::new(Auth::Users, vec![ann(), bob()])
}

fn peer() -> IpAddr {
    "192.0.2.77".parse().expect("an address")
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn sha(text: String) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a client answers to the first challenge.
fn answer(challenge: &str, name: &str, key: &str, method: &str, uri: &str) -> String {
    let nonce = challenge.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
    let response = sha(format!("{}:{nonce}:{}", sha(format!("{name}:Fanlight:{key}")), sha(format!("{method}:{uri}"))));
    format!(
        "Digest username=\"{name}\", realm=\"Fanlight\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", \
         algorithm=SHA-256"
    )
}

fn name(verdict: &HttpVerdict) -> Option<&str> {
    let HttpVerdict::Granted(user) = verdict else { panic!("{verdict:?}") };
    user.as_ref().map(|user| user.name.as_str())
}

const REFUSED: RtspVerdict = RtspVerdict::Challenge { stale: false };

#[tokio::test]
async fn rtsp_takes_the_stream_key_and_nothing_else() {
    let access = access();
    let check =
        async |method, uri, authorization: Option<&str>| access.check_rtsp(peer(), method, uri, authorization).await;
    assert_eq!(check("DESCRIBE", URI, None).await, REFUSED);
    let [sha, _, _] = access.rtsp_challenges(false);
    let granted = check("DESCRIBE", URI, Some(&answer(&sha, "ann", KEY, "DESCRIBE", URI))).await;
    assert_eq!(granted, RtspVerdict::Granted(Some(Arc::new(ann_of(&access)))));
    let granted = check("PLAY", URI, Some(&basic("ann", KEY))).await;
    assert!(matches!(granted, RtspVerdict::Granted(Some(_))), "{granted:?}");
    for wrong in [
        answer(&sha, "ann", PASSWORD, "DESCRIBE", URI),
        answer(&sha, "ann", KEY, "PLAY", URI),
        answer(&sha, "ann", KEY, "DESCRIBE", "rtsp://192.0.2.1:8554/back"),
        answer(&sha, "bob", KEY, "DESCRIBE", URI),
        answer(&sha, "nobody", KEY, "DESCRIBE", URI),
        answer(&sha, "nobody", NOBODY, "DESCRIBE", URI),
        basic("bob", NOBODY),
    ] {
        assert_eq!(check("DESCRIBE", URI, Some(&wrong)).await, REFUSED, "{wrong}");
    }
}

#[tokio::test]
async fn rtsp_refuses_what_belongs_to_http() {
    let access = access();
    for wrong in [basic("ann", PASSWORD), basic("bob", "battery staple"), format!("Bearer {KEY}"), "Digest".into()] {
        assert_eq!(access.check_rtsp(peer(), "DESCRIBE", URI, Some(&wrong)).await, REFUSED, "{wrong}");
    }
}

fn ann_of(access: &Access) -> User {
    (**access.users.load().named("ann").expect("ann")).clone()
}

#[tokio::test(start_paused = true)]
async fn an_old_nonce_is_stale_and_no_failure() {
    let access = access();
    let [sha, _, _] = access.rtsp_challenges(false);
    let right = answer(&sha, "ann", KEY, "PLAY", URI);
    tokio::time::advance(Duration::from_secs(601)).await;
    for _ in 0..50 {
        let verdict = access.check_rtsp(peer(), "PLAY", URI, Some(&right)).await;
        assert_eq!(verdict, RtspVerdict::Challenge { stale: true });
    }
    let [sha, _, _] = access.rtsp_challenges(true);
    let verdict = access.check_rtsp(peer(), "PLAY", URI, Some(&answer(&sha, "ann", KEY, "PLAY", URI))).await;
    assert!(matches!(verdict, RtspVerdict::Granted(Some(_))));
    let wrong = answer(&sha, "ann", "no", "PLAY", URI);
    assert_eq!(access.check_rtsp(peer(), "PLAY", URI, Some(&wrong)).await, REFUSED);
}

#[tokio::test(start_paused = true)]
async fn failures_are_limited_by_address_and_questions_are_not() {
    let access = access();
    let wrong = basic("ann", "guess");
    for _ in 0..100 {
        assert_eq!(access.check_rtsp(peer(), "DESCRIBE", URI, None).await, REFUSED);
        assert_eq!(access.check_http(peer(), None).await, HttpVerdict::Denied);
    }
    for _ in 0..10 {
        assert_eq!(access.check_rtsp(peer(), "DESCRIBE", URI, Some(&wrong)).await, REFUSED);
    }
    let right = basic("ann", KEY);
    assert_eq!(access.check_rtsp(peer(), "DESCRIBE", URI, Some(&right)).await, RtspVerdict::Limited);
    assert_eq!(access.check_http(peer(), Some(&basic("ann", PASSWORD))).await, HttpVerdict::Limited);
    let other = "192.0.2.78".parse().expect("an address");
    assert!(matches!(access.check_rtsp(other, "DESCRIBE", URI, Some(&right)).await, RtspVerdict::Granted(_)));
    tokio::time::advance(Duration::from_secs(6)).await;
    assert!(matches!(access.check_rtsp(peer(), "DESCRIBE", URI, Some(&right)).await, RtspVerdict::Granted(_)));
}

#[tokio::test]
async fn http_takes_the_login_password_and_nothing_else() {
    let access = access();
    let check = async |authorization: &str| access.check_http(peer(), Some(authorization)).await;
    assert_eq!(name(&check(&basic("ann", PASSWORD)).await), Some("ann"));
    assert_eq!(name(&check(&format!("Bearer {PASSWORD}")).await), Some("ann"));
    assert_eq!(name(&check("Bearer battery staple").await), Some("bob"));
    for wrong in [
        basic("ann", KEY),
        basic("bob", PASSWORD),
        basic("nobody", PASSWORD),
        format!("Bearer {KEY}"),
        "Digest username=a, nonce=b, response=c".into(),
        basic("ann", ""),
    ] {
        assert_eq!(check(&wrong).await, HttpVerdict::Denied, "{wrong}");
    }
    assert_eq!(check(&basic("ann", &"x".repeat(2000))).await, HttpVerdict::Limited, "too long to be one");
    assert!(crate::config::check_hash(NOBODY).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_login_is_remembered_and_a_repeated_wrong_one_is_no_attack() {
    let access = access();
    let (right, wrong) = (basic("ann", PASSWORD), basic("ann", "wrong password"));
    assert_eq!(name(&access.check_http(peer(), Some(&right)).await), Some("ann"));
    for _ in 0..100 {
        assert_eq!(access.check_http(peer(), Some(&wrong)).await, HttpVerdict::Denied);
    }
    assert!(!access.limiter.is_limited(peer()));
    for n in 0..9 {
        let guess = basic("ann", &format!("guess number {n}"));
        assert_eq!(access.check_http(peer(), Some(&guess)).await, HttpVerdict::Denied);
    }
    assert_eq!(access.check_http(peer(), Some(&basic("ann", "one more"))).await, HttpVerdict::Limited);
    assert_eq!(name(&access.check_http(peer(), Some(&right)).await), Some("ann"), "known by now");
    // Forgotten after ten minutes: argon2 is asked again, and says the same.
    tokio::time::advance(Duration::from_secs(600)).await;
    let parts = ["0", "basic", "ann", PASSWORD];
    assert!(access.good.get(&access.good.hash(&parts)).is_none());
    assert_eq!(name(&access.check_http(peer(), Some(&right)).await), Some("ann"));
    assert!(access.good.get(&access.good.hash(&parts)).is_some());
}

#[tokio::test]
async fn guesses_at_once_get_no_further_than_one_after_the_other() {
    let access = Arc::new(access());
    let guesses: Vec<_> = (0..200)
        .map(|n| {
            let access = access.clone();
            tokio::spawn(async move { access.check_http(peer(), Some(&basic("ann", &format!("guess {n}")))).await })
        })
        .collect();
    let mut denied = 0;
    for guess in guesses {
        denied += usize::from(guess.await.expect("no panic") == HttpVerdict::Denied);
    }
    assert_eq!(denied, 10, "the others were limited or found the queue full");
}

#[tokio::test]
async fn without_users_only_this_machine_gets_in() {
    let access = Access::new(Auth::Users, Vec::new());
    assert!(access.loopback_only());
    for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let here = here.parse().expect("an address");
        assert_eq!(access.check_http(here, None).await, HttpVerdict::Granted(None));
        assert_eq!(access.check_rtsp(here, "DESCRIBE", URI, None).await, RtspVerdict::Granted(None));
    }
    assert_eq!(access.check_http(peer(), None).await, HttpVerdict::Denied);
    assert_eq!(access.check_rtsp(peer(), "DESCRIBE", URI, None).await, REFUSED);

    let open = Access::new(Auth::None, vec![ann()]);
    assert!(!open.loopback_only());
    assert_eq!(open.check_http(peer(), Some("Basic nonsense")).await, HttpVerdict::Granted(None));
    assert_eq!(open.check_rtsp(peer(), "DESCRIBE", URI, None).await, RtspVerdict::Granted(None));
}

#[tokio::test]
async fn sessions_of_removed_and_changed_users_end() {
    let (ann, bob) = (ann(), bob());
    let access = Access::new(Auth::Users, vec![ann.clone(), bob.clone()]);
    let mut changed = access.sessions_changed();
    assert_eq!(name(&access.check_http(peer(), Some(&basic("bob", "battery staple"))).await), Some("bob"));
    assert!(access.is_valid(peer(), Some(&ann)) && !access.is_valid(peer(), None));

    access.replace(Auth::Users, vec![ann.clone(), bob.clone()]);
    assert!(!changed.has_changed().expect("alive"), "nothing differs");

    let key = Secret::new("another key for streams");
    access.replace(Auth::Users, vec![User { stream_key: Some(key), ..ann.clone() }]);
    assert!(changed.has_changed().expect("alive"));
    changed.mark_unchanged();
    assert!(!access.is_valid(peer(), Some(&ann)), "changed");
    assert!(!access.is_valid(peer(), Some(&bob)), "removed");
    let verdict = access.check_http(peer(), Some(&basic("bob", "battery staple"))).await;
    assert_eq!(verdict, HttpVerdict::Denied, "what was remembered is forgotten");

    access.replace(Auth::None, Vec::new());
    assert!(changed.has_changed().expect("alive") && access.is_valid(peer(), Some(&bob)));
    access.replace(Auth::Users, Vec::new());
    assert!(!access.is_valid(peer(), Some(&bob)) && access.is_valid("::1".parse().expect("an address"), None));
}

#[test]
fn nothing_secret_is_in_its_debug_output() {
    let shown = format!("{:?}", access());
    assert!(shown.contains("ann") && !shown.contains(KEY) && !shown.contains("argon2id"), "{shown}");
}
