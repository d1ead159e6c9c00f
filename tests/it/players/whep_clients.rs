//! WHEP clients of other make: GStreamer's webrtcbin and aiortc, each with its own ICE, DTLS, SRTP and SDP.

use super::footage::{Film, numbers};
use super::house::{House, load_as};
use super::order::is_run;
use super::tool::succeed;
use fanlight::simulate::rtsp::{Audio, Footage, Options};
use serde_json::Value;

/// What a client saw in four seconds, and what it said about it.
async fn watch(client: &str, house: &House, more: &[&str]) -> (Vec<u32>, Value) {
    let script = format!("{}/tests/it/players/whep_{client}.py", env!("CARGO_MANIFEST_DIR"));
    let url = format!("http://{}/whep/porch", house.http());
    let mut arguments = vec![script.as_str(), &url, "4"];
    arguments.extend(more);
    // Debian's own Python has the packages.
    let output = succeed("/usr/bin/python3", &arguments).await;
    let told = output.log.lines().last().unwrap_or_default();
    let told = serde_json::from_str(told).unwrap_or_else(|_| panic!("{client} ends without a result:\n{}", output.log));
    // A decoder that was given something else than a key picture first says so.
    assert!(!output.log.contains("non-existing PPS"), "{}", output.log);
    (numbers(&output.stdout), told)
}

/// Joins in the middle of a GOP of four seconds.
async fn plays(client: &str) {
    let film = Film::default();
    let length = film.pictures;
    let reel = film.shoot().await;
    let house = House::playing(&reel.path()).await;
    for _ in 0..2 {
        let (seen, told) = watch(client, &house, &[]).await;
        println!("{client}: {told}");
        assert_eq!((&told["width"], &told["height"]), (&320.into(), &240.into()));
        assert!(seen.len() > 90, "{} pictures in 4 s", seen.len());
        assert!(is_run(&seen, length), "{seen:?}");
        assert_eq!(seen[0] % 100, 0, "starts with a key picture");
        tokio::time::sleep(std::time::Duration::from_millis(1_300)).await; // another phase
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webrtcbin_plays() {
    plays("webrtcbin").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aiortc_plays() {
    plays("aiortc").await;
}

/// A sine in G.711, which goes through as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_hear() {
    let film = Film { audio: Some("-c:a aac"), ..Film::default() };
    let reel = film.shoot().await;
    let clip = load_as(Footage::File(reel.path()), Audio::Pcmu).await;
    let house = House::of(vec![("porch", Options::new(clip))]).await;
    for client in ["webrtcbin", "aiortc"] {
        let (seen, told) = watch(client, &house, &["--audio"]).await;
        assert!(seen.len() > 90, "{told}");
        // Four seconds at 8 kHz; lavfi's sine has an amplitude of 1/8 of 32,768.
        assert!(told["samples"].as_u64().unwrap() > 25_000, "{client}: {told}");
        assert!((3_000..6_000).contains(&told["loudest"].as_u64().unwrap()), "{client}: {told}");
    }
}
