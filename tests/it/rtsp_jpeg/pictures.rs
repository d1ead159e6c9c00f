//! JPEG pictures to show, and what is in those that come back.

use bytes::Bytes;
use fanlight::ingest::Rotation;
use fanlight::ingest::jpeg::{Treatment, check};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp, YuvImage};

/// How a picture is coded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coding {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) sampling: Subsamp,
    /// With Huffman tables of its own.
    pub(super) optimised: bool,
}

pub(super) const VGA: Coding = Coding { width: 640, height: 480, sampling: Subsamp::Sub2x2, optimised: false };

/// Shapes, edges and noise that differ with the number, coded as libjpeg does.
pub(super) fn picture(coding: Coding, number: usize) -> Bytes {
    let Coding { width, height, sampling, optimised } = coding;
    let mut pixels = Vec::with_capacity(width * height * 3);
    let mut noise = 12_345_u32 + number as u32;
    for y in 0..height {
        for x in 0..width {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = (noise >> 28) as usize;
            let shape = (x / 24 + y / 16 + number) % 5 * 40;
            pixels.extend([(x * 255 / width) as u8, (shape + grain) as u8, (y * 255 / height) as u8]);
        }
    }
    let mut compressor = Compressor::new().unwrap();
    compressor.set_quality(80).unwrap();
    compressor.set_subsamp(sampling).unwrap();
    compressor.set_optimize(optimised).unwrap();
    let image = Image { pixels: pixels.as_slice(), width, pitch: width * 3, height, format: PixelFormat::RGB };
    compressor.compress_to_vec(image).unwrap().into()
}

/// What ingest makes of a picture; its coefficients are never touched here.
pub(super) fn ingested(picture: &Bytes) -> Bytes {
    let checked = check(picture.clone(), Rotation::None).unwrap();
    assert_ne!(checked.treatment, Treatment::Recoded);
    checked.bytes
}

/// A decoded picture: each component's samples, without padding.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Planes {
    pub(super) size: (usize, usize),
    pub(super) planes: Vec<Vec<Vec<u8>>>,
}

impl Planes {
    /// By libjpeg, as it is coded.
    pub(super) fn decode(picture: &[u8]) -> Self {
        let yuv: YuvImage<Vec<u8>> = turbojpeg::decompress_to_yuv(picture).unwrap();
        let (width, height) = (yuv.width, yuv.height);
        let (across, down) = match yuv.subsamp {
            Subsamp::Sub2x2 => (2, 2),
            Subsamp::Sub2x1 => (2, 1),
            other => panic!("{other:?} is nothing that RFC 2435 carries"),
        };
        let mut rest = yuv.pixels.as_slice();
        // The planes lie one after the other, in whole MCUs, each row padded to `align`.
        let mut plane = |horizontal: usize, vertical: usize| {
            let padded = |size: usize, factor: usize, most: usize| size.div_ceil(most) * most / factor;
            let (row, rows) = (padded(width, horizontal, across), padded(height, vertical, down));
            let row = row.next_multiple_of(yuv.align);
            let (own, after) = rest.split_at(row * rows);
            rest = after;
            let shown = (width.div_ceil(horizontal), height.div_ceil(vertical));
            own.chunks(row).take(shown.1).map(|row| row[..shown.0].to_vec()).collect::<Vec<_>>()
        };
        let planes = vec![plane(1, 1), plane(across, down), plane(across, down)];
        Self { size: (width, height), planes }
    }

    /// The upper left part of that size.
    pub(super) fn crop(&self, size: (usize, usize)) -> Self {
        let scale = |own: usize, whole: usize, part: usize| part.div_ceil(whole.div_ceil(own));
        let crop = |plane: &Vec<Vec<u8>>| {
            let (across, down) = (scale(plane[0].len(), self.size.0, size.0), scale(plane.len(), self.size.1, size.1));
            plane.iter().take(down).map(|row| row[..across].to_vec()).collect()
        };
        Self { size, planes: self.planes.iter().map(crop).collect() }
    }
}

/// The pictures in a file of JPEG pictures one after the other.
pub(super) fn split(mut file: &[u8]) -> Vec<&[u8]> {
    let mut pictures = Vec::new();
    while let Ok(picture) = fanlight::media::jpeg::parse(file) {
        let (one, rest) = file.split_at(picture.end);
        pictures.push(one);
        file = rest;
    }
    pictures
}
