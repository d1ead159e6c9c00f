//! The pages in Debian's Chromium, in front of the whole gateway: what people see. One browser runs at a time.

mod camera;
mod house;
mod looks;
mod outside;
mod proxy;
mod timing;
mod trouble;
mod visits;
mod wall;

use crate::support::chromium::Browser;
use serde_json::json;

/// Of each `<video>`: pictures decoded so far.
const DECODED: &str =
    "return [...document.querySelectorAll('video')].map((video) => video.getVideoPlaybackQuality().totalVideoFrames)";

/// How much the brightness of the picture differs within it: 0 is one colour. The argument is a selector.
const SPREAD: &str = "
    const picture = document.querySelector(arguments[0]);
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [64, 64];
    const context = canvas.getContext('2d');
    context.drawImage(picture, 0, 0, 64, 64);
    const pixels = context.getImageData(0, 0, 64, 64).data.filter((_, index) => index % 4 === 1);
    return Math.max(...pixels) - Math.min(...pixels);";

/// Until that many more pictures were decoded by the `index`th `<video>`.
async fn plays_on(browser: &Browser, index: usize, pictures: u64) {
    let decoded = async || browser.run(DECODED, &[]).await[index].as_u64().unwrap_or(0);
    let before = decoded().await;
    let script = format!(
        "return document.querySelectorAll('video')[{index}]?.getVideoPlaybackQuality().totalVideoFrames >= {}",
        before + pictures
    );
    browser.until("pictures go on", &script).await;
}

/// The picture that the selector finds is not one colour.
async fn shows_something(browser: &Browser, selector: &str) {
    let spread = browser.run(SPREAD, &[json!(selector)]).await.as_u64().unwrap();
    assert!(spread > 40, "{selector} differs by {spread} only");
}
