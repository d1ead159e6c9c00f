//! Large key pictures over UDP: nothing is lost on loopback.

use super::footage::{Film, STRIP, numbers};
use super::house::House;
use super::order::is_run;
use super::tool::{ffmpeg, ffprobe};
use futures::future::join_all;

/// Key pictures of several hundred kilobytes every 4 s, 4 Mbit/s in all.
const HEAVY: &str =
    "-c:v libx264 -preset ultrafast -tune zerolatency -bf 0 -g 100 -keyint_min 100 -sc_threshold 0 -qp 22";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_minute_without_a_loss() {
    let film =
        Film { video: HEAVY, width: 1280, height: 720, noise: 24, detail: 360, pictures: 200, ..Film::default() };
    let length = film.pictures;
    let reel = film.shoot().await;
    let file = reel.path().display().to_string();
    let found = ffprobe("-show_streams -show_entries packet=size,flags -read_intervals %+#1", &file).await;
    let rate: u64 = found["streams"][0]["bit_rate"].as_str().unwrap().parse().unwrap();
    assert!((3_500_000..6_000_000).contains(&rate), "{rate} bit/s");
    let key: u64 = found["packets"][0]["size"].as_str().unwrap().parse().unwrap();
    assert!(key > 200_000, "a key picture of {key} bytes");
    let house = House::playing(&reel.path()).await;
    let url = house.url("porch");
    // Two at once, so that one's burst meets the other's pictures.
    join_all((0..2_u64).map(|viewer| {
        let url = url.clone();
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(2_300 * viewer)).await;
            let line = format!(
                "-v warning -rtsp_transport udp -i URL -t 30 -vf {STRIP} -fps_mode passthrough -pix_fmt gray \
                 -f rawvideo -"
            );
            let output = ffmpeg(&line, &url).await;
            assert_eq!(output.log, "");
            let seen = numbers(&output.stdout);
            assert!(seen.len() > 740 && is_run(&seen, length), "{seen:?}");
        }
    }))
    .await;
}
