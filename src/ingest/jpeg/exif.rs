//! What Exif says of a picture's orientation (CIPA DC-008-2019, sections 4.5 and 4.6.4).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::Rotation;

/// The tag of the orientation in the first directory.
const ORIENTATION: u16 = 0x0112;
/// Directories of cameras have some twenty entries.
const MOST_ENTRIES: u16 = 512;

/// How far a picture that begins with these bytes is to be turned to be upright. Anything that is not a plain turn, and
/// anything that cannot be read, is no turn.
pub(super) fn rotation(picture: &[u8]) -> Rotation {
    match exif(picture).and_then(orientation) {
        Some(3) => Rotation::Half,
        Some(6) => Rotation::Quarter,
        Some(8) => Rotation::ThreeQuarters,
        _ => Rotation::None,
    }
}

/// The TIFF structure in the first Exif segment, which stands before all others but JFIF's.
fn exif(picture: &[u8]) -> Option<&[u8]> {
    let mut rest = picture.get(2..)?;
    loop {
        let (&[0xff, code @ 0xe0..=0xef, high, low], _) = rest.split_first_chunk()? else { return None };
        let (segment, after) = rest.split_at_checked(2 + usize::from(u16::from_be_bytes([high, low])))?;
        if code == 0xe1
            && let Some(tiff) = segment.get(4..)?.strip_prefix(b"Exif\0\0")
        {
            return Some(tiff);
        }
        rest = after;
    }
}

fn orientation(tiff: &[u8]) -> Option<u16> {
    let little = match tiff.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let count = short(directory)?.min(MOST_ENTRIES);
    let entry = (0..count).map(|number| directory + 2 + 12 * usize::from(number));
    let entry = entry.take_while(|at| at + 12 <= tiff.len()).find(|at| short(*at) == Some(ORIENTATION))?;
    short(entry + 8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An Exif segment that says so.
    pub(in super::super) fn segment(orientation: u16, little: bool) -> Vec<u8> {
        let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut tiff = if little { b"II".to_vec() } else { b"MM".to_vec() };
        tiff.extend(short(42));
        tiff.extend(long(8));
        tiff.extend(short(2));
        for (tag, value) in [(0x0100, 640), (ORIENTATION, orientation)] {
            tiff.extend(short(tag));
            tiff.extend(short(3));
            tiff.extend(long(1));
            tiff.extend(short(value));
            tiff.extend(short(0));
        }
        tiff.extend(long(0));
        let length = (2 + 6 + tiff.len()) as u16;
        [&[0xff, 0xe1][..], &length.to_be_bytes(), b"Exif\0\0", &tiff].concat()
    }

    #[test]
    fn plain_turns_are_read_in_both_byte_orders() {
        for little in [true, false] {
            for (value, expected) in [
                (0, Rotation::None),
                (1, Rotation::None),
                (2, Rotation::None),
                (3, Rotation::Half),
                (6, Rotation::Quarter),
                (8, Rotation::ThreeQuarters),
                (99, Rotation::None),
            ] {
                let jfif = [0xff, 0xe0, 0, 4, 1, 2];
                let bytes = [&[0xff, 0xd8][..], &jfif, &segment(value, little), &[0xff, 0xdb]].concat();
                assert_eq!(rotation(&bytes), expected, "{value}, {little}");
            }
        }
        assert_eq!(rotation(&[0xff, 0xd8, 0xff, 0xdb, 0, 4, 1, 2]), Rotation::None);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0_usize..60, byte: u8, cut in 0_usize..60) {
            let mut bytes = [&[0xff, 0xd8][..], &segment(6, true)].concat();
            let end = bytes.len();
            bytes[at % end] = byte;
            bytes.truncate(end - cut % end);
            rotation(&bytes);
        }
    }
}
