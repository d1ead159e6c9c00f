//! Interleaved framing, both ways: whatever a device sends becomes frames that a reader takes apart again.

use bytes::Bytes;
use fanlight::media::{AccessUnit, AudioFormat, Codec, Format, Kind, MediaTime, TrackInfo, VideoFormat};
use fanlight::republish::rtp::{MAX_PAYLOAD, Packetizer};
use fanlight::republish::rtsp::{Incoming, RequestReader};
use std::sync::Arc;

/// The first byte chooses the codec, the second the channel, the rest is a unit's payload.
pub fn check(data: &[u8]) {
    let [first, channel, payload @ ..] = data else { return };
    let codecs = [Codec::H264, Codec::H265, Codec::Jpeg, Codec::Aac, Codec::Opus, Codec::Pcmu, Codec::Pcma];
    let codec = codecs[usize::from(*first) % codecs.len()];
    let format = match codec.kind() {
        Kind::Video => Format::Video(VideoFormat::default()),
        Kind::Audio => Format::Audio(AudioFormat::default()),
    };
    let info = Arc::new(TrackInfo { codec, clock_rate: 90_000, format });
    let mut packetizer = Packetizer::new(0, Arc::clone(&info), true);
    let (pts, dts) = (MediaTime::START, MediaTime::START);
    let payload = Bytes::copy_from_slice(payload);
    let unit = AccessUnit { pts, dts, random_access: true, discontinuity: false, info, payload };
    let before = packetizer.next_seq();
    let Some(packets) = packetizer.packetize(&unit) else { return };
    assert_eq!(packetizer.next_seq() - before, packets.packets() as u64);

    let mut reader = RequestReader::default();
    reader.buffer().extend_from_slice(&packets.framed(*channel));
    let mut seq = before as u16;
    let mut each = packets.each();
    while let Some(message) = reader.read().expect("our own frames can be read") {
        let Incoming::Interleaved { channel: on, payload } = message else { panic!("{message:?}") };
        assert_eq!(on, *channel);
        assert_eq!(each.next(), Some(&payload[..]));
        assert!(payload.len() <= 12 + MAX_PAYLOAD && payload[0] == 0x80);
        assert_eq!(u16::from_be_bytes([payload[2], payload[3]]), seq);
        seq = seq.wrapping_add(1);
    }
    assert!(reader.buffer().is_empty() && each.next().is_none());
    let sizes: usize = packets.packet_sizes().sum();
    assert_eq!(packets.datagrams().len(), sizes);
    // Moving the numbers there and back changes nothing.
    let moved = packets.rewritten_datagrams(7, 9);
    assert_eq!(moved.len(), sizes);
}
