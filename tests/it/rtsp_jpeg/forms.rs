//! What a viewer is told and sent in either form, and when it is refused.

use super::pictures::{Coding, VGA, picture};
use super::{Camera, FRAME, Gateway, turn};
use crate::support::rtsp_client::{Client, Rtp};
use crate::support::until;
use fanlight::media::Codec;
use futures::future::join_all;
use std::time::Duration;
use turbojpeg::Subsamp;

const TCP: [(&str, &str); 2] =
    [("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1"), ("Transport", "RTP/AVP/TCP;unicast;interleaved=2-3")];

/// DESCRIBE, and SETUP of as many tracks as it names; plays and answers the description.
async fn play(client: &mut Client) -> String {
    let uri = client.base.clone();
    let described = client.request("DESCRIBE", &uri, &[]).await;
    assert_eq!(described.status, 200, "{described:?}");
    let base = described.header("Content-Base").unwrap().to_owned();
    let tracks = described.body.lines().filter(|line| line.starts_with("m=")).count();
    for (track, transport) in TCP.iter().take(tracks).enumerate() {
        let setup = client.request("SETUP", &format!("{base}trackID={track}"), &[*transport]).await;
        assert_eq!(setup.status, 200, "{setup:?}");
    }
    let played = client.request("PLAY", &base, &[]).await;
    assert_eq!(played.status, 200, "{played:?}");
    assert_eq!(played.header("RTP-Info").unwrap().split(',').count(), tracks);
    described.body
}

/// The type of the first NAL unit in a packet of H.264.
fn nal_type(packet: &Rtp) -> u8 {
    match packet.payload[0] & 0x1f {
        28 => packet.payload[1] & 0x1f,
        kind => kind,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_beside_the_cameras_own_sound_for_everybody_and_jpeg_for_who_asks() {
    let _turn = turn().await;
    let gateway = Gateway::start();
    let pictures: Vec<_> = (0..5).map(|number| picture(VGA, number)).collect();
    let running = Camera::new(&gateway.bus, "hall", true).run(pictures, FRAME);

    let mut client = gateway.client("hall").await;
    let told = play(&mut client).await;
    for line in ["m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000", "m=audio 0 RTP/AVP 0"] {
        assert!(told.lines().any(|found| found == line), "{line} is missing in {told}");
    }
    assert!(told.contains("packetization-mode=1;profile-level-id=42C0") && told.contains("sprop-parameter-sets=Z0L"));
    let first = client.rtp(0).await;
    assert_eq!(nal_type(&first), 7, "it begins with the parameter sets of a key picture");
    assert_eq!(client.rtp(2).await.payload.len(), 160);

    let mut quiet = gateway.client("hall?audio=none").await;
    let told = play(&mut quiet).await;
    assert!(told.contains("H264/90000") && !told.contains("m=audio"));
    quiet.rtp(0).await;

    let mut copy = gateway.client("hall?video=copy").await;
    let told = play(&mut copy).await;
    assert!(told.contains("m=video 0 RTP/AVP 26\r\n") && told.contains("JPEG/90000") && told.contains("m=audio 0"));
    assert_eq!(copy.rtp(0).await.payload[4], 1, "4:2:0");
    copy.rtp(2).await;

    let mut both = gateway.client("hall?video=copy&audio=none").await;
    let told = play(&mut both).await;
    assert!(told.contains("JPEG/90000") && !told.contains("m=audio"));
    both.rtp(0).await;
    drop(running);
}

/// Ten viewers of RTSP and another reader of the rendition are served by one encoder, which comes with the first and goes
/// after the last; who wants the pictures as they are needs none.
#[tokio::test(flavor = "multi_thread")]
async fn one_encoder_for_all_and_none_for_copies() {
    let _turn = turn().await;
    let gateway = Gateway::start();
    let pictures: Vec<_> = (0..5).map(|number| picture(VGA, number)).collect();
    let running = Camera::new(&gateway.bus, "hall", false).run(pictures, FRAME);
    let mut copy = gateway.client("hall?video=copy").await;
    play(&mut copy).await;
    copy.rtp(0).await;
    assert!(gateway.transcoder.states().is_empty(), "nobody wants H.264");

    let viewers = join_all((0..10).map(|_| async {
        let mut client = gateway.client("hall").await;
        play(&mut client).await;
        let first = client.rtp(0).await;
        assert_eq!(nal_type(&first), 7);
        client
    }))
    .await;
    let states = gateway.transcoder.states();
    assert!(matches!(&states[..], [one] if one.running && one.restarts == 0), "{states:?}");
    let rendition = gateway.transcoder.rendition(&running.stream, running.video, Codec::H264).unwrap();
    // One feed serves all ten.
    assert_eq!(rendition.stream().demand.count(), 1);
    drop(viewers);
    until("nobody reads the rendition", || rendition.stream().demand.count() == 0).await;
    until("the encoder ended", || !gateway.transcoder.states()[0].running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_an_encoder_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let text = "about: none\nfrom: jpeg\nto: h264\ncandidates:\n  - about: not installed\n    \
                launch: appsrc name=in ! jpegdec ! x264encforgotten name=enc ! appsink name=out\n";
    std::fs::write(folder.path().join("jpeg-to-h264.yaml"), text).unwrap();
    let gateway = Gateway::with(Some(folder.path().to_owned()));
    let running = Camera::new(&gateway.bus, "hall", false).run(vec![picture(VGA, 0)], FRAME);
    let mut client = gateway.client("hall").await;
    let uri = client.base.clone();
    // The first is told by the child, the second by what is remembered.
    for _ in 0..2 {
        client.write(format!("DESCRIBE {uri} RTSP/1.0\r\nCSeq: 1\r\n\r\n").as_bytes()).await;
        let line = client.status_line().await;
        assert!(line.starts_with("RTSP/1.0 503 Service Unavailable: ") && line.contains("x264encforgotten"), "{line}");
    }
    let mut copy = gateway.client("hall?video=copy").await;
    play(&mut copy).await;
    copy.rtp(0).await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_over_2040_pixels_come_encoded_only() {
    let _turn = turn().await;
    let gateway = Gateway::start();
    let large = Coding { width: 2_048, height: 1_536, ..VGA };
    let running = Camera::new(&gateway.bus, "yard", false).run(vec![picture(large, 0)], Duration::from_millis(500));
    let mut copy = gateway.client("yard?video=copy").await;
    let uri = copy.base.clone();
    copy.write(format!("DESCRIBE {uri} RTSP/1.0\r\nCSeq: 1\r\n\r\n").as_bytes()).await;
    let line = copy.status_line().await;
    assert!(line.starts_with("RTSP/1.0 406 Not Acceptable: ") && line.contains("2048x1536"), "{line}");
    let mut client = gateway.client("yard").await;
    let told = play(&mut client).await;
    assert!(told.contains("H264/90000"));
    client.rtp(0).await;
    drop(running);
}

/// The encoder starts anew for another size; who watches stays, and its parameter sets come in band.
#[tokio::test(flavor = "multi_thread")]
async fn viewers_stay_when_the_pictures_change_their_size() {
    let _turn = turn().await;
    let gateway = Gateway::start();
    let mut camera = Camera::new(&gateway.bus, "hall", false);
    let small = Coding { width: 320, height: 240, sampling: Subsamp::Sub2x1, optimised: false };
    let (before, after) = (picture(VGA, 1), picture(small, 2));
    let (change, mut changed) = tokio::sync::watch::channel(false);
    let showing = tokio::spawn(async move {
        let mut tick = tokio::time::interval(FRAME);
        loop {
            tick.tick().await;
            let shown = if *changed.borrow_and_update() { &after } else { &before };
            camera.show(shown, FRAME);
        }
    });
    let mut client = gateway.client("hall").await;
    let mut copy = gateway.client("hall?video=copy").await;
    play(&mut client).await;
    play(&mut copy).await;
    let first = client.rtp(0).await;
    assert_eq!(nal_type(&first), 7);
    assert_eq!(copy.rtp(0).await.payload[4..8], [1, 255, 80, 60]);
    // Changes right after the start are left to the pipeline.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    change.send_replace(true);
    while copy.rtp(0).await.payload[4..8] != [0, 255, 40, 30] {}
    loop {
        let packet = client.rtp(0).await;
        if nal_type(&packet) == 7 && packet.payload != first.payload {
            break;
        }
    }
    while nal_type(&client.rtp(0).await) != 1 {}
    assert_eq!(gateway.transcoder.states()[0].restarts, 0, "it is no failure");
    showing.abort();
}
