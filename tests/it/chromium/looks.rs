//! Every page, narrow and wide, light and dark: readable, within the window, and usable by keyboard and screen reader.
//! Screenshots are left in `target/screenshots/`.

use super::house::{House, demo, footage};
use crate::players::footage::Film;
use crate::support::chromium::{Browser, Scheme};
use fanlight::simulate::rtsp::Footage;
use serde_json::json;
use std::time::Duration;

/// What is wrong with the page, as sentences.
const FAULTS: &str = r#"
const faults = [];
const tell = (element, text) => faults.push(`${element.tagName.toLowerCase()}#${element.id}.${element.className}: ${text}`);

// Sizes
if (document.documentElement.scrollWidth > innerWidth) {
    faults.push(`${document.documentElement.scrollWidth} pixels in a window of ${innerWidth}`);
    for (const element of document.body.querySelectorAll('*')) {
        if (element.getBoundingClientRect().right > innerWidth + 1) tell(element, 'is too wide');
    }
}

// Structure
const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
if (!document.documentElement.lang) faults.push('no language');
if (!document.title) faults.push('no title');
if (document.querySelectorAll('main').length !== 1) faults.push('not one main part');
const headings = [...document.querySelectorAll('h1, h2, h3')].filter(shown).map(({ tagName }) => Number(tagName[1]));
if (headings.filter((level) => level === 1).length !== 1) faults.push(`headings ${headings}`);
headings.reduce((before, level) => (level > before + 1 ? faults.push(`headings ${headings}`) : 0, level), 0);
const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
for (const id of new Set(ids)) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`two elements are #${id}`);
for (const image of document.images) if (!image.hasAttribute('alt')) tell(image, 'has no alternative text');

// Names and sizes of controls
const controls = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary, [tabindex="0"]')].filter(shown);
for (const control of controls) {
    const labels = [...control.labels ?? []].map((label) => label.textContent);
    const name = [control.ariaLabel, control.textContent, ...labels].filter(Boolean).join(' ').trim();
    if (!name) tell(control, 'has no name');
    const box = (control.closest('label') ?? control).getBoundingClientRect();
    const inText = control.matches('p a, .name a, pre, .skip');
    if (!inText && (box.width < 43.9 || box.height < 43.9)) tell(control, `is ${box.width} by ${box.height}`);
}

// Contrast of text, over the lightest and the darkest picture where one may be behind it (WCAG 2.2, 1.4.3)
const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
const parse = (colour) => {
    const numbers = colour.match(/[\d.]+/g).map(Number);
    if (!colour.startsWith('rgb')) throw new Error(colour);
    return [...numbers.slice(0, 3), numbers[3] ?? 1];
};
const over = (top, bottom) => [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3]));
const backs = (element) => {
    for (let at = element, layers = []; ; at = at.parentElement) {
        const picture = at?.classList.contains('screen');
        const colour = at ? parse(getComputedStyle(at).backgroundColor) : [255, 255, 255, 1];
        const grounds = picture ? [[0, 0, 0], [255, 255, 255]] : colour[3] === 1 ? [colour] : null;
        if (grounds) return grounds.map((ground) => layers.reduceRight((below, layer) => over(layer, below), ground));
        layers.push(colour);
    }
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const { parentElement: element, textContent: text } = walker.currentNode;
    if (!text.trim() || !shown(element) || element.closest('.unseen, .skip, noscript, template')) continue;
    const style = getComputedStyle(element);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    for (const back of backs(element)) {
        const [high, low] = [luminance(over(parse(style.color), back)), luminance(back)].sort((a, b) => b - a);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < (large ? 3 : 4.5)) tell(element, `"${text.trim()}" has a contrast of ${contrast.toFixed(2)}`);
    }
}
return faults;
"#;

/// Everything that Tab has to reach.
const REACHABLE: &str = "
    const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary, [tabindex=\"0\"]')];
    const groups = new Set();
    window.reachable = new Set(all.filter((element) => {
        if (!element.checkVisibility({ visibilityProperty: true }) || element.disabled) return false;
        if (element.type !== 'radio') return true;
        // Arrow keys go on within a group.
        return element.checked;
    }));
    document.activeElement?.blur();
    return window.reachable.size;";

/// Where Tab has come to.
const REACHED: &str = "
    const element = document.activeElement;
    window.reachable.delete(element);
    const ringed = (at) => at && getComputedStyle(at).outlineStyle !== 'none';
    const ring = ringed(element) || ringed(element.closest('label')) || ringed(element.closest('.tile'));
    return [window.reachable.size, ring || element === document.body ? '' : element.outerHTML];";

/// What is shown now has none of the faults. Leaves a screenshot of that name.
pub(super) async fn faultless(browser: &Browser, name: &str) {
    browser.screenshot(name).await;
    assert_eq!(browser.run(FAULTS, &[]).await, json!([]), "{name}");
}

pub(super) async fn check(browser: &Browser, page: &str, url: &str, ready: &str) {
    for (width, height) in [(360, 740), (1280, 800)] {
        for scheme in [Scheme::Light, Scheme::Dark] {
            browser.view(width, height, scheme).await;
            browser.open(url).await;
            browser.until(&format!("{page} is ready"), ready).await;
            // Until what fades in has done so.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let name = format!("{page}-{width}-{}", format!("{scheme:?}").to_lowercase());
            faultless(browser, &name).await;
        }
        let count = browser.run(REACHABLE, &[]).await.as_u64().unwrap();
        let mut left = count;
        for _ in 0..count + 5 {
            browser.press(&['\u{e004}']).await;
            let reached = browser.run(REACHED, &[]).await;
            left = reached[0].as_u64().unwrap();
            assert_eq!(reached[1], "", "{page}: it cannot be seen that this has the focus");
        }
        let missed = browser.run("return [...window.reachable].map((element) => element.outerHTML)", &[]).await;
        assert_eq!(left, 0, "{page}: the keyboard does not reach {missed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_readable_and_in_reach() {
    let portrait = Film { width: 240, height: 320, ..Film::default() }.shoot().await;
    let mut cameras = demo().await;
    cameras.push(("porch", footage(Footage::File(portrait.path())).await));
    let away = "  attic: { source: \"rtsp://127.0.0.1:9/\" }\n";
    let house = House::with("auth: none", cameras, away).await;
    let browser = Browser::start().await;
    let wall = "const seen = ({ top, bottom }) => top < innerHeight && bottom > 0; \
                const tiles = [...document.querySelectorAll('.tile')].filter((tile) => seen(tile.getBoundingClientRect())); \
                return tiles.length > 1 && tiles.every((tile) => tile.matches('.moving, [data-name=attic]')) \
                    && document.querySelector('[data-name=attic] .cover').innerText.includes('127.0.0.1')";
    check(&browser, "wall", &house.url("/"), wall).await;
    let figures = "document.querySelector('#stats').hidden && document.querySelector('#figures').click(); \
                   return document.querySelector('#screen.moving') && document.querySelector('#stats').innerText.includes('bit/s') \
                   && document.querySelector('#about').childElementCount";
    check(&browser, "camera", &house.url("/camera/street"), figures).await;
    check(&browser, "camera-portrait", &house.url("/camera/porch"), super::camera::MOVES).await;
    let away = "return document.querySelector('#cover').innerText.includes('127.0.0.1')";
    check(&browser, "camera-away", &house.url("/camera/attic"), away).await;
    let missing = "return !document.querySelector('#missing').hidden";
    check(&browser, "camera-missing", &house.url("/camera/nowhere"), missing).await;
    check(&browser, "kiosk", &house.url("/?kiosk"), wall).await;
    browser.close().await;

    let house = House::of(Vec::new()).await;
    let browser = Browser::start().await;
    check(&browser, "empty", &house.url("/"), "return !document.querySelector('#empty').hidden").await;
    browser.close().await;

    let hash = fanlight::access::password::hash("nobody signs in here").unwrap();
    let users = format!("users: [{{ name: ada, role: viewer, password_hash: \"{hash}\" }}]");
    let house = House::with(&users, Vec::new(), "").await;
    let browser = Browser::start().await;
    check(&browser, "sign-in", &house.url("/"), "return document.querySelector('input[type=password]')").await;
    browser.close().await;
}
