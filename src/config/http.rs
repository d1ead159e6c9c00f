//! `http:` and what it decides about a request.

use super::values::{Listen, Network};
use std::net::{IpAddr, SocketAddr};

/// `http:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where pages and API listen. Needs a restart when changed.
    pub listen: Vec<Listen>,
    /// Origins other than our own that may use the API, as browsers send them: `https://home.example:8123`.
    pub allow_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Host names under which we may be called besides addresses and local names, lower case; empty means any as long as
    /// users are asked for.
    pub hosts: Vec<String>,
}

impl Http {
    /// Who really asks: `peer`, or where that is a trusted proxy, the last address in `forwarded` (the whole
    /// `X-Forwarded-For`) that is none. What cannot be read ends the search: it may have been made up.
    pub fn client(&self, peer: IpAddr, forwarded: Option<&str>) -> IpAddr {
        let mut client = peer.to_canonical();
        for hop in forwarded.unwrap_or_default().rsplit(',').map(str::trim) {
            if !self.trusted_proxies.iter().any(|network| network.contains(client)) {
                break;
            }
            let address = hop.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
            match address {
                Some(address) => client = address.to_canonical(),
                None => break,
            }
        }
        client
    }

    /// Whether a page of another origin, as named by `Origin`, may use the API.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.allow_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Whether we may be called so, as named by `Host`. Refusing unknown names keeps pages from elsewhere out that
    /// point a name of their own to our address (DNS rebinding).
    pub fn knows_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.trim_end_matches('.');
        self.hosts.is_empty()
            || bare.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn http() -> Http {
        let networks = ["10.0.0.0/8", "2001:db8::/32"];
        Http {
            allow_origins: vec!["https://home.example:8123".into()],
            trusted_proxies: networks.iter().map(|text| Network::parse(text).expect("valid")).collect(),
            hosts: vec!["cameras.home.arpa".into()],
            ..Config::default().http
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let client = |peer: &str, forwarded| http().client(peer.parse().expect("an address"), forwarded).to_string();
        assert_eq!(client("192.0.2.1", Some("192.0.2.9")), "192.0.2.1");
        assert_eq!(client("10.0.0.1", Some("192.0.2.9")), "192.0.2.9");
        assert_eq!(client("::ffff:10.0.0.1", Some("192.0.2.9")), "192.0.2.9");
        assert_eq!(client("10.0.0.1", Some("192.0.2.66, 192.0.2.9, 10.0.0.2")), "192.0.2.9");
        assert_eq!(client("10.0.0.1", Some("10.0.0.3 , 10.0.0.2")), "10.0.0.3");
        assert_eq!(client("10.0.0.1", Some("192.0.2.9:5000")), "192.0.2.9");
        assert_eq!(client("2001:db8::1", Some("[2001:db9::2]:5000")), "2001:db9::2");
        for unread in [None, Some(""), Some("unknown"), Some("192.0.2.9, x")] {
            assert_eq!(client("10.0.0.1", unread), "10.0.0.1");
        }
    }

    #[test]
    fn hosts_and_origins_are_those_that_are_named() {
        let http = http();
        for known in
            ["cameras.home.arpa", "Cameras.Home.Arpa.:8484", "localhost:1", "192.0.2.1:8484", "[::1]:8484", "[::1]"]
        {
            assert!(http.knows_host(known), "{known}");
        }
        for unknown in ["evil.example", "evil.example:8484", "", "localhost.evil.example"] {
            assert!(!http.knows_host(unknown), "{unknown}");
        }
        assert!(Config::default().http.knows_host("evil.example"), "any where none is named");
        assert!(http.allows_origin("https://HOME.example:8123"));
        assert!(!http.allows_origin("https://home.example") && !http.allows_origin("null"));
    }
}
