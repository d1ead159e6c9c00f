//! The SDP offer of a viewer.

/// The credentials of one side's ICE agent (RFC 8445 section 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceCredentials {
    /// The user fragment.
    pub ufrag: String,
    /// The password.
    pub pwd: String,
}

/// What a viewer offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The offer as it came.
    pub text: String,
    /// The viewer's ICE credentials.
    pub ice: IceCredentials,
    /// The video section.
    pub video: Option<Section>,
    /// The audio section.
    pub audio: Option<Section>,
    /// Candidates, each as the value of `a=candidate:…` without `a=`.
    pub candidates: Vec<String>,
}

/// A media section of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its `a=mid`.
    pub mid: String,
    /// Its codecs in the order of preference.
    pub codecs: Vec<OfferedCodec>,
}

/// A codec of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedCodec {
    /// The RTP payload type.
    pub payload_type: u8,
    /// The encoding name of the `a=rtpmap`.
    pub name: String,
    /// The clock rate of the `a=rtpmap`.
    pub clock_rate: u32,
    /// The channels of the `a=rtpmap`.
    pub channels: u8,
    /// The format parameters.
    pub fmtp: String,
}
