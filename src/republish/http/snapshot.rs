//! `/v1/cameras/NAME/snapshot.jpg`: the newest key picture.
//!
//! | query | meaning |
//! |-------|---------|
//! | `max_age=2s` | waits for a picture no older than that, 8 s at most, and wakes a camera on demand |
//! | `width=320` | 16 to 3840 pixels wide; never enlarges |
//! | `stream=sub` | of the second stream |
//!
//! Without `max_age` nothing is woken and nothing is waited for: 503 where there has never been a picture.

use super::cameras::find_stream;
use super::problem::Problem;
use super::stills::{Still, StillError};
use super::{HttpState, mjpeg};
use crate::bus::{Device, KeyPicture, State as DeviceState, Stream};
use crate::config;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Deserialize;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a newer picture is waited for.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) fn routes() -> Router<HttpState> {
    Router::new().route("/v1/cameras/{name}/snapshot.jpg", routing::get(snapshot))
}

#[derive(Debug, Deserialize)]
struct Asked {
    max_age: Option<String>,
    width: Option<String>,
    stream: Option<String>,
}

async fn snapshot(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let width = asked.width.as_deref().map(mjpeg::width).transpose()?;
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "max_age: a time such as 500ms, 2s or 1m");
    let max_age = asked.max_age.map(|text| config::duration(&text).ok_or_else(bad)).transpose()?;
    let (device, stream) = find_stream(&state, &name, asked.stream.as_deref())?;
    let picture = match max_age {
        Some(max_age) => fresh(&device, &stream, max_age).await?,
        None => stream.newest_key().ok_or_else(|| never(&device, &stream))?,
    };
    let still = state.outputs.stills.get(&stream, picture, width).await.map_err(|error| match error {
        StillError::Unavailable(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        StillError::Broken(_) => Problem::new(StatusCode::BAD_GATEWAY, error.to_string()),
    })?;
    state.outputs.counted.snapshots.fetch_add(1, Ordering::Relaxed);
    Ok(answer(&still, &stream, width, &headers))
}

/// A picture no older than that, waited for if need be. Wakes a device on demand only if it has to wait.
async fn fresh(device: &Device, stream: &Stream, max_age: Duration) -> Result<KeyPicture, Problem> {
    let newest = stream.newest_key();
    if let Some(picture) = &newest
        && !picture.card
        && picture.received.elapsed() <= max_age
    {
        return Ok(picture.clone());
    }
    let _interest = stream.demand.register();
    let (mut shown, known) = newest.map_or((0, 0), |newest| (newest.number, newest.picture));
    // A doorbell's picture is shown again each second, which makes it no newer.
    let newer = async {
        loop {
            let picture = stream.key_after(shown).await?;
            if picture.picture > known && !picture.card {
                return Some(picture);
            }
            shown = picture.number;
        }
    };
    match tokio::time::timeout(PATIENCE, newer).await {
        Ok(Some(picture)) => Ok(picture),
        Ok(None) => Err(Problem::new(StatusCode::NOT_FOUND, format!("{} was removed", device.name()))),
        Err(_) => {
            let detail = format!("no newer key picture came within {} s; {}", PATIENCE.as_secs(), condition(device));
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail))
        }
    }
}

/// There has never been a picture.
fn never(device: &Device, stream: &Stream) -> Problem {
    let mut detail = format!("{} has sent no picture yet; {}", stream.path(), condition(device));
    if device.status().state == DeviceState::Idle {
        detail += "; ask with ?max_age=10s to wake it";
    }
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5)
}

fn condition(device: &Device) -> String {
    let status = device.status();
    let state = format!("{} is {}", device.name(), status.state.name());
    status.reason.map_or(state.clone(), |reason| format!("{state}: {}", reason.text))
}

fn answer(still: &Still, stream: &Stream, width: Option<u32>, asked: &HeaderMap) -> Response {
    let since = still.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tag = format!("\"{:x}-{}\"", since.as_micros(), width.unwrap_or(0));
    let file = stream.path().replace('/', "-");
    let headers = [
        (header::ETAG, tag.clone()),
        (header::LAST_MODIFIED, http_date(still.at)),
        (header::AGE, still.received.elapsed().as_secs().to_string()),
        // Browsers may keep it if they ask each time whether there is a newer one.
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename=\"{file}.jpg\"")),
    ];
    let same =
        |value: &str| value.split(',').any(|known| matches!(known.trim(), known if known == tag || known == "*"));
    if asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(same) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, "image/jpeg")], still.jpeg.clone()).into_response()
}

/// As RFC 9110 section 5.6.7 has it.
fn http_date(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::scale::tests::{halves, size};
    use super::super::stills::Stills;
    use super::super::tests::{Gateway, gateway, testing};
    use super::super::{Outputs, router};
    use crate::bus::{Reason, ReasonCode, State as DeviceState, Stream};
    use crate::media::{AccessUnit, Codec, Format, MediaTime, TrackInfo, VideoFormat};
    use crate::transcode::Unavailable;
    use axum::http::HeaderMap;
    use bytes::Bytes;
    use futures::FutureExt;
    use http_body_util::BodyExt;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};
    use tokio_util::sync::CancellationToken;

    fn jpeg() -> TrackInfo {
        TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) }
    }

    /// The camera sends that picture.
    fn publish(stream: &Stream, payload: &[u8]) {
        let info = Arc::new(jpeg());
        let time = stream.latest().unwrap_or(MediaTime::START) + Duration::from_millis(40);
        let track = stream.announce(&[jpeg()])[0];
        let (random_access, discontinuity, payload) = (true, false, Bytes::copy_from_slice(payload));
        stream.publish(track, AccessUnit { pts: time, dts: time, random_access, discontinuity, info, payload });
    }

    async fn ask(gateway: &Gateway, path: &str, more: &[(&str, &str)]) -> (u16, HeaderMap, Bytes) {
        let headers: Vec<_> = [("authorization", testing::VIEWER)].iter().chain(more).copied().collect();
        let (parts, body) = gateway.open("GET", path, &headers).await.into_parts();
        (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
    }

    const PATH: &str = "/v1/cameras/front/snapshot.jpg";

    #[tokio::test]
    async fn the_newest_picture_with_its_age() {
        let gateway = gateway();
        let whole = halves(640, 480);
        publish(gateway.front().main(), &halves(32, 24));
        publish(gateway.front().main(), &whole);
        let (status, headers, body) = ask(&gateway, PATH, &[]).await;
        assert_eq!((status, &body), (200, &Bytes::from(whole)));
        for (name, value) in [
            ("content-type", "image/jpeg"),
            ("age", "0"),
            ("content-disposition", "inline; filename=\"front.jpg\""),
            ("cache-control", "private, no-cache"),
        ] {
            assert_eq!(headers[name], value);
        }
        let modified = headers["last-modified"].to_str().unwrap();
        let modified = jiff::fmt::rfc2822::parse(modified).unwrap().timestamp();
        assert!(modified.duration_until(jiff::Timestamp::now()).as_secs() < 60, "{modified}");

        let tag = headers["etag"].to_str().unwrap();
        let (status, same, body) = ask(&gateway, PATH, &[("if-none-match", &format!("\"x\", {tag}"))]).await;
        assert_eq!((status, body.len(), &same["etag"]), (304, 0, &headers["etag"]));
        publish(gateway.front().main(), &halves(64, 48));
        assert_eq!(ask(&gateway, PATH, &[("if-none-match", tag)]).await.0, 200);

        let head = gateway.open("HEAD", PATH, &[("authorization", testing::VIEWER)]).await;
        assert_eq!((head.status().as_u16(), head.headers()["content-type"].to_str().unwrap()), (200, "image/jpeg"));
        assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn widths_are_made_once_and_never_larger() {
        let gateway = gateway();
        publish(gateway.front().main(), &halves(640, 480));
        for (width, expected) in [("320", (320, 240)), ("16", (16, 12)), ("3840", (640, 480)), ("320", (320, 240))] {
            let (status, _, body) = ask(&gateway, &format!("{PATH}?width={width}"), &[]).await;
            assert_eq!((status, size(&body)), (200, expected));
        }
        for wrong in ["15", "3841", "-1", "x", ""] {
            gateway.get(&format!("{PATH}?width={wrong}")).await.problem(400);
        }
        let metrics = gateway.get("/metrics").await.body;
        for line in ["fanlight_snapshots_total 4", "fanlight_stills_scaled_total 2", "fanlight_stills_decoded_total 0"]
        {
            assert!(metrics.lines().any(|written| written == line), "{line} in {metrics}");
        }
        publish(gateway.front().main(), b"no picture");
        assert!(gateway.get(&format!("{PATH}?width=320")).await.problem(502).contains("cannot be decoded"));
    }

    #[tokio::test]
    async fn streams_have_their_own_pictures() {
        let gateway = gateway();
        publish(gateway.front().main(), &halves(640, 480));
        let front = gateway.front();
        publish(front.sub().unwrap(), &halves(320, 240));
        let (_, headers, body) = ask(&gateway, &format!("{PATH}?stream=sub"), &[]).await;
        assert_eq!(size(&body), (320, 240));
        assert_eq!(headers["content-disposition"], "inline; filename=\"front-sub.jpg\"");
        assert_eq!(size(&ask(&gateway, &format!("{PATH}?stream=main"), &[]).await.2), (640, 480));
        assert_eq!(gateway.get(&format!("{PATH}?stream=third")).await.problem(400), "stream: main or sub");
        gateway.get("/v1/cameras/back/snapshot.jpg").await.problem(404);
        assert_eq!(gateway.ask("GET", PATH, &[]).await.status, 401);
    }

    #[tokio::test]
    async fn what_is_missing_for_a_still_is_named() {
        let mut state = gateway().state;
        let mut outputs = Outputs::new(&state.bus, &state.transcoder, CancellationToken::new());
        let reason = "H.264 cannot be decoded here: install gstreamer1.0-libav";
        let lacking = |_| async { Err(Unavailable { reason: reason.into() }) }.boxed();
        Arc::get_mut(&mut outputs).unwrap().stills = Stills::with(lacking);
        state.outputs = outputs;
        let gateway = Gateway { router: router(state.clone()), state, cancel: CancellationToken::new() };
        assert_eq!(gateway.get(PATH).await.problem(503), reason);
        assert_eq!(gateway.get(&format!("{PATH}?width=320")).await.problem(503), reason);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_card_nor_a_repeat_is_a_newer_picture() {
        let gateway = gateway();
        let front = Arc::clone(gateway.front().main());
        let track = front.announce(&[jpeg()])[0];
        let (time, payload) = (MediaTime::START, Bytes::from(halves(64, 48)));
        let (random_access, discontinuity, info) = (true, false, Arc::new(jpeg()));
        let card = AccessUnit { pts: time, dts: time, random_access, discontinuity, info, payload };
        front.set_card(card.clone());
        assert_eq!(size(&ask(&gateway, PATH, &[]).await.2), (64, 48), "better than nothing");
        gateway.get(&format!("{PATH}?max_age=1h")).await.problem(504);

        publish(&front, &halves(320, 240));
        let known = front.newest_key().unwrap();
        let repeating = tokio::spawn({
            let front = Arc::clone(&front);
            async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let pts = front.latest().unwrap_or(MediaTime::START) + Duration::from_secs(1);
                    front.repeat(track, AccessUnit { pts, dts: pts, ..known.unit.clone() });
                }
            }
        });
        gateway.get(&format!("{PATH}?max_age=0s")).await.problem(504);
        repeating.abort();
        let (status, headers, body) = ask(&gateway, PATH, &[]).await;
        assert_eq!((status, size(&body)), (200, (320, 240)));
        assert!(headers.contains_key("last-modified"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_camera_is_woken_only_if_asked_for() {
        let gateway = gateway();
        let sub = Arc::clone(gateway.front().sub().unwrap());
        gateway.front().set_status(DeviceState::Idle, None);
        let path = format!("{PATH}?stream=sub");
        let answer = gateway.get(&path).await;
        assert!(answer.problem(503).contains("max_age"));
        assert_eq!((answer.header("retry-after"), sub.demand.count()), ("5", 0));

        let camera = tokio::spawn({
            let sub = Arc::clone(&sub);
            async move {
                sub.demand.wanted().await;
                tokio::time::sleep(Duration::from_secs(7)).await;
                publish(&sub, &halves(320, 240));
            }
        });
        let (status, headers, body) = ask(&gateway, &format!("{path}&max_age=2s"), &[]).await;
        assert_eq!((status, size(&body), sub.demand.count()), (200, (320, 240), 0));
        camera.await.unwrap();
        // That one is new enough, by a clock that the test cannot hold: an hour leaves room.
        let (status, again, _) = ask(&gateway, &format!("{path}&max_age=1h"), &[]).await;
        assert_eq!((status, &again["etag"]), (200, &headers["etag"]));

        // Nobody comes.
        let text = "it is switched off".to_owned();
        gateway.front().set_status(DeviceState::Offline, Some(Reason { code: ReasonCode::Unreachable, text }));
        let begin = tokio::time::Instant::now();
        let detail = gateway.get(&format!("{path}&max_age=0s")).await.problem(504);
        assert!(detail.contains("front is offline: it is switched off"), "{detail}");
        assert_eq!(begin.elapsed().as_secs(), 8);
        assert_eq!(sub.demand.count(), 0);
        // The old one is there all the same, and says how old.
        assert_eq!(ask(&gateway, &path, &[]).await.0, 200);
        gateway.get(&format!("{path}&max_age=2")).await.problem(400);
        assert!(sub.newest_key().unwrap().at <= SystemTime::now());
    }
}
