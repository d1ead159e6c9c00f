//! The web: states as JSON, commands, metrics, and a page for people.
//!
//! | path | answer |
//! |------|--------|
//! | `/`, `/camera/NAME`, `/visitors` | the wall, one camera, the gallery; their files are under `/assets` |
//! | `/v1/cameras`, `/v1/cameras/NAME` | JSON |
//! | `/v1/cameras/NAME/stream.xspf` | a playlist for VLC |
//! | `/v1/cameras/NAME/snapshot.jpg` | the newest picture |
//! | `/v1/cameras/NAME/mjpeg` | pictures one after the other |
//! | `/v1/events`, `/v1/events/ID/picture.jpg` | what happened lately, and its pictures |
//! | `/v1/events/stream` | what changes and happens, as server-sent events |
//! | `POST /v1/cameras/NAME/commands/COMMAND[/TARGET]` | asks the device |
//! | `/v1/session` | who is signed in; POST signs in, DELETE out |
//! | `POST /whep/NAME`, `/whep/NAME/sub`, `/NAME/whep` | WHEP: a WebRTC offer is answered; `PATCH`, `DELETE` one segment below |
//! | `/metrics` | Prometheus text |
//! | `/healthz`, `/readyz` | alive; every listener is up |
//!
//! Everything but `/healthz`, OPTIONS, signing in and assets needs a user, and all errors but the sign-in page are
//! [problems](Problem).

mod asked;
mod assets;
mod cameras;
mod events;
mod guard;
mod happened;
mod metrics;
mod mjpeg;
mod outputs;
mod page;
mod problem;
mod scale;
mod serve;
mod session;
mod signin;
mod snapshot;
mod stills;
mod whep;

pub use outputs::Outputs;
pub use problem::Problem;
pub use serve::{Limits, serve};
pub use whep::{Whep, WhepLimits};

use super::health::Health;
use super::rtsp::Statistics;
use super::webrtc;
use crate::access::Access;
use crate::bus::Bus;
use crate::config;
use crate::transcode::Transcoder;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware, routing};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;

/// Bytes of a request's body; nothing that is served today takes more.
const MAX_BODY: usize = 64 << 10;

/// How long a request's body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What all handlers share.
#[derive(Clone, Debug)]
pub struct HttpState {
    /// The devices.
    pub bus: Arc<Bus>,
    /// Who may.
    pub access: Arc<Access>,
    /// The program's own state.
    pub health: Arc<Health>,
    /// The addresses where RTSP is really served, for the URLs that we give; empty if it is not.
    pub rtsp: Arc<[SocketAddr]>,
    /// The same for RTSPS.
    pub rtsps: Arc<[SocketAddr]>,
    /// What the RTSP server counts.
    pub rtsp_statistics: Arc<Statistics>,
    /// Renditions and stills.
    pub transcoder: Arc<Transcoder>,
    /// The WebRTC server; `None` where it is off.
    pub webrtc: Option<Arc<webrtc::Server>>,
    /// Its signalling.
    pub whep: Arc<Whep>,
    /// Pictures, and answers that last.
    pub outputs: Arc<Outputs>,
    /// From the configuration.
    pub options: Arc<config::Http>,
    /// What the devices' families offer beside our own paths. They bound their bodies themselves: pictures are larger
    /// than anything that our own paths take.
    pub families: Router,
}

/// The address at the other end of the connection, a request extension that [`serve()`] sets.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Marks a request that came over TLS, a request extension that [`serve()`] sets.
#[derive(Clone, Copy, Debug)]
pub struct OverTls;

impl HttpState {
    fn trusts(&self, peer: IpAddr) -> bool {
        asked::trusts(&self.options, peer)
    }
}

/// What is served: replaced as a whole when the configuration is read again.
#[derive(Clone, Debug)]
pub struct Site {
    router: Router,
    state: HttpState,
}

impl Site {
    /// The site that follows from that state.
    pub fn new(state: HttpState) -> Self {
        Self { router: router(state.clone()), state }
    }
}

/// All paths, with everything that guards them.
pub fn router(state: HttpState) -> Router {
    let router = Router::new()
        .route("/healthz", routing::get(|| async { "ok\n" }))
        .route("/readyz", routing::get(readyz))
        .route("/metrics", routing::get(metrics::metrics))
        .merge(page::routes())
        .merge(assets::routes())
        .merge(session::routes())
        .merge(cameras::routes())
        .merge(snapshot::routes())
        .merge(mjpeg::routes())
        .merge(events::routes())
        .merge(happened::routes())
        .merge(whep::routes());
    let families = state.families.clone().with_state(());
    guarded(router, families, state)
}

/// Wraps routes in what every request goes through; `families` only have their bodies to themselves.
fn guarded(router: Router<HttpState>, families: Router<HttpState>, state: HttpState) -> Router {
    let cors = cors(&state.options.allow_origins);
    let ancestors = Arc::from(frame_ancestors(&state.options.allow_origins));
    let router = router
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::other_method)
        .layer(middleware::from_fn(whole_body))
        .layer(RequestBodyLimitLayer::new(MAX_BODY))
        .merge(families.method_not_allowed_fallback(problem::other_method))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn(problem::uniform))
        .with_state(state.clone());
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    let router = router.layer(middleware::from_fn_with_state(state, whep::options));
    router.layer(middleware::map_response(move |response| secured(response, Arc::clone(&ancestors))))
}

/// Waits for the body, so that no handler waits for one that never comes: such requests would take all connections.
async fn whole_body(request: Request<Body>, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, body.into())).await,
        Ok(Err(_)) => {
            let detail = format!("the body did not come whole, or is over {MAX_BODY} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response()
        }
        Err(_) => {
            let detail = format!("the body did not come within {} s", BODY_TIME.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }
    }
}

/// Lets pages of the listed origins read our answers; without any, browsers let nobody but ourselves.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let cors = CorsLayer::new()
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::LOCATION, header::LINK, header::ETAG, header::RETRY_AFTER, whep::ACCEPT_PATCH])
        .max_age(Duration::from_secs(3600));
    Some(if origins.iter().any(|origin| origin == "*") {
        cors.allow_origin(AllowOrigin::any())
    } else {
        let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        cors.allow_origin(AllowOrigin::list(origins)).allow_credentials(true)
    })
}

/// Who may show us in a frame: ourselves and the listed origins.
fn frame_ancestors(origins: &[String]) -> String {
    // An origin holds no space, semicolon or comma; anything else would end the directive.
    let plain = |origin: &&String| !origin.contains([' ', ';', ',']);
    origins.iter().filter(plain).fold("frame-ancestors 'self'".to_owned(), |list, origin| list + " " + origin)
}

/// Headers that keep browsers from doing what we did not mean.
async fn secured(mut response: Response, ancestors: Arc<str>) -> Response {
    let headers = response.headers_mut();
    let policy = match headers.get(header::CONTENT_SECURITY_POLICY).and_then(|policy| policy.to_str().ok()) {
        Some(policy) => format!("{policy}; {ancestors}"),
        None => format!("default-src 'none'; {ancestors}"),
    };
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Our own pages name themselves to us, see `asked::by_own_page`.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (guard::RESOURCE_POLICY, "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

async fn readyz(State(state): State<HttpState>) -> Response {
    if !state.health.ready() {
        return not_ready(&state.health);
    }
    let listeners: Vec<_> = state
        .health
        .listeners()
        .iter()
        .map(|listener| serde_json::json!({ "name": listener.name, "address": listener.address }))
        .collect();
    Json(serde_json::json!({ "ready": true, "listeners": listeners })).into_response()
}

fn not_ready(health: &Health) -> Response {
    let down: Vec<_> = health.listeners().into_iter().filter(|listener| !listener.up).map(|down| down.name).collect();
    let detail = match down.as_slice() {
        [] => "not listening yet".to_owned(),
        down => format!("not listening any more: {}", down.join(", ")),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod who_may;
