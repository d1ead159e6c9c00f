//! `/metrics` in the Prometheus text format 0.0.4.

use super::{HttpState, Outputs};
use crate::bus::State as DeviceState;
use crate::republish::rtsp::Statistics;
use crate::republish::webrtc;
use crate::transcode::RenditionState;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Metrics being written. Samples of one metric stand together after its type, as the format wants.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// The type of a metric.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    /// Only rises, from zero at start; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Text {
    /// Writes one metric with all its samples: labels and value.
    pub(super) fn metric<'a, const LABELS: usize>(
        &mut self,
        name: &str,
        kind: Type,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, &'a str); LABELS], f64)>,
    ) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.0.push_str(name);
            for (index, (label, text)) in labels.iter().enumerate() {
                let text = text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
                let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
            }
            let _ = writeln!(self.0, "{} {value}", if LABELS == 0 { "" } else { "}" });
        }
    }

    fn single(&mut self, name: &str, kind: Type, help: &str, value: f64) {
        self.metric(name, kind, help, [([], value)]);
    }
}

pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    let mut text = Text::default();
    program(&mut text, &state);
    cameras(&mut text, &state);
    let counts = state.bus.events.counts();
    let counts = counts.iter().map(|(kind, count)| ([("kind", kind.as_str())], *count as f64));
    text.metric("fanlight_events_total", Type::Counter, "Events told, by kind.", counts);
    encoders(&mut text, &state.transcoder.states());
    rtsp(&mut text, &state.rtsp_statistics);
    if let Some(server) = &state.webrtc {
        webrtc(&mut text, &server.statistics());
    }
    web(&mut text, &state.outputs);
    process(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0).into_response()
}

fn program(text: &mut Text, state: &HttpState) {
    let version = [([("version", env!("CARGO_PKG_VERSION"))], 1.0)];
    text.metric("fanlight_build_info", Type::Gauge, "The version of the program.", version);
    let ok = f64::from(u8::from(state.health.config_ok()));
    let help = "1 if the configuration was without mistakes when it was last read.";
    text.single("fanlight_config_ok", Type::Gauge, help, ok);
    let listeners = state.health.listeners();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address.to_string()).collect();
    let samples = listeners.iter().zip(&addresses).map(|(listener, address)| {
        ([("listener", listener.name), ("address", address.as_str())], f64::from(u8::from(listener.up)))
    });
    text.metric("fanlight_listener_up", Type::Gauge, "1 while somebody answers at this address.", samples);
}

fn cameras(text: &mut Text, state: &HttpState) {
    use Type::{Counter, Gauge};
    let devices = state.bus.devices();
    let statuses: Vec<_> = devices.iter().map(|device| (device.name(), device.status())).collect();
    let is = |yes: bool| f64::from(u8::from(yes));
    let up = statuses.iter().map(|(camera, status)| ([("camera", *camera)], is(status.state == DeviceState::Online)));
    text.metric("fanlight_camera_up", Gauge, "1 while the camera is online.", up);
    let states = [DeviceState::Online, DeviceState::Connecting, DeviceState::Offline, DeviceState::Idle];
    let samples = statuses.iter().flat_map(|(camera, status)| {
        states.iter().map(|state| ([("camera", *camera), ("state", state.name())], is(status.state == *state)))
    });
    text.metric("fanlight_camera_state", Gauge, "1 for the state that the camera is in.", samples);

    let streams: Vec<_> = devices
        .iter()
        .flat_map(|device| device.streams().map(|stream| (device.name(), stream.path(), stream.totals())))
        .collect();
    macro_rules! each_stream {
        ($name:literal, $kind:expr, $help:literal, $value:expr) => {
            let value: fn(&crate::bus::Totals) -> Option<f64> = $value;
            let samples = streams.iter().filter_map(|(camera, stream, totals)| {
                value(totals).map(|value| ([("camera", *camera), ("stream", *stream)], value))
            });
            text.metric($name, $kind, $help, samples);
        };
    }
    each_stream!("fanlight_frames_total", Counter, "Pictures received.", |totals| Some(totals.frames as f64));
    each_stream!("fanlight_bytes_total", Counter, "Payload bytes received, sound included.", |t| Some(t.bytes as f64));
    each_stream!("fanlight_lost_total", Counter, "Pictures lost on the way from the camera.", |t| Some(t.lost as f64));
    each_stream!("fanlight_frame_rate", Gauge, "Pictures per second over the last 5 s.", |t| Some(t.frame_rate));
    each_stream!("fanlight_last_frame_age_seconds", Gauge, "Time since the newest picture.", |totals| {
        totals.last_frame_age.map(|age| age.as_secs_f64())
    });

    let upstreams = devices.iter().map(|device| ([("camera", device.name())], device.upstream()));
    let upstreams: Vec<_> = upstreams.collect();
    let open = upstreams.iter().map(|(labels, upstream)| (*labels, upstream.open() as f64));
    text.metric("fanlight_upstream_connections", Gauge, "Connections to the camera.", open);
    let limit = upstreams.iter().map(|(labels, upstream)| (*labels, upstream.limit() as f64));
    text.metric("fanlight_upstream_limit", Gauge, "Connections that the camera may get.", limit);
    let viewers = devices.iter().flat_map(|device| {
        let viewers = &device.viewers;
        [("rtsp", &viewers.rtsp), ("webrtc", &viewers.webrtc), ("mjpeg", &viewers.mjpeg)]
            .map(|(kind, count)| ([("camera", device.name()), ("kind", kind)], count.load(Ordering::Relaxed) as f64))
    });
    text.metric("fanlight_viewers", Gauge, "Who watches.", viewers);
}

/// Labels say the camera and what is made of which of its streams.
fn encoders(text: &mut Text, states: &[RenditionState]) {
    use Type::{Counter, Gauge};
    let names: Vec<(&str, String)> = states
        .iter()
        .map(|state| match state.source.split_once('/') {
            None => (state.source.as_str(), state.pipeline.clone()),
            Some((camera, stream)) => (camera, format!("{stream}/{}", state.pipeline)),
        })
        .collect();
    let mut each = |name: &str, kind: Type, help: &str, value: fn(&RenditionState) -> f64| {
        let samples = names.iter().zip(states).map(|((camera, rendition), state)| {
            ([("camera", *camera), ("rendition", rendition.as_str())], value(state))
        });
        text.metric(name, kind, help, samples);
    };
    each("fanlight_encoders", Gauge, "Encoders that run.", |state| f64::from(u8::from(state.running)));
    let help = "Encoders started in place of one that failed.";
    each("fanlight_encoder_restarts_total", Counter, help, |state| state.restarts as f64);
    let help = "Pictures or sound frames that went into encoders.";
    each("fanlight_encoder_units_in_total", Counter, help, |state| state.units_in as f64);
    let help = "Pictures or sound frames that came out of encoders.";
    each("fanlight_encoder_units_out_total", Counter, help, |state| state.units_out as f64);
}

fn rtsp(text: &mut Text, counted: &Statistics) {
    use Type::{Counter, Gauge};
    let connections = counted.connections.load(Ordering::Relaxed) as f64;
    text.single("fanlight_rtsp_connections", Gauge, "RTSP connections open now.", connections);
    let total = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    let help = "RTSP viewers that began to play.";
    text.single("fanlight_rtsp_viewers_total", Counter, help, total(&counted.viewers));
    let help = "Pictures and sound frames written to RTSP viewers.";
    text.single("fanlight_rtsp_units_total", Counter, help, total(&counted.units));
    let help = "Pictures left out for RTSP viewers that were late.";
    text.single("fanlight_rtsp_dropped_total", Counter, help, total(&counted.dropped));
}

fn webrtc(text: &mut Text, counted: &webrtc::Statistics) {
    use Type::{Counter, Gauge};
    let sessions = counted.sessions.load(Ordering::Relaxed) as f64;
    text.single("fanlight_webrtc_sessions", Gauge, "WebRTC sessions now, connected or not.", sessions);
    let total = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    let help = "WebRTC viewers that were connected.";
    text.single("fanlight_webrtc_viewers_total", Counter, help, total(&counted.viewers));
    let help = "RTP packets sent to WebRTC viewers, those sent again included.";
    text.single("fanlight_webrtc_packets_total", Counter, help, total(&counted.packets));
    let help = "RTP packets sent again because a WebRTC viewer missed them.";
    text.single("fanlight_webrtc_retransmitted_total", Counter, help, total(&counted.retransmitted));
    let help = "RTP packets that WebRTC viewers reported as lost.";
    text.single("fanlight_webrtc_lost_total", Counter, help, total(&counted.lost));
    let help = "Pictures left out for WebRTC viewers that were late.";
    text.single("fanlight_webrtc_dropped_total", Counter, help, total(&counted.dropped));
}

fn web(text: &mut Text, outputs: &Outputs) {
    use Type::{Counter, Gauge};
    let total = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    text.single("fanlight_snapshots_total", Counter, "Snapshots answered.", total(&outputs.counted.snapshots));
    let help = "Pictures decoded for snapshots; JPEG cameras' need not be.";
    text.single("fanlight_stills_decoded_total", Counter, help, total(&outputs.stills.decoded));
    let help = "Pictures scaled to a width that was asked for.";
    text.single("fanlight_stills_scaled_total", Counter, help, total(&outputs.stills.scaled));
    let help = "Pictures written to viewers of multipart JPEG.";
    text.single("fanlight_mjpeg_pictures_total", Counter, help, total(&outputs.counted.pictures));
    let listeners = outputs.board.listeners() as f64;
    text.single("fanlight_event_listeners", Gauge, "Listeners to server-sent events.", listeners);
}

/// The process itself, under the names that all Prometheus clients use.
fn process(text: &mut Text) {
    use Type::{Counter, Gauge};
    let Ok(me) = procfs::process::Process::myself() else {
        return;
    };
    if let Ok(stat) = me.stat() {
        let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        text.single("process_cpu_seconds_total", Counter, "User and system time spent.", seconds);
        let resident = (stat.rss * procfs::page_size()) as f64;
        text.single("process_resident_memory_bytes", Gauge, "Resident memory.", resident);
        text.single("process_virtual_memory_bytes", Gauge, "Virtual memory.", stat.vsize as f64);
        text.single("process_threads", Gauge, "Threads.", stat.num_threads as f64);
    }
    if let Ok(count) = me.fd_count() {
        text.single("process_open_fds", Gauge, "Open file descriptors.", count as f64);
    }
    if let Ok(limits) = me.limits()
        && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        text.single("process_max_fds", Gauge, "The most file descriptors that may be open.", most as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.metric("m", Type::Gauge, "Help.", [([("a", "x\"\\\n"), ("b", "y")], 1.5)]);
        text.single("n_total", Type::Counter, "More.", 7.0);
        assert_eq!(
            text.0,
            "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"\\\\\\n\",b=\"y\"} 1.5\n# HELP n_total More.\n# TYPE n_total counter\nn_total 7\n"
        );
    }
}
