//! Annex B byte streams: NAL units after start codes (H.264 and H.265, each Annex B).
//!
//! A start code is `00 00 01`; zero bytes before it (the fourth byte of the long form, padding) belong to no NAL unit,
//! because none ends in a zero byte (H.264 section 7.4.1, H.265 section 7.4.2).
#![deny(clippy::indexing_slicing)]

use memchr::memmem;

/// What a scanner ([`h264::Scanner`](super::h264::Scanner), [`h265::Scanner`](super::h265::Scanner)) saw in one access
/// unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// A decoder that has the stream's parameter sets may start here.
    pub random_access: bool,
    /// The access unit holds a coded picture; one without (parameter sets or SEI on their own) is no picture.
    pub picture: bool,
    /// The scanner's `format()` is not what it was before this access unit.
    pub changed: bool,
    /// All kinds of parameter sets that the codec needs came in front of the picture in this access unit, so they need
    /// not be put there.
    pub parameter_sets: bool,
}

/// The NAL units of a byte stream, each from its header on, without start code and trailing zeros.
///
/// Bytes before the first start code are no NAL unit, and empty NAL units are left out.
///
/// ```
/// let stream = [0, 0, 0, 1, 0x67, 0x42, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 1, 0x65, 0x88];
/// let nals: Vec<&[u8]> = fanlight::media::annex_b::nal_units(&stream).collect();
/// assert_eq!(nals, [&[0x67, 0x42][..], &[0x68, 0xce], &[0x65, 0x88]]);
/// ```
pub fn nal_units(stream: &[u8]) -> NalUnits<'_> {
    NalUnits { next: find_start_code(stream).and_then(|(_, after)| skip_empty(after)) }
}

/// Iterator of [`nal_units`].
#[derive(Clone, Debug)]
pub struct NalUnits<'a> {
    /// The stream from the next NAL unit's header on.
    next: Option<&'a [u8]>,
}

impl<'a> NalUnits<'a> {
    /// The stream from the header of the next NAL unit on, up to its very end. Unlike `next()` this does not look for
    /// the end of the NAL unit, which for a slice means walking the whole picture.
    pub fn head(&self) -> Option<&'a [u8]> {
        self.next
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let stream = self.next?;
        let nal = match find_start_code(stream) {
            Some((nal, after)) => {
                self.next = skip_empty(after);
                nal
            }
            None => {
                self.next = None;
                stream
            }
        };
        let end = nal.iter().rposition(|&byte| byte != 0)? + 1;
        nal.get(..end)
    }
}

/// Appends `nal` behind a start code of four bytes, which every reader of Annex B takes in every place.
pub fn push(out: &mut Vec<u8>, nal: &[u8]) {
    out.reserve(nal.len() + 4);
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(nal);
}

/// The first `length` bytes of the stream from a NAL unit's header on ([`NalUnits::head`]), or less where a start code or
/// padding comes before: bit readers refuse those, also behind what they are asked for.
pub(super) fn begin(head: &[u8], length: usize) -> &[u8] {
    let begin = head.get(..length).unwrap_or(head);
    let end = begin.windows(3).position(|three| matches!(three, [0, 0, 0 | 1])).unwrap_or(begin.len());
    begin.get(..end).unwrap_or_default()
}

/// What lies before the next start code, and what after it.
fn find_start_code(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memmem::find(stream, &[0, 0, 1])?;
    Some((stream.get(..at)?, stream.get(at + 3..)?))
}

/// Moves on to the first NAL unit with a byte in it. A header may begin with a zero byte (H.265 type 0), but not with
/// two.
fn skip_empty(mut stream: &[u8]) -> Option<&[u8]> {
    loop {
        let zeros = stream.iter().position(|&byte| byte != 0)?;
        match stream.get(zeros) {
            Some(1) if zeros >= 2 => stream = stream.get(zeros + 1..)?,
            _ => return Some(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(stream: &[u8]) -> Vec<&[u8]> {
        nal_units(stream).collect()
    }

    #[test]
    fn both_start_codes_and_padding() {
        let stream = [0, 0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 6, 5, 0, 0, 0, 0, 0, 1, 0x65, 1, 2, 0, 0];
        assert_eq!(all(&stream), [&[9, 0xf0][..], &[6, 5], &[0x65, 1, 2]]);
    }

    #[test]
    fn nothing_without_a_start_code() {
        assert!(all(&[]).is_empty());
        assert!(all(&[0x65, 1, 2, 3]).is_empty());
        assert!(all(&[0, 0]).is_empty());
        assert!(all(&[0, 0, 1]).is_empty());
        assert!(all(&[0, 0, 1, 0, 0, 0]).is_empty());
    }

    #[test]
    fn garbage_in_front_and_empty_units_are_left_out() {
        assert_eq!(all(&[7, 7, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0x41, 0x9a, 0, 0, 1]), [&[0x41, 0x9a]]);
    }

    #[test]
    fn a_header_that_begins_with_a_zero_is_kept() {
        // H.265 TRAIL_N has the header 00 01.
        let nals = [0, 0, 1, 0, 1, 0xd0, 0, 0, 1, 0, 1, 0xd1];
        assert_eq!(all(&nals), [&[0, 1, 0xd0], &[0, 1, 0xd1]]);
    }

    #[test]
    fn head_reaches_to_the_end_of_the_stream() {
        let stream = [0, 0, 1, 0x65, 9, 0, 0, 1, 0x65, 8];
        let mut nals = nal_units(&stream);
        assert_eq!(nals.head(), Some(&stream[3..]));
        assert_eq!(nals.next(), Some(&stream[3..5]));
        assert_eq!(nals.head(), Some(&stream[8..]));
        assert_eq!(nals.next(), Some(&stream[8..]));
        assert_eq!(nals.head(), None);
    }

    proptest! {
        #[test]
        fn what_is_pushed_comes_back(nals in prop::collection::vec(prop::collection::vec(2_u8.., 1..40), 0..8)) {
            let mut stream = Vec::new();
            for nal in &nals {
                push(&mut stream, nal);
            }
            prop_assert_eq!(all(&stream), nals.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_give_units_that_end_in_no_zero(stream in prop::collection::vec(0_u8..4, 0..64)) {
            for nal in nal_units(&stream) {
                prop_assert!(nal.last().is_some_and(|&last| last != 0));
            }
        }
    }
}
