//! Two hundred bells at once, not all of them well.

use super::{House, id};
use crate::support::{PATIENCE, http, until};
use fanlight::bus::EventKind;
use fanlight::ingest::mini_doorbell::wire::function;
use fanlight::simulate::mini_doorbell::{Bell, Fault, Outcome, corners};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What the server may hold of its callers' bytes, whatever they do: the sum in the documentation of its module.
const BOUND: usize = 26 << 20;
/// They ring within one second.
const BELLS: u8 = 200;

/// What is wrong with the `n`th of them.
fn fault(n: u8) -> (Fault, Option<u32>) {
    match n % 20 {
        0 => (Fault::Truncated, None),
        1 => (Fault::Endless, None),
        2 => (Fault::Empty, None),
        3 => (Fault::NoJpeg, None),
        4 => (Fault::Oversize, None),
        // One byte a second.
        5 => (Fault::None, Some(1)),
        _ => (Fault::None, None),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_bells_within_a_second() {
    let house = House::start("unknown: accept", "").await;
    let pictures: Vec<_> = (0..u32::from(BELLS)).map(|n| corners(n).unwrap()).collect();
    let (start, mut well, mut slow) = (Instant::now(), JoinSet::new(), JoinSet::new());
    for (n, picture) in (0..BELLS).zip(pictures.clone()) {
        let (fault, rate) = fault(n);
        let source = Some(Ipv4Addr::new(127, 0, 42, n + 1).into());
        let mut bell = Bell { fault, rate, source, ..house.bell(n) };
        let ring = async move {
            sleep_until(start + Duration::from_millis(5) * n.into()).await;
            (n, bell.ring(function::VISITOR, &picture).await)
        };
        if rate.is_some() || fault == Fault::Endless {
            slow.spawn(ring)
        } else {
            well.spawn(ring)
        };
    }
    while let Some(rung) = well.join_next().await {
        let (n, outcome) = rung.unwrap();
        assert!(matches!(outcome, Outcome::Sent(_)), "bell {n}: {outcome:?}");
    }
    let expected = |n: u8| match fault(n) {
        (Fault::Empty, _) | (_, Some(_)) => None,
        (Fault::Truncated | Fault::NoJpeg, _) => Some(false),
        _ => Some(true),
    };
    let visitors = (0..BELLS).filter(|n| expected(*n).is_some()).count();
    // The torn ones wait for two seconds; a machine that is busy may take longer.
    let late = start + 3 * PATIENCE;
    while house.told.new_ones().len() < visitors && Instant::now() < late {
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
    // Nothing that is under way is left but the slow ones, and one more bell finds the door open.
    let last = id(255);
    let mut bell = Bell { fault: Fault::Truncated, ..house.bell(255) };
    assert!(matches!(bell.ring(function::VISITOR, &pictures[0]).await, Outcome::Sent(_)));
    until("one more bell is heard", || !house.told.of(last).is_empty()).await;
    for n in 0..BELLS {
        let events = house.told.of(id(n));
        let pictures: Vec<bool> = events.iter().map(|event| event.detail["image_ok"] == true).collect();
        assert_eq!(pictures, Vec::from_iter(expected(n)), "bell {n}: {:?}", fault(n));
        for event in events {
            assert_eq!((&event.kind, &event.device), (&EventKind::Visitor, &format!("bell_{}", id(n))));
            let shown = house.app.bus().device(&event.device).unwrap().main().totals().frames;
            // Half a picture is shown, too.
            assert_eq!(shown, u64::from(fault(n).0 != Fault::NoJpeg), "bell {n}");
        }
    }
    let held = house.app.bells().most_held();
    assert!((1..BOUND).contains(&held), "{held} bytes");
    println!("200 bells: {visitors} visitors, at most {held} bytes of uploads held");
    let list = http::json(house.http(), "/v1/cameras").await;
    assert_eq!(list["cameras"].as_array().unwrap().len(), visitors + 1);
    slow.shutdown().await;
    house.app.stop().await;
}
