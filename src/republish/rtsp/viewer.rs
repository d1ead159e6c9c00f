//! One playing viewer: what it wants, how it is reached, and its slow lane.
//!
//! A viewer starts in a slow lane of its own, where it is sent the cached GOP, and moves to a [shard](super::shard)
//! once it is level with the live edge. When its connection does not take a picture at once it comes back here, and
//! neither its shard nor its neighbours notice.

use super::output::{Output, Sent, ViewerId};
use super::shard::Shard;
use super::udp::UdpPair;
use crate::media::MediaTime;
use crate::republish::rtp::{Feed, Item, Joined, Next, PacketUnit, Position, bye};
use crate::republish::udp::{Bucket, Run, runs, unit_runs};
use bytes::{BufMut, Bytes, BytesMut};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Sequence gaps over this many packets are closed to one (a gap over 3,000 costs ffmpeg its first picture, one of
/// 32,768 ends other players; measured).
const LONGEST_GAP: u64 = 1_000;
/// How long the first packet of a track is waited for before the viewer goes on without it.
const TRACK_PATIENCE: Duration = Duration::from_secs(2);
/// Larger units go to UDP viewers through the slow lane, which spreads them.
const LARGEST_AT_ONCE: usize = 64 << 10;

/// Where a track's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Into the RTSP connection.
    Tcp { rtp: u8, rtcp: u8 },
    /// To these addresses of the viewer.
    Udp { rtp: SocketAddr, rtcp: SocketAddr },
}

/// What a playing viewer is.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) id: ViewerId,
    pub(super) feed: Arc<Feed>,
    pub(super) output: Arc<Output>,
    pub(super) udp: Option<(Arc<UdpPair>, IpAddr)>,
    /// For each track of the feed.
    pub(super) routes: Vec<Option<Route>>,
    /// Cancelled when it paused, left or ended.
    pub(super) stop: CancellationToken,
    pub(super) counts: Counts,
}

/// What a viewer was sent and spared.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Access units written.
    pub(super) units: AtomicU64,
    /// Pictures left out because the viewer was late.
    pub(super) dropped: AtomicU64,
}

/// What became of an item handed to [`Viewer::deliver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// Written, or not wanted.
    Done,
    /// Begun; the connection will finish it.
    Begun,
    /// Not begun: the viewer is late, or the unit is to be spread.
    Blocked,
    /// The viewer is no more.
    Gone,
}

impl Viewer {
    /// Sends an item as it is, without waiting.
    pub(super) fn deliver(&self, item: &Item) -> Delivered {
        match item {
            Item::Report(track, rtcp) => match self.routes.get(*track).copied().flatten() {
                None => Delivered::Done,
                Some(Route::Tcp { rtcp: channel, .. }) => self.write(&framed(channel, rtcp)),
                Some(Route::Udp { rtcp: to, .. }) => {
                    if let Some((pair, from)) = &self.udp {
                        pair.send_rtcp(to, *from, rtcp);
                    }
                    Delivered::Done
                }
            },
            Item::Unit(unit) => {
                let delivered = match self.routes.get(unit.head.track).copied().flatten() {
                    None => return Delivered::Done,
                    Some(Route::Tcp { rtp, .. }) => self.write(&unit.framed(rtp)),
                    Some(Route::Udp { rtp, .. }) => self.send_unit(rtp, unit),
                };
                if matches!(delivered, Delivered::Done | Delivered::Begun) {
                    self.counts.units.fetch_add(1, Ordering::Relaxed);
                }
                delivered
            }
        }
    }

    fn write(&self, bytes: &Bytes) -> Delivered {
        match self.output.send(self.id, bytes) {
            Sent::All => Delivered::Done,
            Sent::Part => Delivered::Begun,
            Sent::Nothing => Delivered::Blocked,
            Sent::Gone => Delivered::Gone,
        }
    }

    fn send_unit(&self, to: SocketAddr, unit: &PacketUnit) -> Delivered {
        let Some((pair, from)) = &self.udp else { return Delivered::Gone };
        if self.stop.is_cancelled() {
            return Delivered::Gone;
        }
        if unit.size() > LARGEST_AT_ONCE {
            return Delivered::Blocked;
        }
        for (index, run) in unit_runs(unit, pair.max_segments()).iter().enumerate() {
            match pair.send_run(to, *from, run) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && index == 0 => return Delivered::Blocked,
                // Anything else is loss on the way, which datagrams are for.
                _ => {}
            }
        }
        Delivered::Done
    }
}

/// `$`-framed RTCP (RFC 2326 section 10.12).
fn framed(channel: u8, packet: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + packet.len());
    out.put_slice(&[b'$', channel]);
    out.put_u16(packet.len() as u16);
    out.put_slice(packet);
    out.freeze()
}

/// A viewer that is not level with the live edge, and what it must be sent differently from everybody else.
#[derive(Debug)]
pub(super) struct SlowLane {
    viewer: Arc<Viewer>,
    shard: Arc<Shard>,
    position: Position,
    /// Where the feed ended when the viewer joined: until there it is starting.
    started_before: Position,
    joined: Option<Joined>,
    since: Instant,
    tracks: Vec<Track>,
    /// Sound before this is not sent.
    audio_from: MediaTime,
    /// How many pictures the video track had before the next one to send.
    next_picture: u64,
    /// Leading pictures of the key picture just sent are left out.
    skip_leading: bool,
    bucket: Option<Bucket>,
}

#[derive(Debug)]
struct Track {
    wanted: bool,
    started: bool,
    clock_rate: u32,
    /// The shared sequence number after the last packet sent.
    expected: u64,
    /// Added to the shared sequence numbers.
    add_seq: u16,
    /// A report to send before the first packet.
    report: Option<Bytes>,
}

impl SlowLane {
    /// A viewer that starts to play.
    pub(super) fn start(viewer: Arc<Viewer>, shard: Arc<Shard>, joined: Joined) -> Self {
        let mut lane = Self::at(viewer, shard, joined.position);
        for (track, start) in lane.tracks.iter_mut().zip(&joined.tracks) {
            track.expected = start.seq;
            track.report = Some(start.report.clone());
            track.started = false;
        }
        lane.audio_from = joined.audio_from;
        lane.started_before = lane.viewer.feed.end();
        lane.skip_leading = true;
        lane.joined = Some(joined);
        if lane.viewer.udp.is_some() {
            lane.bucket = Some(Bucket::new(lane.viewer.feed.rate(), Instant::now()));
        }
        lane
    }

    /// A viewer that its shard could not serve, with the first item it has not sent.
    pub(super) fn at(viewer: Arc<Viewer>, shard: Arc<Shard>, position: Position) -> Self {
        let seqs = viewer.feed.seqs(position);
        let tracks = viewer.feed.tracks().iter().zip(&viewer.routes).zip(seqs);
        let tracks = tracks
            .map(|((track, route), expected)| Track {
                wanted: route.is_some(),
                started: true,
                clock_rate: track.info.clock_rate,
                expected,
                add_seq: 0,
                report: None,
            })
            .collect();
        let bucket = viewer.udp.is_some().then(|| Bucket::new(viewer.feed.rate(), Instant::now()));
        let next_picture = viewer.feed.pictures_before(position);
        Self {
            viewer,
            shard,
            position,
            started_before: position,
            joined: None,
            since: Instant::now(),
            tracks,
            audio_from: MediaTime::default(),
            next_picture,
            skip_leading: false,
            bucket,
        }
    }

    /// Serves the viewer until it is level, gone, or the feed ends.
    pub(super) async fn run(mut self) {
        let stop = self.viewer.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        let feed = Arc::clone(&self.viewer.feed);
        let mut head = feed.watch();
        if !self.send_primer().await {
            return;
        }
        loop {
            if self.viewer.udp.is_none() && !self.viewer.output.flush().await {
                return;
            }
            head.mark_unchanged();
            match feed.next(self.position, self.position < self.started_before) {
                Next::Item(item) => {
                    if !self.send(&item).await {
                        return;
                    }
                }
                Next::Jump { to, audio_from, pictures_before } => {
                    let dropped = pictures_before.saturating_sub(self.next_picture);
                    self.viewer.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
                    self.next_picture = pictures_before;
                    self.position = to;
                    self.audio_from = self.audio_from.max(audio_from);
                    self.skip_leading = true;
                    self.joined = None;
                }
                Next::Level => {
                    if self.may_leave() {
                        self.shard.join(Arc::clone(&self.viewer), self.position);
                        return;
                    }
                    if head.changed().await.is_err() {
                        return;
                    }
                }
                Next::Ended => {
                    self.say_goodbye().await;
                    return;
                }
            }
        }
    }

    /// Sends what goes before the first item; false if the viewer is gone.
    async fn send_primer(&mut self) -> bool {
        let primer = self.joined.as_mut().map(|joined| std::mem::take(&mut joined.primer)).unwrap_or_default();
        let Some(first) = primer.first().map(|unit| unit.head) else { return true };
        let (position, skip_leading) = (self.position, self.skip_leading);
        for unit in primer {
            let item = Item::Unit(Arc::clone(&unit));
            let sent = |lane: &Self| {
                let track = lane.tracks.get(first.track).filter(|track| track.wanted);
                track.is_none_or(|track| track.expected == unit.next_seq())
            };
            while !sent(self) {
                if self.viewer.udp.is_none() && !self.viewer.output.flush().await || !self.send(&item).await {
                    return false;
                }
            }
        }
        // It is nothing of the feed's.
        (self.position, self.skip_leading) = (position, skip_leading);
        self.next_picture = first.pictures_before;
        true
    }

    /// Whether everything from here on is sent as to everybody else.
    fn may_leave(&mut self) -> bool {
        if self.tracks.iter().any(|track| track.add_seq != 0) {
            return false;
        }
        let waiting = self.tracks.iter().any(|track| track.wanted && !track.started);
        if waiting && self.since.elapsed() < TRACK_PATIENCE {
            return false;
        }
        // A track that is silent so far gets its report now, so that it still comes before its first packet.
        for index in 0..self.tracks.len() {
            let report = self.tracks.get_mut(index).filter(|track| track.wanted).and_then(|track| track.report.take());
            if let Some(report) = report {
                self.viewer.deliver(&Item::Report(index, report));
            }
        }
        true
    }

    /// Sends one item, however long it takes; false if the viewer is gone. The position moves on when the item was
    /// begun or left out, and stays when it was not: the viewer may be too late for it by then.
    async fn send(&mut self, item: &Item) -> bool {
        let unit = match item {
            Item::Report(..) => {
                return match self.viewer.deliver(item) {
                    Delivered::Gone => false,
                    Delivered::Blocked => self.wait().await,
                    Delivered::Done | Delivered::Begun => self.advance(),
                };
            }
            Item::Unit(unit) => Arc::clone(unit),
        };
        let head = unit.head;
        if head.video {
            self.next_picture = head.pictures_before;
        }
        let Some(track) = self.tracks.get_mut(head.track).filter(|track| track.wanted) else { return self.advance() };
        if head.video && self.skip_leading && !head.key {
            if head.needs_earlier {
                return self.advance();
            }
            self.skip_leading = false;
        }
        if !head.video && head.pts < self.audio_from {
            return self.advance();
        }
        let gap = head.first_seq.saturating_sub(track.expected);
        let add_seq = if gap > LONGEST_GAP { track.add_seq.wrapping_sub((gap - 1) as u16) } else { track.add_seq };
        let clock_rate = track.clock_rate;
        let report = track.report.clone();
        let add_time = self.joined.as_ref().map_or(0, |joined| joined.add_time(self.position, &unit, clock_rate));
        let delivered = match self.viewer.routes.get(head.track).copied().flatten() {
            Some(Route::Tcp { rtp, rtcp }) => {
                let media = if add_seq == 0 && add_time == 0 {
                    unit.framed(rtp)
                } else {
                    unit.rewritten(rtp, add_seq, add_time)
                };
                let bytes = match report {
                    Some(report) => [&framed(rtcp, &report)[..], &media].concat().into(),
                    None => media,
                };
                self.viewer.write(&bytes)
            }
            Some(Route::Udp { rtp, rtcp }) => {
                if let (Some(report), Some((pair, from))) = (report, &self.viewer.udp) {
                    pair.send_rtcp(rtcp, *from, &report);
                }
                self.send_spread(rtp, &unit, add_seq, add_time).await
            }
            None => Delivered::Done,
        };
        match delivered {
            Delivered::Gone => false,
            Delivered::Blocked => self.wait().await,
            Delivered::Done | Delivered::Begun => {
                self.next_picture += u64::from(head.video);
                if let Some(track) = self.tracks.get_mut(head.track) {
                    track.expected = unit.next_seq();
                    track.add_seq = add_seq;
                    track.started = true;
                    track.report = None;
                }
                self.viewer.counts.units.fetch_add(1, Ordering::Relaxed);
                self.advance()
            }
        }
    }

    fn advance(&mut self) -> bool {
        self.position = self.position.next();
        true
    }

    /// Waits until the viewer takes something again.
    async fn wait(&self) -> bool {
        match &self.viewer.udp {
            None => self.viewer.output.writable().await,
            Some((pair, _)) => {
                pair.writable().await;
                true
            }
        }
    }

    async fn send_spread(&mut self, to: SocketAddr, unit: &PacketUnit, add_seq: u16, add_time: u32) -> Delivered {
        let Some((pair, from)) = self.viewer.udp.clone() else { return Delivered::Gone };
        let runs: Vec<Run> = if add_seq == 0 && add_time == 0 {
            unit_runs(unit, pair.max_segments())
        } else {
            runs(&unit.rewritten_datagrams(add_seq, add_time), unit.packet_sizes(), pair.max_segments())
        };
        for run in runs {
            while let Some(Err(wait)) = self.bucket.as_mut().map(|bucket| bucket.take(run.len(), Instant::now())) {
                tokio::time::sleep(wait).await;
            }
            while let Err(error) = pair.send_run(to, from, &run) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    break;
                }
                pair.writable().await;
            }
        }
        Delivered::Done
    }

    /// Tells the viewer that the stream is over and closes its connection, so that it asks again.
    async fn say_goodbye(&self) {
        for (index, track) in self.viewer.feed.tracks().iter().enumerate() {
            self.viewer.deliver(&Item::Report(index, bye(track.ssrc)));
        }
        if self.viewer.udp.is_none() {
            self.viewer.output.flush().await;
        }
        self.viewer.output.closed().cancel();
    }
}
