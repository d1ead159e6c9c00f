//! The page of one camera.

use super::house::{House, clip, demo};
use super::{plays_on, shows_something};
use crate::players::footage::{B_PICTURES, Film, PLAIN};
use crate::support::chromium::Browser;
use fanlight::simulate::rtsp::{Footage, Options};
use serde_json::{Value, json};

/// Reads the number in each picture that is shown for so many milliseconds.
const NUMBERS: &str = "
    const [time, done] = arguments;
    const video = document.querySelector('video');
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [192, 16];
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const numbers = [];
    const begin = performance.now();
    const read = () => {
        context.drawImage(video, 0, 0, 192, 16, 0, 0, 192, 16);
        const line = context.getImageData(0, 8, 192, 1).data;
        let number = 0;
        for (let bit = 0; bit < 12; bit += 1) number = number * 2 + (line[(bit * 16 + 8) * 4 + 1] > 127 ? 1 : 0);
        numbers.push(number);
        if (performance.now() - begin < time) video.requestVideoFrameCallback(read);
        else done(numbers);
    };
    video.requestVideoFrameCallback(read);";

pub(super) const MOVES: &str = "return document.querySelector('#screen.moving') !== null";

fn loud(value: &Value) -> bool {
    value.as_f64().is_some_and(|energy| energy > 1e-4)
}

async fn in_order(film: Film) {
    let length = u64::from(film.pictures);
    let reel = film.shoot().await;
    let house = House::playing(&reel.path()).await;
    let browser = Browser::start().await;
    browser.open(&house.url("/camera/porch")).await;
    browser.until("the camera moves", MOVES).await;
    let numbers = browser.wait(NUMBERS, &[json!(6000)]).await;
    let numbers: Vec<u64> = numbers.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect();
    // The browser draws as it finds the time: pictures may be left out, none may come twice or too late.
    let steps: Vec<u64> = numbers.windows(2).map(|pair| (pair[1] + length - pair[0]) % length).collect();
    assert!(numbers.len() > 40, "{} pictures in 6 s", numbers.len());
    assert!(steps.iter().all(|&step| (1..50).contains(&step)), "{numbers:?}");
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_in_order() {
    in_order(Film { video: PLAIN, ..Film::default() }).await;
}

/// Browsers show them in the wrong order: the gateway makes a rendition without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_pictures_in_order() {
    in_order(Film { video: B_PICTURES, ..Film::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_on_tap() {
    let film = Film { audio: Some("-c:a aac -b:a 64k -ac 1"), ..Film::default() };
    let reel = film.shoot().await;
    let house = House::playing(&reel.path()).await;
    let browser = Browser::start().await;
    browser.open(&house.url("/camera/porch")).await;
    browser.until("the camera moves", MOVES).await;
    assert_eq!(browser.run("return document.querySelector('video').muted", &[]).await, true);
    assert_eq!(browser.run("return document.querySelector('video').srcObject.getAudioTracks().length", &[]).await, 0);
    browser.until("there is a button", "return !document.querySelector('#sound').hidden").await;
    browser.click("#sound").await;
    browser.until("sound is there", "return document.querySelector('video').srcObject.getAudioTracks().length").await;
    let level = "
        const done = arguments[0];
        const context = new AudioContext();
        const analyser = context.createAnalyser();
        context.createMediaStreamSource(document.querySelector('video').srcObject).connect(analyser);
        const samples = new Float32Array(analyser.fftSize);
        const begin = performance.now();
        const timer = setInterval(() => {
            analyser.getFloatTimeDomainData(samples);
            const energy = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
            if (energy < 1e-4 && performance.now() - begin < 15000) return;
            clearInterval(timer);
            done(energy);
        }, 50);";
    let energy = browser.wait(level, &[]).await;
    assert!(loud(&energy), "the sine of the film has an energy of {energy}");
    assert_eq!(browser.run("return document.querySelector('video').muted", &[]).await, false);
    browser.until("pictures stayed", MOVES).await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_buttons() {
    const LEFT: char = '\u{e012}';
    const RIGHT: char = '\u{e014}';
    const ESCAPE: char = '\u{e00c}';
    let house = House::of(demo().await).await;
    let browser = Browser::start().await;
    browser.open(&house.url("/camera/street")).await;
    browser.until("the camera moves", MOVES).await;
    shows_something(&browser, "video").await;
    plays_on(&browser, 0, 20).await;

    browser.press(&['s']).await;
    let figures = "const text = document.querySelector('#stats:not([hidden])')?.innerText; return text?.includes('bit/s') && text";
    let figures = browser.until("figures are shown", figures).await;
    for words in ["768×432", "fps", "Delay", "Loss", "H.264", "UDP to 127.0.0.1"] {
        assert!(figures.as_str().unwrap().contains(words), "{figures}");
    }
    browser.press(&['s']).await;
    browser.until("figures are gone", "return document.querySelector('#stats').hidden").await;
    browser.until("there is sound", "return !document.querySelector('#sound').hidden").await;
    browser.press(&['m']).await;
    browser
        .until(
            "sound is on",
            "return !document.querySelector('video').muted && document.querySelector('#sound').ariaPressed === 'true'",
        )
        .await;
    browser.press(&['m']).await;
    browser.until("sound is off", "return document.querySelector('video').muted").await;
    browser.press(&['f']).await;
    browser.until("full screen", "return document.fullscreenElement?.id === 'stage'").await;
    browser.press(&['f']).await;
    browser.until("no full screen", "return !document.fullscreenElement").await;

    browser.run("document.querySelector('[value=sub]').click()", &[]).await;
    let (device, sub) = house.app().bus().stream("street/sub").unwrap();
    crate::support::until("the second stream is watched", || sub.demand.count() > 0).await;
    plays_on(&browser, 0, 10).await;
    let snapshot = browser.run("return document.querySelector('#snapshot').href", &[]).await;
    assert_eq!(snapshot, house.url("/v1/cameras/street/snapshot.jpg?stream=sub"));
    let watching = || device.viewers.webrtc.load(std::sync::atomic::Ordering::Relaxed);
    crate::support::until("the main stream is not any more", || watching() == 1).await;

    let addresses = browser.run("return document.querySelector('#addresses').innerText", &[]).await;
    let addresses = addresses.as_str().unwrap();
    let rtsp = house.app().addresses().rtsp[0];
    for address in [
        format!("rtsp://{rtsp}/street"),
        format!("rtsp://{rtsp}/street/sub"),
        house.url("/v1/cameras/street/snapshot.jpg"),
        house.url("/v1/cameras/street/snapshot.jpg?stream=sub"),
    ] {
        assert!(addresses.contains(&address), "{address} in {addresses}");
    }

    browser.press(&[LEFT]).await;
    browser
        .until(
            "the camera before",
            "return location.pathname === '/camera/hall' && document.querySelector('#after:not([hidden])')",
        )
        .await;
    browser.press(&[RIGHT]).await;
    browser
        .until(
            "and after",
            "return location.pathname === '/camera/street' && document.querySelector('#after:not([hidden])')",
        )
        .await;
    browser.press(&[ESCAPE]).await;
    browser
        .until("the wall", "return location.pathname === '/' && document.querySelectorAll('.moving').length === 2")
        .await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

/// The picture is shown in the shape that the camera means.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portraits_and_oblong_pixels_have_their_shape() {
    let portrait = Film { width: 240, height: 320, ..Film::default() }.shoot().await;
    // 4:3 to 16:9, as anamorphic cameras send it.
    let oblong = Film {
        video: "-vf setsar=4/3 -c:v libx264 -preset ultrafast -bf 0 -g 100 -profile:v baseline",
        ..Film::default()
    };
    let oblong = oblong.shoot().await;
    for (film, shape) in [(portrait, 3.0 / 4.0), (oblong, 16.0 / 9.0)] {
        let house = House::playing(&film.path()).await;
        let browser = Browser::start().await;
        for page in ["/camera/porch", "/"] {
            browser.open(&house.url(page)).await;
            browser.until("the camera moves", "return document.querySelector('.moving') !== null").await;
            let seen = "const { width, height } = document.querySelector('video').getBoundingClientRect(); return width / height";
            let seen = browser.run(seen, &[]).await.as_f64().unwrap();
            assert!((seen - shape).abs() < 0.02, "{page} shows {seen} instead of {shape}");
        }
        browser.close().await;
    }
}

/// Whose second stream is silent, and what remains of a camera that is taken out of the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_second_stream_and_a_camera_that_is_removed() {
    let loud = Film { audio: Some("-c:a aac -b:a 64k -ac 1"), ..Film::default() }.shoot().await;
    let silent = Film::default().shoot().await;
    let [main, sub] = [clip(Footage::File(loud.path())).await, clip(Footage::File(silent.path())).await];
    let house = House::of(vec![("porch", Options { sub: Some(sub), ..Options::new(main) })]).await;
    let browser = Browser::start().await;
    browser.open(&house.url("/camera/porch")).await;
    browser.until("there is sound", "return !document.querySelector('#sound').hidden").await;
    browser.run("document.querySelector('[value=sub]').click()", &[]).await;
    browser.until("there is none", "return document.querySelector('#sound').hidden").await;
    browser.run("document.querySelector('[value=main]').click()", &[]).await;
    browser.until("there is sound", "return !document.querySelector('#sound').hidden").await;
    house.app().bus().remove("porch");
    browser.until("it is gone", "return !document.querySelector('#missing').hidden").await;
    assert_eq!(browser.run("return document.querySelector('#state').hidden", &[]).await, true);
    browser.close().await;
}
