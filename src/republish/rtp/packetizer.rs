//! From access units to packets: one packetiser per track, with the track's numbers.

use super::packets::{PacketUnit, PacketUnitHead, PacketWriter};
use super::{audio, jpeg, nal};
use crate::media::{AccessUnit, Codec, Kind, MediaTime, TrackInfo, h265};
use std::sync::Arc;

/// The RTP payload type that a track is announced with: static ones of RFC 3551 where they exist.
pub fn payload_type(codec: Codec) -> u8 {
    match codec {
        Codec::Pcmu => 0,
        Codec::Pcma => 8,
        Codec::Jpeg => 26,
        Codec::H264 | Codec::H265 => 96,
        Codec::Aac | Codec::Opus => 97,
    }
}

/// Makes the packets of one track.
#[derive(Debug)]
pub struct Packetizer {
    track: usize,
    info: Arc<TrackInfo>,
    /// Whether a unit of this track is where a viewer may start.
    starts: bool,
    ssrc: u32,
    time_base: u32,
    next_seq: u64,
    /// Packets and payload octets so far, for sender reports.
    packets: u32,
    octets: u32,
    pictures: u64,
    refused: bool,
}

impl Packetizer {
    /// A packetiser for the track of that index in its feed, with random numbers as RFC 3550 section 5.1 asks for.
    /// `starts` says whether its random access units are where viewers start.
    pub fn new(track: usize, info: Arc<TrackInfo>, starts: bool) -> Self {
        Self {
            track,
            info,
            starts,
            ssrc: rand::random(),
            time_base: rand::random(),
            // Low at first: some receivers take a wrap soon after the start for loss. One round ahead, because a
            // [primer](super::primer) comes before the first packet.
            next_seq: (1 << 16) + u64::from(rand::random::<u16>() >> 2),
            packets: 0,
            octets: 0,
            pictures: 0,
            refused: false,
        }
    }

    /// The synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The sequence number of the next packet, not wrapped.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// How many pictures were packetised so far.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// The RTP time stamp of that media time.
    pub fn rtp_time(&self, pts: MediaTime) -> u32 {
        self.time_base.wrapping_add(pts.ticks(self.info.clock_rate) as u32)
    }

    /// Packets and payload octets made so far, wrapping as in sender reports.
    pub fn counts(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// The packets of a unit; `None` if RTP cannot carry it, which is logged once.
    pub fn packetize(&mut self, unit: &AccessUnit) -> Option<PacketUnit> {
        let codec = unit.info.codec;
        let head = PacketUnitHead {
            track: self.track,
            first_seq: self.next_seq,
            rtp_time: self.rtp_time(unit.pts),
            pts: unit.pts,
            dts: unit.dts,
            key: self.starts && unit.random_access,
            video: codec.kind() == Kind::Video,
            pictures_before: self.pictures,
            needs_earlier: codec == Codec::H265 && h265::is_rasl(&unit.payload),
        };
        let mut writer = PacketWriter::new(head, self.ssrc, payload_type(codec), unit.payload.len());
        match codec {
            Codec::H264 => nal::h264(&mut writer, &unit.payload),
            Codec::H265 => nal::h265(&mut writer, &unit.payload),
            Codec::Jpeg => {
                if let Err(error) = jpeg::jpeg(&mut writer, &unit.payload) {
                    if !std::mem::replace(&mut self.refused, true) {
                        tracing::warn!(%error, "RTP cannot carry this picture; others like it are left out silently");
                    }
                    return None;
                }
            }
            Codec::Aac => audio::aac(&mut writer, &unit.payload),
            Codec::Pcmu | Codec::Pcma => audio::g711(&mut writer, &unit.payload),
            Codec::Opus => audio::opus(&mut writer, &unit.payload),
        }
        let packets = writer.finish()?;
        self.next_seq = packets.next_seq();
        self.pictures += u64::from(head.video);
        self.packets = self.packets.wrapping_add(packets.packets() as u32);
        self.octets = self.octets.wrapping_add(unit.payload.len() as u32);
        Some(packets)
    }
}
