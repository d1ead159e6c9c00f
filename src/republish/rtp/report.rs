//! RTCP from us: sender reports and goodbyes (RFC 3550 section 6).

use crate::media::MediaTime;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds from the NTP epoch (1900) to the Unix epoch (1970).
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// The straight line from media time to NTP time. It is laid once, when a feed starts, and never measured again, so
/// that all tracks and all reports agree to the tick.
#[derive(Clone, Copy, Debug)]
pub struct NtpLine {
    /// NTP time of the timeline's zero.
    zero: Duration,
}

impl NtpLine {
    /// The line on which `pts` is shown at `at`.
    pub fn through(pts: MediaTime, at: SystemTime) -> Self {
        let unix = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { zero: (unix + Duration::from_secs(NTP_TO_UNIX)).saturating_sub(pts.since_zero()) }
    }

    /// The 64-bit NTP time stamp of that media time.
    pub fn ntp(self, pts: MediaTime) -> u64 {
        let time = self.zero + pts.since_zero();
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        // NTP seconds wrap in 2036; only differences matter to receivers.
        time.as_secs() << 32 | fraction
    }
}

/// A compound packet of a sender report and an empty CNAME-only source description.
pub fn sender_report(ssrc: u32, ntp: u64, rtp_time: u32, packets: u32, octets: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(28 + 20);
    out.put_slice(&[0x80, 200]);
    out.put_u16(6);
    out.put_u32(ssrc);
    out.put_u64(ntp);
    out.put_u32(rtp_time);
    out.put_u32(packets);
    out.put_u32(octets);
    source_description(&mut out, ssrc);
    out.freeze()
}

/// A compound packet that says the source is gone: an empty receiver report, a source description, a BYE.
pub fn bye(ssrc: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + 20 + 8);
    out.put_slice(&[0x80, 201]);
    out.put_u16(1);
    out.put_u32(ssrc);
    source_description(&mut out, ssrc);
    out.put_slice(&[0x81, 203]);
    out.put_u16(1);
    out.put_u32(ssrc);
    out.freeze()
}

/// SDES with the CNAME that all our tracks share, which tells receivers that they belong together.
fn source_description(out: &mut BytesMut, ssrc: u32) {
    const CNAME: &[u8] = b"fanlight";
    // SSRC, item type and length, text, at least one zero, padded to words.
    let words = (4 + 2 + CNAME.len() + 1).div_ceil(4);
    out.put_slice(&[0x81, 202]);
    out.put_u16(words as u16);
    out.put_u32(ssrc);
    out.put_slice(&[1, CNAME.len() as u8]);
    out.put_slice(CNAME);
    out.put_bytes(0, words * 4 - 4 - 2 - CNAME.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_whole_words_with_true_lengths() {
        for packet in [sender_report(1, 2, 3, 4, 5), bye(1)] {
            let mut rest = &packet[..];
            while !rest.is_empty() {
                let size = (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1) * 4;
                assert_eq!(rest[0] >> 6, 2);
                rest = &rest[size..];
            }
        }
    }

    #[test]
    fn the_line_goes_through_its_point_and_keeps_distances() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let line = NtpLine::through(MediaTime::START, at);
        assert_eq!(line.ntp(MediaTime::START) >> 32, 1_700_000_000 + NTP_TO_UNIX);
        assert_eq!(line.ntp(MediaTime::START) as u32, 1 << 31);
        let later = MediaTime::START + Duration::from_millis(250);
        assert_eq!(line.ntp(later) - line.ntp(MediaTime::START), 1 << 30);
    }
}
