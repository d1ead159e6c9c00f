//! How late a player is that joined late: GStreamer's `rtspsrc` paces itself by time stamps and stays as late as it
//! starts, unless the start is squeezed.

use super::footage::{B_PICTURES, Film, PLAIN};
use super::house::House;
use super::order::is_run;
use super::screen::Screen;
use futures::future::join_all;
use std::time::{Duration, Instant};

const TOLERANCE_MS: f64 = 100.0;

/// How many milliseconds later than one that joined long before each of `joins` viewers shows its pictures, three
/// seconds after it joined at some phase of a GOP of four seconds.
async fn lateness(video: &'static str, query: &str, joins: u32) -> Vec<f64> {
    let film = Film { video, pictures: 800, ..Film::default() };
    let length = film.pictures;
    let reel = film.shoot().await;
    let house = House::playing(&reel.path()).await;
    let url = format!("{}{query}", house.url("porch"));
    let long_before = Screen::play(&house.url("porch"), "h264", 320);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let each = (0..joins).map(|join| {
        let (url, long_before) = (url.clone(), &long_before);
        async move {
            // 4 s and a bit more than a quarter of that: all phases.
            tokio::time::sleep(Duration::from_millis(1_130) * join).await;
            let screen = Screen::play(&url, "h264", 320);
            tokio::time::sleep(Duration::from_secs(3)).await;
            let from = Instant::now();
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert!(is_run(&screen.numbers(), length), "{:?}", screen.numbers());
            let (late, early) = (screen.since(from), long_before.since(from - Duration::from_secs(3)));
            let mut apart: Vec<f64> = late
                .iter()
                .filter_map(|(number, at)| {
                    let other = early.get(number)?;
                    let apart = at.saturating_duration_since(*other).as_secs_f64()
                        - other.saturating_duration_since(*at).as_secs_f64();
                    Some(apart * 1_000.0)
                })
                .collect();
            assert!(apart.len() > 10, "{} pictures in common", apart.len());
            apart.sort_by(f64::total_cmp);
            apart[apart.len() / 2]
        }
    });
    join_all(each).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_squeezed_start_is_no_later_than_an_early_one() {
    let late = lateness(PLAIN, "?start=squeeze", 8).await;
    println!("squeezed, ms later: {late:.0?}");
    assert!(late.iter().all(|ms| *ms <= TOLERANCE_MS), "{late:.0?}");
}

/// With B pictures, and by GStreamer's name alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_squeezed_start_with_b_pictures_is_no_later_than_an_early_one() {
    let late = lateness(B_PICTURES, "", 8).await;
    println!("squeezed, B pictures, ms later: {late:.0?}");
    assert!(late.iter().all(|ms| *ms <= TOLERANCE_MS), "{late:.0?}");
}

/// What squeezing is for; were this not so, the tests above would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn true_time_stamps_leave_it_late() {
    let late = lateness(PLAIN, "?start=key", 4).await;
    println!("true time stamps, ms later: {late:.0?}");
    assert!(late.iter().any(|ms| *ms > 2.0 * TOLERANCE_MS), "{late:.0?}");
}
