//! What is answered to the offers of many players.

use super::*;

const FIREFOX: &str = include_str!("../../../src/republish/webrtc/testdata/firefox.sdp");
const AIORTC: &str = include_str!("../../../src/republish/webrtc/testdata/aiortc.sdp");
const WEBRTCBIN: &str = include_str!("../../../src/republish/webrtc/testdata/webrtcbin.sdp");
const WEBRTCBIN_ALONE: &str = include_str!("../../../src/republish/webrtc/testdata/webrtcbin-alone.sdp");

/// The answer's sections, each from its m-line on, with what stands before them.
fn sections(answer: &str) -> (String, Vec<String>) {
    let mut parts = answer.split("m=");
    let session = parts.next().unwrap().to_owned();
    (session, parts.map(|part| format!("m={part}")).collect())
}

async fn answer(offer: &str) -> (String, Vec<String>) {
    let gateway = Gateway::with_camera(Rig::default()).await;
    let reply = gateway.ask("POST", "/whep/front", &[SDP], offer).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    sections(&reply.body)
}

fn has(section: &str, line: &str) -> bool {
    section.lines().any(|known| known == line)
}

#[tokio::test]
async fn the_answer_is_sendonly_with_all_candidates_in_one_bundle() {
    for (offer, mids, video, audio) in [
        (CHROMIUM, "0 1", "108", Some("0")),
        (FIREFOX, "0 1", "126", Some("0")),
        (AIORTC, "0 1", "101", Some("0")),
        (WEBRTCBIN_ALONE, "video0", "96", None),
    ] {
        let (session, sections) = answer(offer).await;
        assert!(has(&session, &format!("a=group:BUNDLE {mids}")), "{session}");
        let expected: Vec<_> =
            [("video", Some(video)), ("audio", audio)].into_iter().filter(|(_, pt)| pt.is_some()).collect();
        assert_eq!(sections.len(), expected.len());
        for (section, (kind, payload_type)) in sections.iter().zip(expected) {
            let payload_type = payload_type.unwrap();
            assert!(section.starts_with(&format!("m={kind} ")), "{section}");
            assert!(section.lines().next().unwrap().ends_with(&format!(" {payload_type}")), "{section}");
            assert!(has(section, "a=sendonly") && has(section, "a=rtcp-mux"), "{section}");
            assert!(section.contains("a=ice-ufrag:") && section.contains("a=fingerprint:sha-256 "), "{section}");
        }
        let candidates: Vec<_> = sections[0].lines().filter(|line| line.starts_with("a=candidate:")).collect();
        assert!(
            candidates.iter().any(|line| line.to_ascii_lowercase().contains(" udp ") && line.contains("127.0.0.1"))
        );
        assert!(candidates.iter().any(|line| line.to_ascii_lowercase().contains(" tcp ")), "{candidates:?}");
        assert!(has(&sections[0], "a=end-of-candidates"));
    }
}

#[tokio::test]
async fn sections_that_nothing_serves_are_inactive_and_stay() {
    // Sound in a codec that the camera does not send, and sound that is not wanted.
    for offer in [WEBRTCBIN.to_owned(), {
        let (before, after) = CHROMIUM.split_at(CHROMIUM.find("m=audio").unwrap());
        format!("{before}{}", after.replace("a=recvonly", "a=sendonly"))
    }] {
        let (_, sections) = answer(&offer).await;
        assert_eq!(sections.len(), 2);
        assert!(has(&sections[0], "a=sendonly"), "{}", sections[0]);
        assert!(has(&sections[1], "a=inactive") && !sections[1].starts_with("m=audio 0 "), "{}", sections[1]);
    }
}

#[tokio::test]
async fn one_audio_and_one_video_at_most_bundled_and_muxed() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    let refused = async |offer: String| gateway.ask("POST", "/whep/front", &[SDP], &offer).await.problem(400);
    let (before, audio) = CHROMIUM.split_at(CHROMIUM.find("m=audio").unwrap());
    let third = audio.replace("a=mid:1", "a=mid:2");
    let words = refused(format!("{}{audio}{third}", before.replace("BUNDLE 0 1", "BUNDLE 0 1 2"))).await;
    assert!(words.contains("section 3 (m=audio): one video and one audio section at most"), "{words}");
    let words = refused(CHROMIUM.replace("a=group:BUNDLE 0 1\r\n", "")).await;
    assert!(words.contains("a=group:BUNDLE is missing"), "{words}");
    let words = refused(CHROMIUM.replace("a=rtcp-mux\r\n", "")).await;
    assert!(words.contains("section 1 (m=video): a=rtcp-mux is missing"), "{words}");
}
