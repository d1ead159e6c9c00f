//! What a request URI names: a stream, a track of it, and options. Every player builds it differently.

/// What a URI names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The stream's path without slashes around it, percent-decoded; empty where the URI names none (`*`, a bare
    /// `trackID=1`).
    pub path: String,
    /// The track that `trackID=` names.
    pub track: Option<usize>,
    /// What the query asks for.
    pub options: Options,
}

/// How a stream is to be served, from a URI's query. Unknown keys are ignored: recorders' templates add their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `start=`: where to start; `None` lets the player's name decide.
    pub start: Option<StartOption>,
    /// `audio=none`: leave sound out.
    pub no_audio: bool,
    /// `video=copy`: a JPEG camera's own pictures rather than H.264 made of them.
    pub video_copy: bool,
}

/// Values of `start=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOption {
    /// `key`: at the cached key picture, with true time stamps.
    Key,
    /// `squeeze`: at the cached key picture, shown at once.
    Squeeze,
    /// `live`: at the next key picture.
    Live,
}

impl Target {
    /// Reads any form: absolute or relative, with or without a slash at the end, `trackID=N` at the end of the path or
    /// of the query, any query.
    pub fn parse(uri: &str) -> Self {
        let uri = uri.trim();
        let rest = match uri.split_once("://") {
            Some((_, rest)) => rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or(""),
            None => uri,
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (query, track_in_query) = split_track(query);
        let (path, track_in_path) = split_track(path);
        let path = percent_decode(path.trim_matches('/'));
        let path = path.trim_matches('/');
        let path = if path == "*" { "" } else { path };
        Self {
            path: path.to_owned(),
            track: track_in_path.or(track_in_query),
            options: Options::parse(query.trim_end_matches('/')),
        }
    }
}

impl Options {
    fn parse(query: &str) -> Self {
        let mut options = Self::default();
        for pair in query.split(['&', ';']) {
            match pair.split_once('=') {
                Some(("start", "key")) => options.start = Some(StartOption::Key),
                Some(("start", "squeeze")) => options.start = Some(StartOption::Squeeze),
                Some(("start", "live")) => options.start = Some(StartOption::Live),
                Some(("audio", "none")) => options.no_audio = true,
                Some(("video", "copy")) => options.video_copy = true,
                _ => {}
            }
        }
        options
    }
}

/// Takes `trackID=N` with an optional slash after it off the end.
fn split_track(text: &str) -> (&str, Option<usize>) {
    let trimmed = text.trim_end_matches('/');
    let start = trimmed.rfind(['/', '&', '?']).map_or(0, |at| at + 1);
    let Some((before, last)) = trimmed.split_at_checked(start) else { return (text, None) };
    let number = last.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("trackID"));
    match number.and_then(|(_, number)| number.parse().ok()) {
        Some(track) => (before, Some(track)),
        None => (text, None),
    }
}

/// Broken escapes stay as they are.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = match tail {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match escaped {
            Some(decoded) => {
                out.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_that_players_build() {
        let track = |uri: &str| {
            let target = Target::parse(uri);
            (target.path, target.track)
        };
        let porch = |track| ("porch".to_owned(), track);
        assert_eq!(track("rtsp://h:8554/porch"), porch(None));
        assert_eq!(track("rtsp://h:8554/porch/"), porch(None));
        assert_eq!(track("rtsp://user:pw@h/porch/trackID=0"), porch(Some(0)));
        assert_eq!(track("rtsp://h/porch/trackID=1/"), porch(Some(1)));
        assert_eq!(track("rtsp://h/porch?x=y/trackID=1"), porch(Some(1)));
        assert_eq!(track("rtsp://h/porch/?x=y/trackID=1/"), porch(Some(1)));
        assert_eq!(track("rtsp://[::1]:8554/p%6Frch/trackID=1?x=y"), porch(Some(1)));
        assert_eq!(track("/porch/trackID=1"), porch(Some(1)));
        assert_eq!(track("porch"), porch(None));
        assert_eq!(track("trackID=1"), (String::new(), Some(1)));
        assert_eq!(track("*"), (String::new(), None));
        assert_eq!(track("rtsp://h"), (String::new(), None));
        assert_eq!(track("rtsp://h/porch/sub/trackid=0"), ("porch/sub".to_owned(), Some(0)));
        assert_eq!(track("rtsp://h/porch/trackID=x").0, "porch/trackID=x");
    }

    #[test]
    fn options_are_found_among_others() {
        let options = |uri: &str| Target::parse(uri).options;
        assert_eq!(
            options("rtsp://h/a?start=live&x=1&audio=none/trackID=0"),
            Options { start: Some(StartOption::Live), no_audio: true, video_copy: false }
        );
        assert!(options("rtsp://h/a?video=copy/trackID=0").video_copy && !options("rtsp://h/a?video=h264").video_copy);
        assert_eq!(options("rtsp://h/a?start=squeeze/").start, Some(StartOption::Squeeze));
        assert_eq!(options("rtsp://h/a?start=soon"), Options::default());
    }

    proptest! {
        #[test]
        fn nothing_panics(uri in "\\PC*") {
            Target::parse(&uri);
        }
    }
}
