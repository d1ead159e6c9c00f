//! What is known of bells that no camera takes, by HTTP. Who may ask is settled before.

use super::{BellId, Stranger};
use crate::ingest::Doors;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;

/// The routes of this family.
pub(in crate::ingest) fn routes(doors: &Arc<Doors>) -> Router {
    Router::new()
        .route("/v1/mini-doorbell/unknown", get(unknown))
        .route("/v1/mini-doorbell/unknown/{id}/picture.jpg", get(picture))
        .route("/v1/mini-doorbell/damaged/{id}", get(damaged))
        .with_state(Arc::clone(doors))
}

async fn unknown(State(doors): State<Arc<Doors>>) -> Json<Value> {
    let strangers = doors.bells.strangers();
    Json(json!({ "unknown": strangers.iter().map(told).collect::<Vec<_>>() }))
}

fn told(stranger: &Stranger) -> Value {
    let Stranger { id, first_seen, last_seen, visits, picture } = stranger;
    let picture = picture.as_ref().map(|_| format!("/v1/mini-doorbell/unknown/{id}/picture.jpg"));
    json!({
        "id": id.to_string(),
        "first_seen": time(*first_seen),
        "last_seen": time(*last_seen),
        "visits": visits,
        "picture": picture,
        "config": lines(*id),
    })
}

/// What to paste under `cameras:`. The name holds the part of the id that differs between units.
fn lines(id: BellId) -> String {
    let BellId([_, _, _, _, a, b, c, _]) = id;
    format!("  doorbell_{c:02x}{b:02x}{a:02x}:\n    source: mini-doorbell://{id}\n")
}

/// RFC 3339, in milliseconds.
fn time(at: SystemTime) -> Option<String> {
    let at = jiff::Timestamp::try_from(at).ok()?;
    Some(format!("{at:.3}"))
}

async fn picture(State(doors): State<Arc<Doors>>, Path(id): Path<String>) -> Response {
    let strangers = doors.bells.strangers();
    let known = BellId::parse(&id).and_then(|id| strangers.into_iter().find(|stranger| stranger.id == id));
    bytes(
        known.and_then(|stranger| stranger.picture),
        "image/jpeg",
        "no new doorbell of that id, or it sent no picture",
    )
}

async fn damaged(State(doors): State<Arc<Doors>>, Path(id): Path<String>) -> Response {
    let upload = BellId::parse(&id).and_then(|id| doors.bells.damaged(id));
    bytes(upload, "application/octet-stream", "no upload of that doorbell is kept that does not decode")
}

fn bytes(found: Option<Bytes>, kind: &'static str, missing: &'static str) -> Response {
    match found {
        Some(bytes) => ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], bytes).into_response(),
        None => (StatusCode::NOT_FOUND, missing).into_response(),
    }
}
