//! Pictures that something else brings: a camera's alarm post or FTP upload, a script, an automation.
//!
//! | by | how |
//! |----|-----|
//! | HTTP | `POST` or `PUT` to `/v1/cameras/NAME/push`: a JPEG as the body, in any part of a multipart body, or an [`alarm`] with or without pictures ([`body`] reads all of them) |
//! | FTP | an upload to the camera's own account ([`ftp`]) |
//!
//! Either way the push goes through the [`door`] to its camera, which shows the picture at once and from then on, and
//! tells the event: an alarm's own; for a plain picture the one that the configuration names (`event:`), as a camera that
//! only uploads when something moves is a motion detector; without that none.

pub mod alarm;
pub mod body;
pub mod bouts;
mod config;
pub mod door;
pub mod ftp;
mod http;

pub use config::Config;
pub use door::Pushes;

pub(super) use http::routes;

use super::still::Still;
use super::{Adapter, AdapterError, DeviceIo, Doors};
use crate::bus::EventId;
use alarm::{Alarm, Says};
use async_trait::async_trait;
use bouts::{Bouts, Heard};
use bytes::Bytes;
use door::{Refused, Taken, Visit};
use serde_json::Map;
use std::sync::Arc;
use std::time::Instant;

/// The family's name.
pub(super) const FAMILY: &str = "push";

/// Runs a camera whose pictures are pushed.
#[derive(Debug)]
pub struct Push {
    doors: Arc<Doors>,
    /// The event of a plain picture.
    event: Option<String>,
}

impl Push {
    /// For that camera.
    pub fn new(config: &Config, doors: Arc<Doors>) -> Self {
        Self { doors, event: config.event.clone() }
    }
}

#[async_trait]
impl Adapter for Push {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        let mut camera = Camera { still: Still::new(&io), bouts: Bouts::default(), complained: None, io: &io };
        let mut inbox = self.doors.pushes.enter(io.device.name());
        io.playing.send_replace(true);
        loop {
            let due = camera.bouts.due();
            tokio::select! {
                () = io.cancel.cancelled() => return Ok(()),
                Some(visit) = inbox.recv() => {
                    let Visit { pushed, answer, .. } = visit;
                    let taken = camera.take(pushed.picture, pushed.alarm, self.event.as_deref());
                    // Who has hung up meanwhile is not answered.
                    let _ = answer.send(taken);
                }
                never = camera.still.repeat() => match never {},
                () = sleep_until(due) => camera.end_quiet(),
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

struct Camera<'a> {
    io: &'a DeviceIo,
    still: Still,
    bouts: Bouts,
    /// What was last wrong with a picture, so that a sender that does not learn fills no disk.
    complained: Option<String>,
}

impl Camera<'_> {
    /// Shows and tells one push. An alarm is told even if its picture is of no use.
    fn take(&mut self, picture: Option<Bytes>, alarm: Option<Alarm>, plain: Option<&str>) -> Result<Taken, Refused> {
        let mut taken = Taken::default();
        let mut shown = None;
        let mut refused = None;
        match picture.map(|picture| self.still.show(picture)) {
            None => {}
            Some(Ok(checked)) => {
                taken.size = Some((checked.width, checked.height));
                shown = Some(checked.bytes);
                self.complained = None;
            }
            Some(Err(error)) => {
                let text = error.to_string();
                if self.complained.as_ref() != Some(&text) {
                    tracing::info!("a pushed picture cannot be used: {text}");
                    self.complained = Some(text.clone());
                }
                refused = Some(Refused::Picture(text));
            }
        }
        match &alarm {
            Some(alarm) => match alarm.says() {
                Says::Alive => {}
                Says::Cause(name, active) => taken.event = self.hear(&name, active, shown, alarm.detail()),
            },
            None => {
                if let (Some(name), Some(_)) = (plain, &shown) {
                    // What lasts goes on while pictures come; of what does not, each picture is one.
                    let lasts = alarm::event(name, true).is_some_and(|kind| kind.on().is_some());
                    taken.event = if lasts {
                        self.hear(name, true, shown, Map::new())
                    } else {
                        self.tell(name, true, shown, Map::new())
                    };
                }
            }
        }
        refused.map_or(Ok(taken), Err)
    }

    /// Tells the event of a cause that began or is over; answers the event that is about it.
    fn hear(
        &mut self,
        name: &str,
        active: bool,
        picture: Option<Bytes>,
        detail: Map<String, serde_json::Value>,
    ) -> Option<EventId> {
        match self.bouts.heard(name, active, Instant::now()) {
            Heard::Began => {
                let pictured = picture.is_some();
                let event = self.tell(name, true, picture, detail)?;
                self.bouts.told(name, event, pictured);
                Some(event)
            }
            Heard::GoesOn(event) => {
                if let (Some(event), Some(picture)) = (event, picture) {
                    self.io.bus.events.update(event, picture);
                    self.bouts.told(name, event, true);
                }
                event
            }
            Heard::Ended => self.tell(name, false, picture, detail),
            Heard::Nothing => None,
        }
    }

    fn tell(
        &self,
        name: &str,
        active: bool,
        picture: Option<Bytes>,
        detail: Map<String, serde_json::Value>,
    ) -> Option<EventId> {
        let kind = alarm::event(name, active)?;
        // An event goes out with the newest picture there is; the card of a camera without any is none.
        let newest = || self.io.stream.newest_key().filter(|newest| !newest.card).map(|newest| newest.unit.payload);
        let picture = picture.or_else(|| if active { newest() } else { None });
        let stream = &self.io.stream;
        Some(self.io.bus.events.tell_with(self.io.device.name(), kind, stream.latest(), picture, detail).id)
    }

    /// Ends the causes that nothing is heard of any more.
    fn end_quiet(&mut self) {
        while let Some(name) = self.bouts.over(Instant::now()) {
            self.tell(&name, false, None, Map::new());
        }
    }
}
