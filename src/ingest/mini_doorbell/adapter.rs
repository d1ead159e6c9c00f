//! A camera that takes a bell's visits.

use super::door::{Inbox, News};
use super::picture::{self, Unusable};
use super::visits::Visit;
use super::wire::function;
use super::{BellId, Config};
use crate::bus::{EventId, EventKind, Reason, ReasonCode, State};
use crate::ingest::serve::Seldom;
use crate::ingest::still::Still;
use crate::ingest::{Adapter, AdapterError, DeviceIo, Doors};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A base unit registers every 3 s (firmware, read); after so long without it is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Runs one bell. It has its place at the door as long as it lives, so that nothing is missed between two sessions.
#[derive(Debug)]
pub struct MiniDoorbell {
    doors: Arc<Doors>,
    inbox: Mutex<Inbox>,
    rings: Seldom,
}

impl MiniDoorbell {
    /// The bell of that configuration.
    pub fn new(config: &Config, doors: Arc<Doors>) -> Self {
        Self { inbox: Mutex::new(Inbox::new(Arc::clone(&doors), config.id)), doors, rings: Seldom::default() }
    }
}

#[async_trait]
impl Adapter for MiniDoorbell {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        let mut inbox = self.inbox.lock().await;
        let mut still = Still::new(&io);
        let mut bell = Bell { io: &io, doors: &self.doors, rings: &self.rings, torn: None, heard: None, away: false };
        // It calls us, so it is there as long as nothing says otherwise.
        io.playing.send_replace(true);
        loop {
            let silent = bell.silent_at();
            tokio::select! {
                news = inbox.next() => match news {
                    News::Visit(queued) => bell.visit(&mut still, &queued.visit).await,
                    News::Alive => bell.alive(true),
                },
                never = still.repeat() => match never {},
                () = sleep_until(silent.unwrap_or_else(Instant::now)), if silent.is_some() => bell.gone(),
                () = io.cancel.cancelled() => return Ok(()),
            }
        }
    }
}

struct Bell<'a> {
    io: &'a DeviceIo,
    doors: &'a Doors,
    /// Lines about rings: a camera that takes any bell hears whatever anybody invents.
    rings: &'a Seldom,
    /// The newest visit without its picture, which may come late.
    torn: Option<(BellId, EventId)>,
    /// When its base unit was last heard, if it ever registered here.
    heard: Option<Instant>,
    away: bool,
}

impl Bell<'_> {
    async fn visit(&mut self, still: &mut Still, visit: &Visit) {
        self.alive(false);
        let (io, id, unusual) = (self.io, visit.id(), &self.doors.bells.unusual);
        let name = io.device.name();
        // Whatever is wrong with the picture, somebody is at the door.
        let shown = match picture::look(&visit.body) {
            Ok(true) => still.show(visit.body.clone()).map_err(Unusable::from),
            Ok(false) => match unusual.take(|| still.show(visit.body.clone())).await {
                Some(shown) => shown.map_err(Unusable::from),
                None => Err(Unusable::Busy),
            },
            Err(error) => Err(error),
        };
        let (picture, image_ok) = match shown {
            Ok(checked) => (Some(checked.bytes), true),
            Err(error) => {
                tracing::debug!(%id, whole = visit.whole, %error, "a visitor whose picture is damaged");
                if !visit.body.is_empty() {
                    self.doors.bells.keep_damaged(id, visit.body.clone());
                }
                let left = || picture::salvage(&visit.body).and_then(|left| still.show(left).ok());
                let left = match error {
                    Unusable::Busy => None,
                    _ if visit.body.is_empty() => None,
                    _ => unusual.take(left).await.flatten(),
                };
                (left.map(|checked| checked.bytes), false)
            }
        };
        if visit.late
            && let Some((of, event)) = self.torn.take()
            && of == id
        {
            if let Some(picture) = picture {
                io.bus.events.update(event, picture);
            }
            return;
        }
        let kind = match visit.header.function {
            function::VISITOR => EventKind::Visitor,
            function::WARNING => EventKind::Alarm,
            _ => EventKind::Other("unknown".to_owned()),
        };
        let detail = detail(visit, image_ok);
        let guest = io.bus.events.is_guest(name);
        let lines = if guest { &self.doors.bells.guests_ring } else { self.rings };
        if let Some(more) = lines.ripe(Instant::now().into_std()) {
            tracing::info!(%id, kind = kind.name(), image_ok, more, "rings");
        }
        let event = io.bus.events.tell_with(name, kind, io.stream.latest(), picture, detail);
        self.torn = (!visit.whole).then_some((id, event.id));
    }

    /// It has shown that it is there; by a registration, or by ringing.
    fn alive(&mut self, registered: bool) {
        if registered || self.heard.is_some() {
            self.heard = Some(Instant::now());
        }
        if std::mem::take(&mut self.away) {
            tracing::info!("the base unit is back");
            self.io.device.set_status(State::Online, None);
            self.io.bus.events.tell(self.io.device.name(), EventKind::Online, None, None);
        }
    }

    fn silent_at(&self) -> Option<Instant> {
        self.heard.filter(|_| !self.away).map(|heard| heard + SILENCE)
    }

    /// It registered once, and has stopped.
    fn gone(&mut self) {
        self.away = true;
        let text = "the doorbell's base unit has not been heard for 15 s; is it plugged in, and in the Wi-Fi?";
        tracing::warn!("{text}");
        let reason = Reason { code: ReasonCode::Silent, text: text.to_owned() };
        self.io.device.set_status(State::Offline, Some(reason));
        self.io.bus.events.tell(self.io.device.name(), EventKind::Offline, None, None);
    }
}

/// The numbers of the header, so that users of other models can report them.
fn detail(visit: &Visit, image_ok: bool) -> Map<String, Value> {
    let (header, id) = (&visit.header, visit.id().to_string());
    let mut detail = Map::from_iter([
        ("bell".to_owned(), json!(id)),
        ("function".to_owned(), json!(header.function)),
        ("type".to_owned(), json!(header.device_type)),
        ("version".to_owned(), json!(header.version)),
        ("status".to_owned(), json!(header.status)),
        ("bytes".to_owned(), json!(visit.body.len())),
        ("image_ok".to_owned(), json!(image_ok)),
    ]);
    if !image_ok && !visit.body.is_empty() {
        detail.insert("upload".to_owned(), json!(format!("/v1/mini-doorbell/damaged/{id}")));
    }
    detail
}
