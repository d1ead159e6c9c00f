//! A device as the rest of the program sees it: name, state, streams, connections, viewers, commands.

use super::command::{self, Command, CommandError, CommandInfo, CommandRequest};
use super::stream::Stream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};

/// Whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Media or a live session.
    Online,
    /// On the way.
    Connecting,
    /// Not there; [`Status::reason`] says why.
    Offline,
    /// On demand, and nobody watches.
    Idle,
}

impl State {
    /// The name in JSON and topics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Connecting => "connecting",
            Self::Offline => "offline",
            Self::Idle => "idle",
        }
    }
}

/// The class of a reason, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonCode {
    /// The device serves as many clients as it can.
    Busy,
    /// User name or password refused.
    Denied,
    /// Nothing answers at its address.
    Unreachable,
    /// Connected, but no media comes.
    Silent,
    /// It offers nothing that can be used.
    Unsupported,
    /// The configuration does not fit the device, as a path it does not know.
    Misconfigured,
}

impl ReasonCode {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Unsupported => "unsupported",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// Why a device is not online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// A sentence a person can act on. Never holds a secret.
    pub text: String,
}

/// The state of a device and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it is there.
    pub state: State,
    /// Why not.
    pub reason: Option<Reason>,
    /// Since when the state is this, by our clock.
    pub since: SystemTime,
}

/// Connections to a device, all its streams together: never more than its limit at once, not even while the limit is
/// lowered. Clones count together.
#[derive(Clone, Debug)]
pub struct Upstream(watch::Sender<Connections>);

#[derive(Clone, Copy, Debug)]
struct Connections {
    open: usize,
    limit: usize,
}

/// The right to one connection; dropping it gives it back.
#[derive(Debug)]
pub struct UpstreamPermit(Upstream);

impl Upstream {
    /// At most `limit` connections, at least one.
    pub fn new(limit: usize) -> Self {
        Self(watch::Sender::new(Connections { open: 0, limit: limit.max(1) }))
    }

    /// Waits for the right to open one connection. Hold it until the connection is closed on both sides. Cancel safe.
    pub async fn acquire(&self) -> UpstreamPermit {
        let mut changes = self.0.subscribe();
        loop {
            changes.mark_unchanged();
            let taken = self.0.send_if_modified(|connections| {
                let free = connections.open < connections.limit;
                connections.open += usize::from(free);
                free
            });
            if taken {
                return UpstreamPermit(self.clone());
            }
            // Cannot fail while we hold a sender.
            let _ = changes.changed().await;
        }
    }

    /// Allows so many from now on. Those that are open and too many stay; none is opened before enough of them are
    /// closed.
    pub fn set_limit(&self, limit: usize) {
        self.0.send_modify(|connections| connections.limit = limit.max(1));
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.0.borrow().open
    }

    /// How many may be open.
    pub fn limit(&self) -> usize {
        self.0.borrow().limit
    }
}

impl Drop for UpstreamPermit {
    fn drop(&mut self) {
        self.0.0.send_modify(|connections| connections.open = connections.open.saturating_sub(1));
    }
}

/// How many viewers a device has, all its streams together.
#[derive(Debug, Default)]
pub struct Viewers {
    /// RTSP sessions playing.
    pub rtsp: AtomicUsize,
    /// WebRTC peers.
    pub webrtc: AtomicUsize,
    /// Multipart JPEG readers.
    pub mjpeg: AtomicUsize,
}

/// Where `/NAME/sub` leads.
#[derive(Debug)]
pub enum SubStream {
    /// Nowhere.
    None,
    /// To the main stream: the device allows no second connection.
    Main,
    /// To a stream of its own.
    Own(Arc<Stream>),
}

/// What a [`Device`] is made of.
#[derive(Debug)]
pub struct DeviceOptions {
    /// The name in the configuration.
    pub name: String,
    /// The family's name, as `rtsp`.
    pub family: &'static str,
    /// The main stream.
    pub main: Arc<Stream>,
    /// Where `/NAME/sub` leads.
    pub sub: SubStream,
    /// Connections the device allows us, all streams together. Share it between the old and the new device of one
    /// name when the configuration is read again, so that they never exceed it together.
    pub upstream: Upstream,
    /// Who watches; those of the old device of that name go on.
    pub viewers: Arc<Viewers>,
}

/// One device.
#[derive(Debug)]
pub struct Device {
    options: DeviceOptions,
    status: watch::Sender<Status>,
    commands: watch::Sender<Vec<CommandInfo>>,
    session: Mutex<Option<mpsc::Sender<CommandRequest>>>,
    on_demand: AtomicBool,
    /// The bus's count of changes, once the device is on it.
    changes: OnceLock<watch::Sender<u64>>,
    /// Who watches.
    pub viewers: Arc<Viewers>,
}

impl Device {
    /// A device that has not been tried yet.
    pub fn new(options: DeviceOptions) -> Arc<Self> {
        let status = Status { state: State::Connecting, reason: None, since: SystemTime::now() };
        Arc::new(Self {
            viewers: Arc::clone(&options.viewers),
            options,
            status: watch::Sender::new(status),
            commands: watch::Sender::default(),
            session: Mutex::default(),
            on_demand: AtomicBool::new(false),
            changes: OnceLock::new(),
        })
    }

    /// The name in the configuration, in URLs and topics.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The family's name.
    pub fn family(&self) -> &'static str {
        self.options.family
    }

    /// The main stream.
    pub fn main(&self) -> &Arc<Stream> {
        &self.options.main
    }

    /// What is served at `/NAME/sub`, if anything.
    pub fn sub(&self) -> Option<&Arc<Stream>> {
        match &self.options.sub {
            SubStream::None => None,
            SubStream::Main => Some(&self.options.main),
            SubStream::Own(stream) => Some(stream),
        }
    }

    /// The streams of its own, main first.
    pub fn streams(&self) -> impl Iterator<Item = &Arc<Stream>> {
        let sub = match &self.options.sub {
            SubStream::Own(stream) => Some(stream),
            SubStream::None | SubStream::Main => None,
        };
        std::iter::once(&self.options.main).chain(sub)
    }

    /// The connections to the device.
    pub fn upstream(&self) -> &Upstream {
        &self.options.upstream
    }

    /// Its status now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Its status and all changes.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Sets the status; `since` moves only when the state does. Answers whether anything changed.
    pub fn set_status(&self, state: State, reason: Option<Reason>) -> bool {
        let changed = self.status.send_if_modified(|status| {
            if status.state == state && status.reason == reason {
                return false;
            }
            if status.state != state {
                status.since = SystemTime::now();
            }
            status.state = state;
            status.reason = reason;
            true
        });
        if changed {
            self.tell_bus();
        }
        changed
    }

    /// Whether it is connected only while somebody watches.
    pub fn is_on_demand(&self) -> bool {
        self.on_demand.load(Ordering::Relaxed)
    }

    /// Says whether it is connected only while somebody watches.
    pub fn set_on_demand(&self, on_demand: bool) {
        self.on_demand.store(on_demand, Ordering::Relaxed);
    }

    /// It is on a bus that counts changes there.
    pub(super) fn joined(&self, changes: &watch::Sender<u64>) {
        // A device is on one bus only.
        let _ = self.changes.set(changes.clone());
    }

    fn tell_bus(&self) {
        if let Some(changes) = self.changes.get() {
            changes.send_modify(|count| *count += 1);
        }
    }

    /// What it can be asked to do now.
    pub fn commands(&self) -> Vec<CommandInfo> {
        self.commands.borrow().clone()
    }

    /// Declares what it can be asked to do, and who carries it out; `None` when the session ends.
    pub fn serve_commands(&self, commands: Vec<CommandInfo>, session: Option<mpsc::Sender<CommandRequest>>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        self.commands.send_replace(commands);
        self.tell_bus();
    }

    /// Asks the device to do something; never queued, never repeated.
    ///
    /// # Errors
    /// [`CommandError`] says whether it refused, is absent, or did not answer within `patience`.
    pub async fn command(&self, command: Command, patience: Duration) -> Result<(), CommandError> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tracing::info!(device = self.name(), ?command, "command");
        command::send(session, command, patience).await
    }

    /// Ends its viewers: the device was removed.
    pub(super) fn end(&self) {
        for stream in self.streams() {
            stream.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Limits;

    fn device() -> Arc<Device> {
        Device::new(DeviceOptions {
            name: "front".into(),
            family: "rtsp",
            main: Stream::new("front", Limits::default()),
            sub: SubStream::Main,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        })
    }

    #[tokio::test]
    async fn connections_never_exceed_the_limit() {
        let upstream = Upstream::new(2);
        let first = upstream.acquire().await;
        let _second = upstream.acquire().await;
        assert_eq!(upstream.open(), 2);
        let third = upstream.acquire();
        tokio::pin!(third);
        assert!(futures::poll!(third.as_mut()).is_pending());
        drop(first);
        let third = third.await;
        assert_eq!(upstream.open(), 2);
        // With a lower limit both have to go before the next may come; with a higher one it may at once.
        upstream.set_limit(1);
        let fourth = upstream.acquire();
        tokio::pin!(fourth);
        drop(third);
        assert!(futures::poll!(fourth.as_mut()).is_pending());
        upstream.set_limit(2);
        let _fourth = fourth.await;
        assert_eq!((upstream.open(), upstream.limit()), (2, 2));
    }

    #[tokio::test]
    async fn commands_need_a_session_and_get_its_answer() {
        let device = device();
        let patience = Duration::from_secs(5);
        assert_eq!(device.command(Command::Reboot, patience).await, Err(CommandError::Absent));
        let (sender, mut receiver) = mpsc::channel(1);
        device.serve_commands(Vec::new(), Some(sender));
        tokio::spawn(async move {
            let request: CommandRequest = receiver.recv().await.unwrap();
            request.answer.send(Err(CommandError::Refused("not now".into()))).unwrap();
        });
        assert_eq!(device.command(Command::Reboot, patience).await, Err(CommandError::Refused("not now".into())));
        assert_eq!(device.command(Command::Reboot, patience).await, Err(CommandError::Absent));
    }

    #[test]
    fn since_moves_with_the_state_only() {
        let device = device();
        let reason = |text: &str| Some(Reason { code: ReasonCode::Busy, text: text.into() });
        assert!(device.set_status(State::Offline, reason("one")));
        let since = device.status().since;
        assert!(device.set_status(State::Offline, reason("two")));
        assert_eq!(device.status().since, since);
        assert!(!device.set_status(State::Offline, reason("two")));
    }

    #[test]
    fn paths_lead_to_streams() {
        let bus = super::super::Bus::new();
        bus.add(device());
        assert!(Arc::ptr_eq(&bus.stream("front").unwrap().1, &bus.stream("front/sub").unwrap().1));
        assert!(bus.stream("front/other").is_none() && bus.stream("back").is_none() && bus.stream("").is_none());
        bus.remove("front");
        assert!(bus.stream("front").is_none());
    }
}
