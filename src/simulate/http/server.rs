//! Connections, requests, and what is answered.

use super::login::{Guard, Verdict};
use super::{Counters, Options, SimulateError};
use crate::ingest::http::Fingerprint;
use crate::simulate::iwfcam::Scene;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use futures::stream;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

const ANNOUNCED: &str = "frame";

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    options: Options,
    scene: Scene,
    guard: Option<Guard>,
    began: Instant,
    pub(super) counters: watch::Sender<Counters>,
}

impl Shared {
    pub(super) fn new(options: Options, scene: Scene) -> Self {
        let guard = options.login.clone().map(Guard::new);
        Self { options, scene, guard, began: Instant::now(), counters: watch::Sender::default() }
    }

    fn count(&self, what: impl FnOnce(&mut Counters)) {
        self.counters.send_modify(what);
    }

    /// The number of the picture of the moment, from 0.
    fn number(&self) -> u64 {
        (self.began.elapsed().as_secs_f64() * self.options.fps) as u64
    }
}

/// A self-made certificate for that address.
pub(super) fn tls(listen: SocketAddr) -> Result<(TlsAcceptor, Fingerprint), SimulateError> {
    let broken = |error: String| SimulateError::System(io::Error::other(error));
    let made = rcgen::generate_simple_self_signed(vec![listen.ip().to_string()]).map_err(|e| broken(e.to_string()))?;
    let certificate = made.cert.der().clone();
    let fingerprint = Fingerprint::of(&certificate);
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|error| broken(error.to_owned()))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .map_err(|error| broken(error.to_string()))?;
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint))
}

/// Counts while it lives.
struct Open(Arc<Shared>, fn(&mut Counters));

impl Open {
    fn new(shared: &Arc<Shared>, come: fn(&mut Counters), go: fn(&mut Counters)) -> Self {
        shared.count(come);
        Self(Arc::clone(shared), go)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(self.1);
    }
}

/// Serves until it is dropped, and all connections with it.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let come = |counters: &mut Counters| {
                    counters.connections += 1;
                    counters.open += 1;
                };
                let open = Open::new(&shared, come, |counters| counters.open -= 1);
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    let _open = open;
                    match tls {
                        Some(tls) => match tls.accept(socket).await {
                            Ok(stream) => talk(stream, shared).await,
                            Err(error) => tracing::debug!(%error, "no TLS"),
                        },
                        None => talk(socket, shared).await,
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, shared).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = status;
    response
}

async fn answer(request: Request<hyper::body::Incoming>, shared: Arc<Shared>) -> Response<Body> {
    let come = |counters: &mut Counters| {
        counters.requests += 1;
        counters.busy += 1;
        counters.most_busy = counters.most_busy.max(counters.busy);
    };
    let busy = Open::new(&shared, come, |counters| counters.busy -= 1);
    let faults = &shared.options.faults;
    if let Some(status) = faults.status {
        return plain(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if authorization.is_some() {
        shared.count(|counters| counters.logins += 1);
    }
    if let Some(guard) = &shared.guard
        && let Verdict::Refused(challenge) = guard.judge(authorization, uri)
    {
        shared.count(|counters| counters.refused += 1);
        let mut response = plain(StatusCode::UNAUTHORIZED);
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        return response;
    }
    match request.uri().path() {
        "/video" => {
            let most = shared.options.max_clients.unwrap_or(usize::MAX);
            // This request counts, too.
            if shared.counters.borrow().busy > most as u64 {
                return plain(StatusCode::SERVICE_UNAVAILABLE);
            }
            video(shared, busy)
        }
        "/snapshot.jpg" => {
            if let Some(slow) = faults.slow {
                tokio::time::sleep(slow).await;
            }
            still(&shared, request.headers())
        }
        "/moved" => {
            let mut response = plain(StatusCode::FOUND);
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/video"));
            response
        }
        "/" => {
            let page = "<!doctype html><title>Camera</title><img src=\"video\">";
            let mut response = Response::new(Body::from(page));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            response
        }
        _ => plain(StatusCode::NOT_FOUND),
    }
}

/// The picture of that number, as far as it is not missing.
fn picture(shared: &Shared, number: u64) -> Bytes {
    let mut picture = shared.scene.picture(number);
    if shared.options.faults.truncate_every.is_some_and(|every| number % every.max(1) == every.max(1) - 1) {
        picture.truncate(picture.len() / 2);
    }
    picture.into()
}

fn still(shared: &Shared, headers: &HeaderMap) -> Response<Body> {
    let number = shared.number();
    let tag = format!("\"{number}\"");
    let has = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(tag.as_str());
    let faults = &shared.options.faults;
    let mut response = if has && !faults.no_etag {
        shared.count(|counters| counters.unchanged += 1);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        shared.count(|counters| counters.pictures += 1);
        let mut response = Response::new(Body::from(picture(shared, number)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
        response
    };
    if let (Ok(tag), false) = (HeaderValue::try_from(tag), faults.no_etag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if faults.close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

struct Stream {
    shared: Arc<Shared>,
    next: Option<u64>,
    began: Instant,
    cut: bool,
    _busy: Open,
}

fn video(shared: Arc<Shared>, busy: Open) -> Response<Body> {
    shared.count(|counters| counters.streams += 1);
    let stream = Stream { shared, next: None, began: Instant::now(), cut: false, _busy: busy };
    let body = stream::unfold(stream, |mut stream| async {
        let part = stream.part().await;
        Some((part, stream))
    });
    let mut response = Response::new(Body::from_stream(body));
    let kind = format!("multipart/x-mixed-replace; boundary={ANNOUNCED}");
    if let Ok(kind) = HeaderValue::try_from(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

impl Stream {
    /// The next part, when it is due.
    async fn part(&mut self) -> io::Result<Bytes> {
        let (shared, faults) = (Arc::clone(&self.shared), self.shared.options.faults.clone());
        if self.cut {
            return Err(io::Error::other("as it was asked for"));
        }
        let number = self.next.unwrap_or_else(|| shared.number());
        tokio::time::sleep_until(shared.began + Duration::from_secs_f64(number as f64 / shared.options.fps)).await;
        self.next = Some((number + 1).max(shared.number()));
        let since = self.began.elapsed();
        if faults.stall_after.is_some_and(|after| since >= after) {
            return std::future::pending().await;
        }
        let picture = picture(&shared, number);
        let boundary = if faults.wrong_boundary { "another" } else { ANNOUNCED };
        let end = if faults.lf_only { "\n" } else { "\r\n" };
        let mut head = format!("--{boundary}{end}Content-Type: image/jpeg{end}");
        if !faults.no_length {
            head += &format!("Content-Length: {}{end}", picture.len());
        }
        head += end;
        let mut part = [head.as_bytes(), &picture, end.as_bytes()].concat();
        if faults.close_after.is_some_and(|after| since >= after) {
            self.cut = true;
            part.truncate(head.len() + picture.len() / 2);
        } else {
            shared.count(|counters| counters.pictures += 1);
        }
        Ok(part.into())
    }
}
