//! The reader of WebRTC offers.

use fanlight::republish::webrtc::{Offer, OfferedCodec};

/// Reads the input as an offer: what is accepted is within its bounds, and what is refused says why.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let offer = match Offer::parse(text) {
        Ok(offer) => offer,
        Err(error) => return assert!(error.to_string().len() < 2_000, "{error}"),
    };
    assert_eq!(offer.text, text);
    assert!((4..=256).contains(&offer.ice.ufrag.len()) && (22..=256).contains(&offer.ice.pwd.len()));
    assert!(offer.candidates.len() <= 64);
    assert!(offer.candidates.iter().all(|candidate| candidate.starts_with("candidate:")));
    let (_, leader) = offer.leader();
    assert!(leader.is_some_and(|section| !section.mid.is_empty()));
    let usable = |codec: &OfferedCodec| {
        codec.payload_type < 128 && !codec.name.is_empty() && codec.is(&codec.name, codec.clock_rate)
    };
    for section in [&offer.video, &offer.audio].into_iter().flatten() {
        assert!(section.codecs.len() <= 128 && section.codecs.iter().all(usable));
        for codec in &section.codecs {
            let _ = codec.parameter("profile-level-id");
        }
    }
    // The same lines end in another way.
    if !text.contains('\r') && text.len() < 30_000 {
        let again = Offer::parse(&text.replace('\n', "\r\n")).expect("line ends do not matter");
        assert_eq!((again.ice, again.video, again.audio), (offer.ice, offer.video, offer.audio));
    }
}
