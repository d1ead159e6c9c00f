//! Pictures as a unit sends them: small, and upside down.

use crate::simulate::SimulateError;
use crate::simulate::rtsp::{Audio, Clip, Footage, Video};
use bytes::Bytes;
use turbojpeg::{Compressor, Decompressor, Image, PixelFormat, ScalingFactor, Subsamp};

/// The longest picture that fits a unit's memory, in bytes.
pub const LONGEST: usize = 16_500;
/// Units have a sensor of 640x480 at most.
const WIDEST: usize = 640;
/// Pictures that are taken of a clip.
const MOST: usize = 12;

fn failed(error: turbojpeg::Error) -> SimulateError {
    SimulateError::System(std::io::Error::other(error))
}

/// Pictures from all over the clip, as a unit sends them. Blocks for some seconds.
///
/// # Errors
/// Those of [`Clip::load`], and an encoder that cannot be used.
pub fn footage(footage: &Footage) -> Result<Vec<Bytes>, SimulateError> {
    let clip = Clip::load(footage, Video::Jpeg, Audio::None)?;
    let pictures = clip.jpeg_pictures();
    let step = pictures.len().div_ceil(MOST).max(1);
    pictures.iter().step_by(step).map(|picture| upside_down(picture)).collect()
}

/// A JPEG as a unit sends it: at most 640 pixels wide, both sides a multiple of 16, at most [`LONGEST`] bytes, turned by
/// half a turn.
///
/// # Errors
/// A picture that does not decode.
pub fn upside_down(picture: &[u8]) -> Result<Bytes, SimulateError> {
    let mut decompressor = Decompressor::new().map_err(failed)?;
    let header = decompressor.read_header(picture).map_err(failed)?;
    let scale = [ScalingFactor::ONE, ScalingFactor::ONE_HALF, ScalingFactor::ONE_QUARTER]
        .into_iter()
        .find(|scale| scale.scale(header.width) <= WIDEST)
        .unwrap_or(ScalingFactor::ONE_EIGHTH);
    decompressor.set_scaling_factor(scale).map_err(failed)?;
    let (width, height, format) = (scale.scale(header.width), scale.scale(header.height), PixelFormat::RGB);
    let mut pixels = vec![0; width * height * 3];
    let image = Image { pixels: pixels.as_mut_slice(), width, pitch: width * 3, height, format };
    decompressor.decompress(picture, image).map_err(failed)?;
    let (kept_width, kept_height) = (width / 16 * 16, height / 16 * 16);
    let rows = pixels.chunks_exact(width * 3).take(kept_height);
    let rows = rows.map(|row| row.get(..kept_width * 3).unwrap_or_default().chunks_exact(3));
    // From the last pixel to the first.
    let turned: Vec<u8> = rows.rev().flat_map(Iterator::rev).flatten().copied().collect();
    compress(&turned, kept_width, kept_height)
}

/// 320x240 pixels that show which way is up once they are turned: red, green, blue and white in the corners, in reading
/// order, and something in the middle that differs with `n`.
///
/// # Errors
/// An encoder that cannot be used.
pub fn corners(n: u32) -> Result<Bytes, SimulateError> {
    let (width, height) = (320, 240);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let middle = [(n * 40) as u8, (n / 6 * 40) as u8, (n / 36 * 40) as u8];
            pixels.extend(match (x < 80, x >= 240, y < 80, y >= 160) {
                (true, _, true, _) => [255, 0, 0],
                (_, true, true, _) => [0, 255, 0],
                (true, _, _, true) => [0, 0, 255],
                (_, true, _, true) => [255, 255, 255],
                _ => middle,
            });
        }
    }
    let turned: Vec<u8> = pixels.chunks_exact(3).rev().flatten().copied().collect();
    compress(&turned, width, height)
}

/// With the best quality that fits a unit's memory.
fn compress(pixels: &[u8], width: usize, height: usize) -> Result<Bytes, SimulateError> {
    let mut compressor = Compressor::new().map_err(failed)?;
    compressor.set_subsamp(Subsamp::Sub2x2).map_err(failed)?;
    let mut quality = 80;
    loop {
        compressor.set_quality(quality).map_err(failed)?;
        let image = Image { pixels, width, pitch: width * 3, height, format: PixelFormat::RGB };
        let bytes = compressor.compress_to_vec(image).map_err(failed)?;
        if bytes.len() <= LONGEST || quality <= 10 {
            return Ok(bytes.into());
        }
        quality -= 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::jpeg;

    #[test]
    fn the_visitors_fit_a_unit() {
        let pictures = footage(&Footage::Visitors).unwrap();
        assert!((2..=MOST).contains(&pictures.len()));
        for picture in &pictures {
            let parsed = jpeg::parse(picture).unwrap();
            assert!(parsed.width <= 640 && parsed.width.is_multiple_of(16) && parsed.height.is_multiple_of(16));
            assert!(picture.len() <= LONGEST && parsed.rtp_form().is_some(), "{} bytes", picture.len());
        }
        assert_ne!(pictures[0], pictures[1]);
    }

    #[test]
    fn corners_differ() {
        let pictures: std::collections::HashSet<_> = (0..200).map(|n| corners(n).unwrap()).collect();
        assert_eq!(pictures.len(), 200);
    }
}
