//! What the protocol description says must be survived or done, where no other test shows it.

use super::*;
use crate::ingest::Source;
use crate::ingest::iwfcam::wire::vectors::{V2, V7, V12, V13, V14};
use crate::ingest::iwfcam::wire::{Found, MediaStream, SearchAnswer};
use crate::ingest::supervisor::Pace;

/// A session by hand, up to the open socket for the camera.
struct Hand {
    session: Iwfcam,
    start: Instant,
    out: Vec<Output>,
    wake: Option<Instant>,
}

impl Hand {
    fn searching() -> Self {
        let start = Instant::now();
        let memory = Memory::default();
        memory.change(|memory| memory.port = Some(41_773));
        let mut hand = Self { session: Iwfcam::new(config(), memory, start), start, out: Vec::new(), wake: None };
        hand.input(0, |session, now| session.opened(SEARCH, "0.0.0.0:50000".parse().unwrap(), now));
        hand
    }

    fn logging_in() -> Self {
        let mut hand = Self::searching();
        hand.hears(1, SEARCH, "192.168.1.21:10104", V2);
        hand.input(2, |session, now| session.opened(MEDIA, "192.168.1.50:41773".parse().unwrap(), now));
        hand
    }

    /// After the camera's answer to the login, and to the live request.
    fn live() -> Self {
        let mut hand = Self::logging_in();
        hand.camera(3, V4);
        hand.camera(4, V12);
        hand.due(24);
        hand.out.clear();
        hand
    }

    fn input(&mut self, at: u64, input: impl FnOnce(&mut Iwfcam, Instant) -> Result<(), SessionError>) {
        input(&mut self.session, self.start + ms(at)).unwrap();
        loop {
            match self.session.poll() {
                Output::Wait(wake) => {
                    self.wake = wake;
                    return;
                }
                other => self.out.push(other),
            }
        }
    }

    fn hears(&mut self, at: u64, via: Link, from: &str, bytes: &[u8]) {
        let from = from.parse().unwrap();
        self.input(at, |session, now| session.received(via, from, bytes, now));
    }

    fn camera(&mut self, at: u64, bytes: &[u8]) {
        self.hears(at, MEDIA, "192.168.1.21:17900", bytes);
    }

    /// Lets time pass up to then, doing what is due.
    fn due(&mut self, at: u64) {
        while let Some(wake) = self.wake.filter(|wake| *wake <= self.start + ms(at)) {
            let at = (wake - self.start).as_millis() as u64;
            self.input(at, |session, now| session.timeout(now));
        }
    }

    /// What was sent since this was last asked.
    fn sent(&mut self) -> Vec<Bytes> {
        let sent = |output: Output| match output {
            Output::Send { bytes, .. } => Some(bytes),
            _ => None,
        };
        self.out.drain(..).filter_map(sent).collect()
    }

    fn opens(&self, link: Link) -> bool {
        self.out.iter().any(|output| matches!(output, Output::Open(opened, _) if *opened == link))
    }
}

#[test]
fn answers_that_go_to_the_search_port_only_are_heard_there() {
    let mut hand = Hand::searching();
    hand.due(2_000);
    assert!(hand.opens(LISTEN), "nobody has answered");
    hand.input(2_001, |session, now| session.opened(LISTEN, "0.0.0.0:10104".parse().unwrap(), now));
    // Our own search comes back by broadcast, which is no answer.
    hand.hears(2_002, LISTEN, "192.168.1.50:50000", &TEG.search());
    assert!(!hand.opens(MEDIA));
    for copy in 0..3 {
        hand.hears(2_010 + copy * 10, LISTEN, "192.168.1.21:10104", V2);
    }
    let opened = hand.out.iter().filter(|output| matches!(output, Output::Open(MEDIA, _))).count();
    assert_eq!(opened, 1, "three answers are one camera");
}

#[test]
fn a_camera_that_announces_no_port_is_talked_to_where_it_answered_from() {
    let found = Found { ids: [0; 2], media_port: 0, local: CAMERA, uid: "X".into() };
    assert_eq!(found.port("192.168.1.21:17905".parse().unwrap(), 10_104), Some(17_905));
    assert_eq!(found.port("192.168.1.21:10104".parse().unwrap(), 10_104), None);
    let answer = SearchAnswer { valid: true, cameras: vec![found] }.write(TEG);
    let mut hand = Hand::searching();
    hand.hears(1, SEARCH, "192.168.1.21:10104", &answer);
    assert!(!hand.opens(MEDIA), "it cannot be told where");
    hand.hears(2, SEARCH, "192.168.1.21:17905", &answer);
    assert!(hand.opens(MEDIA));
    assert_eq!(hand.session.camera.unwrap().port(), 17_905);
}

#[test]
fn the_address_in_a_login_is_never_unspecified() {
    let mut hand = Hand::searching();
    hand.hears(1, SEARCH, "192.168.1.21:10104", V2);
    let nowhere = "0.0.0.0:41773".parse().unwrap();
    let error = hand.session.opened(MEDIA, nowhere, hand.start + ms(2)).unwrap_err();
    assert!(error.text.contains("no way leads to 192.168.1.21"), "{error}");
}

#[test]
fn live_parameters_may_come_before_the_answer_to_the_login() {
    let mut hand = Hand::logging_in();
    hand.sent();
    hand.camera(3, V12);
    assert!(hand.sent().is_empty());
    hand.camera(4, V4);
    assert_eq!(hand.sent(), [V8]);
}

#[test]
fn a_login_that_is_let_in_without_a_number_is_repeated() {
    let mut hand = Hand::logging_in();
    hand.due(500);
    hand.sent();
    let mut closed = V4.to_vec();
    for session in [0, -1_i32] {
        closed[24..28].copy_from_slice(&session.to_le_bytes());
        hand.camera(501, &closed);
        assert!(hand.sent().is_empty());
    }
    hand.due(1_100);
    assert_eq!(hand.sent(), [V3, V3]);
    // The number of the answer is the one that is quoted.
    closed[24..28].copy_from_slice(&4_i32.to_le_bytes());
    hand.camera(1_101, &closed);
    let sent = hand.sent();
    assert_eq!((sent.len(), &sent[0][8..12]), (1, [4, 0, 0, 0].as_slice()));
}

#[test]
fn media_without_an_answer_to_the_login_tells_the_number_too() {
    let mut hand = Hand::logging_in();
    hand.due(1_100);
    hand.sent();
    let piece = Media {
        session: 3,
        stream: MediaStream::Video,
        number: 9,
        fragment: 0,
        extra: &[],
        body: &[0xff, 0xd8, 0xff, 0xd9],
    };
    hand.camera(1_101, &piece.write(TEG));
    hand.due(3_101);
    let sent = hand.sent();
    assert_eq!((sent.len(), &sent[0][8..12], &sent[0][28..]), (1, [3, 0, 0, 0].as_slice(), &V8[28..]));
}

#[test]
fn a_keepalive_without_an_answer_is_sent_twice_and_the_cameras_own_needs_none() {
    let mut hand = Hand::live();
    hand.camera(1_000, V13);
    assert!(hand.sent().is_empty(), "its heartbeat needs no answer");
    // Media goes on, or it would be asked for again.
    let alive = |hand: &mut Hand, at: u64| {
        let mut piece = V14.to_vec();
        piece[16..18].copy_from_slice(&(at as u16).to_le_bytes());
        hand.camera(at, &piece);
        hand.sent()
    };
    alive(&mut hand, 1_900);
    hand.due(2_200);
    assert_eq!(hand.sent(), [V8]);
    alive(&mut hand, 3_900);
    hand.due(4_300);
    assert_eq!(hand.sent(), [V8, V8], "the answer is missing");
    hand.camera(4_310, V12);
    alive(&mut hand, 5_900);
    hand.due(6_300);
    assert_eq!(hand.sent(), [V8]);
}

#[test]
fn what_a_camera_should_not_say_is_ignored_in_every_state() {
    let strange = |id: u32| {
        let mut bytes = V7.to_vec();
        bytes[12..16].copy_from_slice(&id.to_le_bytes());
        bytes
    };
    for mut hand in [Hand::searching(), Hand::logging_in(), Hand::live()] {
        hand.due(29);
        hand.sent();
        for id in [0, 1, 4, 0x0e, 0x50, u32::MAX] {
            hand.camera(30, &strange(id));
        }
        // Of the cloud's class, of an unknown command, and searches of others.
        for (at, byte) in [(0, b'0'), (4, 0x77)] {
            let mut bytes = V2.to_vec();
            bytes[at] = byte;
            hand.camera(31, &bytes);
        }
        hand.camera(32, V2);
        hand.camera(33, V3);
        assert!(hand.sent().is_empty());
    }
}

/// The whole list of control commands: which may be sent unasked, and which only when the camera's user asks.
#[test]
fn only_what_is_needed_can_be_sent_unasked() {
    let on_request = |id: u32, value: u32| match id {
        0x04..=0x09 | 0x0b | 0x0c | 0x50 => true,
        0x13 => (3..=5).contains(&value),
        _ => false,
    };
    for id in 0..=0x200 {
        for value in (0..=0x20).chain([u32::MAX]) {
            let wanted = match id {
                0 | 2 | 3 => Policy::Needed,
                _ if on_request(id, value) => Policy::OnRequest,
                _ => Policy::Never,
            };
            assert_eq!(policy(id, value), wanted, "{id:#x}, {value}");
        }
    }
    // Everything that can be written at all.
    for request in [Request::Live(0), Request::Live(u32::MAX), Request::Heartbeat { fps: u16::MAX }, Request::Close] {
        let bytes = request.write(TEG, u32::MAX);
        let Ok(Message::Control(control)) = TEG.parse(&bytes) else { panic!() };
        assert_eq!(policy(control.id, control.value), Policy::Needed);
    }
}

#[test]
fn a_piece_of_more_than_4096_bytes_is_none() {
    let piece = |length: usize| {
        let body = vec![0x5a; length];
        Media { session: 1, stream: MediaStream::Video, number: 1, fragment: 2047, extra: &[], body: &body }.write(TEG)
    };
    assert!(TEG.parse(&piece(4096)).is_ok());
    assert!(TEG.parse(&piece(4097)).is_err());
}

#[test]
fn a_refused_token_is_tried_again_after_a_minute() {
    let pace = Source::Iwfcam(config()).pace(Pace::default());
    assert_eq!(pace.denied, Duration::from_secs(60));
    let slower = Pace { denied: ms(10), lost: (ms(1), ms(2)), busy: (ms(3), ms(4)), ..Pace::default() };
    assert_eq!(Source::Iwfcam(config()).pace(slower), slower, "tests may be quicker");
}

#[test]
fn blocks_of_sound_of_any_length_are_decoded() {
    for codes in [1, 100, 256, 512, 1000] {
        let block = [&[0x38, 0xff, 0x14, 0], vec![0x0f; codes].as_slice()].concat();
        assert_eq!(crate::media::adpcm::decode(&block).unwrap().len(), 2 * codes);
    }
}
