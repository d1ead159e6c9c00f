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
