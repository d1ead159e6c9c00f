//! In which form a stream is served: its tracks as the device sends them, and in place of JPEG pictures the H.264
//! rendition that viewers of all protocols share. `?video=copy` asks for the pictures themselves (RFC 2435).

use crate::bus::{Stream, TrackId};
use crate::media::{Codec, Kind, TrackInfo};
use crate::republish::rtp::{FeedTrack, LARGEST_JPEG};
use crate::republish::rtsp::target::Options;
use crate::transcode::Transcoder;
use std::sync::Arc;
use std::time::Duration;

/// A track as viewers are told of it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// Where it comes from: the device's stream, or a rendition's.
    pub(super) stream: Arc<Stream>,
    /// Its id there.
    pub(super) id: TrackId,
    pub(super) info: Arc<TrackInfo>,
    /// The device's own track behind it.
    native: TrackId,
}

/// Why a stream cannot be served in the form asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unserved {
    /// Not now: the encoder has made nothing in time, or cannot run on this machine.
    #[error("{0}")]
    NotReady(String),
    /// RTP has no form for it.
    #[error("{0}")]
    NotAcceptable(String),
    /// The stream was taken away meanwhile.
    #[error("the stream has ended")]
    Gone,
}

/// Tells tracks of several streams apart, while the streams live.
pub(super) type Key = (usize, TrackId);

impl Served {
    pub(super) fn key(&self) -> Key {
        key(&self.stream, self.id)
    }
}

pub(super) fn key_of(track: &FeedTrack) -> Key {
    key(&track.stream, track.id)
}

fn key(stream: &Arc<Stream>, id: TrackId) -> Key {
    (Arc::as_ptr(stream).addr(), id)
}

/// The tracks of a stream with a key picture, video first. Waits up to `wait` for an encoder's first picture, which
/// brings the parameter sets that the description needs.
///
/// # Errors
/// [`Unserved`], in words for whoever looks at the player's log.
pub(super) async fn tracks(
    stream: &Arc<Stream>,
    options: Options,
    transcoder: &Transcoder,
    wait: Duration,
) -> Result<Vec<Served>, Unserved> {
    let mut served = Vec::new();
    for (id, info) in stream.tracks() {
        match info.codec {
            _ if options.no_audio && info.kind() == Kind::Audio => {}
            Codec::Jpeg if options.video_copy => {
                fits(&info)?;
                served.push(Served { stream: Arc::clone(stream), id, info, native: id });
            }
            Codec::Jpeg => served.push(rendition(stream, id, transcoder, wait).await?),
            _ => served.push(Served { stream: Arc::clone(stream), id, info, native: id }),
        }
    }
    Ok(served)
}

/// Whether RFC 2435 has room for pictures of that size.
fn fits(info: &TrackInfo) -> Result<(), Unserved> {
    let most = u32::from(LARGEST_JPEG);
    match info.video().map(|video| (video.width, video.height)) {
        Some((width, height)) if width > most || height > most => Err(Unserved::NotAcceptable(format!(
            "RTP carries JPEG pictures of at most {most}x{most}, these are {width}x{height}; without video=copy they come as H.264"
        ))),
        _ => Ok(()),
    }
}

async fn rendition(
    stream: &Arc<Stream>,
    native: TrackId,
    transcoder: &Transcoder,
    wait: Duration,
) -> Result<Served, Unserved> {
    let words = |trouble: crate::transcode::Unavailable| Unserved::NotReady(trouble.reason);
    let rendition = transcoder.rendition(stream, native, Codec::H264).map_err(words)?;
    match tokio::time::timeout(wait, rendition.ready()).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Err(Unserved::Gone),
        Ok(Err(trouble)) => return Err(words(trouble)),
        Err(_) => {
            let late = || Unserved::NotReady("the encoder has made no picture in time".into());
            return Err(rendition.trouble().map_or_else(late, words));
        }
    }
    let stream = Arc::clone(rendition.stream());
    let (id, info) = stream.tracks().into_iter().next().ok_or(Unserved::Gone)?;
    Ok(Served { stream, id, info, native })
}

/// What a feed for those viewers carries: all tracks that the stream has now, with renditions in place of those that
/// they were told of as such.
pub(super) fn sources(stream: &Arc<Stream>, told: &[Served]) -> Vec<(Arc<Stream>, TrackId)> {
    let source = |id: TrackId| match told.iter().find(|served| served.native == id) {
        Some(served) => (Arc::clone(&served.stream), served.id),
        None => (Arc::clone(stream), id),
    };
    stream.tracks().into_iter().map(|(id, _)| source(id)).collect()
}
