//! One connection to a camera, requests on it one after the other, and who we are.

use super::error::{Camera, Cause, explain};
use super::{Config, tls};
use crate::bus::{Upstream, UpstreamPermit};
use crate::ingest::AdapterError;
use crate::ingest::rtsp::Patience;
use bytes::Bytes;
use http_auth::{PasswordClient, PasswordParams};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};

/// How often a camera may lead us elsewhere for one picture.
const MOST_REDIRECTS: usize = 4;
/// What is read of an answer that says no, so that the connection can go on.
const MOST_OF_A_REFUSAL: usize = 64 << 10;

/// Asks one camera.
pub(super) struct Client {
    camera: Camera,
    url: Url,
    login: Option<(String, String)>,
    patience: Patience,
    tls: Arc<rustls::ClientConfig>,
    upstream: Upstream,
    connection: Option<Connection>,
    /// Answers the camera's last challenge; a nonce is used again until the camera wants another.
    challenge: Option<PasswordClient>,
}

/// An open connection. Dropping it closes it, and gives its place back then.
struct Connection {
    origin: Origin,
    sender: SendRequest<Empty<Bytes>>,
    _task: AbortOnDropHandle<()>,
    /// Answers that came over it.
    answers: usize,
}

type Origin = (String, Option<String>, Option<u16>);

fn origin(url: &Url) -> Origin {
    (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default())
}

/// Whether what answers at `url` is what the configuration means by `own`: scheme, host and port are the same (another
/// port may be anybody's), or it is the same host's HTTPS instead of its HTTP, each at its usual port.
fn same_camera(own: &Url, url: &Url) -> bool {
    let usual = |url: &Url, scheme| url.scheme() == scheme && url.port().is_none();
    origin(url) == origin(own) || (url.host() == own.host() && usual(own, "http") && usual(url, "https"))
}

/// An address in a message: no path and no query, which may hold secrets.
fn place(url: &Url) -> String {
    let (scheme, host, port) = origin(url);
    super::shortened(&format!("{scheme}://{}:{}", host.unwrap_or_default(), port.unwrap_or_default()))
}

impl Client {
    pub(super) fn new(config: &Config, patience: Patience, upstream: Upstream) -> Result<Self, AdapterError> {
        let url = config.url.clone();
        let host = url.host_str().unwrap_or_default();
        let camera = Camera {
            address: format!("{host}:{}", url.port_or_known_default().unwrap_or(80)),
            path: url.path().to_owned(),
            login: config.username.is_some(),
        };
        let login = config.username.clone().map(|name| {
            let password = config.password.as_ref().map(|password| password.reveal().to_owned());
            (name, password.unwrap_or_default())
        });
        let tls = tls::config(config.fingerprint).map_err(|error| explain(&camera, Cause::Tls(error.to_string())))?;
        Ok(Self { camera, url, login, patience, tls, upstream, connection: None, challenge: None })
    }

    pub(super) fn camera(&self) -> &Camera {
        &self.camera
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// The camera's answer to a request for its pictures: 200, or 304 where `conditions` allow that.
    pub(super) async fn get(&mut self, conditions: &HeaderMap) -> Result<Response<Incoming>, Cause> {
        let (mut url, mut redirects, mut challenged) = (self.url.clone(), 0, false);
        loop {
            let response = self.ask(&url, conditions).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED if self.login.is_some() && self.may_know_us(&url) => {
                    let (known, stale) = (self.challenge.is_some(), stale(response.headers()));
                    // A second refusal in a row is meant; one after pictures came may be a nonce that is too old.
                    if challenged && !stale {
                        return Err(Cause::Status(401));
                    }
                    tracing::debug!(known, stale, "the camera asks who we are");
                    self.challenge = Some(challenge(response.headers()).ok_or(Cause::StrangeLogin)?);
                    challenged = true;
                    self.finish(response).await;
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    redirects += 1;
                    let target = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                    let target = target.and_then(|target| url.join(target).ok());
                    let target = target
                        .filter(|target| matches!(target.scheme(), "http" | "https") && target.host_str().is_some());
                    url = target.filter(|_| redirects <= MOST_REDIRECTS).ok_or(Cause::Redirects)?;
                    self.finish(response).await;
                }
                StatusCode::OK | StatusCode::NOT_MODIFIED => return Ok(response),
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) if !self.may_know_us(&url) => {
                    return Err(Cause::LoginElsewhere(place(&url), status.as_u16()));
                }
                status => return Err(Cause::Status(status.as_u16())),
            }
        }
    }

    /// Whether the login may be shown there.
    fn may_know_us(&self, url: &Url) -> bool {
        same_camera(&self.url, url)
    }

    /// One request and the head of its answer.
    async fn ask(&mut self, url: &Url, conditions: &HeaderMap) -> Result<Response<Incoming>, Cause> {
        loop {
            let used = self.connect(url).await?;
            let request = self.request(url, conditions)?;
            let Some(connection) = &mut self.connection else { return Err(Cause::Lost) };
            let answer = tokio::time::timeout(self.patience.answer, connection.sender.send_request(request)).await;
            match answer {
                Ok(Ok(response)) => {
                    connection.answers += 1;
                    return Ok(response);
                }
                Ok(Err(error)) => {
                    self.close();
                    tracing::debug!(%error, used, "a request failed");
                    // The camera closed an idle connection while we asked.
                    if !used {
                        return Err(if error.is_parse() { Cause::NotHttp } else { Cause::Lost });
                    }
                }
                Err(_) => {
                    self.close();
                    return Err(Cause::NoAnswer(self.patience.answer));
                }
            }
        }
    }

    /// Sees to a connection to that host, and says whether it was used before.
    async fn connect(&mut self, url: &Url) -> Result<bool, Cause> {
        let wanted = origin(url);
        if let Some(connection) = &mut self.connection
            && connection.origin == wanted
            && !connection.sender.is_closed()
            && tokio::time::timeout(self.patience.answer, connection.sender.ready())
                .await
                .is_ok_and(|ready| ready.is_ok())
        {
            return Ok(connection.answers > 0);
        }
        self.close();
        let permit = self.upstream.acquire().await;
        let host = url.host().ok_or_else(|| Cause::Connect("the address has no host".into()))?;
        let port = url.port_or_known_default().unwrap_or(80);
        let limit = self.patience.connect;
        let connecting = async {
            match &host {
                Host::Domain(name) => TcpStream::connect((*name, port)).await,
                Host::Ipv4(ip) => TcpStream::connect((*ip, port)).await,
                Host::Ipv6(ip) => TcpStream::connect((*ip, port)).await,
            }
        };
        let socket = tokio::time::timeout(limit, connecting).await.map_err(|_| Cause::ConnectTimeout(limit))?;
        let socket = socket.map_err(|error| Cause::Connect(error.to_string()))?;
        // An error here is one that the first request shows, too.
        let _ = socket.set_nodelay(true);
        let (sender, task) = if url.scheme() == "https" {
            let name = match &host {
                Host::Domain(name) => {
                    ServerName::try_from((*name).to_owned()).map_err(|error| Cause::Tls(error.to_string()))?
                }
                Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
                Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
            };
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let shaken = tokio::time::timeout(limit, connector.connect(name, socket)).await;
            let stream = shaken.map_err(|_| Cause::ConnectTimeout(limit))?.map_err(|error| {
                let text = error.to_string();
                let ours = rustls::CertificateError::ApplicationVerificationFailure;
                let other = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                match other {
                    Some(rustls::Error::InvalidCertificate(why)) if *why == ours => Cause::OtherCertificate,
                    _ => Cause::Tls(text),
                }
            })?;
            handshake(stream, permit).await?
        } else {
            handshake(socket, permit).await?
        };
        self.connection = Some(Connection { origin: wanted, sender, _task: task, answers: 0 });
        Ok(false)
    }

    fn request(&mut self, url: &Url, conditions: &HeaderMap) -> Result<Request<Empty<Bytes>>, Cause> {
        let uri = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let mut request = Request::get(&uri)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("Fanlight/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "multipart/x-mixed-replace, image/jpeg, */*;q=0.5")
            .header(header::ACCEPT_ENCODING, "identity");
        if self.may_know_us(url)
            && let (Some((username, password)), Some(challenge)) = (&self.login, &mut self.challenge)
        {
            let params = PasswordParams { username, password, uri: &uri, method: "GET", body: Some(&[]) };
            let answer = challenge.respond(&params).ok().and_then(|answer| HeaderValue::try_from(answer).ok());
            let mut answer = answer.ok_or(Cause::StrangeLogin)?;
            answer.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, answer);
        }
        let unusable = |_| Cause::Connect("its address cannot be asked for".into());
        let mut request = request.body(Empty::new()).map_err(unusable)?;
        request.headers_mut().extend(conditions.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(request)
    }

    /// Reads an answer to its end, so that the connection can be used again; a long one ends the connection.
    pub(super) async fn finish(&mut self, response: Response<Incoming>) {
        let rest = Limited::new(response.into_body(), MOST_OF_A_REFUSAL).collect();
        if !tokio::time::timeout(self.patience.answer, rest).await.is_ok_and(|rest| rest.is_ok()) {
            self.close();
        }
    }
}

/// Begins to talk HTTP. The place among the connections is given back when the connection is closed.
async fn handshake<S>(
    stream: S,
    permit: UpstreamPermit,
) -> Result<(SendRequest<Empty<Bytes>>, AbortOnDropHandle<()>), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    // Cameras write headers as they like.
    builder
        .title_case_headers(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .max_headers(64);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Cause::Lost)?;
    let task = tokio::spawn(async move {
        let result = connection.await;
        drop(permit);
        if let Err(error) = result {
            tracing::debug!(%error, "the connection to the camera ended");
        }
    });
    Ok((sender, AbortOnDropHandle::new(task)))
}

/// The best challenge of an answer, which is Digest before Basic.
fn challenge(headers: &HeaderMap) -> Option<PasswordClient> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.fold(PasswordClient::builder(), |builder, value| builder.challenges(value)).build().ok()
}

/// Whether the login was right and only the nonce too old (RFC 7616 section 3.3).
fn stale(headers: &HeaderMap) -> bool {
    let is = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        value.replace([' ', '"'], "").contains("stale=true")
    };
    headers.get_all(header::WWW_AUTHENTICATE).iter().any(is)
}

/// What makes the next answer say only whether there is a newer picture than this one (RFC 9110 section 13).
pub(super) fn conditions(headers: &HeaderMap) -> HeaderMap {
    let pairs: [(HeaderName, HeaderName); 2] =
        [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
    pairs.into_iter().filter_map(|(told, asked)| Some((asked, headers.get(told)?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_for_one_origin() {
        let knows = |own: &str, url: &str| same_camera(&Url::parse(own).unwrap(), &Url::parse(url).unwrap());
        for (own, url) in [
            ("http://cam/a", "http://cam:80/b"),
            ("http://cam:8080/a", "http://cam:8080/b"),
            ("https://cam/a", "https://cam:443/b"),
            ("http://cam/a", "https://cam/b"),
        ] {
            assert!(knows(own, url), "{own} {url}");
        }
        for (own, url) in [
            ("http://cam/", "http://cam:8080/"),
            ("http://cam:8080/", "http://cam/"),
            ("http://cam/", "http://other/"),
            ("http://cam/", "https://cam:8443/"),
            ("http://cam:8080/", "https://cam/"),
            ("http://cam/", "https://other/"),
            ("https://cam/", "http://cam/"),
            ("https://cam:8443/", "https://cam/"),
            ("https://cam/", "http://cam:443/"),
        ] {
            assert!(!knows(own, url), "{own} {url}");
        }
    }
}
