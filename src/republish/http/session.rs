//! `/v1/session`: signing in and out, and the cookie between.

use super::HttpState;
use super::asked::Client;
use super::guard::{Caller, PAGE_CHALLENGE, limited};
use super::problem::Problem;
use super::signin;
use crate::access::{Access, HttpVerdict, Renewed, SESSION, User};
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use url::form_urlencoded;

/// Where sessions begin and end.
pub(super) const PATH: &str = "/v1/session";
const COOKIE: &str = "fanlight_session";
/// Its name over TLS: a browser lets no plain page replace a `Secure` cookie, whatever the port, so that who had signed in
/// over HTTPS could not sign in over HTTP (seen in Chromium).
const SECURE_COOKIE: &str = "fanlight_session_tls";

pub(super) fn routes() -> Router<HttpState> {
    Router::new().route("/v1/session", routing::get(show).post(sign_in).delete(sign_out))
}

/// Values of our cookies. Browsers do not tell ports apart: gateways on one host replace each other's.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| [COOKIE, SECURE_COOKIE].contains(&name.trim())).map(|(_, token)| token.trim())
}

/// Whether somebody signed in by the page, even long ago.
pub(super) fn has_cookie(headers: &HeaderMap) -> bool {
    tokens(headers).next().is_some()
}

/// Whose session the cookies show.
pub(super) fn of(headers: &HeaderMap, access: &Access) -> Option<Renewed<Arc<User>>> {
    // Nobody has more of them by accident.
    tokens(headers).take(8).find_map(|token| access.check_session(token))
}

/// The cookie that holds a session.
pub(super) fn cookie(token: &str, secure: bool) -> Option<HeaderValue> {
    set_cookie(token, SESSION.as_secs(), secure)
}

fn set_cookie(value: &str, seconds: u64, secure: bool) -> Option<HeaderValue> {
    let (name, secure) = if secure { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let text = format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).ok()
}

#[derive(Serialize)]
struct Session {
    /// `null` where nobody needs to sign in.
    user: Option<String>,
    role: &'static str,
}

async fn show(Extension(caller): Extension<Caller>) -> Json<Session> {
    let role = if caller.is_admin() { "admin" } else { "viewer" };
    Json(Session { user: caller.name().map(str::to_owned), role })
}

/// What somebody signs in with. Not to be shown.
#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
}

async fn sign_in(
    State(state): State<HttpState>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => {
            let Ok(login) = serde_json::from_slice::<Login>(&body) else {
                let detail = "expected an object with the texts `name` and `password`";
                return Problem::new(StatusCode::BAD_REQUEST, detail).into_response();
            };
            by_script(&state, client, login).await
        }
        "application/x-www-form-urlencoded" => {
            let field = |name: &str| {
                let found = form_urlencoded::parse(&body).find(|(key, _)| key == name);
                found.map(|(_, value)| value.into_owned()).unwrap_or_default()
            };
            let login = Login { name: field("name"), password: field("password") };
            by_form(&state, client, login, &field("next")).await
        }
        _ => {
            let detail = "expected application/json with `name` and `password`, or a form";
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into_response()
        }
    }
}

/// The cookie for who signed in; `None` where nobody has to.
async fn check(state: &HttpState, client: Client, login: Login) -> Result<Option<HeaderValue>, HttpVerdict> {
    match state.access.check_sign_in(client.ip, login.name, login.password).await {
        HttpVerdict::Granted(None) => Ok(None),
        HttpVerdict::Granted(Some(user)) => {
            let token = state.access.session(&user).ok_or(HttpVerdict::Denied)?;
            tracing::info!(user = user.name, client = %client.ip, "signed in");
            Ok(cookie(&token, client.secure))
        }
        refused => Err(refused),
    }
}

async fn by_script(state: &HttpState, client: Client, login: Login) -> Response {
    match check(state, client, login).await {
        Ok(cookie) => with_cookie(StatusCode::NO_CONTENT.into_response(), cookie),
        Err(HttpVerdict::Limited) => limited().into_response(),
        Err(_) => {
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, "wrong name or password").into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(PAGE_CHALLENGE));
            response
        }
    }
}

/// For browsers without script: the answer is a page in any case.
async fn by_form(state: &HttpState, client: Client, login: Login, next: &str) -> Response {
    let next = signin::inside(next);
    match check(state, client, login).await {
        Ok(cookie) => {
            // Relative, as there may be a path prefix before our own.
            let location = HeaderValue::from_str(&format!("..{next}")).unwrap_or(HeaderValue::from_static("../"));
            with_cookie((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(), cookie)
        }
        Err(HttpVerdict::Limited) => {
            let words = "Too many wrong passwords from this address. Wait a minute.";
            signin::page(StatusCode::TOO_MANY_REQUESTS, PATH, next, Some(words))
        }
        Err(_) => signin::page(StatusCode::UNAUTHORIZED, PATH, next, Some("Wrong name or password.")),
    }
}

fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    response
}

async fn sign_out(Extension(client): Extension<Client>) -> Response {
    let mut response = with_cookie(StatusCode::NO_CONTENT.into_response(), set_cookie("", 0, client.secure));
    // Over TLS also the one from before.
    if let Some(plain) = set_cookie("", 0, false).filter(|_| client.secure) {
        response.headers_mut().append(header::SET_COOKIE, plain);
    }
    response
}

#[cfg(test)]
mod tests;
