//! How a request came to us: under which host, from which client, from which page; proxies that we trust looked
//! through.

use super::{OverTls, Peer};
use crate::config;
use axum::http::{HeaderMap, HeaderName, Request, header};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Names that only mean something in a local network, so that nobody elsewhere can point them anywhere.
const LOCAL: [&str; 9] = [
    ".localhost",
    ".local",
    ".lan",
    ".home",
    ".internal",
    ".home.arpa",
    ".localdomain",
    ".intranet",
    // The routers of one large maker answer to it.
    ".fritz.box",
];

/// The host that the client asked for, as it may stand in a URL: a name, an IPv4 address or an IPv6 address in
/// brackets; without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskedHost {
    pub(super) host: String,
    /// With the port, if the client named one, for comparison with an `Origin`.
    authority: String,
}

/// Who asks, a request extension for every handler behind the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The address; unspecified where it cannot be told.
    pub(super) ip: IpAddr,
    /// Whether the client speaks TLS, to us or to a proxy that we trust.
    pub(super) secure: bool,
}

impl AskedHost {
    /// Reads `host[:port]`; `None` if it is not of that form, so that nothing else ever gets into an answer.
    pub(super) fn parse(authority: &str) -> Option<Self> {
        let authority = authority.trim().to_ascii_lowercase();
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (format!("[{address}]"), port)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (host, port) = authority.split_at(end);
                let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
                if host.is_empty() || host.len() > 253 || !host.bytes().all(valid) {
                    return None;
                }
                (host.to_owned(), port)
            }
        };
        if !port.is_empty() {
            port.strip_prefix(':')?.parse::<u16>().ok()?;
        }
        Some(Self { host, authority })
    }

    /// Whether we may be called so: by addresses, names of a local network, and the names under `http: hosts`. Any other
    /// name may have been pointed at our address by a page that is to reach us with it (DNS rebinding).
    pub(super) fn is_known(&self, options: &config::Http) -> bool {
        let host = self.host.trim_end_matches('.');
        host.starts_with('[')
            || host.parse::<Ipv4Addr>().is_ok()
            || !host.contains('.')
            || LOCAL.iter().any(|suffix| host.ends_with(suffix))
            || options.hosts.iter().any(|known| known.trim_end_matches('.').eq_ignore_ascii_case(host))
    }
}

/// What a request says of itself, as far as it is believed.
pub(super) fn read<B>(request: &Request<B>, options: &config::Http) -> (Client, Option<AskedHost>) {
    let headers = request.headers();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_canonical());
    let tls = request.extensions().get::<OverTls>().is_some();
    let (ip, proxies) = client(headers, peer, options);
    let secure = match forwarded(headers, FORWARDED_PROTO, proxies) {
        Some(scheme) => scheme.eq_ignore_ascii_case("https"),
        None => tls,
    };
    let host = match (forwarded(headers, FORWARDED_HOST, proxies), request.uri().authority()) {
        (Some(host), _) => Some(host),
        (None, Some(authority)) => Some(authority.as_str()),
        (None, None) => headers.get(header::HOST).and_then(|value| value.to_str().ok()),
    };
    (Client { ip, secure }, host.and_then(AskedHost::parse))
}

fn list(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty()).collect()
}

/// The address of the client, and how many proxies that we trust are between: the last address in `X-Forwarded-For`
/// that is not such a proxy. What stands before it the client may have made up.
fn client(headers: &HeaderMap, peer: Option<IpAddr>, options: &config::Http) -> (IpAddr, usize) {
    const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let Some(mut client) = peer else { return (UNKNOWN, 0) };
    let mut hops = list(headers, FORWARDED_FOR);
    let mut proxies = 0;
    while trusts(options, client) {
        proxies += 1;
        let Some(hop) = hops.pop() else { break };
        let address = hop.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
        match address {
            Some(address) => client = IpAddr::to_canonical(&address),
            None => break,
        }
    }
    // A proxy on this machine that we know nothing of: who stands behind it has no part in what only this machine may.
    let behind_another = !hops.is_empty() || (proxies == 0 && headers.contains_key(FORWARDED));
    if client.is_loopback() && behind_another { (UNKNOWN, proxies) } else { (client, proxies) }
}

/// Whether an address is that of a proxy whose word counts.
pub(super) fn trusts(options: &config::Http, peer: IpAddr) -> bool {
    options.trusted_proxies.iter().any(|network| network.contains(peer))
}

/// What the outermost of that many trusted proxies was told; each adds its own to the end of the list, or leaves it.
fn forwarded(headers: &HeaderMap, name: HeaderName, proxies: usize) -> Option<&str> {
    let values = list(headers, name);
    if proxies == 0 { None } else { values.get(values.len().saturating_sub(proxies)).copied() }
}

/// Whether a page that is neither ours nor listed made the browser send this.
pub(super) fn is_foreign<B>(request: &Request<B>, host: &AskedHost, options: &config::Http) -> bool {
    let headers = request.headers();
    let site = headers.get(FETCH_SITE).map(|site| site.as_bytes());
    let Some(origin) = headers.get(header::ORIGIN) else {
        // Following a link to us, or showing a picture of ours, is nothing that a page could gain from.
        return !request.method().is_safe() && matches!(site, Some(b"cross-site" | b"same-site"));
    };
    // Browsers say so themselves, whatever a proxy made of the host; no page can.
    if site == Some(b"same-origin") {
        return false;
    }
    let Ok(origin) = origin.to_str() else { return true };
    !is_own(origin, host) && !is_listed(origin, options)
}

fn is_own(origin: &str, host: &AskedHost) -> bool {
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host.authority))
}

fn is_listed(origin: &str, options: &config::Http) -> bool {
    options.allow_origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

/// Whether a listed page shows what we answer: it may then use pictures of ours as it may use the API.
pub(super) fn for_listed_page(headers: &HeaderMap, options: &config::Http) -> bool {
    if options.allow_origins.is_empty() {
        return false;
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // Where pictures are asked for, only this tells by whom; browsers name at least the origin.
    let referer = || {
        let (scheme, rest) = text(header::REFERER)?.split_once("://")?;
        Some(format!("{scheme}://{}", rest.split(['/', '?']).next()?))
    };
    text(header::ORIGIN).map(str::to_owned).or_else(referer).is_some_and(|origin| is_listed(&origin, options))
}

/// Whether one of our own pages asks, as far as its browser tells. Such a page shows that one has to sign in; the
/// browser's own password box would only be in its way.
pub(super) fn by_own_page(headers: &HeaderMap, host: &AskedHost) -> bool {
    let fetched = headers.get(FETCH_MODE).is_some_and(|mode| mode != "navigate");
    let referer = headers.get(header::REFERER).and_then(|value| value.to_str().ok());
    let authority = referer.and_then(|url| url.split_once("://")).and_then(|(_, rest)| rest.split(['/', '?']).next());
    fetched || authority.is_some_and(|authority| authority.eq_ignore_ascii_case(&host.authority))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Network};

    fn options() -> config::Http {
        let networks = ["192.0.2.1", "192.0.2.2/32", "127.0.0.1", "2001:db8::/32"];
        config::Http {
            allow_origins: vec!["https://home.example:8123".into()],
            trusted_proxies: networks.iter().map(|text| Network::parse(text).unwrap()).collect(),
            hosts: vec!["cameras.example.net".into()],
            ..Config::default().http
        }
    }

    fn request(peer: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/v1/cameras");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        request.extensions_mut().insert(Peer(SocketAddr::new(peer.parse().unwrap(), 40_000)));
        request
    }

    #[test]
    fn only_hosts_get_into_answers() {
        let host = |text| AskedHost::parse(text).map(|asked| asked.host);
        assert_eq!(host("fan.lan:8484").as_deref(), Some("fan.lan"));
        assert_eq!(host("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(host("[FE80::1]:80").as_deref(), Some("[fe80::1]"));
        for bad in
            ["", ":80", "a b", "a\"><b", "fan:x", "fan:99999", "[::1", "[x]", "[::1]x", "u@fan", "fan/x", "a:1:2"]
        {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let options = options();
        let seen = |peer: &str, forwarded: &[&str]| {
            let headers: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
            read(&request(peer, &headers), &options).0.ip.to_string()
        };
        assert_eq!(seen("198.51.100.7", &["203.0.113.9"]), "198.51.100.7");
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("::ffff:192.0.2.1", &["203.0.113.9:5000"]), "203.0.113.9");
        assert_eq!(seen("2001:db8::1", &["[2001:db9::2]:5000"]), "2001:db9::2");
        // What the client itself wrote before its own address does not count.
        assert_eq!(seen("192.0.2.1", &["127.0.0.1, 203.0.113.9, 192.0.2.2"]), "203.0.113.9");
        assert_eq!(seen("192.0.2.1", &["127.0.0.1", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("192.0.2.1", &["::ffff:203.0.113.9"]), "203.0.113.9");
        for unread in [&["nonsense"][..], &["203.0.113.9, x"], &[""], &[]] {
            assert_eq!(seen("192.0.2.1", unread), "192.0.2.1");
        }
    }

    #[test]
    fn behind_an_unknown_proxy_nobody_is_this_machine() {
        let options = options();
        let ip = |peer: &str, headers: &[(&str, &str)]| read(&request(peer, headers), &options).0.ip.to_string();
        assert_eq!(ip("::1", &[]), "::1");
        assert_eq!(ip("::1", &[("x-forwarded-for", "203.0.113.9")]), "0.0.0.0");
        assert_eq!(ip("::1", &[("forwarded", "for=203.0.113.9")]), "0.0.0.0");
        assert_eq!(ip("127.0.0.1", &[("x-forwarded-for", "203.0.113.9")]), "203.0.113.9", "a trusted one");
        assert_eq!(ip("127.0.0.1", &[("x-forwarded-for", "127.0.0.1")]), "127.0.0.1");
        assert_eq!(ip("127.0.0.1", &[("x-forwarded-for", "203.0.113.9, 127.0.0.1")]), "203.0.113.9");
    }

    #[test]
    fn host_and_scheme_are_those_outside_the_proxies() {
        let options = options();
        let outside = [
            ("host", "inner:8484"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "made.up, cameras.example.net"),
            ("x-forwarded-proto", "https"),
        ];
        let (client, host) = read(&request("192.0.2.1", &outside), &options);
        assert_eq!((client.secure, host.unwrap().host.as_str()), (true, "cameras.example.net"));
        let (client, host) = read(&request("198.51.100.7", &outside), &options);
        assert_eq!((client.secure, host.unwrap().host.as_str()), (false, "inner"), "not trusted");
        // Two proxies: each adds itself.
        let chain = [
            ("x-forwarded-for", "203.0.113.9, 192.0.2.2"),
            ("x-forwarded-host", "made.up, cameras.example.net, inner"),
            ("x-forwarded-proto", "https, http"),
        ];
        let (client, host) = read(&request("192.0.2.1", &chain), &options);
        assert_eq!((client.secure, host.unwrap().host.as_str()), (true, "cameras.example.net"));
        let mut direct = request("198.51.100.7", &[("host", "fan")]);
        direct.extensions_mut().insert(OverTls);
        assert!(read(&direct, &options).0.secure);
    }

    #[test]
    fn names_that_anyone_could_point_here_are_not_known() {
        let options = options();
        for (host, known) in [
            ("localhost", true),
            ("192.0.2.7:8484", true),
            ("[::1]:8484", true),
            ("homeserver", true),
            ("fan.local", true),
            ("fan.local.:8484", true),
            ("fan.home.arpa", true),
            ("Cameras.Example.net.:8484", true),
            ("fan.example.com", false),
            ("local.example", false),
            ("localhost.evil.example", false),
            ("evillocal.example", false),
            ("192.0.2.7.example.net", false),
        ] {
            assert_eq!(AskedHost::parse(host).map(|asked| asked.is_known(&options)), Some(known), "{host}");
        }
    }

    #[test]
    fn pages_of_others_are_told_from_our_own() {
        let options = options();
        let host = AskedHost::parse("fan.lan:8484").unwrap();
        for (method, headers, foreign) in [
            ("GET", &[][..], false),
            ("POST", &[], false),
            ("GET", &[("sec-fetch-site", "cross-site")], false),
            ("POST", &[("sec-fetch-site", "cross-site")], true),
            ("POST", &[("sec-fetch-site", "same-site")], true),
            ("POST", &[("sec-fetch-site", "same-origin")], false),
            ("POST", &[("origin", "http://fan.lan:8484")], false),
            ("POST", &[("origin", "http://FAN.lan:8484")], false),
            ("POST", &[("origin", "https://home.example:8123")], false),
            ("POST", &[("origin", "http://fan.lan")], true),
            ("GET", &[("origin", "http://fan.lan")], true),
            ("GET", &[("origin", "null")], true),
            ("POST", &[("origin", "https://fan.lan"), ("sec-fetch-site", "same-origin")], false),
        ] {
            let mut request = request("198.51.100.7", headers);
            *request.method_mut() = method.parse().unwrap();
            assert_eq!(is_foreign(&request, &host, &options), foreign, "{method} {headers:?}");
        }
    }

    #[test]
    fn pictures_are_for_listed_pages_too() {
        let shown = |headers: &[(&str, &str)]| for_listed_page(request("192.0.2.9", headers).headers(), &options());
        assert!(
            shown(&[("referer", "https://home.example:8123/")]) && shown(&[("origin", "https://home.example:8123")])
        );
        assert!(!shown(&[("referer", "https://evil.example/https://home.example:8123/")]) && !shown(&[]));
        assert!(!shown(&[("origin", "https://evil.example"), ("referer", "https://home.example:8123/")]));
    }

    #[test]
    fn our_own_pages_are_known_by_what_browsers_tell() {
        let host = AskedHost::parse("fan.lan:8484").unwrap();
        let own = |headers: &[(&str, &str)]| by_own_page(request("192.0.2.9", headers).headers(), &host);
        assert!(own(&[("referer", "http://fan.lan:8484/camera/front?kiosk")]));
        assert!(own(&[("referer", "http://fan.lan:8484")]) && own(&[("sec-fetch-mode", "cors")]));
        assert!(!own(&[("referer", "http://fan.lan/")]) && !own(&[("sec-fetch-mode", "navigate")]) && !own(&[]));
    }
}
