//! A viewer's place in a feed, and the numbers that it sees.
//!
//! Packets are the feed's. What differs for a viewer is in the header: payload type and SSRC as negotiated, time stamps of
//! a squeezed start, and sequence numbers that go on without a gap where packets were left out on purpose, so that it does
//! not ask for those again.

use super::peer::Secure;
use crate::media::{Kind, MediaTime};
use crate::republish::rtp::{Feed, Item, Joined, Next, NtpLine, PacketUnit, Position, Start, sender_report};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Each track's sender report is repeated in this interval of media time (RFC 3550 section 6.2 asks for 5 s).
const REPORT_INTERVAL: Duration = Duration::from_millis(4_900);
/// Gaps closed that are remembered for packets that are asked for again.
const RUNS: usize = 16;

/// Encrypted packets one after the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: BytesMut,
    pub(super) sizes: Vec<usize>,
    /// How many of them are RTP.
    pub(super) media: u64,
}

impl Batch {
    fn push(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.sizes.push(packet.len());
    }
}

/// A track as the viewer gets it.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) kind: Kind,
    payload_type: u8,
    ssrc: u32,
    clock_rate: u32,
    /// The feed's number after the last packet sent, not wrapped.
    expected: u64,
    /// The viewer's, not wrapped.
    next: u64,
    /// Where the distance between the two changed: the viewer's number and the feed's.
    runs: VecDeque<(u64, u64)>,
    reported: Option<MediaTime>,
    packets: u32,
    octets: u32,
}

impl Track {
    /// Continues at the feed's number `first`, without a gap for the viewer.
    fn go_on_at(&mut self, first: u64) {
        if self.expected != first || self.runs.is_empty() {
            self.runs.push_back((self.next, first));
            if self.runs.len() > RUNS {
                self.runs.pop_front();
            }
            self.expected = first;
        }
    }

    /// The feed's number of a packet sent, by the viewer's 16 bits.
    fn sent(&self, seq: u16) -> Option<(u64, u64)> {
        let back = u64::from((self.next as u16).wrapping_sub(seq));
        let viewers = self.next.checked_sub(back).filter(|_| back > 0)?;
        let (from, feeds) = self.runs.iter().rev().find(|(from, _)| *from <= viewers)?;
        Some((viewers, feeds + (viewers - from)))
    }
}

/// What [`Cursor::step`] found.
#[derive(Debug)]
pub(super) enum Step {
    /// Something to send, at that place.
    Unit(Position, Arc<PacketUnit>),
    /// Nothing yet.
    Level,
    /// The feed has ended.
    Ended,
}

/// A viewer's place in a feed.
#[derive(Debug)]
pub(super) struct Cursor {
    feed: Arc<Feed>,
    head: watch::Receiver<u64>,
    /// By the feed's index.
    tracks: Vec<Option<Track>>,
    start: Start,
    joined: Option<Joined>,
    position: Position,
    /// Where the feed ended when the viewer joined: until there it is starting.
    started_before: Position,
    /// Sound before this is not sent.
    audio_from: MediaTime,
    next_picture: u64,
    /// Leading pictures of the key picture just sent are left out.
    skip_leading: bool,
    /// Pictures left out.
    pub(super) dropped: u64,
}

/// A track to be sent: its index in the feed, and payload type and SSRC for the viewer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) index: usize,
    pub(super) payload_type: u8,
    pub(super) ssrc: u32,
}

impl Cursor {
    /// A viewer of those tracks of the feed, which starts as soon as it can.
    pub(super) fn new(feed: Arc<Feed>, wanted: &[Wanted]) -> Self {
        let track = |(index, track): (usize, &crate::republish::rtp::FeedTrack)| {
            let wanted = wanted.iter().find(|wanted| wanted.index == index)?;
            Some(Track {
                kind: track.info.kind(),
                payload_type: wanted.payload_type,
                ssrc: wanted.ssrc,
                clock_rate: track.info.clock_rate,
                expected: 0,
                // Low at first, and not so low that something could be asked for from before it.
                next: (1 << 16) + u64::from(rand::random::<u16>() >> 2),
                runs: VecDeque::new(),
                reported: None,
                packets: 0,
                octets: 0,
            })
        };
        let tracks: Vec<_> = feed.tracks().iter().enumerate().map(track).collect();
        let pictures = tracks.iter().flatten().any(|track| track.kind == Kind::Video);
        Self {
            head: feed.watch(),
            tracks,
            start: if pictures { Start::Squeeze } else { Start::Now },
            joined: None,
            position: feed.end(),
            started_before: feed.end(),
            audio_from: MediaTime::default(),
            next_picture: 0,
            skip_leading: true,
            dropped: 0,
            feed,
        }
    }

    /// The feed.
    pub(super) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Waits until there may be something new; call [`Self::step`] first.
    pub(super) async fn changed(&mut self) {
        if self.head.changed().await.is_err() {
            // The feed is ours, so it cannot go.
            std::future::pending::<()>().await;
        }
    }

    /// The next thing to send. It counts as sent.
    pub(super) fn step(&mut self) -> Step {
        self.head.mark_unchanged();
        if self.joined.is_none() && !self.join() {
            return if self.feed.ended() { Step::Ended } else { Step::Level };
        }
        loop {
            match self.feed.next(self.position, self.position < self.started_before) {
                Next::Level => return Step::Level,
                Next::Ended => return Step::Ended,
                Next::Jump { to, audio_from, pictures_before } => {
                    self.dropped += pictures_before.saturating_sub(self.next_picture);
                    self.next_picture = pictures_before;
                    self.position = to;
                    self.audio_from = self.audio_from.max(audio_from);
                    self.skip_leading = true;
                }
                Next::Item(item) => {
                    let position = self.position;
                    self.position = position.next();
                    if let Item::Unit(unit) = item
                        && self.wants(&unit)
                    {
                        return Step::Unit(position, unit);
                    }
                }
            }
        }
    }

    fn join(&mut self) -> bool {
        let wanted: Vec<_> = self.tracks.iter().map(Option::is_some).collect();
        let Some(joined) = self.feed.join(self.start, &wanted) else { return false };
        self.position = joined.position;
        self.started_before = self.feed.end();
        self.audio_from = joined.audio_from;
        self.next_picture = self.feed.pictures_before(joined.position);
        self.joined = Some(joined);
        true
    }

    fn wants(&mut self, unit: &PacketUnit) -> bool {
        let head = unit.head;
        if self.tracks.get(head.track).is_none_or(Option::is_none) {
            return false;
        }
        if !head.video {
            return head.pts >= self.audio_from;
        }
        self.next_picture = head.pictures_before + 1;
        if self.skip_leading && !head.key {
            if head.needs_earlier {
                return false;
            }
            self.skip_leading = false;
        }
        true
    }

    /// Encrypts a unit into `batch`, after a sender report if one is due.
    pub(super) fn write(
        &mut self,
        position: Position,
        unit: &PacketUnit,
        line: NtpLine,
        secure: &mut Secure,
        batch: &mut Batch,
    ) {
        let head = unit.head;
        let Some(Some(track)) = self.tracks.get_mut(head.track) else { return };
        track.go_on_at(head.first_seq);
        let due = |reported: MediaTime| head.dts.saturating_since(reported) >= REPORT_INTERVAL;
        if track.reported.is_none_or(due) {
            track.reported = Some(head.dts);
            let report = sender_report(track.ssrc, line.ntp(head.pts), head.rtp_time, track.packets, track.octets);
            if let Some(report) = secure.protect_rtcp(&report) {
                batch.push(&report);
            }
        }
        let add_time = self.joined.as_ref().map_or(0, |joined| joined.add_time(position, unit, track.clock_rate));
        let mut scratch = Vec::with_capacity(1_300);
        for packet in unit.each() {
            rewrite(&mut scratch, packet, track, track.next, add_time);
            if let Some(packet) = secure.protect(&scratch) {
                batch.push(&packet);
                batch.media += 1;
            }
            track.next += 1;
            track.packets = track.packets.wrapping_add(1);
            track.octets = track.octets.wrapping_add(packet.len().saturating_sub(12) as u32);
        }
        track.expected = unit.next_seq();
    }

    /// Encrypts packets that the viewer misses once more, byte for byte as they were, up to `most`; answers how many.
    pub(super) fn write_again(
        &self,
        ssrc: u32,
        seqs: &[u16],
        most: usize,
        secure: &mut Secure,
        batch: &mut Batch,
    ) -> usize {
        let found = self.tracks.iter().enumerate().find_map(|(index, track)| {
            let track = track.as_ref().filter(|track| track.ssrc == ssrc)?;
            Some((index, track))
        });
        let Some((index, track)) = found else { return 0 };
        let mut count = 0;
        let mut scratch = Vec::with_capacity(1_300);
        for seq in seqs {
            if count >= most {
                break;
            }
            let Some((viewers, feeds)) = track.sent(*seq) else { continue };
            let Some((position, unit)) = self.feed.find(index, feeds) else { continue };
            let at = usize::try_from(feeds - unit.head.first_seq).unwrap_or(usize::MAX);
            let Some(packet) = unit.each().nth(at) else { continue };
            let add_time = self.joined.as_ref().map_or(0, |joined| joined.add_time(position, &unit, track.clock_rate));
            rewrite(&mut scratch, packet, track, viewers, add_time);
            if let Some(packet) = secure.protect(&scratch) {
                batch.push(&packet);
                batch.media += 1;
                count += 1;
            }
        }
        count
    }
}

/// The feed's packet with the viewer's numbers.
fn rewrite(out: &mut Vec<u8>, packet: &[u8], track: &Track, seq: u64, add_time: u32) {
    out.clear();
    let Some(([first, second, _, _, time @ .., _, _, _, _], payload)) = packet.split_first_chunk::<12>() else {
        return;
    };
    let time = u32::from_be_bytes(*time).wrapping_add(add_time);
    out.extend_from_slice(&[*first, (second & 0x80) | track.payload_type]);
    out.extend_from_slice(&(seq as u16).to_be_bytes());
    out.extend_from_slice(&time.to_be_bytes());
    out.extend_from_slice(&track.ssrc.to_be_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track() -> Track {
        Track {
            kind: Kind::Video,
            payload_type: 102,
            ssrc: 0x0102_0304,
            clock_rate: 90_000,
            expected: 0,
            next: 70_000,
            runs: VecDeque::new(),
            reported: None,
            packets: 0,
            octets: 0,
        }
    }

    #[test]
    fn numbers_go_on_over_a_gap_and_lead_back_to_the_feeds() {
        let mut track = track();
        let send = |track: &mut Track, first: u64, count: u64| {
            track.go_on_at(first);
            track.next += count;
            track.expected = first + count;
        };
        send(&mut track, 500, 10);
        send(&mut track, 510, 5);
        send(&mut track, 9_000, 3);
        assert_eq!(track.next, 70_018);
        assert_eq!(track.sent(70_000_u64 as u16), Some((70_000, 500)));
        assert_eq!(track.sent(70_014_u64 as u16), Some((70_014, 514)));
        assert_eq!(track.sent(70_015_u64 as u16), Some((70_015, 9_000)));
        assert_eq!(track.sent(70_017_u64 as u16), Some((70_017, 9_002)));
        assert_eq!(track.sent(70_018_u64 as u16), None, "not sent yet");
        assert_eq!(track.sent(69_999_u64 as u16), None, "from before the start");
    }

    #[test]
    fn a_header_is_rewritten_and_the_payload_stays() {
        let mut out = Vec::new();
        let packet = [0x80, 0x80 | 96, 0, 7, 0, 0, 0, 10, 9, 9, 9, 9, 1, 2, 3];
        rewrite(&mut out, &packet, &track(), 65_537, 5);
        assert_eq!(out, [0x80, 0x80 | 102, 0, 1, 0, 0, 0, 15, 1, 2, 3, 4, 1, 2, 3]);
    }
}
