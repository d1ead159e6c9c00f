//! Pictures that come again unchanged, as a doorbell's newest one does each second for those who watch: they are not
//! encoded again, what was made of them is sent again.
//!
//! Once some pictures in a row were the same bytes, and all that the encoder has made since its last key picture is of
//! them, these units go round: the key picture, what follows it, the key picture again, by the same rule for key pictures
//! that the encoder's gate has. Each decodes as it did the first time. Of two key pictures in a row the second gets
//! another `idr_pic_id` (ITU-T H.264 section 7.4.3). The first picture that differs goes to the encoder, as a key picture:
//! its predecessor is not what viewers saw last.

use super::pipeline::key_is_due;
use super::wire::Unit;
use crate::media::{AccessUnit, MediaTime, h264};
use bytes::Bytes;
use std::collections::VecDeque;

/// So many of the same are encoded before they are repeated: rate control makes the first ones rather coarse.
const SETTLED: u32 = 4;
/// Bytes of units that are kept to be repeated.
const MOST: usize = 8 << 20;
/// Pictures that are waited for at most; an encoder that owes more has lost some.
const OWED: usize = 64;

/// What to do with the next picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Encode,
    /// The same, as a key picture.
    EncodeAsKey,
    /// Publish this in its place.
    Repeat(Unit),
}

/// Follows what goes into an encoder that holds nothing back, and what comes out of it.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// The newest picture, and its number among those that differ.
    picture: Option<Bytes>,
    number: u64,
    /// What the encoder was given and has not answered: time, and number of the picture.
    owed: VecDeque<(MediaTime, u64)>,
    /// How many units were made of the newest picture.
    made: u32,
    /// All that came since a key picture, if all of it is of the newest picture.
    gop: Vec<Bytes>,
    /// Its key picture under another number, once that was needed.
    other_key: Option<Bytes>,
    /// The place in `gop` of what viewers saw last.
    at: usize,
    /// When viewers saw something last, and when a key picture.
    last: Option<MediaTime>,
    last_key: Option<MediaTime>,
    /// The number of the key picture that viewers saw last, if nothing followed it.
    last_id: Option<u32>,
    /// Viewers saw other pictures last than the encoder made.
    apart: bool,
}

impl Repeats {
    /// A picture is to be encoded.
    pub(super) fn next(&mut self, unit: &AccessUnit) -> Next {
        let same = self.picture.as_ref().is_some_and(|known| *known == unit.payload);
        if same && let Some(repeat) = self.repeat(unit.pts) {
            return Next::Repeat(repeat);
        }
        if !same {
            self.picture = Some(unit.payload.clone());
            self.number += 1;
            self.made = 0;
            self.gop.clear();
        }
        if self.owed.len() == OWED {
            self.owed.pop_front();
        }
        self.owed.push_back((unit.pts, self.number));
        if self.apart { Next::EncodeAsKey } else { Next::Encode }
    }

    fn repeat(&mut self, pts: MediaTime) -> Option<Unit> {
        let (last, last_key) = (self.last?, self.last_key?);
        if !self.owed.is_empty() || self.made < SETTLED || self.gop.is_empty() {
            return None;
        }
        let due = key_is_due(last_key, pts, pts.saturating_since(last));
        let following = Some(self.at + 1).filter(|_| !due);
        let payload = match following.and_then(|at| self.gop.get(at)) {
            Some(payload) => {
                self.at += 1;
                self.last_id = None;
                payload.clone()
            }
            // The encoder adds to what can be repeated.
            None if !due && !self.apart => return None,
            None => {
                let key = self.renumbered(self.gop.first()?.clone())?;
                self.at = 0;
                self.last_key = Some(pts);
                key
            }
        };
        self.apart = true;
        self.last = Some(pts);
        let random_access = self.at == 0;
        Some(Unit { pts, dts: pts, random_access, skip: false, payload })
    }

    /// A key picture with a number that differs from that of a key picture right before it; notes it as the last one.
    /// `None` if that is not possible.
    fn renumbered(&mut self, key: Bytes) -> Option<Bytes> {
        let own = h264::idr_pic_id(&key);
        let clash = own.filter(|own| self.last_id == Some(*own));
        let (key, id) = match clash {
            Some(own) => {
                let number = own ^ 1;
                let known = self.other_key.take().filter(|other| h264::idr_pic_id(other) == Some(number));
                let other = match known {
                    Some(known) => known,
                    None => h264::with_idr_pic_id(&key, number)?.into(),
                };
                self.other_key = Some(other.clone());
                (other, Some(number))
            }
            // One without a number that can be read could not be told from the next.
            None => (key, Some(own?)),
        };
        self.last_id = id;
        Some(key)
    }

    /// Something came out. Answers what to publish; `None` if it builds on pictures that viewers have not seen.
    pub(super) fn made(&mut self, unit: Unit) -> Option<Unit> {
        let key = unit.random_access;
        let mut number = None;
        while self.owed.front().is_some_and(|(pts, _)| *pts <= unit.pts) {
            number = self.owed.pop_front().map(|(_, number)| number);
        }
        if self.apart && !key {
            return None;
        }
        self.apart = false;
        if key {
            self.gop.clear();
            self.other_key = None;
        }
        let payload = match key {
            true => self.renumbered(unit.payload.clone()).unwrap_or_else(|| unit.payload.clone()),
            false => unit.payload.clone(),
        };
        if key {
            self.last_key = Some(unit.pts);
        } else {
            self.last_id = None;
        }
        self.last = Some(unit.pts);
        let bytes: usize = self.gop.iter().map(Bytes::len).sum();
        if number != Some(self.number) || bytes + payload.len() > MOST || (!key && self.gop.is_empty()) {
            self.gop.clear();
        } else {
            self.gop.push(payload.clone());
            self.at = self.gop.len() - 1;
            self.made = self.made.saturating_add(1);
        }
        Some(Unit { payload, ..unit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Format, TrackInfo, VideoFormat, annex_b};
    use std::sync::Arc;
    use std::time::Duration;

    /// An encoder with key pictures where it is asked for them, and where the gate would have them.
    #[derive(Default)]
    struct Encoder {
        repeats: Repeats,
        keys: u32,
        encoded: u32,
        since_key: Option<MediaTime>,
        shown: Vec<(u64, Unit)>,
    }

    fn key(id: u32) -> Bytes {
        let clip = include_bytes!("../media/testdata/x264-baseline.h264");
        let mut unit = Vec::new();
        for nal in annex_b::nal_units(clip) {
            annex_b::push(&mut unit, nal);
            if nal[0] & 0x1f == 5 {
                break;
            }
        }
        h264::with_idr_pic_id(&unit, id).unwrap().into()
    }

    impl Encoder {
        fn show(&mut self, picture: u8, millis: u64, step: u64) {
            let pts = MediaTime::new(Duration::from_millis(millis));
            let format = Format::Video(VideoFormat::default());
            let info = Arc::new(TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format });
            let payload = Bytes::from(vec![picture; 9]);
            let unit = AccessUnit { pts, dts: pts, random_access: true, discontinuity: false, info, payload };
            let asked = match self.repeats.next(&unit) {
                Next::Repeat(again) => return self.shown.push((millis, again)),
                next => next == Next::EncodeAsKey,
            };
            self.encoded += 1;
            let due = self.since_key.is_none_or(|key| key_is_due(key, pts, Duration::from_millis(step)));
            let random_access = asked || due;
            let payload = if random_access {
                self.since_key = Some(pts);
                self.keys += 1;
                key(self.keys % 2)
            } else {
                Bytes::from(format!("{picture} after {}", self.keys))
            };
            let made = self.repeats.made(Unit { pts, dts: pts, random_access, skip: false, payload });
            self.shown.push((millis, made.expect("nothing is lost")));
        }

        /// Two key pictures in a row differ in their number, and they come every 2 s at most.
        fn check(&self) {
            for pair in self.shown.windows(2) {
                if pair.iter().all(|(_, unit)| unit.random_access) {
                    let [first, second] = [0, 1].map(|at| h264::idr_pic_id(&pair[at].1.payload));
                    assert!(first.is_some() && first != second, "{first:?} at {} ms", pair[0].0);
                }
            }
            let keys: Vec<_> = self.shown.iter().filter(|(_, unit)| unit.random_access).map(|(at, _)| at).collect();
            assert!(keys.windows(2).all(|pair| pair[1] - pair[0] <= 2_000), "{keys:?}");
            assert!(self.shown.iter().all(|(at, unit)| unit.pts.since_zero() == Duration::from_millis(*at)));
        }
    }

    #[test]
    fn one_picture_a_second_is_encoded_four_times() {
        for step in [700, 900, 1_000] {
            let mut encoder = Encoder::default();
            (0..50).for_each(|number| encoder.show(1, number * step, step));
            encoder.check();
            assert!((4..=5).contains(&encoder.encoded), "{}", encoder.encoded);
            assert_eq!(encoder.shown.len(), 50);
        }
        let mut encoder = Encoder::default();
        (0..50).for_each(|number| encoder.show(1, number * 900, 900));
        let following = encoder.shown.iter().filter(|(_, unit)| !unit.random_access).map(|(_, unit)| &unit.payload[..]);
        assert_eq!(following.skip(5).collect::<Vec<_>>(), [b"1 after 2"; 20]);
    }

    #[test]
    fn slower_ones_and_jitter_make_key_pictures_of_all_or_some() {
        for step in [1_001, 1_003, 1_700] {
            let mut encoder = Encoder::default();
            (0..50).for_each(|number| encoder.show(1, number * step + number % 3, step));
            encoder.check();
            assert!(encoder.encoded <= 5, "{}", encoder.encoded);
        }
    }

    #[test]
    fn another_picture_is_encoded_at_once_and_as_a_key_picture() {
        for repeated in 0..12 {
            let mut encoder = Encoder::default();
            (0..5 + repeated).for_each(|number| encoder.show(1, number * 1_000, 1_000));
            let before = encoder.encoded;
            let at = encoder.shown.len();
            (0..20).for_each(|number| encoder.show(2, (5 + repeated + number) * 1_000 - 300, 1_000));
            encoder.check();
            assert!(encoder.shown[at].1.random_access);
            assert!((4..=6).contains(&(encoder.encoded - before)), "{}", encoder.encoded - before);
        }
    }

    #[test]
    fn a_camera_that_stands_still_at_15_pictures_a_second_costs_one_gop() {
        let mut encoder = Encoder::default();
        (0..300).for_each(|number| encoder.show(1, number * 66, 66));
        encoder.check();
        assert!(encoder.encoded <= 31, "{}", encoder.encoded);
        (300..330).for_each(|number| encoder.show(number as u8, number * 66, 66));
        encoder.check();
    }

    #[test]
    fn what_builds_on_pictures_that_nobody_saw_is_left_out() {
        let mut encoder = Encoder::default();
        (0..6).for_each(|number| encoder.show(1, number * 1_000, 1_000));
        let unit = |random_access, payload| {
            let pts = MediaTime::new(Duration::from_secs(9));
            Unit { pts, dts: pts, random_access, skip: false, payload }
        };
        // The encoder did not do as it was told.
        assert_eq!(encoder.repeats.made(unit(false, Bytes::from_static(b"p"))), None);
        assert!(encoder.repeats.made(unit(true, key(0))).is_some());
        assert!(encoder.repeats.made(unit(false, Bytes::from_static(b"p"))).is_some());
    }
}
