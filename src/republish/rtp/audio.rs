//! AAC (RFC 3640, mode AAC-hbr), G.711 (RFC 3551) and Opus (RFC 7587) payloads.

use super::MAX_PAYLOAD;
use super::packets::PacketWriter;

/// Appends one raw AAC access unit: one AU header of 13 bits of size and 3 of index (RFC 3640 section 3.3.6). A unit
/// over the payload limit is fragmented, each fragment under a header with the whole unit's size (section 3.2.3).
pub(super) fn aac(writer: &mut PacketWriter, unit: &[u8]) {
    // 13 bits of size: a larger unit cannot be described, and no encoder makes one (6,144 bits a channel at most).
    let Some(size) = u16::try_from(unit.len()).ok().filter(|size| *size < 1 << 13) else { return };
    let [high, low] = (size << 3).to_be_bytes();
    for part in unit.chunks(MAX_PAYLOAD - 4) {
        writer.push(&[0, 16, high, low], part);
    }
}

/// Appends G.711 samples, one octet each at 8 kHz mono, so that a packet's time stamp moves on by its size.
pub(super) fn g711(writer: &mut PacketWriter, samples: &[u8]) {
    let mut before = 0;
    for part in samples.chunks(MAX_PAYLOAD) {
        writer.push_at(before, &[], part);
        before += part.len() as u32;
    }
}

/// Appends one Opus packet, which is never fragmented (RFC 7587 section 4.2).
pub(super) fn opus(writer: &mut PacketWriter, packet: &[u8]) {
    if packet.len() <= MAX_PAYLOAD {
        writer.push(&[], packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::MediaTime;
    use crate::republish::rtp::packets::{PacketUnit, PacketUnitHead};

    fn packets(append: impl Fn(&mut PacketWriter)) -> Option<PacketUnit> {
        let time = MediaTime::START;
        let head = PacketUnitHead {
            track: 0,
            first_seq: 0,
            rtp_time: 100,
            pts: time,
            dts: time,
            key: true,
            video: false,
            pictures_before: 0,
            needs_earlier: false,
        };
        let mut writer = PacketWriter::new(head, 1, 97, 0);
        append(&mut writer);
        writer.finish()
    }

    #[test]
    fn aac_carries_its_size_in_the_au_header() {
        let unit = packets(|writer| aac(writer, &[7; 200])).unwrap();
        let packet: Vec<_> = unit.each().next().unwrap().to_vec();
        assert_eq!(packet[12..16], [0, 16, 6, 64]);
        assert_eq!(packet.len(), 12 + 4 + 200);
        assert_eq!(packet[1] >> 7, 1);
    }

    #[test]
    fn a_large_aac_unit_is_fragmented_and_an_impossible_one_dropped() {
        let unit = packets(|writer| aac(writer, &[7; 3_000])).unwrap();
        assert_eq!(unit.packets(), 3);
        assert!(packets(|writer| aac(writer, &[7; 9_000])).is_none());
    }

    #[test]
    fn long_g711_frames_are_split_in_time() {
        let unit = packets(|writer| g711(writer, &[0; 1_500])).unwrap();
        let times: Vec<_> = unit.each().map(|packet| u32::from_be_bytes(packet[4..8].try_into().unwrap())).collect();
        assert_eq!(times, [100, 1_300]);
    }
}
