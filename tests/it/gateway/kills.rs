//! The camera dies and comes back, again and again, at random moments: nothing is ever stuck, and nobody has to reconnect.

use super::viewers::{Carrier, Viewer};
use super::{CameraOptions, Gateway, Options, kill, ms, options, quick, start, visitors};
use crate::support::camera::{Act, Camera as Scripted, Options as Script};
use crate::support::until;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Media is back so soon after the camera, and the wait before the attempt that was due.
const BACK: Duration = Duration::from_secs(3);
/// The longest wait of [`quick`], with its jitter.
const STEP: Duration = Duration::from_millis(480);

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// `FANLIGHT_KILLS` is how often (20 times by default, 100 in `make soak`), `FANLIGHT_SEED` repeats a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_killed_at_random_moments_is_always_back() {
    kills("127.0.1.2:0", "tcp", BACK, from_environment("FANLIGHT_KILLS").unwrap_or(20)).await;
}

/// Over UDP, the goodbye of the session that died is tried on fresh connections, 1, 2, 4 s apart. These count too, so the
/// next session waits for the first attempt that the camera answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_over_udp_is_back_as_well() {
    // The simulator sends datagrams from the address that the gateway has.
    let back = BACK + Duration::from_secs(4);
    kills("127.0.0.1:0", "udp", back, from_environment("FANLIGHT_KILLS").unwrap_or(6)).await;
}

async fn kills(listen: &'static str, transport: &str, back: Duration, rounds: u64) {
    let seed = from_environment("FANLIGHT_SEED").unwrap_or_else(rand::random);
    eprintln!("FANLIGHT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let first = start(move || options(visitors, listen)).await;
    let (address, url) = (first.address(), first.url());
    kill(first).await;
    let pace = quick();
    let options = Options { pace, ..Options::default() };
    let source = format!("{{ rtsp: {{ url: \"{url}\", transport: {transport} }} }}");
    let gateway = Gateway::start(&format!("  front: {{ source: {source}, max_connections: 1 }}\n"), options).await;
    // Before it ever succeeded.
    for act in [Act::Hang("DESCRIBE"), Act::CloseAt("DESCRIBE"), Act::Hang("SETUP"), Act::Hang("PLAY")] {
        dies_while_asked(address, act, ms(random.random_range(0..150))).await;
    }
    let viewers = [Carrier::Tcp, Carrier::Tcp, Carrier::Tcp, Carrier::Udp];
    let viewers = viewers.map(|carrier| Viewer::start(gateway.rtsp(), "front", carrier));

    let (mut longest, mut in_time) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let what = random.random_range(0..4);
        match what {
            // Dies while it is asked.
            0 => {
                let act = if random.random() { Act::Hang("DESCRIBE") } else { Act::Hang("PLAY") };
                dies_while_asked(address, act, ms(random.random_range(0..300))).await;
            }
            // Dies at any moment of its first second, seen by somebody or not.
            1 => {
                let camera = start(one_client(address)).await;
                tokio::time::sleep(ms(random.random_range(0..1_000))).await;
                kill(camera).await;
            }
            _ => {}
        }
        tokio::time::sleep(ms(random.random_range(0..700))).await;
        let before = viewers.each_ref().map(Viewer::pictures);
        let camera = start(one_client(address)).await;
        let returned = Instant::now();
        for (viewer, before) in viewers.iter().zip(before) {
            // What was on its way when it died, and then some.
            viewer.sees(before + 3).await;
        }
        let took = returned.elapsed();
        longest = longest.max(took);
        in_time += u64::from(took <= back + STEP);
        tokio::time::sleep(ms(random.random_range(0..500))).await;
        let counters = camera.counters();
        assert!(counters.peak == 1 && counters.refused == 0, "round {round}: {counters:?}");
        assert_eq!(counters.plays, 1, "round {round}: {counters:?}");
        assert!(counters.accepted == 1 || transport == "udp", "round {round}: {counters:?}");
        kill(camera).await;
    }
    eprintln!("{rounds} kills over {transport}: media was back within {longest:?}");
    assert_eq!(in_time, rounds, "back after {longest:?} in the worst case");
    assert!(viewers.iter().all(|viewer| !viewer.ended()));
    gateway.app.stop().await;
}

fn one_client(address: SocketAddr) -> impl FnOnce() -> CameraOptions + Send + 'static {
    move || CameraOptions { max_clients: Some(1), ..options(visitors, &address.to_string()) }
}

/// A camera that accepts, does not answer, and dies so long after it was asked.
async fn dies_while_asked(address: SocketAddr, act: Act, after: Duration) {
    let script = Script { acts: vec![act], max_clients: 1, ..Script::default() };
    let camera = Scripted::start_at(address, script, Default::default()).await;
    let seen = camera.seen.clone();
    until("somebody asks the camera", || !seen.requests.lock().unwrap().is_empty()).await;
    tokio::time::sleep(after).await;
    camera.kill().await;
    assert!(seen.peak.load(SeqCst) <= 1);
}
