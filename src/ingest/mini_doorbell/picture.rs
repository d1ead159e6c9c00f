//! Pictures as units send them: perhaps damaged, perhaps no pictures at all.
//!
//! A unit's picture comes to its base by radio, packet by packet, and a packet that is lost goes unnoticed: the rest closes
//! up, and the end of the memory still holds an older picture (firmware, read). So pictures that do not decode to their
//! end are to be expected, and what is left of one still shows who was there.

use crate::ingest::Rotation;
use crate::ingest::jpeg::{self, Checked, Rejected};
use crate::media;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::Semaphore;
use turbojpeg::{Decompressor, Image, PixelFormat, Subsamp};

/// No unit has a sensor of more pixels: they send up to 640x480. A JPEG of 64 KiB can claim many more, each of which costs
/// memory and time.
const MOST_PIXELS: usize = 2 << 20;
/// Units send one scan. Each goes through the whole picture, and can be a few bytes.
const MOST_SCANS: u8 = 3;
/// A picture of more pixels, or of several scans, is no unit's usual one.
const USUAL_PIXELS: usize = 640 * 480;
/// So long a picture that is not a usual one waits for others of that kind. Then its visit is told without it.
const WAIT: Duration = Duration::from_secs(2);
/// What libjpeg-turbo says of pictures whose coded bytes are damaged, once it has decoded the rest.
const DAMAGED: [&str; 2] = ["Corrupt JPEG data", "Premature end of JPEG file"];
/// One row in so many must show something.
const LEAST: usize = 8;

/// Why a unit's picture is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// It is none that can be published.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Units do not send such pictures.
    #[error("no unit sends a progressive picture, or one of {scans} scans")]
    Foreign {
        /// How many it has.
        scans: usize,
    },
    /// Other pictures of that kind keep us busy.
    #[error("too many pictures at once that are larger than units' pictures")]
    Busy,
}

/// Refuses what is no unit's picture, before it is decoded: too many pixels, progressive, too many scans. Bytes behind the
/// picture's EOI are no fault. Answers whether it is as small as units' pictures are.
///
/// # Errors
/// [`Unusable`] also if the markers are wrong.
pub(super) fn look(body: &Bytes) -> Result<bool, Unusable> {
    let media::jpeg::Picture { width, height, baseline, scans, .. } =
        media::jpeg::parse(body).map_err(Rejected::from)?;
    let pixels = usize::from(width) * usize::from(height);
    if pixels > MOST_PIXELS {
        return Err(Rejected::TooLarge { width, height }.into());
    }
    if !baseline || scans > usize::from(MOST_SCANS) {
        return Err(Unusable::Foreign { scans });
    }
    Ok(pixels <= USUAL_PIXELS && scans == 1)
}

/// Checks a picture and turns it.
///
/// # Errors
/// [`Unusable`] says what is wrong with it.
pub(super) fn check(body: &Bytes, rotation: Rotation) -> Result<Checked, Unusable> {
    look(body)?;
    Ok(jpeg::check(body.clone(), rotation)?)
}

/// Pictures that cost more than usual: one at a time, and not on the threads that cameras share.
#[derive(Debug)]
pub(super) struct Turn(Semaphore);

impl Default for Turn {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Turn {
    /// Does that work; not at all, if the work of others takes too long.
    pub(super) async fn take<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let _turn = tokio::time::timeout(WAIT, self.0.acquire()).await.ok()?.ok()?;
        Some(jpeg::apart::apart(work))
    }
}

/// What can be seen of a damaged picture, coded anew; the rest of it is grey.
pub(super) fn salvage(body: &[u8]) -> Option<Bytes> {
    let mut decompressor = Decompressor::new().ok()?;
    decompressor.set_scan_limit(MOST_SCANS.into()).ok()?;
    // Units send baseline pictures.
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
    use crate::ingest::testing::scans;
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

    #[test]
    fn what_no_unit_sends_is_not_decoded() {
        assert!(look(&corners(1).unwrap()).unwrap());
        assert!(!look(&scans(0xc0, 1, 1_280, 960, 1)).unwrap() && !look(&scans(0xc0, 3, 64, 48, 3)).unwrap());
        assert!(matches!(look(&scans(0xc2, 1, 64, 48, 1)), Err(Unusable::Foreign { scans: 1 })));
        assert!(matches!(look(&scans(0xc0, 3, 64, 48, 4)), Err(Unusable::Foreign { scans: 4 })));
        let large = look(&scans(0xc0, 1, 2_048, 1_032, 1));
        assert!(matches!(large, Err(Unusable::Rejected(Rejected::TooLarge { .. }))));
        // And neither is what is left of it.
        assert!(salvage(&scans(0xc0, 3, 64, 48, 3)).is_some());
        for scans in [scans(0xc0, 3, 64, 48, 4), scans(0xc0, 3, 640, 480, 250), scans(0xc2, 1, 64, 48, 1)] {
            assert_eq!(salvage(&scans), None);
        }
        assert_eq!(salvage(&scans(0xc0, 1, 2_048, 1_032, 1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn too_much_at_once_is_not_waited_for() {
        let turn = Turn::default();
        assert_eq!(turn.take(|| 1).await, Some(1));
        let busy = turn.0.acquire().await.unwrap();
        let waits = async { tokio::join!(turn.take(|| 2), turn.take(|| 3)) };
        assert_eq!(waits.await, (None, None));
        drop(busy);
        assert_eq!(turn.take(|| 4).await, Some(4));
    }
}
