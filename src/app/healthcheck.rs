//! `fanlight healthcheck`: asks the running gateway whether it is ready, as a container does every half minute.

use crate::access;
use crate::config::{Config, Host, Listen};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the gateway does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The configuration names no port that could be asked.
    #[error("neither `http: listen` nor `https: listen` names a fixed port, so there is nothing to ask")]
    NoPort,
    /// Nothing answers.
    #[error("no answer from {address}: {source}")]
    Silent {
        /// Where it was expected.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// It answers that it is not ready, or something else answers there.
    #[error("{address} answers {status:?}")]
    NotReady {
        /// Who answered.
        address: String,
        /// The status line.
        status: String,
    },
}

/// Asks `/readyz` at the first address of `http: listen`, or where that has no fixed port, of `https: listen`. No password is sent: a gateway that is not ready says so to
/// everybody, and one that asks for a password, or for patience after wrong ones, is ready.
///
/// # Errors
/// [`Unhealthy`] says what came instead.
pub fn check(config: &Config) -> Result<(), Unhealthy> {
    let fixed = |listens: &'_ [Listen]| listens.iter().find(|listen| listen.port != 0).cloned();
    let secure = || config.https.as_ref().and_then(|https| fixed(&https.listen));
    let (listen, tls) = match fixed(&config.http.listen) {
        Some(listen) => (listen, false),
        None => (secure().ok_or(Unhealthy::NoPort)?, true),
    };
    let address = listen.to_string();
    let silent = |source| Unhealthy::Silent { address: address.clone(), source };
    let status = ask(&listen, tls).map_err(silent)?;
    let code = status.split(' ').nth(1).unwrap_or_default();
    if status.starts_with("HTTP/1.") && matches!(code, "200" | "401" | "429") {
        return Ok(());
    }
    Err(Unhealthy::NotReady { address, status })
}

fn ask(listen: &Listen, tls: bool) -> io::Result<String> {
    let stream = connect(listen)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if tls { exchange(access::blind_tls(stream)?) } else { exchange(stream) }
}

/// Asks, and answers the status line.
fn exchange(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 256];
    let mut length = 0;
    while let Some(rest) = answer.get_mut(length..)
        && !rest.is_empty()
    {
        match stream.read(rest)? {
            0 => break,
            read => length += read,
        }
        if answer.contains(&b'\n') {
            break;
        }
    }
    let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Connects as this machine would: without users, only loopback is listened on, whatever the configuration names.
fn connect(listen: &Listen) -> io::Result<TcpStream> {
    let here: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let named: Vec<SocketAddr> = match &listen.host {
        Host::Ip(ip) if ip.is_unspecified() => Vec::new(),
        Host::Ip(ip) => vec![SocketAddr::new(*ip, listen.port)],
        Host::Name(name) => (name.as_str(), listen.port).to_socket_addrs()?.collect(),
    };
    let here = here.map(|ip| SocketAddr::new(ip, listen.port));
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in named.into_iter().chain(here) {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered(answer: &'static str) -> Result<(), Unhealthy> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.http.listen = vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), listener.local_addr().unwrap().port())];
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = check(&config);
        server.join().unwrap();
        result
    }

    #[test]
    fn ready_is_what_answers_and_does_not_deny_it() {
        answered("HTTP/1.1 200 OK\r\n\r\n").unwrap();
        answered("HTTP/1.1 401 Unauthorized\r\n\r\n").unwrap();
        for not in
            ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 404 Not Found\r\n\r\n", "RTSP/1.0 200 OK\r\n", ""]
        {
            assert!(matches!(answered(not), Err(Unhealthy::NotReady { .. })), "{not}");
        }
    }

    #[tokio::test]
    async fn https_is_asked_where_http_has_no_fixed_port() {
        let folder = tempfile::tempdir().unwrap();
        let tls = access::Tls::new(None, folder.path()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::default();
        let listen = Listen::new(Ipv4Addr::UNSPECIFIED.into(), listener.local_addr().unwrap().port());
        config.http.listen = vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), 0)];
        config.https = Some(crate::config::Https { listen: vec![listen], certificate: None });
        let asking = tokio::task::spawn_blocking(move || check(&config));
        let mut stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        asking.await.unwrap().unwrap();
    }

    #[test]
    fn nobody_there_is_unhealthy() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = Config::default();
        config.http.listen = vec![Listen::new(Ipv4Addr::LOCALHOST.into(), port)];
        assert!(matches!(check(&config), Err(Unhealthy::Silent { .. })));
        config.http.listen = vec![Listen::new(Ipv4Addr::LOCALHOST.into(), 0)];
        assert!(matches!(check(&config), Err(Unhealthy::NoPort)));
    }
}
