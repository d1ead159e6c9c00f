//! Who is watching: what on-demand devices and shared encoders live on.

use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a stream stays up after its last viewer left.
pub const LINGER: Duration = Duration::from_secs(10);

/// Counts who wants something.
#[derive(Debug, Default)]
pub struct Demand {
    count: watch::Sender<usize>,
}

/// Registered interest; dropping it, on any thread, takes it back.
#[derive(Debug)]
pub struct Interest {
    count: watch::Sender<usize>,
}

/// What follows from the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody watches, and nobody did for a while.
    Idle,
    /// Somebody watches.
    Active,
    /// Nobody watches any more; stay up until then, in case somebody comes back.
    Lingering(Instant),
}

impl Phase {
    /// The phase that follows when `count` interests are registered at `now`.
    pub fn next(self, count: usize, now: Instant, linger: Duration) -> Self {
        match (self, count) {
            (Self::Idle, 0) => Self::Idle,
            (Self::Active, 0) => Self::Lingering(now + linger),
            (Self::Lingering(until), 0) if now < until => Self::Lingering(until),
            (Self::Lingering(_), 0) => Self::Idle,
            _ => Self::Active,
        }
    }
}

impl Demand {
    /// Adds an interest, which counts until it is dropped.
    pub fn register(&self) -> Interest {
        self.count.send_modify(|count| *count += 1);
        Interest { count: self.count.clone() }
    }

    /// How many interests are registered.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until somebody watches.
    pub async fn wanted(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Waits until nobody has watched for `linger`.
    pub async fn unwanted(&self, linger: Duration) {
        let mut count = self.count.subscribe();
        let mut phase = Phase::Active;
        loop {
            phase = phase.next(*count.borrow_and_update(), Instant::now(), linger);
            match phase {
                Phase::Idle => return,
                Phase::Active => drop(count.changed().await),
                Phase::Lingering(until) => drop(tokio::time::timeout_at(until.into(), count.changed()).await),
            }
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_absence_is_bridged_and_a_long_one_is_not() {
        let (start, linger) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut phase = Phase::Idle;
        phase = phase.next(1, at(0), linger);
        assert_eq!(phase, Phase::Active);
        phase = phase.next(0, at(5), linger);
        assert_eq!(phase, Phase::Lingering(at(15)));
        assert_eq!(phase.next(1, at(9), linger), Phase::Active);
        assert_eq!(phase.next(0, at(14), linger), Phase::Lingering(at(15)));
        assert_eq!(phase.next(0, at(15), linger), Phase::Idle);
    }

    #[tokio::test]
    async fn interests_count_while_they_live() {
        let demand = Demand::default();
        let first = demand.register();
        let second = demand.register();
        assert_eq!(demand.count(), 2);
        std::thread::spawn(move || drop(first)).join().unwrap();
        drop(second);
        assert_eq!(demand.count(), 0);
        demand.unwanted(Duration::ZERO).await;
    }
}
