//! Times and key pictures of the H.264 that is made of pictures at any rate, and pictures that never change.

use super::pictures::{VGA, picture};
use super::{Camera, Gateway, turn};
use crate::players::tool::{succeed, words};
use crate::support::PATIENCE;
use bytes::Bytes;
use fanlight::bus::{Reader, Want};
use fanlight::media::{AccessUnit, Codec};
use std::time::Duration;
use tokio::time::timeout;

/// A camera that shows a picture whenever it is told to, and what is made of it.
struct Studio {
    gateway: Gateway,
    camera: Camera,
    reader: Option<Reader>,
}

impl Studio {
    fn new() -> Self {
        let gateway = Gateway::start();
        let camera = Camera::new(&gateway.bus, "bell", false);
        Self { gateway, camera, reader: None }
    }

    /// Shows a picture that stays for so long on the camera's timeline, and waits for what is made of it.
    async fn show(&mut self, picture: &Bytes, millis: u64) -> AccessUnit {
        let at = self.camera.now;
        self.camera.show(picture, Duration::from_millis(millis));
        if self.reader.is_none() {
            let transcoder = &self.gateway.transcoder;
            let rendition = transcoder.rendition(&self.camera.stream, self.camera.video, Codec::H264).unwrap();
            assert_eq!(timeout(PATIENCE, rendition.ready()).await.expect("a first picture"), Ok(true));
            self.reader = Some(rendition.stream().subscribe(Want::All));
        }
        let next = timeout(PATIENCE, self.reader.as_mut().unwrap().next()).await.expect("a picture for each");
        let unit = next.unwrap().1;
        assert_eq!((unit.pts, unit.dts), (at, at), "the time at which it was taken");
        unit
    }

    fn encoded(&self) -> u64 {
        self.gateway.transcoder.states()[0].units_in
    }
}

/// What ffmpeg decodes of it, and that it has no complaints: each picture's samples.
async fn decode(units: &[AccessUnit]) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("units.h264");
    let stream: Vec<u8> = units.iter().flat_map(|unit| unit.payload.to_vec()).collect();
    std::fs::write(&file, stream).unwrap();
    let line =
        format!("-v warning -nostdin -f h264 -i {} -fps_mode passthrough -f rawvideo -pix_fmt gray -", file.display());
    let output = succeed("ffmpeg", &words(&line)).await;
    assert_eq!(output.log, "");
    output.stdout.chunks(640 * 480).map(<[u8]>::to_vec).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_keep_the_times_at_which_they_were_taken() {
    let _turn = turn().await;
    let mut studio = Studio::new();
    let steps = [40, 67, 33, 500, 1, 990, 250, 250, 1_500, 1_700, 5_000, 999, 40, 40, 1_001, 2_000, 66, 67];
    let mut units = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        units.push(studio.show(&picture(VGA, number), step).await);
    }
    assert!(units[0].random_access);
    let pairs = units.windows(2).zip(steps);
    for (pair, step) in pairs {
        let since = pair[1].pts.saturating_since(pair[0].pts);
        assert_eq!(since, Duration::from_millis(step));
        assert!(pair[1].random_access || since <= Duration::from_secs(1), "below 1 fps every picture is a key picture");
    }
    assert_eq!(decode(&units).await.len(), steps.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_never_changes_is_encoded_a_few_times_and_then_repeated() {
    let _turn = turn().await;
    for step in [1_000, 1_004, 950] {
        let mut studio = Studio::new();
        let (first, second) = (picture(VGA, 1), picture(VGA, 2));
        let mut units = Vec::new();
        for _ in 0..12 {
            units.push(studio.show(&first, step).await);
        }
        let once = studio.encoded();
        assert!(once <= 6, "{once} were encoded");
        // The same bytes in another place, as a device that is polled sends them.
        for _ in 0..5 {
            units.push(studio.show(&Bytes::copy_from_slice(&first), step).await);
        }
        assert_eq!(studio.encoded(), once);
        for _ in 0..12 {
            units.push(studio.show(&second, step).await);
        }
        assert!(units[17].random_access, "the new picture builds on nothing");
        assert!((once + 4..=once + 6).contains(&studio.encoded()), "{} after {once}", studio.encoded());
        let keys: Vec<_> = units.iter().filter(|unit| unit.random_access).map(|unit| unit.pts).collect();
        let apart = keys.windows(2).map(|pair| pair[1].saturating_since(pair[0])).max().unwrap();
        assert!(apart <= Duration::from_secs(2), "{apart:?}");

        let shown = decode(&units).await;
        assert_eq!(shown.len(), units.len());
        let far = |a: &[u8], b: &[u8]| {
            a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>() as f64 / a.len() as f64
        };
        for picture in &shown[6..17] {
            assert!(far(picture, &shown[5]) < 2.0, "{}", far(picture, &shown[5]));
        }
        for picture in &shown[17..] {
            assert!(far(picture, &shown[5]) > 20.0 && far(picture, &shown[20]) < 4.0);
        }
    }
}
