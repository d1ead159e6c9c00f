//! Bells that no camera names.

use super::{House, UPRIGHT, corners_of, id};
use crate::support::{http, until};
use fanlight::bus::{EventKind, State};
use fanlight::ingest::mini_doorbell::wire::function;
use fanlight::simulate::mini_doorbell::{Outcome, corners};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Status and body, which need not be text.
pub(super) async fn get(server: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut socket = TcpStream::connect(server).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_doorbell_is_shown_with_lines_to_paste_that_work() {
    let mut house = House::start("unknown: learn", "").await;
    assert_eq!(house.bell(7).ring(function::VISITOR, &corners(7).unwrap()).await, Outcome::Sent(1));
    let event = house.told.first_of(id(7)).await;
    assert_eq!((event.device.as_str(), &event.kind), ("", &EventKind::Other("new_doorbell".into())));
    assert_eq!(event.detail["id"], id(7).to_string());
    let list = http::json(house.http(), "/v1/mini-doorbell/unknown").await;
    let [new] = list["unknown"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&new["id"], &new["visits"]), (&id(7).to_string().into(), &1.into()));
    assert!(new["first_seen"].as_str().unwrap().ends_with('Z'));
    let (status, picture) = get(house.http(), new["picture"].as_str().unwrap()).await;
    assert_eq!((status, corners_of(&picture)), (200, UPRIGHT));

    let lines = new["config"].as_str().unwrap().to_owned();
    house.reload("unknown: learn", &lines).await;
    let name = lines.trim().split(':').next().unwrap().to_owned();
    assert_eq!(house.bell(7).ring(function::VISITOR, &corners(8).unwrap()).await, Outcome::Sent(1));
    until("it rings as a camera", || house.told.new_ones().iter().any(|event| event.device == name)).await;
    let list = http::json(house.http(), "/v1/mini-doorbell/unknown").await;
    assert_eq!(list["unknown"].as_array().unwrap().len(), 0, "it is no stranger any more");
    assert_eq!(get(house.http(), &format!("/v1/mini-doorbell/unknown/{}/picture.jpg", id(7))).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_bell_is_a_camera_until_the_configuration_names_it() {
    let mut house = House::start("unknown: accept", "").await;
    assert_eq!(house.bell(7).ring(function::VISITOR, &corners(7).unwrap()).await, Outcome::Sent(1));
    let event = house.told.first_of(id(7)).await;
    let name = format!("bell_{}", id(7));
    assert_eq!((&event.device, &event.kind), (&name, &EventKind::Visitor));
    let device = house.app.bus().device(&name).unwrap();
    device.watch_status().wait_for(|status| status.state == State::Online).await.unwrap();
    assert_eq!(house.told.of(id(7)).len(), 1);
    assert!(house.app.bus().events.is_guest(&name));

    house.reload("unknown: deny", &format!("  front: {{ source: \"mini-doorbell://{}\" }}\n", id(7))).await;
    until("its camera is gone", || house.app.bus().device(&name).is_none()).await;
    assert!(!house.app.bus().events.is_guest(&name));
    assert_eq!(house.bell(7).ring(function::VISITOR, &corners(8).unwrap()).await, Outcome::Sent(1));
    until("it rings as the camera that names it", || house.told.of(id(7)).len() == 2).await;
    assert_eq!(house.told.of(id(7))[1].device, "front");
    // Denied: read to the end, and nothing comes of it.
    assert_eq!(house.bell(8).ring(function::VISITOR, &corners(8).unwrap()).await, Outcome::Sent(1));
    assert_eq!(house.bell(7).ring(function::VISITOR, &corners(9).unwrap()).await, Outcome::Sent(1));
    until("the one that is named rings", || house.told.of(id(7)).len() == 3).await;
    assert!(house.told.of(id(8)).is_empty() && house.app.bus().device(&format!("bell_{}", id(8))).is_none());
}
