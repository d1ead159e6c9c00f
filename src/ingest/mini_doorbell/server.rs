//! The server that the units call: connections, uploads, and who gets the visits.
//!
//! What it holds of strangers' bytes is bounded, whatever comes: 64 connections of at most 64 KiB of picture and 4 KiB
//! of reading each (4.3 MiB), 64 torn pictures (4 MiB), 8 MiB on the way to cameras, 32 pictures of new bells of at most
//! 256 KiB (8 MiB), 16 damaged uploads (1 MiB): less than 26 MiB in all, and kernel buffers of as many connections again
//! that wait for a place. Pictures of cameras and of events are kept by the [bus](crate::bus), under its own limits.

use super::datagrams::{self, Announcing};
use super::door::{Queued, Trickle};
use super::upload::{Patience, Receiver, Step, Upload};
use super::visits::{Verdict, Visit, Visits};
use super::{BellId, Config, picture};
use crate::bus::{Bus, EventKind};
use crate::config::{Announce, Unknown};
use crate::ingest::serve::{self, Limits, Seldom};
use crate::ingest::{Doors, Plan, Running, Source, spawn, threads};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Read at once from a connection.
const READ: usize = 4 << 10;
/// Bells that get cameras of their own; more are kept as new.
const MOST_ACCEPTED: usize = 256;
/// What is told when such a bell rings.
const NEW_DOORBELL: &str = "new_doorbell";
/// A longer picture of a new bell is not kept; units send at most 16,500 bytes.
const LONGEST_PICTURE: usize = 256 << 10;

/// How the server treats its callers; parameters, so that tests need not wait.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long it waits for what.
    pub patience: Patience,
    /// How many may call at the same time: a unit needs one connection.
    pub limits: Limits,
    /// The port of the units that is asked who is there, and told our address.
    pub control: SocketAddr,
    /// How often.
    pub announce_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            limits: Limits { connections: 64, per_address: 4, wait: Duration::from_secs(2) },
            control: SocketAddr::new(Ipv4Addr::BROADCAST.into(), datagrams::CONTROL_PORT),
            announce_every: Duration::from_secs(60),
        }
    }
}

/// Takes visitors' pictures from units and gives them to cameras.
#[derive(Debug)]
pub struct Server {
    bus: Arc<Bus>,
    doors: Arc<Doors>,
    options: Options,
    /// What cameras of bells that nobody named are made of, but for name and source.
    plan: Plan,
    unknown: Mutex<Unknown>,
    visits: Mutex<Visits>,
    /// Something torn waits.
    torn: Notify,
    accepted: Mutex<BTreeMap<BellId, Running>>,
    /// Bytes of pictures in connections, now and at most so far.
    uploading: AtomicUsize,
    most: AtomicUsize,
    /// Ends the cameras of unnamed bells, should nobody stop them.
    cancel: CancellationToken,
    tasks: TaskTracker,
    flood: Seldom,
    denied: Seldom,
    resets: Seldom,
    new: Seldom,
    /// Events about new bells. Anybody can be any number of bells, and each event goes to all who listen.
    told: Trickle,
}

impl Server {
    /// Nothing is served before [`Self::serve`]. `plan` is what cameras of unnamed bells are made of; its name and source
    /// do not count.
    pub fn new(bus: &Arc<Bus>, plan: Plan, unknown: Unknown, options: Options) -> Arc<Self> {
        Arc::new(Self {
            bus: Arc::clone(bus),
            doors: Arc::clone(&plan.doors),
            options,
            plan,
            unknown: Mutex::new(unknown),
            visits: Mutex::default(),
            torn: Notify::new(),
            accepted: Mutex::default(),
            uploading: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            flood: Seldom::default(),
            denied: Seldom::default(),
            resets: Seldom::default(),
            new: Seldom::default(),
            told: Trickle::default(),
        })
    }

    /// Treats bells that no camera names like this from now on. Cameras that they have already stay.
    pub fn set_unknown(&self, unknown: Unknown) {
        *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) = unknown;
    }

    /// The most bytes of callers that were held at the same time so far: in connections, torn, on the way to cameras, and
    /// kept of new bells and damaged uploads.
    pub fn most_held(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Serves until `cancel` is cancelled and the cameras of unnamed bells are stopped. Uploads that are under way are
    /// reset, so that the units send them again to whoever comes after us.
    pub async fn serve(self: Arc<Self>, listeners: Vec<TcpListener>, cancel: CancellationToken) {
        let talk = {
            let (server, cancel) = (Arc::clone(&self), cancel.clone());
            move |socket, peer| {
                let (server, cancel) = (Arc::clone(&server), cancel.clone());
                async move { server.talk(socket, peer, cancel).await }
            }
        };
        let late = async {
            tokio::select! {
                () = self.tell_torn() => {}
                () = self.give_up_named() => {}
                () = cancel.cancelled() => {}
            }
        };
        tokio::join!(serve::serve_tcp(listeners, self.options.limits, &cancel, talk), late);
        self.tasks.close();
        self.tasks.wait().await;
        let accepted = std::mem::take(&mut *self.accepted.lock().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(accepted.values().map(Running::stop)).await;
    }

    /// Tells the units every minute to upload to this machine, until `cancel` is cancelled: a unit that restarts forgets.
    pub async fn announce(self: Arc<Self>, announce: Announce, cancel: CancellationToken) {
        let wanted = |id| match *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) {
            Unknown::Accept | Unknown::Learn => true,
            Unknown::Deny => self.doors.bells.takes(id),
        };
        let announcing = Announcing {
            control: self.options.control,
            every: self.options.announce_every,
            address: match announce {
                Announce::Auto => None,
                Announce::Address(address) => Some(address),
            },
        };
        tokio::select! {
            () = datagrams::announce(announcing, wanted) => {}
            () = cancel.cancelled() => {}
        }
    }

    /// Hears the units' registrations as signs of life, until `cancel` is cancelled; never answers.
    pub async fn listen_for_presence(self: Arc<Self>, socket: UdpSocket, cancel: CancellationToken) {
        tokio::select! {
            () = datagrams::presence(socket, |id| self.doors.bells.alive(id)) => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn talk(self: Arc<Self>, mut socket: TcpStream, peer: SocketAddr, cancel: CancellationToken) {
        let mut receiver = Receiver::new(self.options.patience, Instant::now());
        let mut buffer = vec![0; READ];
        let mut held = Held { server: &self, bytes: 0 };
        loop {
            let deadline = receiver.deadline().into();
            let read = tokio::select! {
                read = timeout_at(deadline, socket.read(&mut buffer)) => read,
                () = cancel.cancelled() => {
                    if !receiver.is_done() {
                        serve::reset(socket);
                    }
                    return;
                }
            };
            let now = Instant::now();
            let step = match read {
                Err(_) => receiver.timeout(now),
                Ok(Ok(0) | Err(_)) => Step::Close,
                Ok(Ok(count)) => receiver.received(buffer.get(..count).unwrap_or_default(), now),
            };
            match step {
                Step::Read(_) => held.set(receiver.held()),
                Step::Took(upload) => {
                    self.took(upload, peer.ip(), now);
                    held.set(0);
                }
                Step::Close => break,
                Step::Reset(why) => {
                    if let Some(more) = self.resets.ripe(now) {
                        tracing::info!(from = %peer.ip(), why, more, "a connection to the doorbells' port is reset");
                    }
                    serve::reset(socket);
                    break;
                }
            }
        }
        if let Some(torn) = receiver.ended() {
            self.took(torn, peer.ip(), Instant::now());
        }
    }

    fn took(self: &Arc<Self>, upload: Upload, from: IpAddr, now: Instant) {
        let (id, length) = (upload.id(), upload.body.len());
        if !upload.header.is_consistent() {
            tracing::debug!(%id, total = upload.header.total, length, "the two lengths in the header contradict each other");
        }
        let verdict = self.visits.lock().unwrap_or_else(PoisonError::into_inner).took(upload, from, now);
        match verdict {
            Verdict::New(visit) => self.visit(visit),
            Verdict::Waits(_) => self.torn.notify_one(),
            Verdict::Repeat => tracing::debug!(%id, length, "the same picture again"),
            Verdict::Flood => {
                if let Some(more) = self.flood.ripe(now) {
                    tracing::warn!(%id, %from, more, "more visitors in a minute than a bell has; the rest is dropped");
                }
            }
        }
    }

    /// Tells torn visits that nothing better followed.
    async fn tell_torn(self: &Arc<Self>) {
        loop {
            let next = self.visits.lock().unwrap_or_else(PoisonError::into_inner).next_due();
            match next {
                None => self.torn.notified().await,
                Some(next) => tokio::time::sleep_until(next.into()).await,
            }
            let due = self.visits.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now());
            for visit in due {
                self.visit(visit);
            }
        }
    }

    fn visit(self: &Arc<Self>, visit: Visit) {
        let Err(visit) = self.doors.bells.deliver(visit) else { return self.note() };
        let (server, queued) = (Arc::clone(self), self.doors.bells.queue(visit));
        self.note();
        // Cameras may be made of it: work for the threads of cameras.
        self.tasks.spawn_on(async move { server.stranger(queued).await }, &threads::handle());
    }

    /// A visit that no camera takes, or not at this moment.
    async fn stranger(&self, queued: Queued) {
        let (id, bells) = (queued.visit.id(), &self.doors.bells);
        if bells.comes_back(id).await && bells.deliver(queued.visit.clone()).is_ok() {
            return;
        }
        let unknown = *self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        match unknown {
            Unknown::Accept if self.accept(id) => {
                // Its camera has its place at the door already.
                let _ = bells.deliver(queued.visit.clone());
            }
            Unknown::Accept | Unknown::Learn => self.learn(&queued.visit, Instant::now()).await,
            Unknown::Deny => {
                if let Some(more) = self.denied.ripe(Instant::now()) {
                    tracing::warn!(%id, more, "a doorbell that no camera names rings; it is ignored");
                }
            }
        }
    }

    /// Makes a camera for a bell that nobody names. Answers whether it has one.
    fn accept(&self, id: BellId) -> bool {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.contains_key(&id) {
            return true;
        }
        let name = accepted_name(id);
        if accepted.len() >= MOST_ACCEPTED || self.bus.device(&name).is_some() {
            return false;
        }
        tracing::info!(camera = name, "a new doorbell rang, and became a camera until the next start");
        self.bus.events.set_guest(&name, true);
        let source = Source::MiniDoorbell(Config { id: Some(id) });
        let plan = Plan { name, rotation: source.usual_rotation(), source, ..self.plan.clone() };
        accepted.insert(id, spawn(&self.bus, plan, None, &self.cancel));
        true
    }

    /// Takes away the cameras of bells that the configuration names by now.
    async fn give_up_named(&self) {
        let mut changes = self.doors.bells.changes();
        while changes.changed().await.is_ok() {
            let named: Vec<(BellId, Running)> = {
                let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                accepted.extract_if(.., |id, _| self.doors.bells.names(*id) > 1).collect()
            };
            for (id, running) in named {
                let name = accepted_name(id);
                self.bus.events.set_guest(&name, false);
                // By now another camera may have that name.
                if self.bus.device(&name).is_some_and(|device| Arc::ptr_eq(&device, running.device())) {
                    self.bus.remove(&name);
                }
                running.stop().await;
            }
        }
    }

    async fn learn(&self, visit: &Visit, now: Instant) {
        let id = visit.id();
        let rotation = Source::MiniDoorbell(Config::default()).usual_rotation();
        let decode = || {
            let whole = picture::check(&visit.body, rotation);
            whole.ok().or_else(|| picture::check(&picture::salvage(&visit.body)?, rotation).ok())
        };
        // Whoever finds the port can send many: what is too much for one thread is told without its picture.
        let picture = match visit.body.is_empty() {
            true => None,
            false => self.doors.bells.foreign.take(decode).await.flatten(),
        };
        let picture = picture.map(|checked| checked.bytes);
        let picture = picture.filter(|picture| picture.len() <= LONGEST_PICTURE);
        // Who calls with one id after the other is new for ever.
        if self.doors.bells.learn(id, picture.clone())
            && let Some(more) = self.new.ripe(now)
        {
            tracing::info!(%id, more, "a new doorbell rang; `source: mini-doorbell://{id}` makes it a camera");
        }
        self.note();
        if !self.told.passes(now) {
            // The list of new bells has its newest picture all the same.
            return;
        }
        let kind = EventKind::Other(NEW_DOORBELL.to_owned());
        let detail = Map::from_iter([("id".to_owned(), json!(id.to_string()))]);
        self.bus.events.tell_with("", kind, None, picture, detail);
    }

    /// Notes how much is held.
    fn note(&self) {
        let torn = self.visits.lock().unwrap_or_else(PoisonError::into_inner).held();
        let held = self.uploading.load(Ordering::Relaxed) + torn + self.doors.bells.held();
        self.most.fetch_max(held, Ordering::Relaxed);
    }
}

/// The name of the camera of a bell that nobody names.
fn accepted_name(id: BellId) -> String {
    format!("bell_{id}")
}

/// Bytes of one connection, counted among all until it ends.
struct Held<'a> {
    server: &'a Server,
    bytes: usize,
}

impl Held<'_> {
    fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.server.uploading.fetch_add(bytes, Ordering::Relaxed);
            self.server.uploading.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
            self.server.note();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.server.uploading.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Header, function};
    use super::*;

    #[tokio::test]
    async fn invented_bells_fill_neither_the_log_nor_the_events() {
        let (bus, start) = (Bus::new(), Instant::now());
        let plan = Plan::new("", Source::MiniDoorbell(Config::default()));
        let server = Server::new(&bus, plan, Unknown::Learn, Options::default());
        let ring = async |n: u64, now| {
            let header = Header::new(BellId(n.to_be_bytes()), function::VISITOR, 1, 4);
            server
                .learn(&Visit { header, body: bytes::Bytes::from_static(b"face"), whole: true, late: false }, now)
                .await;
        };
        let told = || bus.events.counts().iter().map(|(_, count)| *count).sum::<u64>();
        for n in 0..1_000 {
            ring(n, start).await;
        }
        assert_eq!(told(), u64::from(Trickle::AT_ONCE));
        for second in 1..=5 {
            for n in 0..33 {
                ring(n, start + Duration::from_secs(second)).await;
            }
        }
        assert_eq!(told(), u64::from(Trickle::AT_ONCE) + 5);
        let more = server.new.ripe(start + Duration::from_secs(60)).unwrap();
        assert_eq!(more, 1_000 + 5 * 33 - 1, "lines that were not written");
        let newest = &server.doors.bells.strangers()[0];
        assert_eq!(newest.id, BellId(32_u64.to_be_bytes()), "the list is up to date");
    }
}
