//! A gateway and a simulated camera in invented time.

use super::*;
use crate::ingest::Source;
use crate::ingest::supervisor::{BackOff, Pace};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const CAMERA: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 21);
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);
/// One way.
pub(super) const LATENCY: Duration = ms(2);

/// What the supervisor does between sessions, with the worst luck.
pub(super) struct Supervised {
    back_off: BackOff,
    memory: Memory,
    again: Option<Instant>,
}

impl Supervised {
    pub(super) fn new(memory: Memory) -> Self {
        let pace = Source::Iwfcam(config()).pace(Pace::default());
        let mut back_off = BackOff::new(pace);
        for code in [ReasonCode::Unreachable, ReasonCode::Busy] {
            // At the end of the scale.
            for _ in 0..9 {
                let _ = back_off.after(code, Duration::ZERO, 1.0);
            }
        }
        Self { back_off, memory, again: None }
    }

    fn look(&mut self, world: &mut World) {
        match (&world.ended, self.again) {
            (Some(Err(error)), None) => {
                self.again = Some(world.now + self.back_off.after(error.code, Duration::ZERO, 1.0));
            }
            (Some(_), Some(again)) if again <= world.now => {
                self.again = None;
                world.restart(config(), self.memory.clone());
            }
            _ => {}
        }
    }
}

/// A gateway, a camera, and the network between them. Time goes in steps of a millisecond.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) started: Instant,
    pub(super) session: Iwfcam,
    pub(super) wake: Option<Instant>,
    pub(super) ended: Option<Result<(), SessionError>>,
    /// Where the session's links are open.
    pub(super) links: Vec<(Link, u16)>,
    pub(super) device: Device,
    pub(super) address: Ipv4Addr,
    pub(super) on: bool,
    pub(super) scene: Scene,
    pub(super) sound: Sound,
    pub(super) counter: u64,
    pub(super) pace: u64,
    pub(super) up: Network<(u16, SocketAddrV4, Bytes)>,
    pub(super) down: Network<Datagram>,
    pub(super) to_camera: Vec<(Instant, u16, SocketAddrV4, Bytes)>,
    pub(super) to_gateway: Vec<(Instant, Datagram)>,
    /// Ports of the gateway that somebody else has.
    pub(super) taken: Vec<u16>,
    pub(super) tracks: Vec<TrackInfo>,
    pub(super) samples: Vec<(Instant, usize, Sample)>,
    pub(super) lost: u64,
    /// Since when the session says that nothing comes any more.
    pub(super) away: Option<Instant>,
    pub(super) sent: Vec<(Instant, Bytes)>,
    pub(super) happened: Vec<Happened>,
    /// Pieces of pictures that came to the gateway, by the picture's number.
    pub(super) pieces: BTreeMap<u16, BTreeSet<u16>>,
    /// Pictures that came to it in all their pieces.
    pub(super) whole: BTreeSet<u16>,
}

pub(super) fn options() -> Options {
    Options { width: 64, height: 48, ..Options::default() }
}

pub(super) fn config() -> Config {
    Config { broadcast: Ipv4Addr::new(192, 168, 1, 255), ..Config::at(CAMERA) }
}

impl World {
    pub(super) fn new(config: Config, options: Options) -> Self {
        Self::with_memory(config, options, Memory::default())
    }

    pub(super) fn with_memory(config: Config, options: Options, memory: Memory) -> Self {
        let now = Instant::now();
        let (faults, pace) = (options.faults, 1000 / u64::from(options.fps));
        let mut world = Self {
            now,
            started: now,
            session: Iwfcam::new(config, memory, now),
            wake: None,
            ended: None,
            links: Vec::new(),
            device: Device::new(options, SocketAddrV4::new(CAMERA, 17_900), now),
            address: CAMERA,
            on: true,
            scene: bars(64, 48).unwrap(),
            sound: Sound::tone(false),
            counter: 0,
            pace,
            up: Network::new(Faults { reorder: 0.0, duplicate: 0.0, ..faults }, 1),
            down: Network::new(faults, 2),
            to_camera: Vec::new(),
            to_gateway: Vec::new(),
            taken: Vec::new(),
            tracks: Vec::new(),
            samples: Vec::new(),
            lost: 0,
            away: None,
            sent: Vec::new(),
            happened: Vec::new(),
            pieces: BTreeMap::new(),
            whole: BTreeSet::new(),
        };
        world.poll();
        world
    }

    /// A new session of the gateway, the camera as it is.
    pub(super) fn restart(&mut self, config: Config, memory: Memory) {
        self.session = Iwfcam::new(config, memory, self.now);
        (self.ended, self.wake) = (None, None);
        (self.links, self.samples, self.tracks) = (Vec::new(), Vec::new(), Vec::new());
        self.to_gateway.clear();
        self.poll();
    }

    pub(super) fn input(&mut self, input: impl FnOnce(&mut Iwfcam, Instant) -> Result<(), SessionError>) {
        if self.ended.is_some() {
            return;
        }
        if let Err(error) = input(&mut self.session, self.now) {
            self.ended = Some(Err(error));
            return;
        }
        self.poll();
    }

    pub(super) fn poll(&mut self) {
        loop {
            match self.session.poll() {
                Output::Wait(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "{:?} would spin", self.session.state);
                    self.wake = wake;
                    return;
                }
                Output::Done => {
                    self.ended = Some(Ok(()));
                    return;
                }
                Output::Open(link, Endpoint::Udp { local, toward, shared }) => {
                    assert_eq!(shared, link == LISTEN);
                    let busy = local.port() == 0 || self.taken.contains(&local.port());
                    let port = if busy { 50_000 + u16::from(link.0) } else { local.port() };
                    self.links.retain(|(open, _)| *open != link);
                    self.links.push((link, port));
                    let ip = if toward.is_some() { GATEWAY } else { Ipv4Addr::UNSPECIFIED };
                    self.input(|session, now| session.opened(link, SocketAddr::from((ip, port)), now));
                    return;
                }
                Output::Open(_, Endpoint::Tcp(_)) => panic!("this family has no TCP"),
                Output::Close(link) => self.links.retain(|(open, _)| *open != link),
                Output::Send { via, to, bytes } => self.sends(via, to, bytes),
                Output::Tracks(tracks) => self.tracks = tracks,
                Output::Media(track, sample) => {
                    assert!(track < self.tracks.len(), "media before its track");
                    self.samples.push((self.now, track, sample));
                    self.away = None;
                }
                Output::Lost(count) => self.lost += count,
                Output::Away => self.away = Some(self.now),
                Output::Answer(_, answer) => assert!(answer.is_err()),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) fn sends(&mut self, via: Link, to: Option<SocketAddr>, bytes: Bytes) {
        let Some((_, port)) = self.links.iter().find(|(open, _)| *open == via) else { return };
        if let Ok(Message::Control(control)) = TEG.parse(&bytes) {
            assert_eq!(policy(control.id, control.value), Policy::Needed, "never to be sent");
        }
        let Some(SocketAddr::V4(to)) = to else { panic!("a datagram to nobody") };
        assert_eq!(to.port() == 10_104, via == SEARCH);
        self.sent.push((self.now, bytes.clone()));
        for (port, to, bytes) in self.up.pass((*port, to, bytes)) {
            self.to_camera.push((self.now + LATENCY, port, to, bytes));
        }
    }

    pub(super) fn arrives(&mut self, datagrams: Vec<Datagram>) {
        for datagram in datagrams {
            let due = self.now + LATENCY;
            if let Some(garbage) = self.down.garbage() {
                self.to_gateway.push((due, Datagram { bytes: garbage, piece: None, ..datagram.clone() }));
            }
            self.to_gateway.extend(self.down.pass(datagram).into_iter().map(|datagram| (due, datagram)));
        }
    }

    /// Lets so many milliseconds pass.
    pub(super) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.step();
        }
    }

    /// Lets so many milliseconds pass; a session that ends is followed by another after the longest wait there is.
    pub(super) fn run_supervised(&mut self, millis: u64, supervisor: &mut Supervised) {
        for _ in 0..millis {
            self.step();
            supervisor.look(self);
        }
    }

    /// Lets time pass until that is so; 60 s are too long.
    pub(super) fn until(&mut self, what: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !what(self) {
            assert!(self.now < begun + Duration::from_secs(60), "it never came so far: {:?}", self.session.state);
            self.step();
        }
        self.now - begun
    }

    pub(super) fn step(&mut self) {
        self.now += ms(1);
        let (now, passed) = (self.now, (self.now - self.started).as_millis() as u64);
        let due: Vec<_> = self.to_camera.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, port, to, bytes) in due {
            let broadcast = to.ip().octets()[3] == 255;
            if !self.on || !(broadcast || *to.ip() == self.address) {
                continue;
            }
            let on = if to.port() == 10_104 { Port::Discovery } else { Port::Media };
            let out = self.device.received(on, SocketAddrV4::new(GATEWAY, port), &bytes, now);
            self.arrives(out);
        }
        if passed.is_multiple_of(self.pace) {
            let picture = self.scene.picture(self.counter);
            self.counter += 1;
            let out = self.device.picture(&picture, now);
            self.if_on(out);
        }
        if passed.is_multiple_of(128) {
            let block = self.sound.block();
            let out = self.device.sound(&block, now);
            self.if_on(out);
        }
        if passed.is_multiple_of(100) {
            let out = self.device.expire(now);
            self.if_on(out);
        }
        self.happened.extend(self.device.happened());
        let due: Vec<_> = self.to_gateway.extract_if(.., |(due, _)| *due <= now).collect();
        for (_, datagram) in due {
            let Some((link, _)) = self.links.iter().find(|(_, port)| *port == datagram.to.port()) else { continue };
            let (link, port) = (*link, if datagram.from == Port::Discovery { 10_104 } else { 17_900 });
            let from = SocketAddr::from((self.address, port));
            if let Some(piece) = datagram.piece.filter(|piece| piece.video && link == MEDIA) {
                let pieces = self.pieces.entry(piece.number).or_default();
                pieces.insert(piece.fragment);
                if pieces.len() == usize::from(piece.fragments) {
                    self.whole.insert(piece.number);
                }
            }
            self.input(|session, now| session.received(link, from, &datagram.bytes, now));
        }
        if self.wake.is_some_and(|wake| wake <= now) {
            self.wake = None;
            self.input(Iwfcam::timeout);
        }
    }

    pub(super) fn if_on(&mut self, out: Vec<Datagram>) {
        if self.on {
            self.arrives(out);
        }
    }

    pub(super) fn pictures(&self) -> Vec<&Sample> {
        self.samples.iter().filter(|(_, track, _)| *track == 0).map(|(_, _, sample)| sample).collect()
    }

    pub(super) fn playing(&self) -> bool {
        self.samples.last().is_some_and(|(at, ..)| self.now < *at + ms(300)) && !self.pictures().is_empty()
    }

    /// Every picture is one that was sent, none twice, in order.
    pub(super) fn check(&self) {
        let mut before = None;
        for sample in self.pictures() {
            let counter = Scene::counter(&sample.payload).expect("one of the camera's pictures");
            assert_eq!(sample.payload, self.scene.picture(counter), "torn");
            assert!(before.is_none_or(|before| counter > before), "{counter} after {before:?}");
            before = Some(counter);
        }
        for track in 0..2 {
            let ticks = self.samples.iter().filter(|(_, of, _)| *of == track).map(|(_, _, sample)| sample.ticks);
            assert!(ticks.is_sorted_by(|a, b| a < b));
        }
    }

    pub(super) fn error(&self) -> &SessionError {
        match &self.ended {
            Some(Err(error)) => error,
            other => panic!("{other:?} in {:?}", self.session.state),
        }
    }

    pub(super) fn logins(&self) -> usize {
        self.happened.iter().filter(|happened| matches!(happened, Happened::LoggedIn(..))).count()
    }
}
