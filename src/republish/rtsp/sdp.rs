//! The session description of a stream (RFC 8866, RFC 6184, RFC 7798, RFC 3640, RFC 2435).

use crate::media::{Codec, Format, Kind, TrackInfo};
use crate::republish::rtp::payload_type;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sdp_types::{Attribute, Connection, MediaType, Origin, Session, Time, TransportProto};
use std::net::IpAddr;

/// Why a stream cannot be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// A codec's parameter sets are not known yet.
    #[error("the parameter sets are not known yet")]
    NoParameterSets,
}

/// The description of those tracks, of which each is reached at `trackID=` its index. `local` is our address as the
/// client sees it.
///
/// # Errors
/// [`SdpError::NoParameterSets`] rather than an empty `sprop-parameter-sets`, which players do not survive.
pub fn describe<'a>(
    name: &str,
    tracks: impl Iterator<Item = (usize, &'a TrackInfo)>,
    local: IpAddr,
    session_id: u64,
) -> Result<String, SdpError> {
    let origin = Origin::with_ip_addr(session_id.to_string(), 1, local);
    let mut session = Session::new(origin, name);
    session.connection = Some(Connection::from_ip_addr(match local {
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
    }));
    session.times = vec![Time::new(0, 0)];
    session.attributes = vec![
        Attribute::with_value("tool", concat!("Fanlight ", env!("CARGO_PKG_VERSION"))),
        Attribute::with_value("control", "*"),
        Attribute::with_value("range", "npt=now-"),
    ];
    for (index, info) in tracks {
        session.medias.push(media(index, info)?);
    }
    let mut out = Vec::new();
    session.write(&mut out).expect("writing to memory cannot fail");
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn media(index: usize, info: &TrackInfo) -> Result<sdp_types::Media, SdpError> {
    let payload_type = payload_type(info.codec);
    let kind = match info.kind() {
        Kind::Video => MediaType::Video,
        Kind::Audio => MediaType::Audio,
    };
    let mut media = sdp_types::Media::new(kind, 0, TransportProto::RtpAvp, payload_type);
    let mut add = |name: &str, value: String| media.attributes.push(Attribute::with_value(name, value));
    let (encoding, channels) = match (info.codec, &info.format) {
        (Codec::H264, _) => ("H264", None),
        (Codec::H265, _) => ("H265", None),
        (Codec::Jpeg, _) => ("JPEG", None),
        (Codec::Pcmu, _) => ("PCMU", None),
        (Codec::Pcma, _) => ("PCMA", None),
        (Codec::Opus, _) => ("opus", Some(2)),
        (Codec::Aac, Format::Audio(audio)) => ("MPEG4-GENERIC", Some(audio.channels.max(1))),
        (Codec::Aac, Format::Video(_)) => ("MPEG4-GENERIC", None),
    };
    let channels = channels.map(|channels| format!("/{channels}")).unwrap_or_default();
    add("rtpmap", format!("{payload_type} {encoding}/{}{channels}", info.clock_rate));
    if let Some(parameters) = format_parameters(info)? {
        add("fmtp", format!("{payload_type} {parameters}"));
    }
    if let Some(rate) = info.video().and_then(|video| video.frame_rate) {
        let text = format!("{rate:.3}");
        add("framerate", text.trim_end_matches('0').trim_end_matches('.').to_owned());
    }
    add("control", format!("trackID={index}"));
    Ok(media)
}

fn format_parameters(info: &TrackInfo) -> Result<Option<String>, SdpError> {
    let sets = info.video().map(|video| video.parameter_sets.as_slice()).unwrap_or_default();
    Ok(match info.codec {
        Codec::H264 => {
            let of_kind = |kind: u8| sets.iter().filter(move |nal| nal.first().is_some_and(|byte| byte & 0x1f == kind));
            let profile = of_kind(7).next().and_then(|sps| sps.get(1..4)).ok_or(SdpError::NoParameterSets)?;
            of_kind(8).next().ok_or(SdpError::NoParameterSets)?;
            let profile: String = profile.iter().map(|byte| format!("{byte:02X}")).collect();
            let sets: Vec<_> = of_kind(7).chain(of_kind(8)).map(|nal| STANDARD.encode(nal)).collect();
            let sets = sets.join(",");
            Some(format!("packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}"))
        }
        Codec::H265 => {
            let of_kind = |kind: u8| {
                let found: Vec<_> = sets.iter().filter(|nal| h265_kind(nal) == Some(kind)).collect();
                let encoded: Vec<_> = found.into_iter().map(|nal| STANDARD.encode(nal)).collect();
                if encoded.is_empty() { Err(SdpError::NoParameterSets) } else { Ok(encoded.join(",")) }
            };
            Some(format!("sprop-vps={};sprop-sps={};sprop-pps={}", of_kind(32)?, of_kind(33)?, of_kind(34)?))
        }
        Codec::Aac => {
            let config = info.audio().map(|audio| audio.config.clone()).filter(|config| !config.is_empty());
            let config: String =
                config.ok_or(SdpError::NoParameterSets)?.iter().map(|byte| format!("{byte:02X}")).collect();
            Some(format!(
                "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={config}"
            ))
        }
        Codec::Opus => Some("sprop-stereo=1".to_owned()),
        Codec::Jpeg | Codec::Pcmu | Codec::Pcma => None,
    })
}

fn h265_kind(nal: &Bytes) -> Option<u8> {
    nal.first().map(|byte| byte >> 1 & 0x3f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{AudioFormat, VideoFormat};

    fn h264(sets: &[&'static [u8]], frame_rate: Option<f64>) -> TrackInfo {
        let parameter_sets = sets.iter().map(|set| Bytes::from_static(set)).collect();
        let format = Format::Video(VideoFormat { parameter_sets, frame_rate, ..VideoFormat::default() });
        TrackInfo { codec: Codec::H264, clock_rate: 90_000, format }
    }

    #[test]
    fn h264_with_aac() {
        let video = h264(&[&[0x67, 0x42, 0xc0, 0x1e, 1], &[0x68, 2]], Some(12.5));
        let audio = AudioFormat { channels: 2, sample_rate: 48_000, config: Bytes::from_static(&[0x11, 0x90]) };
        let audio = TrackInfo { codec: Codec::Aac, clock_rate: 48_000, format: Format::Audio(audio) };
        let text = describe("porch", [(0, &video), (1, &audio)].into_iter(), IpAddr::from([192, 0, 2, 1]), 7).unwrap();
        for line in [
            "o=- 7 1 IN IP4 192.0.2.1",
            "s=porch",
            "c=IN IP4 0.0.0.0",
            "a=control:*",
            "a=range:npt=now-",
            "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000",
            "a=fmtp:96 packetization-mode=1;profile-level-id=42C01E;sprop-parameter-sets=Z0LAHgE=,aAI=",
            "a=framerate:12.5",
            "a=control:trackID=0",
            "m=audio 0 RTP/AVP 97",
            "a=rtpmap:97 MPEG4-GENERIC/48000/2",
            "a=control:trackID=1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains(";config=1190\r\n"));
        sdp_types::Session::parse(text.as_bytes()).unwrap();
    }

    #[test]
    fn parameter_sets_are_never_left_empty() {
        let no_pps = h264(&[&[0x67, 0x42, 0xc0, 0x1e, 1]], None);
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(describe("a", [(0, &no_pps)].into_iter(), local, 1), Err(SdpError::NoParameterSets));
        assert_eq!(describe("a", [(0, &h264(&[], None))].into_iter(), local, 1), Err(SdpError::NoParameterSets));
    }

    #[test]
    fn g711_needs_no_parameters() {
        let format = Format::Audio(AudioFormat { channels: 1, sample_rate: 8_000, config: Bytes::new() });
        let info = TrackInfo { codec: Codec::Pcma, clock_rate: 8_000, format };
        let text = describe("a", [(1, &info)].into_iter(), IpAddr::from([0_u16; 8]), 1).unwrap();
        assert!(text.contains("m=audio 0 RTP/AVP 8\r\n") && text.contains("a=rtpmap:8 PCMA/8000\r\n"));
        assert!(text.contains("c=IN IP6 ::\r\n") && text.contains("a=control:trackID=1\r\n"));
    }
}
