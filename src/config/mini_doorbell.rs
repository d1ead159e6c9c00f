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
