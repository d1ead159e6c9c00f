//! Ingest against a camera that misbehaves.

use crate::support::camera::{Act, Camera, EVERYTHING, METADATA, Options};
use fanlight::bus::{Bus, Device, EventKind, Reader, ReasonCode, State, Stream, TrackId, Want};
use fanlight::ingest::rtsp::{Config, Patience, Transport};
use fanlight::ingest::supervisor::Pace;
use fanlight::ingest::{Plan, Running, Source, spawn};
use fanlight::media::{AccessUnit, Codec, Kind, MediaTime, annex_b};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Long enough for a loaded machine; nothing waits for it when all is well.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Retries in milliseconds. `denied` stays at its 15 minutes.
fn quick() -> Pace {
    Pace { lost: (ms(5), ms(40)), busy: (ms(10), ms(60)), ..Pace::default() }
}

pub(crate) fn config(url: Url) -> Config {
    Config { url, sub: None, username: None, password: None, transport: Transport::Tcp }
}

pub(crate) fn plan(config: Config) -> Plan {
    Plan { pace: quick(), ..Plan::new("front", Source::Rtsp(config)) }
}

/// A gateway's part from cameras to bus.
pub(crate) struct Gateway {
    pub(crate) bus: Arc<Bus>,
    pub(crate) running: Running,
}

impl Gateway {
    pub(crate) fn start(plan: Plan) -> Self {
        let bus = Bus::new();
        let running = spawn(&bus, plan, None, &CancellationToken::new());
        Self { bus, running }
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        self.running.device()
    }

    pub(crate) fn main(&self) -> &Arc<Stream> {
        self.device().main()
    }

    pub(crate) async fn reaches(&self, state: State) {
        let mut status = self.device().watch_status();
        within("the device gets there", status.wait_for(|status| status.state == state)).await.unwrap();
    }

    pub(crate) fn told(&self, kind: EventKind) -> bool {
        self.bus.events.since(None).0.iter().any(|event| event.kind == kind)
    }

    pub(crate) async fn fails_with(&self) -> (ReasonCode, String) {
        self.reaches(State::Offline).await;
        let reason = self.device().status().reason.unwrap();
        (reason.code, reason.text)
    }

    pub(crate) async fn viewer(&self) -> Viewer {
        assert!(within("the stream starts", self.main().ready()).await);
        Viewer { reader: self.main().subscribe(Want::All), last: Default::default() }
    }
}

/// Waits for something that has to come.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain until {what}"),
    }
}

/// Waits until a condition holds that nobody announces.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(ms(2)).await;
        }
    };
    within(what, poll).await;
}

/// A reader that checks what every reader is promised.
pub(crate) struct Viewer {
    reader: Reader,
    last: std::collections::HashMap<TrackId, MediaTime>,
}

impl Viewer {
    pub(crate) async fn next(&mut self) -> (TrackId, AccessUnit) {
        let next = within("there is a unit", self.reader.next()).await;
        let (track, unit) = next.expect("the reader stays through all reconnections");
        let last = self.last.insert(track, unit.dts);
        assert!(last.is_none_or(|last| last < unit.dts), "dts {last:?} then {:?}", unit.dts);
        assert!(unit.dts <= unit.pts);
        (track, unit)
    }

    /// Reads that many pictures and answers them.
    pub(crate) async fn pictures(&mut self, count: usize) -> Vec<(TrackId, AccessUnit)> {
        let mut pictures = Vec::new();
        while pictures.len() < count {
            let (track, unit) = self.next().await;
            if unit.info.kind() == Kind::Video {
                pictures.push((track, unit));
            }
        }
        pictures
    }

    pub(crate) async fn next_discontinuity(&mut self) -> AccessUnit {
        loop {
            let (_, unit) = self.next().await;
            if unit.discontinuity && unit.info.kind() == Kind::Video {
                return unit;
            }
        }
    }
}

pub(crate) fn nal_types(unit: &AccessUnit) -> Vec<u8> {
    annex_b::nal_units(&unit.payload).map(|nal| nal[0] & 0x1f).collect()
}

#[tokio::test]
async fn many_viewers_cost_one_connection_between_two_failures() {
    let camera = Camera::start(Options { acts: vec![Act::CloseAfter(120)], ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    let mut viewers = Vec::new();
    for _ in 0..12 {
        let mut viewer = gateway.viewer().await;
        viewers.push(tokio::spawn(async move {
            let pictures = viewer.pictures(250).await;
            let tracks: Vec<_> = pictures.iter().map(|(track, _)| *track).collect();
            assert!(tracks.iter().all(|track| *track == tracks[0]), "the track stays");
            assert!(pictures.iter().any(|(_, unit)| unit.discontinuity), "a reconnection is told");
        }));
    }
    for viewer in viewers {
        viewer.await.unwrap();
    }
    let (connections, describes) = (camera.seen.connections.load(SeqCst), camera.seen.count("DESCRIBE"));
    assert!(connections >= 3, "{connections}");
    assert_eq!((connections, camera.seen.count("PLAY")), (describes, describes));
    assert_eq!(camera.seen.peak.load(SeqCst), 1);
}

#[tokio::test]
async fn pictures_come_with_what_the_bus_promises() {
    let camera = Camera::start(Options { media: EVERYTHING, ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    let mut viewer = gateway.viewer().await;
    gateway.reaches(State::Online).await;
    let pictures = viewer.pictures(60).await;
    for (_, unit) in &pictures {
        let expected: &[u8] = if unit.random_access { &[7, 8, 5] } else { &[1] };
        assert_eq!(nal_types(unit), expected);
        let video = unit.info.video().unwrap();
        assert_eq!((video.width, video.height, video.parameter_sets.len()), (192, 144, 2));
        assert_eq!(unit.pts, unit.dts, "no B pictures");
    }
    assert!(pictures[0].1.random_access);
    for pair in pictures.windows(2) {
        assert_eq!(pair[1].1.pts.nanos_since(pair[0].1.pts), 40_000_000);
    }
    let codecs: Vec<_> = gateway.main().tracks().iter().map(|(_, info)| info.codec).collect();
    assert_eq!(codecs, [Codec::H264, Codec::Pcmu]);
    loop {
        let (_, unit) = viewer.next().await;
        if unit.info.kind() == Kind::Audio {
            assert_eq!(unit.payload.len(), 320);
            break;
        }
    }
    assert_eq!(camera.seen.set_up(), ["trackID=0", "trackID=1"], "metadata and G.726 are never set up");
}

#[tokio::test]
async fn jumping_timestamps_are_a_discontinuity_and_nothing_else() {
    for by in [90_000 * 3_600, -90_000 * 3_600] {
        let camera = Camera::start(Options { acts: vec![Act::JumpAfter(40, by)], ..Options::default() }).await;
        let gateway = Gateway::start(plan(config(camera.url())));
        let mut viewer = gateway.viewer().await;
        let first = viewer.pictures(1).await.remove(0).1;
        let jump = viewer.next_discontinuity().await;
        assert!(jump.pts.saturating_since(first.pts) < Duration::from_secs(3), "{:?}", jump.pts);
        viewer.pictures(30).await;
        assert_eq!(camera.seen.connections.load(SeqCst), 1);
    }
}

#[tokio::test]
async fn an_encoder_that_starts_over_costs_a_reconnection_and_no_viewer() {
    let acts = vec![Act::StartOverAfter(60), Act::Play];
    let camera = Camera::start(Options { acts, ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    let mut viewer = gateway.viewer().await;
    let track = viewer.pictures(40).await[0].0;
    assert!(viewer.next_discontinuity().await.random_access);
    assert_eq!(viewer.pictures(40).await[0].0, track);
    assert_eq!((camera.seen.connections.load(SeqCst), camera.seen.peak.load(SeqCst)), (2, 1));
}

#[tokio::test]
async fn lost_pictures_are_counted_and_told() {
    let camera = Camera::start(Options { acts: vec![Act::LoseEvery(10)], ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    let mut viewer = gateway.viewer().await;
    viewer.next_discontinuity().await;
    viewer.pictures(60).await;
    let totals = gateway.main().totals();
    let expected = totals.frames / 9;
    assert!(totals.lost.abs_diff(expected) <= 1 + expected / 4, "{totals:?}");
    assert_eq!(camera.seen.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn refusals_become_reasons_and_the_next_attempt_succeeds() {
    use ReasonCode::{Busy, Misconfigured, Silent};
    for (act, code) in [
        (Act::Refuse("DESCRIBE", 453), Busy),
        (Act::Refuse("SETUP", 453), Busy),
        (Act::Refuse("PLAY", 503), Busy),
        (Act::Refuse("DESCRIBE", 404), Misconfigured),
        (Act::CloseAtOnce, Busy),
        (Act::CloseAt("SETUP"), Busy),
        (Act::Hang("DESCRIBE"), Busy),
        (Act::Hang("PLAY"), Busy),
        (Act::SilentAfter(0), Silent),
    ] {
        let camera = Camera::start(Options { acts: vec![act, Act::Play], ..Options::default() }).await;
        let patience = Patience { connect: ms(150), answer: ms(150), silence: ms(150), ..Patience::default() };
        // Slow enough that the reason is seen before the next attempt.
        let pace = Pace { lost: (ms(100), ms(100)), busy: (ms(100), ms(100)), ..quick() };
        let gateway = Gateway::start(Plan { patience, pace, ..plan(config(camera.url())) });
        let (told, text) = gateway.fails_with().await;
        assert_eq!(told, code, "{act:?}: {text}");
        gateway.reaches(State::Online).await;
        assert_eq!(gateway.device().status().reason, None);
        assert!(camera.seen.peak.load(SeqCst) == 1 && camera.seen.connections.load(SeqCst) >= 2, "{act:?}");
    }
}

#[tokio::test]
async fn a_camera_that_falls_silent_is_noticed_and_comes_back_for_the_same_viewers() {
    let acts = vec![Act::SilentAfter(60), Act::Play];
    let camera = Camera::start(Options { acts, ..Options::default() }).await;
    let patience = Patience { silence: ms(200), ..Patience::default() };
    let gateway = Gateway::start(Plan { patience, ..plan(config(camera.url())) });
    let mut viewer = gateway.viewer().await;
    let track = viewer.pictures(50).await[0].0;
    let unit = viewer.next_discontinuity().await;
    // It may be back before anybody looks: what is told of it stays.
    assert!(gateway.told(EventKind::Offline));
    assert!(unit.random_access, "a session starts at a key picture");
    assert_eq!(viewer.pictures(50).await[0].0, track);
    assert_eq!(camera.seen.connections.load(SeqCst), 2);
    assert_eq!(camera.seen.peak.load(SeqCst), 1);
}

#[tokio::test]
async fn sound_alone_is_no_camera() {
    let acts = vec![Act::SoundAfter(30), Act::Play];
    let camera = Camera::start(Options { acts, media: EVERYTHING, ..Options::default() }).await;
    let patience = Patience { silence: ms(100), ..Patience::default() };
    let pace = Pace { lost: (ms(100), ms(100)), ..quick() };
    let gateway = Gateway::start(Plan { patience, pace, ..plan(config(camera.url())) });
    let (code, text) = gateway.fails_with().await;
    let expected = format!("the camera at {} sends sound, but has sent no pictures for 0.4 s", camera.address);
    assert_eq!((code, text), (ReasonCode::Silent, expected));
    gateway.reaches(State::Online).await;
}

#[tokio::test]
async fn nothing_there_is_unreachable_and_nothing_usable_is_unsupported() {
    let camera = Camera::start(Options { media: METADATA, ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    assert_eq!(gateway.fails_with().await.0, ReasonCode::Unsupported);
    let url = camera.url();
    camera.kill().await;
    let gateway = Gateway::start(plan(config(url)));
    let (code, text) = gateway.fails_with().await;
    assert_eq!(code, ReasonCode::Unreachable);
    assert!(text.starts_with("nothing answers at 127.0.0.2:"), "{text}");
}

/// A listener whose queue is full answers no SYN, like a host that is gone.
#[tokio::test]
async fn a_host_that_does_not_answer_is_unreachable_and_one_that_hangs_is_busy() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.2:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let url = Url::parse(&format!("rtsp://{address}/main")).unwrap();
    let patience = Patience { connect: ms(300), answer: ms(300), ..Patience::default() };
    // The queue takes one connection, which is established, though nobody accepts it.
    let first = Gateway::start(Plan { patience, ..plan(config(url.clone())) });
    let (code, text) = first.fails_with().await;
    assert_eq!(code, ReasonCode::Busy, "{text}");
    first.running.stop().await;
    let second = Gateway::start(Plan { patience, ..plan(config(url)) });
    let (code, text) = second.fails_with().await;
    assert_eq!(code, ReasonCode::Unreachable, "{text}");
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let camera = Camera::start(Options { login: Some(("admin", "ABC@EF")), ..Options::default() }).await;
    let with_login = |login: &str| {
        let mut url = camera.url().to_string();
        url.insert_str("rtsp://".len(), login);
        plan(config(Url::parse(&url).unwrap()))
    };
    let gateway = Gateway::start(with_login("admin:hunter2@"));
    let (code, text) = gateway.fails_with().await;
    assert_eq!(code, ReasonCode::Denied);
    assert!(!text.contains("hunter2") && !text.contains("admin"), "{text}");
    // Long enough for dozens of attempts at the pace of the other reasons.
    tokio::time::sleep(ms(300)).await;
    assert_eq!(camera.seen.connections.load(SeqCst), 1);
    assert_eq!(camera.seen.count("DESCRIBE"), 2, "the challenge, and one answer");

    let gateway = Gateway::start(with_login(""));
    assert_eq!(gateway.fails_with().await.0, ReasonCode::Denied);
    let gateway = Gateway::start(with_login("admin:ABC%40EF@"));
    gateway.reaches(State::Online).await;
}

#[tokio::test]
async fn stopping_says_goodbye_and_frees_the_connection() {
    let camera = Camera::start(Options { max_clients: 1, ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    gateway.reaches(State::Online).await;
    assert_eq!(gateway.device().upstream().open(), 1);
    gateway.running.stop().await;
    assert_eq!(camera.seen.count("TEARDOWN"), 1);
    assert_eq!(gateway.device().upstream().open(), 0);
    until("the camera has noticed", || camera.seen.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn stopping_during_describe_closes_the_connection_at_once() {
    let camera = Camera::start(Options { acts: vec![Act::Hang("DESCRIBE")], ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    until("it has asked", || camera.seen.count("DESCRIBE") == 1).await;
    gateway.running.stop().await;
    assert_eq!(gateway.device().upstream().open(), 0);
    until("the camera has noticed", || camera.seen.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn main_and_sub_and_reload_never_exceed_the_limit() {
    let acts = vec![Act::CloseAfter(50), Act::CloseAfter(80), Act::CloseAfter(30)];
    let camera = Camera::start(Options { acts, max_clients: 2, ..Options::default() }).await;
    let both = Config { sub: Some(camera.sub_url()), ..config(camera.url()) };
    let gateway = Gateway::start(plan(both.clone()));
    let sub = Arc::clone(gateway.device().sub().unwrap());
    assert_eq!(gateway.device().upstream().limit(), 2);
    assert!(within("the second stream starts", sub.ready()).await);
    let mut viewer = gateway.viewer().await;
    viewer.pictures(60).await;

    let Gateway { bus, mut running } = gateway;
    for round in 0..6_usize {
        // Two connections, then one: the second stream's path is served from the main one.
        let max_connections = (round % 2 == 0).then_some(1);
        running.stop().await;
        let old = Arc::clone(running.device());
        let plan = Plan { max_connections, ..plan(both.clone()) };
        running = spawn(&bus, plan, Some(&old), &CancellationToken::new());
        viewer.pictures(60).await;
        let main_again = Arc::ptr_eq(running.device().sub().unwrap(), running.device().main());
        assert_eq!(main_again, round % 2 == 0);
        if round % 2 == 0 {
            until("one connection is left", || camera.seen.open.load(SeqCst) <= 1).await;
        }
    }
    assert_eq!(camera.seen.refused.load(SeqCst), 0);
    assert!(camera.seen.peak.load(SeqCst) <= 2);
    assert!(camera.seen.connections.load(SeqCst) > 8);
}

#[tokio::test]
async fn a_camera_that_ignores_the_goodbye_keeps_its_place_until_the_connection_is_closed() {
    let acts = vec![Act::Hang("TEARDOWN"), Act::Play];
    let camera = Camera::start(Options { acts, max_clients: 1, ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    let mut viewer = gateway.viewer().await;
    viewer.pictures(10).await;
    let Gateway { bus, running } = gateway;
    within("it stops all the same", running.stop()).await;
    let old = Arc::clone(running.device());
    assert_eq!((old.upstream().open(), camera.seen.open.load(SeqCst)), (1, 1));
    let _running = spawn(&bus, plan(config(camera.url())), Some(&old), &CancellationToken::new());
    viewer.next_discontinuity().await;
    assert_eq!((camera.seen.refused.load(SeqCst), camera.seen.peak.load(SeqCst)), (0, 1));
}

#[tokio::test]
async fn on_demand_connects_with_the_first_viewer_and_leaves_after_the_last() {
    let camera = Camera::start(Options { max_clients: 1, ..Options::default() }).await;
    let gateway = Gateway::start(Plan { on_demand: true, linger: ms(50), ..plan(config(camera.url())) });
    gateway.reaches(State::Idle).await;
    assert_eq!(camera.seen.connections.load(SeqCst), 0);
    for round in 1..=3 {
        let mut viewer = gateway.viewer().await;
        viewer.pictures(30).await;
        drop(viewer);
        gateway.reaches(State::Idle).await;
        assert_eq!(camera.seen.connections.load(SeqCst), round);
        assert_eq!(camera.seen.count("TEARDOWN"), round);
    }
    assert_eq!(camera.seen.peak.load(SeqCst), 1);
}

#[tokio::test]
async fn udp_and_auto_carry_pictures_too() {
    for (tcp, transport) in [(true, Transport::Udp), (false, Transport::Auto)] {
        let acts = vec![Act::CloseAfter(60), Act::Play];
        let camera = Camera::start(Options { acts, tcp, ..Options::default() }).await;
        let gateway = Gateway::start(plan(Config { transport, ..config(camera.url()) }));
        let mut viewer = gateway.viewer().await;
        viewer.pictures(50).await;
        viewer.next_discontinuity().await;
        viewer.pictures(20).await;
        let refused = usize::from(!tcp);
        assert_eq!(camera.seen.set_up().len(), 2 + refused, "what worked is remembered");
        assert_eq!(camera.seen.peak.load(SeqCst), 1);
        gateway.running.stop().await;
    }
    let camera = Camera::start(Options { tcp: false, ..Options::default() }).await;
    let gateway = Gateway::start(plan(config(camera.url())));
    assert_eq!(gateway.fails_with().await.0, ReasonCode::Misconfigured);
}

#[tokio::test]
async fn a_camera_without_key_pictures_starts_all_the_same() {
    let sets = "m=video 0 RTP/AVP 96\r\na=control:trackID=0\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LADKYRDBOwEQAAAwABAAADADIPFCoRgA==,aMhCAhLI\r\n";
    let camera = Camera::start(Options { acts: vec![Act::NoKeys], media: sets, ..Options::default() }).await;
    let patience = Patience { key: ms(300), ..Patience::default() };
    let gateway = Gateway::start(Plan { patience, ..plan(config(camera.url())) });
    let mut viewer = gateway.viewer().await;
    let pictures = viewer.pictures(30).await;
    assert_eq!(nal_types(&pictures[0].1), [7, 8, 1]);
    assert!(pictures[1..].iter().all(|(_, unit)| !unit.random_access), "it is done once");
    assert!(gateway.main().totals().frames >= 30);
}

/// The camera dies at different moments of its sessions and comes back, again and again.
#[tokio::test]
async fn twenty_kills_and_never_stuck() {
    let camera = Camera::start(Options::default()).await;
    let (address, seen, url) = (camera.address, Arc::clone(&camera.seen), camera.url());
    camera.kill().await;
    let patience = Patience { connect: ms(300), answer: ms(300), silence: ms(500), ..Patience::default() };
    let gateway = Gateway::start(Plan { patience, ..plan(config(url)) });
    gateway.reaches(State::Offline).await;
    let start = async |acts: Vec<Act>| {
        Camera::start_at(address, Options { acts, max_clients: 1, ..Options::default() }, Arc::clone(&seen)).await
    };
    // Before the first connection ever succeeded: it hangs, refuses and closes at every stage.
    let stages = ["DESCRIBE", "SETUP", "PLAY"];
    for round in 0..6 {
        let act = if round % 2 == 0 { Act::Hang(stages[round / 2]) } else { Act::CloseAt(stages[round / 2]) };
        let (camera, asked) = (start(vec![act]).await, seen.count(stages[round / 2]));
        until("it asks", || seen.count(stages[round / 2]) > asked).await;
        camera.kill().await;
    }
    assert!(!gateway.main().can_start());
    // And then in the middle of pictures, and in the middle of asking again.
    let mut viewer = None;
    for round in 0..14 {
        let acts = if round % 3 == 2 { vec![Act::Hang(stages[round % 2]), Act::Play] } else { vec![Act::Play] };
        let camera = start(acts).await;
        if viewer.is_none() {
            viewer = Some(gateway.viewer().await);
        } else if let Some(viewer) = &mut viewer {
            let unit = viewer.next_discontinuity().await;
            assert!(unit.random_access);
        }
        let viewer = viewer.as_mut().unwrap();
        viewer.pictures(1 + 7 * (round % 5)).await;
        camera.kill().await;
        // What was read before the kill.
        while tokio::time::timeout(ms(20), viewer.reader.next()).await.is_ok() {}
    }
    assert_eq!((seen.refused.load(SeqCst), seen.peak.load(SeqCst)), (0, 1));
    until("the last connection counts no more", || gateway.device().upstream().open() == 0).await;
    let track = gateway.main().tracks();
    assert_eq!((track.len(), track[0].0), (1, TrackId(1)), "one track all along");
    gateway.running.stop().await;
    drop(gateway.bus);
}
