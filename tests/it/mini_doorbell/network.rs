//! The units' side over UDP.

use super::{House, id};
use crate::support::until;
use fanlight::bus::Bus;
use fanlight::config::{Announce, Unknown};
use fanlight::ingest::mini_doorbell::{Config, Options as ServerOptions, Server, discover};
use fanlight::ingest::{Plan, Source};
use fanlight::simulate::mini_doorbell::{Bell, Doorbells, Options, corners};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Units that hear those who look for them, on an address of their own.
fn units(server: SocketAddr, last: u8, register: Option<SocketAddr>) -> Doorbells {
    let bell = Bell { acknowledged: false, ..Bell::new(server, id(1)) };
    let options = Options {
        bell,
        count: 2,
        control: Some((Ipv4Addr::new(127, 0, 43, last), 0).into()),
        register,
        register_every: Duration::from_millis(50),
        ..Options::new(server)
    };
    Doorbells::start(options, vec![corners(1).unwrap(), corners(2).unwrap()]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_found_and_told_where_to_upload_to() {
    let house = House::start("unknown: learn", "").await;
    // They believe in a server that is not there; the port is theirs for good.
    let port = house.door().port();
    let units = units(SocketAddr::from(([127, 0, 43, 200], port)), 1, None);
    let control = units.control().unwrap();
    let mut found = discover(control, Duration::from_millis(600)).await.unwrap();
    found.sort_by_key(|unit| unit.id);
    let ids: Vec<_> = found.iter().map(|unit| unit.id).collect();
    assert_eq!((ids.as_slice(), found[0].address), (units.ids(), control.ip()));

    let bus = Bus::new();
    let plan = Plan::new("", Source::MiniDoorbell(Config::default()));
    let options = ServerOptions { control, announce_every: Duration::from_millis(50), ..ServerOptions::default() };
    let server = Server::new(&bus, plan, Unknown::Learn, options);
    let cancel = CancellationToken::new();
    let announcing = tokio::spawn(Arc::clone(&server).announce(Announce::Auto, cancel.clone()));
    let mut counters = units.watch();
    // Told again and again, because a unit that restarts forgets.
    counters.wait_for(|counters| counters.redirected >= 4).await.unwrap();
    cancel.cancel();
    announcing.await.unwrap();
    units.press(0);
    assert_eq!(house.told.first_of(id(1)).await.detail["id"], id(1).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_no_camera_names_are_not_redirected_where_strangers_are_denied() {
    let units = units(([127, 0, 43, 200], 9).into(), 2, None);
    let plan = Plan::new("", Source::MiniDoorbell(Config::default()));
    let (control, every) = (units.control().unwrap(), Duration::from_millis(20));
    let options = ServerOptions { control, announce_every: every, ..ServerOptions::default() };
    let server = Server::new(&Bus::new(), plan, Unknown::Deny, options);
    let announce = Announce::Address(Ipv4Addr::new(192, 0, 2, 1));
    let cancel = CancellationToken::new();
    let announcing = tokio::spawn(Arc::clone(&server).announce(announce, cancel.clone()));
    let mut counters = units.watch();
    counters.wait_for(|counters| counters.queries >= 6).await.unwrap();
    assert_eq!(units.counters().redirected, 0);
    cancel.cancel();
    announcing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_are_never_answered() {
    let camera = format!("  front: {{ source: \"mini-doorbell://{}\" }}\n", id(1));
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = free.local_addr().unwrap();
    drop(free);
    let house = House::start(&format!("presence: \"{port}\""), &camera).await;
    // A registration of our own, and an ear for an answer.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let frame = fanlight::ingest::mini_doorbell::wire::Header::new(id(1), 0xfb, 0, 0);
    let frame = frame.write(fanlight::ingest::mini_doorbell::wire::Carrier::Udp);
    for junk in [&b""[..], b"\x55\xaa", &[0xff; 1_400]] {
        socket.send_to(junk, port).await.unwrap();
    }
    socket.send_to(&frame, port).await.unwrap();
    let units = units(house.door(), 3, Some(port));
    units.press(0);
    house.told.first_of(id(1)).await;
    until("the gateway runs still", || house.app.bus().device("front").is_some()).await;
    assert!(socket.try_recv(&mut [0; 64]).is_err(), "nobody answers");
}
