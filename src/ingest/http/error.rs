//! What went wrong with an HTTP camera, as a class and one sentence.

use crate::bus::ReasonCode;
use crate::ingest::AdapterError;
use std::time::Duration;

/// What the sentences need to know of the camera. No secrets: a query may hold a password and is never shown.
#[derive(Clone, Debug)]
pub(super) struct Camera {
    /// `HOST:PORT`.
    pub(super) address: String,
    /// The path of the URL.
    pub(super) path: String,
    /// Whether a user name is configured.
    pub(super) login: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cause {
    /// No connection: what the system said.
    Connect(String),
    /// No connection within this time.
    ConnectTimeout(Duration),
    /// TLS failed: why.
    Tls(String),
    /// Its certificate is not the one that is wanted.
    OtherCertificate,
    /// No answer within this time.
    NoAnswer(Duration),
    /// The connection broke before the answer was there.
    Lost,
    /// What answers is no HTTP.
    NotHttp,
    /// An answer with this status.
    Status(u16),
    /// It leads to that place, which has this status for strangers; the login was not shown there.
    LoginElsewhere(String, u16),
    /// It leads from one address to the next, or to one that cannot be used.
    Redirects,
    /// It wants a login in a way that is not known here.
    StrangeLogin,
    /// An answer of this media type.
    Type(String),
    /// No picture within this time.
    Silent(Duration),
    /// The stream ended.
    Ended,
    /// What it sends cannot be read: why.
    Broken(String),
}

/// The error for `cause`.
pub(super) fn explain(camera: &Camera, cause: Cause) -> AdapterError {
    use ReasonCode::{Busy, Denied, Misconfigured, Silent, Unreachable, Unsupported};
    let Camera { address, path, login } = camera;
    let the = format!("the camera at {address}");
    let (code, text) = match cause {
        Cause::Connect(why) => (Unreachable, format!("nothing answers at {address}: {why}")),
        Cause::ConnectTimeout(after) => {
            (Unreachable, format!("nothing answers at {address} within {}", seconds(after)))
        }
        Cause::Tls(why) => (Misconfigured, format!("{the} does not speak TLS as it should: {why}")),
        Cause::OtherCertificate => {
            (Denied, format!("{the} shows another certificate than the one that `fingerprint` asks for"))
        }
        Cause::NoAnswer(after) => {
            (Busy, format!("{the} did not answer within {}: it may serve all clients it can", seconds(after)))
        }
        Cause::Lost => (Unreachable, format!("{the} closed the connection without an answer")),
        Cause::NotHttp => (Misconfigured, format!("what answers at {address} does not speak HTTP")),
        Cause::Status(401 | 403) if *login => (Denied, format!("{the} refuses the user name or password")),
        Cause::Status(401 | 403) => (Denied, format!("{the} asks for a user name and password")),
        Cause::LoginElsewhere(place, status) => {
            let wants = if status == 401 { "asks for a login" } else { "refuses us" };
            let advice = "a login is shown only at the address that is configured";
            (Misconfigured, format!("{the} leads to {place}, which {wants}; {advice}, so give that one if it is right"))
        }
        Cause::Status(404 | 410) => (Misconfigured, format!("{the} has nothing at {path}")),
        Cause::Status(status @ (429 | 503)) => {
            (Busy, format!("{the} answers with status {status}: it serves all clients it can"))
        }
        Cause::Status(status) => (Unsupported, format!("{the} answers with status {status}")),
        Cause::Redirects => (Misconfigured, format!("{the} leads from one address to the next; give the last one")),
        Cause::StrangeLogin => (Unsupported, format!("{the} wants neither a Basic nor a Digest login")),
        Cause::Type(kind) if kind.starts_with("text/html") => (
            Unsupported,
            format!(
                "{the} answers with a web page at {path}; the address of its pictures or its MJPEG stream is needed"
            ),
        ),
        Cause::Type(kind) => {
            (Unsupported, format!("{the} answers with {kind}, which is neither a JPEG picture nor a stream of them"))
        }
        Cause::Silent(after) => (Silent, format!("{the} is connected, but has sent no picture for {}", seconds(after))),
        Cause::Ended => (Unreachable, format!("{the} ended the stream")),
        Cause::Broken(why) => (Unsupported, format!("what {the} sends cannot be read: {why}")),
    };
    AdapterError::new(code, text)
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}
