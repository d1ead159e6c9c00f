//! The wall.

use super::house::{House, demo};
use super::{plays_on, shows_something};
use crate::support::chromium::{Browser, Scheme};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_camera_is_live() {
    let house = House::with("auth: none", demo().await, "  attic: { source: \"rtsp://127.0.0.1:9/\" }\n").await;
    let browser = Browser::start().await;
    browser.open(&house.url("/")).await;
    browser.until("both cameras move", "return document.querySelectorAll('.moving').length === 2").await;
    for (index, name) in ["hall", "street"].into_iter().enumerate() {
        // In the order of the configuration or of names, which is the same here.
        let tile = format!("[data-name={name}]");
        let position =
            format!("return [...document.querySelectorAll('.tile')].findIndex((tile) => tile.matches('{tile}'))");
        let position = browser.run(&position, &[]).await.as_u64().unwrap();
        plays_on(&browser, usize::try_from(position).unwrap(), 20).await;
        shows_something(&browser, &format!("{tile} video")).await;
        let text = browser.run("return document.querySelector(arguments[0]).innerText", &[json!(tile)]).await;
        let text = text.as_str().unwrap();
        for words in [name, "Live", "768×432", "H.264"] {
            assert!(text.contains(words), "tile {index}: {text}");
        }
    }
    // The one that is not there says why, and is not asked for pictures.
    let script =
        "const text = document.querySelector('[data-name=attic]').innerText; return text.includes('Offline') && text";
    let text = browser.until("the third camera is known to be away", script).await;
    assert!(text.as_str().unwrap().contains("127.0.0.1"), "{text}");
    browser
        .until(
            "all viewers are counted",
            "return document.querySelector('[data-name=street] .facts').innerText.includes('1 watching')",
        )
        .await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.screenshot("wall").await;

    // Nobody watches a hidden page.
    browser.run("window.open('about:blank')", &[]).await;
    browser.close().await;
    for name in ["hall", "street"] {
        let (device, _) = house.app().bus().stream(name).unwrap();
        let watching = || device.viewers.webrtc.load(std::sync::atomic::Ordering::Relaxed);
        crate::support::until("viewers are gone with the browser", || watching() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_gateway_says_what_to_do() {
    let house = House::of(Vec::new()).await;
    let browser = Browser::start().await;
    browser.view(360, 740, Scheme::Light).await;
    browser.open(&house.url("/")).await;
    let text =
        browser.until("there is advice", "return document.querySelector('#empty:not([hidden])')?.innerText").await;
    assert!(text.as_str().unwrap().contains("fanlight.yaml"), "{text}");
    let example = browser.run("return document.querySelector('#example').textContent", &[]).await;
    let example = format!("http: {{ listen: \"127.0.0.1:0\" }}\n{}", example.as_str().unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("front.txt"), "secret").unwrap();
    let file = dir.path().join("fanlight.yaml");
    std::fs::write(&file, example).unwrap();
    fanlight::config::load(&file).unwrap_or_else(|mistakes| panic!("the example on the page is wrong: {mistakes}"));
    browser.click("[data-copies]").await;
    browser
        .until(
            "it is copied",
            "return ['Copied', 'Selected'].includes(document.querySelector('[data-copies]').textContent)",
        )
        .await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

/// Tablets: all on one screen, nothing but pictures, and the pointer goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kiosk_shows_pictures_only() {
    let house = House::of(demo().await).await;
    let browser = Browser::start().await;
    for (width, height) in [(1280, 800), (800, 1280)] {
        browser.view(width, height, Scheme::Dark).await;
        browser.open(&house.url("/?kiosk")).await;
        browser.until("both cameras move", "return document.querySelectorAll('.moving').length === 2").await;
        let fits = "
            const seen = [...document.querySelectorAll('.tile')].map((tile) => tile.getBoundingClientRect());
            return seen.every(({ top, left, bottom, right }) => top >= 0 && left >= 0 && bottom <= innerHeight && right <= innerWidth)
                && document.querySelector('.bar').offsetHeight === 0;";
        assert_eq!(browser.run(fits, &[]).await, json!(true), "{width}x{height}");
        browser.until("the pointer is gone", "return getComputedStyle(document.body).cursor === 'none'").await;
        browser.screenshot(&format!("kiosk-{width}")).await;
    }
    browser.click(".tile .name a").await;
    browser.until("one camera, still a kiosk", "return location.pathname.startsWith('/camera/') && location.search === '?kiosk' && document.querySelector('.moving')").await;
    tokio::time::timeout(Duration::from_secs(5), browser.close()).await.unwrap();
}
