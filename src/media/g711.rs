//! G.711 mu-law (ITU-T G.711 table 2): 16-bit samples to octets and back.

/// What is added before the logarithm, so that the segments meet (G.711: 33 in 14-bit counts, here in 16-bit ones).
const BIAS: u16 = 33 << 2;
/// The loudest sample that still fits, in 16-bit counts.
const LOUDEST: u16 = 32_767 - BIAS;

/// The octet of silence.
pub const SILENCE: u8 = 0xff;

/// One sample as a mu-law octet: inverted bits, the sign first (1 for positive), then 3 bits of segment, 4 of step.
///
/// ```
/// use fanlight::media::g711::{SILENCE, mu_law};
/// assert_eq!(mu_law(0), SILENCE);
/// assert_eq!((mu_law(i16::MAX), mu_law(i16::MIN)), (0x80, 0x00));
/// ```
pub fn mu_law(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let biased = sample.unsigned_abs().min(LOUDEST) + BIAS;
    // The bias makes bit 7 or one above it the highest: segments 0 to 7.
    let segment = 8 - biased.leading_zeros() as u16;
    let step = (biased >> (segment + 3)) & 0x0f;
    !(sign | ((segment << 4) | step) as u8)
}

/// 16-bit samples to mu-law octets.
pub fn to_mu_law(samples: &[i16]) -> Vec<u8> {
    samples.iter().copied().map(mu_law).collect()
}

/// The sample of a mu-law octet.
pub fn linear(octet: u8) -> i16 {
    let bits = !octet;
    let (segment, step) = (bits >> 4 & 7, i16::from(bits & 15));
    let magnitude = (((step * 2 + 33) << segment) - 33) * 4;
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_survives_decoding_and_coding() {
        for octet in 0..=255_u8 {
            let again = mu_law(linear(octet));
            // There are two zeros.
            assert!(again == octet || (linear(octet) == 0 && again == SILENCE), "{octet:02x} became {again:02x}");
        }
    }

    #[test]
    fn no_sample_is_off_by_more_than_half_a_step() {
        for sample in -32_635..=32_635_i16 {
            let octet = mu_law(sample);
            let error = (i32::from(linear(octet)) - i32::from(sample)).abs();
            let segment = !octet >> 4 & 7;
            assert!(error <= 4 << segment, "{sample}: off by {error} in segment {segment}");
        }
    }
}
