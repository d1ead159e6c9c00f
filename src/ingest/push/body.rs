//! What is pushed: a picture, an alarm, or both.

use super::alarm::{self, Alarm, AlarmError};
use bytes::Bytes;
use multer::Multipart;

/// What one push brings.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    /// A picture that begins as JPEG does; not decoded yet.
    pub picture: Option<Bytes>,
    /// What the camera says has happened.
    pub alarm: Option<Alarm>,
}

/// Why a body cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// There is none.
    #[error("the body is empty; it is to be a JPEG picture")]
    Empty,
    /// It is something else.
    #[error("the body begins like {0}; it is to be a JPEG picture, or multipart with one in any part")]
    Foreign(&'static str),
    /// It is multipart, but not as RFC 2046 has it.
    #[error("the multipart body cannot be read: {0}")]
    Multipart(#[from] multer::Error),
    /// It is multipart without anything that we know.
    #[error("none of the {0} parts is a JPEG picture or an alarm")]
    NoPart(usize),
    /// More parts than anybody needs.
    #[error("more than {MAX_PARTS} parts")]
    TooManyParts,
    /// It is XML, but no alarm.
    #[error(transparent)]
    Alarm(#[from] AlarmError),
}

/// Parts of one body; cameras with several pictures of an alarm send a handful.
const MAX_PARTS: usize = 64;
/// Begins every JPEG (ITU-T T.81 B.1.1.3).
const SOI: &[u8] = &[0xff, 0xd8];

/// Reads a body. What it is shows in its first bytes; cameras' content types are too often wrong.
///
/// # Errors
/// [`BodyError`] says what is wrong with it.
pub async fn parse(content_type: &str, body: Bytes) -> Result<Pushed, BodyError> {
    if body.is_empty() {
        return Err(BodyError::Empty);
    }
    if is_jpeg(&body) {
        return Ok(Pushed { picture: Some(body), alarm: None });
    }
    if let Some(boundary) = boundary(content_type, &body) {
        return multipart(boundary, body).await;
    }
    if is_xml(&body) {
        return Ok(Pushed { picture: None, alarm: Some(alarm::parse(&body)?) });
    }
    Err(BodyError::Foreign(looks_like(&body)))
}

/// Whether bytes begin as a JPEG picture.
pub fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(SOI)
}

fn is_xml(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.trim_ascii_start().first() == Some(&b'<')
}

fn looks_like(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => "PNG",
        [b'G', b'I', b'F', b'8', ..] => "GIF",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "WebP",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "MP4 or HEIC",
        [b'{' | b'[', ..] => "JSON",
        [0x00..=0x08 | 0x0e..=0x1f | 0x7f.., ..] => "something binary that is no JPEG",
        _ => "text",
    }
}

/// The boundary of a multipart body: that of its first line, since some cameras name another in their header; else that
/// of the header.
fn boundary(content_type: &str, body: &[u8]) -> Option<String> {
    const MULTIPART: &str = "multipart/";
    if !content_type.trim_start().get(..MULTIPART.len())?.eq_ignore_ascii_case(MULTIPART) {
        return None;
    }
    let start = body.trim_ascii_start();
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    // RFC 2046 section 5.1.1: at most 70 characters.
    let in_body = line.strip_prefix(b"--").filter(|name| (1..=70).contains(&name.len()));
    let in_body = in_body.and_then(|name| std::str::from_utf8(name).ok()).map(str::to_owned);
    in_body.or_else(|| {
        let parameters = content_type.split(';').filter_map(|parameter| parameter.split_once('='));
        let mut named = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
        named.next().map(|(_, value)| value.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty())
    })
}

async fn multipart(boundary: String, body: Bytes) -> Result<Pushed, BodyError> {
    // Blank lines before the first boundary are preamble, but not to the parser.
    let skipped = body.len() - body.trim_ascii_start().len();
    let whole = body.slice(skipped..);
    let length = body.len();
    let stream = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(whole) });
    let mut parts = Multipart::new(stream, boundary);
    let mut pushed = Pushed::default();
    let mut wrong = None;
    let mut count = 0;
    loop {
        let mut part = match parts.next_field().await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            // What came before the fault counts: cameras forget the last boundary.
            Err(_) if pushed.picture.is_some() || pushed.alarm.is_some() => break,
            Err(error) => return Err(error.into()),
        };
        count += 1;
        if count > MAX_PARTS {
            return Err(BodyError::TooManyParts);
        }
        let mut chunks = Vec::new();
        let mut torn = None;
        loop {
            match part.chunk().await {
                Ok(Some(chunk)) => chunks.push(chunk),
                Ok(None) => break,
                Err(error) => {
                    torn = Some(error);
                    break;
                }
            }
        }
        // Most parts come as one chunk, which is a view of the body: the picture must not hold all of that for as long as
        // it is kept.
        let content = match &chunks[..] {
            [one] if one.len() >= length / 8 * 7 => one.clone(),
            chunks => Bytes::from(chunks.concat()),
        };
        if let Some(error) = torn {
            // Whether a picture without an end is whole, its decoder finds out.
            if is_jpeg(&content) && pushed.picture.is_none() {
                pushed.picture = Some(content);
            }
            if pushed.picture.is_none() && pushed.alarm.is_none() {
                return Err(error.into());
            }
            break;
        }
        if is_jpeg(&content) {
            pushed.picture.get_or_insert(content);
        } else if is_xml(&content) && pushed.alarm.is_none() {
            match alarm::parse(&content) {
                Ok(alarm) => pushed.alarm = Some(alarm),
                Err(error) => wrong = Some(error),
            }
        }
    }
    match wrong {
        _ if pushed.picture.is_some() || pushed.alarm.is_some() => Ok(pushed),
        Some(error) => Err(error.into()),
        None => Err(BodyError::NoPart(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use proptest::prelude::*;

    const JPEG: &[u8] = b"\xff\xd8 a picture \r\n--\r\n--bound \xff\xd9";
    const ALARM: &str = include_str!("testdata/hikvision-200321-vmd.xml");

    fn read(content_type: &str, body: &[u8]) -> Result<Pushed, BodyError> {
        block_on(parse(content_type, Bytes::copy_from_slice(body)))
    }

    fn parts(boundary: &str, parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (headers, content) in parts {
            body.extend_from_slice(format!("--{boundary}\r\n{headers}\r\n").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        body
    }

    const FILE: &str =
        "Content-Disposition: form-data; name=\"anything\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n";
    const TEXT: &str = "Content-Disposition: form-data; name=\"note\"\r\n";
    const XML: &str = "Content-Type: application/xml; charset=\"UTF-8\"\r\n";

    #[test]
    fn a_raw_picture_is_one_whatever_its_type() {
        for content_type in
            ["", "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "nonsense"]
        {
            let pushed = read(content_type, JPEG).unwrap();
            assert_eq!((pushed.picture.as_deref(), pushed.alarm.is_some()), (Some(JPEG), false), "{content_type}");
        }
    }

    #[test]
    fn a_form_may_hold_it_in_any_part() {
        for first in [&[(TEXT, &b"hello"[..]), (FILE, JPEG)][..], &[(FILE, JPEG), (TEXT, b"x")]] {
            let pushed = read("multipart/form-data; boundary=XYZ", &parts("XYZ", first)).unwrap();
            assert_eq!(pushed.picture.as_deref(), Some(JPEG));
        }
    }

    #[test]
    fn an_alarm_comes_alone_or_with_its_picture() {
        let alone = read("application/xml; charset=\"UTF-8\"", ALARM.as_bytes()).unwrap();
        assert!(alone.picture.is_none() && alone.alarm.is_some());
        let both = parts("boundary", &[(XML, ALARM.as_bytes()), ("Content-Type: image/jpeg\r\n", JPEG)]);
        let both = read("multipart/mixed; boundary=boundary", &both).unwrap();
        assert_eq!((both.picture.as_deref(), both.alarm), (Some(JPEG), alone.alarm));
    }

    #[test]
    fn the_boundary_of_the_body_counts() {
        let body = parts("boundary", &[(FILE, JPEG)]);
        let blank = [b"\r\n", &body[..]].concat();
        for content_type in
            ["multipart/form-data; boundary=another", "multipart/mixed", "Multipart/Form-Data; boundary=\"boundary\""]
        {
            assert_eq!(read(content_type, &body).unwrap().picture.as_deref(), Some(JPEG), "{content_type}");
            assert_eq!(
                read(content_type, &blank).unwrap().picture.as_deref(),
                Some(JPEG),
                "{content_type}, blank line"
            );
        }
    }

    #[test]
    fn what_came_before_the_fault_counts() {
        let mut body = parts("b", &[(XML, ALARM.as_bytes()), (FILE, JPEG)]);
        body.truncate(body.len() - 5);
        let pushed = read("multipart/mixed; boundary=b", &body).unwrap();
        assert!(pushed.alarm.is_some() && pushed.picture.is_some());
    }

    #[test]
    fn anything_else_says_what_it_is() {
        let error = |content_type: &str, body: &[u8]| read(content_type, body).unwrap_err().to_string();
        assert!(error("image/jpeg", b"").contains("empty"));
        assert!(error("image/png", b"\x89PNG\r\n\x1a\n").contains("PNG"));
        assert!(error("application/json", b"{}").contains("JSON"));
        assert!(error("text/plain", b"hello").contains("text"));
        assert!(error("application/xml", b"<a/>").contains("EventNotificationAlert"));
        assert!(
            error("multipart/form-data; boundary=b", &parts("b", &[(TEXT, b"hello")])).contains("none of the 1 parts")
        );
        assert!(error("multipart/form-data; boundary=b", b"nothing").contains("multipart"));
        let many: Vec<_> = (0..=MAX_PARTS).map(|_| (TEXT, &b"x"[..])).collect();
        assert!(matches!(read("multipart/mixed; boundary=b", &parts("b", &many)), Err(BodyError::TooManyParts)));
    }

    proptest! {
        #[test]
        fn no_body_breaks_it(
            content_type in "(multipart/(mixed|form-data)(; boundary=\"?[a-z-]{0,80}\"?)?)?",
            body in proptest::collection::vec(prop_oneof![
                any::<u8>().prop_map(|byte| vec![byte]),
                Just(b"\r\n--b\r\n".to_vec()), Just(b"--b".to_vec()), Just(FILE.as_bytes().to_vec()),
                Just(b"\r\n".to_vec()), Just(JPEG.to_vec()), Just(ALARM.as_bytes().to_vec()),
            ], 0..30),
        ) {
            let body = body.concat();
            if let Ok(pushed) = read(&content_type, &body) {
                prop_assert!(pushed.picture.is_some() || pushed.alarm.is_some());
                prop_assert!(pushed.picture.is_none_or(|picture| is_jpeg(&picture) && picture.len() <= body.len()));
            }
        }
    }
}
