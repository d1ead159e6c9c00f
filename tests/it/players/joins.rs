//! Forty joins at any phase of a GOP: the first packets are the cached key picture, whole, before anything newer.

use super::footage::Film;
use super::house::House;
use crate::support::rtsp_client::Client;
use std::time::Duration;

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
        let mut key = Vec::new();
        loop {
            let packet = client.rtp(0).await;
            let marker = packet.marker;
            key.push(packet);
            if marker {
                break;
            }
        }
        assert!(key.iter().all(|packet| packet.time == key[0].time), "one picture");
        let kind = |payload: &[u8]| match payload[0] & 0x1f {
            28 => payload[1] & 0x1f,
            kind => kind,
        };
        let kinds: Vec<u8> = key.iter().map(|packet| kind(&packet.payload)).filter(|kind| *kind != 6).collect();
        assert!(matches!(kinds[..], [7, 8, 5, ..]), "{kinds:?}");
        assert!(kinds[2..].iter().all(|kind| *kind == 5), "{kinds:?}");
        phases[(house.key_age("porch").as_secs() as usize).min(3)] = true;
        tokio::time::sleep(Duration::from_millis(97 + join % 7 * 31)).await;
    }
    assert_eq!(phases, [true; 4], "joins at every phase");
}
