//! Stills as a stream: the newest picture of a device that sends one now and then, for players that want video.
//!
//! What a stream with a [`Still`] looks like to its readers:
//!
//! | | |
//! |-|-|
//! | somebody watches | the newest picture each second, at once for who comes first; `pts` is the real time |
//! | a new picture | at once, and the second begins anew |
//! | nobody watches | nothing is published, and a second after the last unit the ring is empty: who comes waits for the unit that their coming causes, and never starts at one that is older than a second |
//! | no picture yet | a card with the camera's name |
//!
//! Every unit is a random access unit and payloads of repeats are the same bytes, not copies. Repeats are nothing new: they
//! change neither the counters nor the age of the newest picture.

use super::jpeg::{Checked, Checker, Rejected};
use super::{DeviceIo, card};
use crate::bus::{Stream, TrackId};
use crate::media::{AccessUnit, Codec, Format, MediaTime, TrackInfo, VideoFormat};
use bytes::Bytes;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the newest picture is shown again to those who watch.
const EVERY: Duration = Duration::from_secs(1);
/// The least time between two units: a tick of RTP's video clock is 11 µs.
const LEAST: Duration = Duration::from_millis(1);
/// What lies between the last unit of the session before and the first one.
const RESUME: Duration = Duration::from_millis(40);

/// The newest picture of a device that sends one now and then, as a stream that can be opened any time.
#[derive(Debug)]
pub struct Still {
    stream: Arc<Stream>,
    track: TrackId,
    checker: Checker,
    info: Arc<TrackInfo>,
    /// What is shown: the newest picture, or the card.
    newest: Option<Bytes>,
    /// An instant and its place on the stream's timeline.
    origin: (Instant, MediaTime),
    /// The latest time published.
    last: Option<MediaTime>,
    /// The next unit does not follow the ones before it.
    discontinuity: bool,
    /// When the newest unit is a second old; `None` while nobody watches and the ring is empty.
    due: Option<Instant>,
}

impl Still {
    /// Announces a JPEG track on `io.stream`, after all that its viewers have seen. What it shows until the first picture
    /// is the newest one from before, or a card with the camera's name.
    pub fn new(io: &DeviceIo) -> Self {
        let mut still = Self::blank(io);
        // Encoders are told this rate as long as none is measured, and players by them.
        let format = VideoFormat { reorder_depth: Some(0), frame_rate: Some(1.0), ..VideoFormat::default() };
        still.info = Arc::new(TrackInfo { format: Format::Video(format), ..(*still.info).clone() });
        match io.stream.newest_key().filter(|newest| newest.unit.info.codec == Codec::Jpeg) {
            Some(before) => {
                still.info = before.unit.info;
                still.newest = Some(before.unit.payload);
            }
            None => {
                let card = card::card(io.device.name());
                card.describe(&mut still.info);
                still.stream.set_card(still.unit(still.origin.1, card.bytes.clone()));
                still.newest = Some(card.bytes);
            }
        }
        still
    }

    /// The same, but it shows nothing until the first picture: for devices that are asked for one.
    pub fn blank(io: &DeviceIo) -> Self {
        let stream = Arc::clone(&io.stream);
        let format = Format::Video(VideoFormat { reorder_depth: Some(0), ..VideoFormat::default() });
        let info = TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format };
        let track = stream.announce(std::slice::from_ref(&info)).into_iter().next().unwrap_or(TrackId(0));
        // What the session before has shown last may be old by now.
        stream.clear();
        let last = stream.latest();
        Self {
            checker: Checker::new(io.rotation),
            info: Arc::new(info),
            newest: None,
            origin: (Instant::now(), last.map_or(MediaTime::START, |last| last + RESUME)),
            discontinuity: last.is_some(),
            last,
            due: None,
            track,
            stream,
        }
    }

    /// Checks, normalises and turns the picture, publishes it at once, and repeats it from now on. One that cannot be used
    /// counts as lost.
    ///
    /// # Errors
    /// [`Rejected`] says what is wrong with it; the one before stays.
    pub fn show(&mut self, picture: Bytes) -> Result<Checked, Rejected> {
        let checked = match self.checker.check(picture) {
            Ok(checked) => checked,
            Err(error) => {
                self.stream.count_lost(1);
                return Err(error);
            }
        };
        checked.describe(&mut self.info);
        self.newest = Some(checked.bytes.clone());
        let time = self.now();
        let unit = self.unit(time, checked.bytes.clone());
        self.stream.publish(self.track, unit);
        self.published(time);
        Ok(checked)
    }

    /// Shows the newest picture again each second while somebody wants the stream, at once for who comes; never returns.
    /// Cancel safe: a picture is never out of time because this was not called for a while.
    pub async fn repeat(&mut self) -> Infallible {
        let Some(newest) = self.newest.clone() else {
            return std::future::pending().await;
        };
        loop {
            match self.due {
                None => self.stream.demand.wanted().await,
                Some(due) => tokio::time::sleep_until(due).await,
            }
            if self.stream.demand.count() > 0 {
                let time = self.now();
                self.stream.repeat(self.track, self.unit(time, newest.clone()));
                self.published(time);
            } else {
                self.stream.clear();
                self.due = None;
            }
        }
    }

    /// The present on the stream's timeline, after all that was published.
    fn now(&self) -> MediaTime {
        let (origin, start) = self.origin;
        let now = start + origin.elapsed();
        self.last.map_or(now, |last| now.max(last + LEAST))
    }

    fn unit(&self, time: MediaTime, payload: Bytes) -> AccessUnit {
        AccessUnit {
            pts: time,
            dts: time,
            random_access: true,
            discontinuity: self.discontinuity,
            info: Arc::clone(&self.info),
            payload,
        }
    }

    fn published(&mut self, time: MediaTime) {
        (self.last, self.discontinuity) = (Some(time), false);
        self.due = Some(Instant::now() + EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{io, picture};
    use super::*;
    use crate::bus::{Reader, Totals, Want};

    /// Runs `still` for that long.
    async fn pass(still: &mut Still, time: Duration) {
        let _ = tokio::time::timeout(time, still.repeat()).await;
    }

    /// What `reader` has got since it was asked last: milliseconds after the stream's start, and the payloads.
    fn got(reader: &mut Reader) -> Vec<(u128, Bytes)> {
        let read =
            |(_, unit): (TrackId, AccessUnit)| (unit.pts.saturating_since(MediaTime::START).as_millis(), unit.payload);
        std::iter::from_fn(|| reader.try_next()).map(read).collect()
    }

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_after_an_hour_starts_now_and_gets_a_unit_a_second() {
        let io = io("push");
        let mut still = Still::new(&io);
        let shown = still.show(picture(64, 48, 90)).unwrap();
        assert!(io.stream.can_start(), "who comes right now sees it");
        pass(&mut still, millis(3_600_000)).await;
        assert!(!io.stream.can_start(), "nobody starts in the past");
        assert_eq!(io.stream.newest_key().unwrap().number, 2, "the card and it");

        let stream = Arc::clone(&io.stream);
        let coming = tokio::spawn(async move {
            assert!(stream.ready().await);
            stream.subscribe(Want::All)
        });
        tokio::task::yield_now().await;
        pass(&mut still, millis(5)).await;
        let mut reader = coming.await.unwrap();
        let mut times = Vec::new();
        for _ in 0..50 {
            pass(&mut still, millis(50)).await;
            times.extend(got(&mut reader).into_iter().map(|(time, payload)| {
                assert_eq!(payload, shown.bytes);
                assert_eq!(payload.as_ptr(), shown.bytes.as_ptr(), "not a copy");
                time
            }));
        }
        assert_eq!(times, [3_600_000, 3_601_000, 3_602_000]);

        let totals = io.stream.totals();
        assert_eq!((totals.frames, totals.bytes), (1, shown.bytes.len() as u64));
        assert_eq!(totals.frame_rate, 0.0);
        let newest = io.stream.newest_key().unwrap();
        assert_eq!((newest.number, newest.picture), (5, 2));

        drop(reader);
        pass(&mut still, millis(1_500)).await;
        assert!(!io.stream.can_start());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_picture_goes_out_at_once_and_the_second_begins_anew() {
        let io = io("push");
        let mut still = Still::new(&io);
        still.show(picture(64, 48, 90)).unwrap();
        let mut reader = io.stream.subscribe(Want::All);
        let mut seen = Vec::new();
        for (step, brightness) in [(1_300, Some(200)), (0, Some(30)), (2_100, None)] {
            pass(&mut still, millis(step)).await;
            if let Some(brightness) = brightness {
                still.show(picture(32, 48, brightness)).unwrap();
            }
            while let Some((_, unit)) = reader.try_next() {
                let video = unit.info.video().unwrap();
                seen.push((unit.pts.saturating_since(MediaTime::START).as_millis(), video.width));
                assert!(unit.random_access && unit.pts == unit.dts);
            }
        }
        // A reader that reads late leaves out what is over a second old.
        assert_eq!(seen, [(1_300, 32), (1_301, 32), (2_300, 32), (3_300, 32)]);
        assert_eq!(io.stream.totals().frames, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_picture_there_is_a_card() {
        let io = io("mini_doorbell");
        let mut still = Still::new(&io);
        let newest = io.stream.newest_key().unwrap();
        assert!(newest.card && !io.stream.can_start());
        let mut reader = io.stream.subscribe(Want::All);
        pass(&mut still, millis(10)).await;
        let (_, unit) = reader.try_next().unwrap();
        assert_eq!(unit.payload, newest.unit.payload);
        let video = unit.info.video().unwrap();
        assert_eq!((video.width, video.height), (640, 480));
        assert_eq!(io.stream.totals(), Totals::default());

        assert!(still.show(Bytes::from_static(b"no picture")).is_err());
        assert_eq!((io.stream.totals().lost, io.stream.newest_key().unwrap().card), (1, true));
        still.show(picture(64, 48, 90)).unwrap();
        let newest = io.stream.newest_key().unwrap();
        assert_eq!((newest.card, newest.picture), (false, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_session_goes_on_where_the_one_before_ended() {
        let io = io("push");
        let mut still = Still::new(&io);
        let shown = still.show(picture(64, 48, 90)).unwrap();
        let mut reader = io.stream.subscribe(Want::All);
        pass(&mut still, millis(1_500)).await;
        let before = got(&mut reader);
        drop(still);
        tokio::time::sleep(millis(60_000)).await;

        let mut still = Still::new(&io);
        pass(&mut still, millis(10)).await;
        let (_, unit) = reader.try_next().expect("the viewer stays");
        assert_eq!(unit.payload, shown.bytes, "not the card");
        let time = unit.pts.saturating_since(MediaTime::START).as_millis();
        assert_eq!(time, before.last().unwrap().0 + RESUME.as_millis());
        assert!(unit.discontinuity && !io.stream.newest_key().unwrap().card);
        pass(&mut still, millis(1_000)).await;
        assert!(reader.try_next().is_some_and(|(_, unit)| !unit.discontinuity));
    }
}
