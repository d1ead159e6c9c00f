//! Digest (RFC 7616; RFC 2617 and RFC 2069 without `qop`): nonces, challenges and the check of an answer.

use super::authorization::Digest;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use sha2::Sha256;
use std::fmt::Write as _;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

/// What browsers and players show; part of every hash.
pub(crate) const REALM: &str = "Fanlight";
/// Characters of a nonce: its time and its signature.
const NONCE_LENGTH: usize = 16 + 32;

/// Makes nonces and knows them again, without keeping any: a nonce is the time, signed.
#[derive(Debug)]
pub(crate) struct Nonces {
    key: [u8; 32],
    start: Instant,
    lifetime: Duration,
}

/// What a nonce is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceAge {
    Fresh,
    /// Too old, or of an earlier run.
    Stale,
}

impl Nonces {
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { key: rand::random(), start: Instant::now(), lifetime }
    }

    /// A nonce of this moment.
    pub(crate) fn make(&self) -> String {
        let milliseconds = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.sign(milliseconds)
    }

    fn sign(&self, milliseconds: u64) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(&milliseconds.to_be_bytes());
        let mut nonce = format!("{milliseconds:016x}");
        hex(&mut nonce, mac.finalize().into_bytes().iter().take(16));
        nonce
    }

    pub(crate) fn age(&self, nonce: &str) -> NonceAge {
        let time = Some(nonce).filter(|nonce| nonce.len() == NONCE_LENGTH).and_then(|nonce| nonce.get(..16));
        let Some(time) = time.and_then(|time| u64::from_str_radix(time, 16).ok()) else { return NonceAge::Stale };
        let ours: bool = self.sign(time).as_bytes().ct_eq(nonce.as_bytes()).into();
        let age = self.start.elapsed().checked_sub(Duration::from_millis(time));
        if ours && age.is_some_and(|age| age <= self.lifetime) { NonceAge::Fresh } else { NonceAge::Stale }
    }
}

/// The three challenges, in the order that clients want: ffmpeg, GStreamer and live555 take the last Digest they see,
/// and know MD5 only; live555 wants the fields in this order.
pub(crate) fn challenges(nonce: &str, stale: bool) -> [String; 3] {
    let stale = if stale { ", stale=true" } else { "" };
    [
        format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"{stale}, algorithm=SHA-256"),
        format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"{stale}, algorithm=MD5"),
        format!("Basic realm=\"{REALM}\""),
    ]
}

/// Whether an answer was made with this password for this method. Says nothing about the nonce and the URI.
pub(crate) fn fits(digest: &Digest, method: &str, password: &str) -> bool {
    let expected = match digest.algorithm.to_ascii_uppercase().as_str() {
        "MD5" => response::<Md5>(digest, method, password),
        "SHA-256" => response::<Sha256>(digest, method, password),
        // RFC 2069 knows one algorithm only; yet some answer our SHA-256 without naming it.
        "" if digest.response.len() == 64 => response::<Sha256>(digest, method, password),
        "" => response::<Md5>(digest, method, password),
        _ => return false,
    };
    let answer = digest.response.to_ascii_lowercase();
    expected.is_some_and(|expected| expected.as_bytes().ct_eq(answer.as_bytes()).into())
}

/// The `response` of RFC 7616 section 3.4.1. `None` for a quality of protection other than `auth`.
fn response<D: sha2::Digest>(digest: &Digest, method: &str, password: &str) -> Option<String> {
    let ha1 = hash::<D>(&[&digest.username, &digest.realm, password]);
    let ha2 = hash::<D>(&[method, &digest.uri]);
    match digest.qop.to_ascii_lowercase().as_str() {
        "" => Some(hash::<D>(&[&ha1, &digest.nonce, &ha2])),
        "auth" => Some(hash::<D>(&[&ha1, &digest.nonce, &digest.nc, &digest.cnonce, &digest.qop, &ha2])),
        _ => None,
    }
}

/// The hash of parts joined by colons, hexadecimal.
fn hash<D: sha2::Digest>(parts: &[&str]) -> String {
    let mut digest = D::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            digest.update(b":");
        }
        digest.update(part.as_bytes());
    }
    let mut text = String::with_capacity(64);
    hex(&mut text, digest.finalize().iter());
    text
}

fn hex<'a>(text: &mut String, bytes: impl Iterator<Item = &'a u8>) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
}

/// Whether the URI in an answer names the same camera as the one in the request line. Clients write either absolute or
/// relative, with or without query, port, trailing slash or track, so only the first part of the path counts.
pub(crate) fn same_resource(answer: &str, request: &str) -> bool {
    match (first_segment(answer), first_segment(request)) {
        (Some(answer), Some(request)) => answer == request,
        // `*`, `rtsp://host`: no camera is asked for.
        (_, None) => true,
        (None, Some(_)) => false,
    }
}

fn first_segment(uri: &str) -> Option<String> {
    let path = match uri.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => uri,
    };
    let segment = path.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
    let segment = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
    (!segment.is_empty() && segment != "*").then(|| segment.into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::authorization::Authorization;
    use super::*;

    fn digest(text: &str) -> Digest {
        let Some(Authorization::Digest(digest)) = Authorization::parse(text) else { panic!("no digest: {text}") };
        digest
    }

    #[test]
    fn rfc_7616_section_3_9_1() {
        let answer = |algorithm: &str, response: &str| {
            digest(&format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
                 algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{response}\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            ))
        };
        let md5 = answer("MD5", "8ca523f5e9506fed4657c9700eebdbec");
        let sha = answer("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
        for answer in [&md5, &sha] {
            assert!(fits(answer, "GET", "Circle of Life"));
            assert!(!fits(answer, "GET", "Circle of life") && !fits(answer, "PUT", "Circle of Life"));
        }
        let upper = Digest { response: sha.response.to_ascii_uppercase(), ..sha };
        assert!(fits(&upper, "GET", "Circle of Life"));
        assert!(!fits(&Digest { qop: "auth-int".into(), ..md5.clone() }, "GET", "Circle of Life"));
        assert!(!fits(&Digest { algorithm: "MD4".into(), ..md5.clone() }, "GET", "Circle of Life"));
        assert!(!fits(&Digest { response: String::new(), ..md5 }, "GET", "Circle of Life"));
    }

    /// The same computation on the camera's side: values from the notes on EZVIZ and Hikvision doorbells.
    #[test]
    fn rfc_2069_form_as_a_camera_computes_it() {
        let base = "rtsp://192.0.2.30:554/Streaming/Channels/101/";
        let track = format!("{base}trackID=1");
        for (method, uri, response) in [
            ("DESCRIBE", base, "eb59633ee01005df36c2d3347a703aa0"),
            ("SETUP", &track, "e7742fa22385df1981a6a61426fd5573"),
            ("PLAY", base, "3d3303c329a93f0433b61c17d9f42901"),
        ] {
            let answer = digest(&format!(
                "Digest username=\"admin\", realm=\"IP Camera(E0001)\", nonce=\"0123456789abcdef0123456789abcdef\", \
                 uri=\"{uri}\", response=\"{response}\""
            ));
            assert!(fits(&answer, method, "ABCDEF"), "{method}");
        }
        let snapshot = digest(
            "Digest username=\"admin\", realm=\"IP Camera(E0001)\", nonce=\"0123456789abcdef0123456789abcdef\", \
             uri=\"/onvif/snapshot.jpg\", qop=auth, nc=00000001, cnonce=\"00112233\", \
             response=\"8b5ffb1fd5e27a94a00aeec509e337b5\"",
        );
        assert!(fits(&snapshot, "GET", "ABCDEF"));
    }

    #[tokio::test(start_paused = true)]
    async fn nonces_age_and_cannot_be_made_up() {
        let nonces = Nonces::new(Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(5)).await;
        let nonce = nonces.make();
        assert_eq!(nonces.age(&nonce), NonceAge::Fresh);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(nonces.age(&nonce), NonceAge::Fresh);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(nonces.age(&nonce), NonceAge::Stale);
        let later = format!("{:016x}{}", 65_000, &nonce[16..]);
        let other_run = Nonces::new(Duration::from_secs(60)).make();
        for made_up in ["", "x", &later, &other_run, &"ü".repeat(24), &"f".repeat(48)] {
            assert_eq!(nonces.age(made_up), NonceAge::Stale, "{made_up}");
        }
    }

    #[test]
    fn challenges_are_in_the_order_of_clients_and_live555() {
        assert_eq!(
            challenges("N", false),
            [
                "Digest realm=\"Fanlight\", nonce=\"N\", algorithm=SHA-256",
                "Digest realm=\"Fanlight\", nonce=\"N\", algorithm=MD5",
                "Basic realm=\"Fanlight\""
            ]
        );
        assert_eq!(challenges("N", true)[1], "Digest realm=\"Fanlight\", nonce=\"N\", stale=true, algorithm=MD5");
    }

    #[test]
    fn the_uri_of_an_answer_may_be_written_otherwise() {
        for (answer, request) in [
            ("rtsp://h:8554/front", "rtsp://h:8554/front"),
            ("rtsp://h/front/", "rtsp://h:8554/front/trackID=0"),
            ("/front", "rtsp://h/front?start=live"),
            ("front", "/front?x=y/trackID=0"),
            ("rtsp://h/fr%6Fnt", "rtsp://h/front"),
            ("rtsp://h/front/sub", "rtsp://h/front"),
            ("*", "*"),
            ("rtsp://h:8554", "*"),
            ("", "rtsp://h"),
        ] {
            assert!(same_resource(answer, request), "{answer} {request}");
        }
        for (answer, request) in
            [("rtsp://h/back", "rtsp://h/front"), ("", "/front"), ("*", "/front"), ("rtsp://front", "/front")]
        {
            assert!(!same_resource(answer, request), "{answer} {request}");
        }
    }
}
