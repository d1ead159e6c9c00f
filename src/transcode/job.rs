//! What a child is asked to do, and what it says about it: the JSON in [`Frame::Job`](super::wire::Frame) and
//! [`Frame::Report`](super::wire::Frame).

use crate::media::{Codec, Format, TrackInfo};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// One task for a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) task: Task,
    /// The candidates with their numbers filled in.
    pub(super) launches: Vec<String>,
    /// The first candidate to try: those before it have failed.
    pub(super) first: usize,
    /// The form of the units to come, in GStreamer's words.
    pub(super) caps: String,
    /// Pictures that are encoded in a second, at most.
    pub(super) most_per_second: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Task {
    /// Encode what comes until the input ends.
    Encode,
    /// Encode the one unit that comes next.
    Still,
    /// Look at the candidates only.
    Check,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// What each candidate lacks or how it failed: of all if it was asked for, else none of them works.
    Candidates(Vec<Verdict>),
    /// It ran, and then came to an end in that way.
    Failed(String),
}

/// What became of a candidate. Without anything in it, it can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// Elements that are not installed.
    pub(super) missing: Vec<String>,
    /// All elements are there, but it cannot be built or started, and why.
    pub(super) fault: Option<String>,
}

/// The form of a track's units, in GStreamer's words.
pub(super) fn caps(info: &TrackInfo, rate: Option<f64>) -> String {
    let mut caps = match info.codec {
        Codec::H264 => "video/x-h264,stream-format=byte-stream,alignment=au".to_owned(),
        Codec::H265 => "video/x-h265,stream-format=byte-stream,alignment=au".to_owned(),
        Codec::Jpeg => "image/jpeg".to_owned(),
        Codec::Aac => "audio/mpeg,mpegversion=4,stream-format=raw,framed=true".to_owned(),
        Codec::Opus => "audio/x-opus,channel-mapping-family=0".to_owned(),
        Codec::Pcmu => "audio/x-mulaw".to_owned(),
        Codec::Pcma => "audio/x-alaw".to_owned(),
    };
    // Writing to a string cannot fail.
    match &info.format {
        Format::Video(_) => {
            if let Some(rate) = rate {
                let _ = write!(caps, ",framerate=(fraction){}/100", ((rate * 100.0).round() as u32).max(1));
            }
        }
        Format::Audio(audio) => {
            let _ = write!(caps, ",rate={},channels={}", audio.sample_rate.max(1), audio.channels.max(1));
            if !audio.config.is_empty() {
                caps.push_str(",codec_data=(buffer)");
                for byte in &audio.config {
                    let _ = write!(caps, "{byte:02x}");
                }
            }
        }
    }
    caps
}
