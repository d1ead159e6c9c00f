//! `/v1/cameras`: what is known of each device, a playlist, and commands.

use super::HttpState;
use super::asked::AskedHost;
use super::guard::Caller;
use super::problem::Problem;
use crate::bus::{CommandError, Device, State as DeviceState, Stream, Totals};
use crate::media::{Kind, TrackInfo};
use crate::transcode::RenditionState;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// How long a device may take to answer a command.
const PATIENCE: Duration = Duration::from_secs(10);
/// Fewer pictures per second than this are shown by pages one by one, not as a film.
const SLOW: f64 = 0.5;

pub(super) fn routes() -> Router<HttpState> {
    Router::new()
        .route("/v1/cameras", routing::get(list))
        .route("/v1/cameras/{name}", routing::get(one))
        .route("/v1/cameras/{name}/stream.xspf", routing::get(playlist))
        .route("/v1/cameras/{name}/commands/{*command}", routing::post(command))
}

/// All cameras in JSON.
#[derive(Debug, Serialize)]
struct List {
    cameras: Vec<Camera>,
}

/// A camera in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Camera {
    name: String,
    family: &'static str,
    state: &'static str,
    reason: Option<String>,
    reason_code: Option<&'static str>,
    since: String,
    on_demand: bool,
    /// Whether there is a second stream.
    sub: bool,
    tracks: Vec<Track>,
    upstream_connections: usize,
    upstream_limit: usize,
    viewers: Viewers,
    frames: u64,
    bytes: u64,
    lost: u64,
    last_frame_age_ms: Option<u64>,
    commands: Vec<CommandName>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Track {
    stream: String,
    kind: &'static str,
    codec: &'static str,
    width: Option<u32>,
    height: Option<u32>,
    /// Width to height of a pixel: (1, 1) is square; unknown where the camera did not say yet.
    pixel_aspect: Option<(u16, u16)>,
    fps: Option<f64>,
    /// As the device sends it; otherwise somebody watches it in another coding.
    native: bool,
    /// Why somebody who wants it does not get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Viewers {
    rtsp: usize,
    webrtc: usize,
    mjpeg: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct CommandName {
    name: String,
    title: String,
}

impl Camera {
    pub(super) fn of(device: &Device, renditions_of_all: &[RenditionState]) -> Self {
        let status = device.status();
        let (reason, reason_code) = match status.reason {
            Some(reason) => (Some(reason.text), Some(reason.code.name())),
            None => (None, None),
        };
        let streams: Vec<_> = device.streams().map(|stream| (stream, stream.totals())).collect();
        let sum = |of: fn(&Totals) -> u64| streams.iter().map(|(_, totals)| of(totals)).sum();
        // The main stream's, so that a second stream which goes on does not hide that the main one stands still.
        let age = streams.iter().find_map(|(_, totals)| totals.last_frame_age);
        let viewers = &device.viewers;
        Self {
            name: device.name().to_owned(),
            family: device.family(),
            state: status.state.name(),
            reason,
            reason_code,
            since: rfc3339(status.since),
            on_demand: device.is_on_demand(),
            sub: device.sub().is_some(),
            tracks: streams
                .iter()
                .flat_map(|(stream, totals)| tracks(stream, totals))
                .chain(renditions(device, renditions_of_all))
                .collect(),
            upstream_connections: device.upstream().open(),
            upstream_limit: device.upstream().limit(),
            viewers: Viewers {
                rtsp: viewers.rtsp.load(Ordering::Relaxed),
                webrtc: viewers.webrtc.load(Ordering::Relaxed),
                mjpeg: viewers.mjpeg.load(Ordering::Relaxed),
            },
            frames: sum(|totals| totals.frames),
            bytes: sum(|totals| totals.bytes),
            lost: sum(|totals| totals.lost),
            last_frame_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            commands: device
                .commands()
                .into_iter()
                .map(|command| CommandName { name: command.name, title: command.title })
                .collect(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A picture now and then, as from a bell: each is news.
    fn is_slow(&self) -> bool {
        let main = self.tracks.iter().find(|track| track.native && track.kind == "video" && track.stream == self.name);
        main.and_then(|track| track.fps).is_some_and(|rate| rate < SLOW)
    }

    /// Whether somebody who was shown `before` should be shown this: running totals alone are no reason, nor is a rate
    /// that wavers.
    pub(super) fn differs(&self, before: &Self) -> bool {
        if self.frames != before.frames && self.is_slow() {
            return true;
        }
        let rate = |track: &Track| track.fps.unwrap_or_default();
        let mut rates = self.tracks.iter().zip(&before.tracks);
        let steady = |camera: &Self| Self {
            tracks: camera.tracks.iter().map(|track| Track { fps: None, ..track.clone() }).collect(),
            upstream_connections: 0,
            frames: 0,
            bytes: 0,
            lost: 0,
            last_frame_age_ms: None,
            ..camera.clone()
        };
        rates.any(|(now, before)| (rate(now) - rate(before)).abs() > 0.25 * rate(now).max(rate(before)))
            || steady(self) != steady(before)
    }
}

fn tracks(stream: &Stream, totals: &Totals) -> Vec<Track> {
    let track = |info: &TrackInfo| Track {
        stream: stream.path().to_owned(),
        kind: info.kind().name(),
        codec: info.codec.name(),
        width: info.video().map(|video| video.width).filter(|&width| width > 0),
        height: info.video().map(|video| video.height).filter(|&height| height > 0),
        pixel_aspect: pixel_aspect(info),
        fps: (info.kind() == Kind::Video).then(|| (totals.frame_rate * 10.0).round() / 10.0),
        native: true,
        reason: None,
    };
    stream.tracks().iter().map(|(_, info)| track(info)).collect()
}

fn pixel_aspect(info: &TrackInfo) -> Option<(u16, u16)> {
    info.video().map(|video| video.pixel_aspect).filter(|&(width, height)| width > 0 && height > 0)
}

/// The renditions of a device's streams that run, or cannot although somebody wants them.
fn renditions<'a>(device: &'a Device, states: &'a [RenditionState]) -> impl Iterator<Item = Track> + 'a {
    let own = |state: &&RenditionState| device.streams().any(|stream| stream.path() == state.source);
    states.iter().filter(own).filter(|state| state.running || state.trouble.is_some()).map(|state| Track {
        stream: state.source.clone(),
        kind: state.info.kind().name(),
        codec: state.info.codec.name(),
        width: state.info.video().map(|video| video.width).filter(|&width| width > 0),
        height: state.info.video().map(|video| video.height).filter(|&height| height > 0),
        pixel_aspect: pixel_aspect(&state.info),
        fps: (state.info.kind() == Kind::Video).then(|| (state.frame_rate * 10.0).round() / 10.0),
        native: false,
        reason: state.trouble.as_ref().map(|trouble| trouble.reason.clone()),
    })
}

/// A wall-clock time to the second, as RFC 3339 has it, in UTC.
pub(super) fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| jiff::Timestamp::UNIX_EPOCH.to_string(), |at| format!("{at:.0}"))
}

async fn list(State(state): State<HttpState>) -> Json<List> {
    let renditions = state.transcoder.states();
    Json(List { cameras: state.bus.devices().iter().map(|device| Camera::of(device, &renditions)).collect() })
}

async fn one(State(state): State<HttpState>, Path(name): Path<String>) -> Result<Json<Camera>, Problem> {
    Ok(Json(Camera::of(&*find(&state, &name)?, &state.transcoder.states())))
}

pub(super) fn find(state: &HttpState, name: &str) -> Result<Arc<Device>, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no camera named {name:?}"));
    state.bus.device(name).ok_or_else(missing)
}

/// The camera of that name, and its stream as the query says: `main`, which needs not be said, or `sub`.
pub(super) fn find_stream(
    state: &HttpState,
    name: &str,
    stream: Option<&str>,
) -> Result<(Arc<Device>, Arc<Stream>), Problem> {
    let device = find(state, name)?;
    let stream = match stream {
        None | Some("main") => Arc::clone(device.main()),
        Some("sub") => {
            let missing = || Problem::new(StatusCode::NOT_FOUND, format!("{name} has no second stream"));
            Arc::clone(device.sub().ok_or_else(missing)?)
        }
        Some(_) => return Err(Problem::new(StatusCode::BAD_REQUEST, "stream: main or sub")),
    };
    let tracks = stream.tracks();
    if !tracks.is_empty() && tracks.iter().all(|(_, info)| info.kind() != Kind::Video) {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("{} has sound only", stream.path())));
    }
    Ok((device, stream))
}

/// A playlist for VLC (XSPF 1). VLC asks for the password.
async fn playlist(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Extension(asked): Extension<AskedHost>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let device = find(&state, &name)?;
    let Some(rtsp) = state.rtsp.first() else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "RTSP is off, so there is nothing that VLC could play"));
    };
    let user =
        caller.name().map_or_else(String::new, |name| format!("{}@", utf8_percent_encode(name, NON_ALPHANUMERIC)));
    let name = device.name();
    // Nothing here needs escaping in XML: camera names are [a-z0-9_-], hosts were parsed, the user name is encoded.
    let text = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<playlist version="1" xmlns="http://xspf.org/ns/0/">
  <title>{name}</title>
  <trackList>
    <track><title>{name}</title><location>rtsp://{user}{host}:{port}/{name}</location></track>
  </trackList>
</playlist>
"#,
        host = asked.host,
        port = rtsp.port(),
    );
    let disposition = format!("inline; filename=\"{name}.xspf\"");
    let headers =
        [(header::CONTENT_TYPE, "application/xspf+xml".to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, text).into_response())
}

async fn command(
    State(state): State<HttpState>,
    Extension(caller): Extension<Caller>,
    Path((name, command)): Path<(String, String)>,
) -> Result<Response, Problem> {
    if !caller.is_admin() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "only users with the role admin may send commands"));
    }
    let device = find(&state, &name)?;
    let Some(declared) = device.commands().into_iter().find(|declared| declared.name == command) else {
        let status = device.status();
        // What a device can do is known only while it is connected.
        return Err(match status.reason {
            _ if status.state == DeviceState::Online => {
                Problem::new(StatusCode::NOT_FOUND, format!("{name} has no command named {command:?}"))
            }
            Some(reason) => absent(format!("{name} is {}: {}", status.state.name(), reason.text)),
            None => absent(format!("{name} is {}", status.state.name())),
        });
    };
    tracing::info!(camera = name, command, user = caller.name(), "asked by HTTP");
    match device.command(declared.command, PATIENCE).await {
        Ok(()) => Ok(Json(serde_json::json!({ "result": "done" })).into_response()),
        Err(CommandError::Absent) => Err(absent(CommandError::Absent.to_string())),
        Err(refused @ CommandError::Refused(_)) => {
            Err(Problem::new(StatusCode::CONFLICT, refused.to_string()).with_result("refused"))
        }
        Err(unknown @ CommandError::Unknown) => {
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, unknown.to_string()).with_result("unknown"))
        }
    }
}

fn absent(detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).with_result("absent")
}
