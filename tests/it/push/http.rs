//! What becomes of each kind of body.

use super::{Gateway, PATIENCE, read_answer, scene};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PUSH: &str = "/v1/cameras/yard/push";
const ALARM: &str = include_str!("../../../src/ingest/push/testdata/hikvision-200321-vmd.xml");

fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(format!("--XX\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_picture_is_the_newest_one_however_it_comes() {
    let gateway = Gateway::start("auth: none").await;
    let scene = scene();
    let field = "Content-Disposition: form-data; name=\"any\"; filename=\"x.jpg\"\r\nContent-Type: image/jpeg";
    for (number, (method, content_type)) in [
        ("POST", "image/jpeg"),
        ("PUT", "application/octet-stream"),
        ("POST", "multipart/form-data; boundary=XX"),
        ("PUT", "multipart/mixed; boundary=other"),
    ]
    .into_iter()
    .enumerate()
    {
        let picture = scene.picture(number as u64);
        let body = if content_type.starts_with("multipart") {
            multipart(&[("Content-Disposition: form-data; name=\"note\"", b"hello"), (field, &picture)])
        } else {
            picture.clone()
        };
        let answer = gateway.send(method, PUSH, &[("Content-Type", content_type)], &body).await;
        assert_eq!(answer.status, 200, "{content_type}: {}", answer.text());
        assert_eq!(answer.json(), serde_json::json!({ "picture": { "width": 320, "height": 240 }, "event": null }));
        assert_eq!(gateway.snapshot("yard").await, picture, "byte for byte");
    }
    let camera = gateway.get("/v1/cameras/yard").await.json();
    assert_eq!((&camera["frames"], &camera["family"], &camera["state"]), (&4.into(), &"push".into(), &"online".into()));
    assert!(gateway.events("yard").await.is_empty(), "plain pictures are no events here");
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_an_event_with_the_picture_there_is() {
    let gateway = Gateway::start("auth: none").await;
    let scene = scene();
    let xml = [("Content-Type", "application/xml; charset=\"UTF-8\"")];
    let told = gateway.send("POST", PUSH, &xml, ALARM.as_bytes()).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let events = gateway.events("yard").await;
    assert_eq!((events.len(), &events[0]["kind"], &events[0]["id"]), (1, &"motion".into(), &told.json()["event"]));
    assert_eq!(events[0]["picture"], serde_json::Value::Null, "there was no picture yet");
    assert_eq!(events[0]["detail"]["type"], "VMD");

    // It goes on, now with a picture: the same event.
    let picture = scene.picture(1);
    let parts = [("Content-Type: application/xml", ALARM.as_bytes()), ("Content-Type: image/jpeg", &picture)];
    let both = multipart(&parts);
    let header = [("Content-Type", "multipart/mixed; boundary=XX")];
    let again = gateway.send("POST", PUSH, &header, &both).await;
    assert_eq!(again.json()["event"], told.json()["event"]);
    assert_eq!(gateway.snapshot("yard").await, picture);
    let events = gateway.events("yard").await;
    assert_eq!(events.len(), 1);
    let url = events[0]["picture"].as_str().unwrap();
    assert_eq!(gateway.get(url).await.body, picture);

    // Another cause has the newest picture, although it brings none.
    let pir = ALARM.replace("VMD", "PIR");
    gateway.send("POST", PUSH, &xml, pir.as_bytes()).await;
    let events = gateway.events("yard").await;
    assert_eq!((events.len(), &events[0]["kind"]), (2, &"pir".into()));
    assert_eq!(gateway.get(events[0]["picture"].as_str().unwrap()).await.body, picture);
    // It ends, and heartbeats are nothing.
    for quiet in
        [pir.replace("active</", "inactive</"), ALARM.replace("VMD", "videoloss").replace("active</", "inactive</")]
    {
        assert_eq!(gateway.send("POST", PUSH, &xml, quiet.as_bytes()).await.status, 200);
    }
    assert_eq!(gateway.events("yard").await.len(), 3);
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_events_where_the_configuration_says_so() {
    let gateway = Gateway::start("auth: none").await;
    let scene = scene();
    for number in 0..3 {
        let answer = gateway.send("POST", "/v1/cameras/motion/push", &[], &scene.picture(number)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let events = gateway.events("motion").await;
    assert_eq!((events.len(), &events[0]["kind"]), (1, &"motion".into()), "a burst is one");
    assert_eq!(gateway.get(events[0]["picture"].as_str().unwrap()).await.body, scene.picture(0));
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_told_why() {
    let gateway = Gateway::start("auth: none").await;
    let picture = scene().picture(7);
    assert_eq!(gateway.send("POST", PUSH, &[], &picture).await.status, 200);
    let torn = &picture[..picture.len() / 2];
    let mangled: Vec<u8> = picture.iter().copied().filter(|byte| ![b'\r', b'\n', 0].contains(byte)).collect();
    let mut large = picture.clone();
    large.resize(17 << 20, 0);
    let form = "application/x-www-form-urlencoded";
    let cases: [(&str, &str, &[u8], u16, &str); 9] = [
        (PUSH, "image/jpeg", b"", 400, "empty"),
        (PUSH, "multipart/form-data; boundary=XX", b"--XX\r\nnonsense", 400, "multipart"),
        (PUSH, "application/xml", b"<nothing/>", 400, "EventNotificationAlert"),
        ("/v1/cameras/nobody/push", "image/jpeg", &picture, 404, "nobody"),
        ("/v1/cameras/front/push", "image/jpeg", &picture, 409, "source: push:"),
        (PUSH, "image/jpeg", &large, 413, "16 MiB"),
        (PUSH, "image/png", b"\x89PNG\r\n\x1a\n", 415, "PNG"),
        (PUSH, "image/jpeg", torn, 422, "cannot be used"),
        (PUSH, form, &mangled, 422, "--data-binary"),
    ];
    for (path, content_type, body, status, words) in cases {
        let answer = gateway.send("POST", path, &[("Content-Type", content_type)], body).await;
        assert_eq!(answer.status, status, "{content_type}: {}", answer.text());
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{content_type}: {detail}");
        assert!(answer.head.contains("application/problem+json"), "{}", answer.head);
    }
    assert_eq!(gateway.snapshot("yard").await, picture, "the good one stays");
    assert_eq!(gateway.send("DELETE", PUSH, &[], b"").await.status, 405);
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_asked_for_the_body_is_asked_or_refused() {
    let gateway = Gateway::start("auth: none").await;
    let picture = scene().picture(3);
    let ask = async |path: &str, length: usize| {
        let mut socket = TcpStream::connect(gateway.http()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    };
    let mut socket = ask(PUSH, picture.len()).await;
    let mut interim = [0; 25];
    timeout(PATIENCE, socket.read_exact(&mut interim)).await.unwrap().unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(&picture).await.unwrap();
    assert_eq!(timeout(PATIENCE, read_answer(&mut socket)).await.unwrap().status, 200);
    assert_eq!(gateway.snapshot("yard").await, picture);
    for (path, length, status) in
        [(PUSH, 17 << 20, 413), ("/v1/cameras/front/push", 10, 409), ("/v1/cameras/nobody/push", 10, 404)]
    {
        let mut socket = ask(path, length).await;
        assert_eq!(timeout(PATIENCE, read_answer(&mut socket)).await.unwrap().status, status, "{path}, unasked");
    }
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_take_no_pictures() {
    let gateway = Gateway::start("auth: none").await;
    let large = vec![0xff; 1 << 20];
    assert_eq!(gateway.send("POST", "/v1/session", &[], &large).await.status, 413);
    gateway.app.stop().await;
}
