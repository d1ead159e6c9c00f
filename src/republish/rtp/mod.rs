//! RTP packets, made once per track and shared by all viewers.
//!
//! A [`Feed`] exists while somebody watches a stream over RTP. It reads the stream from its newest key picture,
//! turns each access unit into a [`PacketUnit`] and keeps the newest of those in a ring; viewers hold positions in it.
//! Numbers belong to the track: every viewer sees the same SSRC, sequence numbers and time stamps, hence the same
//! bytes, unless it needs others (a squeezed start, a long gap), which [`PacketUnit::rewritten`] makes.

mod audio;
mod feed;
mod feeds;
mod jpeg;
mod nal;
mod packetizer;
mod packets;
mod primer;
mod report;
mod squeeze;

pub use feed::{Feed, FeedTrack, Item, Joined, Next, Position, Start, TrackStart};
pub use feeds::Feeds;
pub use jpeg::LARGEST as LARGEST_JPEG;
pub use packetizer::{Packetizer, payload_type};
pub use packets::{PacketUnit, PacketUnitHead};
pub use report::{NtpLine, bye, sender_report};

/// The largest RTP payload in bytes: small enough for WebRTC with its SRTP and DTLS overhead on any path.
pub const MAX_PAYLOAD: usize = 1_200;
