//! H.264 (RFC 6184, packetisation mode 1) and H.265 (RFC 7798) payloads.

use super::MAX_PAYLOAD;
use super::packets::PacketWriter;
use crate::media::annex_b::nal_units;

/// H.264 NAL unit types 9 and 12: access unit delimiter and filler, which RTP has no use for.
const H264_NEEDLESS: [u8; 2] = [9, 12];
/// H.265 NAL unit types 35 and 38: the same.
const H265_NEEDLESS: [u8; 2] = [35, 38];
/// FU-A (RFC 6184 section 5.8).
const H264_FRAGMENT: u8 = 28;
/// FU (RFC 7798 section 4.4.3).
const H265_FRAGMENT: u8 = 49;
/// Start and end bits of a fragment header, the same in both.
const START: u8 = 0x80;
const END: u8 = 0x40;

/// Appends an H.264 access unit in Annex B form.
pub(super) fn h264(writer: &mut PacketWriter, annex_b: &[u8]) {
    for nal in nal_units(annex_b) {
        let Some((&header, body)) = nal.split_first() else { continue };
        let kind = header & 0x1f;
        if H264_NEEDLESS.contains(&kind) {
            continue;
        }
        if nal.len() <= MAX_PAYLOAD {
            writer.push(&[], nal);
            continue;
        }
        let indicator = header & 0xe0 | H264_FRAGMENT;
        fragments(body, MAX_PAYLOAD - 2, |bits, part| writer.push(&[indicator, bits | kind], part));
    }
}

/// Appends an H.265 access unit in Annex B form.
pub(super) fn h265(writer: &mut PacketWriter, annex_b: &[u8]) {
    for nal in nal_units(annex_b) {
        let Some((&[first, second], body)) = nal.split_first_chunk::<2>() else { continue };
        let kind = first >> 1 & 0x3f;
        if H265_NEEDLESS.contains(&kind) {
            continue;
        }
        if nal.len() <= MAX_PAYLOAD {
            writer.push(&[], nal);
            continue;
        }
        let payload_header = [first & 0x81 | H265_FRAGMENT << 1, second];
        let [first, second] = payload_header;
        fragments(body, MAX_PAYLOAD - 3, |bits, part| writer.push(&[first, second, bits | kind], part));
    }
}

/// Calls `each` with the start and end bits and the bytes of each fragment.
fn fragments(body: &[u8], size: usize, mut each: impl FnMut(u8, &[u8])) {
    let count = body.len().div_ceil(size);
    for (index, part) in body.chunks(size).enumerate() {
        let start = if index == 0 { START } else { 0 };
        let end = if index + 1 == count { END } else { 0 };
        each(start | end, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::MediaTime;
    use crate::republish::rtp::packets::{PacketUnit, PacketUnitHead};

    fn packets(append: impl Fn(&mut PacketWriter)) -> PacketUnit {
        let time = MediaTime::START;
        let head = PacketUnitHead {
            track: 0,
            first_seq: 0,
            rtp_time: 0,
            pts: time,
            dts: time,
            key: true,
            video: true,
            pictures_before: 0,
            needs_earlier: false,
        };
        let mut writer = PacketWriter::new(head, 1, 96, 0);
        append(&mut writer);
        writer.finish().unwrap()
    }

    fn annex_b(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect()
    }

    #[test]
    fn h264_fragments_join_to_the_same_nal() {
        let slice: Vec<u8> = std::iter::once(0x65).chain((0..4_000_u32).map(|n| (n % 250 + 1) as u8)).collect();
        let unit = packets(|writer| h264(writer, &annex_b(&[&[9, 0xf0], &[0x67, 1, 2], &[0x68, 3], &slice])));
        let payloads: Vec<_> = unit.each().map(|packet| packet[12..].to_vec()).collect();
        assert_eq!(payloads[0], [0x67, 1, 2]);
        assert_eq!(payloads[1], [0x68, 3]);
        let fragments = &payloads[2..];
        assert_eq!(fragments.len(), 4);
        assert!(fragments.iter().all(|fragment| fragment.len() <= MAX_PAYLOAD && fragment[0] == 0x60 | 28));
        let bits: Vec<_> = fragments.iter().map(|fragment| fragment[1] & 0xc0).collect();
        assert_eq!(bits, [0x80, 0, 0, 0x40]);
        let joined: Vec<u8> = fragments.iter().flat_map(|fragment| fragment[2..].to_vec()).collect();
        assert_eq!(joined, slice[1..]);
    }

    #[test]
    fn h265_fragments_keep_layer_and_temporal_id() {
        let slice: Vec<u8> = [19 << 1 | 1, 0x0b].into_iter().chain(std::iter::repeat_n(7, 2_000)).collect();
        let unit = packets(|writer| h265(writer, &annex_b(&[&[32 << 1, 1, 5], &slice])));
        let payloads: Vec<_> = unit.each().map(|packet| packet[12..].to_vec()).collect();
        assert_eq!(payloads[0], [64, 1, 5]);
        assert_eq!(payloads[1][..3], [49 << 1 | 1, 0x0b, 0x80 | 19]);
        assert_eq!(payloads[2][..3], [49 << 1 | 1, 0x0b, 0x40 | 19]);
        assert_eq!(payloads[1].len() + payloads[2].len() - 6, 2_000);
    }

    #[test]
    fn only_the_last_packet_of_a_unit_has_the_marker() {
        let unit = packets(|writer| h264(writer, &annex_b(&[&[0x67, 1], &[0x65; 3_000]])));
        let markers: Vec<_> = unit.each().map(|packet| packet[1] >> 7).collect();
        assert_eq!(markers, [0, 0, 0, 1]);
    }
}
