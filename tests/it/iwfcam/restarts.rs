//! Cameras and gateways that go and come back. Video has to be back within the time after which a camera drops a silent
//! client (6 s) and two more. Simulated cameras that drop clients sooner leave slow machines some room; to the
//! millisecond it is proved in invented time, beside the session.

use super::*;
use crate::gateway::OPEN;
use crate::gateway::process::Process;
use crate::support::until;
use std::time::Instant;

/// What is promised.
const BACK: Duration = ms(8_000);
/// After which the simulated cameras drop a client.
const SLOT: Duration = ms(2_000);

fn report(what: &str, since: Instant) {
    let took = since.elapsed();
    println!("{what}: pictures after {took:.1?}");
    assert!(took < BACK, "{what}: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_and_an_outage_of_the_camera_end_by_themselves() {
    let rebooted = camera(CameraOptions { slots: 1, ..options(11) });
    let cut_off = camera(options(12));
    let lines = entry("rebooted", &rebooted, "") + &entry("cut_off", &cut_off, "");
    let gateway = gateway(&lines).await;
    let (off, outage) = (ms(1_000), ms(4_000));
    let reboot = async {
        let mut img = Mjpeg::of(gateway.http(), "rebooted").await;
        img.next(rebooted.scene()).await;
        let before = rebooted.counters().logins;
        rebooted.reboot(off);
        let on_again = Instant::now() + off;
        seen(&rebooted, "the gateway logs in again", |counters| counters.logins > before).await;
        // The viewer stayed; what it reads now may still be from before.
        let newest = rebooted.counters().pictures;
        while rebooted.counters().pictures == newest {
            img.next(rebooted.scene()).await;
        }
        img.next(rebooted.scene()).await;
        report("reboot of 1 s", on_again);
    };
    let cut = async {
        let mut pictures = Pictures::of(&gateway.app, "cut_off").await;
        pictures.next(cut_off.scene()).await;
        cut_off.outage(outage);
        let begun = Instant::now();
        // Pictures that were on their way, and then those from after it.
        while begun.elapsed() < outage {
            pictures.next(cut_off.scene()).await;
        }
        report("outage of 4 s", begun + outage);
        pictures.next(cut_off.scene()).await;
    };
    tokio::join!(reboot, cut);
    gateway.app.stop().await;
    for camera in [&rebooted, &cut_off] {
        harmless(camera);
        seen(camera, "it is told goodbye", |counters| counters.clients == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_again_at_once_sees_at_once() {
    // One place, which only a goodbye can free within this test.
    let camera = camera(CameraOptions { slots: 1, slot_timeout: Duration::from_secs(600), ..options(13) });
    let config = format!("{OPEN}{}", entry("spy", &camera, ""));
    let mut process = Process::start(&config, |_, _| {}).await;
    Mjpeg::of(process.http(), "spy").await.next(camera.scene()).await;
    process.signal("KILL");
    process.ends().await;
    assert_eq!(camera.counters().clients, 1, "nobody said goodbye");

    let begun = Instant::now();
    let mut process = Process::start(&config, |_, _| {}).await;
    let mut img = Mjpeg::of(process.http(), "spy").await;
    img.next(camera.scene()).await;
    report("restart after a kill", begun);
    assert_eq!((camera.counters().clients, camera.counters().refused), (1, 0), "it was known by its port");

    // A camera that comes and goes is no reason to repeat the advice.
    let before = camera.counters().logins;
    camera.reboot(ms(50));
    seen(&camera, "the gateway logs in again", |counters| counters.logins > before).await;
    img.next(camera.scene()).await;
    let advice = process.lines("WARN", "block 127.0.4.13 from the internet");
    assert_eq!(advice.len(), 1, "{}", process.log());
    assert!(advice[0].contains("cloud.ismartol.com") && advice[0].contains("10101 and 10102"), "{}", advice[0]);

    process.signal("TERM");
    assert_eq!(process.ends().await.code(), Some(0));
    seen(&camera, "it is told goodbye", |counters| counters.clients == 0).await;
    let begun = Instant::now();
    let process = Process::start(&config, |_, _| {}).await;
    Mjpeg::of(process.http(), "spy").await.next(camera.scene()).await;
    report("restart after a goodbye", begun);
    assert_eq!(camera.counters().refused, 0);
    harmless(&camera);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_place_goes_from_a_gateway_that_hangs_to_the_next_and_back() {
    let camera = camera(CameraOptions { slots: 1, slot_timeout: SLOT, ..options(14) });
    let config = format!("{OPEN}{}", entry("spy", &camera, ""));
    let hung = Process::start(&config, |_, _| {}).await;
    Mjpeg::of(hung.http(), "spy").await.next(camera.scene()).await;
    // As good as killed, but it keeps the port by which the camera knows it.
    hung.signal("STOP");
    let begun = Instant::now();
    let gateway = gateway(&entry("spy", &camera, "")).await;
    let mut img = Mjpeg::of(gateway.http(), "spy").await;
    img.next(camera.scene()).await;
    report("a new gateway, its port taken and the only place too", begun);
    assert!(camera.counters().refused > 0, "it had to wait for the place");

    // Two gateways by mistake: the second one is told that there is no place, and waits.
    let refused = camera.counters().refused;
    hung.signal("CONT");
    seen(&camera, "the other one asks for a place", |counters| counters.refused > refused).await;
    let last = img.next(camera.scene()).await;
    gateway.app.stop().await;
    let begun = Instant::now();
    let mut img = Mjpeg::of(hung.http(), "spy").await;
    // What it still has is from before it was stopped.
    while img.next(camera.scene()).await <= last {}
    report("the other one is told goodbye", begun);
    harmless(&camera);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_by_mistake_share_a_camera_with_two_places() {
    let camera = camera(CameraOptions { slots: 2, ..options(15) });
    let lines = entry("spy", &camera, "");
    let (first, second) = (gateway(&lines).await, gateway(&lines).await);
    let mut one = Pictures::of(&first.app, "spy").await;
    let mut other = Pictures::of(&second.app, "spy").await;
    for _ in 0..5 {
        one.next(camera.scene()).await;
        other.next(camera.scene()).await;
    }
    assert_eq!(camera.counters().clients, 2);
    second.app.stop().await;
    seen(&camera, "one has said goodbye", |counters| counters.clients == 1).await;
    for _ in 0..5 {
        one.next(camera.scene()).await;
    }
    // A new App at once after the last one, dropped without a word: it knows the place by its port, or takes the other.
    drop(first);
    let begun = Instant::now();
    let third = gateway(&lines).await;
    Pictures::of(&third.app, "spy").await.next(camera.scene()).await;
    report("a new program in place of one that was dropped", begun);
    third.app.stop().await;
    harmless(&camera);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uid_finds_the_camera_at_its_new_address() {
    let broadcast = Some(Ipv4Addr::new(127, 255, 255, 255));
    let other = camera(CameraOptions { uid: "OTHER-1".into(), broadcast, ..options(16) });
    let port = other.discovery().port();
    let at = |host: u8| CameraOptions { uid: "SPY-2".into(), broadcast, discovery_port: port, ..options(host) };
    let before = camera(at(17));
    let (_file, app) =
        on_loopback(&format!("  spy: {{ source: {{ iwfcam: {{ uid: spy-2, discovery_port: {port} }} }} }}\n")).await;
    let device = app.bus().device("spy").unwrap();
    let stream = Arc::clone(device.main());
    let mut pictures = Pictures::of(&app, "spy").await;
    pictures.next(before.scene()).await;
    harmless(&before);
    drop(before);
    let moved = camera(at(18));
    let begun = Instant::now();
    seen(&moved, "the gateway finds it", |counters| counters.clients == 1).await;
    let known = stream.totals().frames;
    until("pictures go on", || stream.totals().frames > known).await;
    report("a new address", begun);
    assert_eq!((other.counters().clients, other.counters().logins), (0, 0), "another camera's answer is not ours");
    app.stop().await;
    seen(&moved, "it is told goodbye", |counters| counters.clients == 0).await;
    harmless(&moved);
}
