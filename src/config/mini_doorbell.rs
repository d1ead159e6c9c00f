//! `mini_doorbell:`.

use super::Camera;
use super::read::Fields;
use super::sections::{Taken, default_ports, listen, section};
use super::tree::Place;
use super::values::Listen;
use crate::ingest::{Source, mini_doorbell};
use std::net::Ipv4Addr;

/// `mini_doorbell:`, the port that doorbells call, and what else they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiniDoorbell {
    /// Where uploads are taken; empty if no camera is such a bell and the section is not there. Needs a restart when
    /// changed.
    pub listen: Vec<Listen>,
    /// What becomes of bells that no camera names.
    pub unknown: Unknown,
    /// Tell the units by UDP to upload here, instead of redirecting their names by DNS. Needs a restart when changed.
    pub announce: Option<Announce>,
    /// Where the units' signs of life are heard by UDP, port 30001 if the names are redirected; empty if they are not.
    /// Needs a restart when changed.
    pub presence: Vec<Listen>,
}

/// What becomes of bells that no camera names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They become cameras on the spot, until the next start.
    Accept,
    /// They are shown as new doorbells, with their newest picture and the lines to paste.
    #[default]
    Learn,
    /// They are ignored.
    Deny,
}

/// The address that units are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Whichever of our addresses leads to the unit.
    Auto,
    /// This one.
    Address(Ipv4Addr),
}

impl MiniDoorbell {
    /// Nothing listens.
    pub(super) const OFF: Self =
        Self { listen: Vec::new(), unknown: Unknown::Learn, announce: None, presence: Vec::new() };
}

pub(super) fn read(fields: &mut Fields<'_, '_>, cameras: &[Camera], taken: &mut Taken) -> MiniDoorbell {
    let usual = vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), mini_doorbell::PORT)];
    let wanted = cameras.iter().any(|camera| matches!(camera.source, Source::MiniDoorbell(_)));
    let (context, outer): (_, Place) = (fields.context, fields.place);
    let there = fields.value("mini_doorbell").is_some();
    let Some(mut fields) = section(fields, "mini_doorbell") else {
        if !wanted {
            return MiniDoorbell::OFF;
        }
        if !there {
            default_ports(context, outer, "mini_doorbell.listen", &usual, taken);
        }
        return MiniDoorbell { listen: usual, ..MiniDoorbell::OFF };
    };
    let listen = listen(&mut fields, "mini_doorbell.listen", usual, taken);
    let words = [("accept", Unknown::Accept), ("learn", Unknown::Learn), ("deny", Unknown::Deny)];
    let unknown = fields.word("unknown", &words).unwrap_or_default();
    let announce = fields.take("announce").and_then(|node| {
        let expected = "auto, or the IPv4 address of this machine that doorbells reach";
        let announce = context.parsed(node, expected, |text| match text.trim() {
            "auto" => Some(Announce::Auto),
            address => {
                let address: Ipv4Addr = address.parse().ok()?;
                (!address.is_unspecified() && !address.is_broadcast() && !address.is_multicast())
                    .then_some(Announce::Address(address))
            }
        });
        if announce.is_some() && !listen.iter().any(|listen| listen.port == mini_doorbell::PORT) {
            let port = mini_doorbell::PORT;
            context.warn(node.place, format!("doorbells upload to port {port} and no other, which nothing listens at"));
        }
        announce
    });
    let presence = fields.take("presence").map(|node| {
        let expected = "an address such as 0.0.0.0:30001";
        context.list(node).iter().filter_map(|node| context.parsed(node, expected, Listen::parse)).collect()
    });
    fields.finish();
    MiniDoorbell { listen, unknown, announce, presence: presence.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Mistakes, parse};
    use std::path::Path;

    fn read(text: &str) -> Result<Config, Mistakes> {
        parse("fanlight.yaml", text, Path::new(""), &|_| None)
    }

    fn mistake(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    const BELL: &str = "cameras: { front: { source: \"mini-doorbell://\" } }\n";

    #[test]
    fn it_listens_where_a_camera_needs_it_or_the_section_is_there() {
        assert_eq!(read("auth: none").unwrap().mini_doorbell, MiniDoorbell::OFF);
        let usual = [Listen::parse("0.0.0.0:39090").unwrap()];
        assert_eq!(read(BELL).unwrap().mini_doorbell.listen, usual);
        assert_eq!(read("mini_doorbell: { unknown: accept }").unwrap().mini_doorbell.listen, usual);
        let text = "mini_doorbell: { listen: \"[::]:39090\", unknown: deny, announce: 192.0.2.5, presence: \"0.0.0.0:30001\" }";
        let all = read(text).unwrap();
        let expected = MiniDoorbell {
            listen: vec![Listen::parse("[::]:39090").unwrap()],
            unknown: Unknown::Deny,
            announce: Some(Announce::Address(Ipv4Addr::new(192, 0, 2, 5))),
            presence: vec![Listen::parse("0.0.0.0:30001").unwrap()],
        };
        assert_eq!((all.mini_doorbell, all.warnings), (expected, Vec::new()));
        assert_eq!(read("mini_doorbell: { announce: auto }").unwrap().mini_doorbell.announce, Some(Announce::Auto));
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let words = mistake("mini_doorbell: { unknown: maybe, announce: 0.0.0.0, presence: x, port: 1 }");
        for expected in [
            "expected one of accept, learn, deny",
            "expected auto, or the IPv4 address of this machine that doorbells reach",
            "expected an address such as 0.0.0.0:30001",
            "unknown field \"port\", expected one of listen, unknown, announce, presence",
        ] {
            assert!(words.contains(expected), "{words}");
        }
        let taken = mistake(&format!("http: {{ listen: \"0.0.0.0:39090\" }}\n{BELL}"));
        assert!(taken.contains("port 39090 of `http.listen` is the default of `mini_doorbell.listen`"), "{taken}");
        let other = read("mini_doorbell: { listen: \"0.0.0.0:1234\", announce: auto }").unwrap();
        assert!(other.warnings[0].text.contains("39090"), "{:?}", other.warnings);
        let demand = "cameras: { front: { source: \"mini-doorbell://\", on_demand: true } }\n";
        let demand = read(demand).unwrap();
        assert!(demand.warnings[0].text.contains("calls us") && !demand.cameras[0].on_demand);
    }
}
