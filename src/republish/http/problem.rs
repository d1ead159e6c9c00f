//! Errors as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::any::Any;

const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, in words for the caller. Its fields are those of RFC 9457 section 3.1; the type is always
/// `about:blank`, so the title is the status code's own.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    result: Option<&'static str>,
    retry_after: Option<u32>,
}

impl Problem {
    /// A problem with that status and a sentence that says what to do about it.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), result: None, retry_after: None }
    }

    /// Adds the outcome of a command, a member of our own.
    #[must_use]
    pub fn with_result(self, result: &'static str) -> Self {
        Self { result: Some(result), ..self }
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

#[derive(Serialize)]
struct Members {
    #[serde(rename = "type")]
    type_: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Members {
            type_: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail,
            result: self.result,
        };
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Marks an error that is a page for people, as a response extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsIs;

/// Gives errors that the framework made, as for a path it could not decode, the same form as our own.
pub(super) async fn uniform(request: Request<Body>, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status();
    let ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == MEDIA_TYPE);
    if ours || response.extensions().get::<AsIs>().is_some() || !(status.is_client_error() || status.is_server_error())
    {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let detail = match axum::body::to_bytes(body, 4096).await {
        // Of our own errors, only being busy is anybody's business.
        Ok(bytes) if (status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE) && !bytes.is_empty() => {
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => detail(status, &path),
    };
    let (own, body) = Problem::new(status, detail).into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(own.headers);
    Response::from_parts(parts, body)
}

fn detail(status: StatusCode, path: &str) -> String {
    match status {
        StatusCode::NOT_FOUND => format!("there is nothing at {path}"),
        StatusCode::METHOD_NOT_ALLOWED => format!("{path} does not take this method; see the Allow header"),
        StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than this path takes".into(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "this path does not take a body of that content type".into(),
        _ if status.is_server_error() => "something went wrong here; the log says what".into(),
        _ => status.canonical_reason().unwrap_or("the request cannot be answered").to_lowercase(),
    }
}

/// Answers a request whose handler panicked; the text goes to the log alone.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(panic = text, "a request failed because of a defect in this program");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail(StatusCode::INTERNAL_SERVER_ERROR, "")).into_response()
}

/// Answers OPTIONS with the methods of the path (axum adds `Allow`), and any other method that it does not take with
/// 405.
pub(super) async fn other_method(request: Request<Body>) -> Response {
    if request.method() == axum::http::Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, detail(status, request.uri().path())).into_response()
}

/// Answers paths that do not exist.
pub(super) async fn not_found(request: Request<Body>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, detail(StatusCode::NOT_FOUND, request.uri().path()))
}
