//! The stamp: a SEI user_data_unregistered (H.264 D.1.7) before the first slice of every picture, which carries the wall
//! clock and the picture's number from the camera through any server to the viewer.

use std::time::{SystemTime, UNIX_EPOCH};

/// UUID of the SEI message; 8 bytes of Unix microseconds and 4 bytes of picture number follow, big-endian.
const UUID: [u8; 16] = *b"FANLIGHT-STAMP-1";

/// Microseconds since the Unix epoch: the one clock shared by camera and viewers, which run on one machine.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// The SEI NAL unit, without start code.
pub fn write(unix_us: u64, number: u32) -> Vec<u8> {
    let mut payload = vec![5u8, 28];
    payload.extend_from_slice(&UUID);
    payload.extend_from_slice(&unix_us.to_be_bytes());
    payload.extend_from_slice(&number.to_be_bytes());
    payload.push(0x80);
    let mut nal = vec![6u8];
    let mut zeros = 0;
    for byte in payload {
        if zeros >= 2 && byte <= 3 {
            nal.push(3); // emulation prevention, H.264 7.4.1.1
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        nal.push(byte);
    }
    nal
}

/// `(unix_us, number)` of a SEI NAL unit that is a stamp.
pub fn read(nal: &[u8]) -> Option<(u64, u32)> {
    if nal.len() < 32 || nal[0] & 0x1f != 6 || nal[1] != 5 {
        return None;
    }
    let mut bytes = [0u8; 30];
    let (mut have, mut zeros) = (0, 0);
    for &byte in &nal[1..] {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes[have] = byte;
        have += 1;
        if have == bytes.len() {
            break;
        }
    }
    if have < bytes.len() || bytes[2..18] != UUID {
        return None;
    }
    Some((u64::from_be_bytes(bytes[18..26].try_into().ok()?), u32::from_be_bytes(bytes[26..30].try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_never_looks_like_a_start_code() {
        for us in [0u64, 1, 0x0000_0300_0000_0001, 1_763_000_000_000_000, u64::MAX] {
            for number in [0u32, 3, 0x0000_0100, u32::MAX] {
                let nal = write(us, number);
                assert!(!nal.windows(3).any(|w| w[0] == 0 && w[1] == 0 && w[2] < 3), "start code in {nal:02x?}");
                assert_eq!(read(&nal), Some((us, number)));
            }
        }
    }

    #[test]
    fn other_seis_are_no_stamps() {
        assert_eq!(read(&[6, 5, 28]), None);
        let mut foreign = write(1, 1);
        foreign[5] ^= 1;
        assert_eq!(read(&foreign), None);
    }
}
