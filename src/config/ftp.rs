//! `ftp:`.

use super::Camera;
use super::read::Fields;
use super::sections::{Taken, default_ports, listen, section};
use super::tree::Place;
use super::values::Listen;
use crate::ingest::push::ftp;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// `ftp:`, where cameras upload pictures to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ftp {
    /// Where sessions are taken; empty if no camera is pushed to with a token and the section is not there. Needs a
    /// restart when changed.
    pub listen: Vec<Listen>,
    /// The ports of data connections; 0 means any. Needs a restart when changed.
    pub passive_ports: RangeInclusive<u16>,
    /// What clients are told to connect to, where they reach us at another address than we know, as in a container.
    /// Needs a restart when changed.
    pub passive_address: Option<Ipv4Addr>,
}

impl Ftp {
    /// Nothing listens.
    pub(super) const OFF: Self = Self { listen: Vec::new(), passive_ports: ftp::PASSIVE_PORTS, passive_address: None };
}

pub(super) fn read(fields: &mut Fields<'_, '_>, cameras: &[Camera], taken: &mut Taken) -> Ftp {
    let usual = vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), ftp::PORT)];
    let wanted = cameras.iter().any(|camera| camera.source.token().is_some());
    let (context, outer): (_, Place) = (fields.context, fields.place);
    let there = fields.value("ftp").is_some();
    let Some(mut fields) = section(fields, "ftp") else {
        if !wanted {
            return Ftp::OFF;
        }
        if !there {
            default_ports(context, outer, "ftp.listen", &usual, taken);
        }
        return Ftp { listen: usual, ..Ftp::OFF };
    };
    let listen = listen(&mut fields, "ftp.listen", usual, taken);
    let expected = "a range of ports such as 50000-50009, or 0 for any";
    let passive_ports = fields.take("passive_ports").and_then(|node| context.parsed(node, expected, ports));
    let expected = "the IPv4 address of this machine that cameras reach";
    let passive_address = fields.take("passive_address").and_then(|node| {
        context.parsed(node, expected, |text| {
            text.trim().parse::<Ipv4Addr>().ok().filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        })
    });
    fields.finish();
    Ftp { listen, passive_ports: passive_ports.unwrap_or(ftp::PASSIVE_PORTS), passive_address }
}

/// Reads `50000-50009`, `50000` or `0`.
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    if text == "0" {
        return Some(0..=0);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::path::Path;

    fn read(text: &str) -> Result<Ftp, String> {
        let read = parse("f.yaml", text, Path::new(""), &|_| None);
        read.map(|config| config.ftp).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn the_server_is_there_once_a_camera_needs_it() {
        assert_eq!(read(""), Ok(Ftp::OFF));
        assert_eq!(read("cameras: { yard: { source: \"push:\" } }"), Ok(Ftp::OFF), "nobody could sign in");
        let usual = read("cameras: { yard: { source: { push: { token: a-long-token } } } }").unwrap();
        assert_eq!(usual.listen, [Listen::parse("0.0.0.0:2121").unwrap()]);
        assert_eq!((usual.passive_ports, usual.passive_address), (50_000..=50_009, None));
        assert_eq!(read("ftp: {}").unwrap().listen, usual.listen);
        let own = "ftp: { listen: \"127.0.0.1:21\", passive_ports: 40000-40001, passive_address: 192.0.2.2 }";
        let own = read(own).unwrap();
        assert_eq!(own.listen, [Listen::parse("127.0.0.1:21").unwrap()]);
        assert_eq!((own.passive_ports, own.passive_address), (40_000..=40_001, Some([192, 0, 2, 2].into())));
    }

    #[test]
    fn a_camera_that_is_pushed_to_is_never_on_demand() {
        let text = "cameras: { yard: { source: \"push:\", on_demand: true } }";
        let config = parse("f.yaml", text, Path::new(""), &|_| None).unwrap();
        assert!(!config.cameras[0].on_demand && config.warnings.len() == 1);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("ftp: { passive_ports: 5-4 }", "a range of ports"),
            ("ftp: { passive_ports: 0-9 }", "a range of ports"),
            ("ftp: { passive_address: gateway }", "the IPv4 address"),
            ("ftp: { port: 21 }", "unknown field \"port\""),
            ("ftp: { listen: \"0.0.0.0:8484\" }", "already used by `http.listen`"),
            ("cameras: { a: { source: { push: { event: Motion } } } }", "the kind of event"),
            ("cameras: { a: { source: { push: { event: offline } } } }", "the kind of event"),
        ] {
            let mistakes = read(text).unwrap_err();
            assert!(mistakes.contains(words), "{text}: {mistakes}");
        }
    }
}
