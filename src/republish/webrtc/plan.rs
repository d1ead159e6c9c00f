//! Which source serves which section of an offer.

use crate::bus::{Stream, TrackId};
use crate::media::Codec;
use crate::transcode::Rendition;
use std::sync::Arc;

/// What a viewer is sent; a section without a lane is answered inactive.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pictures.
    pub video: Option<Lane>,
    /// The sound.
    pub audio: Option<Lane>,
}

/// One track for a viewer.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The payload type of the offer that it is sent as.
    pub payload_type: u8,
    /// Its coding.
    pub codec: Codec,
    /// The format parameters to answer with.
    pub fmtp: String,
    /// Where it comes from.
    pub source: LaneSource,
}

/// Where a track for a viewer comes from.
#[derive(Clone, Debug)]
pub enum LaneSource {
    /// A track as the device sends it.
    Native(Arc<Stream>, TrackId),
    /// A transcoded one.
    Rendition(Arc<Rendition>),
}
