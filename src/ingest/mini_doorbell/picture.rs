//! Pictures as units send them: perhaps damaged, perhaps no pictures at all.
//!
//! A unit's picture comes to its base by radio, packet by packet, and a packet that is lost goes unnoticed: the rest closes
//! up, and the end of the memory still holds an older picture (firmware, read). So pictures that do not decode to their
//! end are to be expected, and what is left of one still shows who was there.

use crate::ingest::Rotation;
use crate::ingest::jpeg::{self, Checked, Rejected};
use crate::media;
use bytes::Bytes;
use turbojpeg::{Decompressor, Image, PixelFormat, Subsamp};

/// No unit has a sensor of more pixels. A JPEG of 64 KiB can claim many more, each of which costs memory and time.
const MOST_PIXELS: usize = 4 << 20;
/// What libjpeg-turbo says of pictures whose coded bytes are damaged, once it has decoded the rest.
const DAMAGED: [&str; 2] = ["Corrupt JPEG data", "Premature end of JPEG file"];
/// One row in so many must show something.
const LEAST: usize = 8;

/// Refuses what claims to be larger than any unit's picture, before it is decoded. Bytes behind the picture's EOI are no
/// fault.
///
/// # Errors
/// [`Rejected`] if the markers are wrong or name too many pixels.
pub(super) fn look(body: &Bytes) -> Result<(), Rejected> {
    let media::jpeg::Picture { width, height, .. } = media::jpeg::parse(body)?;
    if usize::from(width) * usize::from(height) > MOST_PIXELS {
        return Err(Rejected::TooLarge { width, height });
    }
    Ok(())
}

/// Checks a picture and turns it.
///
/// # Errors
/// [`Rejected`] says what is wrong with it.
pub(super) fn check(body: &Bytes, rotation: Rotation) -> Result<Checked, Rejected> {
    look(body)?;
    jpeg::check(body.clone(), rotation)
}

/// What can be seen of a damaged picture, coded anew; the rest of it is grey.
pub(super) fn salvage(body: &[u8]) -> Option<Bytes> {
    let mut decompressor = Decompressor::new().ok()?;
    // Units send baseline pictures. Progressive ones can hold endless scans.
    let header = decompressor.read_header(body).ok().filter(|header| !header.is_progressive)?;
    let (width, height, format) = (header.width, header.height, PixelFormat::RGB);
    if width.checked_mul(height)? > MOST_PIXELS {
        return None;
    }
    let pitch = width * format.size();
    let mut pixels = vec![128; pitch * height];
    let image = Image { pixels: pixels.as_mut_slice(), width, pitch, height, format };
    match decompressor.decompress(body, image) {
        Ok(()) => {}
        Err(error) if DAMAGED.iter().any(|words| error.to_string().contains(words)) => {}
        Err(_) => return None,
    }
    let shown = |row: &&[u8]| row.iter().any(|part| part.abs_diff(128) > LEAST as u8);
    if pixels.chunks_exact(pitch).filter(shown).count() * LEAST < height {
        return None;
    }
    let image = Image { pixels: pixels.as_slice(), width, pitch, height, format };
    turbojpeg::compress(image, 90, Subsamp::Sub2x2).ok().map(|bytes| Bytes::copy_from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::mini_doorbell::corners;

    #[test]
    fn what_is_left_of_a_picture_is_shown() {
        let whole = corners(1).unwrap();
        let middle = whole.len() / 2;
        let lost_packet = [&whole[..middle], &whole[middle + 30..], &whole[whole.len() - 30..]].concat();
        for damaged in [&whole[..middle], &lost_packet] {
            let left = salvage(damaged).unwrap();
            let checked = check(&left, Rotation::Half).unwrap();
            assert_eq!((checked.width, checked.height), (320, 240));
            // The sensor is upside down, so the beginning of the picture is its end.
            let image = turbojpeg::decompress(&checked.bytes, PixelFormat::RGB).unwrap();
            let corner = (220 * image.width + 300) * 3;
            assert!(image.pixels[corner..corner + 3].iter().all(|part| *part > 200), "white");
        }
        assert_eq!(salvage(&whole[..whole.len() / 20]), None);
        assert_eq!(salvage(b"no picture"), None);
        assert_eq!(salvage(b"\xff\xd8\xff\xd9"), None);
        assert_eq!(salvage(&[]), None);
    }
}
