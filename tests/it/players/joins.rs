//! Forty joins at any phase of a GOP: the first packets are the cached key picture, whole, before anything newer.

use super::footage::{B_PICTURES, Film};
use super::house::House;
use crate::support::rtsp_client::{Client, Rtp};
use std::time::Duration;

/// The first packet of the next picture, and the NAL unit types of all of them but SEI.
async fn picture(client: &mut Client) -> (Rtp, Vec<u8>) {
    let mut packets = Vec::new();
    while packets.last().is_none_or(|packet: &Rtp| !packet.marker) {
        packets.push(client.rtp(0).await);
    }
    assert!(packets.iter().all(|packet| packet.time == packets[0].time), "one picture");
    assert!(packets.windows(2).all(|pair| pair[1].seq == pair[0].seq.wrapping_add(1)));
    let kind = |packet: &Rtp| match packet.payload[0] & 0x1f {
        28 => packet.payload[1] & 0x1f,
        kind => kind,
    };
    let kinds = packets.iter().map(kind).filter(|kind| *kind != 6).collect();
    (packets.swap_remove(0), kinds)
}

/// ffmpeg, which gives its first pictures no times where B pictures are, gets some that it leaves out; nobody else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_gets_grey_pictures_first_if_there_are_b_pictures() {
    for (video, agent, grey) in [
        (B_PICTURES, "Lavf59.27.100", 3),
        (B_PICTURES, "FFmpeg Frigate/0.16.1", 3),
        (B_PICTURES, "Home Assistant", 0),
        (Film::default().video, "Lavf59.27.100", 0),
    ] {
        let reel = Film { video, ..Film::default() }.shoot().await;
        let house = House::playing(&reel.path()).await;
        let mut client = Client::connect(house.address(), "porch").await;
        let uri = client.base.clone();
        let track = format!("{uri}/trackID=0");
        let agent = ("User-Agent", agent);
        client.request("DESCRIBE", &uri, &[agent]).await;
        client.request("SETUP", &track, &[agent, ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1")]).await;
        let play = client.request("PLAY", &uri, &[agent]).await;
        let info = play.header("RTP-Info").unwrap().to_owned();
        let mut first: Option<Rtp> = None;
        let mut last = None;
        for place in 0..=grey {
            let (packet, kinds) = picture(&mut client).await;
            if place == grey {
                assert!(matches!(kinds[..], [7, 8, 5, ..]), "{agent:?}: {kinds:?}");
            } else if place == 0 {
                assert!(matches!(kinds[..], [7, 8, 1]), "{agent:?}: {kinds:?}");
            } else {
                assert_eq!(kinds, [1], "{agent:?}");
            }
            // A frame apart, and numbered without a gap.
            if let Some(Rtp { time, .. }) = last {
                assert_eq!(packet.time.wrapping_sub(time), 3_600);
            }
            last = Some(packet.clone());
            first.get_or_insert(packet);
        }
        let first = first.unwrap();
        assert!(info.ends_with(&format!("seq={};rtptime={}", first.seq, first.time)), "{info}, not {first:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_packets_are_the_cached_key_picture() {
    let reel = Film { audio: Some("-c:a aac"), ..Film::default() }.shoot().await;
    let house = House::playing(&reel.path()).await;
    let mut phases = [false; 4];
    for join in 0..40_u64 {
        let mut client = Client::connect(house.address(), "porch").await;
        client.play().await;
        // The sender report, then SPS, PPS and the IDR picture, all with one time stamp.
        let (channel, report) = client.frame().await;
        assert_eq!((channel, report[1]), (1, 200));
        let (_, kinds) = picture(&mut client).await;
        assert!(matches!(kinds[..], [7, 8, 5, ..]), "{kinds:?}");
        assert!(kinds[2..].iter().all(|kind| *kind == 5), "{kinds:?}");
        phases[(house.key_age("porch").as_secs() as usize).min(3)] = true;
        tokio::time::sleep(Duration::from_millis(97 + join % 7 * 31)).await;
    }
    assert_eq!(phases, [true; 4], "joins at every phase");
}
