//! `/v1/events`: what happened lately, newest first, and the pictures of it.
//!
//! | query | meaning |
//! |-------|---------|
//! | `camera=front` | of that camera only |
//! | `kind=visitor,alarm` | of these kinds only |
//! | `limit=20` | at most so many, 1 to 100; 50 if it is not said |
//! | `before=ID` | older ones: `next` of the answer before |

use super::HttpState;
use super::assets::is_known;
use super::cameras::rfc3339;
use super::problem::Problem;
use crate::bus::{Event, EventId, Wanted};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Events in one answer if the caller does not say how many.
const USUAL: usize = 50;
/// The most that one answer has, which is all that is kept.
const MOST: usize = 100;

pub(super) fn routes() -> Router<HttpState> {
    Router::new().route("/v1/events", routing::get(list)).route("/v1/events/{id}/picture.jpg", routing::get(picture))
}

/// An event in JSON.
#[derive(Debug, Serialize)]
pub(super) struct Happened {
    id: String,
    /// `None` where it is of no camera, as that of a bell that nobody has configured.
    camera: Option<String>,
    kind: String,
    at: String,
    /// Where its picture is to be had. Another picture of the same event has another address.
    picture: Option<String>,
    /// Where its clip is to be had: nothing keeps clips yet.
    clip: Option<String>,
    detail: Option<Map<String, Value>>,
}

impl Happened {
    pub(super) fn of(event: &Event) -> Self {
        let EventId(id) = event.id;
        let mut detail = event.detail.clone();
        if let Some(on) = event.kind.on() {
            detail.insert("on".into(), on.into());
        }
        Self {
            id: id.to_string(),
            camera: Some(event.device.clone()).filter(|name| !name.is_empty()),
            kind: event.kind.name().to_owned(),
            at: rfc3339(event.at),
            picture: event.picture.map(|number| match number {
                1 => format!("/v1/events/{id}/picture.jpg"),
                number => format!("/v1/events/{id}/picture.jpg?v={number}"),
            }),
            clip: None,
            detail: Some(detail).filter(|detail| !detail.is_empty()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    camera: Option<String>,
    kind: Option<String>,
    limit: Option<String>,
    before: Option<String>,
}

/// Events in JSON.
#[derive(Debug, Serialize)]
struct List {
    events: Vec<Happened>,
    /// What to ask for as `before` to get the ones after these; `None` at the end.
    next: Option<String>,
}

async fn list(State(state): State<HttpState>, Query(asked): Query<Asked>) -> Result<Json<List>, Problem> {
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    // Forms send fields that were left empty.
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let kinds: Vec<String> =
        said(asked.kind).map_or_else(Vec::new, |kinds| kinds.split(',').map(str::to_owned).collect());
    let plain =
        |kind: &String| !kind.is_empty() && kind.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !kinds.iter().all(plain) {
        return Err(bad("kind: kinds of events such as visitor, with commas between them"));
    }
    let limit = |text: String| text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    let limit = match said(asked.limit) {
        None => USUAL,
        Some(text) => limit(text).ok_or_else(|| bad("limit: a number from 1 to 100"))?,
    };
    let before = match said(asked.before) {
        None => None,
        Some(text) => Some(EventId(text.parse().map_err(|_| bad("before: the id of an event, a number"))?)),
    };
    let wanted = Wanted { device: said(asked.camera), kinds, before };
    let (events, older) = state.bus.events.newest(&wanted, limit);
    let next = events.last().filter(|_| older).map(|last| last.id.0.to_string());
    Ok(Json(List { events: events.iter().map(|event| Happened::of(event)).collect(), next }))
}

#[derive(Debug, Deserialize)]
struct Which {
    /// The number of the picture, 1 if it is not said.
    v: Option<String>,
}

async fn picture(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = |detail: String| Problem::new(StatusCode::NOT_FOUND, detail);
    let event = id.parse().ok().and_then(|id| state.bus.events.get(EventId(id)));
    let event = event.ok_or_else(|| missing(format!("there is no event {id:?}, or not any more")))?;
    let picture = state.bus.events.picture(event.id);
    let (number, picture) = picture.ok_or_else(|| missing(format!("event {id} has no picture, or not any more")))?;
    // An address stands for one picture for ever; who asks for an older one gets the newest, and is to ask again.
    let asked = which.v.as_deref().unwrap_or("1");
    let keep = if asked == number.to_string() { "private, max-age=31536000, immutable" } else { "private, no-cache" };
    let tag = format!("\"{}-{number}\"", event.id.0);
    let name = if event.device.is_empty() { "event" } else { &event.device };
    let about = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, keep.to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename=\"{name}-{}.jpg\"", event.id.0)),
    ];
    if is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    Ok((about, [(header::CONTENT_TYPE, "image/jpeg")], picture).into_response())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gateway, testing};
    use super::*;
    use crate::bus::EventKind;
    use bytes::Bytes;
    use http_body_util::BodyExt as _;

    const FACE: &[u8] = &[0xff, 0xd8, 0xff, 0xd9];

    #[tokio::test]
    async fn newest_first_page_by_page() {
        let gateway = gateway();
        let events = &gateway.state.bus.events;
        for round in 0..6_u8 {
            let kind = [EventKind::Visitor, EventKind::Alarm, EventKind::Online][usize::from(round) % 3].clone();
            events.tell(["front", "back"][usize::from(round) / 3], kind, None, None);
        }
        let ask = async |query: &str| {
            let json = gateway.get(&format!("/v1/events{query}")).await.json();
            let text =
                |event: &Value| format!("{} {}", event["camera"].as_str().unwrap(), event["kind"].as_str().unwrap());
            let events: Vec<_> = json["events"].as_array().unwrap().iter().map(text).collect();
            (events.join(", "), json["next"].clone())
        };
        let all = "back online, back alarm, back visitor, front online, front alarm, front visitor";
        assert_eq!(ask("").await, (all.into(), Value::Null));
        assert_eq!(ask("?camera=front&kind=&before=").await.0, "front online, front alarm, front visitor");
        assert_eq!(ask("?kind=visitor,alarm&limit=3").await.0, "back alarm, back visitor, front alarm");
        assert_eq!(ask("?camera=nobody").await, (String::new(), Value::Null));
        let (mut query, mut pages) = (String::new(), Vec::new());
        loop {
            let (page, next) = ask(&format!("?limit=2&{query}")).await;
            pages.push(page);
            let Some(next) = next.as_str() else { break };
            query = format!("before={next}");
        }
        assert_eq!((pages.len(), pages.join(", ")), (3, all.into()));
        for (wrong, words) in [
            ("limit=0", "1 to 100"),
            ("limit=101", "1 to 100"),
            ("limit=x", "limit"),
            ("before=x", "before"),
            ("before=-1", "before"),
            ("kind=a%20b", "kind"),
            ("kind=visitor,", "kind"),
            ("limit=1&limit=2", "limit"),
        ] {
            let detail = gateway.get(&format!("/v1/events?{wrong}")).await.problem(400);
            assert!(detail.contains(words), "{wrong}: {detail}");
        }
    }

    #[tokio::test]
    async fn an_event_says_what_happened_and_where_its_picture_is() {
        let gateway = gateway();
        let events = &gateway.state.bus.events;
        let detail = serde_json::from_str(r#"{"button":2}"#).unwrap();
        let told = events.tell_with("front", EventKind::Visitor, None, Some(Bytes::from_static(FACE)), detail);
        events.tell("", EventKind::Other("new_doorbell".into()), None, None);
        let id = told.id.0.to_string();
        let json = gateway.get("/v1/events").await.json();
        assert_eq!(
            json["events"][1],
            serde_json::json!({
                "id": id, "camera": "front", "kind": "visitor", "at": rfc3339(told.at),
                "picture": format!("/v1/events/{id}/picture.jpg"), "clip": null, "detail": { "button": 2 }
            })
        );
        assert_eq!((&json["events"][0]["camera"], &json["events"][0]["picture"]), (&Value::Null, &Value::Null));
        events.update(told.id, Bytes::from_static(b"better")).unwrap();
        let json = gateway.get("/v1/events?camera=front").await.json();
        assert_eq!(json["events"][0]["picture"], format!("/v1/events/{id}/picture.jpg?v=2"));
        let metrics = gateway.get("/metrics").await.body;
        for line in ["fanlight_events_total{kind=\"visitor\"} 1", "fanlight_events_total{kind=\"new_doorbell\"} 1"] {
            assert!(metrics.lines().any(|written| written == line), "{line} in {metrics}");
        }
    }

    #[tokio::test]
    async fn a_picture_is_kept_by_browsers_for_as_long_as_its_address_stands_for_it() {
        let gateway = gateway();
        let events = &gateway.state.bus.events;
        let id = events.tell("front", EventKind::Visitor, None, Some(Bytes::from_static(FACE))).id;
        let path = format!("/v1/events/{}/picture.jpg", id.0);
        let ask = async |query: &str, known: &str| {
            let headers = [("authorization", testing::VIEWER), ("if-none-match", known)];
            let (parts, body) = gateway.open("GET", &format!("{path}{query}"), &headers).await.into_parts();
            let header = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
            let body = body.collect().await.unwrap().to_bytes();
            (parts.status.as_u16(), header("cache-control").contains("immutable"), header("etag"), body)
        };
        let (status, immutable, first, body) = ask("", "").await;
        assert_eq!((status, immutable, &body[..]), (200, true, FACE));
        assert_eq!(ask("", &first).await.0, 304);
        events.update(id, Bytes::from_static(b"better"));
        // The old address is not given out any more. It leads to the new picture, which no browser is to keep there.
        let (status, immutable, second, body) = ask("", &first).await;
        assert_eq!((status, immutable, &body[..]), (200, false, &b"better"[..]));
        let (status, immutable, same, _) = ask("?v=2", "").await;
        assert_eq!((status, immutable, &same), (200, true, &second));
        assert!(first != second);

        let none = events.tell("front", EventKind::Visitor, None, None).id;
        let detail = gateway.get(&format!("/v1/events/{}/picture.jpg", none.0)).await.problem(404);
        assert!(detail.contains("no picture"), "{detail}");
        for unknown in ["1", "x", "-1", "99999999999999999999999"] {
            let detail = gateway.get(&format!("/v1/events/{unknown}/picture.jpg")).await.problem(404);
            assert!(detail.contains("no event"), "{detail}");
        }
    }
}
