//! `fan-out browser`: how soon Chromium shows a picture, and how late its pictures are.
//!
//! The pictures carry their numbers as blocks of black and white; the page's script reads them from a canvas, frame by
//! frame. The camera sends picture n at a known time, and all run on one machine: number and time of display are the
//! delay. A second Chromium watches all the while, and is what each newcomer is compared with.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::clip::{NUMBER_BITS, NUMBER_BLOCK};
use crate::plan::Quantiles;
use crate::server::{Kind, Running};
use crate::table::{Verdict, markdown, median};
use crate::webdriver::Browser;

use super::Context;

/// Pictures are looked at from so long after the first one.
const SETTLE_MS: f64 = 3_000.0;
/// And for so long.
const LOOK_MS: f64 = 1_000.0;

/// One start of a page.
#[derive(Clone, Copy, Debug, Serialize)]
struct Start {
    /// From the start of the navigation to the display of the first picture, in ms.
    navigation_ms: f64,
    /// From the first `createOffer` to the same.
    offer_ms: f64,
    /// From the camera's sending of a picture to its display, median, from three to four seconds after the first one.
    delay_ms: f64,
    /// The same in the same second for the viewer who was there before.
    resident_ms: f64,
}

/// Opens the camera's page `starts` times. True if the targets were met.
///
/// # Errors
/// A server or a browser cannot be started, a page shows no picture, or the result cannot be written.
pub fn run(context: &Context, servers: &[Kind], starts: usize) -> Result<bool> {
    let gop_ms = u64::from(context.env.gop_seconds) * 1000;
    let (mut lines, mut verdicts, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for &kind in servers {
        let mut running = Running::start(kind, &context.env)?;
        let clock =
            Clock { start_us: running.camera_start_us()?, fps: context.env.fps, length: context.env.pictures()? };
        let page = format!("http://{}/camera/cam", running.address);
        let (resident, newcomer) = (Browser::start(&context.env.folder)?, Browser::start(&context.env.folder)?);
        let script = script();
        for browser in [&resident, &newcomer] {
            browser.before_pages(&script)?;
        }
        std::thread::sleep(Duration::from_millis(2 * gop_ms)); // a GOP is there
        resident.go(&page)?;
        let mut all = Vec::new();
        // the first one warms the browser up and does not count
        for number in 0..=starts {
            newcomer.go("about:blank")?;
            std::thread::sleep(Duration::from_millis(500 + fastrand::u64(0..gop_ms)));
            let start = one(&newcomer, &resident, &page, &clock, gop_ms)
                .with_context(|| format!("{} start {number}", kind.name()))?;
            eprintln!("{:<16} {number:>2}: {start:?}", kind.name());
            if number > 0 {
                all.push(start);
            }
        }
        let of = |f: fn(&Start) -> f64| Quantiles::of(all.iter().map(f).collect());
        let (navigation, offer) = (of(|s| s.navigation_ms), of(|s| s.offer_ms));
        // whole milliseconds, and no "-0" among them
        let later = of(|s| (s.delay_ms - s.resident_ms).round() + 0.0);
        lines.push(vec![
            kind.name().to_owned(),
            all.len().to_string(),
            format!("{:.0} / {:.0} / {:.0}", navigation.p50, navigation.p95, navigation.max),
            format!("{:.0} / {:.0} / {:.0}", offer.p50, offer.p95, offer.max),
            format!("{:.0}", of(|s| s.delay_ms).p50),
            format!("{:.0}", of(|s| s.resident_ms).p50),
            format!("{:.0} / {:.0}", later.p50, later.max),
        ]);
        if kind == Kind::FanlightWebrtc {
            verdicts.push(Verdict::new(
                navigation.p50 <= 500.0,
                format!("first picture shown within 500 ms of the navigation, median of {starts} starts"),
                format!("{:.0} ms", navigation.p50),
            ));
            verdicts.push(Verdict::new(
                later.p50 <= 100.0,
                "after three seconds at most 100 ms later than a viewer who was there before, median",
                format!("{:.0} ms, at most {:.0}", later.p50, later.max),
            ));
        }
        data.push(serde_json::json!({ "server": kind, "starts": all }));
    }
    let head = [
        "server",
        "starts",
        "navigation to first picture p50 / p95 / max ms",
        "createOffer to first picture p50 / p95 / max ms",
        "delay after 3 s, ms",
        "of who was there before",
        "difference p50 / max",
    ];
    let body = format!(
        "Chromium without a window, 1280 pixels wide; delay = from the camera's sending to display. The other server's page is the \
         least that plays.\n\n{}",
        markdown(&head, &lines)
    );
    context.finish("browser", "Start in Chromium", &body, &verdicts, &data)
}

/// When the camera sends which picture.
struct Clock {
    start_us: u64,
    fps: u32,
    /// Pictures until the clip begins again.
    length: u32,
}

impl Clock {
    /// Milliseconds from sending to `at_ms` (Unix), for the newest picture of that number.
    fn delay_ms(&self, at_ms: f64, number: u32) -> f64 {
        let period = f64::from(self.length) * 1e3 / f64::from(self.fps);
        let sent = self.start_us as f64 / 1e3 + f64::from(number) * 1e3 / f64::from(self.fps);
        (at_ms - sent).rem_euclid(period)
    }
}

fn one(newcomer: &Browser, resident: &Browser, page: &str, clock: &Clock, gop_ms: u64) -> Result<Start> {
    newcomer.go(page)?;
    let patience = Duration::from_millis(gop_ms + 10_000);
    let begin = std::time::Instant::now();
    loop {
        let shown =
            newcomer.run("return measured.frames.length ? measured.frames.at(-1)[0] - measured.first : null")?;
        if shown.as_f64().is_some_and(|shown| shown > SETTLE_MS + LOOK_MS) {
            break;
        }
        ensure!(begin.elapsed() < patience, "after {patience:?} the last picture is {shown} ms after the first");
        std::thread::sleep(Duration::from_millis(250));
    }
    let seen = newcomer.run("return measured")?;
    let first = seen["first"].as_f64().context("no first picture")?;
    let window = (first + SETTLE_MS, first + SETTLE_MS + LOOK_MS);
    let delay = |seen: &Value| {
        let frames = seen["frames"].as_array().into_iter().flatten();
        let frames = frames.filter_map(|f| Some((f[0].as_f64()?, f[1].as_u64()? as u32)));
        let frames = frames.filter(|(at, _)| (window.0..window.1).contains(at));
        median(frames.map(|(at, number)| clock.delay_ms(at, number))).context("no pictures after three seconds")
    };
    let there_before = resident.run("return measured")?;
    Ok(Start {
        navigation_ms: first - seen["navigation"].as_f64().context("no navigation")?,
        offer_ms: first - seen["offer"].as_f64().context("no offer")?,
        delay_ms: delay(&seen)?,
        resident_ms: delay(&there_before).context("the viewer who was there before")?,
    })
}

/// Notes, in every page, when what happens; times are Unix milliseconds.
fn script() -> String {
    format!(
        "const BITS = {NUMBER_BITS}, BLOCK = {NUMBER_BLOCK};
const measured = window.measured = {{ navigation: performance.timeOrigin, offer: null, first: null, frames: [] }};
const createOffer = RTCPeerConnection.prototype.createOffer;
RTCPeerConnection.prototype.createOffer = function (...options) {{
    measured.offer ??= performance.timeOrigin + performance.now();
    return createOffer.apply(this, options);
}};
const canvas = new OffscreenCanvas(BITS * BLOCK, BLOCK);
const context = canvas.getContext('2d', {{ willReadFrequently: true }});
function watch(video) {{
    const seen = (now, {{ expectedDisplayTime }}) => {{
        const at = performance.timeOrigin + expectedDisplayTime;
        measured.first ??= at;
        context.drawImage(video, 0, 0, canvas.width, BLOCK, 0, 0, canvas.width, BLOCK);
        const {{ data }} = context.getImageData(0, BLOCK / 2, canvas.width, 1);
        let number = 0;
        for (let bit = 0; bit < BITS; bit += 1) number = number * 2 + (data[4 * (bit * BLOCK + BLOCK / 2)] > 127);
        measured.frames.push([at, number]);
        if (measured.frames.length > 1000) measured.frames.splice(0, 500);
        video.requestVideoFrameCallback(seen);
    }};
    video.requestVideoFrameCallback(seen);
}}
const known = new WeakSet();
new MutationObserver(() => {{
    for (const video of document.querySelectorAll('video')) {{
        if (!known.has(video)) known.add(video) && watch(video);
    }}
}}).observe(document, {{ childList: true, subtree: true }});
"
    )
}
