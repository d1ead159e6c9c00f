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
