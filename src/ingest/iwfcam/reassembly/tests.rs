use super::super::wire::vectors::{V14, V15A, V15B, V15C};
use super::super::wire::{MediaStream, Message, TEG};
use super::*;
use crate::simulate::iwfcam::{Faults, Network};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The picture of a number: JPEG as far as reassembly looks, with bytes that no other picture has.
fn picture(number: u16, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|at| (at as u32 * 31 + u32::from(number) * 131) as u8 & 0x7f).collect();
    bytes[..2].copy_from_slice(&[0xff, 0xd8]);
    let end = bytes.len() - 2;
    bytes[end..].copy_from_slice(&[0xff, 0xd9]);
    bytes
}

#[derive(Clone, Debug)]
struct Sent {
    number: u16,
    fragment: u16,
    extra: Vec<u8>,
    body: Vec<u8>,
}

/// The pieces of a picture, 100 bytes each.
fn pieces(number: u16, bytes: &[u8], with_head: bool) -> Vec<Sent> {
    let chunks: Vec<_> = bytes.chunks(100).collect();
    let (total, fragments) = (bytes.len() as u32, chunks.len() as u32);
    let head = PictureHead { total, fragments, width: 64, height: 48, clock: 1000 + u32::from(number) * 66 };
    let piece = |(at, body): (usize, &&[u8])| Sent {
        number,
        fragment: at as u16,
        extra: if at == 0 && with_head { head.bytes() } else { Vec::new() },
        body: body.to_vec(),
    };
    chunks.iter().enumerate().map(piece).collect()
}

/// A reassembly and invented time.
struct Bench {
    reassembly: Reassembly,
    now: Instant,
    out: Vec<Whole>,
    lost: Vec<u16>,
}

impl Bench {
    fn new() -> Self {
        Self { reassembly: Reassembly::default(), now: Instant::now(), out: Vec::new(), lost: Vec::new() }
    }

    fn push(&mut self, sent: &Sent) -> Piece {
        let (stream, number, fragment) = (MediaStream::Video, sent.number, sent.fragment);
        let piece = Media { session: 1, stream, number, fragment, extra: &sent.extra, body: &sent.body };
        let became = self.reassembly.push(&piece, self.now);
        self.drain();
        became
    }

    fn all<'a>(&mut self, sent: impl IntoIterator<Item = &'a Sent>) {
        sent.into_iter().for_each(|sent| {
            self.push(sent);
        });
    }

    fn drain(&mut self) {
        while let Some(came) = self.reassembly.poll(self.now) {
            match came {
                Came::Picture(whole) => self.out.push(whole),
                Came::Lost { number, .. } => self.lost.push(number),
                Came::AnnexB => panic!("no H.264 was sent"),
            }
        }
        if let Some(deadline) = self.reassembly.deadline(self.now) {
            assert!(deadline > self.now, "what is due was not done");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.drain();
    }

    fn numbers(&self) -> Vec<u16> {
        self.out.iter().map(|whole| whole.number).collect()
    }
}

fn start(bench: &mut Bench) {
    bench.all(&pieces(0, &picture(0, 500), true));
    bench.pass(QUIET);
    assert_eq!(bench.numbers(), [0]);
    bench.out.clear();
}

#[test]
fn v14_and_v15_become_pictures() {
    let Ok(Message::Media(piece)) = TEG.parse(V14) else { panic!() };
    let mut reassembly = Reassembly::default();
    let now = Instant::now();
    assert_eq!(reassembly.push(&piece, now), Piece::Kept);
    assert_eq!(reassembly.poll(now), None, "the first waits for its elders");
    let whole = Whole { number: 0x0102, bytes: Bytes::copy_from_slice(piece.body), clock: Some(123_456), begun: now };
    assert_eq!(reassembly.poll(now + QUIET), Some(Came::Picture(whole)));

    // Any order of three pieces.
    let bytes = picture(7, 2500);
    let heads = [V15A, V15B, V15C];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut reassembly = Reassembly::default();
        for at in order {
            let body = bytes.chunks(1032).nth(at).unwrap();
            let datagram = [heads[at], body].concat();
            let Ok(Message::Media(piece)) = TEG.parse(&datagram) else { panic!() };
            assert_eq!(reassembly.poll(now + QUIET * 2), None);
            assert_eq!(reassembly.push(&piece, now), Piece::Kept);
            assert_eq!(reassembly.push(&piece, now), Piece::Doubled);
        }
        let Some(Came::Picture(whole)) = reassembly.poll(now + QUIET) else { panic!("{order:?}") };
        assert_eq!((whole.bytes.as_ref(), whole.clock), (bytes.as_slice(), Some(5000)));
    }
}

#[test]
fn a_picture_leaves_with_its_last_piece() {
    let mut bench = Bench::new();
    start(&mut bench);
    let sent = pieces(1, &picture(1, 950), true);
    bench.all(&sent[..9]);
    assert!(bench.out.is_empty());
    bench.all(&sent[9..]);
    assert_eq!(bench.out[0].bytes, picture(1, 950));
}

#[test]
fn without_a_head_the_picture_must_show_its_end() {
    let mut bench = Bench::new();
    let first = pieces(1, &picture(1, 950), false);
    bench.all(&first[..9]);
    bench.pass(ms(100));
    assert!(bench.out.is_empty(), "no end was seen");
    bench.all(&first[9..]);
    assert!(bench.out.is_empty(), "there may be more of it");
    bench.pass(QUIET);
    assert_eq!(bench.numbers(), [1]);
    assert_eq!((bench.out[0].bytes.as_ref(), bench.out[0].clock), (picture(1, 950).as_slice(), None));
    // Or the next picture begins.
    let second = pieces(2, &picture(2, 950), false);
    bench.all(&second);
    bench.all(&pieces(3, &picture(3, 950), false)[..1]);
    assert_eq!(bench.numbers(), [1, 2]);
}

#[test]
fn the_end_may_lie_across_two_pieces() {
    let mut bench = Bench::new();
    bench.all(&pieces(1, &picture(1, 501), false));
    bench.pass(QUIET);
    assert_eq!((bench.numbers(), bench.lost.len()), (vec![1], 0));
}

#[test]
fn a_lost_piece_loses_its_picture_and_no_other() {
    for with_head in [true, false] {
        let mut bench = Bench::new();
        start(&mut bench);
        let torn = pieces(1, &picture(1, 950), with_head);
        for at in 0..torn.len() {
            let number = 1 + at as u16 * 4;
            let torn = pieces(number, &picture(number, 950), with_head);
            bench.all(torn.iter().filter(|sent| usize::from(sent.fragment) != at));
            for whole in number + 1..number + 4 {
                bench.pass(ms(40));
                bench.all(&pieces(whole, &picture(whole, 950), with_head));
            }
        }
        bench.pass(ms(400));
        assert_eq!(bench.lost.len(), torn.len(), "with_head: {with_head}");
        assert_eq!(bench.out.len(), torn.len() * 3);
        assert!(bench.numbers().is_sorted());
        assert!(bench.out.iter().all(|whole| whole.bytes == picture(whole.number, 950)));
    }
}

#[test]
fn a_picture_is_given_up_for_two_later_ones_or_after_300_ms() {
    let mut bench = Bench::new();
    start(&mut bench);
    bench.all(&pieces(1, &picture(1, 500), true)[..4]);
    bench.all(&pieces(2, &picture(2, 500), true));
    assert!(bench.out.is_empty() && bench.lost.is_empty(), "the elder may still come");
    bench.all(&pieces(3, &picture(3, 500), true));
    assert_eq!((bench.numbers(), bench.lost.as_slice()), (vec![2, 3], [1].as_slice()));
    bench.all(&pieces(4, &picture(4, 500), true)[..4]);
    bench.pass(ms(299));
    assert_eq!(bench.lost.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.lost, [1, 4]);
    // Its last piece comes after all.
    assert_eq!(bench.push(&pieces(4, &picture(4, 500), true)[4]), Piece::Late);
}

#[test]
fn sound_and_pictures_share_a_counter() {
    let mut bench = Bench::new();
    start(&mut bench);
    bench.reassembly.other(1);
    bench.all(&pieces(2, &picture(2, 500), true));
    assert_eq!(bench.numbers(), [2], "1 was sound, so nothing is waited for");
    bench.all(&pieces(4, &picture(4, 500), true));
    assert_eq!(bench.numbers(), [2], "3 may come");
    bench.pass(QUIET);
    assert_eq!((bench.numbers(), bench.lost.len()), (vec![2, 4], 0));
}

#[test]
fn numbers_wrap_and_restart() {
    let mut bench = Bench::new();
    for step in 0..40_u16 {
        let number = 65_520_u16.wrapping_add(step);
        bench.all(&pieces(number, &picture(number, 300), true));
        bench.pass(ms(66));
    }
    assert_eq!((bench.out.len(), bench.lost.len()), (40, 0));
    // The camera counts anew, in the middle of a picture.
    bench.all(&pieces(24, &picture(24, 300), true)[..2]);
    for number in 9_000..9_010 {
        bench.all(&pieces(number, &picture(number, 300), true));
        bench.pass(ms(66));
    }
    assert_eq!((bench.out.len(), bench.lost.len()), (50, 1));
}

#[test]
fn a_login_forgets_everything() {
    let mut bench = Bench::new();
    bench.all(&pieces(7, &picture(7, 500), true)[..3]);
    bench.reassembly.clear();
    // The same number, another picture.
    let other = picture(3, 500);
    bench.all(&pieces(7, &other, true));
    bench.pass(QUIET);
    assert_eq!(bench.lost.len(), 1);
    assert_eq!(bench.out[0].bytes, other);
}

#[test]
fn padding_is_cut_off_and_what_is_no_jpeg_is_dropped() {
    let mut bench = Bench::new();
    start(&mut bench);
    let padded = |count: usize| [picture(1, 500), vec![0; count]].concat();
    bench.all(&pieces(1, &padded(60), true));
    assert_eq!(bench.out[0].bytes, picture(1, 500));
    bench.all(&pieces(2, &padded(80), true));
    bench.all(&pieces(3, &vec![0x55; 500], true));
    assert_eq!(bench.lost, [2, 3]);
}

#[test]
fn lies_about_the_length_lose_the_picture() {
    let mut bench = Bench::new();
    start(&mut bench);
    let lie = |number: u16, total: u32, fragments: u32| {
        let mut sent = pieces(number, &picture(number, 500), true);
        sent[0].extra = PictureHead { total, fragments, width: 1, height: 1, clock: 1 }.bytes();
        sent
    };
    // Fewer bytes than told; more pieces than told, the head first and last.
    bench.all(&lie(1, 501, 5));
    let beyond = lie(2, 500, 4);
    assert_eq!(bench.push(&beyond[0]), Piece::Kept);
    assert_eq!(bench.push(&beyond[4]), Piece::Bad);
    bench.all(&beyond[1..4]);
    bench.all(lie(3, 500, 4).iter().rev());
    assert_eq!((bench.lost.as_slice(), bench.out.len()), ([1, 2, 3].as_slice(), 0));
    // What cannot be at all.
    for (total, fragments) in [(500, 0), (500, 2049), (4, 5), (u32::MAX, 5), (500, u32::MAX)] {
        assert_eq!(bench.push(&lie(4, total, fragments)[0]), Piece::Bad);
    }
    bench.all(&pieces(4, &picture(4, 500), true));
    assert_eq!(bench.numbers(), [4]);
}

#[test]
fn h264_is_recognised() {
    let mut reassembly = Reassembly::default();
    let now = Instant::now();
    let access_unit = [&[0, 0, 0, 1, 0x67], [0x42; 200].as_slice()].concat();
    for sent in pieces(1, &access_unit, true) {
        let (stream, extra, body) = (MediaStream::Video, sent.extra.as_slice(), sent.body.as_slice());
        reassembly.push(&Media { session: 1, stream, number: 1, fragment: sent.fragment, extra, body }, now);
    }
    assert_eq!(reassembly.poll(now + QUIET), Some(Came::AnnexB));
}

#[test]
fn memory_is_bounded() {
    let mut bench = Bench::new();
    // The last piece of picture after picture, and pictures that never end.
    for number in 0..200_u16 {
        let (fragment, body) = (2047, vec![1; 4096]);
        bench.push(&Sent { number, fragment, extra: Vec::new(), body });
        assert!(bench.reassembly.open.len() <= OPEN.0);
    }
    bench.pass(ms(400));
    for fragment in 0..2048 {
        bench.push(&Sent { number: 300, fragment, extra: Vec::new(), body: vec![1; 4096] });
        assert!(bench.reassembly.held <= MOST_HELD);
    }
    assert_eq!(bench.out.len(), 0);
}

#[test]
fn missing_pieces_are_named_and_their_coming_is_noticed() {
    let mut bench = Bench::new();
    bench.reassembly.set_asking(Some(3));
    start(&mut bench);
    let sent = pieces(1, &picture(1, 950), true);
    bench.all(sent.iter().filter(|sent| ![2, 5].contains(&sent.fragment)));
    let due = bench.now + ms(40);
    assert_eq!(bench.reassembly.asking_at(ms(40), 3), Some(due));
    assert!(bench.reassembly.ask(bench.now, ms(40), 3, 100).is_empty(), "too early");
    bench.pass(ms(40));
    assert_eq!(bench.reassembly.ask(bench.now, ms(40), 3, 100), [(1, 2), (1, 5)]);
    assert!(bench.reassembly.ask(bench.now + ms(50), ms(40), 3, 100).is_empty(), "asked a moment ago");
    bench.all([&sent[2], &sent[5]]);
    assert_eq!((bench.numbers(), bench.reassembly.asked()), (vec![1], (1, 0)));
    // Where nobody told how long it is: up to the last seen, and three more of the newest.
    let sent = pieces(2, &picture(2, 950), false);
    bench.all([&sent[0], &sent[2]]);
    bench.pass(ms(40));
    assert_eq!(bench.reassembly.ask(bench.now, ms(40), 3, 100), [(2, 1), (2, 3), (2, 4), (2, 5)]);
    // In vain: given up before its second is over.
    for _ in 0..2 {
        bench.pass(ms(130));
        assert!(!bench.reassembly.ask(bench.now, ms(40), 3, 100).is_empty());
    }
    bench.pass(ANSWER);
    assert_eq!((bench.lost.len(), bench.reassembly.asked()), (1, (1, 1)));
}

proptest! {
    /// Nothing leaves that was not sent, nothing twice, everything in order; and whatever came whole leaves.
    #[test]
    fn pictures_are_whole_or_not_there(
        seed: u64, loss in 0..25_u32, reorder in 0..25_u32, duplicate in 0..25_u32,
        with_head: bool, first: u16, lengths in prop::collection::vec(500..1500_usize, 1..40),
    ) {
        let share = |percent: u32| f64::from(percent) / 100.0;
        let faults =
            Faults { loss: share(loss), reorder: share(reorder), duplicate: share(duplicate), seed, ..Faults::default() };
        let mut network = Network::new(faults, 0);
        let mut bench = Bench::new();
        let mut sent = BTreeMap::new();
        let mut arrived: BTreeMap<u16, Vec<bool>> = BTreeMap::new();
        for (step, length) in lengths.iter().enumerate() {
            let number = first.wrapping_add(step as u16);
            let bytes = picture(number, *length);
            let cut = pieces(number, &bytes, with_head);
            arrived.insert(number, vec![false; cut.len()]);
            sent.insert(number, bytes);
            for piece in cut {
                for came in network.pass(piece) {
                    arrived.get_mut(&came.number).unwrap()[usize::from(came.fragment)] = true;
                    bench.push(&came);
                }
            }
            bench.pass(ms(20));
        }
        for came in network.flush() {
            arrived.get_mut(&came.number).unwrap()[usize::from(came.fragment)] = true;
            bench.push(&came);
        }
        bench.pass(ms(400));
        for pair in bench.numbers().windows(2) {
            prop_assert!(before(pair[0], pair[1]));
        }
        for whole in &bench.out {
            prop_assert_eq!(&whole.bytes, &sent[&whole.number]);
        }
        let whole = arrived.values().filter(|pieces| pieces.iter().all(|there| *there)).count();
        // With a quarter of all pieces late, two pictures may overtake one; see rule 5.
        let tolerated = if reorder > 5 { whole / 4 + 1 } else { 0 };
        prop_assert!(bench.out.len() + tolerated >= whole, "{} of {whole}, lost {:?}", bench.out.len(), bench.lost);
    }

    /// Whatever comes, it is survived.
    #[test]
    fn anything_can_come(
        steps in prop::collection::vec((any::<u16>(), 0..2048_u16, any::<bool>(), any::<[u8; 16]>(), 0..300_u64), 1..200),
        near: bool,
    ) {
        let mut bench = Bench::new();
        for (number, fragment, head, extra, time) in steps {
            let number = if near { number % 24 } else { number };
            let fragment = if head { 0 } else { fragment };
            let body = extra[..usize::from(extra[0] % 16)].to_vec();
            bench.push(&Sent { number, fragment, extra: if head { extra.to_vec() } else { Vec::new() }, body });
            bench.pass(ms(time / 3));
        }
        // Bytes at random are hardly ever a picture; if one is, it begins and ends like one.
        for whole in &bench.out {
            prop_assert!(whole.bytes.starts_with(&[0xff, 0xd8]) && whole.bytes.ends_with(&[0xff, 0xd9]));
        }
    }
}
