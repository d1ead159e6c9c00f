//! Blocks of ADPCM to PCMU.

use super::clock::Clock;
use super::wire::Media;
use crate::ingest::session::Sample;
use crate::media::{adpcm, g711};
use bytes::Bytes;
use std::time::Instant;

/// Samples per second (C, G).
pub(super) const RATE: u32 = 8000;
/// Octets of one unit on the bus, 32 ms: a block of 128 ms is more than browsers take in one packet.
const UNIT: usize = 256;
/// A gap of at most so many blocks is filled with silence; a longer one stays.
const MOST_SILENCE: i64 = 8;
/// Sound that is off by more than this begins anew.
const RESTART: i64 = 5 * RATE as i64;
/// Without the camera's clock, arrival has to be off by this much to mean anything.
const ARRIVAL_TOLERANCE: i64 = RATE as i64 / 2;

/// Where the sound stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Sound {
    /// The tick behind the last sample.
    next: Option<i64>,
    last: Option<u16>,
}

impl Sound {
    /// After a login the camera may count anew.
    pub(super) fn clear(&mut self) {
        self.last = None;
    }

    /// What becomes of a block: the units it brings, with silence for blocks that are missing before it. None, if it was
    /// there already, came too late, or is none.
    pub(super) fn block(&mut self, block: &Media<'_>, now: Instant, clock: &mut Clock) -> Vec<Sample> {
        // One of the last 64 again, or behind its successor; anything else before it means that the camera counts anew.
        let behind = self.last.map(|last| last.wrapping_sub(block.number));
        if behind.is_some_and(|behind| behind < 64) {
            return Vec::new();
        }
        let Some(samples) = adpcm::decode(block.body).filter(|samples| !samples.is_empty()) else { return Vec::new() };
        self.last = Some(block.number);
        let length = samples.len() as i64;
        let camera = block.clock();
        let tolerance = if clock.runs(camera) { length * 3 / 4 } else { ARRIVAL_TOLERANCE };
        let stamp = clock.at(camera, now) * i64::from(RATE) / 1_000_000;
        let mut ticks = self.next.unwrap_or(stamp);
        let late = stamp - ticks;
        let mut units = Vec::new();
        let mut discontinuity = false;
        if late.abs() > RESTART {
            (ticks, discontinuity) = (stamp, true);
        } else if late >= tolerance {
            let missing = (late + length / 2) / length;
            if missing <= MOST_SILENCE {
                for _ in 0..missing {
                    cut(&vec![g711::SILENCE; samples.len()].into(), &mut ticks, true, &mut units);
                }
            } else {
                (ticks, discontinuity) = (stamp, true);
            }
        } else if late <= -tolerance {
            // There was more sound than time.
            return Vec::new();
        }
        cut(&g711::to_mu_law(&samples).into(), &mut ticks, discontinuity, &mut units);
        self.next = Some(ticks);
        units
    }
}

/// Cuts octets into units.
fn cut(octets: &Bytes, ticks: &mut i64, mut discontinuity: bool, units: &mut Vec<Sample>) {
    for start in (0..octets.len()).step_by(UNIT) {
        let payload = octets.slice(start..octets.len().min(start + UNIT));
        let length = payload.len() as i64;
        units.push(Sample { ticks: *ticks, random_access: true, discontinuity, payload });
        *ticks += length;
        discontinuity = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::iwfcam::wire::MediaStream;
    use std::time::Duration;

    /// Plays blocks at their numbers' times, `clock` filled in or not.
    struct Camera {
        start: Instant,
        clock: Clock,
        sound: Sound,
        stamped: bool,
    }

    impl Camera {
        fn new(stamped: bool) -> Self {
            let start = Instant::now();
            Self { start, clock: Clock::new(start), sound: Sound::default(), stamped }
        }

        fn block(&mut self, number: u16) -> Vec<Sample> {
            let at = 1000 + u32::from(number) * 128;
            let extra = at.to_le_bytes();
            let extra = if self.stamped { extra.as_slice() } else { &[] };
            let mut body = [0x11; 516];
            body[..4].fill(0);
            let block = Media { session: 1, stream: MediaStream::Audio, number, fragment: 0, extra, body: &body };
            let now = self.start + Duration::from_millis(u64::from(number) * 128);
            self.sound.block(&block, now, &mut self.clock)
        }
    }

    fn octets(units: &[Sample]) -> usize {
        units.iter().map(|unit| unit.payload.len()).sum()
    }

    #[test]
    fn blocks_follow_each_other_without_a_gap() {
        for stamped in [true, false] {
            let mut camera = Camera::new(stamped);
            let units: Vec<_> = (0..100).flat_map(|number| camera.block(number)).collect();
            assert_eq!((units.len(), octets(&units)), (400, 102_400));
            assert!(units.windows(2).all(|pair| pair[1].ticks - pair[0].ticks == 256));
            assert!(units.iter().all(|unit| !unit.discontinuity));
        }
    }

    #[test]
    fn a_lost_block_is_silence_and_a_doubled_one_nothing() {
        let mut camera = Camera::new(true);
        assert_eq!(octets(&camera.block(0)), 1024);
        assert_eq!(octets(&camera.block(1)), 1024);
        assert_eq!(octets(&camera.block(1)), 0, "doubled");
        let units = camera.block(3);
        assert_eq!(octets(&units), 2048);
        assert!(units[..4].iter().all(|unit| unit.payload.iter().all(|octet| *octet == g711::SILENCE)));
        assert_eq!(units[0].ticks, 2048);
        assert_eq!(octets(&camera.block(2)), 0, "too late");
        assert_eq!(octets(&camera.block(4)), 1024);
    }

    #[test]
    fn a_long_silence_of_the_camera_stays_a_gap() {
        let mut camera = Camera::new(true);
        camera.block(0);
        let units = camera.block(30);
        assert_eq!(octets(&units), 1024);
        assert!(units[0].discontinuity && units[0].ticks > 29 * 1000);
    }

    #[test]
    fn what_is_no_block_is_dropped() {
        let mut camera = Camera::new(true);
        let (stream, body) = (MediaStream::Audio, [0, 0, 99, 0, 1].as_slice());
        let piece = Media { session: 1, stream, number: 5, fragment: 0, extra: &[], body };
        assert!(camera.sound.block(&piece, camera.start, &mut camera.clock).is_empty());
        assert!(camera.sound.block(&Media { body: &[1], ..piece }, camera.start, &mut camera.clock).is_empty());
        assert!(camera.sound.block(&Media { body: &[0; 4], ..piece }, camera.start, &mut camera.clock).is_empty());
        assert_eq!(octets(&camera.block(5)), 1024);
    }
}
