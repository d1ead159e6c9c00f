//! The picture of a camera that has not sent one yet.

use super::jpeg::{Checked, Treatment};
use bytes::Bytes;
use turbojpeg::{Image, PixelFormat, Subsamp};

const WIDTH: u16 = 640;
const HEIGHT: u16 = 480;

/// A card for that camera: 640x480, baseline 4:2:0 with the standard tables.
pub(super) fn card(_name: &str) -> Checked {
    let (width, height) = (usize::from(WIDTH), usize::from(HEIGHT));
    let pixels = vec![40; width * height * 3];
    let image = Image { pixels: pixels.as_slice(), width, pitch: width * 3, height, format: PixelFormat::RGB };
    let coded = turbojpeg::compress(image, 90, Subsamp::Sub2x2);
    // Only memory can fail here.
    let bytes = coded.map(|coded| Bytes::copy_from_slice(&coded)).unwrap_or_default();
    Checked { bytes, width: WIDTH, height: HEIGHT, treatment: Treatment::Untouched }
}
