//! Footage, read once into memory: the coded pictures and audio frames of a file with their own timestamps.

use super::SimulateError;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server::gio;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The largest file that is played: the whole of it is kept in memory.
const MAX_BYTES: u64 = 1 << 30;
/// A file that yields nothing for this long while it is read is given up.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// A clip that is encoded anew is cut to this length: encoding takes time before the camera answers.
const ENCODED_LENGTH: Duration = Duration::from_secs(20);

/// Where footage comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Footage {
    /// A file: MP4, Matroska, MPEG-TS, or raw H.264 or H.265 (without B-frames: a raw file holds no timestamps, so its
    /// pictures are shown in file order at the rate its parameter sets name, or 25 a second).
    File(PathBuf),
    /// `visitors.mp4`, shipped inside the program: H.264 with B-frames, 10 pictures a second, GOP 1 s, no audio.
    Visitors,
    /// `street.mp4`, shipped inside the program: H.264 without B-frames, 12.5 pictures a second, GOP 4.8 s, AAC.
    Street,
}

impl Footage {
    fn embedded(&self) -> Option<&'static [u8]> {
        match self {
            Self::File(_) => None,
            Self::Visitors => Some(include_bytes!("../footage/visitors.mp4")),
            Self::Street => Some(include_bytes!("../footage/street.mp4")),
        }
    }
}

impl std::fmt::Display for Footage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Visitors => f.write_str("visitors.mp4 (built in)"),
            Self::Street => f.write_str("street.mp4 (built in)"),
        }
    }
}

/// What the camera sends as its picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Video {
    /// The pictures of the file, untouched.
    #[default]
    AsIs,
    /// H.265. A file that is H.265 already is not touched; of any other the first 20 s are encoded before the start.
    H265,
    /// JPEG pictures (RFC 2435), encoded from the first 20 s before the start.
    Jpeg,
}

/// What the camera sends as its sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Audio {
    /// The audio of the file, untouched: AAC or G.711; other codecs are left out.
    #[default]
    AsIs,
    /// G.711 A-law, 8 kHz mono.
    Pcma,
    /// G.711 mu-law, 8 kHz mono.
    Pcmu,
    /// None.
    None,
}

/// How the elements of one track are payloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    H264,
    H265,
    Jpeg,
    Aac,
    Pcma,
    Pcmu,
}

impl Coding {
    fn of(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        match structure.name().as_str() {
            "video/x-h264" => Some(Self::H264),
            "video/x-h265" => Some(Self::H265),
            "image/jpeg" => Some(Self::Jpeg),
            "audio/mpeg" if structure.get::<i32>("mpegversion").is_ok_and(|v| v == 4 || v == 2) => Some(Self::Aac),
            "audio/x-alaw" => Some(Self::Pcma),
            "audio/x-mulaw" => Some(Self::Pcmu),
            _ => None,
        }
    }

    pub(super) const fn is_video(self) -> bool {
        matches!(self, Self::H264 | Self::H265 | Self::Jpeg)
    }

    /// The payloader, in GStreamer's words. `config-interval=-1`: parameter sets go before every key picture.
    pub(super) const fn payloader(self) -> &'static str {
        match self {
            Self::H264 => "rtph264pay pt=96 config-interval=-1",
            Self::H265 => "rtph265pay pt=96 config-interval=-1",
            Self::Jpeg => "rtpjpegpay pt=26",
            Self::Aac => "rtpmp4gpay pt=97",
            Self::Pcma => "rtppcmapay pt=8 min-ptime=20000000 max-ptime=20000000",
            Self::Pcmu => "rtppcmupay pt=0 min-ptime=20000000 max-ptime=20000000",
        }
    }

    /// From a parsed stream to what the payloader takes.
    const fn parse(self) -> &'static str {
        match self {
            Self::H264 => "h264parse ! video/x-h264,stream-format=avc,alignment=au",
            Self::H265 => "h265parse ! video/x-h265,stream-format=hvc1,alignment=au",
            Self::Jpeg => "jpegparse",
            Self::Aac => "aacparse ! audio/mpeg,stream-format=raw",
            Self::Pcma | Self::Pcmu => "identity",
        }
    }
}

/// One picture or audio frame. Times in nanoseconds from the clip's first decode time.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) buffer: gst::Buffer,
    pub(super) caps: gst::Caps,
    pub(super) pts: u64,
    pub(super) dts: u64,
    pub(super) duration: u64,
}

/// One track: units in decode order, never empty.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) coding: Coding,
    pub(super) units: Vec<Unit>,
}

/// Footage in memory, ready to be played by any number of cameras.
#[derive(Debug)]
pub struct Clip {
    /// Video first, then audio if there is any.
    pub(super) tracks: Vec<Track>,
    /// What one round of the loop takes, in nanoseconds: the length of the video.
    pub(super) length: u64,
}

impl Clip {
    /// Reads `footage`, encoding it anew where `video` or `audio` asks for that. Blocks for a moment; a picture that is
    /// encoded takes seconds.
    ///
    /// # Errors
    /// [`SimulateError::Footage`] says what is wrong with the file, [`SimulateError::Missing`] names the package
    /// of a GStreamer element that is not installed.
    pub fn load(footage: &Footage, video: Video, audio: Audio) -> Result<Arc<Self>, SimulateError> {
        super::init()?;
        let fault = |text: String| SimulateError::Footage { footage: footage.to_string(), text };
        if let Footage::File(path) = footage {
            let bytes = std::fs::metadata(path).map_err(|e| fault(e.to_string()))?.len();
            if bytes > MAX_BYTES {
                return Err(fault(format!("{bytes} bytes are more than the {MAX_BYTES} that a looped clip may have")));
            }
        }
        let reader = Reader::build(footage, video, audio)?;
        let outcome = reader.run().map_err(&fault);
        let cleared = reader.pipeline.set_state(gst::State::Null);
        outcome?;
        cleared.map_err(|e| fault(e.to_string()))?;
        let sinks = std::mem::take(&mut *lock(&reader.sinks));
        let mut tracks = Vec::new();
        for Taken { coding, samples } in sinks {
            tracks.push((coding, stamps(&samples, coding).ok_or_else(|| fault("a track without pictures".into()))?));
        }
        assemble(tracks)
            .ok_or_else(|| fault("no video that a camera could send: H.264, H.265 or JPEG is needed".into()))
            .map(Arc::new)
    }
}

impl Clip {
    /// The pictures, if they are JPEG.
    pub fn jpeg_pictures(&self) -> Vec<Vec<u8>> {
        self.coded(Coding::Jpeg)
    }

    /// The sound as octets, if it is PCMU.
    pub fn pcmu(&self) -> Vec<u8> {
        self.coded(Coding::Pcmu).concat()
    }

    fn coded(&self, coding: Coding) -> Vec<Vec<u8>> {
        let track = self.tracks.iter().find(|track| track.coding == coding);
        let units = track.map(|track| track.units.as_slice()).unwrap_or_default();
        units.iter().filter_map(|unit| Some(unit.buffer.map_readable().ok()?.to_vec())).collect()
    }

    /// How long one round of the loop is, in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.length).as_secs_f64()
    }
}

/// What came out of one appsink.
struct Taken {
    coding: Coding,
    samples: Vec<gst::Sample>,
}

struct Reader {
    pipeline: gst::Pipeline,
    sinks: Arc<Mutex<Vec<Taken>>>,
    trouble: Arc<Mutex<Option<SimulateError>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Reader {
    fn build(footage: &Footage, video: Video, audio: Audio) -> Result<Self, SimulateError> {
        let pipeline = gst::Pipeline::new();
        let source = match (footage, footage.embedded()) {
            (_, Some(bytes)) => {
                let stream = gio::MemoryInputStream::from_bytes(&gst::glib::Bytes::from_static(bytes));
                let source = super::element("giostreamsrc")?;
                source.set_property("stream", &stream);
                source
            }
            (Footage::File(path), None) => {
                let source = super::element("filesrc")?;
                source.set_property("location", path);
                source
            }
            (_, None) => unreachable!("only a file is not embedded"),
        };
        let parse = super::element("parsebin")?;
        let build = |e: gst::glib::BoolError| SimulateError::GStreamer(e.to_string());
        pipeline.add_many([&source, &parse]).map_err(build)?;
        source.link(&parse).map_err(build)?;
        let reader = Self { pipeline, sinks: Arc::default(), trouble: Arc::default() };
        let (bin, sinks, trouble) = (reader.pipeline.downgrade(), reader.sinks.clone(), reader.trouble.clone());
        parse.connect_pad_added(move |_, pad| {
            let Some(pipeline) = bin.upgrade() else { return };
            if let Err(error) = branch(&pipeline, pad, video, audio, &sinks) {
                lock(&trouble).get_or_insert(error);
                let _ = pipeline.post_message(gst::message::Application::new(gst::Structure::new_empty("trouble")));
            }
        });
        Ok(reader)
    }

    /// Plays to the end as fast as it goes.
    fn run(&self) -> Result<(), String> {
        let bus = self.pipeline.bus().ok_or("a pipeline without a bus")?;
        // Why it did not start, if it did not, comes by the bus.
        let _ = self.pipeline.set_state(gst::State::Playing);
        loop {
            let Some(message) = bus.timed_pop(gst::ClockTime::try_from(READ_LIMIT).ok()) else {
                return Err(format!("not read to its end within {} s", READ_LIMIT.as_secs()));
            };
            match message.view() {
                gst::MessageView::Eos(_) => return Ok(()),
                gst::MessageView::Error(error) => return Err(error.error().to_string()),
                gst::MessageView::Application(_) => {
                    return Err(lock(&self.trouble).take().map_or_else(String::new, |e| e.to_string()));
                }
                _ => {}
            }
        }
    }
}

/// Connects one parsed stream of the file: to a sink that keeps it, or to nothing.
fn branch(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    video: Video,
    audio: Audio,
    sinks: &Arc<Mutex<Vec<Taken>>>,
) -> Result<(), SimulateError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let taken = |is_video| lock(sinks).iter().any(|t| t.coding.is_video() == is_video);
    let is_video = caps.structure(0).is_some_and(|s| s.name().starts_with("video/") || s.name().starts_with("image/"));
    let is_audio = caps.structure(0).is_some_and(|s| s.name().starts_with("audio/"));
    let native = Coding::of(&caps);
    let chosen: Option<(Coding, String)> = match native {
        _ if taken(is_video) => None,
        Some(Coding::H265) if video == Video::H265 => Some((Coding::H265, Coding::H265.parse().into())),
        _ if is_video && video == Video::H265 => {
            super::require(&["x265enc"])?;
            can_decode(native)?;
            let encode = "x265enc speed-preset=ultrafast tune=zerolatency key-int-max=25 bitrate=800";
            Some((Coding::H265, format!("{DECODE} ! {encode} ! {}", Coding::H265.parse())))
        }
        _ if is_video && video == Video::Jpeg => {
            super::require(&["jpegenc"])?;
            can_decode(native)?;
            Some((Coding::Jpeg, format!("{DECODE} ! jpegenc quality=70")))
        }
        _ if is_audio && matches!(audio, Audio::Pcma | Audio::Pcmu) => {
            super::require(&["alawenc", "mulawenc"])?;
            can_decode(native)?;
            let (coding, encode) =
                if audio == Audio::Pcma { (Coding::Pcma, "alawenc") } else { (Coding::Pcmu, "mulawenc") };
            let raw = "decodebin ! audioconvert ! audioresample ! audio/x-raw,rate=8000,channels=1";
            Some((coding, format!("{raw} ! {encode}")))
        }
        Some(coding) if is_video || audio == Audio::AsIs => Some((coding, coding.parse().into())),
        _ => None,
    };
    let broken = |e: &dyn std::fmt::Display| SimulateError::GStreamer(e.to_string());
    let Some((coding, elements)) = chosen else {
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().map_err(|e| broken(&e))?;
        pipeline.add(&sink).map_err(|e| broken(&e))?;
        sink.sync_state_with_parent().map_err(|e| broken(&e))?;
        let sink = sink.static_pad("sink").ok_or_else(|| broken(&"a sink without a pad"))?;
        return pad.link(&sink).map(drop).map_err(|e| broken(&e));
    };
    let bin = gst::parse::bin_from_description(&format!("queue name=in ! {elements} ! appsink name=out"), false)
        .map_err(|e| broken(&e))?;
    let sink = bin.by_name("out").and_then(|s| s.downcast::<gst_app::AppSink>().ok());
    let sink = sink.ok_or_else(|| broken(&"the sink is not there"))?;
    sink.set_property("sync", false);
    let index = {
        let mut sinks = lock(sinks);
        sinks.push(Taken { coding, samples: Vec::new() });
        sinks.len() - 1
    };
    let sinks = Arc::clone(sinks);
    let keep = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        if let Some(taken) = lock(&sinks).get_mut(index) {
            taken.samples.push(sample);
        }
        Ok(gst::FlowSuccess::Ok)
    };
    sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(keep).build());
    let input = bin.by_name("in").and_then(|queue| queue.static_pad("sink"));
    let input = input.ok_or_else(|| broken(&"a branch without an input"))?;
    let input = gst::GhostPad::with_target(&input).map_err(|e| broken(&e))?;
    bin.add_pad(&input).map_err(|e| broken(&e))?;
    if is_video && elements.starts_with(DECODE) {
        cut(&input);
    }
    pipeline.add(&bin).map_err(|e| broken(&e))?;
    bin.sync_state_with_parent().map_err(|e| broken(&e))?;
    pad.link(&input).map(drop).map_err(|e| broken(&e))
}

/// Any one of these will do; the first is the one to install.
fn can_decode(native: Option<Coding>) -> Result<(), SimulateError> {
    let decoders: &[&'static str] = match native {
        Some(Coding::H264) => &["avdec_h264", "openh264dec"],
        Some(Coding::H265) => &["avdec_h265", "libde265dec"],
        Some(Coding::Aac) => &["avdec_aac", "faad"],
        // Core plugins bring these; what else there is decodebin finds, or says that it cannot.
        Some(Coding::Jpeg | Coding::Pcma | Coding::Pcmu) | None => return Ok(()),
    };
    if decoders.iter().any(|decoder| super::require(&[decoder]).is_ok()) {
        return Ok(());
    }
    decoders.first().map_or(Ok(()), |first| super::require(&[first]))
}

const DECODE: &str = "decodebin ! videoconvert ! video/x-raw,format=I420";

/// Ends a stream after [`ENCODED_LENGTH`].
fn cut(pad: &gst::GhostPad) {
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let late = info.buffer().and_then(|b| b.dts_or_pts()).is_some_and(|t| Duration::from(t) >= ENCODED_LENGTH);
        if !late {
            return gst::PadProbeReturn::Ok;
        }
        info.data = None;
        info.flow_res = Err(gst::FlowError::Eos);
        gst::PadProbeReturn::Handled
    });
}

/// A unit with signed times on the file's own timeline.
struct Stamped {
    sample: gst::Sample,
    pts: i64,
    dts: i64,
    duration: u64,
}

/// Gives every sample its time on the file's timeline, in nanoseconds.
fn stamps(samples: &[gst::Sample], coding: Coding) -> Option<Vec<Stamped>> {
    let first = samples.first()?;
    let rate = first.caps().and_then(|c| c.structure(0)).and_then(|s| s.get::<gst::Fraction>("framerate").ok());
    let rate = rate.filter(|r| r.numer() > 0 && r.denom() > 0).map_or((25, 1), |r| (r.numer(), r.denom()));
    let period = 1_000_000_000 * i64::from(rate.1) / i64::from(rate.0);
    let time = |sample: &gst::Sample, at: Option<gst::ClockTime>| {
        let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
        let running = segment.to_running_time_full(at)?;
        let nanoseconds = i64::try_from(running.abs().nseconds()).ok()?;
        Some(if running.is_negative() { -nanoseconds } else { nanoseconds })
    };
    let pts: Vec<Option<i64>> = samples.iter().map(|s| time(s, s.buffer()?.pts())).collect();
    // A raw file has no times of its own, and the parser invents only some.
    let untimed = pts.iter().any(Option::is_none);
    let mut units: Vec<Stamped> = Vec::with_capacity(samples.len());
    for (index, (sample, pts)) in samples.iter().zip(pts).enumerate() {
        let even = i64::try_from(index).ok()? * period;
        let buffer = sample.buffer()?;
        let pts = if untimed { even } else { pts? };
        let dts = if untimed || !coding.is_video() { pts } else { time(sample, buffer.dts()).unwrap_or(pts) };
        let duration = buffer.duration().filter(|_| !untimed).map_or(0, gst::ClockTime::nseconds);
        units.push(Stamped { sample: sample.clone(), pts, dts, duration });
    }
    // Where the container gives no duration, the next unit tells it.
    let decode: Vec<i64> = units.iter().map(|u| u.dts).collect();
    for (index, unit) in units.iter_mut().enumerate().filter(|(_, u)| u.duration == 0) {
        let next = decode.get(index + 1).map_or(period, |next| next - unit.dts);
        unit.duration = u64::try_from(next).unwrap_or(0);
    }
    Some(units)
}

/// Puts the tracks on one timeline that starts at the first picture's decode time.
fn assemble(tracks: Vec<(Coding, Vec<Stamped>)>) -> Option<Clip> {
    let (_, video) = tracks.iter().find(|(coding, _)| coding.is_video())?;
    let start = video.iter().map(|u| u.dts).min()?;
    let first = video.iter().map(|u| u.pts).min()?;
    let last = video.iter().map(|u| u.pts.saturating_add_unsigned(u.duration)).max()?;
    let length = u64::try_from(last - first).ok().filter(|length| *length > 0)?;
    let mut tracks: Vec<Track> = tracks
        .into_iter()
        .filter_map(|(coding, units)| {
            let place = |unit: Stamped| {
                Some(Unit {
                    buffer: unit.sample.buffer_owned()?,
                    caps: unit.sample.caps_owned()?,
                    // Audio from before the first picture has no place in a loop.
                    pts: u64::try_from(unit.pts - start).ok()?,
                    dts: u64::try_from(unit.dts - start).ok()?,
                    duration: unit.duration,
                })
            };
            let units: Vec<Unit> = units.into_iter().filter_map(place).collect();
            (!units.is_empty()).then_some(Track { coding, units })
        })
        .collect();
    tracks.sort_by_key(|track| !track.coding.is_video());
    Some(Clip { tracks, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_keep_their_b_frames() {
        let clip = Clip::load(&Footage::Visitors, Video::AsIs, Audio::AsIs).unwrap();
        assert_eq!(clip.tracks.len(), 1);
        let video = &clip.tracks[0];
        assert_eq!((video.coding, video.units.len()), (Coding::H264, 1394));
        assert_eq!(clip.length, 139_400_000_000);
        assert!(video.units.is_sorted_by_key(|u| u.dts));
        assert!(!video.units.is_sorted_by_key(|u| u.pts), "B-frames go back in presentation time");
        assert!(video.units.iter().all(|u| u.dts <= u.pts));
    }

    #[test]
    fn street_has_both_tracks() {
        let clip = Clip::load(&Footage::Street, Video::AsIs, Audio::AsIs).unwrap();
        let counts: Vec<_> = clip.tracks.iter().map(|t| (t.coding, t.units.len())).collect();
        // The file holds 1416 frames of AAC; its edit list leaves out the encoder's lead-in.
        assert_eq!(counts, [(Coding::H264, 377), (Coding::Aac, 1414)]);
        assert_eq!(clip.length, 30_160_000_000);
    }

    #[test]
    fn audio_can_be_g711_or_absent() {
        let clip = Clip::load(&Footage::Street, Video::AsIs, Audio::Pcmu).unwrap();
        assert_eq!(clip.tracks[1].coding, Coding::Pcmu);
        let bytes: usize = clip.tracks[1].units.iter().map(|u| u.buffer.size()).sum();
        assert!(bytes.abs_diff(30 * 8000) < 4000, "30 s of 8 kHz, not {bytes} bytes");
        assert_eq!(Clip::load(&Footage::Street, Video::AsIs, Audio::None).unwrap().tracks.len(), 1);
    }

    #[test]
    fn encoded_anew_is_cut_short() {
        for (wanted, coding) in [(Video::H265, Coding::H265), (Video::Jpeg, Coding::Jpeg)] {
            let clip = Clip::load(&Footage::Street, wanted, Audio::AsIs).unwrap();
            assert_eq!((clip.tracks[0].coding, clip.tracks[0].units.len()), (coding, 250));
            assert_eq!(clip.length, 20_000_000_000);
        }
    }

    #[test]
    fn what_is_no_footage_is_refused_with_its_name() {
        let missing = Clip::load(&Footage::File("no/such.mp4".into()), Video::AsIs, Audio::AsIs).unwrap_err();
        assert!(missing.to_string().starts_with("no/such.mp4: "), "{missing}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text.mp4");
        std::fs::write(&path, "no film at all\n").unwrap();
        let text = Clip::load(&Footage::File(path), Video::AsIs, Audio::AsIs).unwrap_err();
        assert!(matches!(text, SimulateError::Footage { .. }), "{text}");
    }
}
