use super::*;
use proptest::prelude::*;

const CHROMIUM: &str = include_str!("../testdata/chromium.sdp");
const FIREFOX: &str = include_str!("../testdata/firefox.sdp");
const AIORTC: &str = include_str!("../testdata/aiortc.sdp");
const WEBRTCBIN: &str = include_str!("../testdata/webrtcbin.sdp");
const WEBRTCBIN_ALONE: &str = include_str!("../testdata/webrtcbin-alone.sdp");
const ALL: [&str; 5] = [CHROMIUM, FIREFOX, AIORTC, WEBRTCBIN, WEBRTCBIN_ALONE];

fn codec(section: &Section, payload_type: u8) -> &OfferedCodec {
    section.codecs.iter().find(|codec| codec.payload_type == payload_type).expect("it is offered")
}

fn refused(text: &str) -> String {
    Offer::parse(text).expect_err("it cannot be used").to_string()
}

#[test]
fn chromium() {
    let offer = Offer::parse(CHROMIUM).expect("a real one");
    assert_eq!((offer.ice.ufrag.as_str(), offer.ice.pwd.as_str()), ("ROq0", "Led3gsM11ieijp/bSmhlY25v"));
    let (video, audio) = (offer.video.expect("offered"), offer.audio.expect("offered"));
    assert_eq!((video.mid.as_str(), audio.mid.as_str(), offer.leader), ("0", "1", Kind::Video));
    assert!(video.receives && audio.receives && offer.candidates.is_empty());
    assert_eq!(
        video.codecs[0],
        OfferedCodec { payload_type: 96, name: "VP8".into(), clock_rate: 90_000, channels: 1, fmtp: String::new() }
    );
    let h264 = codec(&video, 108);
    assert!(h264.is("h264", 90_000) && !h264.is("H264", 8000));
    assert_eq!(h264.parameter("profile-level-id"), Some("42e01f"));
    assert_eq!(h264.parameter("Packetization-Mode"), Some("1"));
    assert_eq!(h264.parameter("sprop-parameter-sets"), None);
    assert_eq!((codec(&audio, 111).channels, codec(&audio, 0).name.as_str()), (2, "PCMU"));
}

#[test]
fn firefox_has_its_fingerprint_at_the_top_and_its_own_order_of_lines() {
    let offer = Offer::parse(FIREFOX).expect("its shape");
    let video = offer.video.expect("offered");
    assert_eq!(video.codecs.iter().filter(|codec| codec.is("H264", 90_000)).count(), 2);
    assert_eq!(codec(&video, 126).parameter("packetization-mode"), Some("1"));
    assert_eq!(offer.ice.ufrag, "1f0c93ae");
}

#[test]
fn aiortc_sends_its_candidates_along() {
    let offer = Offer::parse(AIORTC).expect("a real one");
    assert_eq!(offer.candidates.len(), 4);
    assert_eq!(
        offer.candidates[0],
        "candidate:f957a2332b1715da3b0ef8ba684454eb 1 udp 2130706431 192.0.2.2 39682 typ host"
    );
}

#[test]
fn webrtcbin_bundles_with_port_0_and_needs_no_group_for_one_section() {
    let offer = Offer::parse(WEBRTCBIN).expect("a real one");
    let audio = offer.audio.expect("offered");
    assert!(audio.receives && audio.mid == "audio1");
    assert_eq!(codec(&offer.video.expect("offered"), 96).fmtp, "");
    let alone = Offer::parse(WEBRTCBIN_ALONE).expect("a real one");
    assert!(alone.audio.is_none() && alone.leader().1.is_some_and(|section| section.mid == "video0"));
}

#[test]
fn the_bundle_goes_by_the_section_that_its_group_names_first() {
    let text = CHROMIUM.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 1 0");
    let (before, audio) = text.split_at(text.find("m=audio").expect("it is there"));
    let offer = Offer::parse(&format!("{before}{}", audio.replace("ROq0", "other"))).expect("it is whole");
    assert_eq!((offer.leader, offer.ice.ufrag.as_str()), (Kind::Audio, "other"));
}

#[test]
fn payload_types_0_and_8_need_no_rtpmap_and_others_do() {
    let text = FIREFOX.replace("a=rtpmap:0 PCMU/8000\r\n", "").replace("a=rtpmap:8 PCMA/8000\r\n", "");
    let text = text.replace("a=rtpmap:109 opus/48000/2\r\n", "");
    let audio = Offer::parse(&text).expect("it is whole").audio.expect("offered");
    let names: Vec<_> = audio.codecs.iter().map(|codec| codec.name.as_str()).collect();
    assert_eq!(names, ["G722", "PCMU", "PCMA", "telephone-event"]);
    assert_eq!((codec(&audio, 8).clock_rate, codec(&audio, 8).channels), (8000, 1));
}

#[test]
fn directions() {
    for (direction, receives) in [("recvonly", true), ("sendrecv", true), ("sendonly", false), ("inactive", false)] {
        let offer = Offer::parse(&CHROMIUM.replace("a=recvonly", &format!("a={direction}"))).expect("it is whole");
        assert_eq!(offer.video.map(|section| section.receives), Some(receives), "{direction}");
    }
    let of_the_session = CHROMIUM.replace("a=recvonly\r\n", "").replace("t=0 0\r\n", "t=0 0\r\na=inactive\r\n");
    let offer = Offer::parse(&of_the_session).expect("it is whole");
    assert_eq!(offer.audio.map(|section| section.receives), Some(false));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let without = |line: &str| {
        let kept = CHROMIUM.lines().filter(|kept| !kept.starts_with(line));
        refused(&kept.collect::<Vec<_>>().join("\r\n"))
    };
    let section = "the SDP cannot be used: section 1 (m=video): ";
    assert_eq!(without("a=ice-ufrag"), format!("{section}a=ice-ufrag is missing"));
    assert_eq!(without("a=ice-pwd"), format!("{section}a=ice-pwd is missing"));
    assert_eq!(without("a=mid"), format!("{section}a=mid is missing"));
    assert!(without("a=fingerprint").starts_with(&format!("{section}a=fingerprint is missing")));
    assert!(without("a=rtcp-mux").starts_with(&format!("{section}a=rtcp-mux is missing")));
    assert!(without("a=group").starts_with("the SDP cannot be used: a=group:BUNDLE is missing"));
    let changed = |from: &str, to: &str| refused(&CHROMIUM.replace(from, to));
    assert!(changed("BUNDLE 0 1", "BUNDLE 0").contains("section 2 (m=audio): a=group:BUNDLE does not name it"));
    assert!(changed("m=audio", "m=video").contains("section 2 (m=video): one video and one audio section at most"));
    assert!(changed("m=audio", "m=application").contains("section 2 (m=application): only video and audio"));
    assert!(changed("m=audio 9", "m=audio 0").contains("section 2 (m=audio): its port is 0"));
    assert!(changed("a=mid:1", "a=mid:0").contains("another section's"));
    assert!(changed("UDP/TLS/RTP/SAVPF", "RTP/AVP").contains("it is not UDP/TLS/RTP/SAVPF"));
    assert!(changed("a=setup:actpass", "a=setup:holdconn").contains("a=setup is not actpass"));
    assert!(changed("ROq0", "RO").contains("a=ice-ufrag does not have 4 to 256"));
    assert!(changed("69:22", "69:zz").contains("a=fingerprint is not bytes"));
    assert!(changed("H264/90000", "H264").contains("rtpmap"));
    assert!(changed("SAVPF 96", "SAVPF 960").contains("a payload type is not 0 to 127"));
    assert_eq!(
        refused("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"),
        "the SDP cannot be used: it has no video or audio section"
    );
    assert!(refused("v=0\r\nnonsense\r\n").contains("line 2"), "{}", refused("v=0\r\nnonsense\r\n"));
    assert!(refused("").starts_with("the SDP cannot be read"));
    assert!(refused(&"x".repeat(MAX_OFFER + 1)).contains("up to 65536 are read"));
}

proptest! {
    #[test]
    fn damage_never_panics(which in 0_usize..5, at: prop::sample::Index, byte in 0_u8..128, cut: prop::sample::Index) {
        let mut bytes = ALL[which].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()));
        let _ = Offer::parse(std::str::from_utf8(&bytes).expect("ASCII"));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = Offer::parse(&text);
    }

    /// Written in any order, each part is found.
    #[test]
    fn what_was_written_is_read(
        ufrag in "[a-zA-Z0-9+/]{4,32}",
        pwd in "[a-zA-Z0-9+/]{22,64}",
        mid in "[a-z0-9]{1,8}",
        codecs in prop::collection::btree_map(96_u8..128, ("[A-Z][A-Z0-9]{0,8}", 1_u32..192_000, 1_u8..8, "([a-z-]{1,9}=[0-9a-f]{1,6})?"), 0..8),
        reversed: bool,
    ) {
        let mut lines = vec![
            "a=rtcp-mux".to_owned(), "a=recvonly".into(), format!("a=mid:{mid}"), format!("a=ice-ufrag:{ufrag}"),
            format!("a=ice-pwd:{pwd}"), "a=fingerprint:sha-256 00:FF".into(),
        ];
        for (payload_type, (name, clock, channels, fmtp)) in &codecs {
            lines.push(format!("a=rtpmap:{payload_type} {name}/{clock}/{channels}"));
            if !fmtp.is_empty() {
                lines.push(format!("a=fmtp:{payload_type} {fmtp}"));
            }
        }
        if reversed {
            lines.reverse();
        }
        let types: String = codecs.keys().map(|payload_type| format!(" {payload_type}")).collect();
        let text = format!("v=0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF{types}\r\n{}\r\n", lines.join("\r\n"));
        let offer = Offer::parse(&text);
        if codecs.is_empty() {
            prop_assert!(offer.is_err());
            return Ok(());
        }
        let expected = codecs.into_iter().map(|(payload_type, (name, clock_rate, channels, fmtp))| {
            OfferedCodec { payload_type, name, clock_rate, channels, fmtp }
        });
        let audio = Section { mid, receives: true, codecs: expected.collect() };
        let ice = IceCredentials { ufrag, pwd };
        let expected = Offer { text, ice, video: None, audio: Some(audio), leader: Kind::Audio, candidates: Vec::new() };
        prop_assert_eq!(offer, Ok(expected));
    }
}
