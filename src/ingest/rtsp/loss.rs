//! How many pictures are missing.

/// Estimates lost pictures from lost packets and timestamps.
///
/// retina counts packets. A gap in the timestamps, divided by the shortest distance seen lately, tells how many
/// pictures are missing; each has lost one packet at least, and any loss has spoilt one picture at least. With B-frames
/// timestamps go back and forth, so the count is off by the reorder depth at most.
#[derive(Debug, Default)]
pub(super) struct Loss {
    last: Option<i64>,
    interval: Option<i64>,
}

impl Loss {
    /// Pictures missing before the one at `ticks`, before which `packets` were lost.
    pub(super) fn before(&mut self, ticks: i64, packets: u16) -> u64 {
        let gap = self.last.replace(ticks).map(|last| ticks.saturating_sub(last)).filter(|gap| *gap > 0);
        if packets == 0 {
            if let Some(gap) = gap {
                // Rates change: the shortest distance ages by a sixteenth a picture.
                let aged = self.interval.map_or(gap, |interval| interval + (interval / 16).max(1));
                self.interval = Some(gap.min(aged));
            }
            return 0;
        }
        let missing = match (gap, self.interval) {
            (Some(gap), Some(interval)) => (gap + interval / 2) / interval.max(1) - 1,
            _ => 1,
        };
        missing.clamp(1, i64::from(packets)).unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_pictures_follow_from_the_gap() {
        let mut loss = Loss::default();
        for picture in 0..10 {
            assert_eq!(loss.before(picture * 3_600, 0), 0);
        }
        assert_eq!(loss.before(13 * 3_600, 40), 3);
        assert_eq!(loss.before(14 * 3_600, 2), 1, "packets of the picture's own neighbours");
        assert_eq!(loss.before(50 * 3_600, 5), 5, "no more pictures than packets");
        assert_eq!(loss.before(0, 7), 1, "a jump back says nothing about the number");
    }

    #[test]
    fn the_first_picture_may_come_late() {
        assert_eq!(Loss::default().before(90_000, 3), 1);
    }
}
