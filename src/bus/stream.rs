//! A stream: tracks on one timeline, published by one device session and read by anyone.

use super::demand::{Demand, Interest};
use super::ring::{Cursor, Limits, Read, Ring};
use crate::media::{AccessUnit, Kind, MediaTime, TrackInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A track of a stream; never used again for another track of the same stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u32);

/// Which tracks a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// All tracks.
    All,
    /// Pictures only.
    Video,
    /// Only these.
    Track(TrackId),
}

/// Running totals of a stream since the program started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Video pictures received.
    pub frames: u64,
    /// Payload bytes received, all tracks.
    pub bytes: u64,
    /// Video pictures known to be lost on the way from the device.
    pub lost: u64,
    /// Time since the newest video picture.
    pub last_frame_age: Option<Duration>,
    /// Video pictures per second over the last 5 s of the stream.
    pub frame_rate: f64,
}

/// A key picture and when it came.
#[derive(Clone, Debug)]
pub struct KeyPicture {
    /// Counts what the stream has shown, from 1: a picture that is [shown again](Stream::repeat) counts again.
    pub number: u64,
    /// Counts the pictures themselves: the same for a picture and all its repeats.
    pub picture: u64,
    /// It stands in for the first picture, which is still to come.
    pub card: bool,
    /// The picture.
    pub unit: AccessUnit,
    /// When it was received, by our clock. A repeat changes nothing here.
    pub at: SystemTime,
    /// When it was received, for its age. A repeat changes nothing here.
    pub received: Instant,
}

/// Tracks on a shared timeline; also the RTSP path and the web address.
#[derive(Debug)]
pub struct Stream {
    path: String,
    state: Mutex<State>,
    /// Counts publications, so that no wake-up is lost.
    head: watch::Sender<u64>,
    /// Who wants this stream.
    pub demand: Demand,
    /// Cancelled when the device is removed from the configuration.
    ended: CancellationToken,
    lost: AtomicU64,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    next_id: u32,
    frames: u64,
    bytes: u64,
    last_frame: Option<Instant>,
    latest: Option<MediaTime>,
    /// Outlives the ring's units: who asks for a picture alone gets one, however old.
    newest_key: Option<KeyPicture>,
}

impl KeyPicture {
    /// `unit`, which comes just now after that one.
    fn after(newest: Option<&Self>, unit: AccessUnit, card: bool) -> Self {
        let (number, picture) = newest.map_or((1, 1), |newest| (newest.number + 1, newest.picture + 1));
        Self { number, picture, card, unit, at: SystemTime::now(), received: Instant::now() }
    }
}

impl Stream {
    /// An empty stream with that path.
    pub fn new(path: impl Into<String>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            path: path.into(),
            state: Mutex::new(State {
                ring: Ring::new(limits),
                next_id: 0,
                frames: 0,
                bytes: 0,
                last_frame: None,
                latest: None,
                newest_key: None,
            }),
            head: watch::Sender::new(0),
            demand: Demand::default(),
            ended: CancellationToken::new(),
            lost: AtomicU64::new(0),
        })
    }

    /// The RTSP path and web address, as `porch` or `porch/sub`.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held can at worst have lost a unit; the ring's invariants hold between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which tracks the device sends now, at the start of each session with it, and answers their ids in order.
    ///
    /// A track that [continues](TrackInfo::continues) one from before keeps its id, ring and readers; the others are
    /// removed and their readers end.
    pub fn announce(&self, infos: &[TrackInfo]) -> Vec<TrackId> {
        let mut state = self.state();
        let mut old: Vec<_> = state.ring.infos().map(|(id, info)| (id, Arc::clone(info))).collect();
        let mut ids = Vec::with_capacity(infos.len());
        for info in infos {
            let known = old.iter().position(|(_, known)| info.continues(known));
            ids.push(match known {
                Some(index) => old.remove(index).0,
                None => {
                    state.next_id += 1;
                    let id = TrackId(state.next_id);
                    state.ring.add(id, Arc::new(info.clone()));
                    id
                }
            });
        }
        for (id, _) in old {
            state.ring.remove(id);
        }
        drop(state);
        self.head.send_modify(|head| *head += 1);
        ids
    }

    /// Adds a unit. Never waits and never fails for a reader's sake; a unit of a track no longer announced is dropped.
    pub fn publish(&self, track: TrackId, unit: AccessUnit) {
        let mut state = self.state();
        let video = unit.info.kind() == Kind::Video;
        let (size, pts) = (unit.payload.len() as u64, unit.pts);
        let key = (video && unit.random_access).then(|| unit.clone());
        if state.ring.push(track, unit) {
            state.bytes += size;
            state.latest = state.latest.max(Some(pts));
            if video {
                state.frames += 1;
                state.last_frame = Some(Instant::now());
            }
            if let Some(unit) = key {
                state.newest_key = Some(KeyPicture::after(state.newest_key.as_ref(), unit, false));
            }
        }
        drop(state);
        self.head.send_modify(|head| *head += 1);
    }

    /// Shows the newest picture again, with another time, to those who watch. That is nothing new: it changes neither
    /// [`Self::totals`] nor the age of [`Self::newest_key`].
    pub fn repeat(&self, track: TrackId, unit: AccessUnit) {
        let mut state = self.state();
        let pts = unit.pts;
        if state.ring.push_repeat(track, unit) {
            state.latest = state.latest.max(Some(pts));
            if let Some(newest) = &mut state.newest_key {
                newest.number += 1;
            }
        }
        drop(state);
        self.head.send_modify(|head| *head += 1);
    }

    /// Has that stand in for the newest key picture until there is one.
    pub fn set_card(&self, card: AccessUnit) {
        let mut state = self.state();
        state.newest_key = Some(KeyPicture::after(state.newest_key.as_ref(), card, true));
    }

    /// The device is away: newcomers wait for its next key picture and are not shown what was seen before, as if it
    /// were now. Those who watch stay.
    pub fn interrupt(&self) {
        self.state().ring.interrupt();
    }

    /// Nobody watches: forgets the cached units, but for [`Self::newest_key`]. Who comes now waits for what comes next.
    pub fn clear(&self) {
        self.state().ring.clear();
    }

    /// Counts pictures that never arrived whole.
    pub fn count_lost(&self, pictures: u64) {
        self.lost.fetch_add(pictures, Ordering::Relaxed);
    }

    /// The tracks as they are now, in the order announced.
    pub fn tracks(&self) -> Vec<(TrackId, Arc<TrackInfo>)> {
        let mut tracks: Vec<_> = self.state().ring.infos().map(|(id, info)| (id, Arc::clone(info))).collect();
        tracks.sort_by_key(|(id, info)| (info.kind(), *id));
        tracks
    }

    /// Running totals.
    pub fn totals(&self) -> Totals {
        let state = self.state();
        Totals {
            frames: state.frames,
            bytes: state.bytes,
            lost: self.lost.load(Ordering::Relaxed),
            last_frame_age: state.last_frame.map(|at| at.elapsed()),
            frame_rate: state.ring.picture_rate(Duration::from_secs(5)),
        }
    }

    /// The latest presentation time published, cached or not: the stream's timeline goes on after it.
    pub fn latest(&self) -> Option<MediaTime> {
        self.state().latest
    }

    /// The newest key picture, however old.
    pub fn newest_key(&self) -> Option<KeyPicture> {
        self.state().newest_key.clone()
    }

    /// Waits for a key picture with a greater number than `after`, and answers the newest; `None` if the stream ended
    /// first. Does not count as a viewer: [register](Demand::register) to wake a device. Cancel safe.
    pub async fn key_after(&self, after: u64) -> Option<KeyPicture> {
        let mut head = self.head.subscribe();
        loop {
            head.mark_unchanged();
            if let Some(newest) = self.newest_key().filter(|newest| newest.number > after) {
                return Some(newest);
            }
            tokio::select! {
                changed = head.changed() => changed.ok()?,
                () = self.ended.cancelled() => return None,
            }
        }
    }

    /// Whether a reader that subscribes now gets a picture at once.
    pub fn can_start(&self) -> bool {
        self.state().ring.can_start()
    }

    /// Waits until [`Self::can_start`]; false if the stream ended first. Counts as a viewer while it waits.
    pub async fn ready(&self) -> bool {
        let _interest = self.demand.register();
        let mut head = self.head.subscribe();
        loop {
            head.mark_unchanged();
            if self.can_start() {
                return true;
            }
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return false },
                () = self.ended.cancelled() => return false,
            }
        }
    }

    /// A reader over those tracks, from the newest key picture on. Wanting a stream that has no tracks yet gives a
    /// reader that ends at once: wait for [`Self::ready`] first.
    pub fn subscribe(self: &Arc<Self>, want: Want) -> Reader {
        self.reader(|id, info| match want {
            Want::All => true,
            Want::Video => info.kind() == Kind::Video,
            Want::Track(track) => id == track,
        })
    }

    /// The same over several tracks.
    pub fn subscribe_to(self: &Arc<Self>, tracks: &[TrackId]) -> Reader {
        self.reader(|id, _| tracks.contains(&id))
    }

    fn reader(self: &Arc<Self>, wanted: impl Fn(TrackId, &TrackInfo) -> bool) -> Reader {
        let interest = self.demand.register();
        let mut head = self.head.subscribe();
        head.mark_changed();
        let state = self.state();
        let ids: Vec<_> = state.ring.infos().filter(|(id, info)| wanted(*id, info)).map(|(id, _)| id).collect();
        let cursor = state.ring.cursor(&ids);
        drop(state);
        Reader { stream: Arc::clone(self), cursor, empty: ids.is_empty(), head, _interest: interest }
    }

    /// Ends all readers: the device was removed from the configuration.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Cancelled when the stream has [ended](Self::end).
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// One reader of a stream. Reading never holds up the publisher; a reader that is late goes on at a key picture.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<Stream>,
    cursor: Cursor,
    empty: bool,
    head: watch::Receiver<u64>,
    _interest: Interest,
}

impl Reader {
    fn read(&mut self) -> Read {
        if self.empty {
            return Read::Ended;
        }
        self.stream.state().ring.read(&mut self.cursor)
    }

    /// The next unit, if it is there already.
    pub fn try_next(&mut self) -> Option<(TrackId, AccessUnit)> {
        match self.read() {
            Read::Unit(track, unit) => Some((track, unit)),
            Read::Pending | Read::Ended => None,
        }
    }

    /// The next unit in decode order; `None` when the stream ended or one of the tracks is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<(TrackId, AccessUnit)> {
        loop {
            self.head.mark_unchanged();
            match self.read() {
                Read::Unit(track, unit) => return Some((track, unit)),
                Read::Ended => return None,
                Read::Pending => {}
            }
            tokio::select! {
                // What was published right before the end still counts.
                biased;
                changed = self.head.changed() => changed.ok()?,
                () = self.stream.ended.cancelled() => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Format, MediaTime, VideoFormat};
    use bytes::Bytes;

    fn info(codec: Codec) -> TrackInfo {
        TrackInfo { codec, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) }
    }

    fn unit(codec: Codec, millis: u64, key: bool) -> AccessUnit {
        let time = MediaTime::new(Duration::from_millis(millis));
        let payload = Bytes::from_static(b"picture");
        AccessUnit {
            pts: time,
            dts: time,
            random_access: key,
            discontinuity: false,
            info: Arc::new(info(codec)),
            payload,
        }
    }

    #[tokio::test]
    async fn a_waiting_reader_gets_what_is_published() {
        let stream = Stream::new("porch", Limits::default());
        let ids = stream.announce(&[info(Codec::H264)]);
        let mut reader = stream.subscribe(Want::All);
        let task = tokio::spawn(async move { reader.next().await.map(|(id, unit)| (id, unit.pts)) });
        tokio::task::yield_now().await;
        stream.publish(ids[0], unit(Codec::H264, 40, false));
        stream.publish(ids[0], unit(Codec::H264, 80, true));
        let expected = MediaTime::new(Duration::from_millis(80));
        assert_eq!(task.await.unwrap(), Some((ids[0], expected)));
    }

    #[tokio::test]
    async fn reconnecting_with_the_same_codec_keeps_readers_and_another_codec_ends_them() {
        let stream = Stream::new("porch", Limits::default());
        let first = stream.announce(&[info(Codec::H264)]);
        stream.publish(first[0], unit(Codec::H264, 0, true));
        let mut reader = stream.subscribe(Want::All);
        assert!(reader.next().await.is_some());

        assert_eq!(stream.announce(&[info(Codec::H264)]), first);
        stream.publish(first[0], unit(Codec::H264, 40, false));
        assert!(reader.next().await.is_some());

        assert_ne!(stream.announce(&[info(Codec::H265)]), first);
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn ready_waits_for_a_key_picture_and_counts_as_demand() {
        let stream = Stream::new("porch", Limits::default());
        let ids = stream.announce(&[info(Codec::H264)]);
        let waiting = tokio::spawn({
            let stream = Arc::clone(&stream);
            async move { stream.ready().await }
        });
        while stream.demand.count() == 0 {
            tokio::task::yield_now().await;
        }
        stream.publish(ids[0], unit(Codec::H264, 0, true));
        assert!(waiting.await.unwrap());
        assert_eq!(stream.demand.count(), 0);
    }

    #[tokio::test]
    async fn the_newest_key_picture_outlives_the_cache_and_tells_when_it_came() {
        let stream = Stream::new("porch", Limits::default());
        let ids = stream.announce(&[info(Codec::H264)]);
        assert!(stream.newest_key().is_none());
        let before = (SystemTime::now(), Instant::now());
        stream.publish(ids[0], unit(Codec::H264, 0, true));
        stream.publish(ids[0], unit(Codec::H264, 40, false));
        stream.clear();
        let first = stream.newest_key().unwrap();
        assert_eq!((first.number, first.unit.pts), (1, MediaTime::default()));
        assert!(first.at >= before.0 && first.received >= before.1);
        let waiting = tokio::spawn({
            let stream = Arc::clone(&stream);
            async move { stream.key_after(1).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(stream.demand.count(), 0);
        // The camera goes over to another codec.
        let ids = stream.announce(&[info(Codec::Jpeg)]);
        stream.publish(ids[0], unit(Codec::Jpeg, 80, true));
        let second = waiting.await.unwrap().unwrap();
        assert_eq!((second.number, second.unit.info.codec), (2, Codec::Jpeg));
        stream.end();
        assert!(stream.key_after(2).await.is_none());
        assert!(stream.key_after(1).await.is_some());
    }

    #[test]
    fn a_repeat_is_seen_by_who_watches_and_is_nothing_new() {
        let stream = Stream::new("porch", Limits::default());
        let ids = stream.announce(&[info(Codec::Jpeg)]);
        stream.set_card(unit(Codec::Jpeg, 0, true));
        let card = stream.newest_key().unwrap();
        assert!(card.card && !stream.can_start() && stream.totals() == Totals::default());
        stream.repeat(ids[0], unit(Codec::Jpeg, 0, true));
        assert!(stream.newest_key().unwrap().number > card.number && stream.totals() == Totals::default());

        stream.publish(ids[0], unit(Codec::Jpeg, 1_000, true));
        stream.publish(ids[0], unit(Codec::Jpeg, 1_500, true));
        let (before, newest) = (stream.totals(), stream.newest_key().unwrap());
        assert_eq!((newest.card, before.frames, before.frame_rate), (false, 2, 2.0));
        let mut reader = stream.subscribe(Want::All);
        assert!(reader.try_next().is_some());
        for millis in [2_500, 3_500] {
            stream.repeat(ids[0], unit(Codec::Jpeg, millis, true));
            let time = MediaTime::new(Duration::from_millis(millis));
            assert_eq!(reader.try_next().map(|(_, unit)| unit.pts), Some(time));
            assert_eq!(stream.latest(), Some(time));
        }
        let (after, again) = (stream.totals(), stream.newest_key().unwrap());
        assert_eq!((after.frames, after.bytes, after.frame_rate), (2, before.bytes, 2.0));
        assert!(after.last_frame_age >= before.last_frame_age);
        assert_eq!((again.number, again.picture), (newest.number + 2, newest.picture));
        assert_eq!((again.at, again.received), (newest.at, newest.received));
    }

    #[tokio::test]
    async fn ending_a_stream_ends_its_readers() {
        let stream = Stream::new("porch", Limits::default());
        stream.announce(&[info(Codec::H264)]);
        let mut reader = stream.subscribe(Want::All);
        stream.end();
        assert!(reader.next().await.is_none());
        assert!(!stream.ready().await);
    }
}
