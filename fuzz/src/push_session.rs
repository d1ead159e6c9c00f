//! Which alarms are events: causes that begin, go on and end as time goes by.

use fanlight::bus::EventId;
use fanlight::ingest::push::bouts::{Bouts, Heard, QUIET};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Reads the input as alarms of two bytes: which cause and whether it is active, and tenths of a second since the one
/// before.
pub fn check(data: &[u8]) {
    let (mut bouts, start) = (Bouts::default(), Instant::now());
    let mut now = start;
    // What lasts by what was told, with the time it was last heard of.
    let mut lasting = BTreeMap::<String, Instant>::new();
    for (number, pair) in data.chunks_exact(2).enumerate() {
        let until = now + Duration::from_millis(100 * u64::from(pair[1]));
        // As the session does: it wakes when it asked to.
        while let Some(due) = bouts.due().filter(|due| *due <= until) {
            now = now.max(due);
            while let Some(over) = bouts.over(now) {
                assert!(lasting.remove(&over).is_some(), "{over} ends twice");
            }
            assert!(bouts.due().is_none_or(|next| next > now), "it would ask forever");
        }
        now = until;
        let (name, active) = ((pair[0] >> 1).to_string(), pair[0] & 1 == 1);
        match bouts.heard(&name, active, now) {
            Heard::Began => {
                assert!(active && lasting.insert(name.clone(), now).is_none(), "{name} begins twice");
                bouts.told(&name, EventId(number as u64), number % 2 == 0);
            }
            Heard::GoesOn(event) => {
                let heard = lasting.insert(name, now).expect("what goes on has begun");
                assert!(active && now - heard <= QUIET);
                assert!(event.is_none_or(|event| event.0 % 2 == 1), "it has a picture");
            }
            Heard::Ended => assert!(!active && lasting.remove(&name).is_some()),
            Heard::Nothing => assert!(!active && !lasting.contains_key(&name)),
        }
        assert!(lasting.len() <= 17, "{}", lasting.len());
    }
}
