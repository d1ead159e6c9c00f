//! What went wrong with an RTSP camera, as a class and one sentence.

use crate::bus::ReasonCode;
use crate::ingest::AdapterError;
use std::time::Duration;

/// Where in the exchange a session was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connect,
    Describe,
    Setup,
    Play,
    /// After PLAY was answered.
    Media,
}

impl Stage {
    fn request(self) -> &'static str {
        match self {
            Self::Connect | Self::Describe => "DESCRIBE",
            Self::Setup => "SETUP",
            Self::Play | Self::Media => "PLAY",
        }
    }
}

/// What happened there.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cause {
    /// No connection: what the system said.
    Connect(String),
    /// Nothing came within this time.
    Timeout(Duration),
    /// Sound came, but no picture within this time.
    NoPictures(Duration),
    /// An answer with this status, and what is wrong with it where the status is not.
    Status(u16, String),
    /// The connection was closed or reset.
    Closed,
    /// Bytes that are not RTSP.
    NotRtsp,
    /// Media that cannot be read: why.
    Media(String),
}

impl Cause {
    /// Sorts retina's errors, which are opaque but for the status code, by their documented display forms.
    pub(super) fn of(error: &retina::Error) -> Self {
        let text = error.to_string();
        tracing::debug!(error = text, "the RTSP library says");
        let line = text.lines().next().unwrap_or_default();
        if let Some(status) = error.status_code() {
            // "STATUS response to METHOD CSeq=N: DESCRIPTION"
            let description = line.split_once(": ").map_or(line, |(_, description)| description);
            return Self::Status(status, shortened(description));
        }
        if let Some(cause) = line.strip_prefix("Unable to connect to RTSP server: ") {
            return Self::Connect(shortened(cause));
        }
        if line.starts_with("RTSP framing error") || line.contains("Invalid RTSP message") {
            return Self::NotRtsp;
        }
        let io = ["Error reading from RTSP peer: ", "Error writing to RTSP peer: ", "Error receiving UDP packet: "];
        if io.iter().any(|prefix| line.starts_with(prefix)) { Self::Closed } else { Self::Media(shortened(line)) }
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(160).collect()
}

/// What the sentences need to know of the camera. No secrets.
#[derive(Clone, Debug)]
pub(super) struct Camera {
    /// `HOST:PORT`.
    pub(super) address: String,
    /// The path of the URL.
    pub(super) path: String,
    /// Whether a user name is configured.
    pub(super) credentials: bool,
}

/// The error for `cause` at `stage`.
pub(super) fn explain(camera: &Camera, stage: Stage, cause: Cause) -> AdapterError {
    use ReasonCode::{Busy, Denied, Misconfigured, Silent, Unreachable, Unsupported};
    let Camera { address, path, credentials } = camera;
    let request = stage.request();
    let (code, text) = match (stage, cause) {
        (_, Cause::Connect(why)) => (Unreachable, format!("nothing answers at {address}: {why}")),
        (Stage::Connect, Cause::Timeout(after)) => {
            (Unreachable, format!("nothing answers at {address} within {}", seconds(after)))
        }
        (Stage::Media, Cause::Timeout(after)) => {
            (Silent, format!("the camera at {address} is connected, but has sent no media for {}", seconds(after)))
        }
        (_, Cause::NoPictures(after)) => {
            (Silent, format!("the camera at {address} sends sound, but has sent no pictures for {}", seconds(after)))
        }
        (_, Cause::Timeout(after)) => (
            Busy,
            format!(
                "the camera at {address} did not answer {request} within {}: it may serve all clients it can",
                seconds(after)
            ),
        ),
        (_, Cause::Status(401, _)) if *credentials => {
            (Denied, format!("the camera at {address} refuses the user name or password"))
        }
        (_, Cause::Status(403, _)) if !credentials => {
            (Denied, format!("the camera at {address} forbids access without a user name and password"))
        }
        (_, Cause::Status(401, _)) => (Denied, format!("the camera at {address} asks for a user name and password")),
        (_, Cause::Status(status @ (403 | 453 | 500 | 503), _)) => (
            Busy,
            format!("the camera at {address} refuses {request} with status {status}: it serves all clients it can"),
        ),
        (Stage::Describe, Cause::Status(404, _)) => {
            (Misconfigured, format!("the camera at {address} has no stream at {path}"))
        }
        (Stage::Setup, Cause::Status(461, _)) => {
            (Misconfigured, format!("the camera at {address} refuses the transport; try `transport: auto`"))
        }
        (_, Cause::Status(200..=299, why)) => {
            (Unsupported, format!("the camera at {address} answers {request} with something unusable: {why}"))
        }
        (_, Cause::Status(status, _)) => {
            (Unsupported, format!("the camera at {address} answers {request} with status {status}"))
        }
        (Stage::Media, Cause::Closed) => (Unreachable, format!("the camera at {address} closed the connection")),
        (_, Cause::Closed) => (
            Busy,
            format!("the camera at {address} closed the connection at {request}: it may serve all clients it can"),
        ),
        (Stage::Media, Cause::NotRtsp) => {
            (Unreachable, format!("the connection to the camera at {address} was lost: its framing broke"))
        }
        (_, Cause::NotRtsp) => (Misconfigured, format!("what answers at {address} does not speak RTSP")),
        (_, Cause::Media(why)) => (Unsupported, format!("the stream of the camera at {address} cannot be read: {why}")),
    };
    AdapterError::new(code, text)
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(credentials: bool, stage: Stage, cause: Cause) -> (ReasonCode, String) {
        let camera = Camera { address: "192.0.2.20:554".into(), path: "/live".into(), credentials };
        let error = explain(&camera, stage, cause);
        (error.code, error.text)
    }

    #[test]
    fn statuses_become_reasons() {
        let status = |credentials, stage, status| told(credentials, stage, Cause::Status(status, String::new())).0;
        for stage in [Stage::Describe, Stage::Setup, Stage::Play] {
            assert_eq!(status(true, stage, 401), ReasonCode::Denied);
            for busy in [403, 453, 500, 503] {
                assert_eq!(status(true, stage, busy), ReasonCode::Busy, "{busy}");
            }
        }
        assert_eq!(status(false, Stage::Describe, 403), ReasonCode::Denied);
        assert_eq!(status(true, Stage::Describe, 404), ReasonCode::Misconfigured);
        assert_eq!(status(true, Stage::Setup, 461), ReasonCode::Misconfigured);
        assert_eq!(status(true, Stage::Describe, 551), ReasonCode::Unsupported);
        assert_eq!(status(true, Stage::Describe, 200), ReasonCode::Unsupported);
    }

    #[test]
    fn silence_means_different_things_at_different_stages() {
        let timeout = |stage| told(true, stage, Cause::Timeout(Duration::from_secs(5))).0;
        assert_eq!(timeout(Stage::Connect), ReasonCode::Unreachable);
        assert_eq!(timeout(Stage::Describe), ReasonCode::Busy);
        assert_eq!(timeout(Stage::Setup), ReasonCode::Busy);
        assert_eq!(timeout(Stage::Media), ReasonCode::Silent);
        assert_eq!(told(true, Stage::Describe, Cause::Closed).0, ReasonCode::Busy);
        assert_eq!(told(true, Stage::Media, Cause::Closed).0, ReasonCode::Unreachable);
    }

    #[test]
    fn sentences_name_the_place() {
        let (_, text) = told(true, Stage::Describe, Cause::Status(404, String::new()));
        assert_eq!(text, "the camera at 192.0.2.20:554 has no stream at /live");
        let (_, text) = told(true, Stage::Media, Cause::Timeout(Duration::from_secs(5)));
        assert!(text.contains("no media for 5 s"), "{text}");
    }

    /// The display forms that [`Cause::of`] sorts by, from retina itself: an update that changes them fails here.
    #[tokio::test]
    async fn retinas_errors_are_recognised() {
        use retina::client::{Session, SessionOptions};
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = url::Url::parse(&format!("rtsp://{address}/live")).unwrap();
        let describe = || async {
            let error = Session::describe(url.clone(), SessionOptions::default()).await.err().unwrap();
            Cause::of(&error)
        };
        let answer = |answer: &'static str| async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 2048];
            let _ = socket.read(&mut request).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
        };
        let (cause, ()) = tokio::join!(describe(), answer("RTSP/1.0 453 Not Enough Bandwidth\r\nCSeq: 1\r\n\r\n"));
        assert!(matches!(cause, Cause::Status(453, _)), "{cause:?}");
        let (cause, ()) = tokio::join!(describe(), answer(""));
        assert_eq!(cause, Cause::Closed);
        let (cause, ()) = tokio::join!(describe(), answer("HTTP/1.1 400 Bad Request\r\n\r\n"));
        assert_eq!(cause, Cause::NotRtsp);
        let sdp = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
        let ok = format!(
            "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        let (cause, ()) = tokio::join!(describe(), answer(ok.leak()));
        assert!(matches!(&cause, Cause::Status(200, why) if why.contains("No parseable streams")), "{cause:?}");
        drop(listener);
        let cause = describe().await;
        assert!(matches!(&cause, Cause::Connect(why) if why.contains("refused")), "{cause:?}");
    }
}
