//! What the camera says, and what follows from it.

use super::*;
use crate::ingest::iwfcam::wire::MediaStream;

impl Iwfcam {
    /// The answer to a login.
    pub(super) fn login_answer(&mut self, answer: &LoginAnswer, now: Instant) -> Result<(), SessionError> {
        let State::Login { next, round, full } = &mut self.state else {
            // The copy's answer, or a late one.
            if let State::Start { .. } = self.state
                && let (LoginResult::Accepted, Ok(session @ 1..)) = (answer.result, u32::try_from(answer.session))
            {
                self.session = Some(session);
            }
            return Ok(());
        };
        if *round == 0 && full.is_none() {
            // None was sent: it is the answer to one of an earlier attempt.
            return Ok(());
        }
        self.refusal = Some(answer.result);
        match answer.result {
            LoginResult::Accepted => {
                // Not above 0 is "closed": the next round asks again.
                if let Ok(session @ 1..) = u32::try_from(answer.session) {
                    self.logged_in(session, answer, now);
                }
            }
            LoginResult::WrongIds => {
                // The answer to the copy, with the ids that are being quoted already, says nothing new.
                if answer.ids != self.memory.now().ids && self.ids_named < MOST_IDS {
                    self.ids_named += 1;
                    self.memory.change(|memory| memory.ids = answer.ids);
                    self.later.clear();
                    self.log_in(now);
                }
            }
            LoginResult::Full => {
                let since = *full.get_or_insert(now);
                (*next, *round) = (now + FULL_EVERY, 0);
                self.later.clear();
                if now >= since + FULL_LIMIT {
                    return self.full(now);
                }
            }
            LoginResult::WrongToken => {
                let name = self.config.name();
                let text = format!(
                    "{name} refuses the token: if a password is set in its app, give `token` the 12 hexadecimal digits \
                     that the app sends"
                );
                return self.fail(SessionError::new(ReasonCode::Denied, text), now);
            }
            LoginResult::Other(_) => {}
        }
        Ok(())
    }

    pub(super) fn full(&mut self, now: Instant) -> Result<(), SessionError> {
        let text = format!(
            "{} has no place for us: close its app, and whatever else watches it, such as a second gateway",
            self.config.name()
        );
        self.fail(SessionError::new(ReasonCode::Busy, text), now)
    }

    pub(super) fn logged_in(&mut self, session: u32, answer: &LoginAnswer, now: Instant) {
        self.session = Some(session);
        // A second copy of the login would take the pictures away again (V).
        self.later.clear();
        self.receiver.clear();
        self.refusal = None;
        let warned = self.memory.now().warned;
        let called_home = answer.ids.0 != [0; 3];
        self.memory.change(|memory| {
            memory.session = Some(session);
            memory.warned = true;
            if called_home {
                memory.ids = answer.ids;
            }
        });
        let (camera, clients) = (self.config.name(), answer.clients);
        tracing::debug!(camera, name = answer.name, session, clients, "logged in");
        if !warned {
            let address = self.camera.map(|camera| camera.ip().to_string()).unwrap_or_default();
            let was = if called_home { "has called home before (it has a number from there)" } else { "calls home" };
            tracing::warn!(
                "this camera {was} whenever it can, to {} and others by UDP ports {} and {}: block {address} from the \
                 internet in the router; nothing here needs that",
                CLOUD_NAMES.join(", "),
                CLOUD_PORTS[0],
                CLOUD_PORTS[1],
            );
        }
        self.start(now);
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.state = State::Start { since: now, next: now, round: 0 };
    }

    pub(super) fn live(&mut self, now: Instant) {
        self.state = State::Live { keepalive: now + KEEPALIVE, answered: true, heard: now, resend: now + QUIET };
    }

    pub(super) fn media(&mut self, piece: &Media<'_>, now: Instant) -> Result<(), SessionError> {
        if let State::Login { round: 2.., .. } = self.state
            && piece.session > 0
        {
            // It does not answer but sends: the number is all that was needed.
            tracing::debug!(session = piece.session, "media without an answer to the login");
            self.session = Some(piece.session);
            self.memory.change(|memory| memory.session = Some(piece.session));
            self.later.clear();
            self.receiver.clear();
            self.start(now);
        }
        if self.session != Some(piece.session) {
            // Of a session before ours, or of somebody else's.
            return Ok(());
        }
        if matches!(self.state, State::Start { .. }) {
            self.live(now);
        }
        let State::Live { heard, .. } = &mut self.state else { return Ok(()) };
        if piece.stream == MediaStream::Video {
            *heard = now;
            (self.failed, self.lost, self.searches) = (0, None, 0);
        }
        self.receiver.media(piece, now, &mut self.out).or_else(|NotJpeg| self.not_jpeg(now))
    }

    pub(super) fn not_jpeg(&mut self, now: Instant) -> Result<(), SessionError> {
        let text = format!(
            "{} sends H.264: of this family only cameras that send JPEG pictures are supported",
            self.config.name()
        );
        self.fail(SessionError::new(ReasonCode::Unsupported, text), now)
    }

    /// The camera wants something.
    pub(super) fn control(&mut self, control: &Control<'_>, now: Instant) -> Result<(), SessionError> {
        let ours = self.session == Some(control.session);
        if control.notice() != Some(Notice::Close) || !ours {
            return Ok(());
        }
        let heard = match self.state {
            State::Start { .. } => now,
            State::Live { heard, .. } => heard,
            _ => return Ok(()),
        };
        self.session = None;
        self.memory.change(|memory| memory.session = None);
        self.later.clear();
        let lately = self.kicks.1.is_some_and(|last| now < last + KICKS_WITHIN);
        let before = if lately { self.kicks.0 } else { 0 };
        self.kicks = (before + 1, Some(now));
        self.lost.get_or_insert(heard);
        match KICKED.get(before) {
            Some(pause) => {
                tracing::debug!("the camera closed the session");
                self.log_in(now + *pause);
                Ok(())
            }
            None => {
                let text = format!(
                    "{} ends the session again and again: something else watches it, such as its app or a second gateway",
                    self.config.name()
                );
                self.fail(SessionError::new(ReasonCode::Busy, text), now)
            }
        }
    }

    /// The camera answers a control command.
    pub(super) fn control_answer(&mut self, answer: &Control<'_>, now: Instant) -> Result<(), SessionError> {
        if self.session != Some(answer.session) {
            return Ok(());
        }
        match &mut self.state {
            State::Stop { .. } if answer.is_close() => {
                self.memory.change(|memory| memory.session = None);
                return self.finish();
            }
            State::Start { .. } if answer.live_bits().is_some_and(|bits| bits & LIVE_VIDEO != 0) => {
                if let Some(format) = answer.live_format() {
                    tracing::debug!(?format, "live");
                }
                self.live(now);
            }
            State::Live { answered, .. } => *answered |= answer.live_bits().is_some(),
            _ => {}
        }
        Ok(())
    }
}
