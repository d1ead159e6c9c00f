//! What one session leaves to the next.

use crate::ingest::iwfcam::wire::Ids;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of a camera from earlier sessions with it. Clones are the same memory: keep one a camera, and give a
/// clone to each session.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Remembered>>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remembered {
    /// The local port: the camera knows its client by it.
    pub(super) port: Option<u16>,
    /// The ids that it wants to be quoted.
    pub(super) ids: Ids,
    /// The number of a session that was not closed, as far as is known.
    pub(super) session: Option<u32>,
    /// Where it was.
    pub(super) address: Option<Ipv4Addr>,
    /// Whether it sends sound.
    pub(super) has_sound: Option<bool>,
    /// The advice to keep it from the internet was given.
    pub(super) warned: bool,
}

impl Memory {
    pub(super) fn now(&self) -> Remembered {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Remembered)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The local port of the first session with a camera: always the same for the same camera, so that the camera knows its
/// client again when the gateway was restarted, and above 41,773, which a client known to work uses.
pub(super) fn first_port(camera: &str) -> u16 {
    // FNV-1a: small, and never changes between versions of a compiler.
    let hash = camera.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    41_773 + (hash % 4096) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_same_for_the_same_camera_and_mostly_others_for_others() {
        assert_eq!(first_port("192.0.2.30"), first_port("192.0.2.30"));
        let ports: std::collections::BTreeSet<_> = (1..=20).map(|n| first_port(&format!("192.0.2.{n}"))).collect();
        assert!(ports.len() >= 19, "{ports:?}");
        assert!(ports.iter().all(|port| (41_773..45_869).contains(port)));
    }
}
