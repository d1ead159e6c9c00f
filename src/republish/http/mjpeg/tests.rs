use super::super::scale::tests::{halves, size};
use super::super::tests::{Gateway, gateway, gateway_with, options, testing};
use super::*;
use crate::access::{Access, Auth};
use crate::bus::State as DeviceState;
use crate::media::{AccessUnit, Format, MediaTime, TrackInfo, VideoFormat};
use axum::body::BodyDataStream;
use futures::StreamExt;

const SOON: Duration = Duration::from_secs(20);

fn track(codec: Codec) -> TrackInfo {
    TrackInfo { codec, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) }
}

/// The camera sends a picture that wide.
fn publish(stream: &Stream, codec: Codec, width: usize) {
    let time = stream.latest().unwrap_or(MediaTime::START) + Duration::from_millis(40);
    let id = stream.announce(&[track(codec)])[0];
    let (info, payload) = (Arc::new(track(codec)), halves(width, 48).into());
    let (random_access, discontinuity) = (true, false);
    stream.publish(id, AccessUnit { pts: time, dts: time, random_access, discontinuity, info, payload });
}

/// Reads parts as a browser does.
struct Reader {
    body: BodyDataStream,
    read: Vec<u8>,
}

async fn open(gateway: &Gateway, query: &str) -> Reader {
    let path = format!("/v1/cameras/front/mjpeg{query}");
    let answer = gateway.open("GET", &path, &[("authorization", testing::VIEWER)]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], MEDIA_TYPE);
    Reader { body: answer.into_body().into_data_stream(), read: Vec::new() }
}

impl Reader {
    async fn more(&mut self) -> bool {
        let chunk = tokio::time::timeout(SOON, self.body.next()).await.expect("something to read");
        let more = chunk.is_some();
        self.read.extend(chunk.into_iter().flat_map(Result::unwrap));
        more
    }

    /// The next picture, up to the boundary after it; its header fields before it.
    async fn part(&mut self) -> Option<(String, Vec<u8>)> {
        if self.read.is_empty() && !self.more().await {
            return None;
        }
        if self.read.starts_with(b"--fanlight\r\n") {
            self.read.drain(..12);
        }
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(field("Content-Type: "), "image/jpeg");
        let length: usize = field("Content-Length: ").parse().unwrap();
        while self.read.len() < length + BOUNDARY.len() {
            assert!(self.more().await);
        }
        let picture = self.read.drain(..length).collect();
        assert!(self.read.starts_with(BOUNDARY), "the end is told at once");
        self.read.drain(..BOUNDARY.len());
        Some((head, picture))
    }

    async fn width(&mut self) -> usize {
        size(&self.part().await.expect("a picture").1).0
    }
}

fn watching(gateway: &Gateway) -> usize {
    gateway.front().viewers.mjpeg.load(Ordering::Relaxed)
}

#[tokio::test]
async fn it_begins_with_the_newest_picture_and_a_slow_reader_skips() {
    let gateway = gateway();
    let front = gateway.front();
    publish(front.main(), Codec::Jpeg, 100);
    publish(front.main(), Codec::Jpeg, 101);
    let mut reader = open(&gateway, "").await;
    assert_eq!((watching(&gateway), front.main().demand.count()), (1, 1));
    let (head, picture) = reader.part().await.unwrap();
    assert_eq!(picture, halves(101, 48));
    let at = head.lines().find_map(|line| line.strip_prefix("X-Timestamp: ")).unwrap().parse::<f64>().unwrap();
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..=now).contains(&at), "{at}");
    publish(front.main(), Codec::Jpeg, 102);
    assert_eq!(reader.width().await, 102);
    for width in 103..200 {
        publish(front.main(), Codec::Jpeg, width);
    }
    assert_eq!(reader.width().await, 199, "those between are skipped");
    drop(reader);
    assert_eq!((watching(&gateway), front.main().demand.count()), (0, 0));
}

/// As hyper does with a socket that takes nothing: it holds what it got, and asks for more.
#[tokio::test]
async fn no_picture_is_begun_before_the_one_before_it_is_written() {
    let gateway = gateway();
    let front = gateway.front();
    publish(front.main(), Codec::Jpeg, 100);
    let mut reader = open(&gateway, "").await;
    let mut held: Vec<Bytes> = Vec::new();
    for _ in 0..4 {
        held.push(reader.body.next().await.unwrap().unwrap());
    }
    for width in 101..150 {
        publish(front.main(), Codec::Jpeg, width);
        assert!(futures::poll!(reader.body.next()).is_pending());
    }
    held.clear();
    assert_eq!(reader.width().await, 149);
}

#[tokio::test(start_paused = true)]
async fn as_many_pictures_as_asked_for_and_no_wider() {
    let gateway = gateway();
    let front = gateway.front();
    publish(front.main(), Codec::Jpeg, 640);
    let mut reader = open(&gateway, "?fps=5&width=64").await;
    let camera = tokio::spawn(async move {
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            publish(front.main(), Codec::Jpeg, 640);
        }
    });
    let begin = Instant::now();
    for _ in 0..11 {
        assert_eq!(reader.width().await, 64);
    }
    let took = begin.elapsed().as_millis();
    assert!((2_000..=2_200).contains(&took), "{took} ms for 10 pictures more");
    camera.abort();
    for wrong in ["fps=0", "fps=x", "fps=NaN", "width=5", "stream=x"] {
        gateway.get(&format!("/v1/cameras/front/mjpeg?{wrong}")).await.problem(400);
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_when_the_camera_is_back_and_ends_with_it() {
    let gateway = gateway();
    let front = gateway.front();
    publish(front.main(), Codec::Jpeg, 100);
    let mut staying = open(&gateway, "").await;
    assert_eq!(staying.width().await, 100);
    front.main().interrupt();
    front.set_status(DeviceState::Offline, None);
    // Who comes now is not shown what was before.
    let mut late = open(&gateway, "").await;
    let camera = tokio::spawn({
        let main = Arc::clone(front.main());
        async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            publish(&main, Codec::Jpeg, 101);
        }
    });
    let wait = Duration::from_secs(3599);
    assert!(tokio::time::timeout(wait, late.body.next()).await.unwrap().is_some(), "the first boundary");
    assert!(tokio::time::timeout(wait, late.body.next()).await.is_err());
    camera.await.unwrap();
    assert_eq!((staying.width().await, late.width().await), (101, 101));
    gateway.state.bus.remove("front");
    assert!(staying.part().await.is_none() && late.part().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_camera_that_was_never_there_may_come_and_one_that_nothing_decodes_is_said() {
    let gateway = gateway();
    let sub = Arc::clone(gateway.front().sub().unwrap());
    sub.announce(&[]);
    let mut reader = open(&gateway, "?stream=sub").await;
    let camera = tokio::spawn({
        let sub = Arc::clone(&sub);
        async move {
            sub.demand.wanted().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            publish(&sub, Codec::Jpeg, 100);
        }
    });
    assert_eq!(reader.width().await, 100);
    camera.await.unwrap();
    publish(&sub, Codec::Jpeg, 101);
    assert_eq!(reader.width().await, 101);
    let sound = TrackInfo { codec: Codec::Pcmu, clock_rate: 8000, format: Format::Audio(Default::default()) };
    sub.announce(&[sound]);
    gateway.get("/v1/cameras/front/mjpeg?stream=sub").await.problem(404);
}

#[tokio::test]
async fn it_ends_with_its_user_and_with_the_program() {
    let gateway = gateway();
    publish(gateway.front().main(), Codec::Jpeg, 100);
    let mut reader = open(&gateway, "").await;
    assert_eq!(reader.width().await, 100);
    gateway.state.access.replace(Auth::Users, Vec::new());
    assert!(reader.part().await.is_none());

    let gateway = gateway_with(options(), testing::users());
    publish(gateway.front().main(), Codec::Jpeg, 100);
    let mut reader = open(&gateway, "").await;
    assert_eq!(reader.width().await, 100);
    gateway.cancel.cancel();
    assert!(reader.part().await.is_none());
    assert_eq!(watching(&gateway), 0);
}

#[tokio::test]
async fn one_address_cannot_take_all() {
    let gateway = gateway_with(options(), Access::new(Auth::None, Vec::new()));
    publish(gateway.front().main(), Codec::Jpeg, 100);
    let mut readers = Vec::new();
    for _ in 0..32 {
        readers.push(open_local(&gateway).await);
    }
    assert!(readers.iter().all(|answer| answer.status() == 200));
    assert_eq!(open_local(&gateway).await.status(), 429);
    assert_eq!(watching(&gateway), 32);
    readers.pop();
    assert_eq!(open_local(&gateway).await.status(), 200);
}

async fn open_local(gateway: &Gateway) -> Response {
    gateway.open("GET", "/v1/cameras/front/mjpeg", &[("host", "localhost")]).await
}
