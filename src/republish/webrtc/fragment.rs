//! Trickled candidates and ICE restarts: `application/trickle-ice-sdpfrag` (RFC 8840 section 9).
//!
//! ```text
//! a=ice-ufrag:EsAw
//! a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
//! m=audio 9 RTP/AVP 0
//! a=mid:0
//! a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1
//! a=end-of-candidates
//! ```

#![deny(clippy::indexing_slicing)]

use super::offer::{IceCredentials, MAX_CANDIDATES};
use crate::media::Kind;
use std::fmt::Write;

/// The largest fragment, in bytes.
pub const MAX_FRAGMENT: usize = 64 << 10;

/// Why a fragment cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// More than [`MAX_FRAGMENT`] bytes.
    #[error("the fragment has {0} bytes; up to {MAX_FRAGMENT} are read")]
    Large(usize),
    /// A line is not what it should be.
    #[error("the fragment cannot be read: line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// One of the two credentials is there alone.
    #[error("the fragment cannot be used: a=ice-ufrag and a=ice-pwd go together")]
    HalfCredentials,
}

/// What changes about one side's ICE session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The session's credentials. New ones ask for a restart.
    pub ice: Option<IceCredentials>,
    /// Candidates as in `RTCIceCandidate.candidate`: `candidate:1 1 udp …`, without `a=`. At most 64.
    pub candidates: Vec<String>,
    /// No more will come.
    pub end_of_candidates: bool,
}

impl Fragment {
    /// Reads a fragment. All sections are one transport, so it does not matter under which of them something stands.
    /// Lines that are about something else are passed over.
    ///
    /// # Errors
    /// [`FragmentError`] says which line is wrong.
    pub fn parse(text: &str) -> Result<Self, FragmentError> {
        if text.len() > MAX_FRAGMENT {
            return Err(FragmentError::Large(text.len()));
        }
        let mut fragment = Self::default();
        // With bundled sections the same pair may stand under each of them.
        let (mut ufrag, mut pwd) = (None, None);
        for (index, line) in text.lines().enumerate() {
            let fail = |what| Err(FragmentError::Line { line: index + 1, what });
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
                return fail("it is not of the form letter=value");
            };
            if kind != "a" {
                continue;
            }
            match value.split_once(':').unwrap_or((value, "")) {
                ("ice-ufrag", value) => drop(ufrag.get_or_insert((index, value))),
                ("ice-pwd", value) => drop(pwd.get_or_insert((index, value))),
                ("candidate", _) if value.bytes().any(|byte| byte.is_ascii_control()) => {
                    return fail("a candidate holds control characters");
                }
                ("candidate", _) if fragment.candidates.len() < MAX_CANDIDATES => {
                    fragment.candidates.push(value.to_owned());
                }
                ("end-of-candidates", _) => fragment.end_of_candidates = true,
                _ => {}
            }
        }
        fragment.ice = match (ufrag, pwd) {
            (Some((at, ufrag)), Some((_, pwd))) => {
                Some(IceCredentials::new(ufrag, pwd).map_err(|what| FragmentError::Line { line: at + 1, what })?)
            }
            (None, None) => None,
            _ => return Err(FragmentError::HalfCredentials),
        };
        Ok(fragment)
    }

    /// Writes it for the section of that kind and name, the one that the bundle goes by.
    pub fn write(&self, kind: Kind, mid: &str) -> String {
        let mut text = String::new();
        // Writing to memory cannot fail.
        let _ = write!(text, "a=group:BUNDLE {mid}\r\nm={} 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n", kind.name());
        if let Some(ice) = &self.ice {
            let _ = write!(text, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ice.ufrag, ice.pwd);
        }
        for candidate in &self.candidates {
            let _ = write!(text, "a={candidate}\r\n");
        }
        if self.end_of_candidates {
            text += "a=end-of-candidates\r\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
        m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\n\
        a=candidate:x 1 sctp 7 no.such.kind 0 typ moon\r\na=end-of-candidates\r\n";

    #[test]
    fn candidates_and_credentials() {
        let fragment = Fragment::parse(EXAMPLE).expect("it is whole");
        assert_eq!(fragment.ice.as_ref().map(|ice| ice.ufrag.as_str()), Some("EsAw"));
        assert_eq!(fragment.candidates[0], "candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host");
        assert!(fragment.candidates.len() == 2 && fragment.end_of_candidates);
        assert_eq!(Fragment::parse(&EXAMPLE.replace("\r\n", "\n")), Ok(fragment));
        assert_eq!(Fragment::parse(""), Ok(Fragment::default()));
    }

    #[test]
    fn the_same_credentials_under_each_section() {
        let twice = format!("{EXAMPLE}m=video 9 RTP/AVP 96\r\na=mid:1\r\na=ice-ufrag:EsAw\r\na=ice-pwd:other\r\n");
        let fragment = Fragment::parse(&twice).expect("the first pair counts");
        assert_eq!(fragment.ice.map(|ice| ice.pwd), Some("P2uYro0UCOQ4zxjKXaWCBui1".into()));
    }

    #[test]
    fn mistakes_name_their_line() {
        let refused = |text: &str| Fragment::parse(text).expect_err("it is wrong").to_string();
        assert!(refused("a=mid:0\r\ncandidate:1 1 udp\r\n").contains("line 2: it is not of the form letter=value"));
        assert!(
            refused("a=x\r\na=ice-ufrag:ab\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n").contains("line 2: a=ice-ufrag")
        );
        assert!(refused("a=candidate:1 \t1\r\n").contains("line 1: a candidate holds control characters"));
        assert_eq!(Fragment::parse("a=ice-pwd:x"), Err(FragmentError::HalfCredentials));
        assert_eq!(Fragment::parse(&" ".repeat(MAX_FRAGMENT + 1)), Err(FragmentError::Large(MAX_FRAGMENT + 1)));
    }

    #[test]
    fn candidates_are_bounded() {
        let many = "a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n".repeat(1_000);
        assert_eq!(Fragment::parse(&many).map(|fragment| fragment.candidates.len()), Ok(MAX_CANDIDATES));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            ice in prop::option::of(("[a-zA-Z0-9+/]{4,256}", "[a-zA-Z0-9+/]{22,256}")),
            candidates in prop::collection::vec("candidate:[!-~]{1,32}( [!-~]{1,12}){0,9}", 0..64),
            end_of_candidates: bool,
            video: bool,
            mid in "[a-z0-9]{1,8}",
        ) {
            let ice = ice.map(|(ufrag, pwd)| IceCredentials { ufrag, pwd });
            let fragment = Fragment { ice, candidates, end_of_candidates };
            let text = fragment.write(if video { Kind::Video } else { Kind::Audio }, &mid);
            prop_assert_eq!(Fragment::parse(&text), Ok(fragment));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = Fragment::parse(&text);
        }
    }
}
