//! What a viewer offers: the session description that it posts (RFC 8866, RFC 8829, as WHEP narrows them).
//!
//! One transport carries everything (BUNDLE, RFC 9143; rtcp-mux, RFC 5761), there is one video and one audio section at
//! most, and the keys come by DTLS (RFC 8842). What does not fit is refused with the place and the reason.

#![deny(clippy::indexing_slicing)]

use crate::media::Kind;
use sdp_types::{Attribute, Media, ParserError, Session};

/// The largest description, in bytes. Browsers write about 6,000.
pub const MAX_OFFER: usize = 64 << 10;
/// Payload types of a section that are looked at: RTP has no more (RFC 3550 section 5.1).
const MAX_CODECS: usize = 128;
/// Characters of the input that an error quotes at most.
const MAX_QUOTED: usize = 200;
/// Candidates that are kept; a machine with more addresses is no viewer.
pub(super) const MAX_CANDIDATES: usize = 64;

/// Why an offer cannot be answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// More than [`MAX_OFFER`] bytes.
    #[error("the SDP has {0} bytes; up to {MAX_OFFER} are read")]
    Large(usize),
    /// It is no session description.
    #[error("the SDP cannot be read: {0}")]
    Syntax(String),
    /// Something is wrong that concerns the whole.
    #[error("the SDP cannot be used: {0}")]
    Session(String),
    /// Something is wrong with one section.
    #[error("the SDP cannot be used: section {number} (m={media}): {what}")]
    Section {
        /// Counted from 1.
        number: usize,
        /// The media type of its m-line.
        media: String,
        /// What is wrong.
        what: String,
    },
}

/// The fragment and password that one side of an ICE session is known by (RFC 8839 section 5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 256 characters.
    pub ufrag: String,
    /// 22 to 256 characters.
    pub pwd: String,
}

impl IceCredentials {
    /// Credentials of the allowed lengths, printable and without the colon that separates two fragments in STUN.
    ///
    /// # Errors
    /// Says which of the two is wrong.
    pub fn new(ufrag: &str, pwd: &str) -> Result<Self, &'static str> {
        let fits = |text: &str, least| {
            (least..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
        };
        if !fits(ufrag, 4) {
            return Err("a=ice-ufrag does not have 4 to 256 plain characters");
        }
        if !fits(pwd, 22) {
            return Err("a=ice-pwd does not have 22 to 256 plain characters");
        }
        Ok(Self { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
    }
}

/// An offer that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The description as it came.
    pub text: String,
    /// Of the section that the whole bundle goes by.
    pub ice: IceCredentials,
    /// The video section.
    pub video: Option<Section>,
    /// The audio section.
    pub audio: Option<Section>,
    /// Which of the two the whole bundle goes by.
    pub leader: Kind,
    /// The viewer's candidates so far, each as in `RTCIceCandidate.candidate`: `candidate:1 1 udp …`, without `a=`. At
    /// most 64.
    pub candidates: Vec<String>,
}

/// A media section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name in the bundle (RFC 5888).
    pub mid: String,
    /// Whether the viewer wants to receive here: `recvonly` or `sendrecv`. Else the section is answered inactive.
    pub receives: bool,
    /// In the viewer's order of preference.
    pub codecs: Vec<OfferedCodec>,
}

/// A payload type and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedCodec {
    /// 0 to 127.
    pub payload_type: u8,
    /// The encoding name of its rtpmap, as written there.
    pub name: String,
    /// RTP clock ticks per second.
    pub clock_rate: u32,
    /// Channels of sound; 1 where none are named.
    pub channels: u8,
    /// Its format parameters; empty if there are none.
    pub fmtp: String,
}

impl OfferedCodec {
    /// Whether it is that encoding (names have no case, RFC 8866 section 6.6) at that clock rate.
    pub fn is(&self, name: &str, clock_rate: u32) -> bool {
        self.clock_rate == clock_rate && self.name.eq_ignore_ascii_case(name)
    }

    /// The value of a format parameter, where they have the form `name=value;name=value`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.fmtp.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`OfferError`] if it is no session description, or not one that WHEP allows.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        if text.len() > MAX_OFFER {
            return Err(OfferError::Large(text.len()));
        }
        // What is wrong may quote a whole line of the input.
        let syntax = |error: ParserError| OfferError::Syntax(shortened(&error.to_string()));
        let session = Session::parse(text.as_bytes()).map_err(syntax)?;
        let sections = sections(&session)?;
        let leader = leader(&session, &sections)?;
        let ice = credentials(&session, leader)?;
        fingerprint(&session, leader)?;
        let candidates = sections.iter().flat_map(|section| values(&section.media.attributes, "candidate"));
        let candidates = candidates.take(MAX_CANDIDATES).map(|value| format!("candidate:{value}")).collect();
        let section = |kind| {
            let found = sections.iter().find(|section| section.kind == kind);
            found.map(|section| section.read(&session.attributes)).transpose()
        };
        let (video, audio) = (section(Kind::Video)?, section(Kind::Audio)?);
        Ok(Self { text: text.to_owned(), ice, video, audio, leader: leader.kind, candidates })
    }

    /// The section that the bundle goes by, and its kind.
    pub fn leader(&self) -> (Kind, Option<&Section>) {
        match self.leader {
            Kind::Video => (Kind::Video, self.video.as_ref()),
            Kind::Audio => (Kind::Audio, self.audio.as_ref()),
        }
    }
}

/// A section before it is read whole.
struct Raw<'a> {
    /// From 1.
    number: usize,
    kind: Kind,
    mid: &'a str,
    media: &'a Media,
}

/// All sections: at most one of each kind, each with a name of its own.
fn sections(session: &Session) -> Result<Vec<Raw<'_>>, OfferError> {
    let mut sections: Vec<Raw<'_>> = Vec::new();
    for (index, media) in session.medias.iter().enumerate() {
        let fail = |what: &str| Err(bad(index + 1, media, what));
        let kind = match media.media.as_str() {
            "video" => Kind::Video,
            "audio" => Kind::Audio,
            _ => return fail("only video and audio can be had here"),
        };
        if sections.iter().any(|other| other.kind == kind) {
            return fail("one video and one audio section at most can be answered");
        }
        let Some(mid) = value(&media.attributes, "mid").filter(|mid| !mid.is_empty() && mid.len() <= 64) else {
            return fail("a=mid is missing");
        };
        if sections.iter().any(|other| other.mid == mid) {
            return fail("its a=mid is another section's too");
        }
        if media.port == 0 && !has(&media.attributes, "bundle-only") {
            return fail("its port is 0, which says that it is not wanted: leave it out");
        }
        sections.push(Raw { number: index + 1, kind, mid, media });
    }
    Ok(sections)
}

/// The section whose transport carries all others, the first that the bundle names (RFC 9143 section 7.2).
fn leader<'a, 'b>(session: &Session, sections: &'b [Raw<'a>]) -> Result<&'b Raw<'a>, OfferError> {
    let fail = |what: &str| Err(OfferError::Session(what.to_owned()));
    let Some(first) = sections.first() else { return fail("it has no video or audio section") };
    let mut bundles = values(&session.attributes, "group").filter_map(|group| group.strip_prefix("BUNDLE "));
    let Some(bundle) = bundles.next() else {
        // A section on its own is a bundle already; GStreamer's webrtcbin does not say so unless told to.
        return match sections {
            [alone] => Ok(alone),
            _ => fail("a=group:BUNDLE is missing: all goes through one port"),
        };
    };
    let bundle: Vec<&str> = bundle.split_ascii_whitespace().collect();
    if let Some(alone) = sections.iter().find(|section| !bundle.contains(&section.mid)) {
        return Err(bad(alone.number, alone.media, "a=group:BUNDLE does not name it: all goes through one port"));
    }
    let named = bundle.iter().find_map(|mid| sections.iter().find(|section| section.mid == *mid));
    Ok(named.unwrap_or(first))
}

/// At the section or for the whole session (RFC 8839 section 5.4).
fn credentials(session: &Session, leader: &Raw<'_>) -> Result<IceCredentials, OfferError> {
    let get = |name| value(&leader.media.attributes, name).or_else(|| value(&session.attributes, name));
    let fail = |what| bad(leader.number, leader.media, what);
    let ufrag = get("ice-ufrag").ok_or_else(|| fail("a=ice-ufrag is missing"))?;
    let pwd = get("ice-pwd").ok_or_else(|| fail("a=ice-pwd is missing"))?;
    IceCredentials::new(ufrag, pwd).map_err(fail)
}

/// Checks that DTLS can be set up: a certificate's fingerprint (RFC 8122) and a role that leaves one for us (RFC 8842).
fn fingerprint(session: &Session, leader: &Raw<'_>) -> Result<(), OfferError> {
    let all = |name| values(&leader.media.attributes, name).chain(values(&session.attributes, name));
    let fail = |what| Err(bad(leader.number, leader.media, what));
    let hex = |text: &str| text.split(':').all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok());
    let mut fingerprints = all("fingerprint").filter_map(|value| value.split_once(' ')).peekable();
    if fingerprints.peek().is_none() {
        return fail("a=fingerprint is missing: media is only sent encrypted, by DTLS");
    }
    if !fingerprints.all(|(_, digest)| digest.len() <= 64 * 3 && hex(digest.trim())) {
        return fail("a=fingerprint is not bytes in hexadecimal with colons between them");
    }
    match all("setup").next() {
        None | Some("actpass" | "active" | "passive") => Ok(()),
        Some(_) => fail("a=setup is not actpass, active or passive"),
    }
}

impl Raw<'_> {
    fn read(&self, session: &[Attribute]) -> Result<Section, OfferError> {
        let fail = |what: &str| bad(self.number, self.media, what);
        let attributes = &self.media.attributes;
        if !self.media.proto.ends_with("/TLS/RTP/SAVPF") {
            return Err(fail("it is not UDP/TLS/RTP/SAVPF, as WebRTC is"));
        }
        if !has(attributes, "rtcp-mux") {
            return Err(fail("a=rtcp-mux is missing: all goes through one port"));
        }
        let direction = ["sendrecv", "recvonly", "sendonly", "inactive"];
        let direction = |of: &[Attribute]| direction.into_iter().find(|name| has(of, name));
        let direction = direction(attributes).or_else(|| direction(session)).unwrap_or("sendrecv");
        let receives = matches!(direction, "sendrecv" | "recvonly");
        let mut codecs = Vec::new();
        for format in self.media.fmt.split_ascii_whitespace().take(MAX_CODECS) {
            let payload_type: u8 = format
                .parse()
                .ok()
                .filter(|number| *number < 128)
                .ok_or_else(|| fail("a payload type is not 0 to 127"))?;
            codecs.extend(self.codec(format, payload_type).map_err(fail)?);
        }
        Ok(Section { mid: self.mid.to_owned(), receives, codecs })
    }

    /// What that payload type stands for; `None` if the description does not say.
    fn codec(&self, format: &str, payload_type: u8) -> Result<Option<OfferedCodec>, &'static str> {
        let of = |name| {
            let pairs = values(&self.media.attributes, name).filter_map(|value| value.split_once(' '));
            pairs.filter(|(number, _)| *number == format).map(|(_, rest)| rest.trim()).next()
        };
        let codec = |name: &str, clock_rate, channels| {
            let fmtp = of("fmtp").unwrap_or_default().to_owned();
            Some(OfferedCodec { payload_type, name: name.to_owned(), clock_rate, channels, fmtp })
        };
        let Some(rtpmap) = of("rtpmap") else {
            // RFC 3551 section 6: these need no rtpmap.
            return Ok(match (self.kind, payload_type) {
                (Kind::Audio, 0) => codec("PCMU", 8000, 1),
                (Kind::Audio, 8) => codec("PCMA", 8000, 1),
                _ => None,
            });
        };
        let mut parts = rtpmap.split('/');
        let (name, clock) = (parts.next().unwrap_or_default(), parts.next().and_then(|clock| clock.parse().ok()));
        let channels = parts.next().map_or(Ok(1), str::parse);
        match (clock, channels) {
            (Some(clock), Ok(channels)) if !name.is_empty() => Ok(codec(name, clock, channels)),
            _ => Err("an a=rtpmap is not NAME/CLOCK or NAME/CLOCK/CHANNELS"),
        }
    }
}

/// Text of the input as it may stand in an error.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_QUOTED).collect()
}

fn bad(number: usize, media: &Media, what: &str) -> OfferError {
    let media = media.media.chars().take(32).collect();
    OfferError::Section { number, media, what: what.to_owned() }
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.attribute == name)
}

fn values<'a>(attributes: &'a [Attribute], name: &str) -> impl Iterator<Item = &'a str> {
    attributes
        .iter()
        .filter(move |attribute| attribute.attribute == name)
        .filter_map(|attribute| attribute.value.as_deref())
}

fn value<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    values(attributes, name).next().map(str::trim)
}

#[cfg(test)]
mod tests;
