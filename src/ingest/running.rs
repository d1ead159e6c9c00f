//! From one camera's configuration to a device on the bus and the tasks that keep it alive.

use super::drive::Driver;
use super::http::Http;
use super::iwfcam::{self, Iwfcam};
use super::mini_doorbell::MiniDoorbell;
use super::push::Push;
use super::rtsp::{Patience, Rtsp};
use super::supervisor::{Pace, Supervisor};
use super::{Adapter, Doors, Rotation, Source, threads};
use crate::bus::{Bus, Device, DeviceOptions, LINGER, Limits, Stream, SubStream, Upstream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// What [`spawn`] makes a device of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The name in the configuration.
    pub name: String,
    /// Where the pictures come from.
    pub source: Source,
    /// Connect only while somebody watches.
    pub on_demand: bool,
    /// Connections to the device, all streams together; by default one for each stream.
    pub max_connections: Option<usize>,
    /// Connections to the same device from before, which count until they are closed; by default those of the device
    /// that this one replaces.
    pub upstream: Option<Upstream>,
    /// How far pictures are turned, for families whose pictures can be.
    pub rotation: Rotation,
    /// Where devices that call us come in.
    pub doors: Arc<Doors>,
    /// What each stream's cache keeps.
    pub cache: Limits,
    /// How long to wait between attempts.
    pub pace: Pace,
    /// How long to wait for an RTSP device's answers and media.
    pub patience: Patience,
    /// How long a device on demand stays connected after its last viewer left.
    pub linger: Duration,
}

impl Plan {
    /// A plan with the usual times and sizes.
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        Self {
            name: name.into(),
            on_demand: false,
            max_connections: None,
            upstream: None,
            rotation: source.usual_rotation(),
            source,
            doors: Arc::default(),
            cache: Limits::default(),
            pace: Pace::default(),
            patience: Patience::default(),
            linger: LINGER,
        }
    }
}

/// A device with its tasks. Dropping it cancels them; [`Self::stop`] also waits.
#[derive(Debug)]
pub struct Running {
    device: Arc<Device>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// How long a device may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

impl Running {
    /// The device on the bus.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Says goodbye to the device and waits for its tasks, 2 s at most. The device stays on the bus.
    ///
    /// A connection that the device does not close in time keeps its place in [`Device::upstream`] until it is gone.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            tracing::warn!(device = self.device.name(), "the device did not take the goodbye in time");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Puts a device on the bus and starts its tasks, which end with `cancel`.
///
/// `replaces` is the device of the same name from before a change of the configuration: its streams go on, so that
/// viewers stay, and its connections count until they are closed. [Stop](Running::stop) its tasks first.
pub fn spawn(bus: &Arc<Bus>, plan: Plan, replaces: Option<&Arc<Device>>, cancel: &CancellationToken) -> Running {
    let (main, sub) = adapters(&plan);
    let family = plan.source.family();
    let limit = plan.max_connections.unwrap_or(1 + usize::from(sub.is_some())).max(1);
    let upstream = plan.upstream.or_else(|| replaces.map(|old| old.upstream().clone()));
    let upstream = upstream.unwrap_or_else(|| Upstream::new(limit));
    upstream.set_limit(limit);

    let old_streams: Vec<_> = replaces.into_iter().flat_map(|old| old.streams().cloned()).collect();
    let stream = |path: String| match old_streams.iter().find(|old| old.path() == path) {
        Some(old) => Arc::clone(old),
        None => Stream::new(path, plan.cache),
    };
    let main_stream = stream(plan.name.clone());
    let (sub_stream, sub) = match sub {
        None => (SubStream::None, None),
        Some(_) if limit == 1 => (SubStream::Main, None),
        Some(sub) => {
            let stream = stream(format!("{}/sub", plan.name));
            (SubStream::Own(Arc::clone(&stream)), Some((sub, stream)))
        }
    };
    let device = Device::new(DeviceOptions {
        name: plan.name.clone(),
        family,
        main: Arc::clone(&main_stream),
        sub: sub_stream,
        upstream,
        viewers: replaces.map(|old| Arc::clone(&old.viewers)).unwrap_or_default(),
    });
    device.set_on_demand(plan.on_demand);
    bus.add(Arc::clone(&device));

    let cancel = cancel.child_token();
    let tasks = TaskTracker::new();
    let sessions = std::iter::once((main, main_stream, true)).chain(sub.map(|(sub, stream)| (sub, stream, false)));
    for (adapter, stream, leads) in sessions {
        let supervisor = Supervisor {
            adapter,
            bus: Arc::clone(bus),
            device: Arc::clone(&device),
            stream,
            leads,
            on_demand: plan.on_demand.then_some(plan.linger),
            pace: plan.source.pace(plan.pace),
            rotation: plan.rotation,
        };
        let span = tracing::info_span!("device", id = %plan.name);
        tasks.spawn_on(supervisor.run(cancel.clone()).instrument(span), &threads::handle());
    }
    Running { device, cancel, tasks }
}

/// What talks to the device: for its main stream, and for its second one.
fn adapters(plan: &Plan) -> (Box<dyn Adapter>, Option<Box<dyn Adapter>>) {
    match &plan.source {
        Source::Rtsp(config) => {
            let sub = Rtsp::sub(config, plan.patience).map(|sub| -> Box<dyn Adapter> { Box::new(sub) });
            (Box::new(Rtsp::main(config, plan.patience)), sub)
        }
        Source::Iwfcam(config) => {
            let (config, memory) = (config.clone(), iwfcam::Memory::default());
            (Box::new(Driver::new(move || Iwfcam::new(config.clone(), memory.clone(), Instant::now()))), None)
        }
        Source::MiniDoorbell(config) => (Box::new(MiniDoorbell::new(config, Arc::clone(&plan.doors))), None),
        Source::Push(config) => (Box::new(Push::new(config, Arc::clone(&plan.doors))), None),
        Source::Http(config) => (Box::new(Http::new(config, plan.patience)), None),
    }
}
