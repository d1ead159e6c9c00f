//! What travels between the program and an encoder's process, over its standard input and output.
//!
//! | bytes | field  | meaning                                                          |
//! |-------|--------|------------------------------------------------------------------|
//! | 0     | kind   | see [`Frame`]                                                    |
//! | 1..5  | length | bytes that follow, big-endian, at most [`MAX_BODY`]              |
//! | 5..   | body   | by kind                                                          |
//!
//! The body of a unit:
//!
//! | bytes | field   | meaning                                                         |
//! |-------|---------|-----------------------------------------------------------------|
//! | 0..8  | pts     | nanoseconds on the stream's timeline, big-endian                |
//! | 8..16 | dts     | the same                                                        |
//! | 16    | flags   | 1: a decoder may start here; 2: to be decoded but not encoded   |
//! | 17..  | payload | as [`media`](crate::media) promises it                          |
//!
//! Both ends are this program; a child may be a confused one all the same, so everything is checked and bounded.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::media::MediaTime;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::time::Duration;

/// The largest body: as much as the cache of a camera may hold.
pub const MAX_BODY: usize = 33 << 20;

const HEAD: usize = 5;
const UNIT_HEAD: usize = 17;
const KEY: u8 = 1;
const SKIP: u8 = 2;

mod kind {
    pub(super) const JOB: u8 = 1;
    pub(super) const UNIT: u8 = 2;
    pub(super) const KEY: u8 = 3;
    pub(super) const READY: u8 = 4;
    pub(super) const TAKEN: u8 = 5;
    pub(super) const REPORT: u8 = 6;
}

/// One message, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the child (kind 1): what to do, as JSON.
    Job(Bytes),
    /// Both ways (kind 2): a coded picture or audio frame.
    Unit(Unit),
    /// To the child (kind 3): make the next picture a key picture.
    Key,
    /// From the child (kind 4): the pipeline runs; the number of the candidate, big-endian.
    Ready(u32),
    /// From the child (kind 5): a unit has gone into the pipeline, the next may come.
    Taken,
    /// From the child (kind 6): an outcome, as JSON.
    Report(Bytes),
}

/// A coded picture or audio frame on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Presentation time.
    pub pts: MediaTime,
    /// Decode time.
    pub dts: MediaTime,
    /// A decoder may start here.
    pub random_access: bool,
    /// To be decoded but not encoded: it lies before the picture that the first viewer sees.
    pub skip: bool,
    /// The coded bytes.
    pub payload: Bytes,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// There is no such kind.
    #[error("byte 0: no message is of the kind {0}")]
    Kind(u8),
    /// More than [`MAX_BODY`].
    #[error("bytes 1 to 4: {0} bytes are more than a message has")]
    Length(u32),
    /// The body does not have the length that its kind needs.
    #[error("a body of {have} bytes where the kind {kind} needs {need}")]
    Body {
        /// The kind.
        kind: u8,
        /// Bytes needed at least, or exactly where nothing follows.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// Flags that do not exist.
    #[error("byte 16 of a unit: flags {0:#04x}")]
    Flags(u8),
}

impl Frame {
    /// Takes the first message out of what was read so far; `None` if it is not there whole yet.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong; nothing after it can be read either.
    pub fn take(read: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let Some((head, rest)) = read.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, length @ ..] = *head;
        let length = u32::from_be_bytes(length);
        if !(kind::JOB..=kind::REPORT).contains(&kind) {
            return Err(WireError::Kind(kind));
        }
        let body = usize::try_from(length).unwrap_or(usize::MAX);
        if body > MAX_BODY {
            return Err(WireError::Length(length));
        }
        if rest.len() < body {
            // Only what is known to come is reserved, and that is bounded.
            read.reserve(HEAD + body - read.len());
            return Ok(None);
        }
        read.advance(HEAD);
        Self::parse(kind, read.split_to(body).freeze()).map(Some)
    }

    fn parse(kind: u8, mut body: Bytes) -> Result<Self, WireError> {
        let have = body.len();
        let exactly = |need| if have == need { Ok(()) } else { Err(WireError::Body { kind, need, have }) };
        match kind {
            kind::JOB => Ok(Self::Job(body)),
            kind::REPORT => Ok(Self::Report(body)),
            kind::KEY => exactly(0).map(|()| Self::Key),
            kind::TAKEN => exactly(0).map(|()| Self::Taken),
            kind::READY => exactly(4).map(|()| Self::Ready(body.get_u32())),
            kind::UNIT => {
                if have < UNIT_HEAD {
                    return Err(WireError::Body { kind, need: UNIT_HEAD, have });
                }
                let time = |nanos| MediaTime::new(Duration::from_nanos(nanos));
                let (pts, dts, flags) = (time(body.get_u64()), time(body.get_u64()), body.get_u8());
                if flags & !(KEY | SKIP) != 0 {
                    return Err(WireError::Flags(flags));
                }
                let (random_access, skip) = (flags & KEY != 0, flags & SKIP != 0);
                Ok(Self::Unit(Unit { pts, dts, random_access, skip, payload: body }))
            }
            _ => Err(WireError::Kind(kind)),
        }
    }

    /// The bytes to write, in two parts: the second is the payload, which is not copied.
    pub fn parts(&self) -> (Bytes, Bytes) {
        let (kind, payload) = match self {
            Self::Job(json) => (kind::JOB, json.clone()),
            Self::Report(json) => (kind::REPORT, json.clone()),
            Self::Unit(unit) => (kind::UNIT, unit.payload.clone()),
            Self::Key => (kind::KEY, Bytes::new()),
            Self::Ready(_) => (kind::READY, Bytes::new()),
            Self::Taken => (kind::TAKEN, Bytes::new()),
        };
        let mut own = BytesMut::with_capacity(HEAD + UNIT_HEAD);
        match self {
            Self::Unit(unit) => {
                own.put_u64(nanos(unit.pts));
                own.put_u64(nanos(unit.dts));
                own.put_u8((u8::from(unit.random_access) * KEY) | (u8::from(unit.skip) * SKIP));
            }
            Self::Ready(candidate) => own.put_u32(*candidate),
            _ => {}
        }
        let mut head = BytesMut::with_capacity(HEAD + own.len());
        head.put_u8(kind);
        // A longer one is refused by whoever reads it.
        head.put_u32(u32::try_from(own.len() + payload.len()).unwrap_or(u32::MAX));
        head.put(own);
        (head.freeze(), payload)
    }
}

fn nanos(time: MediaTime) -> u64 {
    u64::try_from(time.since_zero().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let time = any::<u64>().prop_map(|nanos| MediaTime::new(Duration::from_nanos(nanos)));
        prop_oneof![
            bytes.clone().prop_map(Frame::Job),
            bytes.clone().prop_map(Frame::Report),
            Just(Frame::Key),
            Just(Frame::Taken),
            any::<u32>().prop_map(Frame::Ready),
            (time.clone(), time, any::<bool>(), any::<bool>(), bytes).prop_map(
                |(pts, dts, random_access, skip, payload)| Frame::Unit(Unit { pts, dts, random_access, skip, payload })
            ),
        ]
    }

    fn written(frames: &[Frame]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [frame.parts().0, frame.parts().1].concat()).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(sent in proptest::collection::vec(frames(), 0..8), step in 1..50_usize) {
            let (mut read, mut got) = (BytesMut::new(), Vec::new());
            for part in written(&sent).chunks(step) {
                read.extend_from_slice(part);
                while let Some(frame) = Frame::take(&mut read).unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(read.is_empty());
        }

        #[test]
        fn nonsense_never_panics_and_never_takes_memory(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut read = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::take(&mut read) {}
            prop_assert!(read.capacity() <= MAX_BODY + 200);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let take = |bytes: &[u8]| Frame::take(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!(take(&[0, 0, 0, 0, 0]), WireError::Kind(0));
        assert_eq!(take(&[2, 0xff, 0, 0, 0]), WireError::Length(0xff00_0000));
        assert_eq!(take(&[3, 0, 0, 0, 1, 0]), WireError::Body { kind: 3, need: 0, have: 1 });
        assert_eq!(take(&[2, 0, 0, 0, 1, 0]), WireError::Body { kind: 2, need: 17, have: 1 });
        let mut flags = vec![2, 0, 0, 0, 17];
        flags.extend([0; 16]);
        flags.push(4);
        assert_eq!(take(&flags), WireError::Flags(4));
    }
}
