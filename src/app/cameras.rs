//! The configured cameras as they run, and what changes when the configuration is read again.

use super::Options;
use crate::bus::{Bus, Upstream};
use crate::config::Camera;
use crate::ingest::{self, Doors, Plan, Running, Source};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// All cameras that run.
#[derive(Debug)]
pub(super) struct Cameras {
    bus: Arc<Bus>,
    doors: Arc<Doors>,
    options: Options,
    cancel: CancellationToken,
    running: BTreeMap<String, (Camera, Running)>,
    /// Connections of removed cameras that the devices have not closed yet. Who names such a device again, maybe by
    /// another name, waits for that.
    leaving: Vec<(Camera, Upstream)>,
}

impl Cameras {
    /// None yet; all that come end with `cancel`.
    pub(super) fn new(bus: Arc<Bus>, doors: Arc<Doors>, options: Options, cancel: CancellationToken) -> Self {
        Self { bus, doors, options, cancel, running: BTreeMap::new(), leaving: Vec::new() }
    }

    /// Makes the cameras that run those of the list. Equal ones are untouched; of a changed one the old session ends
    /// before the new one begins, and viewers stay on its streams; viewers of removed ones are ended.
    pub(super) async fn become_those(&mut self, cameras: &[Camera]) {
        let wanted = |name: &str| cameras.iter().find(|camera| camera.name == name);
        let (mut removed, mut changed) = (Vec::new(), Vec::new());
        for (name, (camera, _)) in &self.running {
            match wanted(name) {
                None => removed.push(name.clone()),
                Some(now) if now != camera => changed.push(name.clone()),
                Some(_) => {}
            }
        }
        for name in &removed {
            self.bus.remove(name);
        }
        let going = removed.iter().chain(&changed).filter_map(|name| self.running.get(name));
        join_all(going.map(|(_, running)| running.stop())).await;
        self.leaving.retain(|(_, upstream)| upstream.open() > 0);
        for name in removed {
            tracing::info!(camera = name, "removed");
            if let Some((camera, running)) = self.running.remove(&name)
                && running.device().upstream().open() > 0
            {
                self.leaving.push((camera, running.device().upstream().clone()));
            }
        }
        for camera in cameras {
            let old = match self.running.remove(&camera.name) {
                Some(same) if same.0 == *camera => {
                    self.running.insert(camera.name.clone(), same);
                    continue;
                }
                old => old.map(|(_, running)| Arc::clone(running.device())),
            };
            tracing::info!(camera = camera.name, "{}", if old.is_some() { "changed" } else { "added" });
            let left = |(old, _): &(Camera, _)| old.name == camera.name || old.source == camera.source;
            let left = self.leaving.iter().position(left).filter(|_| old.is_none());
            let upstream = left.map(|index| self.leaving.swap_remove(index).1);
            let plan = Plan { upstream, ..self.plan(camera) };
            let running = ingest::spawn(&self.bus, plan, old.as_ref(), &self.cancel);
            self.running.insert(camera.name.clone(), (camera.clone(), running));
        }
    }

    fn plan(&self, camera: &Camera) -> Plan {
        Plan {
            on_demand: camera.on_demand,
            max_connections: Some(camera.max_connections),
            rotation: camera.rotation,
            ..self.usual_plan(&camera.name, camera.source.clone())
        }
    }

    /// A camera with that source and nothing more said.
    pub(super) fn usual_plan(&self, name: &str, source: Source) -> Plan {
        Plan {
            pace: self.options.pace,
            patience: self.options.patience,
            linger: self.options.linger,
            doors: Arc::clone(&self.doors),
            ..Plan::new(name, source)
        }
    }

    /// Says goodbye to all devices, 2 s at most.
    pub(super) async fn stop(&self) {
        join_all(self.running.values().map(|(_, running)| running.stop())).await;
    }
}
