//! What players work out from time stamps: the pictures per second, and whether to show one twice.

use super::footage::{B_PICTURES, Film, PLAIN, Reel, without_vui};
use super::house::House;
use super::tool::{ffmpeg, ffprobe, run, words};
use futures::future::join_all;
use std::time::Duration;

/// A film whose stream says nothing about its timing.
async fn untimed(video: &'static str) -> Reel {
    let reel = Film { video, ..Film::default() }.shoot().await;
    let headers = "-v info -i FILE -c copy -bsf:v trace_headers -frames:v 1 -f null -";
    let headers: Vec<_> =
        words(headers).into_iter().map(|w| if w == "FILE" { reel.path().display().to_string() } else { w }).collect();
    assert!(run("ffmpeg", &headers).await.log.contains("num_units_in_tick"));
    without_vui(&reel.path());
    let log = run("ffmpeg", &headers).await.log;
    assert!(log.contains("vui_parameters_present_flag") && !log.contains("num_units_in_tick"), "{log}");
    reel
}

async fn check(video: &'static str) {
    let reel = untimed(video).await;
    let house = House::playing(&reel.path()).await;
    let url = house.url("porch");
    // Joins all over a GOP of four seconds.
    join_all((0..8_u32).map(|phase| {
        let url = url.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(530) * phase).await;
            let found = ffprobe("-rtsp_transport tcp -show_streams", &url).await;
            let stream = &found["streams"][0];
            assert_eq!(stream["r_frame_rate"], "25/1", "phase {phase}: {stream}");
            assert_eq!(stream["avg_frame_rate"], "25/1", "phase {phase}: {stream}");
        }
    }))
    .await;
    join_all((0..4_u32).map(|phase| {
        let url = url.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(1_070) * phase).await;
            let line =
                "-v info -stats -rtsp_transport tcp -i URL -t 5 -c:v libx264 -preset ultrafast -f h264 -y /dev/null";
            let log = ffmpeg(line, &url).await.log;
            let last = log.rsplit(['\r', '\n']).find(|line| line.contains("frame=")).unwrap();
            let pictures = last.split("frame=").nth(1).unwrap().trim_start().split(' ').next().unwrap();
            // The grey pictures before B pictures take time and are not shown.
            assert!((121..=126).contains(&pictures.parse::<u32>().unwrap()), "phase {phase}: {last}");
            assert!(!log.contains("dup=") || log.contains("dup=0 "), "phase {phase}: {last}");
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clip_without_timing_keeps_its_rate() {
    check(PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clip_with_b_pictures_and_without_timing_keeps_its_rate() {
    check(B_PICTURES).await;
}
