//! A session with an IWFCam camera that says anything at any time.

use fanlight::bus::Command;
use fanlight::ingest::iwfcam::wire::{
    Answer, Found, Ids, LiveFormat, LoginAnswer, LoginResult, Media, MediaStream, Message, Notice, PictureHead, Policy,
    SearchAnswer, TEG, policy,
};
use fanlight::ingest::iwfcam::{Config, Iwfcam, Memory, Retransmission};
use fanlight::ingest::session::{CommandId, Endpoint, Link, Output, Session, SessionError};
use fanlight::media::jpeg;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const CAMERA: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 21);
const JPEG: &[u8] = include_bytes!("../../src/media/testdata/libjpeg-grey.jpg");
/// Pieces that a picture is cut into.
const PIECES: usize = 4;
/// Inputs of one run, so that five minutes are enough for a million runs.
const MAX_STEPS: usize = 300;

/// Plays the input:
///
/// | bytes | meaning |
/// |-------|---------|
/// | first | bit 0: found by its UID; bits 1 and 2: off, on, auto; bit 3: the media port is known |
/// | then, one a step | bits 0 to 3: what happens, see [`step`]; bits 4 to 7 and following bytes: how |
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let head = input.byte();
    let mut config = if head & 1 == 0 { Config::at(CAMERA) } else { Config::named("UID-1") };
    config.retransmission = [Retransmission::Off, Retransmission::On, Retransmission::Auto, Retransmission::Auto]
        [usize::from(head >> 1 & 3)];
    config.media_port = (head & 8 != 0).then_some(17_900);
    let start = Instant::now();
    let mut run = Run {
        session: Iwfcam::new(config, Memory::default(), start),
        now: start,
        wake: None,
        tracks: 0,
        last: [None; 2],
        raw: false,
        over: false,
        opened: Vec::new(),
        number: 0,
    };
    run.poll();
    for _ in 0..MAX_STEPS {
        if input.0.is_empty() || run.over {
            break;
        }
        step(&mut run, &mut input);
    }
    if !run.over {
        run.session.close(run.now);
        run.poll();
        for _ in 0..100 {
            if run.over {
                break;
            }
            let wake = run.wake.expect("a goodbye ends");
            run.now = run.now.max(wake);
            run.input(|session, now| session.timeout(now));
        }
        assert!(run.over, "a goodbye that never ends");
    }
}

fn step(run: &mut Run, input: &mut Input<'_>) {
    let byte = input.byte();
    let how = byte >> 4;
    match byte & 15 {
        0 => run.pass(u64::from(u16::from_le_bytes(input.take()))),
        1 => run.pass(u64::from(how) + 1),
        // The next thing that the session waits for.
        2 => {
            if let Some(wake) = run.wake {
                run.now = run.now.max(wake);
                run.input(|session, now| session.timeout(now));
            }
        }
        3 => {
            let found = Found { ids: [0, 0], media_port: 17_900, local: CAMERA, uid: "UID-1".into() };
            let bytes = SearchAnswer { valid: how & 1 == 0, cameras: vec![found] }.write(TEG);
            run.receive(Link(how & 2), &bytes, 10_104);
        }
        4 => {
            let result = match how {
                0..=7 => LoginResult::Accepted,
                8 | 9 => LoginResult::WrongIds,
                10 | 11 => LoginResult::Full,
                12 => LoginResult::WrongToken,
                other => LoginResult::Other(other.into()),
            };
            let ids = Ids([u32::from(input.byte()), 0, 0]);
            let session = i32::from(how & 3);
            let name = String::new();
            let answer = LoginAnswer { ids, result, session, media_port: 0, local: CAMERA, clients: 1, name };
            run.receive(Link(2), &answer.write(TEG), 17_900);
        }
        // Pieces of real pictures, mostly near each other.
        5..=7 => {
            let [step, fragment] = input.take();
            run.number = run.number.wrapping_add(u16::from(step % 8)).wrapping_sub(u16::from(step >> 6));
            let session = u32::from(how & 3);
            run.piece(session, usize::from(fragment) % PIECES, how & 4 == 0);
        }
        // A whole one.
        8 => {
            run.number = run.number.wrapping_add(1);
            (0..PIECES).for_each(|fragment| run.piece(u32::from(how & 3), fragment, how & 4 == 0));
        }
        9 => {
            let block = [input.byte(), input.byte(), input.byte(), 0, 0x12, 0x34, 0x56, 0x78];
            let clock = u32::from(input.byte()).wrapping_mul(40).to_le_bytes();
            run.number = run.number.wrapping_add(u16::from(how & 4));
            let (session, stream, number) = (u32::from(how & 3), MediaStream::Audio, run.number);
            let media = Media { session, stream, number, fragment: 0, extra: &clock, body: &block };
            run.receive(Link(2), &media.write(TEG), 17_900);
        }
        10 => {
            let session = u32::from(how & 3);
            let format = LiveFormat { width: 640, height: 480, fps: 15, format: *b"MJPG" };
            let bytes = match how >> 2 {
                0 => Answer::Live(u32::from(input.byte() & 3), format).write(TEG, session),
                1 => Answer::Close.write(TEG, session),
                2 => Notice::Close.write(TEG, session),
                _ => Notice::Heartbeat { clients: 1, fps: 15 }.write(TEG, session),
            };
            run.receive(Link(2), &bytes, 17_900);
        }
        11 => {
            let why = if how & 8 == 0 { Link(1) } else { Link(how & 3) };
            run.input(|session, now| session.closed(why, "it was taken away", now));
        }
        12 => {
            run.session.command(CommandId(how.into()), Command::Reboot, run.now);
            run.poll();
        }
        13 => {
            run.session.close(run.now);
            run.poll();
        }
        // Anything.
        _ => {
            let length = usize::from(input.byte()).min(input.0.len());
            let (bytes, rest) = input.0.split_at(length);
            input.0 = rest;
            run.raw = true;
            run.receive(Link(how & 3), bytes, if how & 4 == 0 { 17_900 } else { 10_104 });
        }
    }
}

struct Run {
    session: Iwfcam,
    now: Instant,
    wake: Option<Instant>,
    tracks: usize,
    last: [Option<i64>; 2],
    /// Bytes came that may be pieces of anything.
    raw: bool,
    over: bool,
    opened: Vec<Link>,
    number: u16,
}

impl Run {
    fn pass(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        for _ in 0..10_000 {
            match self.wake {
                Some(wake) if wake <= until && !self.over => {
                    self.now = self.now.max(wake);
                    self.input(|session, now| session.timeout(now));
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("it wakes up again and again");
    }

    fn receive(&mut self, via: Link, bytes: &[u8], port: u16) {
        let from = SocketAddr::from((CAMERA, port));
        self.input(|session, now| session.received(via, from, bytes, now));
    }

    fn piece(&mut self, session: u32, fragment: usize, with_head: bool) {
        let picture = picture(self.number);
        let length = picture.len().div_ceil(PIECES);
        let (total, fragments) = (picture.len() as u32, PIECES as u32);
        let head = PictureHead { total, fragments, width: 1, height: 1, clock: u32::from(self.number) * 66 }.bytes();
        let extra = if fragment == 0 && with_head { head.as_slice() } else { &[] };
        let body = picture.chunks(length).nth(fragment).unwrap_or_default();
        let (stream, number, fragment) = (MediaStream::Video, self.number, fragment as u16);
        let bytes = Media { session, stream, number, fragment, extra, body }.write(TEG);
        self.receive(Link(2), &bytes, 17_900);
    }

    fn input(&mut self, input: impl FnOnce(&mut Iwfcam, Instant) -> Result<(), SessionError>) {
        if self.over {
            return;
        }
        match input(&mut self.session, self.now) {
            Ok(()) => self.poll(),
            Err(error) => {
                assert!(!error.text.is_empty());
                self.over = true;
            }
        }
    }

    fn poll(&mut self) {
        for _ in 0..10_000 {
            match self.session.poll() {
                Output::Wait(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "it would spin");
                    self.wake = wake;
                    let Some(link) = self.opened.pop() else { return };
                    let local = SocketAddr::from(([192, 168, 1, 50], 41_773 + u16::from(link.0)));
                    return self.input(|session, now| session.opened(link, local, now));
                }
                Output::Done => {
                    self.over = true;
                    return;
                }
                Output::Open(link, Endpoint::Udp { .. }) => self.opened.push(link),
                Output::Open(_, Endpoint::Tcp(_)) => panic!("this family has no TCP"),
                Output::Close(link) => self.opened.retain(|open| *open != link),
                Output::Send { to, bytes, .. } => {
                    assert!(to.is_some());
                    match TEG.parse(&bytes).expect("one of the protocol's") {
                        Message::Search | Message::Login(_) | Message::Acknowledgement(_) => {}
                        Message::Control(control) => {
                            assert_eq!(policy(control.id, control.value), Policy::Needed);
                        }
                        other => panic!("not a client's: {other:?}"),
                    }
                }
                Output::Tracks(tracks) => self.tracks = tracks.len(),
                Output::Media(track, sample) => {
                    assert!(track < self.tracks);
                    assert!(sample.discontinuity || self.last[track].is_none_or(|last| sample.ticks > last));
                    self.last[track] = Some(sample.ticks);
                    if track == 0 {
                        assert!(jpeg::parse(&sample.payload).is_ok());
                        let sent = |number| sample.payload == picture(number);
                        assert!(self.raw || number(&sample.payload).is_some_and(sent), "torn");
                    }
                }
                Output::Lost(_) | Output::Away | Output::Answer(..) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("it never waits");
    }
}

/// A picture that tells its number in a COM segment.
fn picture(number: u16) -> Vec<u8> {
    [&JPEG[..2], &[0xff, 0xfe, 0, 4], &number.to_be_bytes(), &JPEG[2..]].concat()
}

fn number(picture: &[u8]) -> Option<u16> {
    let bytes = picture.get(6..8)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Bytes to take from; zeros behind the end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        let mut bytes = [0; N];
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }
}
