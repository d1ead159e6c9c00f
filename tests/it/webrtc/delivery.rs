//! Media: starts, catching up, sharing, packets sent again.

use super::{Gateway, Relay};
use crate::support::publisher::{FRAME, PPS, SPS, picture_number};
use crate::support::until;
use crate::support::whep_viewer::{Viewer, Wishes};
use fanlight::media::Kind;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The number of the picture that this packet begins, if it does.
fn begins(payload: &[u8]) -> Option<u32> {
    match payload {
        // A fragment (RFC 6184 section 5.8) that starts a slice, or a slice in one packet.
        [28 | 0x5c | 0x7c, header, rest @ ..] if header & 0x80 != 0 => picture_number(&[&[0][..], rest].concat()),
        [first, ..] if matches!(first & 0x1f, 1 | 5) => picture_number(payload),
        _ => None,
    }
}

/// Reads to the end of the picture of that number.
async fn through(viewer: &mut Viewer, number: u32) {
    while begins(&viewer.video().await.payload) != Some(number) {}
    while !viewer.video().await.header.marker {}
}

#[tokio::test]
async fn a_viewer_gets_the_cached_key_picture_first_then_pictures_and_sound() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", true);
    camera.pictures(60);
    let camera = camera.run();
    let mut viewer = Viewer::new(Wishes { audio: true, ..Wishes::default() }).await;
    gateway.view(&viewer, &camera.device).await;
    let first = viewer.video().await;
    assert_eq!((first.header.payload_type, &first.payload[..]), (102, SPS));
    assert_eq!(&viewer.video().await.payload[..], PPS);
    let key = viewer.video().await;
    // The newest key picture before the 60th is the 50th, unless the camera was faster than the viewer.
    assert!(begins(&key.payload).is_some_and(|number| number >= 50 && number % 25 == 0));
    let mut sound = 0;
    while sound < 20 {
        let (kind, packet) = viewer.packet().await;
        if kind == Kind::Audio {
            assert_eq!((packet.header.payload_type, packet.payload.len()), (0, 160));
            sound += 1;
        }
    }
    assert_eq!(camera.device.viewers.webrtc.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_cached_pictures_come_whole_and_in_time_with_time_stamps_just_before_the_live_edge() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", false);
    (camera.gop, camera.size, camera.key_size) = (250, 10_000, 150_000);
    // A GOP of 9 s and 2.4 MB: at four times its rate it takes a second.
    camera.pictures(225);
    let live = camera.number;
    let mut viewer = Viewer::new(Wishes::default()).await;
    gateway.view(&viewer, &camera.device).await;
    let mut seqs = Vec::new();
    let mut numbers = Vec::new();
    let mut times = Vec::new();
    while numbers.last() != Some(&(live - 1)) {
        let packet = viewer.video().await;
        seqs.push(packet.header.sequence_number);
        if let Some(number) = begins(&packet.payload) {
            numbers.push(number);
            times.push(packet.header.timestamp);
        }
    }
    assert_eq!(numbers, (0..live).collect::<Vec<_>>());
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "nothing is lost or sent twice");
    let distances: Vec<_> = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(distances.iter().all(|ticks| *ticks > 0), "{distances:?}");
    let span = times.last().unwrap().wrapping_sub(times[0]);
    assert!(span <= 90 * 51, "{span} ticks for all the cached pictures");
    // What comes next has its true distance.
    camera.picture();
    let next = loop {
        let packet = viewer.video().await;
        if begins(&packet.payload) == Some(live) {
            break packet.header.timestamp;
        }
    };
    assert_eq!(u128::from(next.wrapping_sub(*times.last().unwrap())), FRAME.as_millis() * 90);
    assert_eq!(gateway.statistics.retransmitted.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn twenty_viewers_share_a_camera_and_each_gets_all_of_it() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let camera = camera.run();
    let mut viewers = Vec::new();
    for _ in 0..20 {
        let viewer = Viewer::new(Wishes::default()).await;
        gateway.view(&viewer, &camera.device).await;
        viewers.push(viewer);
    }
    for viewer in &mut viewers {
        let mut numbers = Vec::new();
        while numbers.len() < 30 {
            numbers.extend(begins(&viewer.video().await.payload));
        }
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }
    assert_eq!(camera.stream.demand.count(), 1, "the stream is read once");
    assert_eq!(camera.device.viewers.webrtc.load(Ordering::Relaxed), 20);
    drop(viewers);
}

#[tokio::test]
async fn lost_packets_are_sent_again_as_they_were() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let camera = camera.run();
    // Every 7th packet of media is lost on the way to the viewer.
    let relay = Relay::start(gateway.address, 7).await;
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.create(&viewer, &camera.device);
    viewer.answer(&relay.redirect(session.answer())).await;
    let mut seqs = BTreeSet::new();
    let mut first = None;
    while seqs.len() < 150 {
        let packet = viewer.video().await;
        let first = *first.get_or_insert(packet.header.sequence_number);
        seqs.insert(packet.header.sequence_number.wrapping_sub(first));
    }
    until("the lost ones were sent again", || gateway.statistics.retransmitted.load(Ordering::Relaxed) > 5).await;
    // All but the newest have arrived: the crate does not sort, but it has them.
    while !(0..150).all(|seq| seqs.contains(&seq)) {
        let packet = viewer.video().await;
        seqs.insert(packet.header.sequence_number.wrapping_sub(first.unwrap()));
    }
    assert!(relay.dropped() > 5);
}

#[tokio::test]
async fn viewers_stay_while_the_camera_is_away_and_go_on_with_its_next_key_picture() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", false);
    camera.pictures(10);
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.view(&viewer, &camera.device).await;
    through(&mut viewer, 9).await;
    camera.stream.interrupt();
    assert!(viewer.packets_for(Duration::from_millis(1_500)).await.is_empty());
    camera.now = camera.now + Duration::from_secs(3);
    camera.number = 25;
    camera.pictures(3);
    let first = viewer.video().await;
    assert_eq!(&first.payload[..], SPS);
    through(&mut viewer, 27).await;
    assert!(!session.closed().is_cancelled());
}

#[tokio::test]
async fn a_wish_for_a_key_picture_of_a_camera_breaks_nothing() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let camera = camera.run();
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.view(&viewer, &camera.device).await;
    viewer.video().await;
    // A camera cannot be asked; nothing breaks and pictures go on in their order.
    viewer.want_key().await;
    let mut numbers = Vec::new();
    while numbers.len() < 30 {
        numbers.extend(begins(&viewer.video().await.payload));
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert!(!session.closed().is_cancelled());
}
