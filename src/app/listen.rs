//! Binds the addresses of the configuration, and says what to do when a port is taken.

use crate::config::Listen;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, UdpSocket};
use tokio::net::TcpListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Never proposed: ours, or usually somebody else's (Frigate and go2rtc: 1984, 5000, 8554, 8555, 8971).
const SPOKEN_FOR: [u16; 11] = [1984, 5000, 8000, 8001, 8322, 8443, 8484, 8554, 8555, 8971, 39_090];

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

impl PortError {
    /// What the system said about an address of that key. Looks for another port that is free.
    pub(super) fn new(key: &'static str, address: SocketAddr, source: io::Error) -> Self {
        let free = match key {
            UDP_PORTS => free_udp_pair(address),
            WEBRTC => free_both(address),
            _ => free_port(address),
        };
        Self { key, address: address.to_string(), source, free }
    }
}

/// The key that names a pair of UDP ports.
pub(super) const UDP_PORTS: &str = "rtsp: udp_ports";
/// The key that names a port of both protocols.
pub(super) const WEBRTC: &str = "webrtc: listen";

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
                return write!(
                    f,
                    "`{key}` ({address}): this machine has no such address, so port {port} was not bound"
                );
            }
            _ => write!(f, "port {port} of `{key}` ({address}) cannot be bound: {source}")?,
        }
        match free {
            Some(free) if *key == UDP_PORTS => {
                write!(f, "; {free}-{} are free, so `{key}` could name those", free.saturating_add(1))
            }
            Some(free) => write!(f, "; port {free} is free, so `{key}` could name that one"),
            None => Ok(()),
        }
    }
}

/// The addresses of one key, names looked up.
///
/// # Errors
/// [`PortError`] for a name that has none.
pub(super) async fn resolve(key: &'static str, listens: &[Listen]) -> Result<Vec<SocketAddr>, PortError> {
    let mut addresses = Vec::new();
    for listen in listens {
        let fail = |source| PortError { key, address: listen.to_string(), source, free: None };
        addresses.extend(listen.resolve().await.map_err(fail)?);
    }
    Ok(addresses)
}

/// Binds TCP listeners for one key of the configuration; `[::]` takes IPv4 too.
///
/// # Errors
/// [`PortError`] for the first that cannot be bound, with another port that is free.
pub(super) async fn bind(key: &'static str, listens: &[Listen]) -> Result<Vec<TcpListener>, PortError> {
    let bind = |address| {
        let listener = bind_one(address).and_then(TcpListener::from_std);
        listener.map_err(|error| PortError::new(key, address, error))
    };
    resolve(key, listens).await?.into_iter().map(bind).collect()
}

/// `EAFNOSUPPORT` on Linux.
const AFNOSUPPORT: i32 = 97;

fn bind_one(address: SocketAddr) -> io::Result<StdListener> {
    match bind_socket(address) {
        // No IPv6 in this kernel: what is left of "all addresses" is IPv4.
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.raw_os_error() == Some(AFNOSUPPORT) => {
            bind_socket(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        bound => bound,
    }
}

fn bind_socket(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Restarting must not wait for the connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A port near that one, free at the same address.
fn free_port(taken: SocketAddr) -> Option<u16> {
    // Below 1024 the next ones are as forbidden as this one.
    let from = if taken.port() < 1024 { 8080 } else { taken.port().checked_add(1)? };
    let mut candidates = (from..=from.saturating_add(200)).filter(|port| !SPOKEN_FOR.contains(port));
    candidates.find(|&port| bind_one(SocketAddr::new(taken.ip(), port)).is_ok())
}

/// The same for a port that is free in UDP too.
fn free_both(taken: SocketAddr) -> Option<u16> {
    let from = if taken.port() < 1024 { 8080 } else { taken.port().checked_add(1)? };
    let mut candidates = (from..=from.saturating_add(200)).filter(|port| !SPOKEN_FOR.contains(port));
    candidates.find(|&port| {
        let address = SocketAddr::new(taken.ip(), port);
        bind_one(address).is_ok() && UdpSocket::bind(address).is_ok()
    })
}

/// An even UDP port that is free together with its successor (RFC 3550 section 11).
fn free_udp_pair(taken: SocketAddr) -> Option<u16> {
    let free = |port| UdpSocket::bind(SocketAddr::new(taken.ip(), port)).is_ok();
    let from = taken.port().max(1024).next_multiple_of(2);
    let mut candidates = (from..=from.saturating_add(200)).step_by(2).filter(|port| !SPOKEN_FOR.contains(port));
    candidates.find(|&port| free(port) && port.checked_add(1).is_some_and(free))
}

/// Binds UDP sockets for one key of the configuration.
///
/// # Errors
/// As [`bind`].
pub(super) async fn bind_udp(key: &'static str, listens: &[Listen]) -> Result<Vec<tokio::net::UdpSocket>, PortError> {
    let bind = |address: SocketAddr| {
        let bound = UdpSocket::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            tokio::net::UdpSocket::from_std(socket)
        });
        bound.map_err(|error| PortError { free: None, ..PortError::new(key, address, error) })
    };
    resolve(key, listens).await?.into_iter().map(bind).collect()
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
