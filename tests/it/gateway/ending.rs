//! How the program ends: in time, with a goodbye, and with the exit code that says why.

use super::process::{PROGRAM, Process};
use super::{CameraOptions, OPEN, camera_at, options, seen, start, visitors};
use crate::support::camera::{Act, Camera as Scripted, Options as Script};
use crate::support::rtsp_client::Client;
use crate::support::until;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;

/// From the signal to the end.
const IN_TIME: Duration = Duration::from_secs(5);

/// A viewer that reads nothing after PLAY.
async fn stalled(server: SocketAddr, path: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut client = Client::on(socket.connect(server).await.unwrap(), server, path);
    client.play().await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_in_time_and_says_goodbye() {
    for signal in ["TERM", "INT"] {
        let camera = start(|| CameraOptions { max_clients: Some(1), ..options(visitors, "127.0.1.8:0") }).await;
        // A picture each millisecond, for the viewer that takes none, and deaf to any goodbye.
        let interval = Duration::from_millis(1);
        let acts = vec![Act::Hang("TEARDOWN")];
        let deaf = Scripted::start(Script { acts, interval, ..Script::default() }).await;
        let mute = Scripted::start(Script { acts: vec![Act::Hang("DESCRIBE")], ..Script::default() }).await;
        let config = format!(
            "{OPEN}  front: {{ source: \"{}\" }}\n  deaf: {{ source: \"{}\" }}\n  mute: {{ source: \"{}\" }}\n  \
             away: {{ source: \"rtsp://127.0.1.8:9/live\" }}\n",
            camera.url(),
            deaf.url(),
            mute.url()
        );
        let mut process = Process::start(&config, |_, _| {}).await;
        // Plays to the end; answers whether it was told goodbye (RTCP BYE, RFC 3550 section 6.6).
        let mut playing = Client::connect(process.rtsp(), "front").await;
        playing.play().await;
        playing.rtp(0).await;
        let playing = tokio::spawn(async move {
            let mut goodbye = false;
            while let Some((channel, packet)) = playing.frame_or_end().await {
                goodbye = channel == 1 && packet.windows(2).any(|bytes| bytes == [0x81, 203]);
            }
            goodbye
        });
        let _stalled = stalled(process.rtsp(), "deaf").await;
        let bytes = async || camera_at(process.http(), "deaf", "").await["bytes"].as_u64().unwrap();
        let before = bytes().await;
        // Far more than all buffers on the way hold.
        while bytes().await < before + 1_000_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (_asked, _knocks) =
            (Client::connect(process.rtsp(), "front").await, Client::connect(process.http(), "").await);

        process.signal(signal);
        let sent = Instant::now();
        let status = process.ends().await;
        assert!(sent.elapsed() < IN_TIME, "ended after {:?}", sent.elapsed());
        assert_eq!(status.code(), Some(0));
        assert!(playing.await.unwrap(), "no RTCP BYE");
        let counters = seen(&camera, "it is left", |counters| counters.open == 0).await;
        assert_eq!((counters.teardowns, counters.accepted), (1, 1));
        assert_eq!(deaf.seen.count("TEARDOWN"), 1);
        until("the other camera is left", || mute.seen.open.load(SeqCst) == 0).await;
        assert_eq!(process.lines("ERROR", ""), [""; 0]);
        assert_eq!(process.lines("INFO", "stopped").len(), 1, "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_leaves_at_once() {
    let deaf = Scripted::start(Script { acts: vec![Act::Hang("TEARDOWN")], ..Script::default() }).await;
    let config = format!("{OPEN}  deaf: {{ source: \"{}\" }}\n", deaf.url());
    let mut process = Process::start(&config, |_, _| {}).await;
    process.camera("deaf", "", |camera| camera["state"] == "online").await;
    process.signal("TERM");
    until("the camera is told goodbye", || deaf.seen.count("TEARDOWN") == 1).await;
    process.signal("TERM");
    assert_eq!(process.ends().await.code(), Some(0));
    assert_eq!(
        (process.lines("INFO", "stopping").len(), process.lines("ERROR", "").len()),
        (1, 0),
        "{}",
        process.log()
    );
    assert_eq!(process.lines("INFO", " stopped").len(), 0, "it did not wait for the goodbye: {}", process.log());
}

fn fanlight(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let config = "http: { listen: nowhere }\nauth: maybe\ncameras:\n  Front: { source: rtsp://127.0.1.8/ }\n";
    std::fs::write(folder.path().join("wrong.yaml"), config).unwrap();
    std::fs::write(folder.path().join("right.yaml"), OPEN.replace("cameras:\n", "")).unwrap();
    Command::new(PROGRAM).args(arguments).current_dir(folder.path()).env_remove("RUST_LOG").output().unwrap()
}

#[test]
fn exit_codes_tell_why() {
    for arguments in [["check", "--config", "wrong.yaml"], ["run", "--config", "wrong.yaml"]] {
        let output = fanlight(&arguments);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        for place in ["wrong.yaml:1:17: ", "wrong.yaml:2:7: ", "wrong.yaml:4:3: "] {
            assert!(text.contains(place), "{place} in {text}");
        }
        assert!(text.contains("http: { listen: nowhere }"), "the line is shown: {text}");
    }
    assert_eq!(fanlight(&["run", "--config", "missing.yaml"]).status.code(), Some(1));
    assert_eq!(fanlight(&["check", "--config", "right.yaml"]).status.code(), Some(0));
    for wrong in [&["run", "--colour"][..], &["walk"], &[], &["run", "--config"]] {
        assert_eq!(fanlight(wrong).status.code(), Some(2), "{wrong:?}");
    }
    // The addresses cannot be told to whoever waits for them, so there is no use in running.
    let output = fanlight(&["run", "--config", "right.yaml", "--ports-file", "no/such/folder/ports.json"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no/such/folder/ports.json"), "{text}");
}

#[tokio::test]
async fn the_ports_file_tells_what_is_bound() {
    let config = OPEN.replace("listen: \"127.0.0.1:0\"", "listen: [\"127.0.0.1:0\", \"127.0.0.2:0\"]");
    let mut process = Process::start(&config.replace("cameras:\n", ""), |_, _| {}).await;
    let ports = std::fs::read(process.folder.path().join("ports.json")).unwrap();
    let ports: serde_json::Value = serde_json::from_slice(&ports).unwrap();
    for key in ["http", "rtsp", "webrtc"] {
        let addresses = ports[key].as_array().unwrap();
        assert_eq!(addresses.len(), 2);
        for (address, host) in addresses.iter().zip(["127.0.0.1", "127.0.0.2"]) {
            let address: SocketAddr = address.as_str().unwrap().parse().unwrap();
            assert_eq!(address.ip().to_string(), host);
            std::net::TcpStream::connect(address).unwrap();
        }
    }
    for pair in ports["rtsp_udp_ports"].as_array().unwrap() {
        let (rtp, rtcp) = (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap());
        assert!(rtp % 2 == 0 && rtcp == rtp + 1, "{ports}");
    }
    process.signal("TERM");
    assert_eq!(process.ends().await.code(), Some(0));
}
