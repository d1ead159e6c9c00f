//! What `/readyz` and `/metrics` tell about the program itself.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the program works: its configuration and its listeners.
#[derive(Debug)]
pub struct Health {
    config_ok: AtomicBool,
    listeners: Mutex<Vec<Listener>>,
}

/// One address that we listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The key in the configuration, as `rtsp`.
    pub name: &'static str,
    /// The address really bound.
    pub address: SocketAddr,
    /// Whether somebody answers there.
    pub up: bool,
}

/// Held by the task that serves a listener: when it is dropped, the listener is down.
#[derive(Debug)]
pub struct ListenerGuard {
    health: Arc<Health>,
    index: usize,
}

impl Default for Health {
    fn default() -> Self {
        Self { config_ok: AtomicBool::new(true), listeners: Mutex::default() }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a bound listener. Register all before the first is served, so that none is missed.
    pub fn listener(self: &Arc<Self>, name: &'static str, address: SocketAddr) -> ListenerGuard {
        let mut listeners = self.lock();
        listeners.push(Listener { name, address, up: true });
        ListenerGuard { health: Arc::clone(self), index: listeners.len() - 1 }
    }

    /// All listeners in the order of their registration.
    pub fn listeners(&self) -> Vec<Listener> {
        self.lock().clone()
    }

    /// Whether there are listeners, and all are up.
    pub fn ready(&self) -> bool {
        let listeners = self.lock();
        !listeners.is_empty() && listeners.iter().all(|listener| listener.up)
    }

    /// Whether the configuration was without mistakes when it was last read.
    pub fn config_ok(&self) -> bool {
        self.config_ok.load(Ordering::Relaxed)
    }

    /// Notes whether the configuration was without mistakes.
    pub fn set_config_ok(&self, ok: bool) {
        self.config_ok.store(ok, Ordering::Relaxed);
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        if let Some(listener) = self.health.lock().get_mut(self.index) {
            listener.up = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_listener_down_is_not_ready() {
        let health = Arc::new(Health::default());
        assert!(!health.ready());
        let http = health.listener("http", ([127, 0, 0, 1], 8484).into());
        let rtsp = health.listener("rtsp", ([127, 0, 0, 1], 8554).into());
        assert!(health.ready());
        drop(rtsp);
        assert!(!health.ready());
        assert_eq!(health.listeners().iter().map(|listener| listener.up).collect::<Vec<_>>(), [true, false]);
        drop(http);
    }
}
