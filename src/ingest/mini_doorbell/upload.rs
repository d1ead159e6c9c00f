//! One connection of a unit, without I/O: bytes and time go in, a picture comes out.
//!
//! Nothing in the framing says where a segment ends, so bytes may come in any portions. The picture is whole when the
//! announced number of bytes is there; FIN is a second sign. Whatever is not wanted is read and thrown away, because a
//! server that closes while the unit sends wedges it.

use super::wire::{BellId, Carrier, HEADER, Header};
use bytes::{Bytes, BytesMut};
use std::time::{Duration, Instant};

/// How long to wait for what; parameters, so that tests need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a whole header.
    pub header: Duration,
    /// Between bytes: the unit's own retransmissions come after 3 and 6 s.
    pub silence: Duration,
    /// For the whole upload.
    pub whole: Duration,
    /// For FIN after the last byte.
    pub fin: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { header: seconds(10), silence: seconds(15), whole: seconds(60), fin: seconds(5) }
    }
}

/// Bytes that are read and thrown away before the connection is reset.
const MOST_IGNORED: usize = 256 << 10;

/// What a unit has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its header.
    pub header: Header,
    /// The bytes after the header; all that were announced if `whole`.
    pub body: Bytes,
    /// Nothing is missing.
    pub whole: bool,
}

impl Upload {
    /// The unit.
    pub fn id(&self) -> BellId {
        self.header.id
    }
}

/// What to do after an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read on, until then at most.
    Read(Instant),
    /// The upload is whole; read on until FIN.
    Took(Upload),
    /// Close: the unit has sent everything, or has closed itself.
    Close,
    /// Close without the politeness that would wedge the unit: reset.
    Reset(&'static str),
}

/// A connection.
#[derive(Debug)]
pub struct Receiver {
    patience: Patience,
    began: Instant,
    heard: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Header(BytesMut),
    Body {
        header: Header,
        body: BytesMut,
    },
    /// Whole; anything more is thrown away.
    Done {
        since: Instant,
        ignored: usize,
    },
    /// Not a doorbell; everything is thrown away.
    Foreign {
        ignored: usize,
    },
}

impl Receiver {
    /// A connection that was just accepted.
    pub fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, began: now, heard: now, state: State::Header(BytesMut::with_capacity(HEADER)) }
    }

    /// Takes what one read returned.
    pub fn received(&mut self, mut bytes: &[u8], now: Instant) -> Step {
        self.heard = now;
        if let State::Header(head) = &mut self.state {
            let missing = HEADER.saturating_sub(head.len());
            let (more, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            head.extend_from_slice(more);
            if head.len() < HEADER {
                // What cannot become a header need not be waited for.
                if !b"\x55\x66".starts_with(head.get(..2).unwrap_or(head)) {
                    self.state = State::Foreign { ignored: 0 };
                }
                return Step::Read(self.deadline());
            }
            match Header::parse(head, Carrier::Tcp) {
                Ok(header) => {
                    // The announced length is at most 65,535, so nothing has to be bounded further.
                    let body = BytesMut::with_capacity(header.extra.into());
                    self.state = State::Body { header, body };
                }
                Err(_) => self.state = State::Foreign { ignored: head.len() },
            }
            bytes = rest;
        }
        match &mut self.state {
            State::Header(_) => {}
            State::Body { header, body } => {
                let missing = usize::from(header.extra).saturating_sub(body.len());
                let (more, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
                body.extend_from_slice(more);
                if body.len() == usize::from(header.extra) {
                    let upload = Upload { header: *header, body: std::mem::take(body).freeze(), whole: true };
                    self.state = State::Done { since: now, ignored: rest.len() };
                    return Step::Took(upload);
                }
            }
            State::Done { ignored, .. } | State::Foreign { ignored } => {
                *ignored += bytes.len();
                if *ignored > MOST_IGNORED {
                    return Step::Reset("it does not end");
                }
            }
        }
        Step::Read(self.deadline())
    }

    /// The unit closed, or the connection was reset: what there is of a picture.
    pub fn ended(self) -> Option<Upload> {
        match self.state {
            // A copy: the room for the rest is given back.
            State::Body { header, body } => Some(Upload { header, body: Bytes::copy_from_slice(&body), whole: false }),
            State::Header(_) | State::Done { .. } | State::Foreign { .. } => None,
        }
    }

    /// The instant that [`Step::Read`] named has come.
    pub fn timeout(&self, now: Instant) -> Step {
        if now < self.deadline() {
            return Step::Read(self.deadline());
        }
        match self.state {
            // It has sent more than it announced, so who knows whether it has sent everything.
            State::Done { ignored, .. } if ignored > 0 => Step::Reset("it sends more than it announced"),
            State::Done { .. } => Step::Close,
            State::Header(_) => Step::Reset("no header"),
            State::Body { .. } => Step::Reset("the picture stopped coming"),
            State::Foreign { .. } => Step::Reset("no doorbell"),
        }
    }

    /// Whether all of the picture is there, so that closing harms nobody.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// Bytes that are reserved for what comes.
    pub fn held(&self) -> usize {
        match &self.state {
            State::Header(head) => head.capacity(),
            State::Body { body, .. } => body.capacity(),
            State::Done { .. } | State::Foreign { .. } => 0,
        }
    }

    /// Until when to read.
    pub fn deadline(&self) -> Instant {
        let whole = self.began + self.patience.whole;
        match self.state {
            State::Header(_) | State::Foreign { .. } => self.began + self.patience.header,
            State::Body { .. } => whole.min(self.heard + self.patience.silence),
            State::Done { since, .. } => whole.max(since + self.patience.fin).min(self.heard + self.patience.fin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::function;
    use super::*;
    use proptest::prelude::*;

    const ID: BellId = BellId([0, 0xff, 2, 0, 0x12, 0x34, 0x56, 0]);

    fn upload(body: &[u8]) -> Vec<u8> {
        let header = Header::new(ID, function::VISITOR, 42, body.len() as u16);
        [&header.write(Carrier::Tcp)[..], body].concat()
    }

    fn receiver() -> (Receiver, Instant) {
        let now = Instant::now();
        (Receiver::new(Patience::default(), now), now)
    }

    #[test]
    fn the_vectors_are_whole_pictures() {
        for kind in [function::VISITOR, function::WARNING] {
            let header = Header::new(ID, kind, 42, 4);
            let (mut receiver, now) = receiver();
            let bytes = [&header.write(Carrier::Tcp)[..], &[0xff, 0xd8, 0xff, 0xd9]].concat();
            let Step::Took(upload) = receiver.received(&bytes, now) else { panic!("not whole") };
            assert_eq!((upload.header.function, upload.whole), (kind, true));
            assert_eq!(&upload.body[..], [0xff, 0xd8, 0xff, 0xd9]);
            assert_eq!(receiver.ended(), None, "it is told once");
        }
    }

    /// An empty connection, a piece of a header, a web browser, 20 kB of noise: no visitor.
    #[test]
    fn other_things_are_no_visitors() {
        let noise: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for bytes in [&b""[..], b"\x55\x66", &upload(b"\xff\xd8\xff\xd9")[..36], b"GET / HTTP/1.1\r\n\r\n", &noise] {
            let (mut receiver, now) = receiver();
            for part in bytes.chunks(1_460) {
                assert!(matches!(receiver.received(part, now), Step::Read(_)));
            }
            assert_eq!(receiver.ended(), None);
        }
    }

    #[test]
    fn what_never_ends_is_reset() {
        let (mut receiver, now) = receiver();
        let mut bytes = 0;
        let why = loop {
            match receiver.received(&[b'x'; 1_460], now) {
                Step::Reset(why) => break why,
                Step::Read(_) => bytes += 1_460,
                other => panic!("{other:?}"),
            }
            assert!(bytes <= MOST_IGNORED);
        };
        assert_eq!(why, "it does not end");
        let (mut receiver, now) = super::tests::receiver();
        assert!(matches!(receiver.received(&upload(b"\xff\xd8\xff\xd9"), now), Step::Took(_)));
        while !matches!(receiver.received(&[0; 1_460], now), Step::Reset(_)) {}
    }

    #[test]
    fn each_wait_has_its_end() {
        let patience = Patience::default();
        let (mut receiver, began) = receiver();
        assert_eq!(receiver.deadline(), began + patience.header);
        assert_eq!(receiver.timeout(began + patience.header), Step::Reset("no header"));
        let bytes = upload(&[0xff; 1_000]);
        // One byte a second: each byte is in time, the whole is not.
        let mut now = began;
        let mut step = Step::Read(began);
        for byte in &bytes {
            now += Duration::from_secs(1);
            if now >= receiver.deadline() {
                step = receiver.timeout(now);
                break;
            }
            receiver.received(&[*byte], now);
        }
        assert_eq!((step, now), (Step::Reset("no header"), began + patience.header));

        let (mut receiver, began) = super::tests::receiver();
        receiver.received(&bytes[..100], began);
        assert_eq!(receiver.timeout(began + patience.silence), Step::Reset("the picture stopped coming"));
        let torn = receiver.ended().expect("a piece of a picture");
        assert_eq!((torn.whole, torn.body.len()), (false, 63));

        let (mut receiver, began) = super::tests::receiver();
        assert!(matches!(receiver.received(&bytes, began), Step::Took(_)));
        assert_eq!(receiver.timeout(began), Step::Read(began + patience.fin));
        assert_eq!(receiver.timeout(began + patience.fin), Step::Close);
        // One that goes on is not closed politely, and not borne for ever.
        let mut now = began;
        while now < receiver.deadline() {
            assert!(matches!(receiver.received(b"more", now), Step::Read(_)));
            now += patience.fin / 2;
        }
        assert!(now >= began + patience.whole && now < began + patience.whole + patience.fin);
        assert!(matches!(receiver.timeout(now), Step::Reset(_)));
    }

    proptest! {
        /// One visitor, however the stream is cut into pieces.
        #[test]
        fn portions_do_not_matter(
            body in proptest::collection::vec(any::<u8>(), 0..5_000),
            sizes in proptest::collection::vec(1..2_000_usize, 1..20),
        ) {
            let bytes = upload(&body);
            let (mut receiver, now) = receiver();
            let (mut rest, mut took, mut sizes) = (&bytes[..], Vec::new(), sizes.into_iter().cycle());
            while !rest.is_empty() {
                let (part, more) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
                rest = more;
                if let Step::Took(upload) = receiver.received(part, now) {
                    took.push(upload);
                }
            }
            prop_assert_eq!(took.len(), 1);
            prop_assert_eq!(&took[0].body[..], &body[..]);
            prop_assert!(took[0].whole);
            prop_assert_eq!(receiver.ended(), None);
        }

        #[test]
        fn any_bytes_are_survived(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let (mut receiver, now) = receiver();
            for part in &parts {
                receiver.received(part, now);
            }
            receiver.ended();
        }
    }
}
