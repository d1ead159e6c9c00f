//! A camera that takes a bell's visits, without sockets.

use super::visits::Visit;
use super::wire::{Header, function};
use super::{BellId, Config, MiniDoorbell};
use crate::bus::{Event, EventKind, ReasonCode, State, Told};
use crate::ingest::testing::{io, picture, scans};
use crate::ingest::{Adapter as _, DeviceIo, Doors};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;

const ID: BellId = BellId([0, 0xff, 2, 0, 0x12, 0x34, 0x56, 0]);

struct Running {
    io: DeviceIo,
    doors: Arc<Doors>,
    told: Receiver<Told>,
}

fn run() -> Running {
    let (io, doors) = (io("mini_doorbell"), Arc::<Doors>::default());
    let (_, told) = io.bus.events.since(None);
    let bell = MiniDoorbell::new(&Config { id: Some(ID) }, Arc::clone(&doors));
    tokio::spawn({
        let io = io.clone();
        async move { bell.run(io).await }
    });
    Running { io, doors, told }
}

fn visit(body: Bytes, whole: bool, late: bool) -> Visit {
    Visit { header: Header::new(ID, function::VISITOR, 1, body.len() as u16), body, whole, late }
}

impl Running {
    async fn told(&mut self) -> (bool, Arc<Event>) {
        match self.told.recv().await.unwrap() {
            Told::New(event) => (true, event),
            Told::Update(event) => (false, event),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_registered_once_is_away_after_fifteen_seconds() {
    let mut running = run();
    running.doors.bells.deliver(visit(picture(16, 16, 1), true, false)).unwrap();
    assert_eq!(running.told().await.1.kind, EventKind::Visitor);
    // It never registered, so silence says nothing.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(running.told.is_empty());
    for _ in 0..5 {
        running.doors.bells.alive(ID);
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert!(running.told.is_empty());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(running.told().await.1.kind, EventKind::Offline);
    let status = running.io.device.status();
    assert_eq!((status.state, status.reason.unwrap().code), (State::Offline, ReasonCode::Silent));
    running.doors.bells.alive(ID);
    assert_eq!(running.told().await.1.kind, EventKind::Online);
    assert_eq!(running.io.device.status().state, State::Online);
    // A visitor is a sign of life, too.
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(running.told().await.1.kind, EventKind::Offline);
    running.doors.bells.deliver(visit(picture(16, 16, 2), true, false)).unwrap();
    assert_eq!(running.told().await.1.kind, EventKind::Online);
    assert_eq!(running.told().await.1.kind, EventKind::Visitor);
}

#[tokio::test(start_paused = true)]
async fn the_picture_of_a_torn_visit_may_come_late() {
    let mut running = run();
    let whole = picture(16, 16, 1);
    running.doors.bells.deliver(visit(whole.slice(..40), false, false)).unwrap();
    let (new, event) = running.told().await;
    assert!(new && event.picture.is_none() && event.detail["image_ok"] == false);
    running.doors.bells.deliver(visit(whole.clone(), true, true)).unwrap();
    let (new, update) = running.told().await;
    assert!(!new && update.id == event.id);
    assert_eq!(running.io.bus.events.picture(event.id).unwrap().1, whole);
    assert_eq!(running.doors.bells.damaged(ID).unwrap(), whole[..40]);
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_claims_to_be_huge_is_not_decoded() {
    let mut running = run();
    let mut huge = picture(16, 16, 1).to_vec();
    let frame = huge.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    // Height and width of SOF0 (T.81 section B.2.2): 60,000 pixels each.
    huge[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    running.doors.bells.deliver(visit(huge.into(), true, false)).unwrap();
    let (_, event) = running.told().await;
    assert_eq!((&event.kind, event.picture, &event.detail["image_ok"]), (&EventKind::Visitor, None, &false.into()));
    assert_eq!(running.io.stream.totals().lost, 0, "it was not even looked at");
}

#[tokio::test(start_paused = true)]
async fn all_bells_that_nobody_configured_share_one_line_a_minute() {
    let mut running = run();
    running.io.bus.events.set_guest("front", true);
    for n in 0..20 {
        running.doors.bells.deliver(visit(picture(16, 16, n), true, false)).unwrap();
        running.told().await;
    }
    let later = tokio::time::Instant::now().into_std() + Duration::from_secs(60);
    assert_eq!(running.doors.bells.guests_ring.ripe(later), Some(19), "lines that were not written");
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_no_unit_sends_is_a_visit_without_one() {
    let mut running = run();
    for bomb in [scans(0xc2, 1, 640, 480, 64), scans(0xc0, 3, 640, 480, 250)] {
        running.doors.bells.deliver(visit(bomb.clone(), true, false)).unwrap();
        let (_, event) = running.told().await;
        assert_eq!(
            (&event.kind, &event.picture, &event.detail["image_ok"]),
            (&EventKind::Visitor, &None, &false.into())
        );
        assert_eq!(running.doors.bells.damaged(ID).unwrap(), bomb);
    }
    // One that is only larger than usual is shown.
    running.doors.bells.deliver(visit(scans(0xc0, 1, 1_024, 768, 1), true, false)).unwrap();
    let (_, event) = running.told().await;
    assert!(event.picture.is_some() && event.detail["image_ok"] == true);
}
