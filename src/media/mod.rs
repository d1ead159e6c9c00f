//! What travels: coded pictures and audio frames, their times, and what is known of their tracks.
//!
//! Payload by codec, promised to every reader of the bus:
//!
//! | codec | payload of one [`AccessUnit`] |
//! |-------|-------------------------------|
//! | H.264, H.265 | Annex B, one access unit, parameter sets before each random access unit |
//! | JPEG | one whole baseline picture, SOI to EOI |
//! | AAC | one raw access unit; the AudioSpecificConfig is in [`AudioFormat::config`] |
//! | Opus | one packet |
//! | PCMA, PCMU | 8 kHz mono octets |

pub mod adpcm;
pub mod annex_b;
pub mod g711;
pub mod h264;
pub mod h265;
pub mod jpeg;

mod parameter_sets;
mod time;
mod track;

pub use time::MediaTime;
pub use track::{AudioFormat, Codec, Format, Kind, TrackInfo, VideoFormat};

use bytes::Bytes;
use std::sync::Arc;

/// One coded picture or audio frame, in decode order.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// Presentation time on the stream's own timeline; with B-frames it goes back within the reorder window.
    pub pts: MediaTime,
    /// Decode time: strictly increasing within a track, never after `pts`.
    pub dts: MediaTime,
    /// A decoder may start here. Always true for audio and JPEG.
    pub random_access: bool,
    /// Units were lost just before this one, or the device reconnected.
    pub discontinuity: bool,
    /// Codec, clock rate, size, profile and reorder depth, as they are for this unit.
    pub info: Arc<TrackInfo>,
    /// The coded bytes, in the form that the module's table promises.
    pub payload: Bytes,
}
