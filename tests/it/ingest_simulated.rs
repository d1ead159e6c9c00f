//! Ingest against gstreamer-rtsp-server: real footage, every codec, somebody else's implementation of the protocol.

use crate::ingest::{Gateway, config, ms, plan};
use fanlight::bus::State;
use fanlight::ingest::Plan;
use fanlight::ingest::rtsp::{Config, Patience, Transport};
use fanlight::media::{AccessUnit, Codec, Kind, annex_b, h265};
use fanlight::simulate::rtsp::{Audio, Camera, Clip, Footage, Login, Options, Video};
use std::collections::BTreeMap;
use url::Url;

async fn camera(
    footage: Footage,
    video: Video,
    audio: Audio,
    change: impl FnOnce(&mut Options) + Send + 'static,
) -> Camera {
    let start = move || {
        let mut options = Options::new(Clip::load(&footage, video, audio).unwrap());
        change(&mut options);
        Camera::start(options).unwrap()
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn url(camera: &Camera) -> Url {
    Url::parse(&camera.url()).unwrap()
}

fn codecs(gateway: &Gateway) -> Vec<Codec> {
    gateway.main().tracks().iter().map(|(_, info)| info.codec).collect()
}

/// Units by kind, until there are `pictures` pictures.
async fn read(gateway: &Gateway, pictures: usize) -> BTreeMap<Kind, Vec<AccessUnit>> {
    let mut viewer = gateway.viewer().await;
    let mut units: BTreeMap<Kind, Vec<AccessUnit>> = BTreeMap::new();
    while units.get(&Kind::Video).map_or(0, Vec::len) < pictures {
        let (_, unit) = viewer.next().await;
        units.entry(unit.info.kind()).or_default().push(unit);
    }
    units
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_pictures_keep_their_true_times() {
    let camera = camera(Footage::Visitors, Video::AsIs, Audio::AsIs, |_| {}).await;
    let gateway = Gateway::start(plan(config(url(&camera))));
    let units = read(&gateway, 35).await;
    let mut times: Vec<_> = units[&Kind::Video].iter().map(|unit| unit.pts).collect();
    assert!(!times.is_sorted(), "B pictures go back");
    times.sort();
    // The neighbours of the first and the last in decode order may be missing.
    for pair in times[3..times.len() - 3].windows(2) {
        assert_eq!(pair[1].nanos_since(pair[0]), 100_000_000);
    }
    assert!(units[&Kind::Video].iter().all(|unit| !unit.discontinuity));
    assert_eq!(codecs(&gateway), [Codec::H264]);
    assert_eq!(camera.counters().describes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aac_and_digest_over_udp() {
    let login = Login { user: "admin".into(), password: "a:b@c/d".into() };
    let camera = camera(Footage::Street, Video::AsIs, Audio::AsIs, |options| options.login = Some(login)).await;
    let mut url = url(&camera);
    url.set_username("admin").unwrap();
    url.set_password(Some("a:b@c/d")).unwrap();
    let gateway = Gateway::start(plan(Config { transport: Transport::Udp, ..config(url) }));
    let units = read(&gateway, 20).await;
    assert_eq!(codecs(&gateway), [Codec::H264, Codec::Aac]);
    let sound = &units[&Kind::Audio];
    let format = sound[0].info.audio().unwrap();
    assert!(format.config.len() >= 2 && format.channels > 0);
    for pair in sound.windows(2) {
        // The payloader rounds down from nanoseconds.
        let ticks = pair[1].pts.ticks(format.sample_rate) - pair[0].pts.ticks(format.sample_rate);
        assert!((1_023..=1_025).contains(&ticks), "{ticks}");
        assert_ne!(pair[0].payload[..2], [0xff, 0xf1], "no ADTS");
    }
    let picture = units[&Kind::Video][0].pts;
    assert!(sound[0].pts.nanos_since(picture).abs() < 500_000_000, "sound and pictures are on one timeline");
    gateway.running.stop().await;
    assert_eq!(camera.counters().teardowns, 1, "the goodbye is taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h265_and_g711() {
    let camera = camera(Footage::Visitors, Video::H265, Audio::AsIs, |_| {}).await;
    let gateway = Gateway::start(plan(config(url(&camera))));
    let pictures = read(&gateway, 25).await.remove(&Kind::Video).unwrap();
    let mut starts = 0;
    for unit in &pictures {
        let kinds: Vec<_> = annex_b::nal_units(&unit.payload).map(|nal| (nal[0] >> 1) & 0x3f).collect();
        let sets: Vec<_> = kinds.iter().filter(|kind| (32..=34).contains(*kind)).collect();
        assert_eq!(sets.len(), if unit.random_access { 3 } else { 0 }, "{kinds:?}");
        assert_eq!(h265::Scanner::new().scan(&unit.payload).random_access, unit.random_access);
        starts += usize::from(unit.random_access);
    }
    assert!(starts >= 1);
    assert!(pictures[0].info.video().unwrap().width > 0);

    let camera = self::camera(Footage::Street, Video::AsIs, Audio::Pcma, |_| {}).await;
    let gateway = Gateway::start(plan(config(url(&camera))));
    let units = read(&gateway, 10).await;
    assert_eq!(codecs(&gateway), [Codec::H264, Codec::Pcma]);
    assert!(!units[&Kind::Audio].is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jpeg_pictures_are_whole() {
    let camera = camera(Footage::Visitors, Video::Jpeg, Audio::AsIs, |_| {}).await;
    let gateway = Gateway::start(plan(config(url(&camera))));
    for unit in &read(&gateway, 10).await[&Kind::Video] {
        assert!(unit.random_access && unit.pts == unit.dts);
        assert_eq!(
            (&unit.payload[..2], &unit.payload[unit.payload.len() - 2..]),
            (&[0xff, 0xd8][..], &[0xff, 0xd9][..])
        );
        assert!(unit.info.video().unwrap().height > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalls_and_jumps_cost_no_viewer() {
    let camera = camera(Footage::Street, Video::AsIs, Audio::AsIs, |options| options.max_clients = Some(1)).await;
    let patience = Patience { silence: ms(1_000), ..Patience::default() };
    let gateway = Gateway::start(Plan { patience, ..plan(config(url(&camera))) });
    let mut viewer = gateway.viewer().await;
    let track = viewer.pictures(15).await[0].0;
    camera.faults().jump(-3_600_000);
    viewer.next_discontinuity().await;
    camera.faults().stall(true);
    gateway.reaches(State::Offline).await;
    camera.faults().stall(false);
    let unit = viewer.next_discontinuity().await;
    assert!(unit.random_access);
    assert_eq!(viewer.pictures(10).await[0].0, track);
    let counters = camera.counters();
    assert_eq!(counters.refused, 0);
    assert!(counters.peak <= 1);
}
