//! A GStreamer pipeline in the encoder's process, between the units that come and those that go.

use super::job::Verdict;
use super::packages;
use super::pipeline::key_is_due;
use super::wire::Unit;
use crate::media::MediaTime;
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Units that wait in front of the decoder. Few, so that an encoder which is too slow lets its parent know.
const WAITING: u64 = 2;

/// A pipeline that was built from a description.
pub(super) struct Graph {
    pub(super) pipeline: gst::Pipeline,
    pub(super) source: gst_app::AppSrc,
    pub(super) sink: gst_app::AppSink,
    encoder: gst::Element,
}

/// What decides which decoded pictures are encoded, and which of those are key pictures.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    /// Pictures before this are not encoded; `None` until the first that counts has come.
    from: Option<MediaTime>,
    /// The least time between two pictures.
    interval: Option<std::time::Duration>,
    due: Option<MediaTime>,
    last: Option<MediaTime>,
    last_key: Option<MediaTime>,
    /// Somebody asked for a key picture.
    wanted: bool,
}

/// What is to be done with a decoded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Drop,
    Encode,
    EncodeAsKey,
}

impl Gate {
    pub(super) fn new(most_per_second: Option<u32>) -> Self {
        let interval = most_per_second.map(|most| std::time::Duration::from_secs(1) / most.max(1));
        Self { state: Mutex::new(GateState { interval, ..GateState::default() }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A unit that is to be encoded goes in: the first one says from where on.
    pub(super) fn open(&self, pts: MediaTime) {
        self.state().from.get_or_insert(pts);
    }

    /// A decoded picture comes.
    pub(super) fn pass(&self, pts: MediaTime) -> Pass {
        let mut state = self.state();
        // Never back: what the encoder is given must rise.
        if state.from.is_none_or(|from| pts < from) || state.last.is_some_and(|last| pts <= last) {
            return Pass::Drop;
        }
        if let Some(interval) = state.interval {
            // With a little play for jitter, or 10 out of 25 pictures would be 8.
            if state.due.is_some_and(|due| pts + interval / 4 < due) {
                return Pass::Drop;
            }
            let due = state.due.map_or(pts, |due| due.max(pts.saturating_sub(interval)));
            state.due = Some(due + interval);
        }
        let step = state.last.map_or(std::time::Duration::ZERO, |last| pts.saturating_since(last));
        state.last = Some(pts);
        let due = state.last_key.is_some_and(|key| key_is_due(key, pts, step));
        if std::mem::take(&mut state.wanted) || due {
            // What makes it tells us only when it is done, and the next picture may come before that.
            state.last_key = Some(pts);
            return Pass::EncodeAsKey;
        }
        Pass::Encode
    }

    /// Has the next picture that is encoded be a key picture.
    pub(super) fn want_key(&self) {
        self.state().wanted = true;
    }

    /// The encoder made a key picture.
    pub(super) fn key(&self, pts: MediaTime) {
        let mut state = self.state();
        state.last_key = state.last_key.max(Some(pts));
    }
}

impl Graph {
    /// Builds what the description says.
    pub(super) fn build(launch: &str, caps: &str) -> Result<Self, Verdict> {
        let absent = |name: &&str| gst::ElementFactory::find(name).is_none();
        let mut missing: Vec<String> = packages::elements(launch).filter(absent).map(str::to_owned).collect();
        missing.sort();
        missing.dedup();
        if !missing.is_empty() {
            return Err(Verdict { missing, fault: None });
        }
        let fault = |text: String| Verdict { missing: Vec::new(), fault: Some(text) };
        let mut context = gst::ParseContext::new();
        let built = gst::parse::launch_full(launch, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
        let pipeline = built.map_err(|error| {
            // GStreamer 1.22 counts an element whose property cannot be set as missing, too.
            let missing: Vec<_> =
                context.missing_elements().into_iter().filter(|name| absent(&name.as_str())).collect();
            match missing.is_empty() {
                true => fault(error.message().to_owned()),
                false => Verdict { missing, fault: None },
            }
        })?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| fault("is a single element".into()))?;
        let source = pipeline.by_name("in").and_then(|element| element.downcast::<gst_app::AppSrc>().ok());
        let sink = pipeline.by_name("out").and_then(|element| element.downcast::<gst_app::AppSink>().ok());
        let (Some(source), Some(sink), Some(encoder)) = (source, sink, pipeline.by_name("enc")) else {
            return Err(fault("lacks appsrc name=in, name=enc or appsink name=out".into()));
        };
        if !caps.is_empty() {
            let caps = gst::Caps::from_str(caps).map_err(|error| fault(format!("{caps}: {error}")))?;
            source.set_caps(Some(&caps));
        }
        source.set_format(gst::Format::Time);
        source.set_block(true);
        source.set_property("emit-signals", false);
        source.set_max_bytes(0);
        source.set_max_buffers(WAITING);
        sink.set_sync(false);
        sink.set_max_buffers(WAITING as u32);
        Ok(Self { pipeline, source, sink, encoder })
    }

    /// Has every decoded picture pass the gate.
    pub(super) fn guard(&self, gate: Arc<Gate>) {
        let Some(pad) = self.encoder.static_pad("sink") else { return };
        let encoder = self.encoder.downgrade();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) else { return gst::PadProbeReturn::Drop };
            match gate.pass(MediaTime::new(pts.into())) {
                Pass::Drop => return gst::PadProbeReturn::Drop,
                Pass::Encode => {}
                Pass::EncodeAsKey => {
                    if let Some(encoder) = encoder.upgrade() {
                        force_key(&encoder);
                    }
                }
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Hands a unit to the decoder; waits while it is busy.
    pub(super) fn push(&self, unit: Unit) -> Result<(), gst::FlowError> {
        let mut buffer = gst::Buffer::from_slice(unit.payload);
        if let Some(buffer) = buffer.get_mut() {
            let time = |time: MediaTime| gst::ClockTime::try_from(time.since_zero()).ok();
            buffer.set_pts(time(unit.pts));
            buffer.set_dts(time(unit.dts));
            if !unit.random_access {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        self.source.push_buffer(buffer).map(drop)
    }
}

/// What GStreamer's video library sends for that (`gst_video_event_new_upstream_force_key_unit`): without a time it
/// means the next picture.
fn force_key(encoder: &gst::Element) {
    let event = gst::Structure::builder("GstForceKeyUnit").field("all-headers", true).field("count", 0_u32).build();
    if let Some(pad) = encoder.static_pad("src") {
        // An encoder whose every picture is a key picture need not know the event.
        let _ = pad.send_event(gst::event::CustomUpstream::new(event));
    }
}

/// What came out, on the timeline of what went in.
pub(super) fn unit(sample: &gst::Sample) -> Option<Unit> {
    let buffer = sample.buffer()?;
    // Not the buffer's own time: x264enc's is a thousand hours ahead, and its segment says so.
    let pts = sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts()?)?;
    let pts = MediaTime::new(pts.into());
    let random_access = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    let payload = Bytes::copy_from_slice(buffer.map_readable().ok()?.as_slice());
    Some(Unit { pts, dts: pts, random_access, skip: false, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: u64) -> MediaTime {
        MediaTime::new(Duration::from_millis(millis))
    }

    #[test]
    fn only_what_the_first_viewer_sees_is_encoded() {
        let gate = Gate::new(None);
        assert_eq!(gate.pass(at(1_000)), Pass::Drop);
        gate.open(at(1_080));
        gate.open(at(1_040));
        let passes: Vec<_> = [1_040, 1_080, 1_120, 1_120, 1_100].map(|millis| gate.pass(at(millis))).into();
        assert_eq!(passes, [Pass::Drop, Pass::Encode, Pass::Encode, Pass::Drop, Pass::Drop]);
    }

    #[test]
    fn key_pictures_are_never_further_apart_than_two_seconds() {
        for step in [40, 66, 999, 1_500, 3_000] {
            let gate = Gate::new(None);
            gate.open(at(0));
            let mut keys = vec![0];
            assert!(gate.state().last_key.is_none());
            for number in 0..200 {
                match gate.pass(at(number * step)) {
                    Pass::EncodeAsKey => {
                        keys.push(number * step);
                        gate.key(at(number * step));
                    }
                    Pass::Encode if number == 0 => gate.key(at(0)),
                    _ => {}
                }
            }
            let most = keys.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(most <= 2_000.max(step), "{step} ms a picture: {most} ms");
        }
    }

    #[test]
    fn no_more_pictures_a_second_than_allowed() {
        for (step, least, most) in [(40, 9, 10), (33, 9, 10), (100, 10, 10), (200, 5, 5)] {
            let gate = Gate::new(Some(10));
            gate.open(at(0));
            let passed = (0..10_000 / step).filter(|number| gate.pass(at(number * step)) != Pass::Drop).count();
            assert!((least * 10..=most * 10 + 1).contains(&passed), "{step} ms a picture: {passed} in 10 s");
        }
    }
}
