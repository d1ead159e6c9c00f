//! Which alarms are events: a camera repeats an alarm about once a second while its cause lasts, and may forget to say
//! that it is over.

use crate::bus::EventId;
use std::time::{Duration, Instant};

/// A cause that was not told again for so long is over (a client of such cameras that many use waits as long).
pub const QUIET: Duration = Duration::from_secs(5);
/// Causes at the same time; with more the oldest counts as over.
const MOST: usize = 16;

/// The causes that last.
#[derive(Debug, Default)]
pub struct Bouts(Vec<Bout>);

#[derive(Debug)]
struct Bout {
    name: String,
    heard: Instant,
    event: Option<EventId>,
    pictured: bool,
}

/// What one alarm means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It begins: an event. [`Bouts::told`] takes its id.
    Began,
    /// It goes on; `Some` names the event that has no picture of its own yet.
    GoesOn(Option<EventId>),
    /// It is over.
    Ended,
    /// It was over already.
    Nothing,
}

impl Bouts {
    /// An alarm came.
    pub fn heard(&mut self, name: &str, active: bool, now: Instant) -> Heard {
        let index = self.0.iter().position(|bout| bout.name == name);
        match (index, active) {
            (Some(index), false) => {
                self.0.remove(index);
                Heard::Ended
            }
            (None, false) => Heard::Nothing,
            (Some(index), true) => match self.0.get_mut(index) {
                Some(bout) => {
                    bout.heard = now;
                    Heard::GoesOn(bout.event.filter(|_| !bout.pictured))
                }
                None => Heard::Nothing,
            },
            (None, true) => {
                self.0.push(Bout { name: name.to_owned(), heard: now, event: None, pictured: false });
                Heard::Began
            }
        }
    }

    /// The event of a cause, and whether it has a picture of its own.
    pub fn told(&mut self, name: &str, event: EventId, pictured: bool) {
        if let Some(bout) = self.0.iter_mut().find(|bout| bout.name == name) {
            (bout.event, bout.pictured) = (Some(event), pictured);
        }
    }

    /// When to ask [`Self::over`] again.
    pub fn due(&self) -> Option<Instant> {
        if self.0.len() > MOST {
            return self.0.first().map(|bout| bout.heard);
        }
        self.0.iter().map(|bout| bout.heard + QUIET).min()
    }

    /// A cause of which nothing was heard for too long. Ask until there is none.
    pub fn over(&mut self, now: Instant) -> Option<String> {
        let quiet = self.0.iter().position(|bout| now.saturating_duration_since(bout.heard) >= QUIET);
        let index = quiet.or((self.0.len() > MOST).then_some(0))?;
        Some(self.0.remove(index).name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_one_event_until_it_is_quiet() {
        let (mut bouts, start) = (Bouts::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(bouts.heard("motion", false, start), Heard::Nothing);
        assert_eq!(bouts.heard("motion", true, start), Heard::Began);
        bouts.told("motion", EventId(7), false);
        assert_eq!(bouts.heard("motion", true, at(1)), Heard::GoesOn(Some(EventId(7))));
        bouts.told("motion", EventId(7), true);
        assert_eq!(bouts.heard("motion", true, at(4)), Heard::GoesOn(None));
        assert_eq!(bouts.heard("pir", true, at(4)), Heard::Began);
        assert_eq!(bouts.heard("pir", false, at(5)), Heard::Ended);
        assert_eq!((bouts.due(), bouts.over(at(8))), (Some(at(9)), None));
        assert_eq!(bouts.over(at(9)).as_deref(), Some("motion"));
        assert_eq!((bouts.due(), bouts.over(at(99))), (None, None));
        assert_eq!(bouts.heard("motion", true, at(99)), Heard::Began);
    }

    #[test]
    fn causes_are_bounded() {
        let (mut bouts, now) = (Bouts::default(), Instant::now());
        for number in 0..100 {
            bouts.heard(&number.to_string(), true, now);
            while bouts.due().is_some_and(|due| due <= now) {
                bouts.over(now).unwrap();
            }
        }
        assert_eq!(bouts.0.len(), MOST);
    }
}
