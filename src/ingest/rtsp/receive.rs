//! From PLAY to the end: access units to the bus, and what watches over them.

use super::Rtsp;
use super::connect::Opened;
use super::error::{Cause, Stage, explain};
use super::loss::Loss;
use super::track::Track;
use crate::bus::{self, Stream};
use crate::ingest::timeline::{self, Timeline};
use crate::ingest::{AdapterError, DeviceIo};
use crate::media::{AccessUnit, Kind, TrackInfo};
use bytes::Bytes;
use futures::StreamExt as _;
use retina::client::Demuxed;
use retina::codec::{AudioFrame, CodecItem, ParametersRef, VideoFrame};
use retina::rtcp::ReceivedCompoundPacket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// A video track may be silent for so many times as long as the whole stream: sound alone is no camera.
const VIDEO_PATIENCE: u32 = 4;
/// So many packets in a row that cannot be read end the session. One is a lost picture.
const BAD_PACKETS: u32 = 16;

/// A session that plays.
struct Receiver<'a> {
    rtsp: &'a Rtsp,
    stream: &'a Arc<Stream>,
    timeline: Timeline,
    tracks: Vec<Line>,
    /// When the first picture came that nothing could start at.
    keyless_since: Option<Instant>,
    loss: Loss,
}

/// A track and its places on the bus and on the timeline.
struct Line {
    track: Track,
    bus: bus::TrackId,
    time: timeline::TrackId,
    /// Something is missing before the next unit.
    discontinuity: bool,
    /// A unit of this session is out.
    begun: bool,
}

impl Rtsp {
    /// Publishes until the camera ends the session or falls silent.
    pub(super) async fn receive(&self, io: &DeviceIo, opened: Opened) -> Result<(), AdapterError> {
        let Opened { mut session, tracks } = opened;
        let mut receiver = Receiver::new(self, &io.stream, tracks);
        let failed = |cause| Err(explain(&self.camera(), Stage::Media, cause));
        let (mut heard, mut seen) = (Instant::now(), Instant::now());
        let mut trouble: Option<(u32, Cause)> = None;
        loop {
            let (silent, blind) = (heard + self.silence, seen + self.silence * VIDEO_PATIENCE);
            let item = match tokio::time::timeout_at(silent.min(blind), session.next()).await {
                Ok(item) => item,
                Err(_) => {
                    // UDP that was chosen because TCP was refused once need not work for ever.
                    *self.carrier() = None;
                    return failed(if silent <= blind {
                        Cause::Timeout(self.silence)
                    } else {
                        Cause::NoPictures(self.silence * VIDEO_PATIENCE)
                    });
                }
            };
            let picture = match item {
                Some(Ok(CodecItem::VideoFrame(frame))) => {
                    (heard, seen) = (Instant::now(), Instant::now());
                    trouble = None;
                    receiver.video(&session, frame)
                }
                Some(Ok(CodecItem::AudioFrame(frame))) => {
                    heard = Instant::now();
                    receiver.audio(&frame);
                    false
                }
                Some(Ok(CodecItem::Rtcp(packets))) => {
                    receiver.rtcp(&packets);
                    false
                }
                Some(Ok(_)) => false,
                Some(Err(error)) => {
                    let cause = Cause::of(&error);
                    let count = trouble.as_ref().map_or(0, |(count, _)| *count) + 1;
                    if !matches!(cause, Cause::Media(_)) || count >= BAD_PACKETS {
                        return failed(cause);
                    }
                    if count == 1 {
                        tracing::warn!(?cause, "a packet of the camera cannot be read");
                        receiver.spoilt();
                    }
                    trouble = Some((count, cause));
                    false
                }
                None => return failed(trouble.map_or(Cause::Closed, |(_, cause)| cause)),
            };
            if picture {
                io.playing.send_if_modified(|playing| !std::mem::replace(playing, true));
            }
        }
    }
}

impl<'a> Receiver<'a> {
    fn new(rtsp: &'a Rtsp, stream: &'a Arc<Stream>, tracks: Vec<Track>) -> Self {
        // After all that viewers have seen, so that they can stay.
        let mut timeline = stream.latest().map_or_else(Timeline::new, Timeline::resume);
        let infos: Vec<TrackInfo> = tracks.iter().map(|track| (**track.info()).clone()).collect();
        let ids = stream.announce(&infos);
        let tracks = tracks.into_iter().zip(ids).map(|(track, bus)| {
            let time = timeline.add_track(track.info().kind(), track.info().clock_rate);
            Line { track, bus, time, discontinuity: false, begun: false }
        });
        let tracks = tracks.collect();
        let mut receiver = Self { rtsp, stream, timeline, tracks, keyless_since: None, loss: Loss::default() };
        for index in 0..receiver.tracks.len() {
            receiver.describe(index);
        }
        receiver
    }

    /// Tells the timeline what the parameter sets say.
    fn describe(&mut self, index: usize) {
        if let Some(line) = self.tracks.get(index)
            && let Some(video) = line.track.info().video()
        {
            self.timeline.describe(line.time, video.reorder_depth, video.frame_rate);
        }
    }

    fn line(&self, stream: usize) -> Option<usize> {
        self.tracks.iter().position(|line| line.track.stream() == stream)
    }

    /// Takes a picture; answers whether it was published.
    fn video(&mut self, session: &Demuxed, frame: VideoFrame) -> bool {
        let Some(index) = self.line(frame.stream_id()) else { return false };
        let (ticks, packets) = (frame.timestamp().elapsed(), frame.loss());
        let late = self.keyless_since.is_some_and(|since| since.elapsed() >= self.rtsp.patience.key);
        let Some(line) = self.tracks.get_mut(index) else { return false };
        if frame.has_new_parameters()
            && let Some(stream) = session.streams().get(frame.stream_id())
            && let Some(ParametersRef::Video(parameters)) = stream.parameters()
        {
            line.track.set_parameters(parameters.codec_params());
        }
        let lost = self.loss.before(ticks, packets);
        self.stream.count_lost(lost);
        line.discontinuity |= lost > 0;
        let info = Arc::clone(line.track.info());
        let start_here = late && !line.begun;
        let Some(picture) = line.track.picture(frame.into_data(), start_here) else {
            // Nothing to show in it; a JPEG that cannot be read is a lost picture.
            if info.codec == crate::media::Codec::Jpeg {
                self.stream.count_lost(1);
                line.discontinuity = true;
            }
            return false;
        };
        if start_here && !self.rtsp.told.no_key.swap(true, Ordering::Relaxed) {
            let waited_s = self.rtsp.patience.key.as_secs();
            tracing::warn!(
                waited_s,
                "the camera sends no key pictures; viewers start at any, which may look broken at first"
            );
        }
        if !line.begun && !picture.random_access {
            // Viewers from before would see this decoded against pictures that are gone.
            self.keyless_since.get_or_insert_with(Instant::now);
            return false;
        }
        self.describe(index);
        self.publish(index, ticks, picture.random_access, picture.payload);
        true
    }

    fn audio(&mut self, frame: &AudioFrame) {
        let Some(index) = self.line(frame.stream_id()) else { return };
        let Some(line) = self.tracks.get_mut(index) else { return };
        line.discontinuity |= frame.loss() > 0;
        self.publish(index, frame.timestamp().elapsed(), true, Bytes::copy_from_slice(frame.data()));
    }

    fn publish(&mut self, index: usize, ticks: i64, random_access: bool, payload: Bytes) {
        let Some(line) = self.tracks.get_mut(index) else { return };
        let stamp = self.timeline.stamp(line.time, ticks);
        let discontinuity = std::mem::take(&mut line.discontinuity) || stamp.discontinuity;
        line.begun = true;
        let info = Arc::clone(line.track.info());
        let unit = AccessUnit { pts: stamp.pts, dts: stamp.dts, random_access, discontinuity, info, payload };
        self.stream.publish(line.bus, unit);
    }

    /// Sender reports align sound and pictures.
    fn rtcp(&mut self, packets: &ReceivedCompoundPacket) {
        let Some(index) = self.line(packets.stream_id()) else { return };
        let (Some(line), Some(time)) = (self.tracks.get(index), packets.rtp_timestamp()) else { return };
        for packet in packets.pkts() {
            if let Ok(Some(report)) = packet.as_sender_report() {
                self.timeline.sender_report(line.time, report.ntp_timestamp().0, time.elapsed());
                return;
            }
        }
    }

    /// A picture was spoilt by a packet that could not be read.
    fn spoilt(&mut self) {
        self.stream.count_lost(1);
        for line in self.tracks.iter_mut().filter(|line| line.track.info().kind() == Kind::Video) {
            line.discontinuity = true;
        }
    }
}
