//! Pictures as units send them: perhaps damaged, perhaps no pictures at all.

use crate::ingest::Rotation;
use crate::ingest::jpeg::{self, Checked, Rejected};
use crate::media;
use bytes::Bytes;

/// No unit has a sensor of more pixels. A JPEG of 64 KiB can claim many more, each of which costs memory and time.
const MOST_PIXELS: u32 = 4 << 20;

/// Refuses what claims to be larger than any unit's picture, before it is decoded.
///
/// Bytes behind the picture's EOI are no fault: radio packets that are lost unnoticed make pictures shorter than the unit
/// announces, and what follows is left from an older one (firmware, read).
///
/// # Errors
/// [`Rejected`] if the markers are wrong or name too many pixels.
pub(super) fn look(body: &Bytes) -> Result<(), Rejected> {
    let media::jpeg::Picture { width, height, .. } = media::jpeg::parse(body)?;
    if u32::from(width) * u32::from(height) > MOST_PIXELS {
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
