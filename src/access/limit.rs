//! How many failures an address may have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Counts failures by address, an IPv6 network of 64 bits as one (a household has no less).
#[derive(Debug)]
pub(crate) struct Limiter {
    /// Failures that may come at once.
    burst: u32,
    /// One failure is forgiven after each of these.
    forgive: Duration,
    /// Addresses remembered.
    capacity: usize,
    /// When an address will have no failures left: never later than `burst` times `forgive` from now.
    clean_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Limiter {
    pub(crate) fn new(burst: u32, forgive: Duration, capacity: usize) -> Self {
        Self { burst: burst.max(1), forgive, capacity: capacity.max(1), clean_at: Mutex::default() }
    }

    /// Whether an address has had too many failures to be heard now.
    pub(crate) fn is_limited(&self, peer: IpAddr) -> bool {
        let now = Instant::now();
        let clean_at = self.clean_at.lock().unwrap_or_else(PoisonError::into_inner);
        // One more failure must still fit.
        let room = self.forgive * (self.burst - 1);
        clean_at.get(&network(peer)).is_some_and(|clean_at| clean_at.saturating_duration_since(now) > room)
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, peer: IpAddr) {
        let now = Instant::now();
        let mut table = self.clean_at.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = network(peer);
        if table.len() >= self.capacity && !table.contains_key(&peer) {
            table.retain(|_, clean_at| *clean_at > now);
            if table.len() >= self.capacity {
                // The one with the fewest failures loses least.
                let first = table.iter().min_by_key(|(_, clean_at)| **clean_at).map(|(peer, _)| *peer);
                first.and_then(|first| table.remove(&first));
            }
        }
        let clean_at = table.entry(peer).or_insert(now);
        *clean_at = ((*clean_at).max(now) + self.forgive).min(now + self.forgive * self.burst);
    }
}

/// What counts as one address.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_limited_and_forgiven_one_by_one() {
        let limiter = Limiter::new(3, Duration::from_secs(6), 10);
        let peer = ip("192.0.2.1");
        for _ in 0..3 {
            assert!(!limiter.is_limited(peer));
            limiter.failed(peer);
        }
        assert!(limiter.is_limited(peer) && limiter.is_limited(ip("::ffff:192.0.2.1")));
        assert!(!limiter.is_limited(ip("192.0.2.2")));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!limiter.is_limited(peer));
        limiter.failed(peer);
        assert!(limiter.is_limited(peer));
        // However many fail, it never takes longer than the whole burst.
        (0..1000).for_each(|_| limiter.failed(peer));
        tokio::time::advance(Duration::from_secs(18)).await;
        assert!(!limiter.is_limited(peer));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_address() {
        let limiter = Limiter::new(1, Duration::from_secs(6), 10);
        limiter.failed(ip("2001:db8:0:1::1"));
        assert!(limiter.is_limited(ip("2001:db8:0:1:ffff::2")));
        assert!(!limiter.is_limited(ip("2001:db8:0:2::1")));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_keeps_the_worst() {
        let limiter = Limiter::new(2, Duration::from_secs(6), 3);
        let worst = ip("192.0.2.1");
        limiter.failed(worst);
        limiter.failed(worst);
        for n in 2..200 {
            limiter.failed(ip(&format!("192.0.2.{n}")));
        }
        assert_eq!(limiter.clean_at.lock().expect("whole").len(), 3);
        assert!(limiter.is_limited(worst));
    }
}
