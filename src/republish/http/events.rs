//! `/v1/events/stream`: server-sent events (WHATWG HTML section 9.2) for pages and programs.
//!
//! | event | data |
//! |-------|------|
//! | `state` | a camera as `/v1/cameras/NAME` tells it: all of them at the start, then each that changed |
//! | `removed` | `{ "name": … }` |
//! | `event`, `update` | what happened at a camera, with an `id` |
//!
//! Only `event` and `update` have an `id`: that of the change, which for `event` is the event's own. `Last-Event-ID`, or
//! `?last_event_id=`, gives what is kept of the changes after it first: as `update` what the listener knew, as `event`
//! what it did not.

use super::HttpState;
use super::asked::Client;
use super::cameras::Camera;
use super::guard::Caller;
use super::happened::Happened;
use super::outputs::Stay;
use super::problem::Problem;
use crate::access::crowd::Counted;
use crate::bus::{Bus, EventId, Told};
use crate::transcode::Transcoder;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing;
use bytes::Bytes;
use futures::stream;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A camera is shown again at most this often; also how often those changes are looked for that nobody tells.
const PACE: Duration = Duration::from_secs(1);
/// Changes that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// A comment goes after this time without anything else, so that proxies keep the connection.
const QUIET: Duration = Duration::from_secs(15);
/// Messages that may wait for one listener, enough for a house where everything goes at once; then it is closed, and
/// comes back to a fresh start.
const WAITING: usize = 1024;
/// Tells the browser to come back after 2 s.
const RETRY: Bytes = Bytes::from_static(b"retry: 2000\n\n");
const COMMENT: Bytes = Bytes::from_static(b": still here\n\n");

pub(super) fn routes() -> Router<HttpState> {
    Router::new().route("/v1/events/stream", routing::get(listen))
}

/// The cameras as all listeners were shown them. It looks at the bus, and makes each text once for all, only while
/// somebody listens.
#[derive(Debug)]
pub(super) struct Board {
    bus: Arc<Bus>,
    transcoder: Arc<Transcoder>,
    cancel: CancellationToken,
    live: broadcast::Sender<Bytes>,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    cameras: BTreeMap<String, (Camera, Instant)>,
    task: Option<JoinHandle<()>>,
}

impl Board {
    pub(super) fn new(bus: &Arc<Bus>, transcoder: &Arc<Transcoder>, cancel: CancellationToken) -> Arc<Self> {
        let (live, shown) = (broadcast::Sender::new(WAITING), Mutex::default());
        Arc::new(Self { bus: Arc::clone(bus), transcoder: Arc::clone(transcoder), cancel, live, shown })
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cameras(&self) -> Vec<Camera> {
        let renditions = self.transcoder.states();
        self.bus.devices().iter().map(|device| Camera::of(device, &renditions)).collect()
    }

    /// All cameras as they are now, and what follows.
    fn join(self: &Arc<Self>) -> (Vec<Bytes>, broadcast::Receiver<Bytes>) {
        let mut shown = self.shown();
        let live = self.live.subscribe();
        let cameras = self.cameras();
        let texts = cameras.iter().map(state).collect();
        if shown.task.as_ref().is_none_or(JoinHandle::is_finished) {
            let now = Instant::now();
            shown.cameras = cameras.into_iter().map(|camera| (camera.name().to_owned(), (camera, now))).collect();
            shown.task = Some(tokio::spawn(Arc::clone(self).watch()));
        }
        (texts, live)
    }

    /// Runs while somebody listens.
    async fn watch(self: Arc<Self>) {
        let mut changes = self.bus.changes();
        while let Some(next) = self.look() {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
                // Cannot fail: we hold the bus.
                _ = changes.changed() => tokio::time::sleep(GATHER).await,
            }
            changes.mark_unchanged();
        }
    }

    /// Tells what has changed; answers when to look again, or nothing if nobody listens any more.
    fn look(&self) -> Option<Instant> {
        let mut shown = self.shown();
        if self.live.receiver_count() == 0 {
            *shown = Shown::default();
            return None;
        }
        let now = Instant::now();
        let mut next = now + PACE;
        let cameras = self.cameras();
        shown.cameras.retain(|name, _| {
            let stays = cameras.iter().any(|camera| camera.name() == name);
            if !stays {
                self.tell(message("removed", None, &serde_json::json!({ "name": name })));
            }
            stays
        });
        for camera in cameras {
            let before = shown.cameras.get(camera.name());
            if before.is_some_and(|(before, _)| !camera.differs(before)) {
                continue;
            }
            match before.map(|(_, at)| *at + PACE) {
                Some(due) if due > now => next = next.min(due),
                _ => {
                    self.tell(state(&camera));
                    shown.cameras.insert(camera.name().to_owned(), (camera, now));
                }
            }
        }
        Some(next)
    }

    fn tell(&self, message: Bytes) {
        // All may have gone just now.
        let _ = self.live.send(message);
    }
}

fn state(camera: &Camera) -> Bytes {
    message("state", None, camera)
}

/// One message. JSON has no line ends in it.
fn message(name: &str, id: Option<EventId>, data: &impl Serialize) -> Bytes {
    let id = id.map_or_else(String::new, |EventId(id)| format!("id: {id}\n"));
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

#[derive(Debug, Deserialize)]
struct Asked {
    last_event_id: Option<String>,
}

async fn listen(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Client>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = |text: &str| text.trim().parse().map(EventId);
    let bad = |_| Problem::new(StatusCode::BAD_REQUEST, "last_event_id: the id of an event, a number");
    // What a browser kept from another program at this address is nothing to us.
    let sent = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|text| id(text).ok());
    let named = asked.last_event_id.as_deref().filter(|text| !text.is_empty()).map(id).transpose().map_err(bad)?;
    let place = state.outputs.place(&state.outputs.listeners, client, &state)?;
    let stay = state.outputs.stay(&state.access, &caller, client);

    // When a browser comes back, its header is newer than the address that it was given once.
    let last = sent.or(named);
    let (missed, events) = state.bus.events.since(Some(last.unwrap_or(EventId(u64::MAX))));
    let (states, live) = state.outputs.board.join();
    let mut listener =
        Listener { stay, live, events, waiting: std::iter::once(RETRY).chain(states).collect(), _place: place };
    for event in missed {
        let known = last.is_some_and(|last| event.id <= last);
        listener.waiting.push_back(happened(&if known { Told::Update(event) } else { Told::New(event) }));
    }
    let body = stream::unfold(listener, |mut listener| async {
        let text = listener.next().await?;
        Some((Ok::<_, Infallible>(text), listener))
    });
    let headers = [(header::CONTENT_TYPE.as_str(), "text/event-stream"), ("x-accel-buffering", "no")];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// One listener.
#[derive(Debug)]
struct Listener {
    stay: Stay,
    live: broadcast::Receiver<Bytes>,
    events: broadcast::Receiver<Told>,
    /// What the start consists of.
    waiting: VecDeque<Bytes>,
    _place: Counted,
}

impl Listener {
    /// What to write next; `None` at the end, also for a listener that is too slow.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(text) = self.waiting.pop_front() {
            return Some(text);
        }
        tokio::select! {
            () = self.stay.over() => None,
            told = self.events.recv() => Some(happened(&told.ok()?)),
            text = self.live.recv() => text.ok(),
            () = tokio::time::sleep(QUIET) => Some(COMMENT),
        }
    }
}

fn happened(told: &Told) -> Bytes {
    let name = match told {
        Told::New(_) => "event",
        Told::Update(_) => "update",
    };
    message(name, Some(told.event().changed), &Happened::of(told.event()))
}

#[cfg(test)]
mod tests;
