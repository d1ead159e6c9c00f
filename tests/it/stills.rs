//! Cameras that send a picture now and then, as streams that can be opened at any time.

use crate::gateway::{Gateway, get, quick};
use crate::support::PATIENCE;
use fanlight::app::Options;
use fanlight::bus::{KeyPicture, Stream};
use fanlight::media::{Codec, jpeg};
use fanlight::simulate::iwfcam::Scene;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CAMERA: &str = "  gate:\n    source: \"push:\"\n";

async fn push(http: SocketAddr, picture: &[u8]) -> u16 {
    let mut socket = TcpStream::connect(http).await.unwrap();
    let head = format!(
        "POST /v1/cameras/gate/push HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/jpeg\r\n\
         Content-Length: {}\r\n\r\n",
        picture.len()
    );
    socket.write_all(&[head.as_bytes(), picture].concat()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
}

fn stream(gateway: &Gateway) -> Arc<Stream> {
    let (_, stream) = gateway.app.bus().stream("gate").expect("it is configured");
    stream
}

async fn newest(stream: &Stream, what: &str, fits: impl Fn(&KeyPicture) -> bool) -> KeyPicture {
    let look = async {
        loop {
            match stream.newest_key().filter(&fits) {
                Some(newest) => return newest,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("in vain until {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_without_a_picture_shows_its_name_and_then_the_picture_for_as_long_as_need_be() {
    let options = || Options { pace: quick(), ..Options::default() };
    let mut gateway = Gateway::start(CAMERA, options()).await;
    let stream = stream(&gateway);
    let card = newest(&stream, "there is a card", |newest| newest.card).await;
    let read = jpeg::parse(&card.unit.payload).unwrap();
    assert_eq!((read.width, read.height), (640, 480));
    // Home Assistant wants a picture when a camera is set up, whoever has rung by then.
    assert_eq!(get_status(gateway.http(), "/v1/cameras/gate/snapshot.jpg").await, 200);
    let told = gateway.camera("gate").await;
    assert_eq!((&told["state"], &told["frames"]), (&"online".into(), &0.into()), "{told}");
    assert!(told["last_frame_age_ms"].is_null(), "{told}");

    let picture = Scene::bars(320, 240, 1).unwrap().picture(7);
    let status = push(gateway.http(), &picture).await;
    assert!((200..300).contains(&status), "{status}");
    let first = newest(&stream, "the picture is there", |newest| !newest.card).await;
    assert_eq!(first.unit.payload, picture);

    // Nobody watches: a second later nobody starts at what was.
    let begin = std::time::Instant::now();
    while stream.can_start() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        let ready = timeout(PATIENCE, stream.ready()).await.expect("at once for who comes");
        assert!(ready);
        let mut reader = stream.subscribe(fanlight::bus::Want::Video);
        let mut last = None;
        for _ in 0..2 {
            let (_, unit) = timeout(PATIENCE, reader.next()).await.expect("a unit a second").unwrap();
            assert!(unit.payload == picture && unit.info.codec == Codec::Jpeg && unit.random_access);
            assert!(last.is_none_or(|last| unit.pts > last));
            last = Some(unit.pts);
        }
    }
    let told = gateway.camera("gate").await;
    assert_eq!((&told["frames"], &told["tracks"][0]["fps"]), (&1.into(), &0.0.into()), "{told}");
    let again = stream.newest_key().unwrap();
    assert_eq!((again.picture, again.received), (first.picture, first.received), "repeats are nothing new");
    assert!(again.number > first.number);

    // The configuration is read again, with something changed: the picture stays.
    gateway.reload("  gate:\n    source: { push: { token: abc } }\n").await;
    let kept = self::stream(&gateway).newest_key().unwrap();
    assert_eq!((kept.card, &kept.unit.payload), (false, &again.unit.payload));
}

async fn get_status(http: SocketAddr, path: &str) -> u16 {
    let mut socket = TcpStream::connect(http).await.unwrap();
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_changes_nothing() {
    let gateway = Gateway::start(CAMERA, Options { pace: quick(), ..Options::default() }).await;
    let stream = stream(&gateway);
    newest(&stream, "there is a card", |newest| newest.card).await;
    let picture = Scene::bars(320, 240, 1).unwrap().picture(7);
    assert!((400..500).contains(&push(gateway.http(), b"hello").await));
    assert!((400..500).contains(&push(gateway.http(), &picture[..picture.len() / 2]).await));
    assert!(stream.newest_key().unwrap().card);
    let (status, _) = get(gateway.http(), "/v1/cameras/gate", "").await;
    assert_eq!((status, stream.totals().frames), (200, 0));
}
