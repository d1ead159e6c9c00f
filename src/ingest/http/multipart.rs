//! `multipart/x-mixed-replace` as cameras write it: JPEG pictures one after the other (RFC 2046 section 5.1, loosely).
//!
//! | what cameras do | what becomes of it |
//! |-----------------|--------------------|
//! | `boundary=--x` and `--x`, or `----x`, before each part | dashes before the boundary do not count |
//! | another boundary than they announce, or none announced | the first line that begins with `--` is it |
//! | lines that end with LF alone | taken |
//! | `Content-Length` of the part | so many bytes are read, and a picture is ready with its last byte |
//! | a wrong one | noticed by what follows; from then on the boundary alone counts |
//! | none | the part ends before the next boundary, or where its JPEG markers end and nothing more has come yet |
//! | text before the first part and between parts | skipped, within limits |
//! | parts that are no pictures | skipped |
//!
//! Without I/O and without clocks. All of it is from RFC 2046, and from what go2rtc, ffmpeg and motion tolerate.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::media::jpeg;
use bytes::{Buf as _, Bytes, BytesMut};
use memchr::{memchr, memmem};

/// A boundary line or a header line that is longer is none.
const LONGEST_LINE: usize = 4 << 10;
/// What may stand before the first part and between two.
const MOST_SKIPPED: usize = 1 << 20;
/// Header lines of one part.
const MOST_HEAD: usize = 16 << 10;
/// White space behind a picture.
const MOST_BLANK: usize = 64;
/// Looking whether a part is whole costs no more than reading it so many times, however many of its pieces look like the
/// last. By chance one in 65,536 does.
const MOST_JUDGED: usize = 8;
const SOI: [u8; 2] = [0xff, 0xd8];
const EOI: [u8; 2] = [0xff, 0xd9];

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// No boundary comes.
    #[error("no boundary between pictures within {MOST_SKIPPED} bytes")]
    NoBoundary,
    /// The header lines of a part do not end.
    #[error("the header of a part has no end within {MOST_HEAD} bytes")]
    LongHead,
    /// A part is larger than any picture.
    #[error("a part is larger than {0} bytes")]
    TooLarge(usize),
}

/// Reads one multipart answer.
#[derive(Debug)]
pub struct Multipart {
    buffer: BytesMut,
    state: State,
    /// Without the dashes before it; empty until one is known.
    boundary: Vec<u8>,
    /// It was seen in the stream.
    seen: bool,
    /// `Content-Length` has been right so far.
    honest: bool,
    /// How much of the buffer was looked through.
    scanned: usize,
    /// How many bytes of this part were looked at for [`Multipart::early`], each as often as that was done.
    judged: usize,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until a boundary line. `after`: right behind a part of a given length. `inside`: not at the start of a line.
    Seek { skipped: usize, after: bool, inside: bool },
    /// Header lines.
    Head { read: usize, length: Option<usize>, picture: bool },
    /// A part of that length.
    Sized { length: usize, picture: bool },
    /// A part up to the next boundary.
    Open { picture: bool },
    /// After the last boundary.
    Done,
}

const SEEK: State = State::Seek { skipped: 0, after: false, inside: false };

impl Multipart {
    /// For an answer with that `Content-Type`; parts of more than `limit` bytes end it.
    pub fn new(content_type: &str, limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            state: SEEK,
            boundary: boundary(content_type).unwrap_or_default(),
            seen: false,
            honest: true,
            scanned: 0,
            judged: 0,
            limit,
        }
    }

    /// What came next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the camera has said that nothing more comes.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The next part that is whole and meant to be a picture; `None` until more has come.
    ///
    /// # Errors
    /// [`MultipartError`] where the answer cannot be read on.
    pub fn next_picture(&mut self) -> Result<Option<Bytes>, MultipartError> {
        loop {
            let step = match self.state {
                State::Seek { skipped, after, inside } => self.seek(skipped, after, inside)?,
                State::Head { read, length, picture } => self.head(read, length, picture)?,
                State::Sized { length, picture } => self.sized(length, picture),
                State::Open { picture } => self.open(picture)?,
                State::Done => {
                    self.buffer.clear();
                    Step::Wait
                }
            };
            match step {
                Step::On => {}
                Step::Wait => return Ok(None),
                Step::Part(part, picture) => {
                    if picture || part.starts_with(&SOI) {
                        return Ok(Some(part));
                    }
                }
            }
        }
    }

    /// The last part, of an answer that ended without a boundary after it.
    pub fn finish(&mut self) -> Option<Bytes> {
        let part = std::mem::take(&mut self.buffer).freeze();
        let open = matches!(self.state, State::Open { .. });
        self.state = State::Done;
        Some(part).filter(|part| open && part.starts_with(&SOI))
    }

    /// The line at the start of the buffer, without its end, and how long it is with it.
    fn line(&self) -> Option<(&[u8], usize)> {
        let end = memchr(b'\n', &self.buffer)?;
        Some((self.buffer.get(..end)?.trim_ascii_end(), end + 1))
    }

    fn seek(&mut self, skipped: usize, after: bool, inside: bool) -> Result<Step, MultipartError> {
        let Some((line, length)) = self.line() else {
            if self.buffer.len() > LONGEST_LINE {
                let skipped = skipped + self.buffer.len();
                self.buffer.clear();
                self.honest &= !after;
                self.state = State::Seek { skipped, after: false, inside: true };
                return if skipped > MOST_SKIPPED { Err(MultipartError::NoBoundary) } else { Ok(Step::Wait) };
            }
            return Ok(Step::Wait);
        };
        let found = if inside { None } else { self.delimiter(line) };
        let blank = line.is_empty();
        if let Some((name, last)) = found {
            let name = name.to_vec();
            self.state = if last { State::Done } else { State::Head { read: 0, length: None, picture: false } };
            (self.boundary, self.seen) = (name, true);
        } else {
            let skipped = skipped + length;
            if skipped > MOST_SKIPPED.max(self.limit) {
                return Err(MultipartError::NoBoundary);
            }
            // Right behind a part comes the end of its line, or its length was wrong.
            self.honest &= !after || blank;
            self.state = State::Seek { skipped, after: false, inside: false };
        }
        self.buffer.advance(length);
        Ok(Step::On)
    }

    /// The boundary in a line that is one, and whether it is the last.
    fn delimiter<'l>(&self, line: &'l [u8]) -> Option<(&'l [u8], bool)> {
        let name = undashed(line.strip_prefix(b"--")?);
        if name == self.boundary.as_slice() {
            return Some((name, false));
        }
        if self.seen && name.strip_suffix(b"--") == Some(&self.boundary) {
            return Some((name, true));
        }
        (!self.seen && !name.is_empty()).then_some((name, false))
    }

    fn head(&mut self, read: usize, length: Option<usize>, picture: bool) -> Result<Step, MultipartError> {
        // Right at the picture, without an empty line before it.
        if self.buffer.starts_with(&SOI) {
            self.state = State::Open { picture };
            (self.scanned, self.judged) = (0, 0);
            return Ok(Step::On);
        }
        let Some((line, line_length)) = self.line() else {
            return if read + self.buffer.len() > MOST_HEAD { Err(MultipartError::LongHead) } else { Ok(Step::Wait) };
        };
        let read = read + line_length;
        if read > MOST_HEAD {
            return Err(MultipartError::LongHead);
        }
        self.state = if line.is_empty() {
            match length.filter(|length| self.honest && *length > 0) {
                Some(length) if length > self.limit => return Err(MultipartError::TooLarge(self.limit)),
                Some(length) => State::Sized { length, picture },
                None => {
                    (self.scanned, self.judged) = (0, 0);
                    State::Open { picture }
                }
            }
        } else {
            let colon = memchr(b':', line).unwrap_or(line.len());
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                State::Head { read, length, picture }
            } else if name.trim_ascii().eq_ignore_ascii_case(b"content-type") {
                let picture = value.get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case(b"image/"));
                State::Head { read, length, picture }
            } else {
                State::Head { read, length, picture }
            }
        };
        self.buffer.advance(line_length);
        Ok(Step::On)
    }

    fn sized(&mut self, length: usize, picture: bool) -> Step {
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            return Step::Wait;
        }
        self.state = State::Seek { skipped: 0, after: true, inside: false };
        Step::Part(self.buffer.split_to(length).freeze(), picture)
    }

    fn open(&mut self, picture: bool) -> Result<Step, MultipartError> {
        // The boundary may directly follow the header of an empty part.
        while let Some(at) = memmem::find(self.buffer.get(self.scanned..).unwrap_or_default(), b"\n--") {
            let at = self.scanned + at;
            let line = self.buffer.get(at + 3..).unwrap_or_default();
            let name = undashed(line);
            if name.len() < self.boundary.len() && line.len() <= LONGEST_LINE {
                // It is not whole yet.
                self.scanned = at;
                return Ok(self.early(picture).unwrap_or(Step::Wait)).and_then(|step| self.bounded(step));
            }
            if name.starts_with(&self.boundary) {
                let mut part = self.buffer.split_to(at + 1).freeze();
                part.truncate(part.len().saturating_sub(if part.ends_with(b"\r\n") { 2 } else { 1 }));
                self.state = SEEK;
                return Ok(Step::Part(part, picture));
            }
            self.scanned = at + 1;
        }
        self.scanned = self.buffer.len().saturating_sub(2).max(self.scanned);
        let step = self.early(picture).unwrap_or(Step::Wait);
        self.bounded(step)
    }

    fn bounded(&self, step: Step) -> Result<Step, MultipartError> {
        if self.buffer.len() > self.limit { Err(MultipartError::TooLarge(self.limit)) } else { Ok(step) }
    }

    /// The part, if a whole picture is all that has come: a camera that waits for its next picture before it sends the
    /// boundary would make us late by one.
    fn early(&mut self, picture: bool) -> Option<Step> {
        let tail = self.buffer.get(self.buffer.len().saturating_sub(MOST_BLANK)..)?;
        let end = self.buffer.len() - tail.len() + tail.trim_ascii_end().len();
        let body = self.buffer.get(..end)?;
        if !body.ends_with(&EOI) || self.judged > MOST_JUDGED * end {
            return None;
        }
        self.judged += end;
        if jpeg::parse(body).ok()?.end != end {
            return None;
        }
        self.state = SEEK;
        let part = self.buffer.split_to(end).freeze();
        Some(Step::Part(part, picture))
    }
}

enum Step {
    On,
    Wait,
    /// A part, and whether its header says that it is a picture.
    Part(Bytes, bool),
}

/// Without the dashes at the start: cameras disagree on how many there are.
fn undashed(text: &[u8]) -> &[u8] {
    let dashes = text.iter().take_while(|byte| **byte == b'-').count();
    text.get(dashes..).unwrap_or_default()
}

/// The boundary of a `Content-Type`, without dashes before it.
fn boundary(content_type: &str) -> Option<Vec<u8>> {
    let lower = content_type.to_ascii_lowercase();
    let at = lower.find("boundary=")? + "boundary=".len();
    let value = content_type.get(at..)?.trim_start();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split([';', ' ']).next(),
    };
    let value = undashed(value?.trim().as_bytes());
    (!value.is_empty()).then(|| value.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::testing::picture;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    /// What comes out when `bytes` come in pieces of `size`.
    fn read(content_type: &str, bytes: &[u8], size: usize) -> (Vec<Bytes>, Multipart) {
        let mut multipart = Multipart::new(content_type, LIMIT);
        let mut pictures = Vec::new();
        for piece in bytes.chunks(size) {
            multipart.push(piece);
            while let Some(picture) = multipart.next_picture().unwrap() {
                pictures.push(picture);
            }
        }
        (pictures, multipart)
    }

    /// Some pictures, each between these two texts; `LEN` becomes its length.
    fn stream(pictures: &[Bytes], before: &str, after: &str) -> Vec<u8> {
        let part = |picture: &Bytes| {
            let before = before.replace("LEN", &picture.len().to_string());
            [before.as_bytes(), picture, after.as_bytes()].concat()
        };
        pictures.iter().flat_map(part).collect()
    }

    fn pictures() -> Vec<Bytes> {
        vec![picture(64, 48, 10), picture(32, 16, 200), picture(48, 48, 90)]
    }

    #[test]
    fn every_dialect_gives_the_same_pictures() {
        let kind = "multipart/x-mixed-replace; boundary=";
        let length = "Content-Type: image/jpeg\r\nContent-Length: LEN\r\n\r\n";
        for (content_type, before, after) in [
            (format!("{kind}x"), format!("--x\r\n{length}"), "\r\n"),
            (format!("{kind}\"x\"; charset=z"), format!("--x\r\n{length}"), "\r\n"),
            (format!("{kind}--x"), format!("--x\r\n{length}"), "\r\n"),
            (format!("{kind}--x"), format!("----x\r\n{length}"), "\r\n"),
            (format!("{kind}x"), format!("\r\n--x\r\n{length}"), ""),
            (format!("{kind}x"), format!("--x\r\n{length}"), ""),
            (format!("{kind}x"), "--x\ncontent-type: image/jpeg\ncontent-length:LEN\n\n".into(), "\n"),
            (format!("{kind}x"), "--x\nContent-Type: image/jpeg\n\n".into(), "\n"),
            (format!("{kind}x"), "--x\r\nContent-Type: image/jpeg\r\n\r\n".into(), "\r\n"),
            (format!("{kind}x"), "--x\r\n\r\n".into(), "\r\n"),
            (format!("{kind}x"), "--x\r\n".into(), "\r\n"),
            (format!("{kind}x"), format!("--y z\r\n{length}"), "\r\n"),
            ("multipart/x-mixed-replace".into(), format!("--y\r\n{length}"), "\r\n"),
            ("multipart/x-mixed-replace".into(), "--y\r\n\r\n".into(), "\r\n"),
            (
                format!("{kind}x"),
                format!("no part\r\n--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x\r\n{length}"),
                "\r\n",
            ),
            // Lengths that are too small, too large, and none.
            (format!("{kind}x"), "--x\r\nContent-Type: image/jpeg\r\nContent-Length: 0\r\n\r\n".into(), "\r\n"),
            (format!("{kind}x"), "--x\r\nContent-Type: image/jpeg\r\nContent-Length: abc\r\n\r\n".into(), "\r\n"),
        ] {
            let bytes = stream(&pictures(), &before, after);
            for size in [1, 7, 100, bytes.len()] {
                let (read, _) = read(&content_type, &bytes, size);
                assert_eq!(read, pictures(), "{content_type} {before:?} {after:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_picture_is_ready_with_its_last_byte() {
        for before in ["--x\r\nContent-Length: LEN\r\n\r\n", "--x\r\n\r\n"] {
            let one = stream(&pictures()[..1], before, "");
            let (read, _) = read("multipart/x-mixed-replace;boundary=x", &one, 64);
            assert_eq!(read.len(), 1, "{before}");
        }
    }

    #[test]
    fn wrong_lengths_cost_a_picture_or_two_and_are_believed_no_longer() {
        for wrong in ["20", "3000"] {
            let before = format!("--x\r\nContent-Type: image/jpeg\r\nContent-Length: {wrong}\r\n\r\n");
            let sent: Vec<Bytes> = (0..20).map(|_| picture(64, 48, 10)).collect();
            let bytes = stream(&sent, &before, "\r\n");
            let (read, _) = read("multipart/x-mixed-replace;boundary=x", &bytes, 50);
            let whole = read.iter().filter(|part| **part == sent[0]).count();
            assert!(whole >= 14, "{whole} of 20 with {wrong}");
        }
    }

    #[test]
    fn the_last_boundary_ends_it_and_so_does_the_connection() {
        let kind = "multipart/x-mixed-replace;boundary=x";
        let mut bytes = stream(&pictures(), "--x\r\nContent-Length: LEN\r\n\r\n", "\r\n");
        bytes.extend_from_slice(b"--x--\r\nwhatever");
        let (read_, multipart) = read(kind, &bytes, 9);
        assert_eq!((read_.len(), multipart.is_done()), (3, true));
        // A picture with something behind it, so that it does not look whole.
        let bytes = [b"--x\r\n\r\n", &pictures()[0][..], b"\0\0"].concat();
        let (read_, mut multipart) = read(kind, &bytes, 9);
        assert!(read_.is_empty() && multipart.finish().is_some_and(|part| part.starts_with(&pictures()[0])));
        assert!(multipart.is_done() && multipart.finish().is_none());
    }

    #[test]
    fn pieces_that_look_like_the_last_cost_no_more_than_reading() {
        let mut multipart = Multipart::new("multipart/x-mixed-replace;boundary=x", 1 << 20);
        multipart.push(b"--x\r\n\r\n");
        // The picture ends within a piece, and what follows never ends.
        multipart.push(&[&picture(64, 48, 10)[..], b"\0\0"].concat());
        for _ in 0..10_000 {
            multipart.push(b"\0\0\xff\xd9");
            assert_eq!(multipart.next_picture(), Ok(None));
        }
        let length = multipart.buffer.len();
        assert!(multipart.judged <= (MOST_JUDGED + 1) * length, "{} for {length}", multipart.judged);
        // The next part is ready with its last byte again.
        multipart.push(b"\r\n--x\r\n\r\n");
        assert!(multipart.next_picture().unwrap().is_some());
        multipart.push(&picture(64, 48, 10));
        assert_eq!(multipart.next_picture(), Ok(Some(picture(64, 48, 10))));
    }

    #[test]
    fn memory_is_bounded() {
        let fails = |start: &[u8], filler: &[u8]| {
            let mut multipart = Multipart::new("multipart/x-mixed-replace;boundary=x", LIMIT);
            multipart.push(start);
            for _ in 0..3 * LIMIT / filler.len() {
                multipart.push(filler);
                if let Err(error) = multipart.next_picture() {
                    return error;
                }
                assert!(multipart.buffer.len() <= LIMIT + filler.len());
            }
            panic!("no end");
        };
        assert_eq!(fails(b"", &[b'a'; 1000]), MultipartError::NoBoundary);
        assert_eq!(fails(b"", b"line\r\n"), MultipartError::NoBoundary);
        assert_eq!(fails(b"--x\r\n", &[b'a'; 1000]), MultipartError::LongHead);
        assert_eq!(fails(b"--x\r\n", b"a: b\r\n"), MultipartError::LongHead);
        assert_eq!(fails(b"--x\r\n\r\n", &[b'a'; 1000]), MultipartError::TooLarge(LIMIT));
        assert_eq!(fails(b"--x\r\n\r\n", b"\n--y"), MultipartError::TooLarge(LIMIT));
        assert_eq!(fails(b"--x\r\nContent-Length: 1048577\r\n\r\n", b"a"), MultipartError::TooLarge(LIMIT));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'-'), Just(b'x'), Just(b'\r'), Just(0xff), Just(0xd8), any::<u8>()], 0..300),
            size in 1_usize..40,
        ) {
            let kind = "multipart/x-mixed-replace;boundary=x";
            let stream = [b"--x\r\n\r\n", &bytes[..], b"\r\n--x\r\nContent-Length: 3\r\n\r\nabc\r\n"].concat();
            let (whole, _) = read(kind, &stream, stream.len());
            let (pieces, _) = read(kind, &stream, size);
            // In pieces a picture may be ready before it is known that more follows; nothing else differs.
            if !bytes.windows(2).any(|pair| pair == EOI) {
                prop_assert_eq!(whole, pieces);
            }
        }
    }
}
