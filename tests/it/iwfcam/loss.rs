//! What a bad network costs, and what it does not.
//!
//! A picture of k pieces of which each is lost with the chance p arrives whole with the chance (1 - p)^k. That share, less
//! four standard deviations of the sample, has to be published; and nothing that was not sent.

use super::*;
use fanlight::media::jpeg;
use fanlight::simulate::iwfcam::Faults;
use turbojpeg::{PixelFormat, Transform};

/// Media bytes of a datagram: 7 or 8 pieces a picture.
const PIECE: usize = 760;
/// Pictures that are looked at, of each camera.
const SENT: u64 = 400;

/// Share of the pictures that were published while [`SENT`] were sent, and the share that comes whole at that loss.
async fn share(app: &App, name: &str, camera: &Camera, loss: f64) -> (f64, f64) {
    let scene = camera.scene();
    let mut pictures = Pictures::of(app, name).await;
    let first = pictures.next(scene).await;
    let (mut last, mut came) = (first, 0_u64);
    while last < first + SENT {
        last = pictures.next(scene).await;
        came += 1;
    }
    let whole = |n| (1.0 - loss).powi(scene.picture(n).len().div_ceil(PIECE) as i32);
    let pictures = first..last;
    let count = (last - first) as f64;
    (came as f64 / count, pictures.map(whole).sum::<f64>() / count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_picture_that_comes_whole_is_published_and_no_torn_one() {
    let lossy = |host: u8, loss: f64, answer_missing: bool| {
        let faults = Faults { loss, reorder: 0.03, duplicate: 0.03, malformed: 0.01, seed: host.into() };
        let fragment_size = PIECE;
        camera(CameraOptions { faults, fragment_size, answer_missing, fps: 25, no_audio: true, ..options(host) })
    };
    let rows = [(1, 0.01, false), (2, 0.05, false), (3, 0.1, false), (4, 0.05, true), (5, 0.1, true)];
    let cameras = rows.map(|(host, loss, asked)| (lossy(host, loss, asked), loss, asked));
    let lines: String = (0..)
        .zip(&cameras)
        .map(|(n, (camera, _, asked))| {
            entry(&format!("spy{n}"), camera, if *asked { ", retransmission: auto" } else { "" })
        })
        .collect();
    let gateway = gateway(&lines).await;
    let names: Vec<_> = (0..cameras.len()).map(|n| format!("spy{n}")).collect();
    let shares = names.iter().zip(&cameras).map(|(name, (camera, loss, _))| share(&gateway.app, name, camera, *loss));
    let shares = futures::future::join_all(shares).await;
    for ((share, whole), (camera, loss, asked)) in shares.into_iter().zip(&cameras) {
        let least = if *asked { 0.95 } else { whole - 4.0 * (whole * (1.0 - whole) / SENT as f64).sqrt() };
        println!(
            "{loss:.2} of the datagrams lost, 3 % late, 3 % doubled: {share:.3} of the pictures published, (1 - p)^k is \
             {whole:.3}, asked again: {asked}"
        );
        assert!(share >= least, "{share:.3} published, at least {least:.3} expected at a loss of {loss}");
        assert!(camera.counters().lost > 0);
        assert_eq!(camera.counters().asked > 0, *asked);
        harmless(camera);
    }
    for (name, (.., asked)) in names.iter().zip(&cameras) {
        let told = gateway.camera(name).await;
        assert!(*asked || told["lost"].as_u64().unwrap() > 0, "{told}");
        assert_eq!((&told["state"], &told["upstream_connections"]), (&"online".into(), &1.into()), "{told}");
    }
    gateway.app.stop().await;
}

/// Pictures that are outside what RTP can carry: Huffman tables made for each picture.
fn optimised() -> Vec<Vec<u8>> {
    let scene = bars(320, 240).unwrap();
    let optimise = |n| {
        let mut transform = Transform::default();
        (transform.optimize, transform.copy_none) = (true, true);
        let made = turbojpeg::transform(&transform, &scene.picture(n)).unwrap().to_vec();
        assert!(jpeg::parse(&made).unwrap().rtp_form().is_none());
        made
    };
    (0..30).map(optimise).collect()
}

fn pixels(picture: &[u8]) -> Vec<u8> {
    turbojpeg::decompress(picture, PixelFormat::RGB).unwrap().pixels
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_that_have_to_be_recoded_keep_their_pixels() {
    let pictures = optimised();
    let shown: Vec<_> = pictures.iter().map(|picture| pixels(picture)).collect();
    let faults = Faults { loss: 0.02, reorder: 0.03, duplicate: 0.03, seed: 7, ..Faults::default() };
    let options = CameraOptions { faults, no_audio: true, ..options(6) };
    let camera = Camera::start(options, Scene::new(pictures).unwrap(), Sound::tone(false)).unwrap();
    let gateway = gateway(&entry("spy", &camera, "")).await;
    let mut viewer = Pictures::of(&gateway.app, "spy").await;
    let mut before: Option<usize> = None;
    for _ in 0..60 {
        let unit = viewer.unit().await;
        assert!(jpeg::parse(&unit.payload).unwrap().rtp_form().is_some(), "in the form that the bus promises");
        let seen = pixels(&unit.payload);
        let number = shown.iter().position(|shown| *shown == seen).expect("one of the camera's, to the pixel");
        assert_ne!(before, Some(number), "twice");
        before = Some(number);
    }
    gateway.app.stop().await;
    harmless(&camera);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_sees_what_was_sent() {
    let faults = Faults { loss: 0.05, reorder: 0.03, duplicate: 0.03, malformed: 0.02, seed: 8 };
    let camera = camera(CameraOptions { faults, ..options(7) });
    let gateway = gateway(&entry("spy", &camera, "")).await;
    let mut img = Mjpeg::of(gateway.http(), "spy").await;
    let mut before = None;
    for _ in 0..30 {
        let counter = img.next(camera.scene()).await;
        assert!(before.is_none_or(|before| counter > before), "{counter} after {before:?}");
        before = Some(counter);
    }
    gateway.app.stop().await;
    harmless(&camera);
}
