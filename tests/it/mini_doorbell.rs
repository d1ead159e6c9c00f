//! Mini doorbells before a whole gateway: simulated units, and connections that are none.

mod mischief;
mod network;
mod storm;
mod strangers;

use crate::support::{PATIENCE, until};
use bytes::Bytes;
use fanlight::app::{App, Options};
use fanlight::bus::{Bus, Event, EventKind, Told};
use fanlight::config;
use fanlight::ingest::mini_doorbell::BellId;
use fanlight::ingest::mini_doorbell::wire::{Carrier, Header, function};
use fanlight::ingest::{Rotation, jpeg};
use fanlight::simulate::mini_doorbell::{Bell, Outcome, corners};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A gateway with doorbells.
struct House {
    file: NamedTempFile,
    app: App,
    told: Listener,
}

/// The `n`th bell.
fn id(n: u8) -> BellId {
    BellId([0, 0xff, 2, 0, 0, 0, n, 0])
}

impl House {
    /// With that below `mini_doorbell:` and `cameras:`.
    async fn start(section: &str, cameras: &str) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        write!(file, "{}", text(section, cameras)).unwrap();
        let config = config::load(file.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let app = App::start(config, Options::default()).await.unwrap();
        let told = Listener::new(app.bus());
        Self { file, app, told }
    }

    async fn reload(&mut self, section: &str, cameras: &str) {
        std::fs::write(self.file.path(), text(section, cameras)).unwrap();
        let config = config::load(self.file.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        self.app.reload(config).await;
    }

    fn door(&self) -> SocketAddr {
        self.app.addresses().mini_doorbell[0]
    }

    fn http(&self) -> SocketAddr {
        self.app.addresses().http[0]
    }

    /// A unit without faults, which does not look into the kernel's tables.
    fn bell(&self, n: u8) -> Bell {
        Bell { acknowledged: false, ..Bell::new(self.door(), id(n)) }
    }

    /// The picture of an event.
    fn picture(&self, event: &Event) -> Option<Bytes> {
        self.app.bus().events.picture(event.id).map(|(_, picture)| picture)
    }
}

fn text(section: &str, cameras: &str) -> String {
    format!(
        "http: {{ listen: \"127.0.0.1:0\" }}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\n\
         webrtc: {{ listen: \"127.0.0.1:0\" }}\nauth: none\n\
         mini_doorbell: {{ listen: \"127.0.0.1:0\", {section} }}\ncameras:\n{cameras}"
    )
}

/// Everything that is told of rings: visitors, alarms, and new doorbells.
struct Listener {
    events: Arc<Mutex<Vec<Told>>>,
    _guard: DropGuard,
}

impl Listener {
    fn new(bus: &Arc<Bus>) -> Self {
        let (_, mut live) = bus.events.since(None);
        let (events, cancel) = (Arc::<Mutex<Vec<Told>>>::default(), CancellationToken::new());
        let into = Arc::clone(&events);
        tokio::spawn(cancel.clone().run_until_cancelled_owned(async move {
            loop {
                let told = live.recv().await.unwrap();
                if !matches!(told.event().kind, EventKind::Online | EventKind::Offline) {
                    into.lock().unwrap().push(told);
                }
            }
        }));
        Self { events, _guard: cancel.drop_guard() }
    }

    /// New events so far.
    fn new_ones(&self) -> Vec<Arc<Event>> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|told| matches!(told, Told::New(_))).map(|told| Arc::clone(told.event())).collect()
    }

    /// New events of that bell.
    fn of(&self, id: BellId) -> Vec<Arc<Event>> {
        let id = id.to_string();
        let of = |event: &Event| ["bell", "id"].iter().any(|key| event.detail.get(*key).is_some_and(|of| *of == id));
        self.new_ones().into_iter().filter(|event| of(event)).collect()
    }

    /// Waits for the first event of that bell.
    async fn first_of(&self, id: BellId) -> Arc<Event> {
        until("the bell is heard", || !self.of(id).is_empty()).await;
        self.of(id).remove(0)
    }
}

/// The colours of the four corners in reading order, each part 0 or 1.
fn corners_of(picture: &[u8]) -> [[u8; 3]; 4] {
    let image = turbojpeg::decompress(picture, turbojpeg::PixelFormat::RGB).unwrap();
    let at = |x: usize, y: usize| {
        let from = y * image.pitch + x * 3;
        let pixel: [u8; 3] = image.pixels[from..from + 3].try_into().unwrap();
        pixel.map(|part| part / 128)
    };
    let (right, bottom) = (image.width - 20, image.height - 20);
    [at(20, 20), at(right, 20), at(20, bottom), at(right, bottom)]
}

const UPRIGHT: [[u8; 3]; 4] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]];

/// An upload as one stream of bytes.
fn upload(id: BellId, kind: u8, sequence: u16, picture: &[u8]) -> Vec<u8> {
    let header = Header::new(id, kind, sequence, picture.len() as u16).write(Carrier::Tcp);
    [&header[..], picture].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_is_a_visitor_with_its_picture_the_right_way_up() {
    let cameras = format!("  front: {{ source: \"mini-doorbell://{}\" }}\n", id(1));
    let house = House::start("unknown: deny", &cameras).await;
    let sent = corners(1).unwrap();
    assert_eq!(corners_of(&sent), [UPRIGHT[3], UPRIGHT[2], UPRIGHT[1], UPRIGHT[0]], "units send upside down");
    let mut bell = Bell::new(house.door(), id(1));
    assert_eq!(bell.ring(function::VISITOR, &sent).await, Outcome::Sent(1));
    let event = house.told.first_of(id(1)).await;
    assert_eq!((event.device.as_str(), &event.kind), ("front", &EventKind::Visitor));
    assert_eq!((&event.detail["image_ok"], &event.detail["function"]), (&true.into(), &1.into()));
    let picture = house.picture(&event).unwrap();
    assert_eq!(corners_of(&picture), UPRIGHT);
    // Without loss: half a turn more, and it is what the unit sent, byte for byte.
    let again = jpeg::check(picture.clone(), Rotation::Half).unwrap();
    assert_eq!((again.bytes, again.treatment), (sent, jpeg::Treatment::Lossless));

    let mut socket = TcpStream::connect(house.http()).await.unwrap();
    let request = b"GET /v1/cameras/front/snapshot.jpg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer).await.unwrap();
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer[body..], picture[..], "the snapshot is that picture");
    assert_eq!(house.app.bus().device("front").unwrap().main().totals().frames, 1);
    house.app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_does_not_wait_for_fin_and_functions_have_their_kinds() {
    let house = House::start("", "  any: { source: \"mini-doorbell://\" }\n").await;
    let mut open = Vec::new();
    let kinds = [EventKind::Visitor, EventKind::Alarm, EventKind::Other("unknown".into())];
    for (n, (function, kind)) in [function::VISITOR, function::WARNING, 0x40].into_iter().zip(kinds).enumerate() {
        let mut socket = TcpStream::connect(house.door()).await.unwrap();
        let n = n as u8;
        socket.write_all(&upload(id(n), function, 42, &corners(n.into()).unwrap())).await.unwrap();
        open.push(socket);
        let event = house.told.first_of(id(n)).await;
        assert_eq!((event.device.as_str(), &event.kind), ("any", &kind));
        assert_eq!(event.detail["function"], function);
        assert!(event.picture.is_some());
    }
    assert_eq!(house.told.new_ones().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_picture_is_a_visitor_whose_bytes_can_be_fetched() {
    let house = House::start("", "  any: { source: \"mini-doorbell://\" }\n").await;
    // Radio packets that were lost unnoticed: the rest closes up, and the end of an older picture follows.
    let mut damaged = corners(1).unwrap().to_vec();
    let middle = damaged.len() / 2;
    let tail = damaged[damaged.len() - 30..].to_vec();
    damaged.drain(middle..middle + 30);
    damaged.extend(tail);
    assert_eq!(house.bell(1).ring(function::VISITOR, &damaged).await, Outcome::Sent(1));
    let event = house.told.first_of(id(1)).await;
    assert_eq!((&event.kind, event.detail["bytes"].as_u64()), (&EventKind::Visitor, Some(damaged.len() as u64)));
    assert_eq!(event.detail["image_ok"], false);
    let (status, kept) = strangers::get(house.http(), event.detail["upload"].as_str().unwrap()).await;
    assert_eq!((status, kept == damaged), (200, true));
    // The beginning, which is the lower end once it is turned, can be seen.
    assert_eq!(corners_of(&house.picture(&event).unwrap())[2..], UPRIGHT[2..]);
    // No picture at all.
    for (n, body) in [(2, &b""[..]), (3, b"\xff\xd8\xff\xd9"), (4, b"no picture")] {
        assert_eq!(house.bell(n).ring(function::VISITOR, body).await, Outcome::Sent(1));
        let event = house.told.first_of(id(n)).await;
        assert_eq!((event.picture, &event.detail["image_ok"]), (None, &false.into()));
    }
    let (_, kept) = strangers::get(house.http(), &format!("/v1/mini-doorbell/damaged/{}", id(4))).await;
    assert_eq!(kept, b"no picture");
    assert_eq!(strangers::get(house.http(), &format!("/v1/mini-doorbell/damaged/{}", id(2))).await.0, 404);
    // A whole picture with something behind it is a picture.
    let padded = [&corners(5).unwrap()[..], &[0; 300]].concat();
    assert_eq!(house.bell(5).ring(function::VISITOR, &padded).await, Outcome::Sent(1));
    assert!(house.told.first_of(id(5)).await.picture.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_listens_where_there_is_no_bell_and_a_taken_port_is_named() {
    let text = "http: { listen: \"127.0.0.1:0\" }\nrtsp: { listen: \"127.0.0.1:0\", udp_ports: 0 }\n\
                webrtc: { listen: \"127.0.0.1:0\" }\nauth: none\n";
    let load = |text: String| {
        let mut file = NamedTempFile::new().unwrap();
        write!(file, "{text}").unwrap();
        config::load(file.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    };
    let app = App::start(load(text.to_owned()), Options::default()).await.unwrap();
    assert!(app.addresses().mini_doorbell.is_empty());
    app.stop().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = load(format!("{text}mini_doorbell: {{ listen: \"127.0.0.1:{port}\" }}\n"));
    let error = tokio::time::timeout(PATIENCE, App::start(config, Options::default())).await.unwrap().unwrap_err();
    assert!(error.to_string().contains(&format!("port {port} of `mini_doorbell: listen`")), "{error}");
}
