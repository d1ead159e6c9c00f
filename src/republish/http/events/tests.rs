use super::super::tests::{Gateway, device, gateway, testing};
use super::*;
use crate::access::Auth;
use crate::bus::{EventKind, Reason, ReasonCode, State as DeviceState};
use crate::media::{AccessUnit, Codec, Format, MediaTime, TrackInfo, VideoFormat};
use axum::body::BodyDataStream;
use futures::StreamExt;
use serde_json::Value;
use std::sync::atomic::Ordering;

/// Reads messages as a browser does.
struct Page(BodyDataStream);

#[derive(Debug)]
struct Message {
    event: String,
    id: Option<String>,
    data: Value,
}

async fn open(gateway: &Gateway, query: &str, more: &[(&str, &str)]) -> Page {
    let headers: Vec<_> = [("authorization", testing::VIEWER)].iter().chain(more).copied().collect();
    let answer = gateway.open("GET", &format!("/v1/events/stream{query}"), &headers).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut page = Page(answer.into_body().into_data_stream());
    assert_eq!(page.text().await.unwrap(), "retry: 2000\n\n");
    page
}

impl Page {
    async fn text(&mut self) -> Option<String> {
        let text = tokio::time::timeout(Duration::from_secs(60), self.0.next()).await.expect("something to read");
        text.map(|text| String::from_utf8(text.unwrap().to_vec()).unwrap())
    }

    async fn next(&mut self) -> Message {
        let text = self.text().await.expect("it goes on");
        let text = text.strip_suffix("\n\n").unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let data = serde_json::from_str(&field("data: ").unwrap()).unwrap();
        Message { event: field("event: ").unwrap(), id: field("id: "), data }
    }

    async fn state(&mut self) -> Value {
        let message = self.next().await;
        assert_eq!((message.event.as_str(), message.id), ("state", None));
        message.data
    }

    fn is_quiet(&mut self) -> bool {
        futures::FutureExt::now_or_never(self.0.next()).is_none()
    }
}

#[tokio::test(start_paused = true)]
async fn all_cameras_first_then_what_changes() {
    let gateway = gateway();
    gateway.state.bus.add(device("back"));
    let mut page = open(&gateway, "", &[]).await;
    let (back, front) = (page.state().await, page.state().await);
    assert_eq!((&back["name"], &front["name"]), (&"back".into(), &"front".into()));
    let mut asked = gateway.get("/v1/cameras/front").await.json();
    for (told, asked) in front.as_object().unwrap().iter().zip(asked.as_object_mut().unwrap().iter_mut()) {
        assert!(told == (asked.0, &*asked.1) || told.0 == "last_frame_age_ms", "{told:?} {asked:?}");
    }

    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(page.is_quiet(), "running totals are no news");
    let text = "busy; close another app".to_owned();
    let begin = Instant::now();
    gateway.front().set_status(DeviceState::Offline, Some(Reason { code: ReasonCode::Busy, text }));
    let told = page.state().await;
    assert_eq!((&told["name"], &told["reason_code"]), (&"front".into(), &"busy".into()));
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    // What nobody tells is seen within a second.
    gateway.state.bus.device("back").unwrap().viewers.webrtc.store(2, Ordering::Relaxed);
    assert_eq!(page.state().await["viewers"]["webrtc"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_camera_that_flickers_is_told_once_a_second() {
    let gateway = gateway();
    let mut page = open(&gateway, "", &[]).await;
    page.state().await;
    let flicker = async {
        for round in 0..500 {
            let state = [DeviceState::Offline, DeviceState::Connecting][round % 2];
            gateway.front().set_status(state, None);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gateway.front().set_status(DeviceState::Online, None);
    };
    let (begin, mut told) = (Instant::now(), Vec::new());
    let read = async {
        loop {
            let state = page.state().await;
            told.push(begin.elapsed());
            if state["state"] == "online" {
                break;
            }
        }
    };
    futures::join!(flicker, read);
    assert!((5..=7).contains(&told.len()), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(990)), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn each_picture_of_a_bell_is_news() {
    let gateway = gateway();
    let bell = device("bell");
    let video = VideoFormat { width: 640, height: 480, ..VideoFormat::default() };
    let info = TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format: Format::Video(video) };
    let track = bell.main().announce(std::slice::from_ref(&info))[0];
    gateway.state.bus.add(Arc::clone(&bell));
    let mut page = open(&gateway, "", &[]).await;
    assert_eq!((&page.state().await["frames"], &page.state().await["name"]), (&0.into(), &"front".into()));
    for count in 1..=3_u32 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        while futures::FutureExt::now_or_never(page.text()).is_some() {}
        let time = MediaTime::START + Duration::from_secs(60) * count;
        let (random_access, discontinuity, info) = (true, false, Arc::new(info.clone()));
        let payload = Bytes::from_static(b"a picture");
        let unit = AccessUnit { pts: time, dts: time, random_access, discontinuity, info, payload };
        bell.main().publish(track, unit);
        let told = page.state().await;
        assert_eq!((&told["name"], &told["frames"]), (&"bell".into(), &count.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn cameras_come_and_go() {
    let gateway = gateway();
    let mut page = open(&gateway, "", &[]).await;
    page.state().await;
    gateway.state.bus.add(device("back"));
    assert_eq!(page.state().await["name"], "back");
    gateway.state.bus.remove("front");
    let gone = page.next().await;
    assert_eq!((gone.event.as_str(), gone.data), ("removed", serde_json::json!({ "name": "front" })));
    // The same name again within a moment is a change, not a departure.
    gateway.state.bus.remove("back");
    let back = device("back");
    back.set_status(DeviceState::Online, None);
    gateway.state.bus.add(back);
    let back = page.state().await;
    assert_eq!((&back["name"], &back["state"]), (&"back".into(), &"online".into()));
}

#[tokio::test(start_paused = true)]
async fn events_resume_where_they_were_left() {
    let gateway = gateway();
    let events = &gateway.state.bus.events;
    let first = events.tell("front", EventKind::Online, None, None);
    let mut page = open(&gateway, "", &[]).await;
    page.state().await;
    let second = events.tell("front", EventKind::Motion(true), None, None);
    let told = page.next().await;
    assert_eq!((told.event.as_str(), told.id), ("event", Some(second.id.0.to_string())));
    let at = told.data["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(at.duration_until(jiff::Timestamp::now()).as_secs() < 60);
    assert_eq!(
        told.data,
        serde_json::json!({
            "id": second.id.0.to_string(), "camera": "front", "kind": "motion", "at": at.to_string(),
            "picture": null, "clip": null, "detail": { "on": true }
        })
    );
    drop(page);
    let third = events.tell("front", EventKind::Offline, None, None);
    let (newer, older) = (second.id.0.to_string(), first.id.0.to_string());
    // The header of a browser that came back is newer than the address that it was given.
    for (query, headers, missed) in [
        (String::new(), vec![("last-event-id", newer.as_str())], vec![&third]),
        (format!("?last_event_id={older}"), vec![], vec![&second, &third]),
        (format!("?last_event_id={older}"), vec![("last-event-id", newer.as_str())], vec![&third]),
        (String::new(), vec![("last-event-id", "another program's")], vec![]),
    ] {
        let mut page = open(&gateway, &query, &headers).await;
        page.state().await;
        for event in missed {
            assert_eq!(page.next().await.id, Some(event.id.0.to_string()), "{query} {headers:?}");
        }
        assert!(page.is_quiet());
    }
    gateway.get("/v1/events/stream?last_event_id=x").await.problem(400);
}

#[tokio::test(start_paused = true)]
async fn updates_come_live_and_are_resumed() {
    let gateway = gateway();
    let events = &gateway.state.bus.events;
    let mut page = open(&gateway, "", &[]).await;
    page.state().await;
    let visit = events.tell("front", EventKind::Visitor, None, None);
    let told = page.next().await;
    assert_eq!((told.event.as_str(), &told.data["picture"]), ("event", &Value::Null));
    let known = told.id.unwrap();
    let other = events.tell("front", EventKind::Online, None, None);
    page.next().await;
    let update = events.update(visit.id, Bytes::from_static(b"face")).unwrap();
    let told = page.next().await;
    let id = visit.id.0.to_string();
    assert_eq!((told.event.as_str(), &told.data["id"]), ("update", &Value::from(id.as_str())));
    assert_eq!(told.data["picture"], format!("/v1/events/{id}/picture.jpg"));
    let newest = told.id.unwrap();
    assert_eq!(newest, update.changed.0.to_string());
    drop(page);

    // Who knew the visit hears of its picture; who did not hears of both at once.
    let (before, other) = ((visit.id.0 - 1).to_string(), other.id.0.to_string());
    for (last, expected) in [
        (&known, vec![("event", &other), ("update", &newest)]),
        (&other, vec![("update", &newest)]),
        (&before, vec![("event", &other), ("event", &newest)]),
        (&newest, vec![]),
    ] {
        let mut page = open(&gateway, "", &[("last-event-id", last)]).await;
        page.state().await;
        for (kind, id) in expected {
            let told = page.next().await;
            assert_eq!((told.event.as_str(), told.id.as_ref()), (kind, Some(id)), "after {last}");
        }
        assert!(page.is_quiet());
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_watched_for_when_nobody_listens() {
    let gateway = gateway();
    let board = Arc::clone(&gateway.state.outputs.board);
    let runs = || board.shown().task.as_ref().is_some_and(|task| !task.is_finished());
    assert!(!runs());
    for _ in 0..3 {
        let (mut first, mut second) = (open(&gateway, "", &[]).await, open(&gateway, "", &[]).await);
        assert_eq!(first.state().await["name"], second.state().await["name"]);
        assert!(runs());
        assert_eq!(board.listeners(), 2);
        drop((first, second));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!runs() && board.shown().cameras.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_read_is_closed_and_quiet_ones_are_kept() {
    let gateway = gateway();
    let (mut slow, mut quiet) = (open(&gateway, "", &[]).await, open(&gateway, "", &[]).await);
    quiet.state().await;
    let begin = Instant::now();
    assert_eq!(quiet.text().await.unwrap(), ": still here\n\n");
    assert_eq!(begin.elapsed(), QUIET);
    for _ in 0..=WAITING {
        gateway.state.outputs.board.tell(state(&Camera::of(&gateway.front(), &[])));
    }
    slow.state().await;
    assert!(slow.text().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_user_and_with_the_program() {
    let gateway = gateway();
    let mut page = open(&gateway, "", &[]).await;
    page.state().await;
    gateway.state.access.replace(Auth::Users, Vec::new());
    assert!(page.text().await.is_none());

    let gateway = super::super::tests::gateway();
    let mut page = open(&gateway, "", &[]).await;
    page.state().await;
    gateway.cancel.cancel();
    assert!(page.text().await.is_none());
}
