//! The meeting point: devices by name, their streams, events and commands.
//!
//! Devices publish here and know nothing of viewers; viewers read here and know nothing of devices.

mod command;
mod demand;
mod device;
mod events;
mod ring;
mod stream;

pub use command::{Command, CommandError, CommandInfo, CommandRequest};
pub use demand::{Demand, Interest, LINGER, Phase};
pub use device::{
    Device, DeviceOptions, Reason, ReasonCode, State, Status, SubStream, Upstream, UpstreamPermit, Viewers,
};
pub use events::{Event, EventId, EventKind, Events, Told, Wanted};
pub use ring::Limits;
pub use stream::{KeyPicture, Reader, Stream, Totals, TrackId, Want};

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// All devices by name, and the events of all of them.
#[derive(Debug, Default)]
pub struct Bus {
    devices: RwLock<BTreeMap<String, Arc<Device>>>,
    changes: watch::Sender<u64>,
    /// Events of all devices.
    pub events: Events,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a device, in place of one with the same name. Streams that both have go on; the old one's others end.
    pub fn add(&self, device: Arc<Device>) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = devices.insert(device.name().to_owned(), Arc::clone(&device)) {
            for stream in old.streams().filter(|old| !device.streams().any(|new| Arc::ptr_eq(old, new))) {
                stream.end();
            }
        }
        drop(devices);
        device.joined(&self.changes);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes a device away and ends its viewers.
    pub fn remove(&self, name: &str) {
        let removed = self.devices.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(device) = removed {
            device.end();
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Changes when a device is added or removed, and when the status or the commands of one change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The device of that name.
    pub fn device(&self, name: &str) -> Option<Arc<Device>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All devices in the order of their names.
    pub fn devices(&self) -> Vec<Arc<Device>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The device and stream behind a path such as `porch` or `porch/sub`. Where the device allows too few
    /// connections for its second stream, `porch/sub` is the main one.
    pub fn stream(&self, path: &str) -> Option<(Arc<Device>, Arc<Stream>)> {
        let (name, sub) = match path.split_once('/') {
            None => (path, false),
            Some((name, "sub")) => (name, true),
            Some(_) => return None,
        };
        let device = self.device(name)?;
        let stream = if sub { device.sub()? } else { device.main() };
        let stream = Arc::clone(stream);
        Some((device, stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> Arc<Device> {
        Device::new(DeviceOptions {
            name: name.into(),
            family: "rtsp",
            main: Stream::new(name, Limits::default()),
            sub: SubStream::None,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        })
    }

    #[test]
    fn changes_are_told() {
        let bus = Bus::new();
        let mut changes = bus.changes();
        let mut told = || {
            let told = changes.has_changed().unwrap();
            changes.mark_unchanged();
            told
        };
        let front = device("front");
        assert!(!told());
        bus.add(Arc::clone(&front));
        assert!(told());
        front.set_status(State::Online, None);
        assert!(told());
        front.set_status(State::Online, None);
        assert!(!told());
        front.serve_commands(Vec::new(), None);
        assert!(told());
        bus.remove("back");
        assert!(!told());
        bus.remove("front");
        assert!(told());
    }
}
