//! What goes wrong, and how the page gets over it.

use super::camera::MOVES;
use super::house::House;
use super::{plays_on, shows_something};
use crate::players::footage::Film;
use crate::support::PATIENCE;
use crate::support::chromium::Browser;
use crate::support::http::json;
use serde_json::json as value;
use std::time::{Duration, Instant};

const MJPEG: &str = "return document.querySelector('#mjpeg:not([hidden])')?.naturalWidth";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_starts_again() {
    let reel = Film::default().shoot().await;
    let mut house = House::playing(&reel.path()).await;
    let browser = Browser::start().await;
    for page in ["/camera/porch", "/"] {
        browser.open(&house.url(page)).await;
        browser.until("the camera moves", "return document.querySelector('.moving') !== null").await;
        browser.run("window.same = true", &[]).await;
        house.stop().await;
        browser.until("the page says so", "return document.querySelector('#banner:not([hidden])')?.innerText").await;
        house.start().await;
        browser.until("the page has seen it", "return document.querySelector('#banner').hidden").await;
        plays_on(&browser, 0, 20).await;
        browser.until("the camera moves", "return document.querySelector('.moving') !== null").await;
        assert_eq!(browser.run("return window.same", &[]).await, true, "without loading the page again");
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_webrtc_there_is_mjpeg() {
    let reel = Film::default().shoot().await;
    let mut house = House::playing(&reel.path()).await;
    let browser = Browser::start().await;
    browser.before_pages("delete window.RTCPeerConnection").await;
    browser.open(&house.url("/camera/porch")).await;
    assert_eq!(browser.until("pictures", MJPEG).await, value!(320));
    shows_something(&browser, "#mjpeg").await;
    let note = browser.run("return document.querySelector('#note').innerText", &[]).await;
    assert!(note.as_str().unwrap().contains("WebRTC"), "{note}");
    assert_eq!(browser.console().await, Vec::<String>::new());
    // Chromium tells nobody that a picture has stopped moving because its connection broke.
    house.stop().await;
    browser.until("the page says so", "return document.querySelector('#banner:not([hidden])')?.innerText").await;
    house.start().await;
    browser.until("the page has seen it", "return document.querySelector('#banner').hidden").await;
    let begin = Instant::now();
    while json(house.address(), "/v1/cameras/porch").await["viewers"]["mjpeg"] != 1 {
        assert!(begin.elapsed() < PATIENCE, "the pictures are asked for again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // On the wall there are stills instead: a browser opens six connections to one server at most.
    browser.open(&house.url("/")).await;
    browser.until("a still", "return document.querySelector('.tile img').naturalWidth").await;
    browser.until("it is said to be one", "return document.querySelector('.badge').innerText === 'Still'").await;
    browser.close().await;
}

/// Nothing gets through to the port of WebRTC; later it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_webrtc_does_not_connect_there_is_mjpeg_until_it_does() {
    let reel = Film::default().shoot().await;
    let house = House::playing(&reel.path()).await;
    let browser = Browser::start().await;
    // The gateway's candidates are taken out of its answer, as if a firewall stood between.
    let script = "
        const set = RTCPeerConnection.prototype.setRemoteDescription;
        window.blocked = true;
        RTCPeerConnection.prototype.setRemoteDescription = function (description) {
            const { type, sdp } = description;
            return set.call(this, window.blocked ? { type, sdp: sdp.replace(/^a=candidate:.*\\r\\n/gm, '') } : description);
        };";
    browser.before_pages(script).await;
    browser.open(&house.url("/camera/porch")).await;
    browser.until("pictures", MJPEG).await;
    shows_something(&browser, "#mjpeg").await;
    let note = browser.run("return document.querySelector('#note').innerText", &[]).await;
    assert!(note.as_str().unwrap().contains("does not get through"), "{note}");
    browser.screenshot("fallback").await;
    browser.run("window.blocked = false; dispatchEvent(new Event('online'))", &[]).await;
    browser.until("the camera moves", MOVES).await;
    plays_on(&browser, 0, 20).await;
    browser
        .until(
            "nothing else is fetched",
            "return document.querySelector('#mjpeg').hidden && document.querySelector('#note').hidden",
        )
        .await;
    browser.close().await;
}
