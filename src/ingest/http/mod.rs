//! Cameras that serve JPEG by HTTP: multipart MJPEG, or one picture at a time. The camera's answer decides.
//!
//! | answer | what is done |
//! |--------|--------------|
//! | `multipart/…` | read as it comes; 15 s without a picture end it |
//! | a picture | asked for again each `every`, one request at a time, from start to start; a picture that has not changed (304, or the same bytes) is not published twice |
//! | anything else | [`ReasonCode::Unsupported`](crate::bus::ReasonCode::Unsupported), in words |
//!
//! Both are a [`Still`]: whatever the camera's pace, its stream can be opened at any time and has a unit at least each
//! second while somebody watches. A picture's time is that of its arrival.
//!
//! Login: Basic and Digest as the camera asks for; never shown at another host or port that the camera leads to, nor
//! without TLS where the configuration says `https`. Certificates: [`Config::fingerprint`].

mod client;
mod config;
mod error;
pub mod multipart;
mod tls;

pub use config::Config;
pub use tls::Fingerprint;

use super::rtsp::Patience;
use super::{Adapter, AdapterError, DeviceIo, Still};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use client::Client;
use error::{Cause, explain};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use multipart::Multipart;
use std::time::Duration;
use tokio::time::Instant;

/// The largest picture that is read.
const LARGEST: usize = 16 << 20;
/// So many pictures in a row that do not decode end a session.
const MOST_BROKEN: u32 = 30;
/// And so many if none has decoded before: until the session ends, the reason of the one before is what people read.
const MOST_BROKEN_AT_FIRST: u32 = 5;
/// A camera may be silent for so many times as long as one that speaks RTSP: some send a picture every few seconds.
const SLOW: u32 = 3;

/// Runs a camera that serves JPEG by HTTP.
#[derive(Debug)]
pub struct Http {
    config: Config,
    patience: Patience,
}

impl Http {
    /// For that camera.
    pub fn new(config: &Config, patience: Patience) -> Self {
        Self { config: config.clone(), patience }
    }

    /// Without a picture for so long a camera is gone.
    fn silence(&self) -> Duration {
        self.patience.silence * SLOW
    }

    async fn session(&self, io: &DeviceIo) -> Result<(), AdapterError> {
        let mut client = Client::new(&self.config, self.patience, io.device.upstream().clone())?;
        let result = self.talk(io, &mut client).await;
        result.map_err(|cause| explain(client.camera(), cause))
    }

    async fn talk(&self, io: &DeviceIo, client: &mut Client) -> Result<(), Cause> {
        let response = client.get(&HeaderMap::new()).await?;
        let kind = media_type(response.headers());
        let lower = kind.to_ascii_lowercase();
        let mut shown = Shown::new(io);
        if lower.starts_with("multipart/") {
            return self.pull(&mut shown, &kind, response.into_body()).await;
        }
        // Some cameras say nothing or `application/octet-stream` of their pictures.
        if !lower.is_empty() && !lower.starts_with("image/") && !lower.starts_with("application/octet-stream") {
            return Err(Cause::Type(shortened(&kind)));
        }
        self.poll(&mut shown, client, response).await
    }

    /// Reads a stream of pictures to its end.
    async fn pull(&self, shown: &mut Shown<'_>, kind: &str, mut body: Incoming) -> Result<(), Cause> {
        let mut parts = Multipart::new(kind, LARGEST);
        let mut heard = Instant::now();
        loop {
            let silent = heard + self.silence();
            let frame = tokio::select! {
                frame = tokio::time::timeout_at(silent, body.frame()) => frame,
                never = shown.still.repeat() => match never {},
            };
            match frame {
                Err(_) => return Err(Cause::Silent(self.silence())),
                Ok(None) => {
                    if let Some(picture) = parts.finish() {
                        shown.show(picture)?;
                    }
                    return Err(Cause::Ended);
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "the stream broke");
                    return Err(Cause::Ended);
                }
                Ok(Some(Ok(frame))) => {
                    let Ok::<Bytes, _>(bytes) = frame.into_data() else { continue };
                    parts.push(&bytes);
                    while let Some(picture) = parts.next_picture().map_err(|error| Cause::Broken(error.to_string()))? {
                        heard = Instant::now();
                        shown.show(picture)?;
                    }
                    if parts.is_done() {
                        return Err(Cause::Ended);
                    }
                }
            }
        }
    }

    /// Shows that picture and those that follow it, one at a time.
    async fn poll(&self, shown: &mut Shown<'_>, client: &mut Client, first: Response<Incoming>) -> Result<(), Cause> {
        let mut response = Some(first);
        let (mut known, mut newest) = (HeaderMap::new(), Bytes::new());
        loop {
            let begun = Instant::now();
            let fetch = async {
                let response = match response.take() {
                    Some(response) => response,
                    None => client.get(&known).await?,
                };
                if response.status() == StatusCode::NOT_MODIFIED {
                    client.finish(response).await;
                    return Ok(None);
                }
                let (known, kind) = (client::conditions(response.headers()), media_type(response.headers()));
                let body = tokio::time::timeout(self.silence(), whole(response.into_body())).await;
                Ok(Some((known, kind, body.map_err(|_| Cause::Silent(self.silence()))??)))
            };
            let fetched: Result<_, Cause> = tokio::select! {
                fetched = fetch => fetched,
                never = shown.still.repeat() => match never {},
            };
            if let Some((conditions, kind, picture)) = fetched? {
                // A camera that has lost our login may show a page from now on.
                if kind.to_ascii_lowercase().starts_with("text/") {
                    return Err(Cause::Type(shortened(&kind)));
                }
                // What is of no use is asked for again, and counts again if it comes again.
                if picture != newest && shown.show(picture.clone())? {
                    (known, newest) = (conditions, picture);
                }
            }
            // A camera that needs longer than that for a picture is left a moment for others.
            // One that has sent nothing of use yet is not waited for: it is to be known soon what is wrong.
            let every = if shown.any { self.config.every } else { self.config.every.min(config::EVERY) };
            let next = (begun + every).max(Instant::now() + every / 10);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                never = shown.still.repeat() => match never {},
            }
        }
    }
}

#[async_trait]
impl Adapter for Http {
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        tokio::select! {
            biased;
            () = io.cancel.cancelled() => Ok(()),
            result = self.session(&io) => result,
        }
    }
}

/// The camera's pictures on their way to the bus.
struct Shown<'a> {
    io: &'a DeviceIo,
    still: Still,
    /// So many did not decode since one did.
    broken: u32,
    /// One did.
    any: bool,
}

impl<'a> Shown<'a> {
    fn new(io: &'a DeviceIo) -> Self {
        Self { io, still: Still::blank(io), broken: 0, any: false }
    }

    /// Whether it could be shown.
    fn show(&mut self, picture: Bytes) -> Result<bool, Cause> {
        match self.still.show(picture) {
            Ok(_) => {
                (self.broken, self.any) = (0, true);
                self.io.playing.send_if_modified(|playing| !std::mem::replace(playing, true));
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(%error, "a picture of the camera cannot be used");
                self.broken += 1;
                let most = if self.any { MOST_BROKEN } else { MOST_BROKEN_AT_FIRST };
                if self.broken < most { Ok(false) } else { Err(Cause::Broken(error.to_string())) }
            }
        }
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim().to_owned()
}

/// What a message may quote of what the camera says.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// A whole picture, if it is not too large for one.
async fn whole(mut body: Incoming) -> Result<Bytes, Cause> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Cause::Broken("a picture was cut off".into()))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > LARGEST {
                return Err(Cause::Broken(format!("a picture is larger than {LARGEST} bytes")));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests;
