//! How soon the first picture is there, and how late pictures are. Measured and printed; `make bench` has the targets.

use super::camera::MOVES;
use super::house::House;
use crate::players::footage::Film;
use crate::support::chromium::Browser;
use serde_json::json;

/// Opens a second viewer in the page, and three seconds later tells how many pictures it is behind the first: the
/// median of 30 looks at both.
const BEHIND: &str = "
    const [length, done] = arguments;
    const early = document.querySelector('video');
    const late = document.createElement('video');
    Object.assign(late, { muted: true, autoplay: true });
    document.body.append(late);
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [192, 16];
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const number = (video) => {
        context.drawImage(video, 0, 0, 192, 16, 0, 0, 192, 16);
        const line = context.getImageData(0, 8, 192, 1).data;
        return Array.from({ length: 12 }, (_, bit) => line[(bit * 16 + 8) * 4 + 1] > 127 ? 2 ** (11 - bit) : 0)
            .reduce((sum, value) => sum + value);
    };
    import(new URL('../assets/js/player.js', location.href)).then(({ Player }) => {
        const player = new Player(late, new URL('../whep/porch', location.href).href);
        const begin = performance.now();
        let first = null;
        player.addEventListener('picture', () => {
            first ??= performance.now() - begin;
            setTimeout(() => {
                const looks = [];
                const timer = setInterval(() => {
                    const behind = (number(early) - number(late) + length) % length;
                    looks.push(behind > length / 2 ? behind - length : behind);
                    if (looks.length < 30) return;
                    clearInterval(timer);
                    player.stop();
                    late.remove();
                    looks.sort((a, b) => a - b);
                    done([first, looks[15]]);
                }, 33);
            }, 3000);
        }, { once: true });
        player.start();
    });";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_pictures_and_delay() {
    let film = Film::default();
    let (length, rate) = (film.pictures, film.rate);
    let reel = film.shoot().await;
    let house = House::playing(&reel.path()).await;
    let browser = Browser::start().await;
    let mut loads = Vec::new();
    for _ in 0..5 {
        browser.open(&house.url("/camera/porch")).await;
        browser.until("the camera moves", MOVES).await;
        let mark = browser.run("return performance.getEntriesByName('first picture')[0].startTime", &[]).await;
        loads.push(mark.as_f64().unwrap());
    }
    let (mut starts, mut behind) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let measured = browser.wait(BEHIND, &[json!(length)]).await;
        starts.push(measured[0].as_f64().unwrap());
        behind.push(measured[1].as_f64().unwrap() * 1000.0 / f64::from(rate));
    }
    println!("first picture after loading the page: {loads:.0?} ms; after asking for it: {starts:.0?} ms");
    println!("later than an earlier viewer, three seconds after joining: {behind:.0?} ms");
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}
