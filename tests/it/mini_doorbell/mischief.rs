//! What must be survived without a visitor, and what must give exactly one.

use super::{House, UPRIGHT, corners_of, id, upload};
use crate::support::until;
use fanlight::bus::EventKind;
use fanlight::ingest::mini_doorbell::wire::function;
use fanlight::simulate::mini_doorbell::{Bell, Fault, Outcome, corners};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ANY: &str = "  any: { source: \"mini-doorbell://\" }\n";

/// Sends parts, each in a segment of its own as far as that can be asked for, and FIN; waits until the server has closed.
async fn send(house: &House, parts: impl Iterator<Item = &[u8]>) {
    let mut socket = TcpStream::connect(house.door()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for part in parts {
        socket.write_all(part).await.unwrap();
    }
    socket.shutdown().await.unwrap();
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0, "the server never says anything");
}

/// Once this has rung, and has been waited for as a torn one, nothing that came before can still become a visitor.
async fn settled(house: &House, n: u8) {
    let mut last = Bell { fault: Fault::Truncated, ..house.bell(n) };
    last.ring(function::VISITOR, &corners(n.into()).unwrap()).await;
    let event = house.told.first_of(id(n)).await;
    assert_eq!(event.detail["image_ok"], false, "a torn picture is a visitor still");
    assert_eq!(corners_of(&house.picture(&event).unwrap())[3], UPRIGHT[3], "what came of it can be seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn these_are_no_visitors() {
    let house = House::start("", ANY).await;
    let good = upload(id(1), function::VISITOR, 1, b"\xff\xd8\xff\xd9");
    let noise: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let http = b"GET / HTTP/1.1\r\nHost: doorbell\r\n\r\n";
    for bytes in [&b""[..], b"\x55\x66", &good[..36], http, &noise] {
        send(&house, std::iter::once(bytes)).await;
    }
    for fault in [Fault::Empty, Fault::Garbage, Fault::Http] {
        let mut bell = Bell { fault, ..house.bell(2) };
        assert_eq!(bell.ring(function::VISITOR, b"").await, Outcome::Sent(1), "{fault:?} is read to its end");
    }
    settled(&house, 3).await;
    assert_eq!(house.told.new_ones().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn these_are_one_visitor_each() {
    let house = House::start("", ANY).await;
    let pictures: Vec<_> = (0..5).map(|n| corners(n).unwrap()).collect();
    // In one piece; a byte a piece; cut anywhere in the header.
    send(&house, std::iter::once(&upload(id(0), function::VISITOR, 1, &pictures[0])[..])).await;
    send(&house, upload(id(1), function::VISITOR, 1, &pictures[1]).chunks(1)).await;
    for cut in 1..=37 {
        let bytes = upload(id(100 + cut), function::VISITOR, 1, &pictures[2]);
        let (start, rest) = bytes.split_at(cut.into());
        send(&house, [start, rest].into_iter()).await;
    }
    // RST at 70 % and a whole second attempt 50 ms later.
    let mut torn = Bell { fault: Fault::Reset, ..house.bell(3) };
    assert_eq!(torn.ring(function::VISITOR, &pictures[3]).await, Outcome::Sent(2));
    // The same upload twice.
    let mut twice = house.bell(4);
    for _ in 0..2 {
        assert_eq!(twice.ring(function::VISITOR, &pictures[4]).await, Outcome::Sent(1));
    }
    settled(&house, 5).await;
    for n in [0, 1, 3, 4].into_iter().chain(101..=137) {
        let events = house.told.of(id(n));
        assert_eq!(events.len(), 1, "bell {n}");
        assert!(events[0].kind == EventKind::Visitor && events[0].picture.is_some(), "bell {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_over_the_limit_comes_through_on_its_retry_and_is_one_visitor() {
    let house = House::start("", ANY).await;
    let here = Ipv4Addr::new(127, 0, 41, 1);
    let mut held = Vec::new();
    for _ in 0..4 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((here, 0).into()).unwrap();
        held.push(socket.connect(house.door()).await.unwrap());
    }
    let bell = Bell { source: Some(here.into()), ..house.bell(1) };
    let picture = corners(1).unwrap();
    assert_eq!(Bell { attempts: 1, ..bell.clone() }.ring(function::VISITOR, &picture).await, Outcome::GaveUp);
    assert_eq!(Bell { source: None, ..house.bell(2) }.ring(function::VISITOR, &picture).await, Outcome::Sent(1));
    let ringing = tokio::spawn(async move { Bell { attempts: 1_000, ..bell }.ring(function::VISITOR, &picture).await });
    drop(held);
    assert!(matches!(ringing.await.unwrap(), Outcome::Sent(_)));
    house.told.first_of(id(1)).await;
    settled(&house, 3).await;
    assert_eq!(house.told.of(id(1)).len(), 1);
}

/// What the simulator reports of servers that a real unit could not bear.
#[tokio::test]
async fn the_simulated_unit_tells_what_a_server_did_to_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let bell = Bell::new(listener.local_addr().unwrap(), id(1));
    let picture = corners(1).unwrap();
    let rings = |bell: &Bell| {
        let (mut bell, picture) = (bell.clone(), picture.clone());
        tokio::spawn(async move { bell.ring(function::VISITOR, &picture).await })
    };
    // Polite in the middle of an upload.
    let ringing = rings(&Bell { rate: Some(100), ..bell.clone() });
    let (mut socket, _) = listener.accept().await.unwrap();
    socket.read_exact(&mut [0; 20]).await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(ringing.await.unwrap(), Outcome::Wedged);
    drop(socket);
    // Reset each time: six attempts, each with another sequence.
    let ringing = rings(&bell);
    let mut sequences = Vec::new();
    for _ in 0..6 {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut header = [0; 37];
        socket.read_exact(&mut header).await.unwrap();
        sequences.push([header[31], header[32]]);
        // Unread bytes make it a reset.
        drop(socket);
    }
    assert_eq!(ringing.await.unwrap(), Outcome::GaveUp);
    sequences.dedup();
    assert_eq!(sequences.len(), 6);
    assert!(tokio::time::timeout(Duration::from_millis(1), listener.accept()).await.is_err(), "no seventh");
}

/// An upload that is under way when the gateway stops is reset, so that the unit brings it to whoever comes next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_wedges_nobody() {
    let house = House::start("", ANY).await;
    let mut bell = Bell { rate: Some(200), attempts: 1, ..house.bell(1) };
    let ringing = tokio::spawn(async move { bell.ring(function::VISITOR, &corners(1).unwrap()).await });
    until("the upload is under way", || house.app.bells().most_held() > 0).await;
    house.app.stop().await;
    assert_eq!(ringing.await.unwrap(), Outcome::GaveUp);
}
