//! Who may: one middleware in front of every path.

use super::problem::Problem;
use super::{HttpState, Peer};
use crate::access::{HTTP_CHALLENGE, HttpVerdict, Role, User};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who asks. `None` where nobody needs to sign in: that is everybody's and the administrator's view at once.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Option<Arc<User>>);

impl Caller {
    pub(super) fn name(&self) -> Option<&str> {
        self.0.as_deref().map(|user| user.name.as_str())
    }

    pub(super) fn is_admin(&self) -> bool {
        self.0.as_deref().is_none_or(|user| user.role == Role::Admin)
    }
}

/// The client's address, behind proxies that are trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) ip: IpAddr,
}

/// The host that the client asked for, as it may stand in a URL: a name, an IPv4 address or an IPv6 address in
/// brackets; without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskedHost {
    pub(super) host: String,
    /// With the port, if the client named one, for comparison with an `Origin`.
    authority: String,
}

impl AskedHost {
    /// Reads `host[:port]`; `None` if it is not of that form, so that nothing else ever gets into an answer.
    fn parse(authority: &str) -> Option<Self> {
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

    /// Whether a page on some other name could not have got here by pointing that name at our address (DNS rebinding):
    /// addresses and names that only mean something in a local network.
    fn is_local(&self) -> bool {
        let host = self.host.trim_end_matches('.');
        host.starts_with('[')
            || host.parse::<Ipv4Addr>().is_ok()
            || !host.contains('.')
            || [".localhost", ".local", ".lan", ".home", ".internal", ".home.arpa"]
                .iter()
                .any(|suffix| host.ends_with(suffix))
    }
}

/// Lets through who may, with a [`Caller`] and an [`AskedHost`] for the handlers.
pub(super) async fn guard(State(state): State<HttpState>, mut request: Request<Body>, next: Next) -> Response {
    match admit(&state, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(response) => *response,
    }
}

async fn admit(state: &HttpState, request: &mut Request<Body>) -> Result<(), Box<Response>> {
    let refuse = |status, detail: &str| Err(Box::new(Problem::new(status, detail).into_response()));
    let path = request.uri().path();
    if path == "/healthz" || request.method() == Method::OPTIONS {
        return Ok(());
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let proxied = peer.is_some_and(|peer| state.trusts(peer.ip()));
    let Some(host) = asked_host(request, proxied) else {
        return refuse(StatusCode::BAD_REQUEST, "the Host header is missing or is not a host name or address");
    };
    // Told to anybody, so that a health check needs no password.
    if path == "/readyz" && !state.health.ready() {
        return Err(Box::new(super::not_ready(&state.health)));
    }
    if !state.options.hosts.is_empty() && !host.is_local() && !state.options.hosts.contains(&host.host) {
        return refuse(StatusCode::MISDIRECTED_REQUEST, "this host name is not listed under http: hosts");
    }
    if !request.method().is_safe() && foreign(request.headers(), &host, state) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a page of another origin may not do this unless its origin is listed under http: allow_origins",
        );
    }
    let client = peer
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| client(request.headers(), peer.ip(), |ip| state.trusts(ip)));
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let user = match state.access.check_http(client, authorization).await {
        HttpVerdict::Granted(user) => user,
        HttpVerdict::Denied => {
            let detail = "sign in with the name and password of a user, or send the password as a bearer token";
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
            let challenge = HeaderValue::from_static(HTTP_CHALLENGE);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return Err(Box::new(response));
        }
        HttpVerdict::Limited => {
            let detail = "too many wrong passwords from this address; wait a minute";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(60);
            return Err(Box::new(problem.into_response()));
        }
    };
    if user.is_none() && !host.is_local() && !state.options.hosts.contains(&host.host) {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "without users, only local host names are answered: list this one under http: hosts, or add a user",
        );
    }
    request.extensions_mut().insert(Caller(user));
    request.extensions_mut().insert(Client { ip: client });
    request.extensions_mut().insert(host);
    Ok(())
}

fn asked_host(request: &Request<Body>, proxied: bool) -> Option<AskedHost> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    if proxied && let Some(forwarded) = header(FORWARDED_HOST) {
        return AskedHost::parse(forwarded.split(',').next()?);
    }
    match request.uri().authority() {
        Some(authority) => AskedHost::parse(authority.as_str()),
        None => AskedHost::parse(header(header::HOST)?),
    }
}

/// The address of the client behind proxies that we trust: the last one in `X-Forwarded-For` that is not such a proxy.
fn client(headers: &HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let hops = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<_> = hops.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut client = peer;
    for hop in hops.iter().rev() {
        if !trusts(client) {
            break;
        }
        match hop.parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

/// Whether a page that is neither ours nor listed made the browser send this.
fn foreign(headers: &HeaderMap, host: &AskedHost, state: &HttpState) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return headers.get(FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site");
    };
    let Ok(origin) = origin.to_str() else {
        return true;
    };
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host.authority));
    let listed = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
    !own && !state.options.allow_origins.iter().any(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let proxies = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let seen = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            client(&headers, peer.parse().unwrap(), |ip| proxies.contains(&ip)).to_string()
        };
        assert_eq!(seen("198.51.100.7", &["203.0.113.9"]), "198.51.100.7");
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"]), "203.0.113.9");
        // What the client itself wrote before its own address does not count.
        assert_eq!(seen("192.0.2.1", &["127.0.0.1, 203.0.113.9, 192.0.2.2"]), "203.0.113.9");
        assert_eq!(seen("192.0.2.1", &["127.0.0.1", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("192.0.2.1", &["::ffff:203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("192.0.2.1", &["nonsense"]), "192.0.2.1");
        assert_eq!(seen("192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn names_that_anyone_could_point_here_are_not_local() {
        for (host, local) in [
            ("localhost", true),
            ("192.0.2.7:8484", true),
            ("[::1]:8484", true),
            ("homeserver", true),
            ("fan.local", true),
            ("fan.home.arpa", true),
            ("fan.example.com", false),
            ("local.example", false),
            ("192.0.2.7.example.net", false),
        ] {
            assert_eq!(AskedHost::parse(host).map(|asked| asked.is_local()), Some(local), "{host}");
        }
    }
}
