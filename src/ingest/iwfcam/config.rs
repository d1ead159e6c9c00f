//! An IWFCam camera in the configuration.

use super::wire::{DISCOVERY_PORT, Token};
use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::Node;
use std::net::Ipv4Addr;

/// `source: iwfcam://192.0.2.30` or
/// `source: { iwfcam: { address | uid, token, discovery_port, media_port, retransmission } }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the camera is. The protocol knows IPv4 only.
    pub address: Option<Ipv4Addr>,
    /// Its name for good, as it answers searches: it is found again when its address changed. With both, it must be at
    /// that address or answer a search of the network. At least one of the two is given.
    pub uid: Option<String>,
    /// The 12 hexadecimal digits that let a client in; those of a camera without a password where it is not given.
    pub token: Option<Secret>,
    /// The UDP port that the camera is searched on.
    pub discovery_port: u16,
    /// The UDP port for login and media, where the camera does not announce the right one, or answers no search.
    pub media_port: Option<u16>,
    /// Whether pieces of pictures that did not arrive are asked for again.
    pub retransmission: Retransmission,
    /// Where searches for a `uid` go: the whole local network. Not in the configuration: simulated cameras on loopback
    /// are found by 127.255.255.255.
    pub broadcast: Ipv4Addr,
}

/// Whether pieces of pictures that did not arrive are asked for again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retransmission {
    /// Never, as clients known to work do.
    #[default]
    Off,
    /// Always: of each picture three times at most, ten datagrams a second at most.
    On,
    /// Tried with the first pictures that miss something, and kept up if it helps.
    Auto,
}

/// The most a UID has: 32 bytes on the wire.
const MOST_UID: usize = 32;

impl Config {
    /// A camera at an address, everything else as usual.
    pub fn at(address: Ipv4Addr) -> Self {
        Self { address: Some(address), ..Self::nowhere() }
    }

    /// A camera of that name, wherever it is on the local network.
    pub fn named(uid: impl Into<String>) -> Self {
        Self { uid: Some(uid.into()), ..Self::nowhere() }
    }

    fn nowhere() -> Self {
        Self {
            address: None,
            uid: None,
            token: None,
            discovery_port: DISCOVERY_PORT,
            media_port: None,
            retransmission: Retransmission::default(),
            broadcast: Ipv4Addr::BROADCAST,
        }
    }

    /// The short form: a URL with nothing but an address.
    pub(crate) fn short(context: &Context<'_>, node: &Node) -> Option<Self> {
        let expected = "iwfcam:// and an IPv4 address, such as iwfcam://192.0.2.30; a camera whose address changes is \
                        found by its `uid`";
        let text = context.url_text(node)?;
        let host = text.trim().split_once("://").map(|(_, rest)| rest.trim_end_matches('/'));
        match host.and_then(address) {
            Some(address) => Some(Self::at(address)),
            None => {
                context.mistake(node.place, format!("expected {expected}"));
                None
            }
        }
    }

    /// The long form.
    pub(crate) fn long(mut fields: Fields<'_, '_>) -> Option<Self> {
        let (context, place) = (fields.context, fields.place);
        let address_node = fields.take("address");
        let address =
            address_node.and_then(|node| context.parsed(node, "an IPv4 address, such as 192.0.2.30", self::address));
        let uid_node = fields.take("uid");
        let uid = uid_node.and_then(|node| {
            context.parsed(node, "the camera's UID, such as ABC1234-0123456789AB-012345", |text| {
                let fits = (1..=MOST_UID).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                fits.then(|| text.to_owned())
            })
        });
        let token = fields.secret("token");
        if let Some((place, token)) = &token
            && Token::from_digits(token.reveal()).is_none()
        {
            context.mistake(*place, "`token` must be 12 hexadecimal digits, as the camera's app sends them");
            return None;
        }
        let discovery_port = fields.whole_at("discovery_port", 1..=65_535).map(|(port, _)| port as u16);
        let media_port = fields.whole_at("media_port", 1..=65_535).map(|(port, _)| port as u16);
        let words = [("off", Retransmission::Off), ("on", Retransmission::On), ("auto", Retransmission::Auto)];
        let retransmission = fields.word("retransmission", &words).unwrap_or_default();
        fields.finish();
        if address_node.is_none() && uid_node.is_none() {
            context.mistake(place, "`address` or `uid` is missing");
        }
        (address.is_some() || uid.is_some()).then(|| Self {
            address,
            uid,
            token: token.map(|(_, token)| token),
            discovery_port: discovery_port.unwrap_or(DISCOVERY_PORT),
            media_port,
            retransmission,
            ..Self::nowhere()
        })
    }

    /// The token on the wire.
    pub(super) fn wire_token(&self) -> Token {
        let given = self.token.as_ref().map(Secret::reveal);
        // The configuration was checked; what was made by hand wrongly is refused by the camera.
        Token::from_digits(given.unwrap_or(Token::NO_PASSWORD)).unwrap_or(Token([0; 16]))
    }

    /// The name of the camera for messages: its UID or its address.
    pub(super) fn name(&self) -> String {
        match (&self.uid, self.address) {
            (Some(uid), _) => uid.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "a camera without address and uid".to_owned(),
        }
    }
}

/// An address that a camera can have.
fn address(text: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = text.parse().ok()?;
    (!address.is_unspecified() && !address.is_broadcast() && !address.is_multicast()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::Found;
    use crate::config::tree::Value;
    use std::path::Path;

    fn read(yaml: &str) -> (Option<Config>, Found) {
        let node = Node::parse(yaml).unwrap_or_else(|(_, words)| panic!("{words}"));
        let context = Context::new(Path::new("."), &|_| None);
        let config = match &node.value {
            Value::Text(_) => Config::short(&context, &node),
            _ => Fields::of(&context, &node).and_then(Config::long),
        };
        (config, context.found())
    }

    fn good(yaml: &str) -> Config {
        let (config, found) = read(yaml);
        assert_eq!(found.mistakes, [], "{yaml}");
        config.expect("it is read")
    }

    fn mistake(yaml: &str) -> String {
        let (_, found) = read(yaml);
        let [(_, text)] = found.mistakes.as_slice() else { panic!("{yaml}: {:?}", found.mistakes) };
        text.clone()
    }

    #[test]
    fn short_and_long_forms() {
        let address = Ipv4Addr::new(192, 0, 2, 30);
        assert_eq!(good("iwfcam://192.0.2.30"), Config::at(address));
        assert_eq!(good("iwfcam://192.0.2.30/"), Config::at(address));
        assert_eq!(good("address: 192.0.2.30"), Config::at(address));
        assert_eq!(good("uid: ABC1234-0123456789AB-012345"), Config::named("ABC1234-0123456789AB-012345"));
        let all = good(
            "{ address: 192.0.2.30, uid: A-1, token: 6ddd60335190, discovery_port: 10210, media_port: 17901, \
             retransmission: auto }",
        );
        let wanted = Config {
            uid: Some("A-1".into()),
            token: Some(Secret::new("6ddd60335190")),
            discovery_port: 10_210,
            media_port: Some(17_901),
            retransmission: Retransmission::Auto,
            ..Config::at(address)
        };
        assert_eq!(all, wanted);
    }

    #[test]
    fn mistakes_say_what_was_expected_and_no_secret() {
        for yaml in ["iwfcam://camera.lan", "iwfcam://", "iwfcam:192.0.2.30", "iwfcam://0.0.0.0", "iwfcam://ä"] {
            assert!(mistake(yaml).contains("IPv4 address"), "{yaml}");
        }
        assert!(mistake("retransmission: on").contains("`address` or `uid` is missing"));
        assert!(mistake("address: camera").contains("IPv4"));
        assert!(mistake("uid: 'a b'").contains("UID"));
        assert!(mistake("{ address: 192.0.2.30, media_port: 0 }").contains("from 1 to 65535"));
        assert!(mistake("{ address: 192.0.2.30, retransmission: perhaps }").contains("off, on, auto"));
        let text = mistake("{ address: 192.0.2.30, token: hunter2 }");
        assert!(text.contains("12 hexadecimal digits") && !text.contains("hunter2"), "{text}");
    }
}
