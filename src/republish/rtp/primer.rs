//! What ffmpeg is sent before a key picture whose stream has B pictures.
//!
//! ffmpeg's H.264 parser gives the first picture of any RTSP source no time stamp, and its decode times begin once it has
//! seen a picture more than are reordered. Without reordering that costs a warning; with B pictures a copy to Matroska
//! fails ("Can't write packet with unknown timestamp") and one to MP4 starts with wrong times (measured with 5.1). Servers
//! without a cache do not show it: what a player gets from them first are no key pictures, which recordings leave out.
//! So here some [grey pictures](crate::media::h264::grey_pictures) go first, which are left out of recordings, too, and
//! never shown.

use super::MAX_PAYLOAD;
use super::nal;
use super::packets::{PacketUnit, PacketUnitHead, PacketWriter};
use crate::media::{MediaTime, annex_b, h264};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of an RTP header without extensions.
const RTP_HEADER: usize = 12;
/// More are not reordered by any encoder that cameras have.
const MOST: usize = 7;

/// What goes before a picture, in order.
pub(super) type Primer = Vec<Arc<PacketUnit>>;

/// Of the track that the key picture belongs to.
pub(super) struct Line<'a> {
    pub(super) ssrc: u32,
    pub(super) payload_type: u8,
    /// Presentation times of pictures in decode order.
    pub(super) times: &'a [MediaTime],
    /// The reorder depth that the parameter sets tell.
    pub(super) depth: u8,
    /// The pictures per second that they tell.
    pub(super) rate: Option<f64>,
    /// The track's clock at a time.
    pub(super) rtp_time: &'a dyn Fn(MediaTime) -> u32,
}

/// What to send before `key`, numbered up to it and a frame apart; nothing unless it is an IDR picture of H.264 and the
/// track has B pictures.
pub(super) fn before(key: &PacketUnit, line: &Line<'_>) -> Primer {
    let depth = reordered(line.times).max(line.depth.into()).min(MOST - 1);
    if depth == 0 {
        return Vec::new();
    }
    write(key, line, depth + 1).unwrap_or_default()
}

fn write(key: &PacketUnit, line: &Line<'_>, count: usize) -> Option<Primer> {
    let payloads = || key.each().filter_map(|packet| packet.get(RTP_HEADER..));
    let kind = |payload: &[u8]| match payload {
        [head, fragment, ..] if head & 0x1f == 28 => fragment & 0x1f,
        [head, ..] => head & 0x1f,
        [] => 0,
    };
    payloads().find(|payload| kind(payload) == 5)?;
    let sps = payloads().find(|payload| payload.first().is_some_and(|head| head & 0x1f == 7))?;
    let grey = h264::grey_pictures(sps, count as u8)?;
    let frame = frame(line);
    let mut primer: Primer = Vec::with_capacity(count);
    let mut next_seq = key.head.first_seq;
    // From the last to the first, because they are numbered up to the key picture.
    for (back, slice) in (1..).zip(grey.slices.iter().rev()) {
        let mut unit = Vec::with_capacity(slice.len() + MAX_PAYLOAD);
        let sets: &[&[u8]] = if back == count { &[sps, &grey.pps] } else { &[] };
        for nal in sets.iter().copied().chain([&slice[..]]) {
            annex_b::push(&mut unit, nal);
        }
        let pts = key.head.pts.saturating_sub(frame * back as u32);
        let write = |first_seq| {
            let head = PacketUnitHead { first_seq, rtp_time: (line.rtp_time)(pts), pts, key: false, ..key.head };
            let mut writer = PacketWriter::new(head, line.ssrc, line.payload_type, unit.len());
            nal::h264(&mut writer, &unit);
            writer.finish()
        };
        let packets = write(0)?.packets() as u64;
        next_seq = next_seq.checked_sub(packets)?;
        primer.push(Arc::new(write(next_seq)?));
    }
    primer.reverse();
    Some(primer)
}

/// How many pictures at most came before one that is shown before them.
fn reordered(times: &[MediaTime]) -> usize {
    let overtaken = |(at, time): (usize, &MediaTime)| {
        let recent = times.get(at.saturating_sub(16)..at).unwrap_or_default();
        recent.iter().filter(|earlier| *earlier > time).count()
    };
    times.iter().enumerate().map(overtaken).max().unwrap_or(0)
}

/// How long a frame lasts: as announced, else the shortest distance seen.
fn frame(line: &Line<'_>) -> Duration {
    if let Some(rate) = line.rate.filter(|rate| (1.0..=1_000.0).contains(rate)) {
        return Duration::from_secs_f64(1.0 / rate);
    }
    let mut times = line.times.to_vec();
    times.sort_unstable();
    let shortest = times.windows(2).map(|pair| pair[1].saturating_since(pair[0])).min();
    shortest.unwrap_or(Duration::from_millis(40)).min(Duration::from_secs(1))
}
