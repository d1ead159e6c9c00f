//! Server-sent states and events.

use super::{Answer, ask, ask_from, jpegs};
use crate::gateway::{Gateway, kill, options, quick, start};
use fanlight::app::Options;
use serde_json::Value;
use std::net::SocketAddr;

const STREAM: &str = "/v1/events/stream";

/// One message: its type, its id, its data.
struct Message {
    event: String,
    id: Option<String>,
    data: Value,
}

/// The next message; comments and the time to wait before coming back are not messages.
async fn next(answer: &mut Answer) -> Message {
    loop {
        let text = String::from_utf8(answer.chunk().await.expect("it goes on")).unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        if let Some(data) = field("data: ") {
            assert!(text.ends_with("\n\n") && text.matches("\n\n").count() == 1, "{text:?}");
            let data = serde_json::from_str(&data).unwrap();
            return Message { event: field("event: ").unwrap(), id: field("id: "), data };
        }
    }
}

/// Reads on to a message of that type for that camera which fits.
async fn until(answer: &mut Answer, event: &str, name: &str, fits: impl Fn(&Value) -> bool) -> Message {
    loop {
        let message = next(answer).await;
        let camera = if event == "event" { &message.data["camera"] } else { &message.data["name"] };
        if message.event == event && *camera == name && fits(&message.data) {
            return message;
        }
    }
}

async fn resume(http: SocketAddr, id: &str) -> Answer {
    ask_from([127, 0, 0, 1], None, http, STREAM, &format!("Last-Event-ID: {id}\r\n")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_sees_cameras_come_change_and_go() {
    let camera = start(|| options(jpegs, "127.0.2.5:0")).await;
    let address = camera.address();
    let entry = |name: &str| format!("  {name}: {{ source: \"{}\" }}\n", camera.url());
    let (front, back) = (entry("front"), entry("back"));
    let mut gateway = Gateway::start(&front, Options { pace: quick(), ..Options::default() }).await;
    let http = gateway.http();
    let mut page = ask(http, STREAM).await;
    assert_eq!(
        (page.status(), page.field("content-type"), page.field("cache-control")),
        (200, Some("text/event-stream"), Some("no-store"))
    );
    let mut online = until(&mut page, "state", "front", |camera| camera["state"] == "online").await.data;
    if online["tracks"][0]["codec"].is_null() {
        online = until(&mut page, "state", "front", |camera| !camera["tracks"][0]["codec"].is_null()).await.data;
    }
    assert_eq!(online["tracks"][0]["codec"], "jpeg");

    // Who watches.
    let watching = ask(http, "/v1/cameras/front/mjpeg").await;
    until(&mut page, "state", "front", |camera| camera["viewers"]["mjpeg"] == 1).await;
    drop(watching);
    until(&mut page, "state", "front", |camera| camera["viewers"]["mjpeg"] == 0).await;

    // Added and removed by a reload.
    gateway.reload(&(front.clone() + &back)).await;
    until(&mut page, "state", "back", |_| true).await;
    gateway.reload(&front).await;
    until(&mut page, "removed", "back", |_| true).await;

    // Away, with its reason, and the event; who was away itself meanwhile is told when it is back.
    kill(camera).await;
    let offline = until(&mut page, "event", "front", |event| event["kind"] == "offline").await;
    let id = offline.id.unwrap();
    assert_eq!((offline.data["id"].as_str(), &offline.data["picture"]), (Some(id.as_str()), &Value::Null));
    drop(page);
    let mut page = resume(http, &id).await;
    let told = until(&mut page, "state", "front", |_| true).await.data;
    assert!(told["state"] != "online" && told["reason"].is_string(), "{told}");
    let camera = start(move || options(jpegs, &address.to_string())).await;
    until(&mut page, "event", "front", |event| event["kind"] == "online").await;
    let mut again = resume(http, &id).await;
    let online = until(&mut again, "event", "front", |_| true).await;
    assert_eq!(online.data["kind"], "online", "what was missed, and nothing from before");

    gateway.app.stop().await;
    while page.chunk().await.is_some() {}
    drop(camera);
}
