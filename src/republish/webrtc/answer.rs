//! Writes the SDP answer (RFC 8829 section 5.3), and reads from the offer what only that needs.

#![deny(clippy::indexing_slicing)]

use super::offer::{IceCredentials, Offer, Section};
use super::plan::{Lane, Plan};
use crate::media::{Codec, Kind};
use std::fmt::Write;

/// RTCP feedback that we act on: asking for packets again (RFC 4585 section 6.2.1) and for a key picture (6.3.1, RFC
/// 5104 section 4.3.1).
const FEEDBACK: [&str; 3] = ["nack", "nack pli", "ccm fir"];

/// What an answer says of the whole connection.
#[derive(Clone, Debug)]
pub(super) struct Terms<'a> {
    /// Ours.
    pub(super) ice: &'a IceCredentials,
    /// Of our certificate.
    pub(super) fingerprint: &'a str,
    /// Whether we begin the DTLS handshake.
    pub(super) active: bool,
    /// Candidate lines without `a=`.
    pub(super) candidates: &'a [String],
    /// The synchronisation sources of the pictures and the sound.
    pub(super) ssrc: (u32, u32),
}

/// What is read from the offer besides [`Offer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Security {
    /// SHA-256 fingerprints of the viewer's certificate.
    pub(super) fingerprints: Vec<Vec<u8>>,
    /// Whether we begin the DTLS handshake.
    pub(super) active: bool,
}

/// The lines of the offer that belong to the whole or to the section of that kind.
fn lines(offer: &Offer, kind: Kind) -> impl Iterator<Item = &str> {
    let mut section = None;
    offer.text.lines().map(str::trim_end).filter(move |line| {
        if let Some(media) = line.strip_prefix("m=") {
            section = Some(media.split(' ').next() == Some(kind.name()));
        }
        section != Some(false)
    })
}

impl Security {
    /// Reads it from an offer.
    ///
    /// # Errors
    /// There is no fingerprint that we can check.
    pub(super) fn of(offer: &Offer) -> Result<Self, String> {
        let value = |name: &'static str| {
            lines(offer, offer.leader)
                .filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
        };
        let bytes = |text: &str| -> Option<Vec<u8>> {
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
        };
        let sha256 = |line: &str| {
            let (hash, digest) = line.split_once(' ')?;
            hash.eq_ignore_ascii_case("sha-256").then(|| bytes(digest))?.filter(|digest| digest.len() == 32)
        };
        let fingerprints: Vec<_> = value("fingerprint").filter_map(sha256).take(4).collect();
        if fingerprints.is_empty() {
            return Err("it has no a=fingerprint:sha-256".into());
        }
        // Without a cookie exchange in between, beginning ourselves is a round trip faster. What a section says counts
        // before what the whole says, and comes after it.
        let active = value("setup").last() != Some("active");
        Ok(Self { fingerprints, active })
    }
}

/// The answer: every section of the offer in its order, those without a lane inactive.
pub(super) fn write(offer: &Offer, plan: &Plan, terms: &Terms<'_>) -> String {
    let section = |kind| match kind {
        Kind::Video => (offer.video.as_ref(), plan.video.as_ref()),
        Kind::Audio => (offer.audio.as_ref(), plan.audio.as_ref()),
    };
    let order = offer.text.lines().filter_map(|line| match line.strip_prefix("m=")?.split(' ').next()? {
        "video" => Some(Kind::Video),
        "audio" => Some(Kind::Audio),
        _ => None,
    });
    let sections: Vec<_> = order
        .filter_map(|kind| {
            let (section, lane) = section(kind);
            Some((kind, section?, lane))
        })
        .collect();
    let mids: Vec<_> = sections.iter().map(|(_, section, _)| section.mid.as_str()).collect();
    let mut out = String::with_capacity(2_048);
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        "v=0\r\no=- {} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=ice-lite\r\na=msid-semantic: WMS fanlight\r\n",
        rand::random::<u64>() >> 2,
        mids.join(" ")
    );
    for (kind, section, lane) in sections {
        media(&mut out, offer, kind, section, lane, terms);
    }
    out
}

fn media(out: &mut String, offer: &Offer, kind: Kind, section: &Section, lane: Option<&Lane>, terms: &Terms<'_>) {
    let payload_type = lane.map(|lane| lane.payload_type);
    // An inactive section still names a format of the offer's.
    let codec = section.codecs.iter().find(|codec| payload_type.is_none_or(|wanted| codec.payload_type == wanted));
    let format = payload_type.or(codec.map(|codec| codec.payload_type)).unwrap_or(0);
    let name = kind.name();
    let direction = if lane.is_some() { "sendonly" } else { "inactive" };
    let _ = write!(
        out,
        "m={name} 9 UDP/TLS/RTP/SAVPF {format}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na={direction}\r\na=rtcp-mux\r\n",
        section.mid
    );
    let setup = if terms.active { "active" } else { "passive" };
    let _ = write!(
        out,
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n",
        terms.ice.ufrag, terms.ice.pwd, terms.fingerprint
    );
    if let Some(codec) = codec {
        let channels = if codec.channels > 1 { format!("/{}", codec.channels) } else { String::new() };
        let _ = write!(out, "a=rtpmap:{format} {}/{}{channels}\r\n", codec.name, codec.clock_rate);
    }
    if let Some(lane) = lane {
        if !lane.fmtp.is_empty() {
            let _ = write!(out, "a=fmtp:{format} {}\r\n", lane.fmtp);
        }
        for feedback in FEEDBACK.iter().filter(|feedback| offers(offer, kind, format, feedback)) {
            let _ = write!(out, "a=rtcp-fb:{format} {feedback}\r\n");
        }
        let _ = write!(out, "a=msid:fanlight {name}\r\n");
        let ssrc = if kind == Kind::Video { terms.ssrc.0 } else { terms.ssrc.1 };
        let _ = write!(out, "a=ssrc:{ssrc} cname:fanlight\r\na=ssrc:{ssrc} msid:fanlight {name}\r\n");
        if lane.codec == Codec::Opus {
            out.push_str("a=ptime:20\r\n");
        }
    }
    for candidate in terms.candidates {
        let _ = write!(out, "a={candidate}\r\n");
    }
    out.push_str("a=end-of-candidates\r\n");
}

/// Whether the offer has that `a=rtcp-fb` for that payload type, or for all.
fn offers(offer: &Offer, kind: Kind, payload_type: u8, feedback: &str) -> bool {
    lines(offer, kind)
        .filter_map(|line| line.strip_prefix("a=rtcp-fb:")?.split_once(' '))
        .any(|(of, value)| value.trim() == feedback && (of == "*" || of.parse() == Ok(payload_type)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Limits, Stream, TrackId};
    use crate::republish::webrtc::LaneSource;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v\r\n\
        a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=mid:a\r\na=recvonly\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 102\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=recvonly\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:102 H264/90000\r\n\
        a=rtcp-fb:102 nack\r\na=rtcp-fb:102 goog-remb\r\na=rtcp-fb:96 ccm fir\r\na=rtcp-fb:* nack pli\r\n";

    fn answered(plan: &Plan) -> String {
        let offer = Offer::parse(OFFER).unwrap();
        let ice = IceCredentials { ufrag: "ours".into(), pwd: "ours-is-a-long-password".into() };
        let candidates = ["candidate:1 1 udp 1 192.0.2.1 8555 typ host".to_owned()];
        let terms = Terms { ice: &ice, fingerprint: "AB:CD", active: true, candidates: &candidates, ssrc: (7, 8) };
        write(&offer, plan, &terms)
    }

    fn lane(payload_type: u8, codec: Codec, fmtp: &str) -> Lane {
        let source = LaneSource::Native(Stream::new("a", Limits::default()), TrackId(1));
        Lane { payload_type, codec, fmtp: fmtp.into(), source }
    }

    #[test]
    fn sections_stand_in_the_order_of_the_offer_and_those_without_a_lane_are_inactive() {
        let text = answered(&Plan { video: Some(lane(102, Codec::H264, "packetization-mode=1")), audio: None });
        let (head, sections) = text.split_once("m=").unwrap();
        assert!(head.contains("a=group:BUNDLE a v\r\n") && head.contains("a=ice-lite\r\n"));
        let (audio, video) = sections.split_once("m=video").unwrap();
        assert!(audio.starts_with("audio 9 UDP/TLS/RTP/SAVPF 111\r\n") && audio.contains("a=inactive\r\n"));
        assert!(audio.contains("a=rtpmap:111 opus/48000/2\r\n") && !audio.contains("a=ssrc"));
        assert!(video.starts_with(" 9 UDP/TLS/RTP/SAVPF 102\r\n") && video.contains("a=sendonly\r\n"));
        for line in ["a=fmtp:102 packetization-mode=1", "a=setup:active", "a=ssrc:7 cname:fanlight", "a=ice-ufrag:ours"]
        {
            assert!(video.contains(&format!("{line}\r\n")), "{line}: {video}");
        }
        let feedback: Vec<_> = video.lines().filter(|line| line.starts_with("a=rtcp-fb")).collect();
        assert_eq!(feedback, ["a=rtcp-fb:102 nack", "a=rtcp-fb:102 nack pli"], "what was offered and is understood");
        sdp_types::Session::parse(text.as_bytes()).unwrap();
    }

    #[test]
    fn sound_is_answered_as_planned() {
        let text = answered(&Plan { video: None, audio: Some(lane(0, Codec::Pcmu, "")) });
        assert!(text.contains("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n") && text.contains("a=rtpmap:0 PCMU/8000\r\n"));
        assert!(text.contains("a=ssrc:8 cname:fanlight\r\n") && !text.contains("a=ssrc:7"));
    }

    #[test]
    fn whoever_is_not_active_is_called_and_a_fingerprint_is_needed() {
        let with = |setup: &str, hash: &str| {
            let text = OFFER.replace("a=setup:actpass", &format!("a=setup:{setup}")).replace("sha-256", hash);
            Security::of(&Offer::parse(&text).unwrap())
        };
        let security = with("actpass", "sha-256").unwrap();
        assert_eq!((security.active, &security.fingerprints[..]), (true, &[(0..32).collect::<Vec<u8>>()][..]));
        assert!(with("passive", "SHA-256").unwrap().active);
        assert!(!with("active", "sha-256").unwrap().active);
        assert!(with("actpass", "sha-512").is_err());
    }
}
