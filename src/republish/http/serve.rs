//! Connections: accepted, bounded, and closed in time.

use super::{OverTls, Peer, Site};
use crate::access::Tls;
use crate::access::crowd::Crowd;
use arc_swap::ArcSwap;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Bytes that may wait in the kernel for a slow client: pictures older than that are not worth it.
const UNSENT: u32 = 128 << 10;
/// How long a client may leave what we sent unacknowledged.
const GONE: Duration = Duration::from_secs(45);

/// What clients may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once, of this listener.
    pub connections: usize,
    /// Connections open at once from one address, unless that is a trusted proxy.
    pub per_address: usize,
    /// How long a TLS handshake may take, a request's head, and a connection may stay idle.
    pub head_time: Duration,
    /// How long requests on their way may go on after the program was asked to end.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 512, per_address: 96, head_time: Duration::from_secs(15), grace: Duration::from_secs(1) }
    }
}

/// Serves HTTP/1.1, over TLS if that is given, until cancelled: then nothing more is accepted, and each connection ends with its request, or after
/// the grace. Connections are tasks of `tasks`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    site: Arc<ArcSwap<Site>>,
    limits: Limits,
    cancel: CancellationToken,
    tasks: TaskTracker,
) {
    let free = Arc::new(Semaphore::new(limits.connections));
    let crowd = Arc::new(Crowd::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that is gone already is nothing; without file descriptors trying again at once would
                // be a busy loop.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let most = if site.load().state.trusts(peer.ip()) { usize::MAX } else { limits.per_address };
        let (Ok(permit), Some(counted)) = (Arc::clone(&free).try_acquire_owned(), crowd.count(peer.ip(), most)) else {
            tracing::debug!(%peer, "too many connections; closed");
            continue;
        };
        if let Err(error) = tune(&stream) {
            tracing::debug!(%peer, %error, "the connection was gone before it began");
            continue;
        }
        let (tls, site, limits, cancel) = (tls.clone(), Arc::clone(&site), limits.clone(), cancel.clone());
        tasks.spawn(async move {
            match tls {
                None => connection(stream, peer, false, site, limits, cancel).await,
                Some(tls) => {
                    let handshake = tokio::time::timeout(limits.head_time, handshake(&tls, stream));
                    let shaken = tokio::select! {
                        shaken = handshake => shaken,
                        () = cancel.cancelled() => return,
                    };
                    match shaken {
                        Ok(Ok(Some(stream))) => connection(stream, peer, true, site, limits, cancel).await,
                        Ok(Ok(None)) => tracing::debug!(%peer, "plain HTTP where TLS is spoken"),
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with this client"),
                        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                    }
                }
            }
            drop((permit, counted));
        });
    }
}

/// The first byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// For who forgot the `s` of `https`.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\nContent-Length: 54\r\n\r\nThis port speaks HTTPS: the address begins with https\n";

/// The stream within TLS; `None` for a client that speaks plain HTTP and was told so.
async fn handshake(tls: &Tls, mut stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
        stream.write_all(PLAIN_ANSWER).await?;
        stream.shutdown().await?;
        // What is unread when we close would take the answer back; a request's head is enough to read.
        let mut rest = [0; 4096];
        for _ in 0..4 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        return Ok(None);
    }
    tls.accept(stream).await.map(Some)
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    over_tls: bool,
    site: Arc<ArcSwap<Site>>,
    limits: Limits,
    cancel: CancellationToken,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        if over_tls {
            request.extensions_mut().insert(OverTls);
        }
        site.load().router.clone().oneshot(request.map(Body::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.grace, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

/// Answers are written whole; a client that is gone without a word is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(GONE))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(GONE).with_interval(GONE / 9).with_retries(3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Extension, Router};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    struct Running {
        address: SocketAddr,
        cancel: CancellationToken,
        tasks: TaskTracker,
    }

    /// Goes on for a while, with long pauses.
    async fn lasting() -> Body {
        let piece = |number: u32| async move {
            tokio::time::sleep(Duration::from_millis(60)).await;
            (number < 10).then_some((Ok::<_, std::convert::Infallible>("piece "), number + 1))
        };
        Body::from_stream(futures::stream::unfold(0, piece))
    }

    async fn start(limits: Limits) -> Running {
        start_with(limits, None).await
    }

    async fn start_with(limits: Limits, tls: Option<Arc<Tls>>) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let hanging = || async { std::future::pending::<()>().await };
        let router = Router::new()
            .route("/", axum::routing::get(|| async { "hello" }))
            .route("/hang", axum::routing::get(hanging))
            .route("/last", axum::routing::get(lasting))
            .route(
                "/secure",
                axum::routing::get(async |secure: Option<Extension<OverTls>>| secure.is_some().to_string()),
            );
        let site = Arc::new(ArcSwap::from_pointee(Site { router, state: crate::republish::http::tests::state() }));
        tasks.spawn(serve(listener, tls, site, limits, cancel.clone(), tasks.clone()));
        Running { address, cancel, tasks }
    }

    async fn send(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn first(stream: &mut TcpStream) -> usize {
        let mut buffer = [0; 1024];
        tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap_or(0)
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: fan\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_never_ends_is_not_waited_for() {
        let running = start(Limits { head_time: Duration::from_millis(50), ..Limits::default() }).await;
        let mut slow = send(running.address, "GET / HTTP/1.1\r\nHos").await;
        assert_eq!(first(&mut slow).await, 0);
        let mut idle = send(running.address, REQUEST).await;
        assert!(first(&mut idle).await > 0);
        assert_eq!(first(&mut idle).await, 0);
    }

    #[tokio::test]
    async fn an_answer_that_lasts_is_not_cut() {
        let running = start(Limits { head_time: Duration::from_millis(50), ..Limits::default() }).await;
        let mut lasting = send(running.address, "GET /last HTTP/1.1\r\nHost: fan\r\n\r\n").await;
        let mut text = String::new();
        // Idle after the answer, the connection is closed.
        tokio::time::timeout(Duration::from_secs(10), lasting.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_eq!((text.matches("piece ").count(), text.ends_with("0\r\n\r\n")), (10, true), "{text}");
    }

    #[tokio::test]
    async fn one_address_cannot_take_all_connections() {
        let running = start(Limits { per_address: 2, ..Limits::default() }).await;
        let mut first_two = [send(running.address, REQUEST).await, send(running.address, REQUEST).await];
        for stream in &mut first_two {
            assert!(first(stream).await > 0);
        }
        assert_eq!(first(&mut send(running.address, REQUEST).await).await, 0);
        drop(first_two);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while first(&mut send(running.address, REQUEST).await).await == 0 {
            assert!(tokio::time::Instant::now() < deadline);
        }
    }

    #[tokio::test]
    async fn ending_does_not_wait_for_a_handler_that_hangs() {
        let running = start(Limits { grace: Duration::from_millis(50), ..Limits::default() }).await;
        let mut hanging = send(running.address, "GET /hang HTTP/1.1\r\nHost: fan\r\n\r\n").await;
        let mut idle = send(running.address, REQUEST).await;
        assert!(first(&mut idle).await > 0);
        running.cancel.cancel();
        running.tasks.close();
        tokio::time::timeout(Duration::from_secs(10), running.tasks.wait()).await.unwrap();
        assert_eq!(first(&mut hanging).await, 0);
    }

    async fn start_tls(limits: Limits) -> (Running, tokio_rustls::TlsConnector) {
        let folder = tempfile::tempdir().unwrap();
        let tls = Arc::new(Tls::new(None, folder.path()).unwrap());
        let certificate = CertificateDer::from_pem_file(folder.path().join("tls/cert.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (start_with(limits, Some(tls)).await, Arc::new(config).into())
    }

    #[tokio::test]
    async fn the_same_site_is_served_over_tls() {
        let (running, connector) = start_tls(Limits::default()).await;
        let stream = TcpStream::connect(running.address).await.unwrap();
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /secure HTTP/1.1\r\nHost: fan\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\ntrue"), "{answer}");
    }

    #[tokio::test]
    async fn plain_http_on_the_tls_port_is_told() {
        let (running, _) = start_tls(Limits::default()).await;
        let mut stream = send(running.address, REQUEST).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("https"), "{answer}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    }

    #[tokio::test]
    async fn a_handshake_that_never_ends_is_not_waited_for() {
        let (running, _) = start_tls(Limits { head_time: Duration::from_millis(50), ..Limits::default() }).await;
        for begun in ["", "\u{16}\u{3}\u{1}"] {
            assert_eq!(first(&mut send(running.address, begun).await).await, 0, "{begun:?}");
        }
        let (running, _) = start_tls(Limits { per_address: 1, ..Limits::default() }).await;
        let _waiting = send(running.address, "").await;
        assert_eq!(first(&mut send(running.address, REQUEST).await).await, 0, "it counts as a connection");
        running.cancel.cancel();
        running.tasks.close();
        tokio::time::timeout(Duration::from_secs(10), running.tasks.wait()).await.unwrap();
    }
}
