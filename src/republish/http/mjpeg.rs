//! `/v1/cameras/NAME/mjpeg`: pictures one after the other as `multipart/x-mixed-replace`, which an `<img>` shows.
//!
//! | query | meaning |
//! |-------|---------|
//! | `fps=5` | at most so many pictures a second |
//! | `width=320` | 16 to 3840 pixels wide; never enlarges |
//! | `stream=sub` | of the second stream |
//!
//! Each part has `Content-Type`, `Content-Length` and `X-Timestamp`: when the picture came, in seconds since 1970. The
//! next picture is fetched when the one before it has gone to the socket, so a slow reader skips pictures and is never
//! late by more than one. It lasts while the camera is configured, also while it is away.

use super::HttpState;
use super::asked::Client;
use super::cameras::find_stream;
use super::guard::Caller;
use super::outputs::{Outputs, Stay};
use super::problem::Problem;
use super::stills::{Still, Stills};
use crate::access::crowd::Counted;
use crate::bus::{Device, Interest, Stream, TrackId};
use crate::media::{Codec, Kind};
use crate::transcode::{Rendition, Transcoder, Unavailable};
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing;
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// After a picture at once: browsers show it when they see where it ends.
const BOUNDARY: &[u8] = b"\r\n--fanlight\r\n";
const MEDIA_TYPE: &str = "multipart/x-mixed-replace; boundary=fanlight";
/// How often it is looked whether the camera sends something else now.
const LOOK: Duration = Duration::from_secs(1);
/// How long it is waited for whether a rendition can be had: that is known when it was tried.
const TRIAL: Duration = Duration::from_secs(3);
const WIDTHS: std::ops::RangeInclusive<u32> = 16..=3840;

pub(super) fn routes() -> Router<HttpState> {
    Router::new().route("/v1/cameras/{name}/mjpeg", routing::get(mjpeg))
}

#[derive(Debug, Deserialize)]
struct Asked {
    fps: Option<String>,
    width: Option<String>,
    stream: Option<String>,
}

/// Reads a width in pixels.
pub(super) fn width(text: &str) -> Result<u32, Problem> {
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "width: a number of pixels from 16 to 3840");
    text.parse().ok().filter(|width| WIDTHS.contains(width)).ok_or_else(bad)
}

/// Reads a number of pictures per second, as the time between two.
fn interval(text: &str) -> Result<Duration, Problem> {
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "fps: pictures per second, from 0.01 to 120");
    let rate = text.parse::<f64>().ok().filter(|rate| (0.01..=120.0).contains(rate)).ok_or_else(bad)?;
    Ok(Duration::from_secs_f64(1.0 / rate))
}

async fn mjpeg(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Client>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let width = asked.width.as_deref().map(width).transpose()?;
    let interval = asked.fps.as_deref().map(interval).transpose()?;
    let (device, stream) = find_stream(&state, &name, asked.stream.as_deref())?;
    let outputs = Arc::clone(&state.outputs);
    let place = outputs.place(&outputs.mjpeg, client, &state)?;
    let mut source = Source::Away;
    let unavailable = |error: Unavailable| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    source.choose(&stream, &state.transcoder).map_err(unavailable)?;
    source.try_out(&stream, &state.transcoder).await.map_err(unavailable)?;
    let viewer = Viewer {
        stay: outputs.stay(&state.access, &caller, client),
        _interest: stream.demand.register(),
        _watching: Watching::count(&device),
        _place: place,
        picker: Picker {
            transcoder: Arc::clone(&state.transcoder),
            stills: Arc::clone(&outputs.stills),
            shown: shown(source.stream(&stream)),
            source,
            stream,
            width,
            interval,
            due: Instant::now(),
        },
        outputs,
        written: Arc::new(Semaphore::new(1)),
        chunks: VecDeque::from([Bytes::from_static(BOUNDARY.trim_ascii_start())]),
    };
    let body = stream::unfold(viewer, |mut viewer| async {
        let chunk = viewer.next().await?;
        Some((Ok::<_, Infallible>(chunk), viewer))
    });
    // Some proxies gather answers before they pass them on.
    let headers = [(header::CONTENT_TYPE.as_str(), MEDIA_TYPE), ("x-accel-buffering", "no")];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Counts as a viewer of the device while it lives.
#[derive(Debug)]
struct Watching(Arc<crate::bus::Viewers>);

impl Watching {
    fn count(device: &Device) -> Self {
        let viewers = Arc::clone(&device.viewers);
        viewers.mjpeg.fetch_add(1, Ordering::Relaxed);
        Self(viewers)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let count: &AtomicUsize = &self.0.mjpeg;
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the pictures come from.
#[derive(Debug)]
enum Source {
    /// The camera has not said yet what it sends.
    Away,
    /// The camera's own pictures.
    Own(TrackId),
    /// Made from that track, while we want them.
    Rendition { track: TrackId, rendition: Arc<Rendition>, _interest: Interest },
}

impl Source {
    /// Goes by what the camera sends now.
    fn choose(&mut self, stream: &Arc<Stream>, transcoder: &Transcoder) -> Result<Change, Unavailable> {
        let video = stream.tracks().into_iter().find(|(_, info)| info.kind() == Kind::Video);
        let before = match self {
            Self::Away => None,
            Self::Own(track) | Self::Rendition { track, .. } => Some(*track),
        };
        if video.as_ref().map(|(track, _)| *track) == before {
            return Ok(Change::None);
        }
        *self = match video {
            None => Self::Away,
            Some((track, info)) if info.codec == Codec::Jpeg => Self::Own(track),
            Some((track, _)) => {
                let rendition = transcoder.rendition(stream, track, Codec::Jpeg)?;
                let _interest = rendition.stream().demand.register();
                Self::Rendition { track, rendition, _interest }
            }
        };
        Ok(Change::Other)
    }

    /// Whether a rendition can still be had. What it needs is found out when it is started.
    fn check(&self, stream: &Arc<Stream>, transcoder: &Transcoder) -> Result<(), Unavailable> {
        match self {
            // Where the track is gone, another choice is due.
            Self::Rendition { track, .. } if stream.tracks().iter().any(|(id, _)| id == track) => {
                transcoder.rendition(stream, *track, Codec::Jpeg).map(drop)
            }
            Self::Away | Self::Own(_) | Self::Rendition { .. } => Ok(()),
        }
    }

    /// Waits for a rendition's first picture, or for the news that there will be none; no longer than a moment.
    async fn try_out(&self, stream: &Arc<Stream>, transcoder: &Transcoder) -> Result<(), Unavailable> {
        let Self::Rendition { rendition, .. } = self else { return Ok(()) };
        let (until, shown) = (Instant::now() + TRIAL, shown(rendition.stream()));
        while Instant::now() < until {
            if tokio::time::timeout(TRIAL / 30, rendition.stream().key_after(shown)).await.is_ok() {
                break;
            }
            self.check(stream, transcoder)?;
        }
        Ok(())
    }

    fn stream<'a>(&'a self, camera: &'a Arc<Stream>) -> &'a Arc<Stream> {
        match self {
            Self::Away | Self::Own(_) => camera,
            Self::Rendition { rendition, .. } => rendition.stream(),
        }
    }
}

/// What came of [`Source::choose`].
#[derive(Debug, PartialEq)]
enum Change {
    None,
    Other,
}

/// The number of the key picture after which to begin: the newest one is shown unless the camera has gone since.
fn shown(stream: &Stream) -> u64 {
    let newest = stream.newest_key().map_or(0, |picture| picture.number);
    if stream.can_start() { newest.saturating_sub(1) } else { newest }
}

/// Picks the pictures for one reader.
#[derive(Debug)]
struct Picker {
    transcoder: Arc<Transcoder>,
    stills: Arc<Stills>,
    /// The camera's.
    stream: Arc<Stream>,
    source: Source,
    /// The number of the picture shown last.
    shown: u64,
    width: Option<u32>,
    interval: Option<Duration>,
    /// When the next picture may go.
    due: Instant,
}

impl Picker {
    /// The newest picture that was not shown yet, waited for if need be; `None` when there will be none any more.
    async fn next(&mut self) -> Option<Still> {
        tokio::time::sleep_until(self.due).await;
        loop {
            match self.source.choose(&self.stream, &self.transcoder) {
                Ok(Change::None) => {}
                Ok(Change::Other) => self.shown = shown(self.source.stream(&self.stream)),
                Err(error) => {
                    tracing::debug!(stream = self.stream.path(), %error, "no JPEG of what the camera sends now");
                    return None;
                }
            }
            let source = self.source.stream(&self.stream);
            let picture = match tokio::time::timeout(LOOK, source.key_after(self.shown)).await {
                Ok(Some(picture)) => picture,
                Ok(None) if self.stream.ended().is_cancelled() => return None,
                // The rendition ended, as with its track; what comes instead is seen then.
                Ok(None) => {
                    self.source = Source::Away;
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(_) => match self.source.check(&self.stream, &self.transcoder) {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::debug!(stream = self.stream.path(), %error, "no JPEG any more");
                        return None;
                    }
                },
            };
            self.shown = picture.number;
            if matches!(self.source, Source::Away) || picture.unit.info.codec != Codec::Jpeg {
                // It is known now what the camera sends.
                continue;
            }
            match self.stills.get(source, picture, self.width).await {
                Ok(still) => {
                    if let Some(interval) = self.interval {
                        // On a grid, so that the rate comes near what was asked for.
                        self.due = (self.due + interval).max(Instant::now());
                    }
                    return Some(still);
                }
                Err(error) => tracing::debug!(stream = self.stream.path(), %error, "a picture is left out"),
            }
        }
    }
}

/// One reader.
#[derive(Debug)]
struct Viewer {
    stay: Stay,
    outputs: Arc<Outputs>,
    picker: Picker,
    /// Free when everything has gone to the socket.
    written: Arc<Semaphore>,
    chunks: VecDeque<Bytes>,
    _interest: Interest,
    _watching: Watching,
    _place: Counted,
}

/// The end of a part; when it is dropped, the part has been written.
#[derive(Debug)]
struct End(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit);

impl AsRef<[u8]> for End {
    fn as_ref(&self) -> &[u8] {
        BOUNDARY
    }
}

impl Viewer {
    /// What to write next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(chunk);
        }
        let ready = async {
            let turn = Arc::clone(&self.written).acquire_owned().await.ok()?;
            Some((turn, self.picker.next().await?))
        };
        let (turn, still) = tokio::select! {
            ready = ready => ready?,
            () = self.stay.over() => return None,
        };
        self.outputs.counted.pictures.fetch_add(1, Ordering::Relaxed);
        let since = still.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let head = format!(
            "Content-Type: image/jpeg\r\nContent-Length: {}\r\nX-Timestamp: {}.{:06}\r\n\r\n",
            still.jpeg.len(),
            since.as_secs(),
            since.subsec_micros()
        );
        self.chunks.extend([still.jpeg, Bytes::from_owner(End(turn))]);
        Some(head.into())
    }
}

#[cfg(test)]
mod tests;
