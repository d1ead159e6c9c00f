//! The family with its driver on real sockets, and simulated cameras on loopback.

use super::{Config, Iwfcam, Memory, Retransmission};
use crate::bus::{Bus, Device, DeviceOptions, Limits, Reader, ReasonCode, Stream, SubStream, Upstream, Want};
use crate::ingest::drive::Driver;
use crate::ingest::{Adapter as _, AdapterError, DeviceIo, Rotation};
use crate::media::{AccessUnit, Codec};
use crate::simulate::iwfcam::{Camera, Faults, Options, Scene, Sound, bars};
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; nothing waits for it when all is well.
const DEADLINE: Duration = Duration::from_secs(40);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Any free ports of an address on loopback, so that tests do not meet.
fn options(address: [u8; 4]) -> Options {
    Options { address: address.into(), discovery_port: 0, media_port: 0, width: 320, height: 240, ..Options::default() }
}

fn start(options: Options) -> Camera {
    Camera::start(options, bars(320, 240).unwrap(), Sound::tone(true)).unwrap()
}

fn config(camera: &Camera) -> Config {
    Config { discovery_port: camera.discovery().port(), ..Config::at(*camera.discovery().ip()) }
}

/// A gateway's part from the camera to the bus.
struct Gateway {
    io: DeviceIo,
    running: JoinHandle<Result<(), AdapterError>>,
    reader: Option<Reader>,
}

impl Gateway {
    fn start(config: Config, memory: &Memory) -> Self {
        let stream = Stream::new("spy", Limits::default());
        let device = Device::new(DeviceOptions {
            name: "spy".into(),
            family: "iwfcam",
            main: Arc::clone(&stream),
            sub: SubStream::None,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        });
        let (playing, _) = watch::channel(false);
        let (bus, cancel) = (Bus::new(), CancellationToken::new());
        let io = DeviceIo { bus, device, stream, cancel, playing, rotation: Rotation::None };
        let memory = memory.clone();
        let driver = Driver::new(move || Iwfcam::new(config.clone(), memory.clone(), Instant::now()));
        let running = tokio::spawn({
            let io = io.clone();
            async move { driver.run(io).await }
        });
        Self { io, running, reader: None }
    }

    async fn picture(&mut self) -> AccessUnit {
        if self.reader.is_none() {
            assert!(within("the first picture", self.io.stream.ready()).await);
        }
        let reader = self.reader.get_or_insert_with(|| self.io.stream.subscribe(Want::Video));
        let (_, unit) = within("a picture", reader.next()).await.expect("no end");
        unit
    }

    /// Takes so many pictures; each must be one that was sent, none twice, all in order. Gives the last one's number.
    async fn pictures(&mut self, count: usize, scene: &Scene) -> u64 {
        let mut before = None;
        for _ in 0..count {
            let unit = self.picture().await;
            let counter = Scene::counter(&unit.payload).expect("one of the camera's");
            assert_eq!(unit.payload, scene.picture(counter), "torn");
            assert!(before.is_none_or(|before| counter > before), "{counter} after {before:?}");
            before = Some(counter);
        }
        before.unwrap_or_default()
    }

    async fn stop(self) {
        self.io.cancel.cancel();
        within("the end", self.running).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn plays_through_a_bad_network_and_says_goodbye() {
    let faults = Faults { loss: 0.02, reorder: 0.03, duplicate: 0.03, malformed: 0.02, seed: 11 };
    let camera = start(Options { faults, ids: super::wire::Ids([1, 2, 3]), ..options([127, 0, 0, 31]) });
    let mut gateway = Gateway::start(config(&camera), &Memory::default());
    gateway.pictures(40, camera.scene()).await;
    let codecs: Vec<_> = gateway.io.stream.tracks().iter().map(|(_, info)| info.codec).collect();
    assert_eq!(codecs, [Codec::Jpeg, Codec::Pcmu]);
    assert!(*gateway.io.playing.borrow());
    gateway.stop().await;
    // Without the network's faults the place would be free now; with them, when it times out.
    let mut counters = camera.watch();
    within("the place is free", counters.wait_for(|counters| counters.clients == 0)).await.unwrap();
    let counters = camera.counters();
    assert_eq!((counters.never, counters.on_request), (0, 0));
    assert!(counters.lost > 0);
}

#[tokio::test]
async fn missing_pieces_are_asked_for_and_come() {
    let faults = Faults { loss: 0.1, seed: 12, ..Faults::default() };
    let camera = start(Options { faults, answer_missing: true, ..options([127, 0, 0, 32]) });
    let config = Config { retransmission: Retransmission::Auto, ..config(&camera) };
    let mut gateway = Gateway::start(config, &Memory::default());
    gateway.pictures(60, camera.scene()).await;
    assert!(camera.counters().asked > 0);
    gateway.stop().await;
}

#[tokio::test]
async fn comes_back_after_a_reboot_and_after_a_restart() {
    let camera = start(Options { slots: 1, ..options([127, 0, 0, 33]) });
    let memory = Memory::default();
    let mut gateway = Gateway::start(config(&camera), &memory);
    let before = gateway.pictures(5, camera.scene()).await;
    camera.reboot(Duration::from_millis(300));
    let after = gateway.pictures(5, camera.scene()).await;
    assert!(after > before);
    assert_eq!(camera.counters().logins, 2);
    // Killed without a goodbye, and started again at once on a camera with one place.
    gateway.running.abort();
    let _ = gateway.running.await;
    let mut gateway = Gateway::start(config(&camera), &Memory::default());
    gateway.pictures(5, camera.scene()).await;
    assert_eq!(camera.counters().refused, 0, "it was known by its port");
    gateway.stop().await;
}

#[tokio::test]
async fn two_gateways_by_mistake_both_see() {
    let camera = start(options([127, 0, 0, 34]));
    let mut first = Gateway::start(config(&camera), &Memory::default());
    first.pictures(3, camera.scene()).await;
    let mut second = Gateway::start(config(&camera), &Memory::default());
    second.pictures(10, camera.scene()).await;
    first.pictures(10, camera.scene()).await;
    assert_eq!(camera.counters().clients, 2);
    second.stop().await;
    first.pictures(10, camera.scene()).await;
    first.stop().await;
    assert_eq!(camera.counters().clients, 0);
}

#[tokio::test]
async fn a_uid_is_found_among_several_cameras() {
    let broadcast = Some(Ipv4Addr::new(127, 255, 255, 255));
    let named = |uid: &str, host: u8, discovery_port: u16| Options {
        uid: uid.to_owned(),
        broadcast,
        discovery_port,
        ..options([127, 0, 0, host])
    };
    let first = start(named("AAA-1", 41, 0));
    let port = first.discovery().port();
    let second = start(named("BBB-2", 42, port));
    let third = start(named("CCC-3", 43, port));
    let config =
        Config { discovery_port: port, broadcast: Ipv4Addr::new(127, 255, 255, 255), ..Config::named("BBB-2") };
    let mut gateway = Gateway::start(config, &Memory::default());
    gateway.pictures(3, second.scene()).await;
    assert_eq!((first.counters().clients, second.counters().clients, third.counters().clients), (0, 1, 0));
    gateway.stop().await;
}

#[tokio::test]
async fn a_refused_token_ends_the_session_in_words() {
    let camera = start(Options { token: "6ddd60335190".into(), ..options([127, 0, 0, 35]) });
    let gateway = Gateway::start(config(&camera), &Memory::default());
    let error = within("a refusal", gateway.running).await.unwrap().unwrap_err();
    assert_eq!(error.code, ReasonCode::Denied);
    assert!(error.text.contains("127.0.0.35 refuses the token"), "{}", error.text);
}
