//! A rendition's life: idle until somebody wants it, encoding, lingering, and started again when its encoder fails.

use super::session::{Ending, Session};
use super::{Shared, Unavailable, lock};
use crate::bus::{Limits, Stream, TrackId};
use crate::media::{AudioFormat, Codec, Format, MediaTime, TrackInfo, VideoFormat};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// A track in another codec.
#[derive(Debug)]
pub struct Rendition {
    stream: Arc<Stream>,
    pub(super) source: Arc<Stream>,
    pub(super) track: TrackId,
    /// The one track of `stream`.
    pub(super) own_track: TrackId,
    pub(super) from: Codec,
    pub(super) to: Codec,
    /// Somebody wants a key picture.
    pub(super) key: Notify,
    trouble: watch::Sender<Option<Trouble>>,
    /// The newest time published: what comes after lies after it, also from another encoder.
    pub(super) last: Mutex<Option<MediaTime>>,
    pub(super) counted: Counted,
    /// Cancelled when its track is gone.
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Trouble {
    unavailable: Unavailable,
    /// Trying again does not help.
    lasting: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counted {
    /// An encoder runs.
    pub(super) running: AtomicBool,
    /// Encoders that were started in place of one that failed.
    pub(super) restarts: AtomicU64,
    pub(super) units_in: AtomicU64,
    pub(super) units_out: AtomicU64,
}

/// What is known of a rendition, for pages and metrics.
#[derive(Clone, Debug)]
pub struct RenditionState {
    /// The path of the stream that it is made of.
    pub source: String,
    /// What makes it, as `h265-to-h264`.
    pub pipeline: String,
    /// An encoder runs for it.
    pub running: bool,
    /// Its track as it is now; of what has not run yet only the codec is sure.
    pub info: Arc<TrackInfo>,
    /// Pictures per second over the last 5 s.
    pub frame_rate: f64,
    /// Encoders started in place of one that failed.
    pub restarts: u64,
    /// Pictures or audio frames that went in since the start.
    pub units_in: u64,
    /// Pictures or audio frames that came out since the start.
    pub units_out: u64,
    /// Why it does not run although somebody wants it.
    pub trouble: Option<Unavailable>,
}

impl Rendition {
    pub(super) fn new(source: Arc<Stream>, track: TrackId, info: &TrackInfo, to: Codec) -> Arc<Self> {
        let stream = Stream::new(source.path(), Limits::default());
        let own_track = stream.announce(&[announced(info, to)]).into_iter().next().unwrap_or(TrackId(0));
        Arc::new(Self {
            stream,
            source,
            track,
            own_track,
            from: info.codec,
            to,
            key: Notify::new(),
            trouble: watch::Sender::new(None),
            last: Mutex::default(),
            counted: Counted::default(),
            cancel: CancellationToken::new(),
        })
    }

    /// Where it is published: one track, on the timeline of its source. Its encoder runs while this stream has readers
    /// (or somebody waits in [`Stream::ready`]) and lingers after the last.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Asks the encoder for a key picture soon. Requests are merged, at most one a second is carried out.
    pub fn request_key(&self) {
        self.key.notify_one();
    }

    /// Waits until [`Stream::ready`] says so of its stream; false if that ended first. Counts as a viewer while it
    /// waits. An encoder that failed is waited for, too: it is started again.
    ///
    /// # Errors
    /// [`Unavailable`] as soon as it is known that nothing on this machine can make it.
    pub async fn ready(&self) -> Result<bool, Unavailable> {
        let mut trouble = self.trouble.subscribe();
        let lacking = trouble.wait_for(|trouble| trouble.as_ref().is_some_and(|trouble| trouble.lasting));
        tokio::select! {
            biased;
            ready = self.stream.ready() => Ok(ready),
            lacking = lacking => match lacking.ok().as_deref() {
                Some(Some(trouble)) => Err(trouble.unavailable.clone()),
                _ => Ok(false),
            },
        }
    }

    /// Why it does not run although somebody wants it.
    pub fn trouble(&self) -> Option<Unavailable> {
        self.trouble.borrow().as_ref().map(|trouble| trouble.unavailable.clone())
    }

    pub(super) fn works(&self) {
        self.trouble.send_replace(None);
    }

    fn fails(&self, unavailable: Unavailable, lasting: bool) {
        self.trouble.send_replace(Some(Trouble { unavailable, lasting }));
    }

    pub(super) fn is_of(&self, source: &Arc<Stream>, track: TrackId, to: Codec) -> bool {
        Arc::ptr_eq(&self.source, source) && self.track == track && self.to == to
    }

    /// Whether its track is still there; if not, it ends.
    pub(super) fn is_alive(&self) -> bool {
        let alive = !self.stream.ended().is_cancelled() && self.source.tracks().iter().any(|(id, _)| *id == self.track);
        if !alive {
            self.cancel.cancel();
        }
        alive
    }

    pub(super) fn state(&self) -> RenditionState {
        let totals = self.stream.totals();
        let info = self.stream.tracks().into_iter().next().map(|(_, info)| info);
        RenditionState {
            source: self.source.path().to_owned(),
            pipeline: format!("{}-to-{}", self.from, self.to),
            running: self.counted.running.load(Ordering::Relaxed),
            info: info.unwrap_or_else(|| Arc::new(announced(&bare(self.from), self.to))),
            frame_rate: totals.frame_rate,
            restarts: self.counted.restarts.load(Ordering::Relaxed),
            units_in: self.counted.units_in.load(Ordering::Relaxed),
            units_out: self.counted.units_out.load(Ordering::Relaxed),
            trouble: self.trouble(),
        }
    }
}

/// A track of which only the codec is known.
fn bare(codec: Codec) -> TrackInfo {
    let format = match codec.kind() {
        crate::media::Kind::Video => Format::Video(VideoFormat::default()),
        crate::media::Kind::Audio => Format::Audio(AudioFormat::default()),
    };
    TrackInfo { codec, clock_rate: 90_000, format }
}

/// What can be said of the track before its first unit; that brings what the encoder says itself.
pub(super) fn announced(source: &TrackInfo, to: Codec) -> TrackInfo {
    match &source.format {
        Format::Video(video) => {
            let square = to == Codec::Jpeg;
            let stretched = square && video.pixel_aspect != (1, 1);
            let format = VideoFormat {
                // The size that a picture with other pixels is stretched to, its header will say.
                width: if stretched { 0 } else { video.width },
                height: if stretched { 0 } else { video.height },
                pixel_aspect: if square { (1, 1) } else { video.pixel_aspect },
                frame_rate: video.frame_rate.filter(|_| !square),
                reorder_depth: Some(0),
                parameter_sets: Vec::new(),
            };
            TrackInfo { codec: to, clock_rate: 90_000, format: Format::Video(format) }
        }
        Format::Audio(audio) => {
            let format =
                AudioFormat { channels: audio.channels.clamp(1, 2), sample_rate: 48_000, config: Bytes::new() };
            TrackInfo { codec: to, clock_rate: 48_000, format: Format::Audio(format) }
        }
    }
}

/// The waits between attempts.
#[derive(Debug)]
struct BackOff {
    limits: (Duration, Duration),
    failures: u32,
}

impl BackOff {
    fn next(&mut self, healthy: bool) -> Duration {
        if healthy {
            self.failures = 0;
        }
        let (first, most) = self.limits;
        let wait = first.saturating_mul(2_u32.saturating_pow(self.failures)).min(most);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// Lives until the program, the source or its track ends.
pub(super) async fn run(rendition: Arc<Rendition>, shared: Arc<Shared>) {
    let ended = async {
        tokio::select! {
            () = shared.cancel.cancelled() => {}
            () = rendition.cancel.cancelled() => {}
            () = rendition.source.ended().cancelled() => {}
        }
    };
    tokio::select! {
        () = ended => {}
        // An encoder that is at work is killed where this is dropped.
        () = live(&rendition, &shared) => {}
    }
    rendition.counted.running.store(false, Ordering::Relaxed);
    rendition.stream.end();
    lock(&shared.renditions).retain(|other| !Arc::ptr_eq(other, &rendition));
}

/// Lives until the source's track ends.
async fn live(rendition: &Rendition, shared: &Shared) {
    let mut pipelines = shared.pipelines.subscribe();
    let mut back_off = BackOff { limits: shared.options.back_off, failures: 0 };
    let mut first = None;
    loop {
        rendition.stream.demand.wanted().await;
        let Some(pipeline) = pipelines.borrow_and_update().find(rendition.from, rendition.to).cloned() else { return };
        let name = pipeline.name();
        let begin = first.take().or_else(|| lock(&shared.known).first.get(&name).copied()).unwrap_or(0);
        let session = Session::new(rendition, shared, Arc::clone(&pipeline), begin);
        let ending = session.run(&mut pipelines).await;
        rendition.counted.running.store(false, Ordering::Relaxed);
        // Who comes now waits for the next encoder.
        rendition.stream.interrupt();
        match ending {
            Ending::SourceGone => return,
            Ending::Unwanted => {
                tracing::info!("the encoder stopped: nobody watches");
                rendition.works();
            }
            Ending::Changed => tracing::info!("the encoder starts anew: the source's pictures or the pipeline changed"),
            Ending::Lacking(missing) => {
                let unavailable = Unavailable::new(pipeline.lacking(&missing));
                let known = lock(&shared.known).lacking.insert(name, unavailable.clone());
                if known.is_none() {
                    tracing::warn!("{unavailable}; after installing it, reload or restart");
                }
                rendition.fails(unavailable, true);
                if pipelines.changed().await.is_err() {
                    return;
                }
                rendition.works();
            }
            Ending::Failed(failure) => {
                rendition.counted.restarts.fetch_add(1, Ordering::Relaxed);
                rendition.fails(Unavailable::new(failure.text.clone()), false);
                let next = failure.candidate.map(|candidate| candidate + 1);
                let next = next.filter(|next| !failure.worked && !failure.killed && *next < pipeline.candidates.len());
                if let Some(next) = next {
                    tracing::warn!("{}; trying the next way to encode", failure.text);
                    first = Some(next);
                    if failure.told {
                        lock(&shared.known).first.insert(name, next);
                    }
                    continue;
                }
                let wait = back_off.next(failure.played >= shared.options.healthy);
                tracing::warn!(retry_s = wait.as_secs_f64(), "{}", failure.text);
                // Whoever comes now waits this out.
                tokio::time::sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_start_over_after_health() {
        let mut back_off = BackOff { limits: (Duration::from_millis(250), Duration::from_secs(30)), failures: 0 };
        let waits: Vec<_> = (0..9).map(|_| back_off.next(false).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(back_off.next(true).as_millis(), 250);
        for _ in 0..1_000 {
            back_off.next(false);
        }
    }

    #[test]
    fn jpeg_has_square_pixels_and_sound_no_more_than_two_channels() {
        let video = VideoFormat { width: 704, height: 576, pixel_aspect: (12, 11), ..VideoFormat::default() };
        let source = TrackInfo { codec: Codec::H264, clock_rate: 90_000, format: Format::Video(video) };
        let of = |to| announced(&source, to).video().map(|video| (video.width, video.pixel_aspect)).unwrap();
        assert_eq!((of(Codec::Jpeg), of(Codec::H264)), ((0, (1, 1)), (704, (12, 11))));
        let audio = AudioFormat { channels: 6, sample_rate: 44_100, config: Bytes::new() };
        let source = TrackInfo { codec: Codec::Aac, clock_rate: 44_100, format: Format::Audio(audio) };
        let opus = announced(&source, Codec::Opus);
        assert_eq!((opus.clock_rate, opus.audio().map(|audio| audio.channels)), (48_000, Some(2)));
    }
}
