//! JPEG pictures (RFC 2435): the scan travels, its headers become eight bytes and the quantisation tables.

use super::MAX_PAYLOAD;
use super::packets::PacketWriter;
use crate::media::jpeg::{JpegError, QuantisationTable, parse};

/// The largest picture side in pixels that RFC 2435 has room for (section 3.1.5).
pub const LARGEST: u16 = 2_040;
/// The largest fragment offset.
const MOST_BYTES: usize = 0xff_ffff;
/// The Q that says: the tables are in the packets and may differ from picture to picture (section 3.1.8).
const TABLES_IN_BAND: u8 = 255;

/// Why a picture cannot travel by RFC 2435.
#[derive(Debug, thiserror::Error)]
pub(super) enum JpegPayloadError {
    /// It is no whole JPEG picture.
    #[error(transparent)]
    Unreadable(#[from] JpegError),
    /// RFC 2435 has no form for it.
    #[error("RFC 2435 carries baseline 4:2:0 and 4:2:2 with the standard Huffman tables only")]
    Form,
    /// Its coded bytes are more than a fragment offset counts (section 3.1.2).
    #[error("RFC 2435 carries at most 16 MiB of a picture, this one has {0} bytes")]
    Long(usize),
    /// Its size does not fit into a byte of 8-pixel units.
    #[error("RFC 2435 carries at most {LARGEST} x {LARGEST} pixels, this picture has {width} x {height}")]
    Size {
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
    },
}

/// Appends one picture.
pub(super) fn jpeg(writer: &mut PacketWriter, bytes: &[u8]) -> Result<(), JpegPayloadError> {
    let picture = parse(bytes)?;
    let form = picture.rtp_form().ok_or(JpegPayloadError::Form)?;
    let (width, height) = (picture.width, picture.height);
    if width > LARGEST || height > LARGEST {
        return Err(JpegPayloadError::Size { width, height });
    }
    let scan = bytes.get(picture.scan.clone()).unwrap_or_default();
    if scan.len() > MOST_BYTES {
        return Err(JpegPayloadError::Long(scan.len()));
    }
    let units = |pixels: u16| pixels.div_ceil(8) as u8;
    let precision =
        [form.luma, form.chroma].iter().enumerate().fold(0, |bits, (id, table)| bits | u8::from(table.wide) << id);
    let mut tables = vec![0, precision];
    let length: usize = [form.luma, form.chroma].iter().map(|table: &QuantisationTable<'_>| table.bytes.len()).sum();
    tables.extend_from_slice(&(length as u16).to_be_bytes());
    tables.extend_from_slice(form.luma.bytes);
    tables.extend_from_slice(form.chroma.bytes);

    let mut offset = 0;
    while offset < scan.len() {
        let [_, high, middle, low] = (offset as u32).to_be_bytes();
        let mut header = vec![0, high, middle, low, form.kind, TABLES_IN_BAND, units(width), units(height)];
        if let Some(interval) = picture.restart_interval {
            // First, last, and a count of all ones: the fragments need not align with restart intervals (3.1.7).
            header.extend_from_slice(&interval.to_be_bytes());
            header.extend_from_slice(&[0xff, 0xff]);
        }
        if offset == 0 {
            header.extend_from_slice(&tables);
        }
        let end = scan.len().min(offset + MAX_PAYLOAD - header.len());
        writer.push(&header, scan.get(offset..end).unwrap_or_default());
        offset = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::MediaTime;
    use crate::republish::rtp::packets::{PacketUnit, PacketUnitHead};

    /// A 4:2:0 picture of 20 x 10 pixels with two tables of one value each and `scan` bytes of entropy-coded data.
    fn picture(sampling: u8, scan: usize, restart: bool) -> Vec<u8> {
        let mut out = vec![0xff, 0xd8, 0xff, 0xdb, 0, 132, 0];
        out.extend([3; 64]);
        out.push(1);
        out.extend([9; 64]);
        out.extend([0xff, 0xc0, 0, 17, 8, 0, 10, 0, 20, 3, 1, sampling, 0, 2, 0x11, 1, 3, 0x11, 1]);
        if restart {
            out.extend([0xff, 0xdd, 0, 4, 0, 5]);
        }
        out.extend([0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0]);
        out.extend(std::iter::repeat_n(0x55, scan));
        out.extend([0xff, 0xd9]);
        out
    }

    fn packets(bytes: &[u8]) -> Result<PacketUnit, JpegPayloadError> {
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
        let mut writer = PacketWriter::new(head, 1, 26, bytes.len());
        jpeg(&mut writer, bytes)?;
        Ok(writer.finish().unwrap())
    }

    #[test]
    fn the_first_packet_has_the_tables_and_offsets_go_on() {
        let unit = packets(&picture(0x22, 3_000, false)).unwrap();
        let payloads: Vec<_> = unit.each().map(|packet| packet[12..].to_vec()).collect();
        assert_eq!(payloads[0][..8], [0, 0, 0, 0, 1, 255, 3, 2]);
        assert_eq!(payloads[0][8..12], [0, 0, 0, 128]);
        assert_eq!((payloads[0][12], payloads[0][12 + 64]), (3, 9));
        let mut offset = 0;
        for (index, payload) in payloads.iter().enumerate() {
            assert!(payload.len() <= MAX_PAYLOAD);
            assert_eq!(u32::from_be_bytes([0, payload[1], payload[2], payload[3]]), offset);
            offset += (payload.len() - 8 - if index == 0 { 132 } else { 0 }) as u32;
        }
        assert_eq!(offset, 3_000);
    }

    #[test]
    fn restart_markers_get_their_header() {
        let unit = packets(&picture(0x21, 100, true)).unwrap();
        let payload = unit.each().next().unwrap()[12..].to_vec();
        assert_eq!(payload[4], 64);
        assert_eq!(payload[8..12], [0, 5, 0xff, 0xff]);
    }

    #[test]
    fn what_the_form_does_not_know_is_refused() {
        assert!(matches!(packets(&picture(0x11, 10, false)), Err(JpegPayloadError::Form)));
        assert!(matches!(packets(&picture(0x22, MOST_BYTES + 1, false)), Err(JpegPayloadError::Long(_))));
        assert!(matches!(packets(b"\xff\xd8"), Err(JpegPayloadError::Unreadable(_))));
        let mut wide = picture(0x22, 10, false);
        let sof = wide.windows(2).position(|window| window == [0xff, 0xc0]).unwrap();
        wide[sof + 7] = 8;
        assert!(matches!(packets(&wide), Err(JpegPayloadError::Size { width: 2_068, .. })));
    }
}
