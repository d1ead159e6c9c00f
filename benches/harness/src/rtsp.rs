//! RTSP 1.0 (RFC 2326) as far as loopback needs it: the message reader of both ends and the camera's side of a handshake.

use anyhow::{Result, bail};

/// A request or a response.
#[derive(Debug)]
pub struct Message {
    /// First line.
    pub start: String,
    headers: Vec<(String, String)>,
    /// As long as Content-Length says.
    pub body: Vec<u8>,
}

impl Message {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The second word of a response's first line; 0 where it is no number.
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    fn word(&self, index: usize) -> &str {
        self.start.split_whitespace().nth(index).unwrap_or("")
    }
}

/// The message at the front of `bytes` and its length; none while it is incomplete.
///
/// # Errors
/// The head is over 16 KiB or the body over 256 KiB.
pub fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>> {
    let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        if bytes.len() > 16 << 10 {
            bail!("RTSP head without end");
        }
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes[..head]);
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or("").to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())).collect();
    let mut message = Message { start, headers, body: Vec::new() };
    let length = message.header("content-length").and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
    if length > 256 << 10 {
        bail!("RTSP body of {length} bytes");
    }
    let total = head + 4 + length;
    let Some(body) = bytes.get(head + 4..total) else { return Ok(None) };
    message.body = body.to_vec();
    Ok(Some((message, total)))
}

/// The control URL of the first video track of an SDP.
pub fn video_control(sdp: &str, base: &str) -> String {
    let video = sdp.lines().skip_while(|l| !l.starts_with("m=video")).skip(1).take_while(|l| !l.starts_with("m="));
    match video.filter_map(|l| l.strip_prefix("a=control:")).map(str::trim).next() {
        None | Some("*") => base.to_owned(),
        Some(url) if url.contains("://") => url.to_owned(),
        Some(relative) => format!("{}/{relative}", base.trim_end_matches('/')),
    }
}

/// What a camera does after an answer has been written.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    /// Wait for the next request.
    Nothing,
    /// The session exists from now on.
    Opened,
    /// Send media from the next picture.
    Play,
    /// Close the connection.
    Close,
}

/// A camera's side of one connection: interleaved TCP on channels 0 and 1, no password.
#[derive(Debug, Default)]
pub struct Handshake {
    open: bool,
}

impl Handshake {
    /// The answer to a request. `full` refuses a new session with 453, as a camera limited to a few clients does;
    /// `rtp_info` gives the value of that header for a control URL.
    pub fn answer(
        &mut self,
        request: &Message,
        sdp: &str,
        full: bool,
        rtp_info: impl FnOnce(&str) -> String,
    ) -> (String, Then) {
        let (method, url) = (request.word(0), request.word(1));
        let session = "Session: 12345678;timeout=60\r\n";
        let mut body = "";
        let mut then = Then::Nothing;
        let (status, headers) = match method {
            "OPTIONS" => (
                "200 OK",
                "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, SET_PARAMETER, TEARDOWN\r\n".to_owned(),
            ),
            "DESCRIBE" => {
                body = sdp;
                let base = url.trim_end_matches('/');
                ("200 OK", format!("Content-Base: {base}/\r\nContent-Type: application/sdp\r\n"))
            }
            "SETUP" if !request.header("transport").unwrap_or("").contains("/TCP") => {
                ("461 Unsupported Transport", String::new())
            }
            "SETUP" if full && !self.open => ("453 Not Enough Bandwidth", String::new()),
            "SETUP" => {
                if !self.open {
                    then = Then::Opened;
                }
                self.open = true;
                ("200 OK", format!("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n{session}"))
            }
            "PLAY" if self.open => {
                then = Then::Play;
                let control = format!("{}/trackID=0", url.trim_end_matches('/'));
                ("200 OK", format!("{session}Range: npt=now-\r\nRTP-Info: {}\r\n", rtp_info(&control)))
            }
            "PLAY" => ("454 Session Not Found", String::new()),
            "GET_PARAMETER" | "SET_PARAMETER" => ("200 OK", session.to_owned()),
            "TEARDOWN" => {
                then = Then::Close;
                ("200 OK", session.to_owned())
            }
            _ => ("501 Not Implemented", String::new()),
        };
        let cseq = request.header("cseq").unwrap_or("0");
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        (format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}{length}\r\n{body}"), then)
    }
}

/// Takes the complete requests from the front of `input`, without the RTCP between them.
///
/// # Errors
/// As [`parse`].
pub fn requests(input: &mut Vec<u8>) -> Result<Vec<Message>> {
    let mut found = Vec::new();
    loop {
        let taken = match input.as_slice() {
            [b'$', _, high, low, ..] => {
                let size = 4 + usize::from(u16::from_be_bytes([*high, *low]));
                if input.len() < size {
                    return Ok(found);
                }
                size
            }
            [b'$', ..] | [] => return Ok(found),
            text => match parse(text)? {
                None => return Ok(found),
                Some((message, size)) => {
                    found.push(message);
                    size
                }
            },
        };
        input.drain(..taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_when_complete() {
        let raw = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: 3\r\n\r\nabcREST";
        let (message, size) = parse(raw).unwrap().unwrap();
        assert_eq!((message.status(), message.body.as_slice(), &raw[size..]), (200, &b"abc"[..], &b"REST"[..]));
        assert!(parse(&raw[..raw.len() - 5]).unwrap().is_none());
        assert!(parse(&[b'x'; 20_000]).is_err());
        assert!(parse(b"RTSP/1.0 200 OK\r\nContent-Length: 9999999\r\n\r\n").is_err());
    }

    #[test]
    fn requests_come_without_the_rtcp_between_them() {
        let mut input = b"$\x01\x00\x02ab".to_vec();
        input.extend(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x01\x00\x04a");
        let found = requests(&mut input).unwrap();
        assert_eq!((found.len(), found[0].word(0)), (1, "OPTIONS"));
        assert_eq!(input, b"$\x01\x00\x04a");
    }

    #[test]
    fn control_urls() {
        let sdp = "v=0\r\na=control:*\r\nm=audio 0 RTP/AVP 0\r\na=control:trackID=9\r\nm=video 0 RTP/AVP 96\r\na=control:trackID=1\r\n";
        assert_eq!(video_control(sdp, "rtsp://h/cam/"), "rtsp://h/cam/trackID=1");
        assert_eq!(video_control("m=video 0\r\na=control:rtsp://h/x\r\n", "rtsp://h/cam/"), "rtsp://h/x");
        assert_eq!(video_control("m=video 0\r\n", "rtsp://h/cam/"), "rtsp://h/cam/");
    }

    #[test]
    fn the_session_above_the_limit_is_refused() {
        let setup = parse(b"SETUP rtsp://h/cam/trackID=0 RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP\r\n\r\n")
            .unwrap()
            .unwrap()
            .0;
        let mut handshake = Handshake::default();
        let (answer, then) = handshake.answer(&setup, "", true, |_| String::new());
        assert!(answer.starts_with("RTSP/1.0 453") && then == Then::Nothing);
        let (answer, then) = handshake.answer(&setup, "", false, |_| String::new());
        assert!(answer.starts_with("RTSP/1.0 200") && then == Then::Opened);
    }
}
