//! Remembers for a while how a login went, so that argon2 does not run for every request.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A login under a hash whose key lives as long as the process: it cannot be turned back nor guessed from a dump.
pub(crate) type LoginHash = [u8; 32];

/// The outcomes of logins, bounded in time and number.
#[derive(Debug)]
pub(crate) struct Memory<T> {
    key: [u8; 32],
    lifetime: Duration,
    capacity: usize,
    known: Mutex<HashMap<LoginHash, (Instant, T)>>,
}

impl<T: Clone> Memory<T> {
    pub(crate) fn new(lifetime: Duration, capacity: usize) -> Self {
        Self { key: rand::random(), lifetime, capacity: capacity.max(1), known: Mutex::default() }
    }

    /// The hash of a login, its parts kept apart by their lengths.
    pub(crate) fn hash(&self, parts: &[&str]) -> LoginHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn get(&self, login: &LoginHash) -> Option<T> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(login).filter(|(until, _)| *until > Instant::now()).map(|(_, outcome)| outcome.clone())
    }

    pub(crate) fn put(&self, login: LoginHash, outcome: T) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.capacity {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() >= self.capacity {
            let oldest = known.iter().min_by_key(|(_, (until, _))| *until).map(|(login, _)| *login);
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(login, (now + self.lifetime, outcome));
    }

    pub(crate) fn clear(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn forgets_in_time_and_stays_small() {
        let memory = Memory::new(Duration::from_secs(600), 3);
        let login = memory.hash(&["ann", "secret"]);
        assert_ne!(login, memory.hash(&["anns", "ecret"]));
        assert_ne!(login, Memory::<u8>::new(Duration::from_secs(1), 3).hash(&["ann", "secret"]), "keyed");
        memory.put(login, 1);
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(memory.get(&login), Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(memory.get(&login), None);
        for n in 0..100_u8 {
            memory.put([n; 32], n);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(memory.known.lock().expect("whole").len(), 3);
        assert_eq!((memory.get(&[99; 32]), memory.get(&[96; 32])), (Some(99), None));
        memory.clear();
        assert_eq!(memory.get(&[99; 32]), None);
    }
}
