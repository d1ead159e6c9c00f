//! The ring of ready packets of one stream, and where viewers start in it.

use super::packetizer::{Packetizer, payload_type};
use super::packets::PacketUnit;
use super::primer::{self, Primer};
use super::report::{self, NtpLine};
use super::squeeze::Squeeze;
use crate::bus::{Reader, Stream, TrackId};
use crate::media::{AccessUnit, Codec, Kind, MediaTime, TrackInfo};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A viewer further behind the newest packet than this goes on at the newest key picture.
const LAG: Duration = Duration::from_secs(1);
/// A GOP is kept until the next key picture is so old: viewers within [`LAG`], and those who have just started in it,
/// find what they have not sent yet.
const KEPT: Duration = Duration::from_millis(1_500);
/// Bytes of packets kept at most.
const MOST: usize = 48 << 20;
/// Each track's sender report is repeated in this interval (RFC 3550 section 6.2 asks for 5 s).
const REPORT_INTERVAL: Duration = Duration::from_millis(4_900);

/// A place in a feed's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// The place after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What viewers are sent.
#[derive(Clone, Debug)]
pub enum Item {
    /// The packets of an access unit.
    Unit(Arc<PacketUnit>),
    /// A sender report of the track of that index.
    Report(usize, Bytes),
}

/// How a viewer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the cached key picture, with true time stamps.
    Key,
    /// The same, with grey pictures before it if the stream has B pictures: for ffmpeg.
    Primed,
    /// At the cached key picture, with time stamps squeezed to just before the live edge.
    Squeeze,
    /// At the first key picture at or after that place.
    Live(Position),
    /// At the next unit, whatever it is.
    Now,
}

/// A track of a feed. Its numbers never change while the feed lives.
#[derive(Clone, Debug)]
pub struct FeedTrack {
    /// The stream that it comes from.
    pub stream: Arc<Stream>,
    /// Its id in the stream.
    pub id: TrackId,
    /// What was known of it when the feed began.
    pub info: Arc<TrackInfo>,
    /// The synchronisation source of its packets.
    pub ssrc: u32,
    /// The payload type of its packets.
    pub payload_type: u8,
}

/// The first numbers of a track for a viewer.
#[derive(Clone, Debug)]
pub struct TrackStart {
    /// Sequence number of the first packet, not wrapped; never higher than what is sent.
    pub seq: u64,
    /// The track's clock at the instant of the first video packet (RFC 2326 section 12.33).
    pub rtp_time: u32,
    /// A sender report to send before the first packet.
    pub report: Bytes,
}

/// Where and how a viewer starts. All of it was taken under one lock.
#[derive(Debug)]
pub struct Joined {
    /// The first item to send.
    pub position: Position,
    /// Sound before this is not sent.
    pub audio_from: MediaTime,
    /// One for each track of the feed.
    pub tracks: Vec<TrackStart>,
    /// Goes before the first item.
    pub primer: Vec<Arc<PacketUnit>>,
    squeeze: Squeeze,
    squeezed_before: Position,
}

impl Joined {
    /// What to add to the time stamps of the unit at `position`: not zero only in the burst of a squeezed start.
    pub fn add_time(&self, position: Position, unit: &PacketUnit, clock_rate: u32) -> u32 {
        if position >= self.squeezed_before || !unit.head.video {
            return 0;
        }
        let (from, to) = (unit.head.pts, self.squeeze.map(unit.head.pts));
        (to.ticks(clock_rate) as u32).wrapping_sub(from.ticks(clock_rate) as u32)
    }
}

/// What [`Feed::next`] found.
#[derive(Debug)]
pub enum Next {
    /// The item at the place asked for.
    Item(Item),
    /// Nothing yet.
    Level,
    /// The viewer is too late: it goes on at that key picture, without sound from before it.
    Jump {
        /// The place of the key picture.
        to: Position,
        /// Sound before this is not sent.
        audio_from: MediaTime,
        /// How many pictures the video track had before it.
        pictures_before: u64,
    },
    /// The feed ended and all of it was sent.
    Ended,
}

/// The packets of tracks on one timeline, made once for all viewers. Dropping the last reference ends the work.
#[derive(Debug)]
pub struct Feed {
    tracks: Vec<FeedTrack>,
    line: NtpLine,
    state: Mutex<State>,
    /// Counts pushes, so that no wake-up is lost.
    head: watch::Sender<u64>,
    _pump: DropGuard,
}

#[derive(Debug)]
struct State {
    packetizers: Vec<Packetizer>,
    items: VecDeque<Item>,
    /// Place of the first item.
    first: u64,
    /// Places of key pictures.
    keys: VecDeque<u64>,
    bytes: usize,
    newest: MediaTime,
    reported: Vec<Option<MediaTime>>,
    ended: bool,
}

impl Feed {
    /// A feed of those tracks of those streams, which must share a timeline, filled with what is cached from the newest
    /// key picture on; `None` if there is none of them. Must be called within a tokio runtime.
    ///
    /// It ends with the first track of pictures, without any with the first track.
    pub fn start(sources: &[(Arc<Stream>, TrackId)]) -> Option<Arc<Self>> {
        let mut streams: Vec<(&Arc<Stream>, Vec<TrackId>)> = Vec::new();
        for (stream, track) in sources {
            match streams.iter_mut().find(|(known, _)| Arc::ptr_eq(known, stream)) {
                Some((_, tracks)) => tracks.push(*track),
                None => streams.push((stream, vec![*track])),
            }
        }
        // Readers first: a track that comes after that is not ours, one that goes ends its reader.
        let mut readers: Vec<_> =
            streams.iter().map(|(stream, tracks)| (Arc::clone(stream), stream.subscribe_to(tracks))).collect();
        let infos: Vec<_> = sources
            .iter()
            .filter_map(|(stream, track)| {
                let found = stream.tracks().into_iter().find(|(id, _)| id == track);
                found.map(|(id, info)| (Arc::clone(stream), id, info))
            })
            .collect();
        if infos.is_empty() {
            return None;
        }
        let video = infos.iter().position(|(.., info)| info.kind() == Kind::Video);
        let starts = |info: &TrackInfo| video.is_none() || info.kind() == Kind::Video;
        let packetizers: Vec<_> = infos
            .iter()
            .enumerate()
            .map(|(index, (.., info))| Packetizer::new(index, Arc::clone(info), starts(info)))
            .collect();
        let tracks: Vec<_> = infos
            .into_iter()
            .zip(&packetizers)
            .map(|((stream, id, info), packetizer)| FeedTrack {
                stream,
                id,
                payload_type: payload_type(info.codec),
                ssrc: packetizer.ssrc(),
                info,
            })
            .collect();
        let mut cached = Vec::new();
        for (stream, reader) in &mut readers {
            while let Some((id, unit)) = reader.try_next() {
                cached.extend(index_of(&tracks, stream, id).map(|index| (index, unit)));
            }
        }
        // A stable sort: what one reader gave stays in its order.
        cached.sort_by_key(|(_, unit)| unit.dts);
        let newest = cached.last().map_or(MediaTime::START, |(_, unit)| unit.dts);
        let cancel = CancellationToken::new();
        let feed = Arc::new(Self {
            line: NtpLine::through(newest, SystemTime::now()),
            state: Mutex::new(State {
                items: VecDeque::new(),
                first: 0,
                keys: VecDeque::new(),
                bytes: 0,
                newest,
                reported: vec![Some(newest); packetizers.len()],
                packetizers,
                ended: false,
            }),
            tracks,
            head: watch::Sender::new(0),
            _pump: cancel.clone().drop_guard(),
        });
        for (index, unit) in cached {
            feed.push(index, &unit);
        }
        let leader = feed.tracks.get(video.unwrap_or(0)).map(|track| Arc::clone(&track.stream));
        for (stream, reader) in readers {
            let leads = leader.as_ref().is_some_and(|leader| Arc::ptr_eq(leader, &stream));
            tokio::spawn(pump(Arc::downgrade(&feed), stream, reader, leads, cancel.clone()));
        }
        Some(feed)
    }

    /// A feed of all tracks of the stream as they are now; as [`Self::start`].
    pub fn of(stream: &Arc<Stream>) -> Option<Arc<Self>> {
        Self::start(&sources(stream))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held can at worst have lost an item.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tracks, video first.
    pub fn tracks(&self) -> &[FeedTrack] {
        &self.tracks
    }

    /// Changes whenever something is pushed, and when the feed ends.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Whether the stream or its video track is gone, so that newcomers need another feed.
    pub fn ended(&self) -> bool {
        self.state().ended
    }

    /// The place of what comes next.
    pub fn end(&self) -> Position {
        Position(self.state().end())
    }

    fn push(&self, track: usize, unit: &AccessUnit) {
        let mut state = self.state();
        let Some(packetizer) = state.packetizers.get_mut(track) else { return };
        let Some(packets) = packetizer.packetize(unit) else { return };
        let due = |last: &Option<MediaTime>| last.is_none_or(|at| unit.dts.saturating_since(at) >= REPORT_INTERVAL);
        if state.reported.get(track).is_some_and(due) {
            let report = self.report(&state, track, unit.pts);
            state.append(Item::Report(track, report));
            if let Some(reported) = state.reported.get_mut(track) {
                *reported = Some(unit.dts);
            }
        }
        state.newest = state.newest.max(unit.dts);
        state.append(Item::Unit(Arc::new(packets)));
        state.evict();
        drop(state);
        self.head.send_modify(|head| *head += 1);
    }

    fn report(&self, state: &State, track: usize, pts: MediaTime) -> Bytes {
        let Some(packetizer) = state.packetizers.get(track) else { return Bytes::new() };
        let (packets, octets) = packetizer.counts();
        report::sender_report(packetizer.ssrc(), self.line.ntp(pts), packetizer.rtp_time(pts), packets, octets)
    }

    fn finish(&self) {
        self.state().ended = true;
        self.head.send_modify(|head| *head += 1);
    }

    /// Where a new viewer of the tracks marked in `wanted` starts; `None` if that place has not come yet.
    pub fn join(&self, start: Start, wanted: &[bool]) -> Option<Joined> {
        let state = self.state();
        let newest_key = state.keys.back().copied();
        let position = match start {
            Start::Key | Start::Primed | Start::Squeeze => newest_key?,
            Start::Live(after) => state.keys.iter().copied().find(|key| *key >= after.0)?,
            Start::Now => state.end(),
        };
        let wants = |track: usize| wanted.get(track).copied().unwrap_or(false);
        let rest: Vec<_> = state.units_from(position).filter(|unit| wants(unit.head.track)).cloned().collect();
        let key = rest.iter().find(|unit| unit.head.key).map(|unit| unit.head.pts);
        let first_pts = key.or_else(|| rest.first().map(|unit| unit.head.pts)).unwrap_or(state.newest);
        let primer = (start == Start::Primed).then(|| self.primer(&state, &rest)).flatten().unwrap_or_default();
        let (squeeze, instant, audio_from) = if start == Start::Squeeze {
            let pictures = || rest.iter().filter(|unit| unit.head.video).map(|unit| &unit.head);
            // No later picture is decoded, hence shown, before the newest decode time.
            let edge = pictures().map(|head| head.dts).max().unwrap_or(first_pts);
            let squeeze = Squeeze::new(pictures().map(|head| head.pts), edge);
            let instant = squeeze.map(first_pts);
            (squeeze, instant, edge)
        } else {
            let first_shown = primer.first().map_or(first_pts, |unit| unit.head.pts);
            (Squeeze::default(), first_shown, first_pts)
        };
        let primed = primer.first().map(|unit| unit.head);
        let tracks = (0..self.tracks.len())
            .map(|track| {
                let sent = |unit: &&Arc<PacketUnit>| {
                    unit.head.track == track && (unit.head.video || unit.head.pts >= audio_from)
                };
                let next = state.packetizers.get(track).map_or(0, Packetizer::next_seq);
                let primed = primed.filter(|head| head.track == track);
                let first = primed.or_else(|| rest.iter().find(sent).map(|unit| unit.head));
                TrackStart {
                    seq: first.map_or(next, |head| head.first_seq),
                    rtp_time: state.packetizers.get(track).map_or(0, |packetizer| packetizer.rtp_time(instant)),
                    report: self.report(&state, track, instant),
                }
            })
            .collect();
        let squeezed_before = Position(if start == Start::Squeeze { state.end() } else { 0 });
        Some(Joined { position: Position(position), audio_from, tracks, primer, squeeze, squeezed_before })
    }

    /// What goes before the key picture that `rest` begins with.
    fn primer(&self, state: &State, rest: &[Arc<PacketUnit>]) -> Option<Primer> {
        let key = rest.iter().find(|unit| unit.head.key && unit.head.video)?;
        let track = self.tracks.get(key.head.track).filter(|track| track.info.codec == Codec::H264)?;
        let packetizer = state.packetizers.get(key.head.track)?;
        let units = state.units_from(state.first).filter(|unit| unit.head.track == key.head.track);
        let line = primer::Line {
            ssrc: track.ssrc,
            payload_type: track.payload_type,
            times: &units.map(|unit| unit.head.pts).collect::<Vec<_>>(),
            depth: track.info.video().and_then(|video| video.reorder_depth).unwrap_or(0),
            rate: track.info.video().and_then(|video| video.frame_rate),
            rtp_time: &|pts| packetizer.rtp_time(pts),
        };
        Some(primer::before(key, &line))
    }

    /// The item at `position`, or where to go on instead.
    ///
    /// A viewer that is `starting` is behind because it begins at a key picture, not because it is slow: it jumps only if
    /// its place is gone.
    pub fn next(&self, position: Position, starting: bool) -> Next {
        let state = self.state();
        if let Some(jump) = state.jump(position.0, starting) {
            return jump;
        }
        match state.at(position.0) {
            Some(item) => Next::Item(item.clone()),
            None if state.ended => Next::Ended,
            None => Next::Level,
        }
    }

    /// Appends all items from `position` on to `out` and answers the place after them; `None` if `position` is not
    /// kept any more, or all was read and the feed ended: let [`Self::next`] say which.
    pub fn read(&self, position: Position, out: &mut Vec<Item>) -> Option<Position> {
        let state = self.state();
        let from = usize::try_from(position.0.checked_sub(state.first)?).ok()?;
        if state.ended && from >= state.items.len() {
            return None;
        }
        out.extend(state.items.iter().skip(from).cloned());
        Some(Position(state.end().max(position.0)))
    }

    /// Bytes of packets per second of the stream, as far as the ring tells.
    pub fn rate(&self) -> u64 {
        let state = self.state();
        let oldest = state.units_from(state.first).next().map_or(state.newest, |unit| unit.head.dts);
        let span = state.newest.saturating_since(oldest).max(Duration::from_millis(500));
        (state.bytes as f64 / span.as_secs_f64()) as u64
    }

    /// The line from this feed's media time to NTP time.
    pub fn line(&self) -> NtpLine {
        self.line
    }

    /// The unit of a track that holds the packet of that sequence number, not wrapped, and its place; `None` if it is
    /// not kept any more.
    pub fn find(&self, track: usize, seq: u64) -> Option<(Position, Arc<PacketUnit>)> {
        let state = self.state();
        // From the newest: what is missed was sent just now.
        state.items.iter().enumerate().rev().find_map(|(index, item)| match item {
            Item::Unit(unit) if unit.head.track == track && (unit.head.first_seq..unit.next_seq()).contains(&seq) => {
                Some((Position(state.first + index as u64), Arc::clone(unit)))
            }
            _ => None,
        })
    }

    /// How many pictures the video track had before `position`.
    pub fn pictures_before(&self, position: Position) -> u64 {
        self.state().pictures_before(position.0)
    }

    /// The sequence number, not wrapped, that each track's next packet has for a viewer at `position`.
    pub fn seqs(&self, position: Position) -> Vec<u64> {
        let state = self.state();
        state
            .packetizers
            .iter()
            .enumerate()
            .map(|(track, packetizer)| {
                let next = state.units_from(position.0).find(|unit| unit.head.track == track);
                next.map_or(packetizer.next_seq(), |unit| unit.head.first_seq)
            })
            .collect()
    }
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn at(&self, position: u64) -> Option<&Item> {
        usize::try_from(position.checked_sub(self.first)?).ok().and_then(|index| self.items.get(index))
    }

    fn units_from(&self, position: u64) -> impl Iterator<Item = &Arc<PacketUnit>> {
        let skip = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.items.iter().skip(skip).filter_map(|item| match item {
            Item::Unit(unit) => Some(unit),
            Item::Report(..) => None,
        })
    }

    fn pictures_before(&self, position: u64) -> u64 {
        let next = self.units_from(position).find(|unit| unit.head.video).map(|unit| unit.head.pictures_before);
        next.unwrap_or_else(|| self.packetizers.iter().map(Packetizer::pictures).sum())
    }

    fn append(&mut self, item: Item) {
        if let Item::Unit(unit) = &item {
            self.bytes += unit.size();
            if unit.head.key {
                self.keys.push_back(self.end());
            }
        }
        self.items.push_back(item);
    }

    /// Drops what neither a newcomer nor a viewer within its lag needs.
    fn evict(&mut self) {
        let settled = self.newest.saturating_sub(KEPT);
        while let Some(oldest) = self.items.front() {
            let next_key = self.keys.iter().copied().find(|key| *key > self.first);
            let old = next_key.and_then(|key| self.at(key)).is_some_and(|item| match item {
                Item::Unit(unit) => unit.head.dts <= settled,
                Item::Report(..) => false,
            });
            if !(old || self.bytes > MOST) {
                break;
            }
            if let Item::Unit(unit) = oldest {
                self.bytes -= unit.size();
            }
            if self.keys.front() == Some(&self.first) {
                self.keys.pop_front();
            }
            self.items.pop_front();
            self.first += 1;
        }
    }

    fn jump(&self, position: u64, starting: bool) -> Option<Next> {
        let key = self.keys.back().copied();
        let gone = position < self.first;
        let late = |unit: &Arc<PacketUnit>| self.newest.saturating_since(unit.head.dts) > LAG;
        let newer_key = key.filter(|key| *key > position);
        let lags = !starting && newer_key.is_some() && self.units_from(position).next().is_some_and(late);
        if !gone && !lags {
            return None;
        }
        let to = key.unwrap_or(self.end());
        let audio_from = self.units_from(to).next().map_or(self.newest, |unit| unit.head.pts);
        let pictures_before = self.pictures_before(to);
        Some(Next::Jump { to: Position(to), audio_from, pictures_before })
    }
}

/// All tracks of the stream as they are now, video first.
pub(super) fn sources(stream: &Arc<Stream>) -> Vec<(Arc<Stream>, TrackId)> {
    stream.tracks().into_iter().map(|(id, _)| (Arc::clone(stream), id)).collect()
}

fn index_of(tracks: &[FeedTrack], stream: &Arc<Stream>, id: TrackId) -> Option<usize> {
    tracks.iter().position(|track| track.id == id && Arc::ptr_eq(&track.stream, stream))
}

/// Carries what one stream brings; the end of the one that `leads` is the end of the feed.
async fn pump(feed: Weak<Feed>, stream: Arc<Stream>, mut reader: Reader, leads: bool, cancel: CancellationToken) {
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = cancel.cancelled() => return,
        };
        let Some(feed) = feed.upgrade() else { return };
        let Some((track, unit)) = next else {
            if leads {
                feed.finish();
            }
            return;
        };
        if let Some(index) = index_of(&feed.tracks, &stream, track) {
            feed.push(index, &unit);
        }
    }
}

#[cfg(test)]
mod tests;
