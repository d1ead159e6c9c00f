//! From a session's samples to access units on the bus.

use super::DeviceIo;
use super::jpeg::{Checker, Rotation};
use super::session::Sample;
use super::timeline::{self, Timeline};
use crate::bus::{self, Bus, Device, EventKind, Stream};
use crate::media::{AccessUnit, Codec, Kind, TrackInfo};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

/// Puts what a session brings onto the stream of its device.
#[derive(Debug)]
pub(super) struct Publisher {
    bus: Arc<Bus>,
    device: Arc<Device>,
    stream: Arc<Stream>,
    playing: watch::Sender<bool>,
    rotation: Rotation,
    timeline: Timeline,
    tracks: Vec<Track>,
}

#[derive(Debug)]
struct Track {
    info: Arc<TrackInfo>,
    bus: bus::TrackId,
    time: timeline::TrackId,
    discontinuity: bool,
    checker: Checker,
}

impl Publisher {
    pub(super) fn new(io: &DeviceIo) -> Self {
        Self {
            bus: Arc::clone(&io.bus),
            device: Arc::clone(&io.device),
            stream: Arc::clone(&io.stream),
            playing: io.playing.clone(),
            rotation: io.rotation,
            // After all that viewers have seen, so that they can stay.
            timeline: io.stream.latest().map_or_else(Timeline::new, Timeline::resume),
            tracks: Vec::new(),
        }
    }
}

impl Publisher {
    /// The tracks from now on.
    pub(super) fn tracks(&mut self, infos: &[TrackInfo]) {
        let ids = self.stream.announce(infos);
        // All tracks of a session share one timeline, also those that come later.
        let known = std::mem::take(&mut self.tracks);
        let mut known: Vec<_> = known.into_iter().map(Some).collect();
        for (info, bus) in infos.iter().zip(ids) {
            let same = known.iter_mut().find(|track| track.as_ref().is_some_and(|track| track.bus == bus));
            if let Some(track) = same.and_then(Option::take) {
                self.tracks.push(track);
                continue;
            }
            let time = self.timeline.add_track(info.kind(), info.clock_rate);
            if info.codec == Codec::Jpeg {
                self.timeline.describe(time, Some(0), info.video().and_then(|video| video.frame_rate));
            }
            let info = Arc::new(info.clone());
            let checker = Checker::new(self.rotation);
            self.tracks.push(Track { info, bus, time, discontinuity: false, checker });
        }
    }

    /// Puts one unit onto the bus. A JPEG that does not decode is counted as lost.
    pub(super) fn publish(&mut self, track: usize, sample: Sample) {
        let Some(track) = self.tracks.get_mut(track) else { return };
        track.discontinuity |= sample.discontinuity;
        let payload = match track.info.codec {
            Codec::Jpeg => match track.checker.check(sample.payload) {
                Ok(checked) => {
                    checked.describe(&mut track.info);
                    checked.bytes
                }
                Err(error) => {
                    tracing::debug!(%error, "a picture of the device cannot be used");
                    self.stream.count_lost(1);
                    track.discontinuity = true;
                    return;
                }
            },
            _ => sample.payload,
        };
        let stamp = self.timeline.stamp(track.time, sample.ticks);
        let discontinuity = std::mem::take(&mut track.discontinuity) || stamp.discontinuity;
        let info = Arc::clone(&track.info);
        let video = info.kind() == Kind::Video;
        let random_access = sample.random_access;
        let unit = AccessUnit { pts: stamp.pts, dts: stamp.dts, random_access, discontinuity, info, payload };
        self.stream.publish(track.bus, unit);
        if video {
            self.playing.send_if_modified(|playing| !std::mem::replace(playing, true));
        }
    }

    /// So many pictures never arrived whole.
    pub(super) fn lost(&mut self, pictures: u64) {
        self.stream.count_lost(pictures);
        for track in self.tracks.iter_mut().filter(|track| track.info.kind() == Kind::Video) {
            track.discontinuity = true;
        }
    }

    /// Something happened at the device.
    pub(super) fn tell(&self, kind: EventKind, picture: Option<Bytes>) {
        self.bus.events.tell(self.device.name(), kind, self.stream.latest(), picture);
    }
}
