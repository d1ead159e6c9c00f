//! Between the gateway and the browser: a proxy with a path of its own, and who may watch.

use super::camera::MOVES;
use super::house::{House, demo};
use super::{plays_on, proxy, shows_something};
use crate::players::footage::Film;
use crate::support::chromium::Browser;
use fanlight::access::password;
use fanlight::simulate::rtsp::Footage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_path_prefix() {
    let house = House::of(demo().await).await;
    let proxy = proxy::start("/api/hassio_ingress/abc", house.address()).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{proxy}/api/hassio_ingress/abc/")).await;
    browser.until("both cameras move", "return document.querySelectorAll('.moving').length === 2").await;
    browser.click("[data-name=street] .name a").await;
    browser.until("one camera moves", MOVES).await;
    assert_eq!(browser.address().await, format!("http://{proxy}/api/hassio_ingress/abc/camera/street"));
    plays_on(&browser, 0, 20).await;
    shows_something(&browser, "video").await;
    let addresses = browser.run("return document.querySelector('#addresses').innerText", &[]).await;
    let snapshot = format!("http://{proxy}/api/hassio_ingress/abc/v1/cameras/street/snapshot.jpg");
    assert!(addresses.as_str().unwrap().contains(&snapshot), "{addresses}");
    let (device, _) = house.app().bus().stream("street").unwrap();
    let watching = || device.viewers.webrtc.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(watching(), 1, "the viewer of the wall has said goodbye");
    browser.click("#back").await;
    browser.until("the wall", "return document.querySelectorAll('.tile').length === 2").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_in_and_out() {
    let reel = Film::default().shoot().await;
    let hash = tokio::task::spawn_blocking(|| password::hash("open sesame").unwrap()).await.unwrap();
    let users = format!(
        "users: [{{ name: ada, role: viewer, password_hash: \"{hash}\", stream_key: a-key-of-24-characters-1 }}]"
    );
    let cameras = vec![("porch", super::house::footage(Footage::File(reel.path())).await)];
    let house = House::with(&users, cameras, "").await;
    let browser = Browser::start().await;
    browser.open(&house.url("/camera/porch")).await;
    browser.until("the sign-in page", "return document.querySelector('input[type=password]') !== null").await;
    browser.screenshot("sign-in").await;
    browser.write("#name", "ada").await;
    browser.write("#password", "open sesame\u{e007}").await;
    browser.until("the camera moves", MOVES).await;
    // That a page was refused is told on the console; nothing may be after that.
    browser.console().await;
    plays_on(&browser, 0, 20).await;
    let user = browser.until("who is signed in", "return document.querySelector('#user').textContent").await;
    assert_eq!(user, "ada");
    let addresses = browser.run("return document.body.innerText", &[]).await;
    let rtsp = house.app().addresses().rtsp[0];
    assert!(addresses.as_str().unwrap().contains(&format!("rtsp://ada@{rtsp}/porch")), "{addresses}");
    assert!(!addresses.as_str().unwrap().contains("a-key-of"), "{addresses}");
    assert_eq!(browser.console().await, Vec::<String>::new());

    // The session ends elsewhere: the page notices and asks again.
    browser.run("fetch('../v1/session', { method: 'DELETE' })", &[]).await;
    browser.until("the sign-in page", "return document.querySelector('input[type=password]') !== null").await;
    browser.write("#name", "ada").await;
    browser.write("#password", "open sesame\u{e007}").await;
    browser.until("the camera moves", MOVES).await;
    browser.click("#sign-out").await;
    browser.until("the sign-in page", "return document.querySelector('input[type=password]') !== null").await;
    browser.close().await;
}
