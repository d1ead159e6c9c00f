//! Keeps one stream of a device alive: sessions one after the other, with back-off between them.

use super::{Adapter, AdapterError, DeviceIo, Rotation};
use crate::bus::{Bus, Device, EventKind, Reason, ReasonCode, State, Stream};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A session that was asked to end and has not done so after this time is dropped.
const GOODBYE: Duration = Duration::from_secs(3);

/// How long to wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// First and longest wait after a lost, silent or unreachable device; it doubles in between.
    pub lost: (Duration, Duration),
    /// First and longest wait after [`ReasonCode::Busy`]: fast retries would fight the vendor's app for the slot.
    pub busy: (Duration, Duration),
    /// Wait after [`ReasonCode::Denied`]: devices lock accounts after a handful of refused passwords.
    pub denied: Duration,
    /// Media for so long, and the waits start over.
    pub healthy: Duration,
    /// Each wait is longer by a random part of it, up to this share. Never shorter.
    pub jitter: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lost: (Duration::from_secs(1), Duration::from_secs(30)),
            busy: (Duration::from_secs(10), Duration::from_secs(60)),
            denied: Duration::from_secs(15 * 60),
            healthy: Duration::from_secs(30),
            jitter: 0.2,
        }
    }
}

/// Works out the waits between attempts. Pure: the caller brings the dice.
#[derive(Debug)]
pub struct BackOff {
    pace: Pace,
    lost: u32,
    busy: u32,
}

impl BackOff {
    /// At the start of the scale.
    pub fn new(pace: Pace) -> Self {
        Self { pace, lost: 0, busy: 0 }
    }

    /// The wait after a session that ended with `code` after `played` of media; `dice` is a random number in 0..1.
    pub fn after(&mut self, code: ReasonCode, played: Duration, dice: f64) -> Duration {
        if played >= self.pace.healthy {
            (self.lost, self.busy) = (0, 0);
        }
        let doubled = |(first, most): (Duration, Duration), step: &mut u32| {
            let wait = first.saturating_mul(2_u32.saturating_pow(*step)).min(most);
            *step = step.saturating_add(1);
            wait
        };
        let wait = match code {
            ReasonCode::Busy => doubled(self.pace.busy, &mut self.busy),
            ReasonCode::Denied => self.pace.denied,
            ReasonCode::Unreachable | ReasonCode::Silent | ReasonCode::Unsupported | ReasonCode::Misconfigured => {
                doubled(self.pace.lost, &mut self.lost)
            }
        };
        wait.mul_f64(1.0 + self.pace.jitter * dice)
    }
}

/// Runs the sessions of one stream of a device until it is cancelled.
#[derive(Debug)]
pub struct Supervisor<A> {
    /// Runs one session.
    pub adapter: A,
    /// Where events are told.
    pub bus: Arc<Bus>,
    /// The device.
    pub device: Arc<Device>,
    /// The stream that the sessions feed.
    pub stream: Arc<Stream>,
    /// Whether this stream's fate is the device's state; trouble with the others is only logged.
    pub leads: bool,
    /// Connect only while somebody wants the stream, and stay for so long after the last left.
    pub on_demand: Option<Duration>,
    /// How long to wait between attempts.
    pub pace: Pace,
    /// How far pictures are turned.
    pub rotation: Rotation,
}

/// How one session ended.
enum Ended {
    /// As asked, because it is cancelled or not wanted any more.
    Asked,
    /// By itself, after so much time with media.
    Failed(AdapterError, Duration),
}

impl<A: Adapter> Supervisor<A> {
    /// Supervises until `cancel` is cancelled and the last session has said goodbye.
    pub async fn run(self, cancel: CancellationToken) {
        let mut back_off = BackOff::new(self.pace);
        // The last trouble logged, so that a device that stays away fills no disk.
        let mut complained: Option<String> = None;
        // The last of online and offline that was told: a device on demand comes and goes without anybody's business.
        let mut told_online = None;
        while !cancel.is_cancelled() {
            if self.on_demand.is_some() && self.stream.demand.count() == 0 {
                // The next viewer may come tomorrow: it is to wake the device, not to see today's picture.
                self.stream.clear();
                self.set(State::Idle, None, &mut told_online);
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = self.stream.demand.wanted() => {}
                }
            }
            // A device that is offline stays so, with its reason, until it is back: no flicker at each attempt.
            if !self.leads || self.device.status().state != State::Offline {
                self.set(State::Connecting, None, &mut told_online);
            }
            let (error, played) = match self.session(&cancel, &mut told_online).await {
                Ended::Asked => continue,
                Ended::Failed(error, played) => (error, played),
            };
            let wait = back_off.after(error.code, played, rand::random());
            let (reason, retry) = (error.code.name(), wait.as_secs_f64());
            if played.is_zero() && complained.as_ref() == Some(&error.text) {
                tracing::debug!(stream = self.stream.path(), reason, retry_s = retry, "{error}");
            } else {
                tracing::warn!(stream = self.stream.path(), reason, retry_s = retry, "{error}");
            }
            complained = Some(error.text.clone());
            self.stream.interrupt();
            self.set(State::Offline, Some(Reason { code: error.code, text: error.text }), &mut told_online);
            // Somebody who comes now waits this out: the device is not hammered because people are impatient.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn session(&self, cancel: &CancellationToken, told_online: &mut Option<bool>) -> Ended {
        let stop = cancel.child_token();
        let (playing, mut played) = watch::channel(false);
        let ever_played = played.clone();
        let io = DeviceIo {
            bus: Arc::clone(&self.bus),
            rotation: self.rotation,
            device: Arc::clone(&self.device),
            stream: Arc::clone(&self.stream),
            cancel: stop.clone(),
            playing,
        };
        // A fault in one family's code must not take the other devices with it.
        let mut run = pin!(AssertUnwindSafe(self.adapter.run(io)).catch_unwind());
        let mut unwanted = pin!(self.unwanted());
        let mut overdue = pin!(async {
            stop.cancelled().await;
            tokio::time::sleep(GOODBYE).await;
        });
        let (mut since, mut tells) = (None, true);
        let result = loop {
            tokio::select! {
                result = &mut run => break result,
                changed = played.changed(), if tells => {
                    // An adapter that lets go of it says no more.
                    tells = changed.is_ok();
                    if *played.borrow_and_update() {
                        let now = self.online(told_online);
                        since.get_or_insert(now);
                    } else if since.is_some() && tells {
                        self.away(told_online);
                    }
                }
                () = &mut unwanted, if !stop.is_cancelled() => {
                    // Who comes while the goodbye is said waits for the next session.
                    self.stream.interrupt();
                    stop.cancel();
                }
                () = &mut overdue => return Ended::Asked,
            }
        };
        if stop.is_cancelled() {
            return Ended::Asked;
        }
        if since.is_none() && *ever_played.borrow() {
            // It came and went in one breath; that it came is news all the same.
            since = Some(self.online(told_online));
        }
        let error = match result {
            Ok(Err(error)) => error,
            Ok(Ok(())) => AdapterError::new(ReasonCode::Unreachable, "the device ended the session"),
            Err(_) => AdapterError::new(
                ReasonCode::Unsupported,
                "what the device sends made this program stumble; it tries again, and its log says where",
            ),
        };
        Ended::Failed(error, since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    fn online(&self, told_online: &mut Option<bool>) -> Instant {
        tracing::info!(stream = self.stream.path(), "online");
        self.set(State::Online, None, told_online);
        Instant::now()
    }

    /// Nothing comes any more, though the session goes on: who comes now waits, and people are told.
    fn away(&self, told_online: &mut Option<bool>) {
        tracing::warn!(stream = self.stream.path(), "nothing comes any more; the device is looked for");
        self.stream.interrupt();
        let text = "pictures have stopped coming; the device is looked for".to_owned();
        self.set(State::Offline, Some(Reason { code: ReasonCode::Silent, text }), told_online);
    }

    /// Waits until nobody has wanted a stream on demand for its linger time.
    async fn unwanted(&self) {
        match self.on_demand {
            Some(linger) => self.stream.demand.unwanted(linger).await,
            None => std::future::pending().await,
        }
    }

    /// Sets the device's status, and tells online and offline when that is news.
    fn set(&self, state: State, reason: Option<Reason>, told_online: &mut Option<bool>) {
        if !self.leads {
            return;
        }
        self.device.set_status(state, reason);
        let (online, kind) = match state {
            State::Online => (true, EventKind::Online),
            State::Offline => (false, EventKind::Offline),
            State::Connecting | State::Idle => return,
        };
        if told_online.replace(online) != Some(online) {
            self.bus.events.tell(self.device.name(), kind, None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{DeviceOptions, Limits, SubStream, Upstream};
    use async_trait::async_trait;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    #[test]
    fn waits_double_up_to_their_limit_and_start_over_after_health() {
        let mut back_off = BackOff::new(Pace::default());
        let mut after = |code, played| back_off.after(code, Duration::from_secs(played), 0.0).as_secs();
        let lost: Vec<_> = (0..7).map(|_| after(ReasonCode::Unreachable, 0)).collect();
        assert_eq!(lost, [1, 2, 4, 8, 16, 30, 30]);
        let busy: Vec<_> = (0..5).map(|_| after(ReasonCode::Busy, 0)).collect();
        assert_eq!(busy, [10, 20, 40, 60, 60]);
        assert_eq!(after(ReasonCode::Denied, 0), 900);
        assert_eq!(after(ReasonCode::Silent, 29), 30);
        assert_eq!(after(ReasonCode::Silent, 30), 1);
        assert_eq!(after(ReasonCode::Busy, 5), 10);
    }

    #[test]
    fn waits_are_never_shorter_for_the_jitter_and_never_overflow() {
        let mut back_off = BackOff::new(Pace::default());
        assert_eq!(back_off.after(ReasonCode::Busy, Duration::ZERO, 0.5), Duration::from_secs(11));
        for _ in 0..100 {
            back_off.after(ReasonCode::Unsupported, Duration::ZERO, 0.999);
        }
        assert!(back_off.after(ReasonCode::Misconfigured, Duration::ZERO, 0.999) < Duration::from_secs(36));
    }

    /// What a scripted session does.
    enum Act {
        Fail(ReasonCode),
        PlayThenFail(Duration, ReasonCode),
        Play,
        /// Pictures for a second, none for five, and then again.
        Pause,
        Panic,
    }

    #[derive(Default)]
    struct Script {
        acts: Mutex<VecDeque<Act>>,
        runs: Mutex<Vec<Instant>>,
    }

    #[async_trait]
    impl Adapter for Arc<Script> {
        async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
            self.runs.lock().unwrap().push(Instant::now());
            let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Play);
            match act {
                Act::Fail(code) => Err(AdapterError::new(code, "as the script says")),
                Act::PlayThenFail(after, code) => {
                    io.playing.send_replace(true);
                    tokio::time::sleep(after).await;
                    Err(AdapterError::new(code, "as the script says"))
                }
                Act::Play => {
                    io.playing.send_replace(true);
                    io.cancel.cancelled().await;
                    Ok(())
                }
                Act::Pause => {
                    for (playing, seconds) in [(true, 1), (false, 5), (true, 0)] {
                        io.playing.send_replace(playing);
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                    }
                    io.cancel.cancelled().await;
                    Ok(())
                }
                Act::Panic => panic!("as the script says"),
            }
        }
    }

    struct Stage {
        bus: Arc<Bus>,
        device: Arc<Device>,
        script: Arc<Script>,
        cancel: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn play(acts: impl Into<VecDeque<Act>>, on_demand: Option<Duration>, leads: bool) -> Stage {
        let bus = Bus::new();
        let device = Device::new(DeviceOptions {
            name: "front".into(),
            family: "rtsp",
            main: Stream::new("front", Limits::default()),
            sub: SubStream::None,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        });
        let script = Arc::new(Script { acts: Mutex::new(acts.into()), runs: Mutex::default() });
        let supervisor = Supervisor {
            rotation: Rotation::None,
            adapter: Arc::clone(&script),
            bus: Arc::clone(&bus),
            device: Arc::clone(&device),
            stream: Arc::clone(device.main()),
            leads,
            on_demand,
            pace: Pace { jitter: 0.0, ..Pace::default() },
        };
        let cancel = CancellationToken::new();
        let task = tokio::spawn(supervisor.run(cancel.clone()));
        Stage { bus, device, script, cancel, task }
    }

    impl Stage {
        async fn reaches(&self, state: State) {
            self.device.watch_status().wait_for(|status| status.state == state).await.unwrap();
        }

        fn events(&self) -> Vec<EventKind> {
            self.bus.events.since(None).0.iter().map(|event| event.kind.clone()).collect()
        }

        /// Seconds between attempts.
        fn gaps(&self) -> Vec<u64> {
            let runs = self.script.runs.lock().unwrap();
            runs.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_follow_the_reason_and_the_status_tells_it() {
        use ReasonCode::{Busy, Denied, Unreachable};
        let stage = play([Act::Fail(Unreachable), Act::Fail(Busy), Act::Fail(Denied)], None, true);
        stage.reaches(State::Offline).await;
        assert_eq!(stage.device.status().reason.unwrap().code, Unreachable);
        stage.reaches(State::Online).await;
        assert_eq!(stage.device.status().reason, None);
        assert_eq!(stage.gaps(), [1, 10, 900]);
        assert_eq!(stage.events(), [EventKind::Offline, EventKind::Online]);
        stage.cancel.cancel();
        stage.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn health_starts_the_scale_over_and_events_come_once_a_change() {
        let minute = Duration::from_secs(60);
        let lost = ReasonCode::Unreachable;
        let acts = [Act::Fail(lost), Act::Fail(lost), Act::PlayThenFail(minute, lost), Act::Fail(lost)];
        let stage = play(acts, None, true);
        stage.reaches(State::Offline).await;
        stage.reaches(State::Online).await;
        stage.reaches(State::Offline).await;
        stage.reaches(State::Online).await;
        assert_eq!(stage.gaps(), [1, 2, 61, 2]);
        let (on, off) = (EventKind::Online, EventKind::Offline);
        assert_eq!(stage.events(), [off.clone(), on.clone(), off, on]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_falls_silent_within_a_session_is_away_meanwhile() {
        let stage = play([Act::Pause], None, true);
        stage.reaches(State::Online).await;
        stage.reaches(State::Offline).await;
        assert_eq!(stage.device.status().reason.unwrap().code, ReasonCode::Silent);
        stage.reaches(State::Online).await;
        assert_eq!(stage.events(), [EventKind::Online, EventKind::Offline, EventKind::Online]);
        assert_eq!(stage.gaps(), [0; 0], "one session");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_stays_with_its_device_and_is_a_failure_like_others() {
        let stage = play([Act::Panic], None, true);
        stage.reaches(State::Offline).await;
        stage.reaches(State::Online).await;
        assert_eq!(stage.gaps(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_once_when_cancelled() {
        let stage = play([Act::Fail(ReasonCode::Denied)], None, true);
        stage.reaches(State::Offline).await;
        let before = Instant::now();
        stage.cancel.cancel();
        stage.task.await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn on_demand_connects_for_viewers_only() {
        let stage = play([], Some(Duration::ZERO), true);
        stage.reaches(State::Idle).await;
        assert!(stage.script.runs.lock().unwrap().is_empty());
        for _ in 0..2 {
            let interest = stage.device.main().demand.register();
            stage.reaches(State::Online).await;
            drop(interest);
            stage.reaches(State::Idle).await;
        }
        assert_eq!(stage.script.runs.lock().unwrap().len(), 2);
        assert_eq!(stage.events(), [EventKind::Online], "coming and going on demand is nobody's business");
    }

    #[tokio::test(start_paused = true)]
    async fn viewers_on_demand_wait_the_back_off_out() {
        let stage = play([Act::Fail(ReasonCode::Busy)], Some(Duration::ZERO), true);
        let mut interest = stage.device.main().demand.register();
        stage.reaches(State::Offline).await;
        for _ in 0..20 {
            drop(interest);
            tokio::time::sleep(Duration::from_millis(10)).await;
            interest = stage.device.main().demand.register();
        }
        stage.reaches(State::Online).await;
        assert_eq!(stage.gaps(), [10]);
        drop(interest);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_of_a_second_stream_is_not_the_devices() {
        let stage = play([Act::Fail(ReasonCode::Silent)], None, false);
        while stage.script.runs.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(stage.device.status().state, State::Connecting);
        assert!(stage.events().is_empty());
    }
}
