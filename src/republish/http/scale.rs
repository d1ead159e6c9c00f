//! JPEG pictures made smaller.

use fast_image_resize::images::{Image as Pixels, ImageRef};
use fast_image_resize::{PixelType, ResizeError, Resizer};
use turbojpeg::{Compressor, Decompressor, Image, PixelFormat, ScalingFactor, Subsamp};

/// The most pixels that are decoded: a header of a few bytes must not reserve gigabytes.
const MAX_PIXELS: usize = 64 << 20;
/// Of the pictures made here, by the scale of libjpeg.
const QUALITY: i32 = 85;

/// Why a picture could not be made smaller.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScaleError {
    #[error("the picture cannot be decoded: {0}")]
    Jpeg(#[from] turbojpeg::Error),
    #[error("the picture cannot be scaled: {0}")]
    Resize(#[from] ResizeError),
    #[error("a picture of {0} by {1} is too large to be scaled")]
    TooLarge(usize, usize),
}

/// The picture at that width, its height in proportion; `None` if it is no wider as it is. Takes milliseconds of CPU.
pub(super) fn to_width(jpeg: &[u8], width: u32) -> Result<Option<Vec<u8>>, ScaleError> {
    let mut decompressor = Decompressor::new()?;
    let header = decompressor.read_header(jpeg)?;
    let wide = width as usize;
    if header.width <= wide {
        return Ok(None);
    }
    let high = ((header.height * wide + header.width / 2) / header.width).max(1);
    // The decoder gives an eighth, a quarter, ... for less than the whole picture costs.
    let enough = |factor: &ScalingFactor| {
        let (width, height) = (factor.scale(header.width), factor.scale(header.height));
        (wide..=header.width).contains(&width) && height >= high
    };
    let factors = Decompressor::supported_scaling_factors().into_iter().filter(enough);
    let factor = factors.min_by_key(|factor| factor.scale(header.width)).unwrap_or(ScalingFactor::ONE);
    let decoded = header.scaled(factor);
    if decoded.width.saturating_mul(decoded.height) > MAX_PIXELS {
        return Err(ScaleError::TooLarge(header.width, header.height));
    }
    decompressor.set_scaling_factor(factor)?;
    let format = PixelFormat::RGB;
    let size = decoded.width * decoded.height * format.size();
    let (width, height, pitch) = (decoded.width, decoded.height, decoded.width * format.size());
    let mut image = Image { pixels: vec![0; size], width, pitch, height, format };
    decompressor.decompress(jpeg, image.as_deref_mut())?;

    if (width, height) != (wide, high) {
        let too_large = |_| ScaleError::TooLarge(header.width, header.height);
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        let source = ImageRef::new(side(width), side(height), &image.pixels, PixelType::U8x3).map_err(too_large)?;
        let mut scaled = Pixels::new(side(wide), side(high), PixelType::U8x3);
        Resizer::new().resize(&source, &mut scaled, None)?;
        image = Image { pixels: scaled.into_vec(), width: wide, pitch: wide * format.size(), height: high, format };
    }
    let mut compressor = Compressor::new()?;
    compressor.set_quality(QUALITY)?;
    compressor.set_subsamp(Subsamp::Sub2x2)?;
    Ok(Some(compressor.compress_to_vec(image.as_deref())?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A picture, black on the left and white on the right.
    pub(in super::super) fn halves(width: usize, height: usize) -> Vec<u8> {
        let row: Vec<u8> = (0..width).map(|x| if x < width / 2 { 0 } else { 255 }).collect();
        let image = Image { pixels: row.repeat(height), width, pitch: width, height, format: PixelFormat::GRAY };
        turbojpeg::compress(image.as_deref(), 90, Subsamp::Gray).unwrap().to_vec()
    }

    pub(in super::super) fn size(jpeg: &[u8]) -> (usize, usize) {
        let header = turbojpeg::read_header(jpeg).unwrap();
        (header.width, header.height)
    }

    #[test]
    fn pictures_become_smaller_and_stay_the_same_picture() {
        for (width, height) in [(640, 480), (1536, 2048), (641, 3), (1000, 1)] {
            let whole = halves(width, height);
            for wide in [16, 17, 80, 320, 639] {
                let small = to_width(&whole, wide as u32).unwrap().unwrap();
                let image = turbojpeg::decompress(&small, PixelFormat::GRAY).unwrap();
                let high = (height as f64 * wide as f64 / width as f64).round().max(1.0);
                assert_eq!((image.width, image.height), (wide, high as usize), "{width}x{height}");
                let row = &image.pixels[image.height / 2 * image.pitch..][..wide];
                assert!(row[wide / 4] < 40 && row[wide * 3 / 4] > 215, "{width}x{height} at {wide}: {row:?}");
            }
        }
    }

    #[test]
    fn nothing_is_enlarged() {
        let whole = halves(64, 48);
        assert!(to_width(&whole, 64).unwrap().is_none() && to_width(&whole, 3840).unwrap().is_none());
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        let whole = halves(640, 480);
        for bad in [&b""[..], b"GIF89a", &whole[..20]] {
            assert!(to_width(bad, 320).is_err());
        }
        // A header that promises 65,500 by 65,500 pixels.
        let mut vast = whole;
        let frame = vast.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        vast[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
        assert!(matches!(to_width(&vast, 3840), Err(ScaleError::TooLarge(65_500, 65_500)) | Err(ScaleError::Jpeg(_))));
        assert!(matches!(to_width(&vast, 60_000), Err(ScaleError::TooLarge(65_500, 65_500))));
    }
}
