//! WHEP: how a browser and the WebRTC server come together (draft-ietf-wish-whep; its rules for trickling and restarts
//! are those of WHIP, RFC 9725).
//!
//! | path | method | answer |
//! |------|--------|--------|
//! | endpoint | POST an offer | 201 and the answer; 400, 404, 406, 409, 415, 429, 503 say what is wrong |
//! | endpoint | HEAD, GET, OPTIONS | 200, 204, 200: that there is one, and its ICE servers |
//! | session | PATCH a fragment | trickle: 204; ICE restart: 200; 412 and 428 guard their order |
//! | session | DELETE | 200, the viewer is gone |
//!
//! An endpoint is `/whep/NAME`, `/whep/NAME/sub`, or in the form of MediaMTX `/NAME/whep`, `/NAME/sub/whep`; a session is
//! one segment below. `Location` is relative, so that it leads there under any path prefix.

mod sessions;

use super::HttpState;
use super::asked::Client;
use super::guard::Caller;
use super::problem::Problem;
use crate::access::Limiter;
use crate::bus::{Device, Stream};
use crate::config::IceServer;
use crate::republish::webrtc::{self, CreateError, Fragment, Offer, RestartError};
use axum::body::Bytes;
use axum::extract::{Extension, MatchedPath, OriginalUri, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use serde::Deserialize;
use sessions::{Entry, Matches, Sessions};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// When a viewer should ask again for a picture that was not there in time: the source is being tried all the while.
const RETRY_SOURCE: u32 = 5;
/// When to ask again for a place.
const RETRY_FULL: u32 = 10;

pub(super) fn routes() -> Router<HttpState> {
    let endpoint = || routing::post(create).get(there_is).head(there_is);
    let session = || routing::patch(change).delete(end);
    Router::new()
        .route("/whep/{name}", endpoint())
        .route("/whep/{name}/sub", endpoint())
        .route("/{name}/whep", endpoint())
        .route("/{name}/sub/whep", endpoint())
        .route("/whep/{name}/{session}", session())
        .route("/whep/{name}/sub/{session}", session())
        .route("/{name}/whep/{session}", session())
        .route("/{name}/sub/whep/{session}", session())
}

/// Limits, parameters so that tests need no minutes.
#[derive(Clone, Copy, Debug)]
pub struct WhepLimits {
    /// How long a source may take until it has a picture.
    pub ready_wait: Duration,
    /// Offers that may come at once from one address: a wall of 30 cameras comes back after a restart, a few times over.
    pub offers: u32,
    /// After each of these one more.
    pub offer_every: Duration,
    /// PATCH and DELETE requests that may come at once from one address.
    pub changes: u32,
    /// After each of these one more.
    pub change_every: Duration,
    /// Addresses that are remembered.
    pub addresses: usize,
}

impl Default for WhepLimits {
    fn default() -> Self {
        Self {
            ready_wait: Duration::from_secs(8),
            offers: 120,
            offer_every: Duration::from_millis(500),
            changes: 600,
            change_every: Duration::from_millis(50),
            addresses: 4096,
        }
    }
}

/// The signalling's own state: it outlives a new reading of the configuration.
#[derive(Debug)]
pub struct Whep {
    limits: WhepLimits,
    offers: Limiter,
    changes: Limiter,
    sessions: Arc<Sessions>,
}

impl Whep {
    /// No sessions yet.
    pub fn new(limits: WhepLimits) -> Self {
        Self {
            limits,
            offers: Limiter::new(limits.offers, limits.offer_every, limits.addresses),
            changes: Limiter::new(limits.changes, limits.change_every, limits.addresses),
            sessions: Arc::default(),
        }
    }
}

impl Default for Whep {
    fn default() -> Self {
        Self::new(WhepLimits::default())
    }
}

/// Counts a request, or refuses it.
fn allow(limiter: &Limiter, every: Duration, client: IpAddr) -> Result<(), Problem> {
    if limiter.is_limited(client) {
        let detail = "too many requests from this address; ask again a little later";
        let seconds = u32::try_from(every.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds));
    }
    limiter.failed(client);
    Ok(())
}

/// What stands in a path.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    session: Option<String>,
}

impl Named {
    /// The path of the stream.
    fn stream(&self, matched: &MatchedPath) -> String {
        let sub = matched.as_str().split('/').any(|segment| segment == "sub");
        if sub { format!("{}/sub", self.name) } else { self.name.clone() }
    }
}

fn server(state: &HttpState) -> Result<&Arc<webrtc::Server>, Problem> {
    let off = || Problem::new(StatusCode::NOT_FOUND, "WebRTC is off: `webrtc:` names no address to listen on");
    state.webrtc.as_ref().ok_or_else(off)
}

fn find(state: &HttpState, path: &str) -> Result<(Arc<Device>, Arc<Stream>), Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no camera stream named {path:?}"));
    state.bus.stream(path).ok_or_else(missing)
}

/// HEAD and GET: there is an endpoint, and these are its ICE servers.
async fn there_is(
    State(state): State<HttpState>,
    matched: MatchedPath,
    method: Method,
    Path(named): Path<Named>,
) -> Result<Response, Problem> {
    let server = server(&state)?;
    find(&state, &named.stream(&matched))?;
    let mut response = match method {
        Method::HEAD => ([(header::CONTENT_TYPE, SDP)], ()).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    };
    response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    link(response.headers_mut(), &server.ice_servers(), |_| true);
    Ok(response)
}

/// Completes the answer to OPTIONS, wherever it was made (for pages of other origins it never gets to a handler). It is
/// given to anybody, so it tells no passwords.
pub(super) async fn options(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().filter(|_| request.method() == Method::OPTIONS);
    let session = matched
        .filter(|matched| matched.as_str().split('/').any(|segment| segment == "whep"))
        .map(|matched| matched.as_str().ends_with("{session}"));
    let mut response = next.run(request).await;
    let Some(session) = session else { return response };
    *response.status_mut() = StatusCode::OK;
    if session {
        response.headers_mut().insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    } else {
        response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(SDP));
        if let Some(server) = &state.webrtc {
            link(response.headers_mut(), &server.ice_servers(), |server| server.credential.is_none());
        }
    }
    response
}

/// `Link: <turn:…>; rel="ice-server"` for each URL (RFC 9725 section 4.6).
fn link(headers: &mut HeaderMap, servers: &[IceServer], tell: impl Fn(&IceServer) -> bool) {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    for server in servers.iter().filter(|server| tell(server)) {
        for url in &server.urls {
            let mut value = format!("<{}>; rel=\"ice-server\"", url.replace(['<', '>'], ""));
            if let Some(username) = &server.username {
                value += &format!("; username={}", quoted(username));
            }
            if let Some(credential) = &server.credential {
                value += &format!("; credential={}; credential-type=\"password\"", quoted(credential.reveal()));
            }
            if let Ok(mut value) = HeaderValue::from_str(&value) {
                value.set_sensitive(true);
                headers.append(header::LINK, value);
            }
        }
    }
}

/// Whether the body is of that type, whatever its parameters.
fn is_of(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
}

fn text(body: &Bytes) -> Result<&str, Problem> {
    let failed = |error: std::str::Utf8Error| {
        let detail = format!("the body is not UTF-8 at byte {}", error.valid_up_to());
        Problem::new(StatusCode::BAD_REQUEST, detail)
    };
    std::str::from_utf8(body).map_err(failed)
}

fn bad(error: &dyn std::error::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error.to_string())
}

/// Answers an offer.
#[expect(clippy::too_many_arguments, reason = "each is a part of the request")]
async fn create(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Client>,
    OriginalUri(uri): OriginalUri,
    matched: MatchedPath,
    Path(named): Path<Named>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let whep = &state.whep;
    allow(&whep.offers, whep.limits.offer_every, client.ip)?;
    let server = server(&state)?;
    let path = named.stream(&matched);
    let (device, stream) = find(&state, &path)?;
    if !is_of(&headers, SDP) {
        let detail = format!("the body has to be an offer, with Content-Type: {SDP}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let offer = Offer::parse(text(&body)?).map_err(|error| bad(&error))?;
    match tokio::time::timeout(whep.limits.ready_wait, stream.ready()).await {
        Ok(true) => webrtc::settle(&stream).await,
        Ok(false) => return Err(Problem::new(StatusCode::NOT_FOUND, format!("{path} was just removed"))),
        Err(_) => return Err(not_live(&path, &device)),
    }
    let plan = webrtc::plan(&offer, &stream, &state.transcoder)
        .map_err(|none| Problem::new(StatusCode::NOT_ACCEPTABLE, none.to_string()))?;
    let session = server.create(&offer, plan, device, client.ip, caller.0.clone()).map_err(|error| match error {
        CreateError::Full(_) | CreateError::PerAddress(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after(RETRY_FULL)
        }
        CreateError::Bad(_) => bad(&error),
    })?;
    let answer = session.answer().to_owned();
    let (id, etag) = whep.sessions.add(Entry::new(session, path, caller.name(), offer));
    // The endpoint's own last segment, as a reference is resolved without it (RFC 3986 section 5.2.3).
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let mut response = (
        StatusCode::CREATED,
        [(header::CONTENT_TYPE, SDP.to_owned()), (header::LOCATION, format!("{last}/{id}")), (header::ETAG, etag)],
        [(ACCEPT_PATCH, FRAGMENT)],
        answer,
    )
        .into_response();
    link(response.headers_mut(), &server.ice_servers(), |_| true);
    Ok(response)
}

fn not_live(path: &str, device: &Device) -> Problem {
    let status = device.status();
    let reason = status.reason.map_or_else(|| "it has sent none yet".to_owned(), |reason| reason.text);
    let detail = format!("no picture of {path} in time; {} is {}: {reason}", device.name(), status.state.name());
    Problem::new(StatusCode::CONFLICT, detail).retry_after(RETRY_SOURCE)
}

/// The session of that id, of that endpoint and of that user; for everybody else there is none.
fn session(state: &HttpState, named: &Named, matched: &MatchedPath, caller: &Caller) -> Result<Arc<Entry>, Problem> {
    let path = named.stream(matched);
    let id = named.session.as_deref().unwrap_or_default();
    let missing = || Problem::new(StatusCode::NOT_FOUND, "there is no such session, or no more");
    state.whep.sessions.find(id, &path, caller.name()).ok_or_else(missing)
}

/// Takes candidates, or restarts ICE.
async fn change(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Client>,
    matched: MatchedPath,
    Path(named): Path<Named>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    allow(&state.whep.changes, state.whep.limits.change_every, client.ip)?;
    let entry = session(&state, &named, &matched, &caller)?;
    if !is_of(&headers, FRAGMENT) {
        let detail = format!("the body has to be candidates, with Content-Type: {FRAGMENT}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let Some(matches) = Matches::of(&headers) else {
        let detail = "If-Match is missing: it says which ICE session is meant, as ETag named it; \"*\" to restart ICE";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, detail));
    };
    let fragment = Fragment::parse(text(&body)?).map_err(|error| bad(&error))?;
    // One after the other: a restart replaces what the next one is compared with.
    let mut current = entry.current.lock().await;
    if !matches.allow(&current.etag) {
        let detail = "If-Match does not name the current ICE session: it was restarted";
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
    }
    let Some(ice) = fragment.ice.as_ref().filter(|ice| **ice != current.ice) else {
        entry.session.trickle(&fragment.candidates);
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let gone = |error: RestartError| Problem::new(StatusCode::NOT_FOUND, error.to_string());
    let ours = entry.session.restart(ice).await.map_err(gone)?;
    current.restarted(ice.clone());
    entry.session.trickle(&fragment.candidates);
    let answer = ours.write(entry.kind, &entry.mid);
    let headers = [(header::CONTENT_TYPE, FRAGMENT), (header::ETAG, &current.etag)];
    Ok((headers, answer).into_response())
}

/// Ends a session.
async fn end(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Extension(client): Extension<Client>,
    matched: MatchedPath,
    Path(named): Path<Named>,
) -> Result<StatusCode, Problem> {
    allow(&state.whep.changes, state.whep.limits.change_every, client.ip)?;
    let entry = session(&state, &named, &matched, &caller)?;
    state.whep.sessions.remove(&entry);
    entry.session.close();
    Ok(StatusCode::OK)
}
