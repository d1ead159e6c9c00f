//! Reading `Authorization` header fields (RFC 9110 section 11.4): Basic, Bearer and Digest.
//!
//! Tolerant, since clients are: any case of scheme and names, spaces around `=`, quotes where none belong, missing
//! quotes where they do, unknown fields, Latin-1.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;

/// Longer fields are not read, in bytes.
const MAX_LENGTH: usize = 4096;
/// Fields of a Digest that are looked at.
const MAX_FIELDS: usize = 32;
/// base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client shows to be let in.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// RFC 7617.
    Basic {
        /// The name before the first colon.
        username: String,
        /// What comes after it.
        password: String,
    },
    /// RFC 6750.
    Bearer(String),
    /// RFC 7616, RFC 2617, RFC 2069.
    Digest(Digest),
}

/// The fields of a Digest answer, quotes removed. Names as in RFC 7616 section 3.4; absent ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Whom the client claims to be.
    pub username: String,
    /// As we sent it.
    pub realm: String,
    /// As we sent it.
    pub nonce: String,
    /// The request URI as the client writes it here: often not as in the request line.
    pub uri: String,
    /// Hexadecimal.
    pub response: String,
    /// `MD5`, `SHA-256`; RFC 2069 clients leave it out.
    pub algorithm: String,
    /// `auth`, or empty without quality of protection.
    pub qop: String,
    /// Nonce count, eight hexadecimal digits; with `qop`.
    pub nc: String,
    /// The client's nonce; with `qop`.
    pub cnonce: String,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => f.debug_struct("Basic").field("username", username).finish_non_exhaustive(),
            Self::Bearer(_) => f.write_str("Bearer(***)"),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Authorization {
    /// Reads the value of an `Authorization` field. `None` where it cannot be read or is of another scheme.
    pub fn parse(value: &str) -> Option<Self> {
        if value.len() > MAX_LENGTH {
            return None;
        }
        let value = value.trim();
        let (scheme, rest) = value.split_once(|c: char| c.is_ascii_whitespace())?;
        let rest = rest.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => {
                let bytes = BASE64.decode(rest).ok()?;
                // Old clients send Latin-1, where every byte is a character.
                let text = String::from_utf8(bytes)
                    .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect());
                let (username, password) = text.split_once(':')?;
                Some(Self::Basic { username: username.into(), password: password.into() })
            }
            "bearer" => Some(rest).filter(|token| !token.is_empty()).map(|token| Self::Bearer(token.into())),
            "digest" => Digest::parse(rest).map(Self::Digest),
            _ => None,
        }
    }
}

impl Digest {
    /// Reads `name=value, name="value", …`. `None` where one of the fields is missing without which there is no answer.
    fn parse(text: &str) -> Option<Self> {
        let mut digest = Self::default();
        let mut rest = text;
        for _ in 0..MAX_FIELDS {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
            let Some((name, after)) = rest.split_once('=') else { break };
            let (value, after) = value(after.trim_start());
            rest = after;
            let field = match name.trim().to_ascii_lowercase().as_str() {
                "username" => &mut digest.username,
                "realm" => &mut digest.realm,
                "nonce" => &mut digest.nonce,
                "uri" => &mut digest.uri,
                "response" => &mut digest.response,
                "algorithm" => &mut digest.algorithm,
                "qop" => &mut digest.qop,
                "nc" => &mut digest.nc,
                "cnonce" => &mut digest.cnonce,
                _ => continue,
            };
            *field = value;
        }
        let complete = !(digest.username.is_empty() || digest.nonce.is_empty() || digest.response.is_empty());
        complete.then_some(digest)
    }
}

/// A token up to the next comma, or a quoted string (RFC 9110 section 5.6.4), and what comes after it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(',').unwrap_or((text, ""));
        return (value.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn basic(username: &str, password: &str) -> Option<Authorization> {
        Some(Authorization::Basic { username: username.into(), password: password.into() })
    }

    #[test]
    fn basic_and_bearer() {
        // RFC 7617 section 2.
        assert_eq!(Authorization::parse("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), basic("Aladdin", "open sesame"));
        assert_eq!(Authorization::parse("  bAsIc   QWxhZGRpbjpvcGVuIHNlc2FtZQ "), basic("Aladdin", "open sesame"));
        // RFC 7617 section 2.1: UTF-8; then the same in Latin-1.
        assert_eq!(Authorization::parse("Basic dGVzdDoxMjPCow=="), basic("test", "123£"));
        assert_eq!(Authorization::parse("Basic dGVzdDoxMjOj"), basic("test", "123£"));
        assert_eq!(Authorization::parse("Basic YTpiOmM="), basic("a", "b:c"));
        assert_eq!(Authorization::parse("Bearer x.y"), Some(Authorization::Bearer("x.y".into())));
        for wrong in
            ["", "Basic", "Basic ", "Basic !", "Basic YQ==", "Bearer ", "Negotiate x", &"Basic YTpi".repeat(999)]
        {
            assert_eq!(Authorization::parse(wrong), None, "{wrong}");
        }
        let shown = format!("{:?} {:?}", basic("a", "canary"), Authorization::Bearer("canary".into()));
        assert!(!shown.contains("canary"));
    }

    #[test]
    fn digest_as_clients_write_it() {
        let expected = Digest {
            username: "a\"b".into(),
            realm: "Fanlight".into(),
            nonce: "n".into(),
            uri: "rtsp://h/x,y".into(),
            response: "00ff".into(),
            ..Digest::default()
        };
        for text in [
            r#"Digest username="a\"b", realm="Fanlight", nonce="n", uri="rtsp://h/x,y", response="00ff""#,
            r#"digest USERNAME = "a\"b",realm="Fanlight" nonce="n",, uri="rtsp://h/x,y", response=00ff, opaque="", x=1"#,
        ] {
            assert_eq!(Authorization::parse(text), Some(Authorization::Digest(expected.clone())), "{text}");
        }
        let quoted =
            r#"Digest username="u", nonce="n", response="r", algorithm="MD5", qop=auth, nc=00000001, cnonce="c""#;
        let Some(Authorization::Digest(digest)) = Authorization::parse(quoted) else { panic!("a digest") };
        assert_eq!((digest.algorithm.as_str(), digest.qop.as_str(), digest.nc.as_str()), ("MD5", "auth", "00000001"));
        for wrong in ["Digest x", "Digest username=\"a", "Digest username=a, nonce=b", "Digest =,=,="] {
            assert_eq!(Authorization::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(Digest|Basic|Bearer)? ?[ -~\u{e4}\"\\\\,=]{0,200}") {
            let _ = Authorization::parse(&text);
        }

        #[test]
        fn quoted_fields_come_back(name in "[ -~]{1,20}", uri in "[ -~\u{e4}]{0,40}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!("Digest username=\"{}\", uri=\"{}\", nonce=n, response=r", quote(&name), quote(&uri));
            let Some(Authorization::Digest(digest)) = Authorization::parse(&text) else {
                return Err(TestCaseError::fail("no digest"));
            };
            prop_assert_eq!(digest.username, name);
            prop_assert_eq!(digest.uri, uri);
        }
    }
}
