//! Pictures arrive in the order in which they are shown, none twice and none missing.

use super::footage::{B_PICTURES, Film, PLAIN, STRIP, numbers, without_vui};
use super::house::House;
use super::tool::ffmpeg;
use futures::future::join_all;
use std::time::Duration;

/// Whether each number follows the one before it, in a film that begins again after `length` pictures.
pub(super) fn is_run(numbers: &[u32], length: u32) -> bool {
    numbers.windows(2).all(|pair| pair[1] == (pair[0] + 1) % length)
}

/// Decodes eight seconds from `joins` places of a GOP of four seconds and looks at the numbers.
async fn check(film: Film, vui: bool) {
    let length = film.pictures;
    let reel = film.shoot().await;
    if !vui {
        without_vui(&reel.path());
    }
    let house = House::playing(&reel.path()).await;
    let url = house.url("porch");
    let joins = (0..4_u32).flat_map(|phase| [("tcp", phase), ("udp", phase)]).map(|(transport, phase)| {
        let url = url.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(1_100) * phase).await;
            let line = format!(
                "-v error -rtsp_transport {transport} -i URL -t 8 -vf {STRIP} -fps_mode passthrough -pix_fmt gray \
                 -f rawvideo -"
            );
            let output = ffmpeg(&line, &url).await;
            assert_eq!(output.log, "", "{transport}, phase {phase}");
            let seen = numbers(&output.stdout);
            assert!(seen.len() > 150, "{} pictures in 8 s", seen.len());
            assert!(is_run(&seen, length), "{transport}, phase {phase}: {seen:?}");
            assert_eq!(seen[0] % 100, 0, "starts with a key picture");
        }
    });
    join_all(joins).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_in_order() {
    check(Film { video: PLAIN, ..Film::default() }, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_pictures_in_order() {
    check(Film { video: B_PICTURES, ..Film::default() }, true).await;
}

/// Nothing says how deep the reordering goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_pictures_of_unknown_depth_in_order() {
    check(Film { video: B_PICTURES, ..Film::default() }, false).await;
}
