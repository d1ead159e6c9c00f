//! What goes wrong is said once, in one sentence that helps, and never with a secret in it.

use super::process::Process;
use super::{CameraOptions, OPEN, PATIENCE, get, options, seen, start, street, visitors};
use crate::support::camera::{Act, Camera as Scripted, Options as Script};
use crate::support::rtsp_client::Client;
use crate::support::{routes, until};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fanlight::access::password;
use fanlight::simulate::rtsp::Login;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_taken_port_ends_it_with_code_3_and_a_proposal() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = taken.local_addr().unwrap().port();
    let (_taken, udp) = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap())
        .map(|socket| (socket.local_addr().unwrap().port(), socket))
        .find_map(|(port, socket)| port.is_multiple_of(2).then_some((socket, port)))
        .unwrap();
    for (key, port, http, rtsp, udp_ports, webrtc) in [
        ("http: listen", tcp, tcp, 0, "0".to_owned(), 0),
        ("rtsp: listen", tcp, 0, tcp, "0".to_owned(), 0),
        ("rtsp: udp_ports", udp, 0, 0, format!("{udp}-{}", udp + 1), 0),
        ("webrtc: listen", tcp, 0, 0, "0".to_owned(), tcp),
        ("webrtc: listen", udp, 0, 0, "0".to_owned(), udp),
    ] {
        let config = format!(
            "http: {{ listen: \"127.0.0.1:{http}\" }}\nauth: none\n\
             rtsp: {{ listen: \"127.0.0.1:{rtsp}\", udp_ports: {udp_ports} }}\n\
             webrtc: {{ listen: \"127.0.0.1:{webrtc}\" }}\n"
        );
        let mut process = Process::spawn(&config, |_, _| {});
        assert_eq!(process.ends().await.code(), Some(3), "{}", process.log());
        let lines = process.lines("ERROR", "");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert!(line.contains(&format!("port {port} of `{key}`")), "{line}");
        // The proposal holds.
        let proposed = line.split_once("; ").unwrap().1;
        let free: u16 =
            proposed.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()).unwrap().parse().unwrap();
        assert_ne!(free, port);
        let address = SocketAddr::from(([127, 0, 0, 1], free));
        if key != "rtsp: udp_ports" {
            TcpListener::bind(address).unwrap();
        }
        if key == "rtsp: udp_ports" || key == "webrtc: listen" {
            UdpSocket::bind(address).unwrap();
        }
        assert!(proposed.contains(&format!("`{key}`")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_trouble_is_told_once_in_the_log_and_as_the_reason() {
    let login = Login { user: "viewer".into(), password: "right".into() };
    let guarded = start(|| CameraOptions { login: Some(login), ..options(visitors, "127.0.1.3:0") }).await;
    let full = start(|| CameraOptions { max_clients: Some(0), ..options(visitors, "127.0.1.3:0") }).await;
    let silent = Scripted::start(Script { acts: vec![Act::SilentAfter(0)], ..Script::default() }).await;
    let acts = vec![Act::CloseAfter(30), Act::Play];
    let flaky = Scripted::start(Script { acts, ..Script::default() }).await;
    let closed: SocketAddr = {
        let listener = TcpListener::bind("127.0.1.3:0").unwrap();
        listener.local_addr().unwrap()
    };
    let config = format!(
        "{OPEN}  wrong: {{ source: \"{}\" }}\n  full: {{ source: \"{}\" }}\n  silent: {{ source: \"{}\" }}\n  \
         away: {{ source: \"rtsp://{closed}/live\" }}\n  flaky: {{ source: \"{}\" }}\n",
        guarded.url().replace("rtsp://", "rtsp://viewer:hunter2@"),
        full.url(),
        silent.url(),
        flaky.url(),
    );
    let process = Process::start(&config, |_, command| {
        command.env("RUST_LOG", "fanlight=debug");
    })
    .await;
    let mut expected = vec![
        ("wrong", "denied", format!("the camera at {} refuses the user name or password", guarded.address())),
        ("full", "busy", format!("the camera at {} refuses DESCRIBE with status 453", full.address())),
        ("silent", "silent", format!("the camera at {} is connected, but has sent no media for 5 s", silent.address)),
        ("away", "unreachable", format!("nothing answers at {closed}: ")),
    ];
    for (name, code, sentence) in &expected {
        let camera = process.camera(name, "", |camera| camera["state"] == "offline").await;
        assert_eq!(camera["reason_code"], *code, "{camera}");
        assert!(camera["reason"].as_str().unwrap().starts_with(sentence), "{camera}");
    }
    // One that is lost for a moment is told when it goes and when it is back.
    until("it is back", || process.lines("INFO", "online stream=\"flaky\"").len() == 2).await;
    process.camera("flaky", "", |camera| camera["state"] == "online" && camera["reason"].is_null()).await;
    expected.push(("flaky", "unreachable", format!("the camera at {} closed the connection", flaky.address)));
    // Those that are tried again soon have failed again, which is no news.
    until("they have failed again", || {
        ["silent", "away"].iter().all(|name| !process.lines("DEBUG", &format!("stream=\"{name}\" reason")).is_empty())
    })
    .await;
    for (name, _, sentence) in &expected {
        let lines = process.lines("WARN", &format!("{{id={name}}}"));
        assert_eq!(lines.iter().filter(|line| line.contains(sentence)).count(), 1, "{lines:?}");
        let told = process.log().lines().filter(|line| !line.contains("DEBUG") && line.contains(sentence)).count();
        assert_eq!(told, 1, "{}", process.log());
    }
    assert_eq!(process.lines("ERROR", ""), [""; 0]);
    assert_eq!(process.lines("WARN", "").len(), expected.len(), "{}", process.log());
    assert_eq!(guarded.counters().accepted, 1, "a refused password is not tried again soon");
}

/// A secret in each place that takes one, and some that people put one into.
const SECRETS: [&str; 10] = [
    "canary-Url-1",
    "canary-Field-2",
    "canary-Env-3",
    "canary-File-4",
    "canary-Key-5",
    "canary-Login-6",
    "canary-Path-7",
    "canary-Query-8",
    "canary-Wrong-9",
    "canary@/Odd:10",
];

/// The one secret that is told: to viewers who are signed in, in the `Link` of WHEP, since their browsers need it.
const TURN: &str = "canary-Turn-11";

/// A secret and the forms in which it could slip through.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()];
    for user in ["viewer", "admin", "recorder", ""] {
        forms.push(BASE64_STANDARD.encode(format!("{user}:{secret}")));
    }
    forms
}

/// What a path answers, headers and all; of an answer that does not end what came until it was still for a moment.
async fn what_comes(http: SocketAddr, path: &str, headers: &str) -> String {
    let mut socket = TcpStream::connect(http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut patience = PATIENCE;
    while let Ok(Ok(1..)) = timeout(patience, socket.read_buf(&mut answer)).await {
        patience = Duration::from_millis(500);
        if answer.len() > 1 << 20 {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

async fn sign_in(http: SocketAddr, media_type: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(http).await.unwrap();
    let request = format!(
        "POST /v1/session HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_appear_nowhere() {
    let [url, field, env, file, key, login, path, query, wrong, odd] = SECRETS;
    let guarded = |password: &'static str| async move {
        let login = Login { user: "viewer".into(), password: password.into() };
        start(move || CameraOptions { login: Some(login), ..options(street, "127.0.1.4:0") }).await
    };
    let (by_url, by_env, by_file, by_odd) =
        (guarded(url).await, guarded(env).await, guarded(file).await, guarded(odd).await);
    let hash = password::hash(login).unwrap();
    let encoded = utf8_percent_encode(odd, NON_ALPHANUMERIC);
    let config = format!(
        "http: {{ listen: \"127.0.0.1:0\" }}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\nwebrtc: {{ listen: \"127.0.0.1:0\", \
         ice_servers: [{{ urls: \"turn:turn.example\", username: fan, credential: {TURN} }}] }}\n\
         https: {{ listen: \"127.0.0.1:0\" }}\nrtsps: {{ listen: \"127.0.0.1:0\" }}\nusers:\n  \
         - {{ name: admin, role: admin, password_hash: \"{hash}\", stream_key: {key} }}\ncameras:\n  \
         by_url: {{ source: \"{}\" }}\n  \
         by_env: {{ source: {{ rtsp: {{ url: \"{}\", username: viewer, password: \"${{CANARY}}\" }} }} }}\n  \
         by_file: {{ source: {{ rtsp: {{ url: \"{}\", username: viewer, password_file: secret.txt }} }} }}\n  \
         by_odd: {{ source: \"{}\" }}\n  \
         denied: {{ source: {{ rtsp: {{ url: \"{}\", username: viewer, password: {field} }} }} }}\n  \
         by_path: {{ source: \"rtsp://{}/user=admin_password={path}_channel=1\" }}\n  \
         by_query: {{ source: \"rtsp://viewer:{url}@{}/live?password={query}\" }}\n  \
         away: {{ source: \"rtsp://viewer:{url}@127.0.1.4:9/live?password={query}\" }}\n",
        by_url.url().replace("rtsp://", &format!("rtsp://viewer:{url}@")),
        by_env.url(),
        by_file.url(),
        by_odd.url().replace("rtsp://", &format!("rtsp://viewer:{encoded}@")),
        by_url.url(),
        by_url.address(),
        by_url.address(),
    );
    let process = Process::start(&config, |folder, command| {
        std::fs::write(folder.join("secret.txt"), format!("{file}\n")).unwrap();
        command.env("CANARY", env).env("RUST_LOG", "trace,retina=trace");
    })
    .await;
    let basic =
        |secret: &str| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("admin:{secret}")));
    let (good, bad) = (basic(login), basic(wrong));
    let mut answers = String::new();
    for name in ["by_url", "by_env", "by_file", "by_odd"] {
        process.camera(name, &good, |camera| camera["state"] == "online").await;
    }
    for name in ["denied", "by_path", "by_query", "away"] {
        let camera = process.camera(name, &good, |camera| camera["state"] == "offline").await;
        assert!(camera["reason"].is_string(), "{camera}");
    }

    // HTTP with every login there is, and every kind of answer.
    let right = format!(r#"{{"name":"admin","password":"{login}"}}"#);
    let session = sign_in(process.http(), "application/json", &right).await;
    let token = session.lines().find_map(|line| line.strip_prefix("set-cookie: fanlight_session=")).unwrap();
    let token = token.split(';').next().unwrap().to_owned();
    let mut paths: Vec<_> = ["by_url", "denied", "nobody"].into_iter().flat_map(routes::paths).collect();
    paths.extend(["/nowhere".to_owned(), "/camera/by_url?kiosk".to_owned()]);
    let cookie = format!("Cookie: fanlight_session={token}\r\n");
    for headers in [&good, "", "Accept: text/html\r\n", &format!("Authorization: Bearer {login}\r\n"), &cookie] {
        let http = process.http();
        let each = paths.iter().map(|path| async move {
            let text = what_comes(http, path, headers).await;
            assert!(text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 500"), "{path}: {text}");
            text
        });
        answers += &futures::future::join_all(each).await.concat();
    }
    for (media_type, body, status) in [
        ("application/json", format!(r#"{{"name":"admin","password":"{wrong}"}}"#), 401),
        ("application/json", format!(r#"{{"name":"admin","password":{wrong}"#), 400),
        ("text/plain", wrong.to_owned(), 415),
        ("application/x-www-form-urlencoded", format!("name=admin&password={wrong}&next=/"), 401),
        ("application/x-www-form-urlencoded", format!("name=nobody&password={wrong}"), 401),
    ] {
        let answer = sign_in(process.http(), media_type, &body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body}: {answer}");
        answers += &answer;
    }
    for headers in [&bad, &format!("Authorization: Bearer {wrong}\r\n"), &basic(key)] {
        let (status, body) = get(process.http(), "/v1/cameras", headers).await;
        assert_eq!(status, 401);
        answers += &body;
    }
    // RTSP: the key as Basic, in the URL of the request, a wrong one, and the login password, which is no key.
    for (secret, status) in [(key, 200), (wrong, 401), (login, 401)] {
        let mut client = Client::connect(process.rtsp(), "by_url").await;
        let uri = client.base.replace("rtsp://", &format!("rtsp://admin:{secret}@"));
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("admin:{secret}")));
        let reply = client.request("DESCRIBE", &uri, &[("Authorization", &basic)]).await;
        assert_eq!(reply.status, status, "{reply:?}");
        let play = client.request("PLAY", &uri, &[("Authorization", &basic)]).await;
        answers += &format!("{:?} {} {:?}", reply.headers, reply.body, play.headers);
    }
    // A file with mistakes on the very lines that hold secrets.
    let broken = config
        .replace(&format!("password: {field}"), &format!("pasword: {field}"))
        .replace("by_path: { source: \"rtsp:", "by_path: { source: \"rstp:")
        .replace(&format!("stream_key: {key}"), &format!("stream_key: {key}, stream_key: {key}"))
        .replace("${CANARY}", "${CANARY}${NOT_SET}");
    process.reload(&broken);
    until("the mistakes are told", || !process.lines("ERROR", "nothing was changed").is_empty()).await;
    let (_, metrics) = get(process.http(), "/metrics", &good).await;
    assert!(metrics.contains("fanlight_config_ok 0"), "{metrics}");
    answers += &metrics;

    let log = process.log();
    assert!(log.contains("TRACE"), "everything is logged");
    let private = std::fs::read_to_string(process.folder.path().join("data/tls/key.pem")).unwrap();
    let private = private.lines().nth(1).unwrap().to_owned();
    assert!(process.lines("WARN", "refused: wrong user name or password").len() >= 2, "{log}");
    assert_eq!(log.lines().find(|line| line.contains(TURN)), None, "the TURN password is in the log");
    let mut told = answers.lines().filter(|line| line.contains(TURN)).peekable();
    assert!(told.peek().is_some() && told.all(|line| line.starts_with("link: <turn:turn.example>")));
    assert!(!what_comes(process.http(), "/whep/by_url", "").await.contains(TURN), "who is not signed in is not told");
    for secret in SECRETS.iter().flat_map(|secret| forms(secret)).chain([hash, token, private]) {
        for (place, text) in [("log", &log), ("answers", &answers)] {
            let found = text.lines().find(|line| line.contains(&secret));
            assert_eq!(found, None, "{secret} is in the {place}");
        }
    }
    seen(&by_url, "it is still watched", |counters| counters.open == 1).await;
}
