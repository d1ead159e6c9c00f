//! Reading requests and writing responses (RFC 2326), with interleaved frames between them.
//!
//! Tolerant where players need it (bare LF, Latin-1, any URI form, repeated headers, blank lines before a request),
//! bounded everywhere.

#![deny(clippy::indexing_slicing)]

use bytes::{Buf, Bytes, BytesMut};
use std::fmt::Write;

/// The largest request line with headers, in bytes.
pub const MAX_HEAD: usize = 16 << 10;
/// The largest request body, in bytes.
pub const MAX_BODY: usize = 64 << 10;
/// The most header lines.
const MAX_HEADERS: usize = 128;

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request.
    Request(Request),
    /// A response; we never ask, but some clients answer anyway.
    Response,
    /// An interleaved frame: RTCP from the viewer, mostly.
    Interleaved {
        /// The channel.
        channel: u8,
        /// The packet.
        payload: Bytes,
    },
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, as sent.
    pub method: String,
    /// The request URI, as sent.
    pub uri: String,
    /// Header names and values in the order they came, repeated ones included.
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All headers of that name, in any case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The number that the response repeats, as sent.
    pub fn cseq(&self) -> Option<&str> {
        self.header("CSeq")
    }
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadRequest {
    /// The status to answer with.
    pub status: Status,
    /// The CSeq, where one could be found.
    pub cseq: Option<String>,
    /// What is wrong.
    pub reason: &'static str,
    /// Where the next message begins is known, so the connection can go on.
    pub recoverable: bool,
}

/// The status codes we answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are the reason phrases of RFC 2326 section 7.1.1")]
pub enum Status {
    Ok = 200,
    BadRequest = 400,
    Unauthorized = 401,
    Forbidden = 403,
    NotFound = 404,
    MethodNotAllowed = 405,
    NotAcceptable = 406,
    RequestEntityTooLarge = 413,
    SessionNotFound = 454,
    MethodNotValidInThisState = 455,
    UnsupportedTransport = 461,
    InternalServerError = 500,
    NotImplemented = 501,
    ServiceUnavailable = 503,
    VersionNotSupported = 505,
    OptionNotSupported = 551,
}

impl Status {
    fn phrase(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::NotAcceptable => "Not Acceptable",
            Self::RequestEntityTooLarge => "Request Entity Too Large",
            Self::SessionNotFound => "Session Not Found",
            Self::MethodNotValidInThisState => "Method Not Valid in This State",
            Self::UnsupportedTransport => "Unsupported Transport",
            Self::InternalServerError => "Internal Server Error",
            Self::NotImplemented => "Not Implemented",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::VersionNotSupported => "RTSP Version Not Supported",
            Self::OptionNotSupported => "Option Not Supported",
        }
    }
}

/// Takes messages out of a byte stream.
#[derive(Debug, Default)]
pub struct RequestReader {
    buffer: BytesMut,
    /// How far the end of a head was searched for already, so that slow senders cost no repeated scans.
    searched: usize,
    /// Bytes of an oversized body still to be thrown away.
    discard: usize,
}

impl RequestReader {
    /// Where to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next message, if it is there whole.
    ///
    /// # Errors
    /// [`BadRequest`] for what cannot be read; after an unrecoverable one the connection must be closed.
    pub fn read(&mut self) -> Result<Option<Incoming>, BadRequest> {
        let discard = self.discard.min(self.buffer.len());
        self.buffer.advance(discard);
        self.discard -= discard;
        if self.discard > 0 {
            return Ok(None);
        }
        if self.searched == 0 {
            let blank = self.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b' ')).count();
            self.buffer.advance(blank);
        }
        match self.buffer.first() {
            None => Ok(None),
            Some(b'$') => Ok(self.interleaved()),
            Some(_) => self.message(),
        }
    }

    fn interleaved(&mut self) -> Option<Incoming> {
        let (&[_, channel, high, low], _) = self.buffer.split_first_chunk::<4>()?;
        let size = usize::from(u16::from_be_bytes([high, low]));
        if self.buffer.len() < 4 + size {
            return None;
        }
        self.buffer.advance(4);
        Some(Incoming::Interleaved { channel, payload: self.buffer.split_to(size).freeze() })
    }

    fn message(&mut self) -> Result<Option<Incoming>, BadRequest> {
        let Some(end) = head_end(&self.buffer, self.searched) else {
            // The blank line may be cut anywhere in its four bytes.
            self.searched = self.buffer.len().saturating_sub(3);
            if self.buffer.len() > MAX_HEAD {
                return Err(self.too_long());
            }
            return Ok(None);
        };
        if end > MAX_HEAD {
            return Err(self.too_long());
        }
        let Some(head) = self.buffer.get(..end) else { return Ok(None) };
        let head = latin1(head);
        let parsed = parse_head(&head);
        let length = match content_length(&head) {
            Ok(length) => length,
            Err(reason) => {
                let (status, cseq) = (Status::BadRequest, find_cseq(&head));
                return Err(BadRequest { status, cseq, reason, recoverable: false });
            }
        };
        if length > MAX_BODY {
            self.skip(end);
            self.discard = length;
            return Err(BadRequest {
                status: Status::RequestEntityTooLarge,
                cseq: find_cseq(&head),
                reason: "the body is longer than 64 KiB",
                recoverable: true,
            });
        }
        if self.buffer.len() < end + length {
            return Ok(None);
        }
        self.skip(end);
        let body = self.buffer.split_to(length).freeze();
        match parsed {
            Ok(None) => Ok(Some(Incoming::Response)),
            Ok(Some((method, uri, headers))) => Ok(Some(Incoming::Request(Request { method, uri, headers, body }))),
            Err((status, reason)) => Err(BadRequest { status, cseq: find_cseq(&head), reason, recoverable: true }),
        }
    }

    fn skip(&mut self, count: usize) {
        self.buffer.advance(count.min(self.buffer.len()));
        self.searched = 0;
    }

    fn too_long(&self) -> BadRequest {
        let head = self.buffer.get(..MAX_HEAD).unwrap_or_default();
        let (status, cseq) = (Status::BadRequest, find_cseq(&latin1(head)));
        BadRequest { status, cseq, reason: "the head is longer than 16 KiB", recoverable: false }
    }
}

/// The end of the head that begins at 0, after its blank line; the search begins at `from`.
fn head_end(buffer: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let newline = at + memchr::memchr(b'\n', buffer.get(at..)?)?;
        match buffer.get(newline + 1..) {
            Some([b'\n', ..]) => return Some(newline + 2),
            Some([b'\r', b'\n', ..]) => return Some(newline + 3),
            _ => at = newline + 1,
        }
    }
}

/// Each byte is one character, so nothing can fail and nothing is lost.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

type Head = (String, String, Vec<(String, String)>);

/// `None` for a response.
fn parse_head(head: &str) -> Result<Option<Head>, (Status, &'static str)> {
    let bad = |reason| (Status::BadRequest, reason);
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default().trim();
    if first.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("RTSP/")) {
        return Ok(None);
    }
    let (method, rest) = first.split_once(' ').ok_or_else(|| bad("the request line has no URI"))?;
    let (uri, version) = rest.trim().rsplit_once(' ').ok_or_else(|| bad("the request line has no version"))?;
    if method.is_empty() || method.len() > 32 || !method.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("the method is not a word"));
    }
    match version.trim() {
        "RTSP/1.0" => {}
        other if other.starts_with("RTSP/") => {
            return Err((Status::VersionNotSupported, "only RTSP/1.0 is spoken here"));
        }
        _ => return Err(bad("this is not RTSP")),
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.is_empty() {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            // A folded header goes on (RFC 2326 section 4.3 by way of RFC 2068 section 2.2).
            let Some((_, value)) = headers.last_mut() else { return Err(bad("a header begins with a blank")) };
            value.push(' ');
            value.push_str(line.trim());
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header line has no colon"))?;
        if headers.len() == MAX_HEADERS {
            return Err(bad("there are more than 128 header lines"));
        }
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(Some((method.to_owned(), uri.trim().to_owned(), headers)))
}

fn raw_header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let of_that_name = |line: &'a str| {
        let (known, value) = line.split_once(':')?;
        known.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    };
    head.lines().skip(1).find_map(of_that_name)
}

fn content_length(head: &str) -> Result<usize, &'static str> {
    let Some(text) = raw_header(head, "Content-Length") else { return Ok(0) };
    // A signed or enormous length leaves no way to find the next message.
    text.parse::<u32>().map(|length| length as usize).map_err(|_| "the Content-Length is not a number")
}

fn find_cseq(head: &str) -> Option<String> {
    let value = raw_header(head, "CSeq")?;
    (value.len() <= 32 && value.bytes().all(|byte| byte.is_ascii_graphic())).then(|| value.to_owned())
}

/// Characters of a reason at most.
const MOST_WORDS: usize = 200;

/// Writes a response.
#[derive(Debug)]
pub struct Response {
    head: String,
    body: String,
}

impl Response {
    /// A response to the request with that CSeq.
    pub fn new(status: Status, cseq: Option<&str>) -> Self {
        Self::saying(status, "", cseq)
    }

    /// The same with `words` after the status, which players write into their logs.
    pub fn saying(status: Status, words: &str, cseq: Option<&str>) -> Self {
        let mut head = format!("RTSP/1.0 {} {}", status as u16, status.phrase());
        if !words.is_empty() {
            // ffmpeg keeps 255 bytes of it.
            let plain = |c: char| if c.is_ascii_graphic() { c } else { ' ' };
            head.extend(": ".chars().chain(words.chars().map(plain).take(MOST_WORDS)));
        }
        head.push_str("\r\n");
        if let Some(cseq) = cseq.filter(|cseq| cseq.bytes().all(|byte| byte.is_ascii_graphic())) {
            push_header(&mut head, "CSeq", cseq);
        }
        push_header(&mut head, "Server", concat!("Fanlight/", env!("CARGO_PKG_VERSION")));
        Self { head, body: String::new() }
    }

    /// Adds a header line. Line breaks in the value cannot start another one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        push_header(&mut self.head, name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: String) -> Self {
        push_header(&mut self.head, "Content-Type", content_type);
        self.body = body;
        self
    }

    /// The bytes to send.
    pub fn into_bytes(mut self) -> Bytes {
        if !self.body.is_empty() {
            let length = self.body.len().to_string();
            push_header(&mut self.head, "Content-Length", &length);
        }
        self.head.push_str("\r\n");
        self.head.push_str(&self.body);
        Bytes::from(self.head)
    }
}

fn push_header(head: &mut String, name: &str, value: &str) {
    let value: String = value.chars().filter(|character| !character.is_control()).collect();
    // Writing to a string cannot fail.
    let _ = write!(head, "{name}: {value}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<Incoming>, BadRequest> {
        let mut reader = RequestReader::default();
        reader.buffer().extend_from_slice(bytes);
        reader.read()
    }

    fn request(bytes: &[u8]) -> Request {
        match read(bytes) {
            Ok(Some(Incoming::Request(request))) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_ordinary_request() {
        let request = request(b"SETUP rtsp://h/porch/trackID=0 RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP\r\n\r\n");
        assert_eq!((request.method.as_str(), request.uri.as_str()), ("SETUP", "rtsp://h/porch/trackID=0"));
        assert_eq!(request.cseq(), Some("3"));
        assert_eq!(request.header("transport"), Some("RTP/AVP/TCP"));
    }

    #[test]
    fn bare_line_feeds_latin1_blank_lines_and_repeated_headers() {
        let request =
            request(b"\r\n\nOPTIONS * RTSP/1.0\ncseq:1\nUser-Agent: K\xfcche\nAccept: a\nAccept: b\n folded\n\n");
        assert_eq!(request.header("User-Agent"), Some("K\u{fc}che"));
        assert_eq!(request.all("accept").collect::<Vec<_>>(), ["a", "b folded"]);
        assert_eq!(request.uri, "*");
    }

    #[test]
    fn a_uri_may_hold_blanks() {
        assert_eq!(request(b"DESCRIBE rtsp://h/front door RTSP/1.0\r\n\r\n").uri, "rtsp://h/front door");
    }

    #[test]
    fn requests_frames_and_bodies_follow_each_other() {
        let mut reader = RequestReader::default();
        let bytes = b"GET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 4\r\n\r\nping$\x01\x00\x03abcRTSP/1.0 200 OK\r\nCSeq: 9\r\n\r\nOPTIONS * RTSP/1.0\r\n\r\n";
        let mut got = Vec::new();
        for byte in bytes {
            reader.buffer().extend_from_slice(&[*byte]);
            if let Some(message) = reader.read().unwrap() {
                got.push(message);
            }
        }
        assert_eq!(got.len(), 4);
        assert!(matches!(&got[0], Incoming::Request(request) if &request.body[..] == b"ping"));
        assert_eq!(got[1], Incoming::Interleaved { channel: 1, payload: Bytes::from_static(b"abc") });
        assert_eq!(got[2], Incoming::Response);
        assert!(matches!(&got[3], Incoming::Request(request) if request.method == "OPTIONS"));
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_its_cseq() {
        let bad = |bytes: &[u8]| read(bytes).unwrap_err();
        let garbage = bad(b"HELLO\r\nCSeq: 7\r\n\r\n");
        assert_eq!(
            (garbage.status, garbage.cseq.as_deref(), garbage.recoverable),
            (Status::BadRequest, Some("7"), true)
        );
        assert_eq!(bad(b"GET / HTTP/1.1\r\n\r\n").status, Status::BadRequest);
        assert_eq!(bad(b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n").status, Status::VersionNotSupported);
        assert!(!bad(b"OPTIONS * RTSP/1.0\r\nContent-Length: -1\r\n\r\n").recoverable);
        assert!(!bad(&[b'A'; MAX_HEAD + 1]).recoverable);
        assert_eq!(bad(b"OPTIONS * RTSP/1.0\r\nCSeq 1\r\n\r\n").reason, "a header line has no colon");
    }

    #[test]
    fn an_oversized_body_is_refused_and_skipped() {
        let mut reader = RequestReader::default();
        reader.buffer().extend_from_slice(b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 70000\r\n\r\n");
        assert_eq!(reader.read().unwrap_err().status, Status::RequestEntityTooLarge);
        for _ in 0..7 {
            reader.buffer().extend_from_slice(&[b'x'; 10_000]);
            assert_eq!(reader.read(), Ok(None));
        }
        reader.buffer().extend_from_slice(b"OPTIONS * RTSP/1.0\r\n\r\n");
        assert!(matches!(reader.read(), Ok(Some(Incoming::Request(_)))));
    }

    #[test]
    fn responses_cannot_be_split_by_their_values() {
        let bytes = Response::new(Status::Ok, Some("1\r\nEvil: yes")).header("X", "a\nb\rc").into_bytes();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(!text.contains("CSeq") && !text.contains("Evil"));
        assert!(text.ends_with("X: abc\r\n\r\n"));
    }

    #[test]
    fn our_responses_are_readable_by_another_implementation() {
        let words = format!("no\r\nEvil: yes {}", "x".repeat(999));
        let bytes = Response::saying(Status::ServiceUnavailable, &words, None).into_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.starts_with("RTSP/1.0 503 Service Unavailable: no  Evil: yes xxx"), "{text}");
        assert!(text.lines().next().unwrap().len() < 255);
        let bytes = Response::new(Status::Ok, Some("2")).body("application/sdp", "v=0\r\n".into()).into_bytes();
        let (message, used) = rtsp_types::Message::<Vec<u8>>::parse(&bytes).unwrap();
        assert_eq!(used, bytes.len());
        let rtsp_types::Message::Response(response) = message else { panic!() };
        assert_eq!(response.body(), b"v=0\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_survived(pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                Just(b"OPTIONS * RTSP/1.0\r\n".to_vec()),
                Just(b"Content-Length: 3\r\n\r\n".to_vec()),
                Just(b"$\x00\x00\x02".to_vec()),
            ], 0..40)) {
            let mut reader = RequestReader::default();
            for piece in pieces {
                reader.buffer().extend_from_slice(&piece);
                loop {
                    match reader.read() {
                        Ok(None) => break,
                        Ok(Some(_)) => {}
                        Err(error) if error.recoverable => {}
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(reader.buffer().len() <= MAX_HEAD + MAX_BODY + 70_000);
            }
        }
    }
}
