//! Renditions: tracks in another codec than the device's own, made while somebody wants them.
//!
//! One encoder serves all who want the same rendition of the same track. Each runs in a child process.

use crate::bus::{Stream, TrackId};
use crate::media::{AccessUnit, Codec};
use bytes::Bytes;
use std::sync::Arc;

/// Why a rendition or a still cannot be had on this machine.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    /// A sentence a person can act on: it names the package that is missing.
    pub reason: String,
}

/// Makes renditions and stills. One for the program.
#[derive(Debug, Default)]
pub struct Transcoder {}

impl Transcoder {
    /// The rendition of that track of that stream in that codec; the same one for all who ask while it lives. Asking
    /// starts nothing: subscribing to its stream does.
    ///
    /// # Errors
    /// [`Unavailable`] if there is no pipeline for it, or if it is known that none of its candidates can run here.
    pub fn rendition(&self, stream: &Arc<Stream>, track: TrackId, to: Codec) -> Result<Arc<Rendition>, Unavailable> {
        let _ = (stream, track);
        Err(Unavailable { reason: format!("nothing here makes {to}") })
    }

    /// One picture as a JPEG with square pixels, at the size of the picture.
    ///
    /// # Errors
    /// [`Unavailable`] if this machine cannot decode it, or the picture is broken.
    pub async fn still(&self, picture: &AccessUnit) -> Result<Bytes, Unavailable> {
        Err(Unavailable { reason: format!("nothing here decodes {}", picture.info.codec) })
    }
}

/// A track in another codec.
#[derive(Debug)]
pub struct Rendition {
    stream: Arc<Stream>,
}

impl Rendition {
    /// Where it is published: one track, on the timeline of its source. Its encoder runs while this stream has readers
    /// (or somebody waits in [`Stream::ready`]) and lingers after the last.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Asks the encoder for a key picture soon. Requests are merged, at most one a second is carried out.
    pub fn request_key(&self) {}

    /// Why it does not run although somebody wants it.
    pub fn trouble(&self) -> Option<Unavailable> {
        None
    }
}
