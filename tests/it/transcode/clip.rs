//! Coded pictures and sound to put onto a bus, and what became of them.

use bytes::Bytes;
use fanlight::bus::{Limits, Stream, TrackId};
use fanlight::media::h264::Scanner as H264;
use fanlight::media::h265::Scanner as H265;
use fanlight::media::{AccessUnit, AudioFormat, Codec, Format, MediaTime, TrackInfo, VideoFormat, jpeg};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Side of a block in pixels: large enough to survive any quantiser.
const BLOCK: usize = 16;
/// Bits of a picture's number, the highest first.
const BITS: usize = 12;

/// Units with their own times from zero.
pub(super) struct Clip {
    pub(super) units: Vec<AccessUnit>,
}

impl Clip {
    fn collect(
        pipeline: &str,
        codec: Codec,
        most: usize,
        feed: impl FnOnce(&gst_app::AppSrc) + Send + 'static,
    ) -> Self {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(pipeline).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
        sink.set_sync(false);
        let source = pipeline.by_name("in").map(|source| source.downcast::<gst_app::AppSrc>().unwrap());
        pipeline.set_state(gst::State::Playing).unwrap();
        let feeding = source.map(|source| std::thread::spawn(move || feed(&source)));
        let mut units = Vec::new();
        let mut form = Form::new(codec);
        while units.len() < most {
            let Ok(sample) = sink.pull_sample() else { break };
            let buffer = sample.buffer().unwrap();
            let segment = sample.segment().unwrap().downcast_ref::<gst::ClockTime>().unwrap();
            // From the encoders' thousandth hour, and from a first decode time before zero, to zero and up.
            let time = |time: gst::ClockTime| segment.to_running_time_full(time).unwrap().nseconds_or_minus();
            let pts = time(buffer.pts().unwrap());
            let dts = buffer.dts().map_or(pts, time);
            let payload = Bytes::copy_from_slice(&buffer.map_readable().unwrap());
            units.push(form.unit(pts, dts, payload, sample.caps()));
        }
        pipeline.set_state(gst::State::Null).unwrap();
        if let Some(feeding) = feeding {
            let _ = feeding.join();
        }
        assert!(!units.is_empty(), "nothing comes out");
        Self { units }
    }

    /// Footage that ships with the project; `to` turns it into what is wanted.
    pub(super) fn footage(file: &str, to: &str, codec: Codec, most: usize) -> Arc<Self> {
        let path = format!("{}/src/simulate/footage/{file}", env!("CARGO_MANIFEST_DIR"));
        let pipeline = format!("filesrc location={path} ! qtdemux name=demux demux.{to} ! appsink name=out");
        Arc::new(Self::collect(&pipeline, codec, most, |_| {}))
    }

    /// Real pictures with B pictures: 10 a second, a key picture each second.
    pub(super) fn visitors() -> Arc<Self> {
        static CLIP: OnceLock<Arc<Clip>> = OnceLock::new();
        let parse =
            "video_0 ! queue ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au";
        Arc::clone(CLIP.get_or_init(|| Self::footage("visitors.mp4", parse, Codec::H264, usize::MAX)))
    }

    /// This clip, and the other one right after it.
    pub(super) fn then(&self, other: &Self) -> Arc<Self> {
        let end = self.units.iter().map(|unit| unit.pts).max().unwrap() + Duration::from_millis(80);
        let begin = other.units[0].dts;
        let mut units = self.units.clone();
        units.extend(other.units.iter().map(|unit| {
            let at = |time: MediaTime| end + time.saturating_since(begin);
            AccessUnit { pts: at(unit.pts), dts: at(unit.dts), ..unit.clone() }
        }));
        Arc::new(Self { units })
    }

    /// A tone of 440 Hz as AAC. The sound of the footage is silence.
    pub(super) fn tone(seconds: u32) -> Arc<Self> {
        let buffers = seconds * 44_100 / 1024;
        let raw = "audio/x-raw,rate=44100,channels=2";
        let encode = "avenc_aac ! aacparse ! audio/mpeg,stream-format=raw";
        let source = format!("audiotestsrc freq=440 samplesperbuffer=1024 num-buffers={buffers}");
        let pipeline = format!("{source} ! audioconvert ! {raw} ! {encode} ! appsink name=out");
        Arc::new(Self::collect(&pipeline, Codec::Aac, usize::MAX, |_| {}))
    }

    /// Pictures of 320x240 with their numbers drawn in, 25 a second, made by that encoder.
    pub(super) fn numbered(encode: &str, codec: Codec, count: u32) -> Arc<Self> {
        let caps = "video/x-raw,format=I420,width=320,height=240,framerate=25/1,interlace-mode=progressive";
        let pipeline = format!("appsrc name=in format=time caps={caps} ! {encode} ! appsink name=out");
        let feed = move |source: &gst_app::AppSrc| {
            for number in 0..count {
                let mut buffer = gst::Buffer::from_slice(numbered_picture(number));
                buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(40) * u64::from(number));
                if source.push_buffer(buffer).is_err() {
                    return;
                }
            }
            let _ = source.end_of_stream();
        };
        Arc::new(Self::collect(&pipeline, codec, usize::MAX, feed))
    }
}

trait Nanos {
    fn nseconds_or_minus(self) -> i64;
}

impl Nanos for gst::Signed<gst::ClockTime> {
    fn nseconds_or_minus(self) -> i64 {
        match self {
            gst::Signed::Positive(time) => time.nseconds() as i64,
            gst::Signed::Negative(time) => -(time.nseconds() as i64),
        }
    }
}

fn numbered_picture(number: u32) -> Vec<u8> {
    let mut picture = vec![60; 320 * 240];
    picture.extend(vec![128; 320 * 240 / 2]);
    for bit in 0..BITS {
        let luma = if number >> (BITS - 1 - bit) & 1 == 1 { 235 } else { 16 };
        for row in 0..BLOCK {
            picture[row * 320 + bit * BLOCK..][..BLOCK].fill(luma);
        }
    }
    // Something moves, so that there is work for B pictures.
    let left = (number as usize * 3) % 300;
    for row in 100..120 {
        picture[row * 320 + left..][..20].fill(200);
    }
    picture
}

/// The number in a picture of 8 bit luma.
pub(super) fn number(luma: &[u8], stride: usize) -> u32 {
    (0..BITS).fold(0, |number, bit| {
        let middle = luma[BLOCK / 2 * stride + bit * BLOCK + BLOCK / 2];
        number << 1 | u32::from(middle > 125)
    })
}

struct Form {
    codec: Codec,
    h264: H264,
    h265: H265,
}

impl Form {
    fn new(codec: Codec) -> Self {
        Self { codec, h264: H264::new(), h265: H265::new() }
    }

    fn unit(&mut self, pts: i64, dts: i64, payload: Bytes, caps: Option<&gst::CapsRef>) -> AccessUnit {
        let at = |nanos: i64| {
            MediaTime::START + Duration::from_secs(1)
                - Duration::from_nanos(if nanos < 0 { nanos.unsigned_abs() } else { 0 })
                + Duration::from_nanos(nanos.max(0) as u64)
        };
        let (random_access, format, clock_rate) = match self.codec {
            Codec::H264 => {
                let scan = self.h264.scan(&payload);
                (scan.random_access, Format::Video(self.h264.format().cloned().unwrap_or_default()), 90_000)
            }
            Codec::H265 => {
                let scan = self.h265.scan(&payload);
                (scan.random_access, Format::Video(self.h265.format().cloned().unwrap_or_default()), 90_000)
            }
            Codec::Jpeg => {
                let picture = jpeg::parse(&payload).unwrap();
                let (width, height) = (picture.width.into(), picture.height.into());
                (
                    true,
                    Format::Video(VideoFormat { width, height, pixel_aspect: (1, 1), ..VideoFormat::default() }),
                    90_000,
                )
            }
            _ => {
                let caps = caps.unwrap().structure(0).unwrap();
                let config = caps.get::<gst::Buffer>("codec_data").unwrap();
                let config = Bytes::copy_from_slice(&config.map_readable().unwrap());
                let sample_rate = caps.get::<i32>("rate").unwrap() as u32;
                let channels = caps.get::<i32>("channels").unwrap() as u16;
                (true, Format::Audio(AudioFormat { channels, sample_rate, config }), sample_rate)
            }
        };
        let info = Arc::new(TrackInfo { codec: self.codec, clock_rate, format });
        AccessUnit { pts: at(pts), dts: at(dts).min(at(pts)), random_access, discontinuity: false, info, payload }
    }
}

/// A stream on which a clip plays at its own speed.
pub(super) struct Playing {
    pub(super) stream: Arc<Stream>,
    pub(super) track: TrackId,
    task: JoinHandle<()>,
}

impl Playing {
    /// The first `cached` units are there at once, as if somebody had read the camera for long.
    pub(super) fn start(name: &str, clip: Arc<Clip>, cached: usize) -> Self {
        let stream = Stream::new(name, Limits::default());
        let track = stream.announce(&[TrackInfo::clone(&clip.units[0].info)])[0];
        for unit in &clip.units[..cached] {
            stream.publish(track, unit.clone());
        }
        let task = tokio::spawn({
            let stream = Arc::clone(&stream);
            async move {
                let begin = tokio::time::Instant::now();
                let first = clip.units[cached].dts;
                for unit in &clip.units[cached..] {
                    tokio::time::sleep_until(begin + unit.dts.saturating_since(first)).await;
                    stream.publish(track, unit.clone());
                }
            }
        });
        Self { stream, track, task }
    }

    /// The camera falls silent.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A decoded picture.
pub(super) struct Picture {
    pub(super) pts: MediaTime,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) luma: Vec<u8>,
    pub(super) stride: usize,
}

/// Decodes Annex B H.264 or JPEG units.
pub(super) fn decode(units: &[AccessUnit]) -> Vec<Picture> {
    let decoder = match units[0].info.codec {
        Codec::H264 => "avdec_h264 thread-type=slice",
        Codec::Jpeg => "jpegdec",
        other => panic!("who decodes {other}?"),
    };
    let caps = match units[0].info.codec {
        Codec::H264 => "video/x-h264,stream-format=byte-stream,alignment=au",
        _ => "image/jpeg",
    };
    let raw = "videoconvert ! video/x-raw,format=GRAY8";
    samples(&format!("appsrc name=in format=time caps={caps} ! {decoder} ! {raw} ! appsink name=out"), units)
        .iter()
        .map(|sample| {
            let caps = sample.caps().unwrap().structure(0).unwrap();
            let (width, height) =
                (caps.get::<i32>("width").unwrap() as usize, caps.get::<i32>("height").unwrap() as usize);
            let buffer = sample.buffer().unwrap();
            let luma = buffer.map_readable().unwrap().to_vec();
            let stride = luma.len() / height;
            Picture { pts: MediaTime::new(buffer.pts().unwrap().into()), width, height, luma, stride }
        })
        .collect()
}

/// Decodes Opus packets to 16 bit samples at 48 kHz, mono.
pub(super) fn decode_sound(units: &[AccessUnit]) -> Vec<i16> {
    let caps = "audio/x-opus,channel-mapping-family=0,rate=48000,channels=2";
    let raw = "audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1";
    samples(&format!("appsrc name=in format=time caps={caps} ! opusdec ! {raw} ! appsink name=out"), units)
        .iter()
        .flat_map(|sample| {
            let map = sample.buffer().unwrap().map_readable().unwrap();
            map.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
        })
        .collect()
}

fn samples(pipeline: &str, units: &[AccessUnit]) -> Vec<gst::Sample> {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(pipeline).unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    source.set_max_bytes(0);
    sink.set_sync(false);
    pipeline.set_state(gst::State::Playing).unwrap();
    for unit in units {
        let mut buffer = gst::Buffer::from_slice(unit.payload.clone());
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::try_from(unit.pts.since_zero()).unwrap());
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    let mut samples = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        samples.push(sample);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    samples
}
