//! Key pictures to JPEG.

use super::clip::{Clip, decode};
use super::{children, options, turn};
use crate::support::until;
use fanlight::media::{AccessUnit, Codec, jpeg};
use fanlight::transcode::{Options, Transcoder};
use std::sync::Arc;
use std::time::Duration;

fn key(clip: &Clip) -> AccessUnit {
    clip.units.iter().find(|unit| unit.random_access).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn stills_of_all_cameras_come_from_one_child_that_ends_by_itself() {
    let _turn = turn().await;
    let transcoder = Arc::new(Transcoder::new(Options { still_linger: Duration::from_millis(400), ..options() }));
    let encode =
        "x265enc key-int-max=10 ! h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au";
    let h265 = tokio::task::spawn_blocking(move || Clip::numbered(encode, Codec::H265, 5)).await.unwrap();
    let (first, other) = (key(&Clip::visitors()), key(&h265));
    let asked = (0..8).map(|number| {
        let (transcoder, picture) =
            (Arc::clone(&transcoder), if number % 2 == 0 { first.clone() } else { other.clone() });
        tokio::spawn(async move { transcoder.still(&picture).await })
    });
    let mut sizes = Vec::new();
    let mut pictures = Vec::new();
    for answer in futures::future::join_all(asked).await {
        let still = answer.unwrap().unwrap();
        let read = jpeg::parse(&still).unwrap();
        assert!(read.baseline);
        sizes.push((read.width, read.height));
        pictures.push(still);
        assert!(children().len() <= 1);
    }
    assert_eq!(sizes[..2], [(768, 432), (320, 240)]);
    // Who asks for the same picture gets the same bytes, made once.
    assert!(pictures.iter().step_by(2).all(|picture| picture.as_ptr() == pictures[0].as_ptr()));
    let seen = decode(&[AccessUnit { payload: pictures[0].clone(), info: Arc::new(jpeg_info()), ..first.clone() }]);
    let (darkest, brightest) = (seen[0].luma.iter().min().unwrap(), seen[0].luma.iter().max().unwrap());
    assert!(brightest - darkest > 60, "a picture of something");
    until("the child has ended by itself", || children().is_empty()).await;
    // And comes again.
    assert_eq!(transcoder.still(&first).await.unwrap().len(), pictures[0].len());
}

fn jpeg_info() -> fanlight::media::TrackInfo {
    let format = fanlight::media::Format::Video(fanlight::media::VideoFormat::default());
    fanlight::media::TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_pictures_are_refused_and_harm_nobody() {
    let _turn = turn().await;
    let transcoder = Transcoder::new(options());
    let good = key(&Clip::visitors());
    let broken = AccessUnit { payload: good.payload.slice(..40), ..good.clone() };
    let refused = transcoder.still(&broken).await.unwrap_err();
    assert!(refused.reason.contains("decoded"), "{refused}");
    assert!(transcoder.still(&good).await.is_ok());
    // A child that was killed meanwhile is replaced.
    for pid in children() {
        super::signal(pid, rustix::process::Signal::KILL);
    }
    let later = AccessUnit { payload: bytes::Bytes::copy_from_slice(&good.payload), ..good.clone() };
    assert!(transcoder.still(&later).await.is_ok());
    let jpeg = AccessUnit { info: Arc::new(jpeg_info()), ..good };
    assert_eq!(transcoder.still(&jpeg).await.unwrap(), jpeg.payload, "JPEG is answered as it is");
}
