//! Which source serves which section of an offer.
//!
//! | the camera sends | the viewer gets |
//! |------------------|-----------------|
//! | H.264, H.265 without B pictures | the same, if offered |
//! | any other video | an H.264 rendition |
//! | G.711, Opus | the same, if offered |
//! | any other sound | an Opus rendition |
//!
//! B pictures are decoded before pictures that are shown earlier, and browsers show pictures in the order in which they
//! come (RFC 7742 leaves reordering out; measured with Chromium), so such a stream is encoded anew.

use super::offer::{Offer, OfferedCodec, Section};
use crate::bus::{Stream, TrackId, Want};
use crate::media::{Codec, Kind, MediaTime, TrackInfo};
use crate::transcode::{Rendition, Transcoder};
use std::sync::Arc;
use std::time::Duration;

/// Pictures that show whether a stream has B pictures: I, P and what may lie between them in time.
const TELLING: usize = 4;
/// How long to wait for them.
const TELLING_WAIT: Duration = Duration::from_millis(600);
/// Pictures that are looked at where the cache holds more.
const LOOKED_AT: usize = 64;
/// Names of the offer's codecs that a refusal repeats.
const NAMED: usize = 16;

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
    /// The format parameters to answer with: those of the offer, which is what every player takes (GStreamer compares
    /// them word by word).
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

/// There is nothing that the viewer could show. Says what both sides have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoCommonCodec(String);

/// Says what serves which section. Pictures are a must, sound is not: where it cannot be had, its section stays without.
///
/// # Errors
/// [`NoCommonCodec`] if the viewer takes no pictures that there are or that can be made here.
pub fn plan(offer: &Offer, stream: &Arc<Stream>, transcoder: &Transcoder) -> Result<Plan, NoCommonCodec> {
    let path = stream.path();
    let tracks = stream.tracks();
    let of = |kind| tracks.iter().filter(move |(_, info)| info.kind() == kind);
    let Some((track, info)) = of(Kind::Video).next() else {
        return Err(NoCommonCodec(format!("{path} has no pictures, and sound alone is not served")));
    };
    let Some(section) = offer.video.as_ref().filter(|section| section.receives) else {
        let sends = written(info.codec);
        let detail = format!(
            "the offer has no video section that receives: {path} sends {sends} pictures, and sound alone is not served"
        );
        return Err(NoCommonCodec(detail));
    };
    let video = video(section, stream, *track, info, transcoder)
        .map_err(|trouble| NoCommonCodec(refusal(path, info.codec, section, &trouble)))?;
    let audio = offer.audio.as_ref().filter(|section| section.receives).and_then(|section| {
        let native = || of(Kind::Audio).find_map(|(track, info)| native_audio(section, stream, *track, info));
        let made = || of(Kind::Audio).find_map(|(track, _)| opus(section, stream, *track, transcoder));
        native().or_else(made)
    });
    Ok(Plan { video: Some(video), audio })
}

/// Waits until the order of a stream's pictures is known, where its parameter sets leave it open and few pictures have
/// come yet: up to 600 ms.
pub async fn settle(stream: &Arc<Stream>) {
    let open = |info: &TrackInfo| info.video().is_some_and(|video| video.reorder_depth.is_none());
    let tracks = stream.tracks();
    let video = tracks.iter().find(|(_, info)| info.kind() == Kind::Video && info.codec != Codec::Jpeg && open(info));
    let Some((track, _)) = video else { return };
    let mut reader = stream.subscribe(Want::Track(*track));
    let pictures = async {
        for _ in 0..TELLING {
            if reader.next().await.is_none() {
                return;
            }
        }
    };
    // Whatever has come by then has to do.
    let _ = tokio::time::timeout(TELLING_WAIT, pictures).await;
}

/// Why there is no video.
enum Trouble {
    /// The offer has none that we could send or make.
    NotOffered,
    /// It would have to be transcoded, and cannot be.
    Unavailable { reordered: bool, reason: String },
}

fn video(
    section: &Section,
    stream: &Arc<Stream>,
    track: TrackId,
    info: &TrackInfo,
    transcoder: &Transcoder,
) -> Result<Lane, Trouble> {
    let native = match info.codec {
        Codec::H264 => h264(section, h264_rank(info)),
        Codec::H265 => h265(section, info),
        _ => None,
    };
    let reordered = match native {
        Some(codec) if in_order(stream, track, info) => {
            return Ok(lane(codec, info.codec, LaneSource::Native(Arc::clone(stream), track)));
        }
        native => native.is_some(),
    };
    // Ours are Constrained Baseline.
    let codec = h264(section, Rank::ConstrainedBaseline).ok_or(Trouble::NotOffered)?;
    let rendition = transcoder
        .rendition(stream, track, Codec::H264)
        .map_err(|trouble| Trouble::Unavailable { reordered, reason: trouble.reason })?;
    Ok(lane(codec, Codec::H264, LaneSource::Rendition(rendition)))
}

fn lane(codec: &OfferedCodec, as_: Codec, source: LaneSource) -> Lane {
    Lane { payload_type: codec.payload_type, codec: as_, fmtp: codec.fmtp.clone(), source }
}

fn native_audio(section: &Section, stream: &Arc<Stream>, track: TrackId, info: &TrackInfo) -> Option<Lane> {
    let (name, clock_rate, channels) = match info.codec {
        Codec::Pcmu => ("PCMU", 8000, 1),
        Codec::Pcma => ("PCMA", 8000, 1),
        Codec::Opus => ("opus", 48_000, 2),
        _ => return None,
    };
    let mut offered = section.codecs.iter();
    let codec = offered.find(|codec| codec.is(name, clock_rate) && codec.channels == channels)?;
    Some(lane(codec, info.codec, LaneSource::Native(Arc::clone(stream), track)))
}

/// RFC 7587 section 7: always two channels in SDP, whatever the sound has.
fn opus(section: &Section, stream: &Arc<Stream>, track: TrackId, transcoder: &Transcoder) -> Option<Lane> {
    let codec = section.codecs.iter().find(|codec| codec.is("opus", 48_000) && codec.channels == 2)?;
    match transcoder.rendition(stream, track, Codec::Opus) {
        Ok(rendition) => Some(lane(codec, Codec::Opus, LaneSource::Rendition(rendition))),
        Err(trouble) => {
            tracing::debug!(stream = stream.path(), %trouble, "a viewer gets no sound");
            None
        }
    }
}

/// Profiles in the order of what a decoder must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    ConstrainedBaseline,
    Baseline,
    Main,
    High,
    Other,
}

impl Rank {
    /// From `profile_idc` and the byte of constraint flags (RFC 6184 section 8.1, table 5).
    fn of(profile: u8, constraints: u8) -> Self {
        match (profile, constraints & 0x80 != 0, constraints & 0x40 != 0) {
            (66, _, true) | (77, true, _) | (88, true, true) => Self::ConstrainedBaseline,
            (66, _, false) => Self::Baseline,
            (77, false, _) => Self::Main,
            (100, ..) => Self::High,
            _ => Self::Other,
        }
    }

    /// Of a payload type: without `profile-level-id` it is Baseline (RFC 6184 section 8.1).
    fn offered(codec: &OfferedCodec) -> Self {
        let Some(id) = codec.parameter("profile-level-id") else { return Self::Baseline };
        let byte = |range| id.get(range).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        byte(0..2).zip(byte(2..4)).map_or(Self::Other, |(profile, constraints)| Self::of(profile, constraints))
    }
}

fn h264_rank(info: &TrackInfo) -> Rank {
    match info.video().and_then(|video| video.parameter_sets.first()).map(AsRef::as_ref) {
        Some([_, profile, constraints, ..]) => Rank::of(*profile, *constraints),
        _ => Rank::ConstrainedBaseline,
    }
}

/// The payload type for H.264 of that profile: the lowest profile that covers it, else the highest below. All players
/// decode more than they negotiate (measured with Chromium: Main as Constrained Baseline), but some choose their decoder
/// by it.
///
/// Our packets need `packetization-mode=1`. Who offers none with it may take one where the mode is not named: GStreamer's
/// webrtcbin writes no parameters unless told to, and reads all modes.
fn h264(section: &Section, stream: Rank) -> Option<&OfferedCodec> {
    let usable = section.codecs.iter().filter(|codec| codec.is("H264", 90_000)).filter_map(|codec| {
        let unnamed = match codec.parameter("packetization-mode") {
            Some("1") => false,
            None => true,
            Some(_) => return None,
        };
        let rank = Rank::offered(codec);
        let away = (rank as u8).abs_diff(stream as u8);
        Some(((unnamed, rank == Rank::Other, rank < stream, away), codec))
    });
    usable.min_by_key(|(key, _)| *key).map(|(_, codec)| codec)
}

/// The payload type for that H.265 (RFC 7798 section 7.1): its profile, or one above among Main and Main 10.
fn h265<'a>(section: &'a Section, info: &TrackInfo) -> Option<&'a OfferedCodec> {
    let sets = info.video().map_or(&[][..], |video| &video.parameter_sets);
    // An SPS has type 33; its profile follows the header of two bytes and one byte of ids (H.265 section 7.3.2.2.1).
    let profile = sets.iter().find_map(|set| match set.as_ref() {
        [header, _, _, profile, ..] if header >> 1 & 0x3f == 33 => Some(profile & 0x1f),
        _ => None,
    });
    let usable = section.codecs.iter().filter(|codec| codec.is("H265", 90_000)).filter_map(|codec| {
        let offered: u8 = codec.parameter("profile-id").map_or(Some(1), |id| id.parse().ok())?;
        let single = codec.parameter("tx-mode").is_none_or(|mode| mode.eq_ignore_ascii_case("SRST"));
        let fits = profile.is_none_or(|profile| offered == profile || (profile, offered) == (1, 2));
        (single && fits).then_some((offered, codec))
    });
    usable.min_by_key(|(offered, _)| *offered).map(|(_, codec)| codec)
}

/// Whether pictures come in the order in which they are shown. Where the parameter sets leave it open, the cached ones
/// tell.
fn in_order(stream: &Arc<Stream>, track: TrackId, info: &TrackInfo) -> bool {
    if let Some(depth) = info.video().and_then(|video| video.reorder_depth) {
        return depth == 0;
    }
    let mut reader = stream.subscribe(Want::Track(track));
    let mut latest = MediaTime::default();
    for _ in 0..LOOKED_AT {
        let Some((_, unit)) = reader.try_next() else { break };
        if unit.pts < latest {
            return false;
        }
        latest = unit.pts;
    }
    true
}

/// Names what both sides have.
fn refusal(path: &str, sends: Codec, section: &Section, trouble: &Trouble) -> String {
    let mut names: Vec<String> = Vec::new();
    for codec in &section.codecs {
        let helper = ["rtx", "red", "ulpfec", "flexfec-03"].iter().any(|name| codec.name.eq_ignore_ascii_case(name));
        let mut name: String = codec.name.chars().take(32).collect();
        if codec.is("H264", 90_000) && codec.parameter("packetization-mode") == Some("0") {
            name += " (packetization-mode=0)";
        }
        if !helper && names.len() < NAMED && !names.contains(&name) {
            names.push(name);
        }
    }
    let offered = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let sends = written(sends);
    match trouble {
        Trouble::NotOffered => format!(
            "no codec in common: {path} sends {sends}, the viewer takes {offered}; what is transcoded here becomes H.264 \
             with packetization-mode=1"
        ),
        Trouble::Unavailable { reordered: true, reason } => format!(
            "{path} sends {sends} with B pictures, which WebRTC shows in the wrong order, the viewer takes {offered}; \
             and it cannot be transcoded to H.264 here: {reason}"
        ),
        Trouble::Unavailable { reordered: false, reason } => format!(
            "no codec in common: {path} sends {sends}, the viewer takes {offered}; and it cannot be transcoded to H.264 \
             here: {reason}"
        ),
    }
}

/// As people write it.
fn written(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "H.264",
        Codec::H265 => "H.265",
        Codec::Jpeg => "JPEG",
        Codec::Aac => "AAC",
        Codec::Opus => "Opus",
        Codec::Pcmu | Codec::Pcma => "G.711",
    }
}

#[cfg(test)]
mod tests;
