//! Binds the addresses of the configuration, and says what to do when a port is taken.

use crate::config::Listen;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use tokio::net::TcpListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Never proposed: ours, or usually somebody else's (Frigate and go2rtc: 1984, 5000, 8554, 8555, 8971).
const SPOKEN_FOR: [u16; 10] = [1984, 5000, 8000, 8001, 8322, 8443, 8484, 8554, 8555, 8971];

/// A port that could not be bound.
#[derive(Debug, thiserror::Error)]
pub struct PortError {
    /// The key in the configuration that names it, as `rtsp: listen`.
    pub key: &'static str,
    /// The address as configured.
    pub address: String,
    /// What the system says.
    #[source]
    pub source: io::Error,
    /// A port that is free at that address.
    pub free: Option<u16>,
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, address, source, free } = self;
        let port = address.rsplit_once(':').map_or(address.as_str(), |(_, port)| port);
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "port {port} of `{key}` ({address}) is taken by another program")?;
                if matches!(port, "8554" | "8555") {
                    f.write_str(" (8554 and 8555 are often Frigate's or go2rtc's)")?;
                }
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "port {port} of `{key}` ({address}) may not be bound by this user")?;
            }
            io::ErrorKind::AddrNotAvailable => {
                return write!(f, "`{key}` ({address}): this machine has no such address, so port {port} was not bound");
            }
            _ => write!(f, "port {port} of `{key}` ({address}) cannot be bound: {source}")?,
        }
        match free {
            Some(free) => write!(f, "; port {free} is free, so `{key}` could name that one"),
            None => Ok(()),
        }
    }
}

/// Binds TCP listeners for one key of the configuration; names are looked up, `[::]` takes IPv4 too.
///
/// # Errors
/// [`PortError`] for the first that cannot be bound, with another port that is free.
pub(super) async fn bind(key: &'static str, listens: &[Listen]) -> Result<Vec<TcpListener>, PortError> {
    let mut listeners = Vec::new();
    for listen in listens {
        let fail = |source, free| PortError { key, address: listen.to_string(), source, free };
        let addresses = listen.resolve().await.map_err(|error| fail(error, None))?;
        for address in addresses {
            let listener = bind_one(address, listen.is_dual_stack())
                .and_then(TcpListener::from_std)
                .map_err(|error| fail(error, free_port(address)))?;
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, dual_stack: bool) -> io::Result<StdListener> {
    match bind_socket(address, dual_stack) {
        // No IPv6 in this kernel: what is left of "all addresses" is IPv4.
        Err(error) if dual_stack && error.raw_os_error() == Some(AFNOSUPPORT) => {
            bind_socket(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), false)
        }
        bound => bound,
    }
}

/// `EAFNOSUPPORT` on Linux.
const AFNOSUPPORT: i32 = 97;

fn bind_socket(address: SocketAddr, dual_stack: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Restarting must not wait for the connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A port near that one, free at the same address.
fn free_port(taken: SocketAddr) -> Option<u16> {
    // Below 1024 the next ones are as forbidden as this one.
    let from = if taken.port() < 1024 { 8080 } else { taken.port().checked_add(1)? };
    let candidates = (from..=from.saturating_add(200)).filter(|port| !SPOKEN_FOR.contains(port));
    let any = match taken.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        IpAddr::V6(_) | IpAddr::V4(_) => false,
    };
    candidates.into_iter().find(|&port| bind_one(SocketAddr::new(taken.ip(), port), any).is_ok())
}

/// The addresses really bound.
pub(super) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        Listen::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_a_free_one() {
        let first = bind("rtsp: listen", &[listen("127.0.0.1:0")]).await.unwrap();
        let address = first[0].local_addr().unwrap();
        let error = bind("rtsp: listen", &[listen(&address.to_string())]).await.unwrap_err();
        let free = error.free.unwrap();
        assert_ne!(free, address.port());
        let expected = format!(
            "port {} of `rtsp: listen` ({address}) is taken by another program; port {free} is free, so `rtsp: listen` could name that one",
            address.port()
        );
        assert_eq!(error.to_string(), expected);
        bind("rtsp: listen", &[listen(&format!("127.0.0.1:{free}"))]).await.unwrap();
    }

    #[test]
    fn the_usual_suspects_are_named() {
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let error = PortError { key: "rtsp: listen", address: "0.0.0.0:8554".into(), source, free: None };
        assert!(error.to_string().contains("Frigate's or go2rtc's"));
    }

    #[tokio::test]
    async fn the_ipv6_wildcard_takes_ipv4_too_and_names_are_looked_up() {
        let listeners = bind("http: listen", &[listen("[::]:0"), listen("localhost:0")]).await.unwrap();
        assert!(listeners.len() >= 2);
        let port = listeners[0].local_addr().unwrap().port();
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (_, peer) = listeners[0].accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), connected.local_addr().unwrap().ip());
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_an_error() {
        let error = bind("http: listen", &[listen("192.0.2.1:0")]).await.unwrap_err();
        assert!(error.to_string().contains("this machine has no such address"), "{error}");
    }
}
