//! What tests of sessions need.

use super::{DeviceIo, Rotation};
use crate::bus::{Bus, Device, DeviceOptions, Limits, Stream, SubStream, Upstream};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a session with a device of that family may touch, on a bus of its own.
pub(crate) fn io(family: &'static str) -> DeviceIo {
    let bus = Bus::new();
    let stream = Stream::new("front", Limits::default());
    let device = Device::new(DeviceOptions {
        name: "front".into(),
        family,
        main: Arc::clone(&stream),
        sub: SubStream::None,
        upstream: Upstream::new(1),
        viewers: Arc::default(),
    });
    bus.add(Arc::clone(&device));
    let (playing, cancel) = (watch::Sender::new(false), CancellationToken::new());
    DeviceIo { bus, device, stream, cancel, playing, rotation: Rotation::None }
}

/// A grey picture of that size and brightness, in 4:2:0 with the standard tables.
pub(crate) fn picture(width: usize, height: usize, brightness: u8) -> Bytes {
    let pixels = vec![brightness; width * height * 3];
    let image = turbojpeg::Image {
        pixels: pixels.as_slice(),
        width,
        pitch: width * 3,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 80, turbojpeg::Subsamp::Sub2x2).expect("it can be coded").to_vec().into()
}

/// A white picture of one component or three whose first component comes in so many scans, by markers made by hand: the
/// first scan is whole, the others hold next to nothing, as a picture does that is cheap to send and dear to decode.
/// `frame` is the marker's code: C0 baseline, C2 progressive. Progressive ones of at most 64 scans and 65,536 blocks are
/// without fault.
pub(crate) fn scans(frame: u8, components: u8, width: u16, height: u16, count: u8) -> Bytes {
    let progressive = frame == 0xc2;
    let ([h0, h1], [w0, w1]) = (height.to_be_bytes(), width.to_be_bytes());
    let mut bytes = [&[0xff, 0xd8, 0xff, 0xdb, 0, 67, 0][..], &[8; 64]].concat();
    bytes.extend([0xff, frame, 0, 8 + 3 * components, 8, h0, h1, w0, w1, components]);
    bytes.extend((1..=components).flat_map(|id| [id, 0x11, 0]));
    // DC: 0 for no difference, 10 for one of seven bits. AC: 0 for the end of the block, or of 16,384 blocks.
    let ends = if progressive { 0xe0 } else { 0 };
    bytes.extend([0xff, 0xc4, 0, 21, 0x00, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    bytes.extend([0xff, 0xc4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ends]);
    let blocks = usize::from(width).div_ceil(8) * usize::from(height).div_ceil(8);
    for scan in 0..count {
        let (start, end) = match (progressive, scan) {
            (false, _) => (0, 63),
            (true, 0) => (0, 0),
            (true, scan) => ((scan - 1) % 63 + 1, (scan - 1) % 63 + 1),
        };
        bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, start, end, 0]);
        let (start, bits): (&[u8], usize) = match (scan, progressive) {
            // The first block is white, and the others are as it is.
            (0, false) => (&[0xbf, 0x80], 8 + 2 * blocks),
            (0, true) => (&[0xbf, 0x80], 8 + blocks),
            (_, false) => (&[], 8),
            (_, true) => (&[], 15 * blocks.div_ceil(16_384)),
        };
        bytes.extend_from_slice(start);
        bytes.resize(bytes.len() + bits.div_ceil(8) - start.len(), 0);
    }
    bytes.extend([0xff, 0xd9]);
    bytes.into()
}
