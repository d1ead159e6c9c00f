//! All viewers in one thread on one epoll, so that 300 of them leave most of a core to nobody.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Result;
use mio::{Events, Poll, Token};

use crate::plan::{Leave, Outcome, Plan, Quantiles, Report, Seen};
use crate::stamp::now_us;
use crate::viewer::Viewer;

/// Well below the session time-out of 60 s that servers announce.
const KEEP_ALIVE_US: u64 = 20_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Start,
    Stall,
    Resume,
    KeepAlive,
    Leave,
}

#[derive(Debug)]
enum State {
    Waiting,
    There(Box<Viewer>),
    Gone(Box<Outcome>),
}

struct Engine {
    plan: Plan,
    poll: Poll,
    viewers: Vec<State>,
    timers: BinaryHeap<Reverse<(u64, usize, Act)>>,
    latency_us: Vec<u32>,
    /// Larger than any message and than most backlogs.
    buffer: Vec<u8>,
}

/// Plays the plan to its end.
///
/// # Errors
/// epoll fails. What happens to a viewer is in its outcome.
pub fn run(plan: Plan) -> Result<Report> {
    let end_us = plan.start_us + plan.end_ms * 1000;
    let mut timers = BinaryHeap::new();
    for (id, viewer) in plan.viewers.iter().enumerate() {
        let mut at = |ms: u64, act: Act| timers.push(Reverse((plan.start_us + ms * 1000, id, act)));
        at(viewer.start_ms, Act::Start);
        at(viewer.start_ms + KEEP_ALIVE_US / 1000, Act::KeepAlive);
        if let Some((from, to)) = viewer.stall {
            at(from, Act::Stall);
            at(to, Act::Resume);
        }
        if let Some((leave, _)) = viewer.leave {
            at(leave, Act::Leave);
        }
    }
    let viewers = plan.viewers.iter().map(|_| State::Waiting).collect();
    let (poll, latency_us, buffer) = (Poll::new()?, Vec::new(), vec![0; 512 << 10]);
    let mut engine = Engine { plan, poll, viewers, timers, latency_us, buffer };
    let mut events = Events::with_capacity(2048);
    loop {
        let now = now_us();
        if now >= end_us {
            break;
        }
        while let Some(&Reverse((due, id, act))) = engine.timers.peek()
            && due <= now
        {
            engine.timers.pop();
            engine.act(id, act, now);
        }
        let next = engine.timers.peek().map_or(end_us, |Reverse((due, ..))| end_us.min(*due));
        let wait = Duration::from_micros(next.saturating_sub(now_us()));
        match engine.poll.poll(&mut events, Some(wait)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            engine.event(event.token().0, event.is_writable());
        }
    }
    for id in 0..engine.viewers.len() {
        engine.end(id, Leave::Teardown, None);
    }
    let latency_ms = Quantiles::of(engine.latency_us.iter().map(|us| f64::from(*us) / 1e3).collect());
    let viewers =
        engine.viewers.into_iter().filter_map(|v| if let State::Gone(o) = v { Some(*o) } else { None }).collect();
    Ok(Report { latency_ms, viewers })
}

impl Engine {
    fn act(&mut self, id: usize, act: Act, now: u64) {
        let done = match (&mut self.viewers[id], act) {
            (state @ State::Waiting, Act::Start) => {
                let viewer = self.plan.viewers[id].clone();
                let tokens = (Token(2 * id), Token(2 * id + 1));
                match Viewer::connect(viewer, &self.plan, self.poll.registry(), tokens) {
                    Ok(viewer) => *state = State::There(Box::new(viewer)),
                    Err(e) => return self.never_started(id, e.to_string()),
                }
                Ok(false)
            }
            (State::There(viewer), Act::Stall) => {
                viewer.stall();
                Ok(false)
            }
            (State::There(viewer), Act::Resume) => {
                viewer.resume();
                viewer.readable(&mut self.buffer)
            }
            (State::There(viewer), Act::KeepAlive) => {
                self.timers.push(Reverse((now + KEEP_ALIVE_US, id, Act::KeepAlive)));
                viewer.keep_alive().map(|()| false)
            }
            (State::There(_), Act::Leave) => Ok(true),
            _ => Ok(false),
        };
        self.settle(id, done);
    }

    fn event(&mut self, token: usize, writable: bool) {
        let id = token / 2;
        let State::There(viewer) = &mut self.viewers[id] else { return };
        let done = if token % 2 == 1 {
            Ok(viewer.readable_udp(&mut self.buffer))
        } else {
            let connected = if writable { viewer.writable() } else { Ok(()) };
            connected.and_then(|()| viewer.readable(&mut self.buffer))
        };
        self.settle(id, done);
    }

    fn settle(&mut self, id: usize, done: Result<bool>) {
        match done {
            Ok(false) => {}
            Ok(true) => {
                let how = self.plan.viewers[id].leave.map_or(Leave::Teardown, |(_, how)| how);
                self.end(id, how, None);
            }
            Err(e) => self.end(id, Leave::Vanish, Some(format!("{e:#}"))),
        }
    }

    fn end(&mut self, id: usize, how: Leave, error: Option<String>) {
        match std::mem::replace(&mut self.viewers[id], State::Waiting) {
            State::There(viewer) => {
                let (outcome, mut latency_us) = viewer.leave(how, error);
                self.latency_us.append(&mut latency_us);
                self.viewers[id] = State::Gone(Box::new(outcome));
            }
            State::Waiting => self.never_started(id, "not started".to_owned()),
            gone @ State::Gone(_) => self.viewers[id] = gone,
        }
    }

    fn never_started(&mut self, id: usize, error: String) {
        let plan = &self.plan.viewers[id];
        self.viewers[id] = State::Gone(Box::new(Outcome {
            group: plan.group.clone(),
            transport: plan.transport,
            seen: Seen::default(),
            error: Some(error),
            live_again_ms: None,
            skipped: 0,
        }));
    }
}
