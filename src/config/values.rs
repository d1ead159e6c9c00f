//! Single values as people write them: addresses, durations, sizes, names.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Names that are already taken by paths, topics and pages.
const RESERVED: [&str; 11] =
    ["v1", "api", "whep", "whip", "camera", "visitors", "metrics", "healthz", "readyz", "sub", "status"];
/// Names end up in paths, topics and file names.
const MAX_NAME: usize = 63;

/// An address to listen on: `0.0.0.0:8554`, `[::]:8554` (both IP versions), `localhost:8554`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The host as written.
    pub host: Host,
    /// The TCP port; 0 means any that is free.
    pub port: u16,
}

/// The host of a [`Listen`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address, IPv6 in brackets when written.
    Ip(IpAddr),
    /// A name, looked up when we begin to listen.
    Name(String),
}

impl Listen {
    /// An address to listen on.
    pub fn new(ip: IpAddr, port: u16) -> Self {
        Self { host: Host::Ip(ip), port }
    }

    /// Reads `HOST:PORT`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
        let host = match host.strip_prefix('[') {
            Some(host) => Host::Ip(IpAddr::V6(host.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?)),
            None => match host.parse::<Ipv4Addr>() {
                Ok(ip) => Host::Ip(ip.into()),
                Err(_) => Host::Name(Some(host).filter(|host| is_host_name(host))?.to_owned()),
            },
        };
        Some(Self { host, port })
    }

    /// Whether one socket is to take IPv4 and IPv6: `[::]`.
    pub fn is_dual_stack(&self) -> bool {
        self.host == Host::Ip(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// Whether nobody but this machine reaches it. A name other than `localhost` is not known to be.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// The same port for this machine only: itself if it is loopback already, else `127.0.0.1`, and for an IPv6
    /// address `[::1]` beside it.
    pub fn on_loopback(&self) -> Vec<Self> {
        if self.is_loopback() {
            return vec![self.clone()];
        }
        let v4 = Self::new(Ipv4Addr::LOCALHOST.into(), self.port);
        match self.host {
            // With any free port the two would differ.
            Host::Ip(IpAddr::V6(_)) if self.port != 0 => vec![v4, Self::new(Ipv6Addr::LOCALHOST.into(), self.port)],
            _ => vec![v4],
        }
    }

    /// The socket addresses to bind, a name looked up.
    ///
    /// # Errors
    /// What the look-up of a name answered; `NotFound` where it has no address.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, self.port)]),
            Host::Name(name) => {
                let found: Vec<_> = tokio::net::lookup_host((name.as_str(), self.port)).await?.collect();
                if found.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address")));
                }
                Ok(found)
            }
        }
    }

    /// Whether both cannot be bound: the same port, and hosts of which one contains the other.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let every = |listen: &Self, other: &Self| {
            let any_v4 = Host::Ip(Ipv4Addr::UNSPECIFIED.into());
            listen.is_dual_stack() || (listen.host == any_v4 && !matches!(other.host, Host::Ip(IpAddr::V6(_))))
        };
        self.port == other.port
            && self.port != 0
            && (self.host == other.host || every(self, other) || every(other, self))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        // Four numbers that are no address are not meant as a name.
        && !text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// A network such as `192.0.2.0/24`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().ok()?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(longest), |bits| bits.parse().ok()).filter(|bits| *bits <= longest)?;
        Some(Self { ip, prefix })
    }

    /// Whether an address lies in it. IPv4 seen through an IPv6 socket (`::ffff:192.0.2.1`) counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, width: u8| {
            let rest = u32::from(width.saturating_sub(self.prefix));
            ours.checked_shr(rest).unwrap_or(0) == theirs.checked_shr(rest).unwrap_or(0)
        };
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(ours.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// The ports for RTP and RTCP over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpPorts {
    /// No UDP: viewers are told to take TCP.
    Off,
    /// Any pair that is free.
    Any,
    /// RTP on this even port, RTCP on the one after it (RFC 3550 section 11).
    Pair(u16),
}

impl UdpPorts {
    /// Reads `8000-8001`, `off` or `0`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "off" | "false" | "no" => Some(Self::Off),
            "0" => Some(Self::Any),
            _ => {
                let (rtp, rtcp) = text.split_once('-')?;
                let (rtp, rtcp): (u16, u16) = (rtp.trim().parse().ok()?, rtcp.trim().parse().ok()?);
                (rtp > 0 && rtp % 2 == 0 && rtcp == rtp + 1).then_some(Self::Pair(rtp))
            }
        }
    }
}

/// Reads `500ms`, `10s`, `5m`, `12h`, `30d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Reads `500B`, `64KiB`, `64MiB`, `5GiB`, `1TiB` as a number of bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// What is wrong with the name of a camera, if anything.
pub(crate) fn wrong_name(name: &str) -> Option<String> {
    if name.is_empty() || !name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-')) {
        return Some("a name is made of the characters a-z 0-9 _ -".into());
    }
    if name.len() > MAX_NAME {
        return Some(format!("a name has at most {MAX_NAME} characters"));
    }
    RESERVED.contains(&name).then(|| format!("`{name}` cannot be a name: it is used for a page or path of its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_reads_every_form_and_prints_it_again() {
        for text in ["0.0.0.0:8554", "127.0.0.1:0", "[::]:8554", "[2001:db8::1]:1", "localhost:80", "nas.home.arpa:80"]
        {
            assert_eq!(Listen::parse(text).expect(text).to_string(), text);
        }
        for text in [
            "8554",
            ":8554",
            "::1:80",
            "[::1]",
            "[::1:80",
            "1.2.3.4",
            "1.2.3:80",
            "300.1.1.1:80",
            "a b:80",
            "a:+80",
            "a:65536",
            "a:",
            "",
        ] {
            assert_eq!(Listen::parse(text), None, "{text}");
        }
        assert!(Listen::parse("[::]:1").expect("valid").is_dual_stack());
        assert!(!Listen::parse("0.0.0.0:1").expect("valid").is_dual_stack());
    }

    #[test]
    fn loopback_of_an_address() {
        let on = |text: &str| -> Vec<String> {
            Listen::parse(text).expect(text).on_loopback().iter().map(ToString::to_string).collect()
        };
        assert_eq!(on("0.0.0.0:1"), ["127.0.0.1:1"]);
        assert_eq!(on("[::]:1"), ["127.0.0.1:1", "[::1]:1"]);
        assert_eq!(on("[::]:0"), ["127.0.0.1:0"]);
        assert_eq!(on("nas:1"), ["127.0.0.1:1"]);
        assert_eq!(on("127.0.0.2:1"), ["127.0.0.2:1"]);
        assert_eq!(on("localhost:1"), ["localhost:1"]);
    }

    #[tokio::test]
    async fn resolves_addresses_and_names() {
        let resolve = async |text: &str| Listen::parse(text).expect("valid").resolve().await.expect("found");
        assert_eq!(resolve("[::]:5").await, ["[::]:5".parse::<SocketAddr>().expect("valid")]);
        assert!(resolve("localhost:5").await.iter().all(|address| address.ip().is_loopback() && address.port() == 5));
    }

    #[test]
    fn collisions_are_found_across_wildcards() {
        let collide = |a, b| {
            let (a, b) = (Listen::parse(a).expect(a), Listen::parse(b).expect(b));
            assert_eq!(a.collides(&b), b.collides(&a));
            a.collides(&b)
        };
        assert!(collide("0.0.0.0:1", "127.0.0.1:1"));
        assert!(collide("[::]:1", "0.0.0.0:1"));
        assert!(collide("nas:1", "nas:1"));
        assert!(!collide("0.0.0.0:1", "[::1]:1"));
        assert!(!collide("127.0.0.1:1", "192.0.2.1:1"));
        assert!(!collide("0.0.0.0:1", "0.0.0.0:2"));
        assert!(!collide("0.0.0.0:0", "0.0.0.0:0"));
    }

    #[test]
    fn networks_contain_their_addresses() {
        let contains = |network, ip: &str| Network::parse(network).expect(network).contains(ip.parse().expect("valid"));
        assert!(contains("192.0.2.0/24", "192.0.2.77"));
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.77"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && contains("::/0", "2001:db8::1"));
        assert!(contains("192.0.2.1", "192.0.2.1") && contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("192.0.2.0/24", "192.0.3.1") && !contains("0.0.0.0/0", "::1"));
        for text in ["", "x", "192.0.2.0/33", "::/129", "192.0.2.0/", "192.0.2.0/-1"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("30d"), Some(Duration::from_secs(2_592_000)));
        for text in ["", "10", "s", "-1s", "1.5s", "10x", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(size("64MiB"), Some(67_108_864));
        assert_eq!(size("5 GiB"), Some(5_368_709_120));
        for text in ["64", "64MB", "99999999999TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn udp_ports_are_an_even_odd_pair() {
        assert_eq!(UdpPorts::parse("8000-8001"), Some(UdpPorts::Pair(8000)));
        assert_eq!(UdpPorts::parse("off"), Some(UdpPorts::Off));
        assert_eq!(UdpPorts::parse("0"), Some(UdpPorts::Any));
        for text in ["8000", "8001-8002", "8000-8002", "8000-8000", "0-1", "65536-65537", "x-y", ""] {
            assert_eq!(UdpPorts::parse(text), None, "{text}");
        }
    }
}
