//! A whole camera, watched by retina.

use super::*;
use futures::StreamExt;
use retina::client::{
    Credentials, Demuxed, PlayOptions, Session, SessionOptions, SetupOptions, Transport, UdpTransportOptions,
};
use retina::codec::{CodecItem, FrameFormat, VideoFrame};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What hangs for longer is broken.
const PATIENCE: Duration = Duration::from_secs(20);

fn clip(footage: Footage) -> Arc<Clip> {
    Clip::load(&footage, Video::AsIs, Audio::AsIs).unwrap()
}

fn login() -> Login {
    Login { user: "viewer".into(), password: "s3cret".into() }
}

async fn describe(url: &str, creds: Option<Login>) -> Result<Session<retina::client::Described>, retina::Error> {
    let creds = creds.map(|l| Credentials { username: l.user, password: l.password });
    let options = SessionOptions::default().creds(creds);
    timeout(PATIENCE, Session::describe(url.parse().unwrap(), options)).await.expect("an answer to DESCRIBE")
}

async fn play(url: &str, creds: Option<Login>, transport: Transport) -> Result<Demuxed, retina::Error> {
    let mut session = describe(url, creds).await?;
    for track in 0..session.streams().len() {
        let setup = SetupOptions::default().transport(transport.clone()).frame_format(FrameFormat::SIMPLE);
        session.setup(track, setup).await?;
    }
    session.play(PlayOptions::default()).await?.demuxed()
}

async fn tcp(camera: &Camera) -> Demuxed {
    play(&camera.url(), None, Transport::default()).await.unwrap()
}

async fn item(session: &mut Demuxed) -> Option<Result<CodecItem, retina::Error>> {
    timeout(PATIENCE, session.next()).await.expect("media or an end")
}

/// The next `count` pictures.
async fn pictures(session: &mut Demuxed, count: usize) -> Vec<VideoFrame> {
    let mut pictures = Vec::new();
    while pictures.len() < count {
        if let CodecItem::VideoFrame(picture) = item(session).await.expect("no end").unwrap() {
            pictures.push(picture);
        }
    }
    pictures
}

fn seconds(picture: &VideoFrame) -> f64 {
    picture.timestamp().elapsed_secs()
}

async fn until(camera: &Camera, what: impl FnMut(&Counters) -> bool) -> Counters {
    *timeout(PATIENCE, camera.watch().wait_for(what)).await.expect("a change in time").unwrap()
}

#[tokio::test]
async fn plays_b_frames_with_true_timestamps() {
    let camera = Camera::start(Options::new(clip(Footage::Visitors))).unwrap();
    let mut session = tcp(&camera).await;
    let pictures = pictures(&mut session, 25).await;
    assert!(pictures.iter().any(VideoFrame::is_random_access_point));
    let mut times: Vec<f64> = pictures.iter().map(seconds).collect();
    assert!(!times.is_sorted(), "B-frames go back");
    times.sort_by(f64::total_cmp);
    // What was sent before the first picture in decode order may be missing at the start, and what follows at the end.
    for pair in times[2..23].windows(2) {
        assert!((pair[1] - pair[0] - 0.1).abs() < 0.001, "{times:?}");
    }
}

#[tokio::test]
async fn plays_main_with_audio_and_sub_on_every_spelling() {
    let options = Options { sub: Some(clip(Footage::Visitors)), ..Options::new(clip(Footage::Street)) };
    let camera = Camera::start(options).unwrap();
    for ending in ["", "/", "?transportmode=unicast", "/?transportmode=unicast&profile=Profile_1"] {
        for (url, tracks) in [(camera.url(), 2), (camera.sub_url().unwrap(), 1)] {
            let mut session = play(&format!("{url}{ending}"), None, Transport::default()).await.unwrap();
            let (mut video, mut audio) = (0, 0);
            while video < 2 || (tracks == 2 && audio < 3) {
                match item(&mut session).await.unwrap().unwrap() {
                    CodecItem::VideoFrame(_) => video += 1,
                    CodecItem::AudioFrame(_) => audio += 1,
                    _ => {}
                }
            }
            assert_eq!(audio > 0, tracks == 2, "{url}{ending}");
        }
    }
    let missing = describe(&camera.url().replace("101", "103"), None).await.err().unwrap();
    assert!(missing.to_string().contains("404"), "{missing}");
}

#[tokio::test]
async fn plays_over_udp() {
    let camera = Camera::start(Options::new(clip(Footage::Visitors))).unwrap();
    let udp = Transport::Udp(UdpTransportOptions::default());
    let mut session = play(&camera.url(), None, udp).await.unwrap();
    pictures(&mut session, 5).await;
}

#[tokio::test]
async fn all_clients_see_the_same_live_picture() {
    let camera = Camera::start(Options::new(clip(Footage::Visitors))).unwrap();
    let mut one = tcp(&camera).await;
    pictures(&mut one, 3).await;
    let mut two = play(&format!("{}/?who=two", camera.url()), None, Transport::default()).await.unwrap();
    let (first, second) = tokio::join!(pictures(&mut one, 12), pictures(&mut two, 12));
    let newest = second.last().unwrap().data();
    assert!(first.iter().any(|p| p.data() == newest) || second.iter().any(|p| p.data() == first[11].data()));
}

#[tokio::test]
async fn lets_in_who_knows_the_password() {
    let options = Options { login: Some(login()), ..Options::new(clip(Footage::Visitors)) };
    let camera = Camera::start(options).unwrap();
    assert!(describe(&camera.url(), Some(login())).await.is_ok());
    for creds in [None, Some(Login { password: "wrong".into(), ..login() })] {
        let error = describe(&camera.url(), creds).await.err().unwrap();
        assert!(error.to_string().contains("401") || error.to_string().contains("redentials"), "{error}");
    }
    let counters = camera.counters();
    assert_eq!((counters.describes, counters.accepted), (1, 3));
    // The head of a 401 and Basic, as a client without Digest sends it.
    let answer = ask(&camera, "DESCRIBE", "").await;
    assert!(answer.starts_with("RTSP/1.0 401") && answer.contains("WWW-Authenticate: Digest realm="), "{answer}");
    assert!(answer.contains("WWW-Authenticate: Basic realm="), "{answer}");
    let answer = ask(&camera, "DESCRIBE", "Authorization: Basic dmlld2VyOnMzY3JldA==\r\n").await;
    assert!(answer.starts_with("RTSP/1.0 200"), "{answer}");
}

/// One request on a connection of its own, and the head of its answer.
async fn ask(camera: &Camera, method: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(camera.address()).await.unwrap();
    let request = format!("{method} {} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n", camera.url());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut bytes = [0; 2048];
        let count = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer").unwrap();
        assert_ne!(count, 0, "closed instead of answered");
        answer.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_fourth_client_is_refused_until_one_leaves() {
    let visitors = clip(Footage::Visitors);
    for (refuse, login) in [(Refuse::Describe, Some(login())), (Refuse::Describe, None), (Refuse::Setup, None)] {
        let camera = Camera::start(Options {
            sub: Some(visitors.clone()),
            max_clients: Some(3),
            refuse,
            login: login.clone(),
            ..Options::new(visitors.clone())
        })
        .unwrap();
        let main = camera.url();
        let sub = camera.sub_url().unwrap();
        let mut watching = Vec::new();
        for url in [&main, &main, &sub] {
            watching.push(play(url, login.clone(), Transport::default()).await.unwrap());
        }
        for url in [&main, &sub] {
            let error = play(url, login.clone(), Transport::default()).await.err().unwrap();
            assert!(error.to_string().contains("453"), "{error}");
        }
        let counters = camera.counters();
        assert_eq!((counters.clients, counters.plays, counters.refused), (3, 3, 2), "{refuse:?}");
        drop(watching.pop());
        until(&camera, |c| c.clients == 2).await;
        pictures(&mut play(&main, login.clone(), Transport::default()).await.unwrap(), 2).await;
        assert_eq!(camera.counters().plays, 4);
    }
}

#[tokio::test]
async fn the_fourth_connection_can_be_closed_at_once() {
    let options = Options { max_clients: Some(3), refuse: Refuse::Close, ..Options::new(clip(Footage::Visitors)) };
    let camera = Camera::start(options).unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(camera.address()).await.unwrap());
    }
    until(&camera, |c| c.clients == 3).await;
    let mut fourth = TcpStream::connect(camera.address()).await.unwrap();
    let end = timeout(PATIENCE, fourth.read(&mut [0; 1])).await.expect("closed at once");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let counters = until(&camera, |c| c.open == 3).await;
    assert_eq!((counters.accepted, counters.refused), (4, 1));
    drop(open);
    until(&camera, |c| c.open == 0 && c.clients == 0).await;
}

#[tokio::test]
async fn a_stalled_camera_is_silent_and_still_answers() {
    let camera = Camera::start(Options::new(clip(Footage::Visitors))).unwrap();
    let mut session = tcp(&camera).await;
    pictures(&mut session, 3).await;
    camera.faults().stall(true);
    // What is on its way arrives; then nothing does for ten pictures' time.
    while timeout(Duration::from_secs(1), session.next()).await.is_ok() {}
    assert_eq!(camera.counters().open, 1);
    assert!(describe(&camera.url(), None).await.is_ok());
    camera.faults().stall(false);
    pictures(&mut session, 3).await;
}

#[tokio::test]
async fn who_comes_during_a_stall_gets_an_answer_and_no_picture() {
    let camera = Camera::start(Options::new(clip(Footage::Visitors))).unwrap();
    camera.faults().stall(true);
    let mut session = tcp(&camera).await;
    let mut count = 0;
    while timeout(Duration::from_secs(1), session.next()).await.is_ok() {
        count += 1;
        assert!(count < 20, "no silence");
    }
    camera.faults().stall(false);
    pictures(&mut session, 3).await;
}

#[tokio::test]
async fn many_who_come_at_once_all_get_the_next_key_picture() {
    let camera = Camera::start(Options::new(clip(Footage::Visitors))).unwrap();
    let camera = &camera;
    let sessions = futures::future::join_all((0..8).map(|_| tcp(camera))).await;
    let watched = sessions.into_iter().map(|mut session| async move {
        // The GOP is ten pictures long.
        pictures(&mut session, 12).await.iter().filter(|p| p.is_random_access_point()).count()
    });
    let keys = futures::future::join_all(watched).await;
    assert!(keys.iter().all(|keys| *keys > 0), "{keys:?}");
    let counters = camera.counters();
    assert_eq!((counters.peak, counters.plays), (8, 8));
}

#[tokio::test]
async fn stalls_by_itself_and_recovers_with_a_new_client() {
    let faults = Faults { stall_after: Some(Duration::from_millis(500)), ..Faults::default() };
    let camera = Camera::start(Options { faults, ..Options::new(clip(Footage::Visitors)) }).unwrap();
    for _ in 0..2 {
        let mut session = tcp(&camera).await;
        pictures(&mut session, 2).await;
        let begin = Instant::now();
        while timeout(Duration::from_secs(1), session.next()).await.is_ok() {
            assert!(begin.elapsed() < PATIENCE, "never silent");
        }
        drop(session);
        until(&camera, |c| c.open == 0).await;
    }
}

#[tokio::test]
async fn loses_whole_pictures() {
    let faults = Faults { drop_every: Some(4), ..Faults::default() };
    let camera = Camera::start(Options { faults, ..Options::new(clip(Footage::Street)) }).unwrap();
    let mut session = tcp(&camera).await;
    let pictures = pictures(&mut session, 14).await;
    let lost: u32 = pictures.iter().map(|p| u32::from(p.loss())).sum();
    assert!(lost > 0, "retina sees the gap in the sequence numbers");
    let doubled = pictures.windows(2).filter(|p| (seconds(&p[1]) - seconds(&p[0]) - 0.16).abs() < 0.001).count();
    assert!((3..=5).contains(&doubled), "every fourth picture is missing, {doubled} gaps");
}

#[tokio::test]
async fn timestamps_jump_when_asked() {
    let camera = Camera::start(Options::new(clip(Footage::Street))).unwrap();
    let mut session = tcp(&camera).await;
    pictures(&mut session, 3).await;
    for by_ms in [600_000, -1_200_000] {
        let before = seconds(&pictures(&mut session, 1).await[0]);
        camera.faults().jump(by_ms);
        let after = seconds(&pictures(&mut session, 3).await[2]);
        let moved = after - before;
        assert!((moved - by_ms as f64 / 1000.0).abs() < 5.0, "moved by {moved} s");
    }
}

#[tokio::test]
async fn h265_and_jpeg_are_played() {
    for (video, name) in [(Video::H265, "h265"), (Video::Jpeg, "jpeg")] {
        let camera = Camera::start(Options::new(Clip::load(&Footage::Street, video, Audio::Pcma).unwrap())).unwrap();
        let session = describe(&camera.url(), None).await.unwrap();
        let names: Vec<_> = session.streams().iter().map(|s| s.encoding_name().to_owned()).collect();
        assert_eq!(names, [name, "pcma"]);
        pictures(&mut tcp(&camera).await, 3).await;
    }
}

#[tokio::test]
async fn dies_at_once_and_returns_on_the_same_port() {
    let visitors = clip(Footage::Visitors);
    let mut listen = "127.0.0.1:0".parse().unwrap();
    for _ in 0..4 {
        let camera = Camera::start(Options { listen, ..Options::new(visitors.clone()) }).unwrap();
        listen = camera.address();
        let mut session = tcp(&camera).await;
        pictures(&mut session, 1).await;
        let mut idle = TcpStream::connect(listen).await.unwrap();
        until(&camera, |c| c.open == 2).await;
        drop(camera);
        assert!(TcpStream::connect(listen).await.is_err(), "nobody listens any more");
        while let Some(Ok(_)) = item(&mut session).await {}
        let end = timeout(PATIENCE, idle.read(&mut [0; 1])).await.expect("closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

#[tokio::test]
async fn dies_in_the_middle_of_anything() {
    let visitors = clip(Footage::Visitors);
    let mut listen = "127.0.0.1:0".parse().unwrap();
    for step in 0..20 {
        let camera = Camera::start(Options { listen, ..Options::new(visitors.clone()) }).unwrap();
        listen = camera.address();
        let watch = |url: String| async move {
            let mut session = play(&url, None, Transport::default()).await?;
            while let Some(item) = item(&mut session).await {
                item?;
            }
            Ok::<_, retina::Error>(())
        };
        let clients: Vec<_> = (0..3).map(|_| tokio::spawn(watch(camera.url()))).collect();
        // Not a wait for anything: the moment at which the power goes, from before the first request to after PLAY.
        tokio::time::sleep(Duration::from_millis(step * 4)).await;
        tokio::task::spawn_blocking(move || drop(camera)).await.unwrap();
        for client in clients {
            // However it ends, with an error or the end of the stream, it ends.
            let _ = timeout(PATIENCE, client).await.expect("no client hangs").unwrap();
        }
    }
}

#[tokio::test]
async fn counts_what_it_sees() {
    let camera = Camera::start(Options::new(clip(Footage::Street))).unwrap();
    assert_eq!(camera.counters(), Counters::default());
    let mut session = tcp(&camera).await;
    pictures(&mut session, 1).await;
    let c = camera.counters();
    assert_eq!((c.accepted, c.open, c.peak, c.clients), (1, 1, 1, 1));
    assert_eq!((c.asked, c.describes, c.setups, c.plays, c.refused), (1, 1, 2, 1, 0));
    drop(session);
    let c = until(&camera, |c| c.open == 0).await;
    assert_eq!((c.accepted, c.peak, c.clients), (1, 1, 0));
}

#[test]
fn a_taken_port_is_named() {
    let visitors = clip(Footage::Visitors);
    let camera = Camera::start(Options::new(visitors.clone())).unwrap();
    let error = Camera::start(Options { listen: camera.address(), ..Options::new(visitors) }).unwrap_err();
    assert!(matches!(&error, SimulateError::Bind { listen, .. } if *listen == camera.address()), "{error}");
}
