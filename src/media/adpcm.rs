//! IMA ADPCM as IWFCam cameras send it: 4 bits a sample, each block with the decoder's state in front.
//!
//! A block is a start value (i16, little-endian), a step index (0 to 88), a zero, then two codes a byte, the **low
//! nibble first** (captures of two models, and the vendor's phone library). The start value is state and not a sample:
//! 512 bytes of codes are 1024 samples, not the 1025 of IMA blocks in WAV files. Some cameras leave the header zero in
//! every block; loading it is right for them too.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

/// Bytes before the codes.
pub const HEADER: usize = 4;

/// IMA step sizes (IMA Digital Audio Focus and Technical Working Groups, 1992; compared with the vendor's table).
#[rustfmt::skip]
const STEPS: [i32; 89] = [
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107,
    118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963,
    1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894,
    6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794,
    32767,
];
const LAST_STEP: u8 = 88;

/// What decoding of the next code starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The last sample.
    pub value: i16,
    /// Where in the table of steps, at most 88.
    pub index: u8,
}

impl State {
    fn step(self) -> i32 {
        STEPS.get(usize::from(self.index)).copied().unwrap_or(32_767)
    }

    /// The sample of a 4-bit code.
    ///
    /// The textbook sums shifted steps; this is the vendor's arithmetic, which differs by a few units.
    pub fn decode(&mut self, code: u8) -> i16 {
        let step = self.step();
        let magnitude = i32::from(code & 7);
        let delta = ((magnitude * step) >> 2) + (step >> 3);
        let value = i32::from(self.value) + if code & 8 == 0 { delta } else { -delta };
        self.value = value.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        self.index = match code & 7 {
            0..=3 => self.index.saturating_sub(1),
            louder => (self.index + (louder - 3) * 2).min(LAST_STEP),
        };
        self.value
    }

    /// The code that comes nearest to a sample from below; moves on as the decoder will.
    pub fn encode(&mut self, sample: i16) -> u8 {
        let difference = i32::from(sample) - i32::from(self.value);
        let sign = if difference < 0 { 8 } else { 0 };
        let magnitude = (difference.abs() * 4 / self.step()).min(7) as u8;
        self.decode(sign | magnitude);
        sign | magnitude
    }
}

/// The samples of a block, two a byte behind the [`HEADER`]; `None` if it is too short for that, or if its step index
/// is none.
pub fn decode(block: &[u8]) -> Option<Vec<i16>> {
    let (&[low, high, index, _], codes) = block.split_first_chunk::<HEADER>()?;
    let mut state = State { value: i16::from_le_bytes([low, high]), index };
    if index > LAST_STEP {
        return None;
    }
    let mut samples = Vec::with_capacity(codes.len() * 2);
    for byte in codes {
        samples.push(state.decode(byte & 0x0f));
        samples.push(state.decode(byte >> 4));
    }
    Some(samples)
}

/// A block of samples, an even number of them; goes on from `state`.
pub fn encode(state: &mut State, samples: &[i16]) -> Vec<u8> {
    let [low, high] = state.value.to_le_bytes();
    let mut block = vec![low, high, state.index, 0];
    for pair in samples.chunks_exact(2) {
        let mut codes = pair.iter().map(|sample| state.encode(*sample));
        let first = codes.next().unwrap_or_default();
        block.push(first | (codes.next().unwrap_or_default() << 4));
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_as_the_vendor_does() {
        // Vector V16 of the protocol's description.
        let samples = decode(&[0x38, 0xff, 0x14, 0x00, 0x0f, 0x71, 0x83, 0xa4]).unwrap();
        assert_eq!(samples, [-293, -280, -244, -79, 86, 65, 241, 123]);
    }

    #[test]
    fn a_block_of_516_bytes_is_128_ms() {
        assert_eq!(decode(&[0; 516]).unwrap().len(), 1024);
        assert_eq!(decode(&[0; 4]), Some(Vec::new()));
        assert_eq!(decode(&[0; 3]), None);
        assert_eq!(decode(&[0, 0, 89, 0, 1]), None, "no such step");
    }

    #[test]
    fn the_loudest_stays_within_16_bits() {
        let up = decode(&[0xff, 0x7f, 88, 0, 0x77, 0x77]).unwrap();
        assert!(up.iter().all(|sample| *sample == i16::MAX), "{up:?}");
        let down = decode(&[0x00, 0x80, 88, 0, 0xff, 0xff]).unwrap();
        assert!(down.iter().all(|sample| *sample == i16::MIN), "{down:?}");
    }

    #[test]
    fn what_is_encoded_comes_back_alike() {
        let wave: Vec<i16> = (0..2048).map(|n| (f64::from(n) * 0.35).sin() * 9_000.0).map(|v| v as i16).collect();
        let mut state = State::default();
        let blocks: Vec<_> = wave.chunks(1024).map(|samples| encode(&mut state, samples)).collect();
        assert!(blocks.iter().all(|block| block.len() == 516));
        let again: Vec<i16> = blocks.iter().flat_map(|block| decode(block).unwrap()).collect();
        let error: f64 = wave.iter().zip(&again).skip(64).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let power: f64 = wave.iter().skip(64).map(|a| f64::from(*a).powi(2)).sum();
        assert!(power / error > 100.0, "less than 20 dB above its noise: {}", power / error);
    }
}
