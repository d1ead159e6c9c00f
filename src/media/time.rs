//! Time on a stream's own timeline.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a stream's timeline. It starts at [`MediaTime::START`] and has nothing to do with any wall clock.
///
/// Devices, RTP and GStreamer count differently; conversion happens at the edges only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MediaTime(Duration);

impl MediaTime {
    /// Where every timeline starts: late enough that a reorder window before it is not negative.
    pub const START: Self = Self(Duration::from_secs(10));

    /// From the time since the timeline's zero.
    pub const fn new(since_zero: Duration) -> Self {
        Self(since_zero)
    }

    /// The time since the timeline's zero.
    pub const fn since_zero(self) -> Duration {
        self.0
    }

    /// The time since `earlier`, or zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This point less `back`, not below the timeline's zero.
    pub fn saturating_sub(self, back: Duration) -> Self {
        Self(self.0.saturating_sub(back))
    }

    /// The signed distance `self - other` in nanoseconds.
    pub fn nanos_since(self, other: Self) -> i128 {
        self.0.as_nanos() as i128 - other.0.as_nanos() as i128
    }

    /// Ticks of a clock of `rate` Hz since the timeline's zero, rounded to the nearest.
    pub fn ticks(self, rate: u32) -> u64 {
        ((self.0.as_nanos() * u128::from(rate) + 500_000_000) / 1_000_000_000) as u64
    }

    /// The point `ticks` of a clock of `rate` Hz after the timeline's zero. `rate` must not be zero.
    pub fn from_ticks(ticks: u64, rate: u32) -> Self {
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(rate.max(1));
        Self(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for MediaTime {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for MediaTime {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        self.saturating_sub(rhs)
    }
}

impl fmt::Debug for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_trip_at_the_rtp_video_clock() {
        for ticks in [0_u64, 1, 3_600, 900_001, u64::from(u32::MAX) * 3] {
            assert_eq!(MediaTime::from_ticks(ticks, 90_000).ticks(90_000), ticks);
        }
    }

    #[test]
    fn differences_never_go_below_zero() {
        let early = MediaTime::new(Duration::from_millis(5));
        let late = early + Duration::from_millis(7);
        assert_eq!(early.saturating_since(late), Duration::ZERO);
        assert_eq!(early.nanos_since(late), -7_000_000);
        assert_eq!(early - Duration::from_secs(1), MediaTime::new(Duration::ZERO));
    }
}
