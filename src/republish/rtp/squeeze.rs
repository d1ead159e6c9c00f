//! Time stamps of a squeezed start: the cached GOP is shown at once, so that a player that paces itself by time stamps
//! ends at the live edge instead of a GOP behind it.

use crate::media::MediaTime;
use std::collections::HashMap;
use std::time::Duration;

/// The longest time that the cached pictures may take to be shown.
const LONGEST: Duration = Duration::from_millis(50);
/// The time each of them gets while that is less.
const EACH: Duration = Duration::from_millis(1);
/// Two of them are at least this far apart: more than a tick of the 90 kHz clock, so they stay distinct.
const APART: Duration = Duration::from_nanos(11_200);

/// A monotone map from the true presentation times of cached pictures to ones just before the live edge.
#[derive(Clone, Debug, Default)]
pub(super) struct Squeeze {
    times: HashMap<MediaTime, MediaTime>,
}

impl Squeeze {
    /// The map for cached pictures with these presentation times, of which `edge` is a lower bound of all later ones.
    ///
    /// A time t at or after the edge A stays; before it, it becomes A - (A - t)·k, with k such that n pictures take
    /// min(n ms, 50 ms), and at least a tick before the next.
    pub(super) fn new(cached: impl IntoIterator<Item = MediaTime>, edge: MediaTime) -> Self {
        let mut before: Vec<_> = cached.into_iter().filter(|pts| *pts < edge).collect();
        before.sort_unstable();
        before.dedup();
        let Some(&first) = before.first() else { return Self::default() };
        let span = (EACH * before.len() as u32).min(LONGEST);
        let length = edge.saturating_since(first).as_secs_f64();
        let factor = (span.as_secs_f64() / length).min(1.0);
        let mut next = edge;
        let mut times = HashMap::with_capacity(before.len());
        for &pts in before.iter().rev() {
            let squeezed = edge - edge.saturating_since(pts).mul_f64(factor);
            next = squeezed.min(next - APART);
            times.insert(pts, next);
        }
        Self { times }
    }

    /// Where that presentation time is shown.
    pub(super) fn map(&self, pts: MediaTime) -> MediaTime {
        self.times.get(&pts).copied().unwrap_or(pts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> MediaTime {
        MediaTime::START + Duration::from_millis(millis)
    }

    #[test]
    fn a_long_gop_ends_at_the_edge_within_fifty_milliseconds() {
        let times: Vec<_> = (0..100).map(|n| at(n * 40)).collect();
        let squeeze = Squeeze::new(times.iter().copied(), at(99 * 40));
        let first = squeeze.map(times[0]);
        assert!(at(99 * 40).saturating_since(first) <= Duration::from_millis(50));
        assert_eq!(squeeze.map(times[99]), times[99]);
        assert_eq!(squeeze.map(at(10_000)), at(10_000));
    }

    #[test]
    fn pictures_that_are_shown_out_of_decode_order_keep_their_order() {
        let decode_order = [0, 120, 40, 80, 240, 160, 200];
        let squeeze = Squeeze::new(decode_order.map(at), at(201));
        let mut shown: Vec<_> = decode_order.iter().map(|&millis| (squeeze.map(at(millis)), millis)).collect();
        shown.sort_unstable();
        assert_eq!(shown.iter().map(|(_, millis)| *millis).collect::<Vec<_>>(), [0, 40, 80, 120, 160, 200, 240]);
    }

    proptest! {
        #[test]
        fn order_is_kept_and_no_two_share_a_tick(mut millis in proptest::collection::btree_set(0_u64..20_000, 1..300),
                                                 edge in 0_u64..20_000) {
            millis.insert(edge);
            let squeeze = Squeeze::new(millis.iter().map(|&ms| at(ms)), at(edge));
            let ticks: Vec<_> = millis.iter().map(|&ms| squeeze.map(at(ms)).ticks(90_000)).collect();
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
