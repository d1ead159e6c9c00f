//! What is known of a track.

use bytes::Bytes;
use std::fmt;

/// A coding of pictures or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
    /// Baseline JPEG pictures, one after the other.
    Jpeg,
    /// MPEG-4 AAC, raw access units.
    Aac,
    /// Opus (RFC 6716).
    Opus,
    /// G.711 mu-law, 8 kHz mono.
    Pcmu,
    /// G.711 A-law, 8 kHz mono.
    Pcma,
}

/// Pictures or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl Codec {
    /// Whether it codes pictures or sound.
    pub fn kind(self) -> Kind {
        match self {
            Self::H264 | Self::H265 | Self::Jpeg => Kind::Video,
            Self::Aac | Self::Opus | Self::Pcmu | Self::Pcma => Kind::Audio,
        }
    }

    /// The name in configuration, JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::Jpeg => "jpeg",
            Self::Aac => "aac",
            Self::Opus => "opus",
            Self::Pcmu => "pcmu",
            Self::Pcma => "pcma",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    /// `video` or `audio`, as in SDP and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// What is known of a track. Unknown details are zero or empty, never guessed.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackInfo {
    /// The coding.
    pub codec: Codec,
    /// Ticks per second of the RTP clock: 90,000 for video, the sample rate for audio (48,000 for Opus).
    pub clock_rate: u32,
    /// What depends on the kind.
    pub format: Format,
}

/// The part of [`TrackInfo`] that depends on the kind of track.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Pictures.
    Video(VideoFormat),
    /// Sound.
    Audio(AudioFormat),
}

/// Size and coding parameters of a video track.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VideoFormat {
    /// Width in pixels after cropping; 0 while unknown.
    pub width: u32,
    /// Height in pixels after cropping; 0 while unknown.
    pub height: u32,
    /// Sample aspect ratio, width to height; (1, 1) for square pixels and where unspecified, (0, 0) while unknown.
    pub pixel_aspect: (u16, u16),
    /// Pictures per second as the parameter sets or the device's SDP announce it; `None` where they do not.
    pub frame_rate: Option<f64>,
    /// How many pictures may precede a picture in decode order and follow it in output order; `None` where the
    /// parameter sets leave it open.
    pub reorder_depth: Option<u8>,
    /// The newest parameter sets as bare NAL units without start codes: SPS, PPS for H.264; VPS, SPS, PPS for H.265;
    /// empty for JPEG and while unknown.
    pub parameter_sets: Vec<Bytes>,
}

/// Channels and codec configuration of an audio track.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AudioFormat {
    /// Number of channels.
    pub channels: u16,
    /// Samples per second of the coded sound.
    pub sample_rate: u32,
    /// AudioSpecificConfig (ISO/IEC 14496-3 section 1.6) for AAC; empty otherwise.
    pub config: Bytes,
}

impl TrackInfo {
    /// Whether this is a track of pictures or of sound.
    pub fn kind(&self) -> Kind {
        self.codec.kind()
    }

    /// The video part, if this is a video track.
    pub fn video(&self) -> Option<&VideoFormat> {
        match &self.format {
            Format::Video(video) => Some(video),
            Format::Audio(_) => None,
        }
    }

    /// The audio part, if this is an audio track.
    pub fn audio(&self) -> Option<&AudioFormat> {
        match &self.format {
            Format::Audio(audio) => Some(audio),
            Format::Video(_) => None,
        }
    }

    /// Whether a viewer that was told `other` in its session description can go on with this: the same codec, clock
    /// and, for sound, the same channels and codec configuration. Picture sizes may change, as parameter sets travel
    /// in band.
    pub fn continues(&self, other: &Self) -> bool {
        self.codec == other.codec && self.clock_rate == other.clock_rate && self.audio() == other.audio()
    }
}
