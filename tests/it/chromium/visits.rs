//! Who was at the doors: on the wall, on the camera's page, in the gallery, and large on a wall tablet, as it happens.

use super::house::{House, demo};
use super::looks::check;
use super::{proxy, shows_something};
use crate::support::chromium::{Browser, Scheme};
use bytes::Bytes;
use fanlight::bus::{Device, DeviceOptions, Event, EventKind, Limits, State, Stream, SubStream, TrackId, Upstream};
use fanlight::ingest::mini_doorbell::BellId;
use fanlight::ingest::mini_doorbell::wire::{Carrier, Header, function};
use fanlight::media::{AccessUnit, Codec, Format, MediaTime, TrackInfo, VideoFormat};
use fanlight::simulate::rtsp::{Audio, Clip, Footage, Video};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Pictures of visitors.
fn faces() -> &'static [Bytes] {
    static FACES: OnceLock<Vec<Bytes>> = OnceLock::new();
    FACES.get_or_init(|| {
        let clip = Clip::load(&Footage::Visitors, Video::Jpeg, Audio::None).unwrap();
        clip.jpeg_pictures().into_iter().step_by(17).map(Bytes::from).collect()
    })
}

/// A doorbell that sends one picture for each visitor.
struct Bell {
    stream: Arc<Stream>,
    device: Arc<Device>,
    track: TrackId,
    info: Arc<TrackInfo>,
    house: Arc<fanlight::bus::Bus>,
}

impl Bell {
    fn at(house: &House, name: &str) -> Self {
        let stream = Stream::new(name, Limits::default());
        let device = Device::new(DeviceOptions {
            name: name.into(),
            family: "mini_doorbell",
            main: Arc::clone(&stream),
            sub: SubStream::None,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        });
        let video = VideoFormat { width: 768, height: 432, ..VideoFormat::default() };
        let info = TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format: Format::Video(video) };
        let track = stream.announce(std::slice::from_ref(&info))[0];
        device.set_status(State::Online, None);
        let bus = Arc::clone(house.app().bus());
        bus.add(Arc::clone(&device));
        Self { stream, device, track, info: Arc::new(info), house: bus }
    }

    /// Somebody rings, and is seen.
    fn ring(&self, picture: &Bytes) -> Arc<Event> {
        let time = self.stream.latest().map_or(MediaTime::START, |time| time + Duration::from_secs(6));
        let (random_access, discontinuity, info) = (true, false, Arc::clone(&self.info));
        let payload = picture.clone();
        self.stream
            .publish(self.track, AccessUnit { pts: time, dts: time, random_access, discontinuity, info, payload });
        self.house.events.tell(self.device.name(), EventKind::Visitor, Some(time), Some(picture.clone()))
    }
}

/// How many cards there are, once their pictures are there.
fn cards(count: usize) -> String {
    format!(
        "const cards = [...document.querySelectorAll('.visit')]; \
         return cards.length === {count} && cards.every((card) => card.querySelector('img').naturalWidth > 100)"
    )
}

async fn text(browser: &Browser, selector: &str) -> String {
    let text = browser.run("return document.querySelector(arguments[0]).innerText", &[json!(selector)]).await;
    text.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_appears_everywhere_without_reloading() {
    let house = House::with("auth: none", Vec::new(), "").await;
    let (front, back) = (Bell::at(&house, "front_door"), Bell::at(&house, "back"));
    let browser = Browser::start().await;
    // The wall: nobody yet, then one with picture, name and time; the tile shows the new picture.
    browser.open(&house.url("/")).await;
    let empty = "return document.querySelector('[data-name=front_door] .cover')?.innerText === 'No picture yet'";
    browser.until("the bell has shown nothing yet", empty).await;
    assert_eq!(browser.run("return document.querySelector('#visits').hidden", &[]).await, true);
    browser.run("window.same = true", &[]).await;
    front.ring(&faces()[0]);
    browser.until("the visitor is there", &cards(1)).await;
    let card = text(&browser, ".visit").await;
    assert!(card.contains("front door") && card.contains("just now"), "{card}");
    shows_something(&browser, ".visit img").await;
    let said = "return document.querySelector('#announcer').textContent";
    assert_eq!(browser.run(said, &[]).await, "Visitor at front door");
    let tile = "const tile = document.querySelector('[data-name=front_door]'); \
                return tile.querySelector('img').naturalWidth && tile.querySelector('.badge').innerText === 'just now'";
    browser.until("the tile shows it, with its age", tile).await;
    shows_something(&browser, "[data-name=front_door] img").await;
    let watching = front.device.viewers.webrtc.load(Ordering::Relaxed);
    assert_eq!((watching, front.stream.demand.count()), (0, 0), "no film is made of a picture");

    // Large, by pointer and by keyboard.
    back.ring(&faces()[1]);
    browser.until("the second visitor is there", &cards(2)).await;
    browser.click(".visit").await;
    let open =
        "const image = document.querySelector('dialog[open] img'); return image?.naturalWidth > 100 && image.alt";
    assert_eq!(browser.until("it is large", open).await, "Visitor at back");
    browser.press(&['\u{e014}']).await;
    browser.until("the one before", &format!("{open} === 'Visitor at front door'")).await;
    browser.press(&['\u{e00c}']).await;
    browser.until("it is closed", "return !document.querySelector('dialog[open]')").await;
    let focus = "return document.activeElement.matches('.visit')";
    assert_eq!(browser.run(focus, &[]).await, true, "the focus is where it was");

    // A better picture of the same visitor.
    let visit = front.ring(&faces()[2]);
    browser.until("the third visitor is there", &cards(3)).await;
    house.app().bus().events.update(visit.id, faces()[3].clone()).unwrap();
    let better = "return document.querySelector('.visit img').src.endsWith('/picture.jpg?v=2')";
    browser.until("the better one is shown", better).await;

    // While the page rests, and when it is looked at again.
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    browser.run(&hide(true), &[]).await;
    back.ring(&faces()[4]);
    browser.run(&hide(false), &[]).await;
    browser.until("what was missed is there", &cards(4)).await;
    assert_eq!(browser.run("return window.same", &[]).await, true, "without loading the page again");
    assert_eq!(browser.console().await, Vec::<String>::new());

    // The camera's page shows its own visitors, and says who is elsewhere.
    browser.open(&house.url("/camera/front_door")).await;
    browser.until("its visitors", &cards(2)).await;
    let still = "return document.querySelector('#badge').innerText === 'just now' \
                 && document.querySelector('#still').naturalWidth && document.querySelector('#cover').hidden";
    browser.until("the still with its age", still).await;
    front.ring(&faces()[5]);
    browser.until("one more", &cards(3)).await;
    back.ring(&faces()[6]);
    let elsewhere = "return document.querySelector('.toast')?.innerText === 'Visitor at back'";
    browser.until("the other door is told of", elsewhere).await;
    browser.click(".visit").await;
    browser.until("it is large", open).await;
    browser.press(&['\u{e00c}']).await;
    browser.until("it is closed", "return !document.querySelector('dialog[open]')").await;
    let here = browser.address().await;
    assert!(here.ends_with("/camera/front_door"), "Escape closed the picture, not the page: {here}");
    assert_eq!(front.device.viewers.webrtc.load(Ordering::Relaxed), 0);

    // The gallery, of one camera and of all.
    browser.click("#all-visits").await;
    browser.until("the gallery of that camera", &cards(3)).await;
    assert!(browser.address().await.ends_with("/visitors?camera=front_door"));
    for index in 0..26 {
        back.ring(&faces()[index % faces().len()]);
    }
    let choose = "const select = document.querySelector('#camera'); select.value = ''; \
                  select.dispatchEvent(new Event('change')); return true";
    browser.until("all cameras can be chosen", "return document.querySelector('#camera').length === 3").await;
    browser.run(choose, &[]).await;
    let page = "return document.querySelectorAll('.visit').length === 24 && !document.querySelector('#older').hidden";
    browser.until("the newest ones", page).await;
    browser.click("#older").await;
    let all = "return document.querySelectorAll('.visit').length === 32 && document.querySelector('#older').hidden";
    browser.until("the others", all).await;
    front.ring(&faces()[7]);
    browser.until("who comes now", "return document.querySelectorAll('.visit').length === 33").await;
    assert_eq!(text(&browser, ".visit strong").await, "front door");
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_tablet_shows_a_visitor_large_for_a_while() {
    let house = House::of(demo().await).await;
    let bell = Bell::at(&house, "front_door");
    let browser = Browser::start().await;
    // Seconds pass sooner on this tablet.
    let hurry = "const set = window.setTimeout; window.waits = []; window.setTimeout = (act, time, ...more) => { \
                 window.waits.push(time); return set(act, time === 20000 ? 2000 : time, ...more); };";
    browser.before_pages(hurry).await;
    let large = "const dialog = document.querySelector('dialog.large[open]'); const image = dialog?.querySelector('img'); \
                 const box = dialog?.getBoundingClientRect(); return image?.naturalWidth > 100 \
                 && dialog.innerText.includes('Visitor at front door') && box.width === innerWidth && box.height === innerHeight";
    for (page, (width, height)) in [("/?kiosk", (1280, 800)), ("/camera/street?kiosk", (800, 1280))] {
        browser.view(width, height, Scheme::Dark).await;
        browser.open(&house.url(page)).await;
        browser.until("cameras move", "return document.querySelector('.moving')").await;
        bell.ring(&faces()[8]);
        browser.until("the visitor is large", large).await;
        browser.screenshot(&format!("kiosk-visitor-{width}")).await;
        assert_eq!(browser.run("return window.waits.includes(20000)", &[]).await, true);
        browser.until("and goes again", "return !document.querySelector('dialog[open]')").await;
        assert_eq!(browser.console().await, Vec::<String>::new());
    }
    browser.close().await;
}

/// Some proxies hold server-sent events back: then the page asks. And what the gateway has forgotten, pages forget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_server_sent_events_visitors_come_too() {
    let mut house = House::of(Vec::new()).await;
    let browser = Browser::start().await;
    let silent = "window.EventSource = class extends EventTarget { static OPEN = 1; static CLOSED = 2; readyState = 0; close() {} }";
    browser.before_pages(silent).await;
    browser.open(&house.url("/visitors")).await;
    browser.until("nobody was there", "return !document.querySelector('#empty').hidden").await;
    house.app().bus().events.tell("front", EventKind::Visitor, None, Some(faces()[5].clone()));
    browser.until("the visitor is there", &cards(1)).await;
    let said = "return document.querySelector('#announcer').textContent === 'Visitor at front'";
    browser.until("it is said", said).await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    house.stop().await;
    house.start().await;
    let gone = "return document.querySelectorAll('.visit').length === 0 && !document.querySelector('#empty').hidden";
    browser.until("the gateway has forgotten it", gone).await;
    browser.close().await;
}

/// A doorbell's own way: one connection, a header and the picture.
async fn upload(house: &House, id: BellId, sequence: u16, face: &Bytes) {
    let image = turbojpeg::decompress(face, turbojpeg::PixelFormat::RGB).unwrap();
    let small = turbojpeg::compress(image.as_deref(), 30, turbojpeg::Subsamp::Sub2x2).unwrap();
    let header = Header::new(id, function::VISITOR, sequence, small.len().try_into().unwrap());
    let mut socket = TcpStream::connect(house.app().addresses().mini_doorbell[0]).await.unwrap();
    socket.write_all(&header.write(Carrier::Tcp)).await.unwrap();
    socket.write_all(&small).await.unwrap();
    socket.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_bell_rings_and_an_unknown_one_says_what_to_paste() {
    let (known, unknown) = (BellId([0, 0xff, 2, 0, 1, 2, 3, 0]), BellId([0, 0xff, 2, 0, 9, 8, 7, 0]));
    let who = "auth: none\nmini_doorbell: { listen: \"127.0.0.1:0\" }";
    let bell = format!("  front_door: {{ source: \"mini-doorbell://{known}\", rotate: 0 }}\n");
    let house = House::with(who, Vec::new(), &bell).await;
    let browser = Browser::start().await;
    browser.open(&house.url("/")).await;
    let waits = "return document.querySelector('[data-name=front_door] .cover')?.innerText === 'No picture yet'";
    browser.until("the bell has shown nothing yet", waits).await;
    browser.run("window.same = true", &[]).await;
    upload(&house, known, 1, &faces()[5]).await;
    browser.until("the visitor is there", &cards(1)).await;
    shows_something(&browser, ".visit img").await;
    let tile = "const tile = document.querySelector('[data-name=front_door]'); \
                return tile.querySelector('img').naturalWidth && tile.querySelector('.badge').innerText === 'just now'";
    browser.until("the tile shows it, with its age", tile).await;

    upload(&house, unknown, 1, &faces()[8]).await;
    let card =
        "return document.querySelector('.bell img')?.naturalWidth && document.querySelector('.bell pre').textContent";
    let lines = browser.until("the new bell is there", card).await;
    let config = format!("http: {{ listen: \"127.0.0.1:0\" }}\ncameras:\n{}", lines.as_str().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fanlight.yaml");
    std::fs::write(&file, config).unwrap();
    fanlight::config::load(&file).unwrap_or_else(|mistakes| panic!("the lines on the page are wrong: {mistakes}"));
    assert!(text(&browser, ".bell").await.contains(&unknown.to_string()));
    assert_eq!(browser.run("return window.same", &[]).await, true, "without loading the page again");
    for (width, height, scheme) in [(360, 740, Scheme::Light), (1280, 800, Scheme::Dark)] {
        browser.view(width, height, scheme).await;
        super::looks::faultless(&browser, &format!("bells-{width}")).await;
    }
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

/// What a gateway with bells that nobody has configured says.
const UNKNOWN: &str = r#"{
    const answer = { unknown: [{ id: "00ff020001020300", first_seen: new Date().toISOString(), last_seen: new Date().toISOString(),
        visits: 3, picture: null, config: "  new_door:\n    source: mini-doorbell://00ff020001020300\n" }] };
    const before = window.fetch;
    window.asked = 0;
    window.fetch = (address, ...more) => {
        if (!String(address).endsWith("/v1/mini-doorbell/unknown")) return before(address, ...more);
        window.asked += 1;
        return Promise.resolve(new Response(JSON.stringify(answer), { headers: { "Content-Type": "application/json" } }));
    };
}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_bell_brings_its_lines() {
    let house = House::of(Vec::new()).await;
    let browser = Browser::start().await;
    browser.before_pages(UNKNOWN).await;
    browser.open(&house.url("/")).await;
    browser.until("the page is there", "return !document.querySelector('#empty').hidden").await;
    assert_eq!(browser.run("return window.asked", &[]).await, 0, "nobody asks where there never was one");
    let kind = EventKind::Other("new_doorbell".into());
    house.app().bus().events.tell_with("", kind, None, Some(faces()[0].clone()), serde_json::Map::default());
    browser.until("the bell is told of", "return document.querySelector('.bell pre')").await;
    let bell = text(&browser, ".bell").await;
    for words in ["New doorbell", "3 times", "00ff020001020300", "source: mini-doorbell://00ff020001020300"] {
        assert!(bell.contains(words), "{bell}");
    }
    browser.click(".bell .snippet button").await;
    let copied = "return ['Copied', 'Selected'].includes(document.querySelector('.bell .snippet button').textContent)";
    browser.until("the lines are copied", copied).await;
    // It is still there for who comes later, until it is hidden.
    browser.open(&house.url("/")).await;
    browser.until("the bell is told of", "return document.querySelector('.bell pre')").await;
    browser.click(".bell .quiet").await;
    browser.until("it is hidden", "return document.querySelector('#bells').hidden").await;
    browser.open(&house.url("/")).await;
    browser.until("it was asked for", "return window.asked").await;
    assert_eq!(browser.run("return document.querySelectorAll('.bell').length", &[]).await, 0);
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visits_are_readable_and_in_reach() {
    let house = House::of(demo().await).await;
    let (front, back) = (Bell::at(&house, "front_door"), Bell::at(&house, "back"));
    let events = &house.app().bus().events;
    for index in 0..10 {
        [&front, &back][index % 2].ring(&faces()[index % faces().len()]);
    }
    events.tell("front_door", EventKind::Alarm, None, None);
    let proxy = proxy::start("/fan", house.address()).await;
    let below = |path: &str| format!("http://{proxy}/fan{path}");
    let browser = Browser::start().await;
    let shown = "const images = [...document.querySelectorAll('.visit img')].filter((image) => image.getBoundingClientRect().left < innerWidth \
                 && image.getBoundingClientRect().top < innerHeight); \
                 return images.length > 1 && images.every((image) => image.complete && image.naturalWidth)";
    check(&browser, "visits-wall", &below("/"), shown).await;
    browser.view(360, 740, Scheme::Light).await;
    let widths =
        "return [...document.querySelectorAll('.tile')].map((tile) => Math.round(tile.getBoundingClientRect().width))";
    let widths = browser.run(widths, &[]).await;
    let widths = widths.as_array().unwrap();
    assert!(widths.len() == 4 && widths.iter().all(|width| *width == widths[0]), "none is narrower: {widths:?}");
    check(&browser, "visits-camera", &below("/camera/front_door"), shown).await;
    check(&browser, "visits-gallery", &below("/visitors"), shown).await;
    check(
        &browser,
        "visits-none",
        &below("/visitors?camera=street"),
        "return !document.querySelector('#empty').hidden",
    )
    .await;
    // The dialog has the whole keyboard while it is open.
    for (width, height, scheme) in [(360, 740, Scheme::Light), (1280, 800, Scheme::Dark)] {
        browser.view(width, height, scheme).await;
        browser.open(&below("/visitors")).await;
        browser.until("the gallery", shown).await;
        browser.run("document.querySelectorAll('.visit')[1].click()", &[]).await;
        let open = "return document.querySelector('dialog[open] img')?.naturalWidth > 100";
        browser.until("it is large", open).await;
        super::looks::faultless(&browser, &format!("visits-large-{width}")).await;
    }
    browser.before_pages(UNKNOWN).await;
    events.tell_with("", EventKind::Other("new_doorbell".into()), None, None, serde_json::Map::default());
    check(&browser, "visits-new-bell", &below("/"), "return document.querySelector('.bell pre')").await;
    browser.close().await;
}
