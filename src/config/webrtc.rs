//! `webrtc:`.

use super::read::{Context, Fields};
use super::tree::{Node, Value};
use super::values::{Host, Listen};
use super::{Place, Secret};
use std::net::Ipv6Addr;

/// `webrtc:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webrtc {
    /// Where WebRTC is served, UDP and TCP; empty if it is off. Needs a restart when changed.
    pub listen: Vec<Listen>,
    /// Addresses that viewers are told besides ours.
    pub candidates: Vec<Candidate>,
    /// Servers that viewers are told.
    pub ice_servers: Vec<IceServer>,
}

/// An address that viewers are told to try, besides what this machine knows of itself: behind a router, or in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address, or a name that is looked up.
    pub host: Host,
    /// The port; without one, the port that is listened on.
    pub port: Option<u16>,
}

impl Candidate {
    /// Reads `HOST` or `HOST:PORT`; IPv6 with or without brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<Ipv6Addr>() {
            return Some(Self { host: Host::Ip(ip.into()), port: None }).filter(Self::is_reachable);
        }
        let with_port =
            Listen::parse(text).filter(|listen| listen.port != 0).map(|listen| (listen.host, Some(listen.port)));
        let without = || Some((Listen::parse(&format!("{text}:1"))?.host, None)).filter(|_| !text.contains(':'));
        let (host, port) = with_port.or_else(without)?;
        Some(Self { host, port }).filter(Self::is_reachable)
    }

    /// Not "any address", which nobody can reach.
    fn is_reachable(&self) -> bool {
        !matches!(self.host, Host::Ip(ip) if ip.is_unspecified())
    }
}

/// A STUN or TURN server for viewers; we use none ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// URLs as in RFC 7064 and RFC 7065: `stun:HOST[:PORT]`, `turn:HOST[:PORT][?transport=…]`, `turns:…`.
    pub urls: Vec<String>,
    /// The user name for TURN.
    pub username: Option<String>,
    /// The password for TURN.
    pub credential: Option<Secret>,
}

/// The candidates of a list, or the one that stands alone.
pub(super) fn candidates(context: &Context<'_>, node: &Node) -> Vec<Candidate> {
    let expected = "an address or a host name, with a port or without, such as 203.0.113.7 or home.example:8555";
    context.list(node).iter().filter_map(|node| context.parsed(node, expected, Candidate::parse)).collect()
}

/// The servers of a list, or the one that stands alone.
pub(super) fn ice_servers(context: &Context<'_>, node: &Node) -> Vec<IceServer> {
    context.list(node).iter().filter_map(|node| ice_server(context, node)).collect()
}

fn ice_server(context: &Context<'_>, node: &Node) -> Option<IceServer> {
    if matches!(node.value, Value::Text(_)) {
        let (place, url) = (node.place, url(context, node)?);
        checked(context, place, std::slice::from_ref(&url), false)?;
        return Some(IceServer { urls: vec![url], username: None, credential: None });
    }
    let mut fields = Fields::of(context, node)?;
    let place = fields.place;
    let urls = fields.required("urls").map(|node| {
        let urls: Vec<_> = context.list(node).iter().filter_map(|node| url(context, node)).collect();
        urls
    });
    let login = fields.value("username").is_some() && fields.has("credential");
    let username = fields.take("username").and_then(|node| context.text(node));
    let credential = fields.secret("credential").map(|(_, secret)| secret);
    fields.finish();
    let urls = urls.filter(|urls| !urls.is_empty())?;
    checked(context, place, &urls, login)?;
    Some(IceServer { urls, username, credential })
}

fn url(context: &Context<'_>, node: &Node) -> Option<String> {
    let expected = "a URL such as stun:stun.example:3478 or turn:turn.example:3478?transport=udp";
    context.parsed(node, expected, |text| is_ice_url(text).then(|| text.to_owned()))
}

/// `stun:`, `stuns:`, `turn:` or `turns:`, a host, perhaps a port; after `turn` perhaps the transport.
fn is_ice_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let turn = matches!(scheme, "turn" | "turns");
    let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
    let known = turn || matches!(scheme, "stun" | "stuns");
    let query_fits = query.is_none_or(|query| turn && matches!(query, "transport=udp" | "transport=tcp"));
    known && query_fits && Candidate::parse(address).is_some()
}

/// TURN servers want to know who asks (RFC 8656 section 5).
fn checked(context: &Context<'_>, place: Place, urls: &[String], login: bool) -> Option<()> {
    if urls.iter().any(|url| url.starts_with("turn")) && !login {
        context.mistake(place, "a TURN server needs `username` and `credential` beside `urls`");
        return None;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_addresses_or_names_with_a_port_or_without() {
        let parsed = |text: &str| Candidate::parse(text).map(|candidate| (candidate.host, candidate.port));
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        assert_eq!(parsed("203.0.113.7"), Some((ip("203.0.113.7"), None)));
        assert_eq!(parsed("203.0.113.7:9000"), Some((ip("203.0.113.7"), Some(9000))));
        assert_eq!(parsed("2001:db8::1"), Some((ip("2001:db8::1"), None)));
        assert_eq!(parsed("[2001:db8::1]"), Some((ip("2001:db8::1"), None)));
        assert_eq!(parsed("[2001:db8::1]:9000"), Some((ip("2001:db8::1"), Some(9000))));
        assert_eq!(parsed("home.example"), Some((Host::Name("home.example".into()), None)));
        for wrong in ["", "0.0.0.0", "[::]:1", "a b", "203.0.113.7:0", "203.0.113.7:99999", "1.2.3", "a:b:c"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ice_urls_are_stun_and_turn() {
        for good in [
            "stun:stun.example",
            "stun:192.0.2.1:3478",
            "turn:turn.example:3478?transport=tcp",
            "turns:[2001:db8::1]:5349",
        ] {
            assert!(is_ice_url(good), "{good}");
        }
        for wrong in ["stun.example", "http://a", "stun:", "stun:a?transport=udp", "turn:a?x=1", "turn:a b"] {
            assert!(!is_ice_url(wrong), "{wrong}");
        }
    }
}
