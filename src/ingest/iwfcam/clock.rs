//! The camera's clock and ours to one steady time.

use std::time::Instant;

/// The clocks differ by more than this: the camera started anew.
const RESTART: i64 = 5_000_000;
/// How much of a difference is believed at each stamp: one in so many. Jitter of arrival all but vanishes, drift of the
/// camera's crystal is followed within seconds.
const SMOOTHING: i64 = 64;
/// A clock that shows the same after this long, so many times in a row, is none.
const FROZEN: (i64, u32) = (20_000, 3);

/// Arrival times, smoothed by the camera's milliseconds. Pictures and sound share one, as they share the camera's clock.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// The camera's milliseconds without their wrapping.
    camera: i64,
    raw: Option<u32>,
    /// From the camera's time to ours, microseconds.
    offset: i64,
    arrived: i64,
    frozen: u32,
}

impl Clock {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, camera: 0, raw: None, offset: 0, arrived: 0, frozen: 0 }
    }

    /// Whether the camera's clock is of use: it is filled in, and runs.
    pub(super) fn runs(&self, camera: Option<u32>) -> bool {
        camera.is_some_and(|camera| camera != 0) && self.frozen < FROZEN.1
    }

    /// Microseconds since the session began, of something that the camera stamped so and that came then.
    pub(super) fn at(&mut self, camera: Option<u32>, arrival: Instant) -> i64 {
        let arrived = i64::try_from(arrival.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX / 4);
        let Some(raw) = camera.filter(|_| self.runs(camera)) else { return arrived };
        match self.raw {
            None => self.offset = arrived - self.camera * 1000,
            Some(before) => {
                // Sound and pictures overtake each other by a little, so it may go back.
                self.camera += i64::from(raw.wrapping_sub(before) as i32);
                let stands = raw == before && arrived > self.arrived + FROZEN.0;
                self.frozen = if stands { self.frozen + 1 } else { 0 };
            }
        }
        self.raw = Some(raw);
        self.arrived = arrived;
        let error = arrived - (self.camera * 1000 + self.offset);
        self.offset += if error.abs() > RESTART { error } else { error / SMOOTHING };
        self.camera * 1000 + self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn jitter_of_arrival_all_but_vanishes() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        let mut before = clock.at(Some(1000), start);
        for n in 1..200_u32 {
            let jitter = u64::from(n * 7919 % 40);
            let at = clock.at(Some(1000 + n * 66), start + ms(u64::from(n) * 66 + jitter));
            assert!((at - before - 66_000).abs() < 1000, "step of {} µs", at - before);
            before = at;
        }
        assert!((before - 199 * 66_000).abs() < 45_000);
    }

    #[test]
    fn drift_is_followed_and_wrapping_does_no_harm() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        let mut at = 0;
        for n in 0..5_000_u32 {
            // 1 % fast, and over the end of 32 bits.
            at = clock.at(Some((u32::MAX - 5_000).wrapping_add(n * 101)), start + ms(u64::from(n) * 100));
        }
        let error = at - 4_999 * 100_000;
        assert!(error.abs() < 100_000, "{error} µs");
    }

    #[test]
    fn a_jump_is_a_restart_and_arrival_goes_on() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.at(Some(3_000_000), start);
        let at = clock.at(Some(20), start + ms(8_000));
        assert_eq!(at, 8_000_000);
        assert_eq!(clock.at(Some(86), start + ms(8_066)), 8_066_000);
    }

    #[test]
    fn without_a_clock_arrival_counts() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.at(None, start + ms(5)), 5_000);
        assert_eq!(clock.at(Some(0), start + ms(9)), 9_000);
        // One that stands still.
        for n in 1..20 {
            clock.at(Some(77), start + ms(n * 66));
        }
        assert!(!clock.runs(Some(77)));
        assert_eq!(clock.at(Some(77), start + ms(2_000)), 2_000_000);
    }
}
