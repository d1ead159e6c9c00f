//! What time brings.

use super::*;

impl Iwfcam {
    /// Does what is due by now, and works out when the next thing is.
    pub(super) fn step(&mut self, now: Instant) -> Result<(), SessionError> {
        loop {
            while self.later.front().is_some_and(|(at, _)| *at <= now) {
                let due = self.later.pop_front();
                due.into_iter().for_each(|(_, bytes)| self.send(bytes));
            }
            if !self.step_state(now)? {
                break;
            }
        }
        let live = matches!(self.state, State::Live { .. });
        let media = if live { self.receiver.deadline(now) } else { None };
        let later = self.later.front().map(|(at, _)| *at);
        self.wake = [self.state_deadline(), later, media].into_iter().flatten().min();
        Ok(())
    }

    /// Does what the state has to do by now; says whether to look again.
    pub(super) fn step_state(&mut self, now: Instant) -> Result<bool, SessionError> {
        if let (State::Start { .. } | State::Live { .. } | State::Login { .. }, Some(lost)) = (&self.state, self.lost)
            && now >= lost + GONE
        {
            if self.searches >= MOST_SEARCHES {
                let text = format!("{} lets us in but sends no pictures", self.config.name());
                self.fail(SessionError::new(ReasonCode::Silent, text), now)?;
            } else {
                self.search();
            }
            return Ok(true);
        }
        match &mut self.state {
            State::Search { since: Some(since), sent, listening } => {
                let passed = now.saturating_duration_since(*since);
                let due = SEARCHES.iter().filter(|at| passed >= **at).count();
                if due > *sent {
                    *sent = due;
                    let listen = passed >= LISTEN_AFTER && !std::mem::replace(listening, passed >= LISTEN_AFTER);
                    if listen {
                        self.open(LISTEN, self.config.discovery_port, None, true);
                    }
                    self.send_search();
                }
                if passed < SEARCH_LIMIT {
                    return Ok(false);
                }
                match (self.config.address, self.config.media_port) {
                    (Some(ip), Some(port)) => self.found(SocketAddrV4::new(ip, port)),
                    _ => {
                        self.state = State::Done;
                        return Err(SessionError::new(ReasonCode::Unreachable, self.not_found()));
                    }
                }
            }
            State::Search { since: None, .. } | State::Opening | State::Done => return Ok(false),
            State::Login { next, round, full } => {
                if full.is_some_and(|since| now >= since + FULL_LIMIT) {
                    self.full(now)?;
                    return Ok(true);
                }
                if now < *next {
                    return Ok(false);
                }
                if *round == LOGIN_ROUNDS {
                    self.attempt_failed(now, "is there but does not answer logins")?;
                    return Ok(true);
                }
                (*next, *round) = (now + LOGIN_EVERY, *round + 1);
                self.send_login(now);
            }
            State::Start { since, next, round } => {
                if now >= *since + START_LIMIT {
                    self.attempt_failed(now, "lets us in but sends no pictures")?;
                    return Ok(true);
                }
                if *round == LIVE_ROUNDS || now < *next {
                    return Ok(false);
                }
                (*next, *round) = (now + LIVE_EVERY, *round + 1);
                let live = self.request(Request::Live(WANTED));
                live.into_iter().for_each(|bytes| self.send_twice(bytes, now));
            }
            State::Live { .. } => return self.step_live(now),
            State::Stop { until, .. } => {
                if now < *until {
                    return Ok(false);
                }
                self.finish()?;
            }
        }
        Ok(true)
    }

    pub(super) fn step_live(&mut self, now: Instant) -> Result<bool, SessionError> {
        self.receiver.advance(now, &mut self.out).or_else(|NotJpeg| self.not_jpeg(now))?;
        let session = self.session.unwrap_or_default();
        if let Some(bytes) = self.receiver.request(session, now) {
            self.send(bytes.into());
        }
        // Asking may have taught that it is of no use, and then nothing is waited for any longer.
        self.receiver.advance(now, &mut self.out).or_else(|NotJpeg| self.not_jpeg(now))?;
        let State::Live { keepalive, answered, heard, resend } = &mut self.state else { return Ok(true) };
        if now >= *heard + SILENT {
            self.out.push_back(Output::Away);
            if self.config.uid.is_some() && self.searches < MOST_SEARCHES {
                tracing::debug!("no pictures for {} s, so it is searched for", SILENT.as_secs());
                self.search();
                return Ok(true);
            }
            self.lost.get_or_insert(*heard);
            self.later.clear();
            tracing::debug!("no pictures for {} s, so the login is repeated", SILENT.as_secs());
            self.log_in(now);
            return Ok(true);
        }
        let twice = if now >= *heard + QUIET && now >= *resend {
            *resend = now + RESEND;
            true
        } else if now >= *keepalive {
            !*answered
        } else {
            return Ok(false);
        };
        (*keepalive, *answered) = (now + KEEPALIVE, false);
        match self.request(Request::Live(WANTED)) {
            Some(live) if twice => self.send_twice(live, now),
            Some(live) => self.send(live),
            None => {}
        }
        Ok(true)
    }

    pub(super) fn state_deadline(&self) -> Option<Instant> {
        let gone = self.lost.map(|lost| lost + GONE);
        let own = match &self.state {
            State::Search { since, sent, .. } => {
                return since.map(|since| since + SEARCHES.get(*sent).copied().unwrap_or(SEARCH_LIMIT));
            }
            State::Opening | State::Done => return None,
            State::Stop { until, .. } => return Some(*until),
            State::Login { next, full, .. } => full.map_or(*next, |since| (*next).min(since + FULL_LIMIT)),
            State::Start { since, next, round } => {
                let end = *since + START_LIMIT;
                if *round == LIVE_ROUNDS { end } else { end.min(*next) }
            }
            State::Live { keepalive, heard, resend, .. } => {
                (*keepalive).min(*heard + SILENT).min((*resend).max(*heard + QUIET))
            }
        };
        Some(gone.map_or(own, |gone| own.min(gone)))
    }
}
