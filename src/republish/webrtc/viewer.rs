//! The task of a viewer.

use super::cursor::{Batch, Cursor, Step, Wanted};
use super::mux::{Arrived, Path, Registration};
use super::output::{self, Output, Wait};
use super::peer::{Class, Event, Feedback, Ice, Secure, new_credentials, read_feedback};
use super::plan::{Lane, LaneSource, Plan};
use super::server::Shared;
use super::session::{Command, Session};
use crate::access::User;
use crate::bus::{Device, Stream, TrackId};
use crate::media::Kind;
use crate::republish::rtp::{Feed, NtpLine, bye};
use crate::transcode::Rendition;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Packets that are sent again within a second at most, by all that viewers need and no attack uses.
const AGAIN: usize = 512;
/// A source that says it is ready and has nothing is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a viewer's task begins with.
pub(super) struct Arrangement {
    pub(super) shared: Arc<Shared>,
    pub(super) ice: Ice,
    pub(super) secure: Secure,
    pub(super) registration: Registration,
    pub(super) inbox: mpsc::Receiver<Arrived>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) plan: Plan,
    /// Of the pictures and of the sound.
    pub(super) ssrc: (u32, u32),
    pub(super) device: Arc<Device>,
    pub(super) peer: IpAddr,
    pub(super) user: Option<Arc<User>>,
    pub(super) session: Session,
    pub(super) created: Instant,
}

/// Tracks that come from one stream.
#[derive(Clone, Debug)]
struct Group {
    stream: Arc<Stream>,
    lanes: Vec<GroupLane>,
}

#[derive(Clone, Debug)]
struct GroupLane {
    kind: Kind,
    payload_type: u8,
    ssrc: u32,
    /// `None`: the only track of a rendition, whatever its id.
    track: Option<TrackId>,
}

/// What became of waiting for a group's stream.
type Acquired = Option<(Arc<Feed>, Vec<Wanted>)>;

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As asked by its owner, or because all ends.
    Asked,
    /// The viewer did not get through in time.
    NotConnected,
    /// The handshake failed.
    Refused,
    /// The viewer said goodbye.
    Left,
    /// Nothing is heard of the viewer.
    Vanished,
    /// What it watches is over.
    Over,
    /// The user is no more, or another.
    Revoked,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked to",
            Self::NotConnected => "did not connect in time",
            Self::Refused => "handshake failed",
            Self::Left => "left",
            Self::Vanished => "vanished",
            Self::Over => "the stream is over",
            Self::Revoked => "the user was changed",
        }
    }
}

/// A viewer.
pub(super) struct Viewer {
    shared: Arc<Shared>,
    ice: Ice,
    secure: Secure,
    registration: Registration,
    inbox: mpsc::Receiver<Arrived>,
    commands: mpsc::Receiver<Command>,
    session: Session,
    device: Arc<Device>,
    peer: IpAddr,
    user: Option<Arc<User>>,
    created: Instant,
    renditions: Vec<(u32, Arc<Rendition>)>,
    ssrcs: Vec<u32>,
    acquiring: FuturesUnordered<BoxFuture<'static, (bool, Acquired)>>,
    cursors: Vec<Cursor>,
    /// The index of the cursor whose end is the viewer's.
    leader: Option<usize>,
    line: Option<NtpLine>,
    output: Output,
    batch: Batch,
    /// When something authentic came last.
    heard: Instant,
    asked: Instant,
    again: (Instant, usize),
    lost: Vec<(u32, u32)>,
    connected: bool,
}

impl Viewer {
    pub(super) fn new(arrangement: Arrangement) -> Self {
        let Arrangement { shared, ice, secure, registration, inbox, commands, plan, ssrc, .. } = arrangement;
        let Arrangement { device, peer, user, session, created, .. } = arrangement;
        let (groups, renditions) = groups(&plan, ssrc);
        let acquiring = FuturesUnordered::new();
        for (index, group) in groups.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let wait: BoxFuture<'static, _> = Box::pin(async move { (index == 0, acquire(&shared, group).await) });
            acquiring.push(wait);
        }
        Self {
            ssrcs: [plan.video.map(|_| ssrc.0), plan.audio.map(|_| ssrc.1)].into_iter().flatten().collect(),
            shared,
            ice,
            secure,
            registration,
            inbox,
            commands,
            session,
            device,
            peer,
            user,
            created,
            renditions,
            acquiring,
            cursors: Vec::new(),
            leader: None,
            line: None,
            output: Output::new(0, created),
            batch: Batch::default(),
            heard: created,
            asked: created,
            again: (created, 0),
            lost: Vec::new(),
            connected: false,
        }
    }

    /// Serves the viewer to the end.
    pub(super) async fn run(mut self) {
        // Whatever happens in here, signalling hears that it is over.
        let _closed = self.session.closed.clone().drop_guard();
        let end = self.serve().await;
        self.goodbye();
        let name = self.device.name();
        if self.connected {
            self.device.viewers.webrtc.fetch_sub(1, Ordering::Relaxed);
            let seconds = self.created.elapsed().as_secs();
            tracing::info!(camera = name, peer = %self.peer, seconds, why = end.name(), "a WebRTC viewer is gone");
        } else {
            tracing::info!(camera = name, peer = %self.peer, why = end.name(), "a WebRTC session ended before it began");
        }
    }

    async fn serve(&mut self) -> End {
        let stop = self.session.stop.clone();
        let cancel = self.shared.cancel.clone();
        let mut sessions = self.shared.access.get().map(|access| access.sessions_changed());
        loop {
            let now = Instant::now();
            let wait = match self.send(now) {
                Ok(wait) => wait,
                Err(end) => return end,
            };
            let due = match self.timers(now) {
                Ok(due) => due,
                Err(end) => return end,
            };
            let due = match wait {
                Wait::Until(at) => due.min(at),
                Wait::Nothing | Wait::Room => due,
            };
            let path = self.ice.path().filter(|_| wait == Wait::Room).cloned();
            let level = self.connected && wait == Wait::Nothing;
            let ended = tokio::select! {
                () = stop.cancelled() => Some(End::Asked),
                () = cancel.cancelled() => Some(End::Asked),
                Some(arrived) = self.inbox.recv() => self.receive(&arrived),
                Some(command) = self.commands.recv() => {
                    self.command(command);
                    None
                }
                Some((leads, acquired)) = self.acquiring.next() => self.acquired(leads, acquired),
                () = changed(&mut self.cursors), if level => None,
                () = room(path.as_ref()), if path.is_some() => None,
                lost = lost(self.ice.path().cloned()) => {
                    self.ice.lost(&lost);
                    None
                }
                () = tokio::time::sleep_until(due.into()) => None,
                () = revoked(&mut sessions) => {
                    let access = self.shared.access.get();
                    let valid = access.is_none_or(|access| access.is_valid(self.peer, self.user.as_deref()));
                    (!valid).then_some(End::Revoked)
                }
            };
            if let Some(end) = ended {
                return end;
            }
        }
    }

    /// Sends what there is until the path takes no more; says what to wait for.
    fn send(&mut self, now: Instant) -> Result<Wait, End> {
        let Some(path) = self.ice.path().cloned() else { return Ok(Wait::Nothing) };
        if !self.connected {
            return Ok(Wait::Nothing);
        }
        let mut dropped = 0;
        let result = loop {
            let wait = self.output.flush(&path, now);
            if wait != Wait::Nothing {
                break Ok(wait);
            }
            let mut sent = false;
            let mut ended = false;
            for (index, cursor) in self.cursors.iter_mut().enumerate() {
                match cursor.step() {
                    Step::Unit(position, unit) => {
                        let line = *self.line.get_or_insert_with(|| cursor.feed().line());
                        cursor.write(position, &unit, line, &mut self.secure, &mut self.batch);
                        sent = true;
                    }
                    Step::Level => {}
                    Step::Ended => ended |= self.leader == Some(index),
                }
                dropped += std::mem::take(&mut cursor.dropped);
            }
            self.shared.statistics.packets.fetch_add(std::mem::take(&mut self.batch.media), Ordering::Relaxed);
            self.output.push(&mut self.batch, &path);
            if ended && !sent {
                break Err(End::Over);
            }
            if !sent {
                break Ok(self.output.flush(&path, now));
            }
        };
        if dropped > 0 {
            self.shared.statistics.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        result
    }

    /// Does what is due and says when the next thing is.
    fn timers(&mut self, now: Instant) -> Result<Instant, End> {
        if self.secure.timeout(now).is_err() {
            return Err(End::Refused);
        }
        self.send_handshake();
        let options = &self.shared.options;
        let handshake = self.secure.next_timeout();
        if !self.connected {
            let limit = self.created + options.connect_within;
            if now >= limit {
                return Err(End::NotConnected);
            }
            return Ok(handshake.map_or(limit, |at| at.min(limit)));
        }
        let limit = self.heard + options.silent_after;
        if now >= limit {
            return Err(End::Vanished);
        }
        let mut ask = self.heard.max(self.asked) + options.ask_after;
        if now >= ask {
            self.asked = now;
            ask = now + options.ask_after;
            if let Some((path, check)) = self.ice.probe() {
                output::send(&path, &check);
            }
        }
        Ok(limit.min(ask))
    }

    fn receive(&mut self, arrived: &Arrived) -> Option<End> {
        let Arrived { path, datagram } = arrived;
        let now = Instant::now();
        match Class::of(datagram) {
            Class::Stun => {
                let answered = self.ice.receive(datagram, path, now);
                if answered.authentic {
                    self.heard = now;
                    self.registration.add_path(path);
                }
                if let Some(reply) = answered.reply {
                    output::send(path, &reply);
                }
                if answered.selected {
                    tracing::debug!(peer = %self.peer, via = path.name(), remote = %path.remote(), "a path was nominated");
                    self.secure.begin(now);
                    self.send_handshake();
                }
                None
            }
            Class::Dtls => {
                let event = self.secure.receive(datagram, now);
                self.send_handshake();
                match event {
                    Ok(Some(Event::Connected)) => {
                        self.connect(now);
                        None
                    }
                    Ok(Some(Event::Closed)) => Some(End::Left),
                    Ok(None) => None,
                    Err(error) => {
                        tracing::debug!(peer = %self.peer, %error, "the DTLS handshake failed");
                        Some(End::Refused)
                    }
                }
            }
            Class::Media => {
                let packet = self.secure.unprotect_rtcp(datagram)?;
                self.heard = now;
                read_feedback(&packet).into_iter().find_map(|feedback| self.feedback(feedback, now))
            }
            Class::Other => None,
        }
    }

    fn connect(&mut self, now: Instant) {
        self.connected = true;
        self.heard = now;
        self.device.viewers.webrtc.fetch_add(1, Ordering::Relaxed);
        self.shared.statistics.viewers.fetch_add(1, Ordering::Relaxed);
        let millis = now.saturating_duration_since(self.created).as_millis() as u64;
        let via = self.ice.path().map_or("", Path::name);
        tracing::info!(camera = self.device.name(), peer = %self.peer, via, millis, "a WebRTC viewer joined");
    }

    fn feedback(&mut self, feedback: Feedback, now: Instant) -> Option<End> {
        match feedback {
            Feedback::Goodbye => return Some(End::Left),
            Feedback::KeyWanted { ssrc } => {
                if let Some((_, rendition)) = self.renditions.iter().find(|(known, _)| *known == ssrc) {
                    rendition.request_key();
                }
            }
            Feedback::Lost { ssrc, packets } => {
                // A signed number of 24 bits: duplicates make it negative.
                let packets = if packets < 1 << 23 { packets } else { 0 };
                let known = match self.lost.iter_mut().find(|(known, _)| *known == ssrc) {
                    Some((_, known)) => known,
                    None if self.ssrcs.contains(&ssrc) => {
                        self.lost.push((ssrc, 0));
                        &mut self.lost.last_mut()?.1
                    }
                    None => return None,
                };
                let more = packets.saturating_sub(*known);
                *known = (*known).max(packets);
                self.shared.statistics.lost.fetch_add(more.into(), Ordering::Relaxed);
            }
            Feedback::Missing { ssrc, seqs } => self.send_again(ssrc, &seqs, now),
        }
        None
    }

    fn send_again(&mut self, ssrc: u32, seqs: &[u16], now: Instant) {
        let Some(path) = self.ice.path() else { return };
        if matches!(path, Path::Tcp(_)) {
            // Nothing is lost there.
            return;
        }
        if now.saturating_duration_since(self.again.0) >= Duration::from_secs(1) {
            self.again = (now, 0);
        }
        let left = AGAIN.saturating_sub(self.again.1);
        let count: usize = self
            .cursors
            .iter()
            .map(|cursor| cursor.write_again(ssrc, seqs, left, &mut self.secure, &mut self.batch))
            .sum();
        self.again.1 += count;
        let statistics = &self.shared.statistics;
        statistics.retransmitted.fetch_add(count as u64, Ordering::Relaxed);
        statistics.packets.fetch_add(std::mem::take(&mut self.batch.media), Ordering::Relaxed);
        self.output.push(&mut self.batch, path);
    }

    fn command(&mut self, command: Command) {
        let Command::Restart(remote, answer) = command;
        let local = new_credentials();
        self.registration.add_fragment(&local.ufrag);
        self.ice.restart(local, remote);
        // Signalling may have given up waiting.
        let _ = answer.send(self.shared.restarted(self.ice.local().clone(), self.peer.is_loopback()));
    }

    fn acquired(&mut self, leads: bool, acquired: Acquired) -> Option<End> {
        let Some((feed, wanted)) = acquired else { return leads.then_some(End::Over) };
        if leads {
            self.output = Output::new(feed.rate(), Instant::now());
            self.leader = Some(self.cursors.len());
        }
        self.cursors.push(Cursor::new(feed, &wanted));
        None
    }

    fn send_handshake(&mut self) {
        while let Some(datagram) = self.secure.poll() {
            if let Some(path) = self.ice.path() {
                output::send(path, &datagram);
            }
        }
    }

    fn goodbye(&mut self) {
        if let Some(path) = self.ice.path().cloned() {
            if self.connected {
                for ssrc in &self.ssrcs {
                    if let Some(packet) = self.secure.protect_rtcp(&bye(*ssrc)) {
                        output::send(&path, &packet);
                    }
                }
            }
            self.secure.close(Instant::now());
            self.send_handshake();
            if let Path::Tcp(link) = path {
                link.finish();
            }
        }
    }
}

/// Which streams the lanes of a plan come from, that of the pictures first, and the renditions by SSRC.
fn groups(plan: &Plan, ssrc: (u32, u32)) -> (Vec<Group>, Vec<(u32, Arc<Rendition>)>) {
    let mut groups: Vec<Group> = Vec::new();
    let mut renditions = Vec::new();
    let lanes = [(Kind::Video, ssrc.0, plan.video.as_ref()), (Kind::Audio, ssrc.1, plan.audio.as_ref())];
    for (kind, ssrc, lane) in lanes {
        let Some(Lane { payload_type, source, .. }) = lane else { continue };
        let (stream, track) = match source {
            LaneSource::Native(stream, track) => (stream, Some(*track)),
            LaneSource::Rendition(rendition) => {
                renditions.push((ssrc, Arc::clone(rendition)));
                (rendition.stream(), None)
            }
        };
        let lane = GroupLane { kind, payload_type: *payload_type, ssrc, track };
        match groups.iter_mut().find(|group| Arc::ptr_eq(&group.stream, stream)) {
            Some(group) => group.lanes.push(lane),
            None => groups.push(Group { stream: Arc::clone(stream), lanes: vec![lane] }),
        }
    }
    (groups, renditions)
}

/// Waits until the stream can be watched; `None` if it has ended, or no longer has what was planned.
async fn acquire(shared: &Shared, group: Group) -> Acquired {
    loop {
        if !group.stream.ready().await {
            return None;
        }
        let Some(feed) = shared.options.feeds.of(&group.stream) else {
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        };
        let find = |lane: &GroupLane| {
            let index = feed.tracks().iter().position(|track| match lane.track {
                Some(id) => track.id == id,
                None => track.info.kind() == lane.kind,
            })?;
            Some(Wanted { index, payload_type: lane.payload_type, ssrc: lane.ssrc })
        };
        let wanted: Option<Vec<_>> = group.lanes.iter().map(find).collect();
        return wanted.map(|wanted| (feed, wanted));
    }
}

/// Waits until a cursor may have something new.
async fn changed(cursors: &mut [Cursor]) {
    match cursors {
        [] => std::future::pending().await,
        [one] => one.changed().await,
        [one, other, ..] => tokio::select! {
            () = one.changed() => {}
            () = other.changed() => {}
        },
    }
}

async fn room(path: Option<&Path>) {
    match path {
        Some(path) => output::room(path).await,
        None => std::future::pending().await,
    }
}

/// Waits until the path is of no use any more; datagrams tell nothing.
async fn lost(path: Option<Path>) -> Path {
    match path {
        Some(Path::Tcp(link)) => {
            link.closed().await;
            Path::Tcp(link)
        }
        _ => std::future::pending().await,
    }
}

async fn revoked(sessions: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    if let Some(sessions) = sessions
        && sessions.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
