//! The whole gateway between a simulated camera and the rendition of its track.

use super::{children, program, take, turn, watch, zombies};
use crate::support::http::json;
use crate::support::until;
use crate::support::whep_viewer::{Viewer, Wishes};
use fanlight::app::{App, Options};
use fanlight::config;
use fanlight::media::Codec;
use fanlight::simulate::rtsp::{Audio, Camera, Clip, Footage, Options as CameraOptions, Video};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A camera with B pictures and a whole gateway in front of it.
async fn start() -> (Camera, App) {
    let camera = tokio::task::spawn_blocking(|| {
        let clip = Clip::load(&Footage::Visitors, Video::AsIs, Audio::AsIs).unwrap();
        Camera::start(CameraOptions { listen: "127.0.0.1:0".parse().unwrap(), ..CameraOptions::new(clip) }).unwrap()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanlight.yaml");
    let text = format!(
        "http: {{ listen: \"127.0.0.1:0\" }}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\nwebrtc: {{ listen: \"127.0.0.1:0\" }}\nauth: none\n\
         cameras:\n  front: {{ source: \"{}\" }}\n",
        camera.url()
    );
    std::fs::write(&file, text).unwrap();
    let options = Options { program: Some(program().to_owned()), ..Options::default() };
    (camera, App::start(config::load(&file).unwrap(), options).await.unwrap())
}

/// With the real linger of 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_browsers_share_one_encoder_that_ends_after_the_last() {
    let _turn = turn().await;
    let (camera, app) = start().await;
    let http = app.addresses().http[0];
    let mut viewers = Vec::new();
    for _ in 0..20 {
        viewers.push(Viewer::of(http, "/whep/front", Wishes::default()).await);
    }
    for viewer in &mut viewers {
        let first = viewer.video().await;
        while viewer.video().await.header.timestamp == first.header.timestamp {}
    }
    let told = json(http, "/v1/cameras/front").await;
    assert_eq!((&told["viewers"]["webrtc"], &told["upstream_connections"]), (&20.into(), &1.into()), "{told}");
    assert_eq!(children().len(), 1, "one encoder for all");
    for viewer in &viewers {
        viewer.close().await;
    }
    let device = app.bus().device("front").unwrap();
    until("all have left", || device.viewers.webrtc.load(Relaxed) == 0).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(children().is_empty() && zombies() == 0, "none is left 12 s after the last viewer");
    app.stop().await;
    tokio::task::spawn_blocking(|| drop(camera)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cameras_b_pictures_become_h264_for_browsers_and_all_ends_with_the_gateway() {
    let _turn = turn().await;
    let (camera, app) = start().await;
    let source = app.bus().device("front").unwrap().main().clone();
    let mut native = watch(&source).await;
    let went_back = take(&mut native, 20).await.windows(2).any(|pair| pair[1].pts < pair[0].pts);
    assert!(went_back, "the camera sends B pictures");

    let track = source.tracks()[0].0;
    let rendition = app.transcoder().rendition(&source, track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    let units = take(&mut reader, 30).await;
    assert!(units[0].random_access && units.windows(2).all(|pair| pair[0].pts < pair[1].pts));
    let behind = source.latest().unwrap().saturating_since(units[29].pts);
    assert!(behind.as_secs() < 1, "on the timeline of its source, {behind:?} behind");
    assert_eq!(children().len(), 1);

    let begin = Instant::now();
    app.stop().await;
    assert!(begin.elapsed().as_secs() < 5);
    until("the encoder is gone", || children().is_empty() && zombies() == 0).await;
    tokio::task::spawn_blocking(|| drop(camera)).await.unwrap();
}
