//! Who may: one middleware in front of every path.
//!
//! | asked for | by | answer |
//! |-----------|----|--------|
//! | `/healthz`, OPTIONS | anybody | goes through |
//! | anything | a host name that is not known | 421 |
//! | anything | a page of an origin that is neither ours nor listed | 403 |
//! | `/assets/…`, `POST /v1/session` | anybody | goes through |
//! | `POST`, `PUT /v1/cameras/NAME/push` | the camera's token as `?token=` or Bearer | goes through |
//! | the same | a user who is no admin | 403 |
//! | the rest | session cookie, Basic or Bearer of a user | goes through, with a [`Caller`] |
//! | a page | nobody | 401 and the sign-in page |
//! | the rest | nobody | 401; 429 after too many wrong passwords |

use super::HttpState;
use super::asked::{self, AskedHost, Client};
use super::problem::Problem;
use super::{session, signin};
use crate::access::{Access, Authorization, HTTP_CHALLENGE, HttpVerdict, Role, User};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use hyper::body::Body as _;
use std::net::IpAddr;
use std::sync::Arc;
use url::form_urlencoded;

/// Who may show what is answered.
pub(super) const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// For what our own pages fetch: with any other challenge browsers open a password box of their own.
pub(super) const PAGE_CHALLENGE: &str = "Bearer realm=\"Fanlight\"";

/// Who asks. `None` where nobody needs to sign in: that is everybody's and the administrator's view at once.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Option<Arc<User>>);

impl Caller {
    pub(super) fn name(&self) -> Option<&str> {
        self.0.as_deref().map(|user| user.name.as_str())
    }

    pub(super) fn is_admin(&self) -> bool {
        self.0.as_deref().is_none_or(|user| user.role == Role::Admin)
    }
}

/// What lets a request through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// Nothing is asked for.
    None,
    /// A user, shown by cookie, Basic or Bearer.
    User,
    /// The camera's own token and nothing that a browser adds by itself: any page can make a browser send a GET.
    CameraToken,
    /// An admin, or the token of the camera as `?token=` or Bearer.
    AdminOrToken,
}

fn key_to(method: &Method, path: &str) -> Key {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if path == "/healthz" || *method == Method::OPTIONS || (reads && path.starts_with("/assets/")) {
        return Key::None;
    }
    if *method == Method::POST && path == session::PATH {
        return Key::None;
    }
    match camera_and_action(path) {
        Some((_, "events")) if reads => Key::CameraToken,
        Some((_, "push")) if !reads => Key::AdminOrToken,
        _ => Key::User,
    }
}

/// The camera's name and what is behind it, of a path below one camera's.
fn camera_and_action(path: &str) -> Option<(&str, &str)> {
    let mut segments = path.strip_prefix("/v1/cameras/")?.split('/');
    Some((segments.next()?, segments.next()?))
}

/// Whether a request shows the token of the camera that it is about; `None` if it shows nothing that may be one.
fn by_token(access: &Access, client: IpAddr, request: &Request<Body>) -> Option<HttpVerdict> {
    let (camera, _) = camera_and_action(request.uri().path())?;
    let query = request.uri().query().unwrap_or_default();
    let named = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token");
    if let Some((_, token)) = named {
        return Some(access.check_token(client, camera, &token));
    }
    let authorization = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    match Authorization::parse(authorization)? {
        // Any other may be a user's password.
        Authorization::Bearer(token) if access.token_fits(client, camera, &token) == Some(true) => {
            Some(HttpVerdict::Granted(None))
        }
        _ => None,
    }
}

/// Lets through who may, with a [`Caller`], a [`Client`] and an [`AskedHost`] for the handlers.
pub(super) async fn guard(State(state): State<HttpState>, mut request: Request<Body>, next: Next) -> Response {
    let admitted = match admit(&state, &mut request).await {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    let shown_elsewhere = asked::for_listed_page(request.headers(), &state.options);
    let mut response = next.run(request).await;
    if shown_elsewhere {
        response.headers_mut().insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    }
    let Some(Admitted { user, client, renewed }) = admitted else { return response };
    if let Some(cookie) = renewed
        && !response.headers().contains_key(header::SET_COOKIE)
    {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    // What has no end in sight ends with the user's right to it.
    if response.body().size_hint().exact().is_none() {
        let revoked = revoked(Arc::clone(&state.access), client.ip, user);
        return response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(revoked))));
    }
    response
}

/// Waits until that user is removed or changed.
async fn revoked(access: Arc<Access>, client: IpAddr, user: Option<Arc<User>>) {
    let mut changed = access.sessions_changed();
    while access.is_valid(client, user.as_deref()) {
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Who was let in.
struct Admitted {
    user: Option<Arc<User>>,
    client: Client,
    /// The cookie of a session that has aged.
    renewed: Option<HeaderValue>,
}

/// `None` where nobody was asked for.
async fn admit(state: &HttpState, request: &mut Request<Body>) -> Result<Option<Admitted>, Box<Response>> {
    let refuse = |status, detail: &str| Err(Box::new(Problem::new(status, detail).into_response()));
    let path = request.uri().path().to_owned();
    let key = key_to(request.method(), &path);
    if path == "/healthz" || request.method() == Method::OPTIONS {
        return Ok(None);
    }
    let options = &state.options;
    let (client, host) = asked::read(request, options);
    let Some(host) = host else {
        return refuse(StatusCode::BAD_REQUEST, "the Host header is missing or is not a host name or address");
    };
    // Told to anybody, so that a health check needs no password.
    if path == "/readyz" && !state.health.ready() {
        return Err(Box::new(super::not_ready(&state.health)));
    }
    if !host.is_known(options) {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "only addresses and names of the local network are answered: list this host name under http: hosts",
        );
    }
    if asked::is_foreign(request, &host, options) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a page of another origin may not do this unless its origin is listed under http: allow_origins",
        );
    }
    request.extensions_mut().insert(client);
    if key == Key::None {
        request.extensions_mut().insert(host);
        return Ok(None);
    }
    let as_user = matches!(key, Key::User | Key::AdminOrToken);
    let session = if as_user { session::of(request.headers(), &state.access) } else { None };
    if key == Key::AdminOrToken && session.is_none() && !state.access.is_valid(client.ip, None) {
        match by_token(&state.access, client.ip, request) {
            Some(HttpVerdict::Granted(_)) => return Ok(None),
            Some(HttpVerdict::Denied) => return Err(Box::new(denied(state, request, &host))),
            Some(HttpVerdict::Limited) => return Err(Box::new(limited().into_response())),
            None => {}
        }
    }
    let (user, renewed) = match session {
        Some(session) => (Some(session.user), session.token.and_then(|token| session::cookie(&token, client.secure))),
        None => {
            let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let authorization = authorization.filter(|_| as_user);
            match state.access.check_http(client.ip, authorization).await {
                HttpVerdict::Granted(user) => (user, None),
                HttpVerdict::Denied => return Err(Box::new(denied(state, request, &host))),
                HttpVerdict::Limited => return Err(Box::new(limited().into_response())),
            }
        }
    };
    let caller = Caller(user.clone());
    if key == Key::AdminOrToken && !caller.is_admin() {
        return refuse(StatusCode::FORBIDDEN, "this takes the camera's token, or a user with the role admin");
    }
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(host);
    Ok(Some(Admitted { user, client, renewed }))
}

/// 401 in the form that the asker can use.
fn denied(state: &HttpState, request: &Request<Body>, host: &AskedHost) -> Response {
    let nobody = state.access.loopback_only();
    if !nobody && signin::is_wanted(request) {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        return signin::page(StatusCode::UNAUTHORIZED, request.uri().path(), target, None);
    }
    let detail = if nobody {
        "there are no users, so only this machine is answered: `fanlight password NAME` makes a user"
    } else {
        "sign in with the name and password of a user, or send the password as a bearer token"
    };
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    let by_page = session::has_cookie(request.headers()) || asked::by_own_page(request.headers(), host);
    let challenge = HeaderValue::from_static(if by_page { PAGE_CHALLENGE } else { HTTP_CHALLENGE });
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// 429 after too many wrong passwords.
pub(super) fn limited() -> Problem {
    let detail = "too many wrong passwords from this address; wait a minute";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(60)
}
