//! `POST` and `PUT /v1/cameras/NAME/push`. Who may is asked before.
//!
//! | answer | when |
//! |--------|------|
//! | 200 and what was taken, as JSON | the picture is shown, the alarm is told |
//! | 400 | the body is empty or broken off, or multipart cannot be read |
//! | 404, 409 | no such camera, no camera that pictures are pushed to |
//! | 408 | the body did not come in time |
//! | 413 | it is too large |
//! | 415 | it is neither a JPEG picture nor an alarm |
//! | 422 | the picture does not decode |
//! | 429, 503 | too many at once for the camera, for the gateway; or the camera is just starting |

use super::body::{self, BodyError};
use super::door::{MAX_PUSH, Refused, Room};
use crate::bus::Bus;
use crate::ingest::Doors;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use bytes::Bytes;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a body may take as a whole, and between two pieces.
const BODY_TIME: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));
/// What is still read of a body that is too large, so that its sender hears why: many read no answer while they send.
const DRAINED: usize = 2 * MAX_PUSH;

#[derive(Clone, Debug)]
struct Desk {
    doors: Arc<Doors>,
    bus: Arc<Bus>,
}

/// What is served by HTTP.
pub(crate) fn routes(doors: &Arc<Doors>, bus: &Arc<Bus>) -> Router {
    let desk = Desk { doors: Arc::clone(doors), bus: Arc::clone(bus) };
    Router::new().route("/v1/cameras/{name}/push", routing::post(push).put(push)).with_state(desk)
}

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("there is no camera named {0}")]
    Unknown(String),
    #[error("{0} gets its pictures from elsewhere: only cameras with `source: push:` take them here")]
    NoPush(String),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the body did not come within {} s, or stopped for {} s", BODY_TIME.0.as_secs(), BODY_TIME.1.as_secs())]
    Slow,
    #[error("the body broke off")]
    Broken,
    #[error("{0}")]
    Body(#[from] BodyError),
    #[error("{0}; `curl --data-binary @FILE` sends a file as it is, `curl -d` does not")]
    Mangled(Refused),
}

impl IntoResponse for PushError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::NoPush(_) => StatusCode::CONFLICT,
            Self::Refused(Refused::Absent | Refused::Full) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(Refused::Busy) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(Refused::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(Refused::Picture(_)) | Self::Mangled(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken
            | Self::Body(BodyError::Empty | BodyError::Multipart(_) | BodyError::TooManyParts | BodyError::Alarm(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Body(BodyError::Foreign(_) | BodyError::NoPart(_)) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        };
        let mut response = (status, self.to_string()).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        }
        response
    }
}

async fn push(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PushError> {
    let device = desk.bus.device(&name).ok_or_else(|| PushError::Unknown(name.clone()))?;
    if device.family() != super::FAMILY {
        return Err(PushError::NoPush(name));
    }
    let mut room = desk.doors.pushes.room(&name)?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Known before anything of it is read, so that who waits for "100 Continue" sends nothing in vain.
    if text(header::CONTENT_LENGTH).parse().is_ok_and(|length: u64| length > MAX_PUSH as u64)
        && text(header::EXPECT).eq_ignore_ascii_case("100-continue")
    {
        return Err(Refused::TooLarge.into());
    }
    let body = read(body, &mut room).await?;
    let content_type = text(header::CONTENT_TYPE);
    let pushed = body::parse(content_type, body).await?;
    let taken = room.push(pushed).await.map_err(|refused| match refused {
        Refused::Picture(_) if content_type.starts_with("application/x-www-form-urlencoded") => {
            PushError::Mangled(refused)
        }
        other => other.into(),
    })?;
    let picture = taken.size.map(|(width, height)| serde_json::json!({ "width": width, "height": height }));
    let event = taken.event.map(|event| event.0.to_string());
    Ok(Json(serde_json::json!({ "picture": picture, "event": event })).into_response())
}

/// The whole body, within its room and its time.
async fn read(body: Body, room: &mut Room) -> Result<Bytes, PushError> {
    let deadline = Instant::now() + BODY_TIME.0;
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut refused = None;
    let mut drained = 0;
    loop {
        let piece = match timeout_at(deadline, timeout(BODY_TIME.1, pieces.next())).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(_)) | Err(_) => return Err(refused.map_or(PushError::Slow, PushError::Refused)),
        };
        let piece = match piece {
            None => break,
            Some(Ok(piece)) => piece,
            Some(Err(_)) => return Err(refused.map_or(PushError::Broken, PushError::Refused)),
        };
        if refused.is_none() {
            match room.grow(piece.len()) {
                Ok(()) => {
                    bytes.extend_from_slice(&piece);
                    continue;
                }
                Err(error) => {
                    bytes = Vec::new();
                    refused = Some(error);
                }
            }
        }
        drained += piece.len();
        if drained > DRAINED {
            break;
        }
    }
    match refused {
        Some(refused) => Err(refused.into()),
        None => {
            // What grows by doubling holds up to twice of what counts.
            bytes.shrink_to_fit();
            Ok(bytes.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::door::Pushes;
    use super::*;
    use futures::stream;

    /// A body of pieces that come so far apart.
    fn dripping(piece: &'static [u8], pause: Duration) -> Body {
        Body::from_stream(stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(piece)), ()))
        }))
    }

    async fn error(body: Body) -> (StatusCode, Duration) {
        let pushes = Arc::<Pushes>::default();
        let _inbox = pushes.enter("yard");
        let mut room = pushes.room("yard").unwrap();
        let start = Instant::now();
        let error = read(body, &mut room).await.unwrap_err();
        (error.into_response().status(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn slow_senders_are_not_waited_for() {
        let (status, after) = error(dripping(b"x", Duration::from_secs(3600))).await;
        assert_eq!((status, after), (StatusCode::REQUEST_TIMEOUT, BODY_TIME.1));
        let (status, after) = error(dripping(b"x", Duration::from_secs(1))).await;
        assert_eq!((status, after), (StatusCode::REQUEST_TIMEOUT, BODY_TIME.0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_end_is_read_for_a_while_and_refused() {
        static PIECE: [u8; 1 << 20] = [0; 1 << 20];
        let (status, _) = error(dripping(&PIECE, Duration::ZERO)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn what_breaks_off_is_refused() {
        let pieces = [Ok(Bytes::from_static(b"\xff\xd8")), Err(std::io::Error::other("gone"))];
        let (status, _) = error(Body::from_stream(stream::iter(pieces))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}
