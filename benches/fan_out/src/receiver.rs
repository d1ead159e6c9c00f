//! One viewer's view of the RTP: sequence numbers, picture boundaries, stamps.

use crate::plan::Seen;
use crate::stamp;

/// Collects the packets of one viewer.
#[derive(Debug)]
pub struct Receiver {
    /// The totals so far.
    pub seen: Seen,
    /// Latency samples taken within the window, in microseconds.
    pub latency_us: Vec<u32>,
    window_us: Option<(u64, u64)>,
    connected_us: u64,
    seq: Option<u16>,
    last_picture_us: Option<u64>,
    picture: Picture,
    decodable: bool,
    last_live: Option<Live>,
}

/// The picture that is being received.
#[derive(Clone, Copy, Debug, Default)]
struct Picture {
    /// RTP timestamp, from its first packet on.
    time: Option<u32>,
    slices: bool,
    key: bool,
    hurt: bool,
    stamp: Option<(u64, u32)>,
}

/// The newest complete picture.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Microseconds from stamp to complete.
    pub age_us: u64,
    /// Nothing that it refers to is missing.
    pub decodable: bool,
}

impl Receiver {
    /// A viewer that connects at `connected_us`; latency is sampled within `window_us`.
    pub fn new(connected_us: u64, window_us: Option<(u64, u64)>) -> Self {
        Self {
            seen: Seen::default(),
            latency_us: Vec::new(),
            window_us,
            connected_us,
            seq: None,
            last_picture_us: None,
            picture: Picture::default(),
            decodable: false,
            last_live: None,
        }
    }

    /// The last complete picture since this was asked for.
    pub fn take_live(&mut self) -> Option<Live> {
        self.last_live.take()
    }

    /// One RTP packet, read at `now_us`.
    pub fn packet(&mut self, packet: &[u8], now_us: u64) {
        let &[first, second, seq_high, seq_low, t0, t1, t2, t3, ..] = packet else { return };
        if packet.len() < 12 || first >> 6 != 2 {
            return;
        }
        let (seq, time) = (u16::from_be_bytes([seq_high, seq_low]), u32::from_be_bytes([t0, t1, t2, t3]));
        let payload = payload(packet).unwrap_or_default();
        self.rtp(seq, time, second & 0x80 != 0, payload, now_us);
    }

    /// The same, taken apart already.
    pub fn rtp(&mut self, seq: u16, time: u32, marker: bool, payload: &[u8], now_us: u64) {
        let mut gap = false;
        if let Some(previous) = self.seq {
            let missing = seq.wrapping_sub(previous.wrapping_add(1));
            if missing >= 0x8000 {
                return; // late or doubled
            }
            if missing > 0 {
                self.seen.lost_packets += u64::from(missing);
                gap = true;
            }
        }
        self.seq = Some(seq);
        self.seen.packets += 1;
        self.seen.bytes += 12 + payload.len() as u64;
        if self.seen.first_packet_ms.is_none() {
            self.seen.first_packet_ms = Some(now_us.saturating_sub(self.connected_us) as f64 / 1e3);
        }
        let Some(kind) = payload.first().map(|byte| byte & 0x1f) else { return };
        if self.picture.time.is_some_and(|t| t != time) {
            // the end of the one before is missing
            let cut = Picture { hurt: true, ..std::mem::take(&mut self.picture) };
            if cut.slices {
                self.complete(cut, now_us);
            }
        }
        // packets missing between two pictures hurt the second one unless it visibly starts here
        let starts = self.picture.time.is_none() && starts_picture(payload);
        self.picture.hurt |= gap && !starts;
        self.picture.time = Some(time);
        match kind {
            1..=23 => self.nal(kind, payload),
            24 => self.aggregate(&payload[1..]),
            28 if payload.len() > 1 => {
                if payload[1] & 0x80 != 0 {
                    self.nal(payload[1] & 0x1f, &[]);
                } else if !self.picture.slices {
                    self.picture.slices = true; // joined in the middle of a fragmented slice
                    self.picture.hurt = true;
                }
            }
            _ => {}
        }
        if marker {
            let picture = std::mem::take(&mut self.picture);
            if picture.slices {
                self.complete(picture, now_us);
            }
        }
    }

    fn nal(&mut self, kind: u8, nal: &[u8]) {
        match kind {
            1..=5 => {
                self.picture.slices = true;
                self.picture.key |= kind == 5;
            }
            6 => self.picture.stamp = stamp::read(nal).or(self.picture.stamp),
            _ => {}
        }
    }

    /// STAP-A, RFC 6184 5.7.1.
    fn aggregate(&mut self, mut rest: &[u8]) {
        while let Some((size, after)) = rest.split_first_chunk::<2>() {
            let size = usize::from(u16::from_be_bytes(*size));
            if size == 0 || size > after.len() {
                return;
            }
            let (nal, after) = after.split_at(size);
            self.nal(nal[0] & 0x1f, nal);
            rest = after;
        }
    }

    fn complete(&mut self, picture: Picture, now_us: u64) {
        let seen = &mut self.seen;
        // what came before the first picture's first packet is no damage
        seen.damaged += u64::from(picture.hurt && seen.pictures > 0);
        seen.pictures += 1;
        if let Some(last) = self.last_picture_us.replace(now_us) {
            seen.freeze_ms = seen.freeze_ms.max(now_us.saturating_sub(last) as f64 / 1e3);
        }
        let whole_key = picture.key && !picture.hurt;
        let mut jumped = false;
        if let Some((stamp_us, number)) = picture.stamp {
            let age_us = now_us.saturating_sub(stamp_us);
            seen.stamped += 1;
            seen.first.get_or_insert(number);
            match seen.last {
                Some(last) if number <= last => seen.repeated += 1,
                Some(last) => {
                    jumped = number - last > 1;
                    seen.missing += u64::from(number - last - 1);
                }
                None => {}
            }
            seen.last = Some(number);
            seen.undecodable_jumps += u64::from(jumped && !whole_key);
            if whole_key && seen.first_key_ms.is_none() {
                seen.first_key_ms = Some(now_us.saturating_sub(self.connected_us) as f64 / 1e3);
                seen.first_key_age_ms = Some(age_us as f64 / 1e3);
            }
            if self.window_us.is_some_and(|(from, to)| (from..to).contains(&now_us)) {
                self.latency_us.push(u32::try_from(age_us).unwrap_or(u32::MAX));
            }
            self.decodable = whole_key || self.decodable && !picture.hurt && !jumped;
            self.last_live = Some(Live { age_us, decodable: self.decodable });
        } else {
            self.decodable = whole_key || self.decodable && !picture.hurt;
        }
    }
}

/// An access unit delimiter or a sequence parameter set comes first, alone or in a STAP-A (H.264 7.4.1.2.3).
fn starts_picture(payload: &[u8]) -> bool {
    let first = if payload[0] & 0x1f == 24 { payload.get(3) } else { payload.first() };
    first.is_some_and(|b| matches!(b & 0x1f, 7 | 9))
}

/// The payload of an RTP packet of at least 12 bytes; none where it is empty.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = packet[0];
    let mut start = 12 + 4 * usize::from(first & 15);
    if first & 0x10 != 0 {
        let words = packet.get(start + 2..start + 4)?;
        start += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    let padding = if first & 0x20 != 0 { usize::from(*packet.last()?) } else { 0 };
    packet.get(start..packet.len().checked_sub(padding)?).filter(|p| !p.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(seq: u16, time: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 96 | u8::from(marker) << 7];
        packet.extend(seq.to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(payload);
        packet
    }

    fn picture(receiver: &mut Receiver, seq: u16, number: u32, key: bool) {
        receiver.packet(&rtp(seq, number, false, &stamp::write(1_000, number)), 5_000);
        receiver.packet(&rtp(seq.wrapping_add(1), number, true, &[if key { 0x65 } else { 0x41 }, 0x88]), 5_000);
    }

    #[test]
    fn a_jump_to_a_key_picture_is_decodable_and_one_to_another_is_not() {
        let mut receiver = Receiver::new(0, Some((0, 10_000)));
        picture(&mut receiver, 65_534, 1, true);
        picture(&mut receiver, 0, 2, false);
        assert!(receiver.take_live().unwrap().decodable);
        picture(&mut receiver, 2, 9, true);
        assert!(receiver.take_live().unwrap().decodable);
        assert_eq!((receiver.seen.missing, receiver.seen.undecodable_jumps), (6, 0));
        picture(&mut receiver, 4, 12, false);
        assert!(!receiver.take_live().unwrap().decodable);
        assert_eq!((receiver.seen.missing, receiver.seen.undecodable_jumps), (8, 1));
        assert_eq!((receiver.seen.lost_packets, receiver.seen.damaged), (0, 0));
        assert_eq!(receiver.latency_us, [4_000; 4]);
    }

    #[test]
    fn a_lost_packet_damages_its_picture_only() {
        let mut receiver = Receiver::new(0, None);
        picture(&mut receiver, 0, 1, true);
        picture(&mut receiver, 3, 2, false); // 2 is missing
        picture(&mut receiver, 5, 3, true);
        assert_eq!((receiver.seen.lost_packets, receiver.seen.damaged, receiver.seen.missing), (1, 1, 0));
        picture(&mut receiver, 5, 3, true); // doubled
        assert_eq!((receiver.seen.pictures, receiver.seen.repeated), (3, 0));
    }

    #[test]
    fn packets_left_out_before_a_key_picture_do_not_hurt_it() {
        let mut receiver = Receiver::new(0, None);
        picture(&mut receiver, 0, 1, true);
        receiver.packet(&rtp(40, 9, false, &[0x67, 77, 0, 31]), 5_000); // packets and pictures are missing before
        picture(&mut receiver, 41, 9, true);
        assert!(receiver.take_live().unwrap().decodable);
        assert_eq!((receiver.seen.lost_packets, receiver.seen.damaged, receiver.seen.undecodable_jumps), (38, 0, 0));
    }

    #[test]
    fn a_picture_without_its_end_is_damaged_and_the_next_one_is_not() {
        let mut receiver = Receiver::new(0, None);
        picture(&mut receiver, 0, 1, true);
        receiver.packet(&rtp(2, 2, false, &stamp::write(1_000, 2)), 5_000);
        receiver.packet(&rtp(3, 2, false, &[28 | 0x40, 0x81, 1]), 5_000); // the first fragment of a slice
        receiver.packet(&rtp(5, 3, false, &[0x67, 77, 0, 31]), 5_000);
        picture(&mut receiver, 6, 3, true);
        assert_eq!((receiver.seen.pictures, receiver.seen.damaged, receiver.seen.missing), (3, 1, 0));
        assert!(receiver.take_live().unwrap().decodable);
    }

    #[test]
    fn stap_a_is_read_and_nonsense_is_ignored() {
        let mut receiver = Receiver::new(0, None);
        let sei = stamp::write(7, 4);
        let mut stap = vec![24];
        for nal in [&[0x67u8, 1, 2][..], &sei, &[0x65, 0x88]] {
            stap.extend((nal.len() as u16).to_be_bytes());
            stap.extend(nal);
        }
        receiver.packet(&rtp(9, 0, true, &stap), 100);
        assert_eq!((receiver.seen.first, receiver.seen.first_key_ms), (Some(4), Some(0.1)));
        for nonsense in [&[][..], &[0x80], &[0xb0, 0xe0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0], &[0x9f; 12]] {
            receiver.packet(nonsense, 100);
        }
        assert_eq!(receiver.seen.pictures, 1);
    }
}
