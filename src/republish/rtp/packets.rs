//! The packets of one access unit, ready to be written.

use crate::media::MediaTime;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Bytes of an RTP header without extensions (RFC 3550 section 5.1).
const RTP_HEADER: usize = 12;
/// Bytes of the `$` framing of RTP over RTSP (RFC 2326 section 10.12).
const FRAME_HEADER: usize = 4;

/// What is common to the packets of a unit.
#[derive(Clone, Copy, Debug)]
pub struct PacketUnitHead {
    /// Index of the track in its feed.
    pub track: usize,
    /// The sequence number of the first packet, not wrapped at 16 bits.
    pub first_seq: u64,
    /// The RTP time stamp of the first packet.
    pub rtp_time: u32,
    /// Presentation time of the unit.
    pub pts: MediaTime,
    /// Decode time of the unit.
    pub dts: MediaTime,
    /// A viewer may start here: a key picture, or any frame of a stream without video.
    pub key: bool,
    /// This is a picture.
    pub video: bool,
    /// How many pictures the track had before this unit.
    pub pictures_before: u64,
    /// A leading picture that refers to ones before the key picture it follows (H.265 RASL): not for a viewer that
    /// starts at that key picture.
    pub needs_earlier: bool,
}

/// The RTP packets of one access unit in one buffer, each behind its `$` frame header.
#[derive(Debug)]
pub struct PacketUnit {
    /// What is common to them.
    pub head: PacketUnitHead,
    framed: Bytes,
    /// Where each packet (after its frame header) ends in `framed`.
    ends: Box<[u32]>,
    /// `framed` for channels other than `2 * track`, made when the first viewer needs it.
    other_channels: Mutex<Vec<(u8, Bytes)>>,
    /// The packets without frame headers, one after the other, made when the first UDP viewer needs them.
    datagrams: OnceLock<Bytes>,
}

impl PacketUnit {
    /// How many packets there are.
    pub fn packets(&self) -> usize {
        self.ends.len()
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.framed.len()
    }

    /// The sequence number after the last packet, not wrapped.
    pub fn next_seq(&self) -> u64 {
        self.head.first_seq + self.ends.len() as u64
    }

    /// The channel that [`Self::framed`] answers without copying.
    fn own_channel(track: usize) -> u8 {
        (track as u8).wrapping_mul(2)
    }

    /// All packets, `$`-framed on that interleaved channel.
    pub fn framed(&self, channel: u8) -> Bytes {
        if channel == Self::own_channel(self.head.track) {
            return self.framed.clone();
        }
        let mut others = self.other_channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, framed)) = others.iter().find(|(known, _)| *known == channel) {
            return framed.clone();
        }
        let framed = self.patched(|frame| {
            if let Some(byte) = frame.get_mut(1) {
                *byte = channel;
            }
        });
        others.push((channel, framed.clone()));
        framed
    }

    /// A copy on that channel with `add_seq` added to each sequence number and `add_time` to each time stamp.
    pub fn rewritten(&self, channel: u8, add_seq: u16, add_time: u32) -> Bytes {
        self.patched(|frame| {
            if let Some(byte) = frame.get_mut(1) {
                *byte = channel;
            }
            if let Some(packet) = frame.get_mut(FRAME_HEADER..) {
                patch(packet, add_seq, add_time);
            }
        })
    }

    fn patched(&self, mut change: impl FnMut(&mut [u8])) -> Bytes {
        let mut copy = BytesMut::from(&self.framed[..]);
        let mut start = 0;
        for &end in &self.ends {
            if let Some(frame) = copy.get_mut(start..end as usize) {
                change(frame);
            }
            start = end as usize;
        }
        copy.freeze()
    }

    /// The packets without framing, one after the other; [`Self::packet_sizes`] tells them apart.
    pub fn datagrams(&self) -> &Bytes {
        self.datagrams.get_or_init(|| {
            let mut bare = BytesMut::with_capacity(self.framed.len());
            for packet in self.each() {
                bare.extend_from_slice(packet);
            }
            bare.freeze()
        })
    }

    /// [`Self::datagrams`] with `add_seq` added to each sequence number and `add_time` to each time stamp.
    pub fn rewritten_datagrams(&self, add_seq: u16, add_time: u32) -> Bytes {
        let mut bare = BytesMut::from(&self.datagrams()[..]);
        let mut start = 0;
        for size in self.packet_sizes() {
            if let Some(packet) = bare.get_mut(start..start + size) {
                patch(packet, add_seq, add_time);
            }
            start += size;
        }
        bare.freeze()
    }

    /// The size of each packet in bytes.
    pub fn packet_sizes(&self) -> impl Iterator<Item = usize> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let size = end as usize - start - FRAME_HEADER;
            start = end as usize;
            size
        })
    }

    /// Each packet without framing.
    pub fn each(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&end| {
            let packet = self.framed.get(start + FRAME_HEADER..end as usize);
            start = end as usize;
            packet
        })
    }
}

fn patch(packet: &mut [u8], add_seq: u16, add_time: u32) {
    if let Some(seq) = packet.get_mut(2..4).and_then(|bytes| <&mut [u8; 2]>::try_from(bytes).ok()) {
        *seq = u16::from_be_bytes(*seq).wrapping_add(add_seq).to_be_bytes();
    }
    if let Some(time) = packet.get_mut(4..8).and_then(|bytes| <&mut [u8; 4]>::try_from(bytes).ok()) {
        *time = u32::from_be_bytes(*time).wrapping_add(add_time).to_be_bytes();
    }
}

/// Writes the packets of one unit.
pub(super) struct PacketWriter {
    head: PacketUnitHead,
    ssrc: u32,
    payload_type: u8,
    buffer: BytesMut,
    ends: Vec<u32>,
}

impl PacketWriter {
    pub(super) fn new(head: PacketUnitHead, ssrc: u32, payload_type: u8, payload: usize) -> Self {
        let packets = payload / super::MAX_PAYLOAD + 4;
        let buffer = BytesMut::with_capacity(payload + packets * (FRAME_HEADER + RTP_HEADER + 4));
        Self { head, ssrc, payload_type, buffer, ends: Vec::with_capacity(packets) }
    }

    /// Appends a packet whose payload is `header` followed by `body`, `add_time` ticks after the unit's time stamp.
    pub(super) fn push_at(&mut self, add_time: u32, header: &[u8], body: &[u8]) {
        let size = RTP_HEADER + header.len() + body.len();
        debug_assert!(size <= usize::from(u16::MAX));
        let seq = (self.head.first_seq + self.ends.len() as u64) as u16;
        self.buffer.put_u8(b'$');
        self.buffer.put_u8(PacketUnit::own_channel(self.head.track));
        self.buffer.put_u16(size as u16);
        self.buffer.put_u8(0x80);
        self.buffer.put_u8(self.payload_type);
        self.buffer.put_u16(seq);
        self.buffer.put_u32(self.head.rtp_time.wrapping_add(add_time));
        self.buffer.put_u32(self.ssrc);
        self.buffer.put_slice(header);
        self.buffer.put_slice(body);
        self.ends.push(self.buffer.len() as u32);
    }

    /// Appends a packet with the unit's time stamp.
    pub(super) fn push(&mut self, header: &[u8], body: &[u8]) {
        self.push_at(0, header, body);
    }

    /// Sets the marker of the last packet and gives the unit away; `None` if there is no packet.
    pub(super) fn finish(mut self) -> Option<PacketUnit> {
        let before_last = self.ends.len().checked_sub(1)?;
        let start = before_last.checked_sub(1).and_then(|index| self.ends.get(index)).map_or(0, |&end| end as usize);
        if let Some(byte) = self.buffer.get_mut(start + FRAME_HEADER + 1) {
            *byte |= 0x80;
        }
        Some(PacketUnit {
            head: self.head,
            framed: self.buffer.freeze(),
            ends: self.ends.into_boxed_slice(),
            other_channels: Mutex::default(),
            datagrams: OnceLock::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(track: usize) -> PacketUnit {
        let time = MediaTime::START;
        let head = PacketUnitHead {
            track,
            first_seq: 65_535,
            rtp_time: 1_000,
            pts: time,
            dts: time,
            key: true,
            video: true,
            pictures_before: 0,
            needs_earlier: false,
        };
        let mut writer = PacketWriter::new(head, 0xdead_beef, 96, 10);
        writer.push(&[1], &[2, 3]);
        writer.push(&[], &[4, 5, 6, 7]);
        writer.finish().unwrap()
    }

    #[test]
    fn packets_are_framed_numbered_and_marked() {
        let unit = unit(1);
        assert_eq!(
            unit.framed(2)[..],
            [
                &[b'$', 2, 0, 15, 0x80, 96, 0xff, 0xff, 0, 0, 3, 232, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3][..],
                &[b'$', 2, 0, 16, 0x80, 0x80 | 96, 0, 0, 0, 0, 3, 232, 0xde, 0xad, 0xbe, 0xef, 4, 5, 6, 7],
            ]
            .concat()
        );
        assert_eq!(unit.next_seq(), 65_537);
        assert_eq!(unit.packet_sizes().collect::<Vec<_>>(), [15, 16]);
        assert_eq!(unit.datagrams().len(), 31);
    }

    #[test]
    fn another_channel_changes_the_frame_headers_only() {
        let unit = unit(0);
        let (own, other) = (unit.framed(0), unit.framed(6));
        let differing: Vec<_> = (0..own.len()).filter(|&at| own[at] != other[at]).collect();
        assert_eq!(differing, [1, 20]);
        assert_eq!(unit.framed(6).as_ptr(), other.as_ptr());
    }

    #[test]
    fn rewriting_moves_numbers_and_wraps() {
        let unit = unit(0);
        let copy = unit.rewritten(0, 2, u32::MAX);
        assert_eq!(copy[6..12], [0, 1, 0, 0, 3, 231]);
        assert_eq!(unit.rewritten_datagrams(2, u32::MAX)[2..8], [0, 1, 0, 0, 3, 231]);
    }
}
