//! Ways to the viewer: TCP, restarts, candidates by hand, both IP versions, garbage.

use super::{Gateway, Relay};
use crate::support::whep_viewer::{Viewer, Wishes};
use fanlight::config::{Candidate, Host};
use fanlight::republish::webrtc::{IceCredentials, Options};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

fn candidates(answer: &str) -> Vec<&str> {
    answer.lines().filter_map(|line| line.strip_prefix("a=candidate:")).collect()
}

#[tokio::test]
async fn all_candidates_are_in_the_answer_udp_before_tcp() {
    let options = Options {
        candidates: vec![Candidate { host: Host::Ip("203.0.113.7".parse().unwrap()), port: Some(40_000) }],
        ..Options::default()
    };
    let gateway = Gateway::with(options, "127.0.0.1:0");
    let camera = gateway.camera("porch", false);
    let viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.create(&viewer, &camera.device);
    let port = gateway.address.port();
    let answer = session.answer();
    let found = candidates(answer);
    assert_eq!(found.len(), 4, "{answer}");
    assert!(found[0].contains(&format!("udp 2130706431 127.0.0.1 {port} typ host")), "{answer}");
    assert!(found[1].contains("203.0.113.7 40000 typ host"), "{answer}");
    assert!(found[2].contains(&format!("127.0.0.1 {port} typ host tcptype passive")), "{answer}");
    assert!(answer.contains("a=ice-lite") && answer.contains("a=end-of-candidates") && answer.contains("a=sendonly"));
    // Read again: newcomers are told others.
    gateway.server.reload(Vec::new(), Vec::new());
    assert_eq!(candidates(gateway.create(&viewer, &camera.device).answer()).len(), 2);
}

#[tokio::test]
async fn a_viewer_behind_a_router_comes_by_the_candidate_made_by_hand() {
    let gateway = Gateway::start();
    let relay = Relay::start(gateway.address, 0).await;
    let ip = relay.address.ip();
    gateway.server.reload(vec![Candidate { host: Host::Ip(ip), port: Some(relay.address.port()) }], Vec::new());
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.create(&viewer, &camera.device);
    viewer.answer(&relay.redirect(session.answer())).await;
    viewer.video().await;
    assert!(relay.carried() > 5);
}

#[tokio::test]
async fn a_viewer_without_udp_comes_by_tcp() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", true);
    camera.pictures(5);
    let camera = camera.run();
    let mut viewer = Viewer::new(Wishes { tcp: true, audio: true, ..Wishes::default() }).await;
    gateway.view(&viewer, &camera.device).await;
    let mut before: Option<u16> = None;
    for _ in 0..200 {
        let seq = viewer.video().await.header.sequence_number;
        assert!(before.is_none_or(|before| seq == before.wrapping_add(1)), "nothing is lost over TCP");
        before = Some(seq);
    }
}

#[tokio::test]
async fn a_viewer_comes_over_ipv6_and_over_ipv4_to_the_same_socket() {
    let gateway = Gateway::with(Options::default(), "[::]:0");
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut viewer = Viewer::new(Wishes { address, ..Wishes::default() }).await;
        gateway.view(&viewer, &camera.device).await;
        viewer.video().await;
    }
}

#[tokio::test]
async fn media_goes_on_over_an_ice_restart() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch", false);
    camera.pictures(5);
    let camera = camera.run();
    let mut viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.view(&viewer, &camera.device).await;
    viewer.video().await;
    for _ in 0..2 {
        viewer.restart().await;
        let credentials = viewer.parsed().ice;
        let fragment = session.restart(&credentials).await.unwrap();
        let ours = fragment.ice.as_ref().unwrap();
        assert!(!session.answer().contains(&ours.ufrag));
        assert!(!fragment.candidates.is_empty() && fragment.end_of_candidates);
        viewer.answer(&renewed(session.answer(), ours)).await;
        let mut seqs = Vec::new();
        while seqs.len() < 200 {
            seqs.push(viewer.video().await.header.sequence_number);
        }
        assert!(!session.closed().is_cancelled());
    }
}

/// The answer with other credentials, as a player makes it from a fragment.
fn renewed(answer: &str, ice: &IceCredentials) -> String {
    let line = |line: &str| match line.split_once(':') {
        Some(("a=ice-ufrag", _)) => format!("a=ice-ufrag:{}\r\n", ice.ufrag),
        Some(("a=ice-pwd", _)) => format!("a=ice-pwd:{}\r\n", ice.pwd),
        _ => format!("{line}\r\n"),
    };
    answer.lines().map(line).collect()
}

#[tokio::test]
async fn strangers_get_no_answer() {
    let gateway = Gateway::start();
    let camera = gateway.camera("porch", false);
    let viewer = Viewer::new(Wishes::default()).await;
    let session = gateway.create(&viewer, &camera.device);
    let ufrag = session.answer().lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().to_owned();
    let name = format!("{ufrag}:abcd");
    let mut known =
        vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 6, 0, name.len() as u8];
    known.extend_from_slice(name.as_bytes());
    known.resize(known.len().next_multiple_of(4), 0);
    known[3] = (known.len() - 20) as u8;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let garbage: [&[u8]; 5] = [b"", b"hello", &[22, 254, 253, 0], &[0x80; 1_200], &known];
    for datagram in garbage {
        socket.send_to(datagram, gateway.address).await.unwrap();
    }
    let mut buffer = [0; 100];
    let answered = tokio::time::timeout(Duration::from_millis(300), socket.recv_from(&mut buffer)).await;
    assert!(answered.is_err(), "{answered:?}");
    // Over TCP the connection is closed, at the latest when it has said nothing for long.
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut all)).await.expect("closed");
    assert!(all.is_empty());
    assert!(!session.closed().is_cancelled());
}
