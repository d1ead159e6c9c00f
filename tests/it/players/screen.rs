//! GStreamer as a player with a screen: which picture it shows at which instant.

use super::footage;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A playing pipeline; it stops when dropped.
pub(super) struct Screen {
    pipeline: gst::Pipeline,
    shown: Arc<Mutex<Vec<(u32, Instant)>>>,
}

impl Screen {
    /// `rtspsrc` as it is by default, in front of a decoder and a sink that waits until a picture is due.
    pub(super) fn play(url: &str, coding: &str, stride: usize) -> Self {
        gst::init().unwrap();
        let line = format!(
            "rtspsrc location={url} protocols=tcp ! application/x-rtp,media=video ! rtp{coding}depay ! {coding}parse \
             ! avdec_{coding} max-threads=1 ! video/x-raw,format=I420 ! appsink name=screen sync=true"
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let shown: Arc<Mutex<Vec<(u32, Instant)>>> = Arc::default();
        let log = Arc::clone(&shown);
        let show = move |sink: &gst_app::AppSink| {
            let now = Instant::now();
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer().unwrap().map_readable().unwrap();
            log.lock().unwrap().push((footage::number(&buffer, stride), now));
            Ok(gst::FlowSuccess::Ok)
        };
        let sink = pipeline.by_name("screen").unwrap().downcast::<gst_app::AppSink>().unwrap();
        sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(show).build());
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, shown }
    }

    /// The numbers shown so far, in order.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.shown.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    /// When each picture was shown since `from`.
    pub(super) fn since(&self, from: Instant) -> HashMap<u32, Instant> {
        self.shown.lock().unwrap().iter().filter(|(_, at)| *at >= from).copied().collect()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A pipeline that does not stop is no reason to hide why the test ends.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
