use super::*;
use crate::bus::{ReasonCode, Want};
use crate::config::Secret;
use crate::ingest::testing;
use crate::simulate::http::{Camera, Counters, Faults, Login, Options, Scheme};
use crate::simulate::iwfcam::Scene;
use std::sync::{Arc, OnceLock};
use tokio::task::JoinHandle;
use url::Url;

/// How long anything may take before a test gives up. Generous: tests share two cores.
const PATIENCE: Duration = Duration::from_secs(20);

fn scene() -> Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| Scene::bars(64, 48, 5).unwrap()).clone()
}

async fn camera(options: Options) -> Camera {
    Camera::start(options, scene()).await.unwrap()
}

fn faulty(faults: Faults) -> Options {
    Options { faults, fps: 30.0, ..Options::default() }
}

fn config(url: &str) -> Config {
    let (url, every) = (Url::parse(url).unwrap(), Duration::from_millis(50));
    Config { url, every, username: None, password: None, fingerprint: None }
}

fn with_login(url: &str, password: &str) -> Config {
    Config { username: Some("ann".into()), password: Some(Secret::new(password)), ..config(url) }
}

fn asks(scheme: Scheme, nonce_lasts: u32) -> Options {
    let login = Login { user: "ann".into(), password: "pass word".into(), scheme, nonce_lasts };
    Options { login: Some(login), fps: 30.0, ..Options::default() }
}

/// A session that runs, and what it writes to.
struct Session {
    io: DeviceIo,
    task: JoinHandle<Result<(), AdapterError>>,
}

fn run(config: Config) -> Session {
    run_with(config, Patience::default())
}

fn run_with(config: Config, patience: Patience) -> Session {
    let io = testing::io("http");
    let (http, inner) = (Http::new(&config, patience), io.clone());
    Session { io, task: tokio::spawn(async move { http.run(inner).await }) }
}

impl Session {
    /// The numbers of so many pictures, as they come.
    async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let stream = Arc::clone(&self.io.stream);
        let read = async {
            assert!(stream.ready().await);
            let mut reader = stream.subscribe(Want::Video);
            let mut numbers: Vec<u64> = Vec::new();
            while numbers.len() < count {
                let (_, unit) = reader.next().await.unwrap();
                let number = Scene::counter(&unit.payload).expect("the camera's own bytes");
                // The newest one may be repeated.
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
            numbers
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(numbers) => numbers,
            Err(_) => panic!("no pictures: finished {}", self.task.is_finished()),
        }
    }

    /// Why it ended by itself.
    async fn error(self) -> AdapterError {
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap_err()
    }

    async fn stop(self) {
        self.io.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap();
    }
}

async fn seen(camera: &Camera, what: &str, condition: impl FnMut(&Counters) -> bool) -> Counters {
    let mut watch = camera.watch();
    match tokio::time::timeout(PATIENCE, watch.wait_for(condition)).await {
        Ok(counters) => *counters.unwrap(),
        Err(_) => panic!("in vain until {what}: {:?}", camera.counters()),
    }
}

#[tokio::test]
async fn streams_are_read_whatever_their_dialect() {
    for faults in [
        Faults::default(),
        Faults { no_length: true, ..Faults::default() },
        Faults { wrong_boundary: true, ..Faults::default() },
        Faults { lf_only: true, no_length: true, ..Faults::default() },
    ] {
        let camera = camera(faulty(faults.clone())).await;
        let mut session = run(config(&camera.url("/video")));
        let numbers = session.numbers(5).await;
        assert!(numbers.is_sorted(), "{faults:?}: {numbers:?}");
        assert_eq!((camera.counters().streams, session.io.device.upstream().open()), (1, 1));
        assert!(*session.io.playing.borrow());
        assert!(session.io.stream.totals().frames >= 5 && session.io.stream.totals().lost == 0, "{faults:?}");
        session.stop().await;
        seen(&camera, "the connection is closed", |counters| counters.open == 0).await;
    }
}

#[tokio::test]
async fn a_still_is_asked_for_one_request_at_a_time_and_published_once() {
    for faults in
        [Faults::default(), Faults { no_etag: true, ..Faults::default() }, Faults { close: true, ..Faults::default() }]
    {
        // Four requests for each picture.
        let camera = camera(Options { fps: 5.0, faults: faults.clone(), ..Options::default() }).await;
        let mut session = run(config(&camera.url("/snapshot.jpg")));
        let numbers = session.numbers(4).await;
        let counters = seen(&camera, "more requests than pictures", |now| now.requests >= 12).await;
        assert!(numbers.is_sorted() && counters.most_busy == 1, "{counters:?}");
        let frames = session.io.stream.totals().frames;
        assert!(frames <= camera.counters().requests / 2, "{faults:?}: {frames} of {:?}", camera.counters());
        assert_eq!(counters.unchanged > 0, !faults.no_etag, "{counters:?}");
        assert_eq!(counters.connections == 1, !faults.close, "{counters:?}");
        assert!(session.io.device.upstream().open() <= 1);
        session.stop().await;
    }
}

#[tokio::test]
async fn logins_are_shown_as_asked_for_and_a_nonce_is_used_again() {
    for (scheme, lasts) in [(Scheme::Basic, 0), (Scheme::Digest, 0), (Scheme::Digest, 3)] {
        let camera = camera(asks(scheme, lasts)).await;
        let mut session = run(with_login(&camera.url("/snapshot.jpg?size=1"), "pass word"));
        session.numbers(2).await;
        let counters = seen(&camera, "many requests", |now| now.requests >= 12).await;
        let allowed = if lasts == 0 { 1 } else { counters.requests / 2 };
        assert!((1..=allowed).contains(&counters.refused), "{scheme:?}, {lasts}: {counters:?}");
        assert_eq!(counters.connections, 1, "{counters:?}");
        session.stop().await;
    }
    let camera = camera(asks(Scheme::Digest, 0)).await;
    for config in [with_login(&camera.url("/video"), "wrong"), config(&camera.url("/video"))] {
        let known = config.username.is_some();
        let error = run(config).error().await;
        assert_eq!(error.code, ReasonCode::Denied);
        assert_eq!(error.text.contains("refuses"), known, "{error}");
        assert!(!error.text.contains("wrong"), "{error}");
    }
    assert_eq!(camera.counters().requests, 3, "a password that is refused is not tried again and again");
}

#[tokio::test]
async fn redirects_are_followed_but_the_login_stays_at_home() {
    let home = camera(asks(Scheme::Digest, 0)).await;
    let mut session = run(with_login(&home.url("/moved"), "pass word"));
    session.numbers(2).await;
    session.stop().await;

    // Another host, and another port of this one: it asks for a login and does not get ours.
    for listen in ["127.0.0.2:0", "127.0.0.1:0"] {
        let away = camera(Options { listen: listen.parse().unwrap(), ..asks(Scheme::Basic, 0) }).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = away.url("/video");
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 2048];
                let _ = socket.read(&mut request).await;
                let answer = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        let error = run(with_login(&format!("http://{address}/"), "pass word")).error().await;
        assert_eq!(error.code, ReasonCode::Misconfigured, "{error}");
        assert!(error.text.contains(&format!("leads to http://{}, which asks for a login", away.address())), "{error}");
        let counters = away.counters();
        assert_eq!((counters.requests, counters.logins), (1, 0), "{counters:?}");
    }

    // A circle.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 2048];
            while socket.read(&mut request).await.is_ok_and(|count| count > 0) {
                let answer = "HTTP/1.1 301 Moved\r\nLocation: /round\r\nContent-Length: 0\r\n\r\n";
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        }
    });
    let error = run(config(&format!("http://{address}/"))).error().await;
    assert_eq!(error.code, ReasonCode::Misconfigured, "{error}");
}

#[tokio::test]
async fn tls_takes_any_certificate_or_only_the_one_that_is_wanted() {
    let camera = camera(Options { https: true, fps: 30.0, ..Options::default() }).await;
    let right = camera.fingerprint();
    assert!(right.is_some());
    for fingerprint in [None, right] {
        let mut session = run(Config { fingerprint, ..config(&camera.url("/video")) });
        session.numbers(2).await;
        session.stop().await;
    }
    let other = Fingerprint::read(&"ab".repeat(32));
    let error = run(Config { fingerprint: other, ..config(&camera.url("/video")) }).error().await;
    assert_eq!(error.code, ReasonCode::Denied, "{error}");
    let plain = camera.url("/video").replace("https", "http");
    let error = run(config(&plain)).error().await;
    assert!(matches!(error.code, ReasonCode::Misconfigured | ReasonCode::Unreachable), "{error}");
}

#[tokio::test]
async fn answers_that_are_no_pictures_become_reasons() {
    let answers = camera(Options::default()).await;
    for (path, code, words) in [
        ("/", ReasonCode::Unsupported, "a web page"),
        ("/nothing?password=hunter2", ReasonCode::Misconfigured, "nothing at /nothing"),
    ] {
        let error = run(config(&answers.url(path))).error().await;
        assert!(error.code == code && error.text.contains(words), "{error}");
        assert!(!error.text.contains("hunter2"), "{error}");
    }
    for (status, code) in [
        (503, ReasonCode::Busy),
        (429, ReasonCode::Busy),
        (403, ReasonCode::Denied),
        (410, ReasonCode::Misconfigured),
        (500, ReasonCode::Unsupported),
    ] {
        let camera = camera(faulty(Faults { status: Some(status), ..Faults::default() })).await;
        assert_eq!(run(config(&camera.url("/video"))).error().await.code, code, "{status}");
    }
    let one = camera(Options { max_clients: Some(1), fps: 30.0, ..Options::default() }).await;
    let mut first = run(config(&one.url("/video")));
    first.numbers(1).await;
    assert_eq!(run(config(&one.url("/video"))).error().await.code, ReasonCode::Busy);
    first.stop().await;

    let gone = one.url("/video");
    drop(one);
    let gone = gone.replace("127.0.0.1", "127.0.0.77");
    assert_eq!(run(config(&gone)).error().await.code, ReasonCode::Unreachable);
}

#[tokio::test]
async fn cameras_that_fall_silent_or_hang_up_end_the_session() {
    let patience =
        Patience { answer: Duration::from_millis(700), silence: Duration::from_millis(300), ..Patience::default() };
    let stalls = camera(faulty(Faults { stall_after: Some(Duration::from_millis(200)), ..Faults::default() })).await;
    let mut session = run_with(config(&stalls.url("/video")), patience);
    session.numbers(2).await;
    let error = session.error().await;
    assert!(error.code == ReasonCode::Silent && error.text.contains("no picture for 0.9 s"), "{error}");
    seen(&stalls, "the connection is closed", |counters| counters.open == 0).await;

    let closes = camera(faulty(Faults { close_after: Some(Duration::from_millis(300)), ..Faults::default() })).await;
    let mut session = run(config(&closes.url("/video")));
    session.numbers(2).await;
    let lost = Arc::clone(&session.io.stream);
    let error = session.error().await;
    assert_eq!(error.code, ReasonCode::Unreachable, "{error}");
    assert_eq!(lost.totals().lost, 0, "half a picture never came to be one");

    let hangs = camera(faulty(Faults { slow: Some(PATIENCE), ..Faults::default() })).await;
    let error = run_with(config(&hangs.url("/snapshot.jpg")), patience).error().await;
    assert_eq!(error.code, ReasonCode::Busy, "{error}");
}

#[tokio::test]
async fn torn_pictures_are_counted_and_never_shown() {
    let camera = camera(faulty(Faults { truncate_every: Some(3), ..Faults::default() })).await;
    let mut session = run(config(&camera.url("/video")));
    let numbers = session.numbers(8).await;
    assert!(numbers.iter().all(|number| number % 3 != 2), "{numbers:?}");
    assert!(session.io.stream.totals().lost >= 2);
    session.stop().await;

    let camera = self::camera(faulty(Faults { truncate_every: Some(1), ..Faults::default() })).await;
    let session = run(config(&camera.url("/video")));
    let stream = Arc::clone(&session.io.stream);
    assert_eq!(session.error().await.code, ReasonCode::Unsupported);
    assert!(stream.newest_key().is_none() && stream.totals().lost == u64::from(MOST_BROKEN_AT_FIRST));

    // The same bytes each time, and no wish for another before tomorrow.
    let faults = Faults { truncate_every: Some(1), ..Faults::default() };
    let camera = self::camera(Options { faults, fps: 0.001, ..Options::default() }).await;
    let every = Duration::from_secs(86_400);
    let error = run(Config { every, ..config(&camera.url("/snapshot.jpg")) }).error().await;
    assert_eq!(error.code, ReasonCode::Unsupported, "{error}");
    assert_eq!(camera.counters().pictures, u64::from(MOST_BROKEN_AT_FIRST));
}
