//! The addresses that viewers are told to try (RFC 8839 section 5.1, RFC 6544 section 4.5).

use super::peer;
use crate::config::{Candidate, Host};
use std::net::{IpAddr, SocketAddr};

/// As many addresses as are told; a machine with more has bridges and containers that no viewer reaches.
const MOST: usize = 32;
/// Type preferences (RFC 8445 section 5.1.2.2): TCP only where UDP does not get through.
const UDP: u32 = 126;
const TCP: u32 = 90;

/// The addresses under which sockets bound to `bound` are reached, best first. Loopback only helps viewers on this
/// machine, so it is named where nothing else is bound or `nearby` says that the viewer is here.
pub(super) fn hosts(bound: &[SocketAddr], nearby: bool) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let interfaces = if bound.iter().any(|address| address.ip().is_unspecified()) {
        peer::interfaces().unwrap_or_default()
    } else {
        Vec::new()
    };
    for address in bound {
        if !address.ip().is_unspecified() {
            found.push(*address);
            continue;
        }
        // `[::]` takes IPv4 too.
        let fits = |ip: &&IpAddr| address.is_ipv6() || ip.is_ipv4();
        let usable = |ip: &&IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
            // Link-local ones need a zone, which candidates cannot carry.
            IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified(),
        };
        let near = |ip: &&IpAddr| nearby || !ip.is_loopback();
        let ips = interfaces.iter().filter(fits).filter(usable).filter(near);
        found.extend(ips.map(|ip| SocketAddr::new(*ip, address.port())));
    }
    // IPv4 first: in houses it is what works.
    found.sort_by_key(|address| (address.ip().is_loopback(), address.is_ipv6()));
    let mut unique = Vec::new();
    for address in found {
        if !unique.contains(&address) && unique.len() < MOST {
            unique.push(address);
        }
    }
    unique
}

/// The addresses of configured candidates, names looked up; those that have none are left out with a line in the log.
pub(super) async fn resolve(candidates: &[Candidate], port: u16) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for candidate in candidates {
        let port = candidate.port.unwrap_or(port);
        match &candidate.host {
            Host::Ip(ip) => found.push(SocketAddr::new(*ip, port)),
            Host::Name(name) => match tokio::net::lookup_host((name.as_str(), port)).await {
                Ok(addresses) => found.extend(addresses.take(4)),
                Err(error) => tracing::warn!(%error, "`webrtc: candidates`: {name} cannot be looked up"),
            },
        }
    }
    found
}

/// Candidate lines for those addresses, without `a=`: each by UDP and by TCP.
pub(super) fn lines(addresses: &[SocketAddr]) -> Vec<String> {
    let line = |index: usize, address: &SocketAddr, tcp: bool| {
        let rest = index.min(8_000) as u32;
        let (protocol, preference, local, kind) = if tcp {
            // The direction preference of a passive one is 4 (RFC 6544 section 4.2).
            ("tcp", TCP, (4 << 13) + (8_191 - rest), " tcptype passive")
        } else {
            ("udp", UDP, 65_535 - rest, "")
        };
        let priority = (preference << 24) + (local << 8) + 255;
        let foundation = index * 2 + usize::from(tcp) + 1;
        let (ip, port) = (address.ip(), address.port());
        format!("candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host{kind}")
    };
    let all = |tcp| addresses.iter().enumerate().map(move |(index, address)| line(index, address, tcp));
    all(false).chain(all(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_bound_address_is_the_only_one_and_any_address_is_all_of_the_machine() {
        assert_eq!(hosts(&[at("192.0.2.1:8555")], false), [at("192.0.2.1:8555")]);
        let near = hosts(&[at("0.0.0.0:8555")], true);
        assert!(near.contains(&at("127.0.0.1:8555")), "{near:?}");
        assert!(near.iter().all(|address| address.is_ipv4() && address.port() == 8555));
        let far = hosts(&[at("0.0.0.0:8555")], false);
        assert!(far.iter().all(|address| !address.ip().is_loopback()), "{far:?}");
    }

    #[test]
    fn udp_comes_before_tcp_and_earlier_addresses_before_later_ones() {
        let lines = lines(&[at("192.0.2.1:8555"), at("[2001:db8::1]:8556")]);
        assert_eq!(lines[0], "candidate:1 1 udp 2130706431 192.0.2.1 8555 typ host");
        assert_eq!(lines[1], "candidate:3 1 udp 2130706175 2001:db8::1 8556 typ host");
        assert_eq!(lines[2], "candidate:2 1 tcp 1520435199 192.0.2.1 8555 typ host tcptype passive");
        let priorities: Vec<u32> = lines.iter().map(|line| line.split(' ').nth(3).unwrap().parse().unwrap()).collect();
        assert!(priorities.is_sorted_by(|left, right| left > right), "{priorities:?}");
    }

    #[tokio::test]
    async fn configured_ones_get_the_bound_port_unless_they_have_their_own() {
        let candidates = [
            Candidate { host: Host::Ip("203.0.113.7".parse().unwrap()), port: None },
            Candidate { host: Host::Name("localhost".into()), port: Some(9_000) },
        ];
        let found = resolve(&candidates, 8555).await;
        assert_eq!(found[0], at("203.0.113.7:8555"));
        assert!(found[1..].iter().all(|address| address.ip().is_loopback() && address.port() == 9_000));
        assert!(found.len() > 1);
    }
}
