//! From nothing to PLAY.

use super::error::{Camera, Cause, Stage, explain};
use super::track::Track;
use super::{Config, Rtsp, Transport};
use crate::bus::ReasonCode;
use crate::ingest::AdapterError;
use percent_encoding::percent_decode_str;
use retina::client::{
    Credentials, Demuxed, Described, InitialSequenceNumberPolicy, InitialTimestampPolicy, PlayOptions, Session,
    SessionGroup, SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, UdpTransportOptions,
};
use retina::codec::{FrameFormat, ParameterSetInsertion, aac, h26x};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use url::{Host, Url};

/// One way of carrying media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Tcp,
    Udp,
}

impl Carrier {
    fn other(self) -> Self {
        match self {
            Self::Tcp => Self::Udp,
            Self::Udp => Self::Tcp,
        }
    }
}

/// A camera that plays.
pub(super) struct Opened {
    pub(super) session: Demuxed,
    /// Video first.
    pub(super) tracks: Vec<Track>,
}

/// The form in which retina hands over media. Parameter sets are put before random access units here and not there:
/// retina knows only IDR pictures, and would put them before an access unit delimiter.
const FORMAT: FrameFormat = FrameFormat {
    h26x_framing: h26x::Framing::AnnexB,
    parameter_set_insertion: ParameterSetInsertion::Never,
    aac_framing: aac::Framing::Raw,
};

/// The URL without user name and password, and the credentials: those of the configuration, else those of the URL.
pub(super) fn split_credentials(url: &Url, config: &Config) -> (Url, Option<Credentials>) {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let from_url = (!url.username().is_empty()).then(|| decoded(url.username()));
    let username = config.username.clone().or(from_url);
    let password = config.password.as_ref().map(|password| password.reveal().to_owned());
    let password = password.or_else(|| url.password().map(decoded)).unwrap_or_default();
    let mut clean = url.clone();
    // Both fail only for URLs without a host, which have no user either.
    let _ = clean.set_username("").and_then(|()| clean.set_password(None));
    (clean, username.map(|username| Credentials { username, password }))
}

/// The path for messages. Some vendors want the password in it (`/user=admin_password=…`, XMEye).
fn shown_path(url: &Url) -> String {
    let path = url.path();
    let lower = path.to_ascii_lowercase();
    if ["pass", "pwd", "token"].iter().any(|word| lower.contains(word)) { "***".to_owned() } else { path.to_owned() }
}

impl Rtsp {
    /// What messages may say of the camera.
    pub(super) fn camera(&self) -> Camera {
        let host = self.url.host().map(|host| host.to_string()).unwrap_or_default();
        Camera {
            address: format!("{host}:{}", self.url.port().unwrap_or(554)),
            path: shown_path(&self.url),
            credentials: self.credentials.is_some(),
        }
    }

    /// Connects and starts the first usable picture and sound tracks.
    pub(super) async fn open(&self, group: &Arc<SessionGroup>) -> Result<Opened, AdapterError> {
        if self.url.scheme() != "rtsp" {
            let text = format!("{} is not supported for cameras by this version, only rtsp", self.url.scheme());
            return Err(AdapterError::new(ReasonCode::Unsupported, text));
        }
        let options = SessionOptions::default()
            .creds(self.credentials.clone())
            .user_agent(concat!("fanlight/", env!("CARGO_PKG_VERSION")).to_owned())
            .session_group(Arc::clone(group))
            .session_id(SessionIdPolicy::UseFirst);
        let mut session = self.describe(options).await?;
        let tracks = self.choose(&session)?;
        let tracks = self.set_up(&mut session, tracks).await?;
        // A sequence number announced too high would end the session, and says nothing that the first packet does not.
        let play = PlayOptions::default()
            .initial_timestamp(InitialTimestampPolicy::Permissive)
            .initial_seq(InitialSequenceNumberPolicy::Ignore);
        let session = self.answered(Stage::Play, session.play(play)).await?;
        let session = session.demuxed().map_err(|error| explain(&self.camera(), Stage::Play, Cause::of(&error)))?;
        Ok(Opened { session, tracks })
    }

    async fn describe(&self, options: SessionOptions) -> Result<Session<Described>, AdapterError> {
        let mut describe = pin!(Session::describe(self.url.clone(), options));
        let failed = |cause| explain(&self.camera(), Stage::Describe, cause);
        match tokio::time::timeout(self.patience.connect, &mut describe).await {
            Ok(result) => return result.map_err(|error| failed(Cause::of(&error))),
            // retina does not tell how far it is, and whether the camera is away or just does not answer matters.
            Err(_) if connecting(&self.url).await => {
                return Err(explain(&self.camera(), Stage::Connect, Cause::Timeout(self.patience.connect)));
            }
            Err(_) => {}
        }
        match tokio::time::timeout(self.patience.answer, describe).await {
            Ok(result) => result.map_err(|error| failed(Cause::of(&error))),
            Err(_) => Err(failed(Cause::Timeout(self.patience.connect + self.patience.answer))),
        }
    }

    /// Waits for the answer to one request.
    async fn answered<T>(
        &self,
        stage: Stage,
        request: impl Future<Output = Result<T, retina::Error>>,
    ) -> Result<T, AdapterError> {
        let cause = match tokio::time::timeout(self.patience.answer, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Cause::of(&error),
            Err(_) => Cause::Timeout(self.patience.answer),
        };
        Err(explain(&self.camera(), stage, cause))
    }

    /// The first usable video track, and the first usable audio track.
    fn choose(&self, session: &Session<Described>) -> Result<Vec<Track>, AdapterError> {
        let (mut video, mut audio) = (None, None);
        let first_time = !self.told.left_out.swap(true, Ordering::Relaxed);
        for (index, stream) in session.streams().iter().enumerate() {
            let wanted = match stream.media() {
                "video" | "image" => &mut video,
                "audio" => &mut audio,
                _ => continue,
            };
            match Track::of(index, stream) {
                Ok(track) if wanted.is_none() => *wanted = Some(track),
                Ok(_) => {}
                Err(why) if first_time => {
                    let (media, encoding) = (stream.media(), stream.encoding_name());
                    tracing::warn!(media, encoding, "a track of the camera is left out: {why}");
                }
                Err(_) => {}
            }
        }
        let Some(video) = video else {
            let offered: Vec<_> = session.streams().iter().map(|stream| stream.encoding_name()).collect();
            let text = format!(
                "the camera at {} offers no H.264, H.265 or JPEG pictures, only: {}",
                self.camera().address,
                offered.join(", ")
            );
            return Err(AdapterError::new(ReasonCode::Unsupported, text));
        };
        Ok(std::iter::once(video).chain(audio).collect())
    }

    /// SETUP of each track; those that the camera takes.
    async fn set_up(&self, session: &mut Session<Described>, tracks: Vec<Track>) -> Result<Vec<Track>, AdapterError> {
        let mut carrier = match self.transport {
            Transport::Tcp => Carrier::Tcp,
            Transport::Udp => Carrier::Udp,
            Transport::Auto => self.carrier().unwrap_or(Carrier::Tcp),
        };
        let mut taken = Vec::with_capacity(tracks.len());
        for track in tracks {
            let mut result = self.set_up_one(session, track.stream(), carrier).await;
            if let Err(Cause::Status(461, _)) = result
                && self.transport == Transport::Auto
                && taken.is_empty()
            {
                carrier = carrier.other();
                // Remembered before it has worked: some cameras close the connection when they refuse.
                *self.carrier() = Some(carrier);
                tracing::info!(?carrier, "the camera refuses the transport; trying the other");
                result = self.set_up_one(session, track.stream(), carrier).await;
            }
            match result {
                Ok(()) => taken.push(track),
                Err(Cause::Status(status, _)) if !taken.is_empty() => {
                    tracing::warn!(status, "the camera refuses its own sound track; going on without sound");
                }
                Err(cause) => return Err(explain(&self.camera(), Stage::Setup, cause)),
            }
        }
        Ok(taken)
    }

    async fn set_up_one(&self, session: &mut Session<Described>, stream: usize, carrier: Carrier) -> Result<(), Cause> {
        let transport = match carrier {
            Carrier::Tcp => retina::client::Transport::Tcp(TcpTransportOptions::default()),
            Carrier::Udp => retina::client::Transport::Udp(UdpTransportOptions::default()),
        };
        let options = SetupOptions::default().transport(transport).frame_format(FORMAT);
        match tokio::time::timeout(self.patience.answer, session.setup(stream, options)).await {
            Ok(result) => result.map_err(|error| Cause::of(&error)),
            Err(_) => Err(Cause::Timeout(self.patience.answer)),
        }
    }
}

/// How long a name may take to be looked up a second time.
const LOOKUP: Duration = Duration::from_secs(1);

/// Whether a connection to that camera is still being made: its name has no address yet, or the kernel waits for the
/// answer to SYN. Also true where that cannot be found out.
async fn connecting(url: &Url) -> bool {
    let port = url.port().unwrap_or(554);
    let addresses = match url.host() {
        None => return true,
        Some(Host::Ipv4(ip)) => vec![SocketAddr::from((ip, port))],
        Some(Host::Ipv6(ip)) => vec![SocketAddr::from((ip, port))],
        Some(Host::Domain(name)) => match tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name, port))).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(_)) | Err(_) => return true,
        },
    };
    let mut read_any = false;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Ok(table) = tokio::fs::read_to_string(table).await else { continue };
        read_any = true;
        if table.lines().filter_map(syn_sent).any(|remote| addresses.contains(&remote)) {
            return true;
        }
    }
    !read_any
}

/// The remote address in a line of `/proc/net/tcp` or `tcp6` whose socket is in state SYN_SENT (proc(5)).
fn syn_sent(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let (remote, state) = (fields.next()?, fields.next()?);
    if state != "02" {
        return None;
    }
    let (ip, port) = remote.split_once(':')?;
    // Each 32-bit word stands in the machine's own order.
    let words = ip.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, username: Option<&str>) -> Config {
        let url = Url::parse(url).unwrap();
        let username = username.map(str::to_owned);
        Config { url, sub: None, username, password: None, transport: Transport::Tcp }
    }

    #[test]
    fn credentials_leave_the_url() {
        let config = config("rtsp://ad%40min:p%2Fw%3A@192.0.2.20:8554/live?a=b", None);
        let (url, credentials) = split_credentials(&config.url, &config);
        assert_eq!(url.as_str(), "rtsp://192.0.2.20:8554/live?a=b");
        let credentials = credentials.unwrap();
        assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("ad@min", "p/w:"));
    }

    #[test]
    fn configured_credentials_win_and_none_are_made_up() {
        let with = config("rtsp://one:two@192.0.2.20/", Some("three"));
        assert_eq!(split_credentials(&with.url, &with).1.unwrap().username, "three");
        let without = config("rtsp://192.0.2.20/", None);
        assert!(split_credentials(&without.url, &without).1.is_none());
    }

    #[test]
    fn passwords_in_paths_are_not_shown() {
        let shown = |url: &str| shown_path(&Url::parse(url).unwrap());
        assert_eq!(shown("rtsp://192.0.2.20/live/0?x=y"), "/live/0");
        assert_eq!(shown("rtsp://192.0.2.20/user=admin_PassWord=hunter2_channel=1.sdp"), "***");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_socket_that_waits_for_an_answer_is_found() {
        let line = "   3: 0100007F:D2F0 140200C0:022A 02 00000001:00000000 01:00000064 00000000     0        0 1 2";
        assert_eq!(syn_sent(line), Some("192.0.2.20:554".parse().unwrap()));
        let line = "   0: 00000000000000000000000001000000:C350 B80D0120000000000000000001000000:022A 02 0:0 0:0 0 0 0";
        assert_eq!(syn_sent(line), Some("[2001:db8::1]:554".parse().unwrap()));
        for other in [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1",
            "   0: 0100007F:1F90 xyz 02",
            "",
        ] {
            assert_eq!(syn_sent(other), None, "{other}");
        }
    }
}
