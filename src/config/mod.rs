//! The configuration file: YAML to types. Every mistake is shown at `FILE:LINE:COLUMN`, all of them at once.
//!
//! A file is read into a tree with places, then section by section into the types here. A new key is one line where
//! its section is read: whatever nobody asks for is an unknown field. The sources of cameras are read by
//! [`ingest`](crate::ingest), each family its own.
//!
//! `${NAME}` in any text comes from the environment and never changes the structure; `$${` is a literal `${`. Any
//! secret `x` may be `x_file: PATH`. Relative paths start at the configuration file.

mod ftp;
mod http;
mod mask;
mod mini_doorbell;
mod mistakes;
pub(crate) mod read;
mod secret;
mod sections;
pub(crate) mod tree;
mod users;
mod values;
mod webrtc;

pub use ftp::Ftp;
pub use http::Http;
pub use mini_doorbell::{Announce, MiniDoorbell, Unknown};
pub use mistakes::{Mistake, Mistakes};
pub use secret::Secret;
pub use users::{HashError, check_hash, is_user_name};
pub use values::{Host, Listen, Network, UdpPorts, duration, size};
pub use webrtc::{Candidate, IceServer, Webrtc};

pub(crate) use mask::hide_in_url;

use crate::ingest::{Rotation, Source};
use read::{Context, Environment, Fields};
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use tree::{Node, Place};

/// No configuration is larger, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Where a configuration is looked for, in this order.
const SEARCHED: [&str; 2] = ["fanlight.yaml", "/etc/fanlight/fanlight.yaml"];

/// Everything that a configuration file says, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Pages and API.
    pub http: Http,
    /// Pages and API over TLS; off unless the section is there.
    pub https: Option<Https>,
    /// The RTSP server.
    pub rtsp: Rtsp,
    /// RTSP over TLS; off unless the section is there.
    pub rtsps: Option<Rtsps>,
    /// The WebRTC server.
    pub webrtc: Webrtc,
    /// Whether users are asked for.
    pub auth: Auth,
    /// Who may, in the order of the file.
    pub users: Vec<User>,
    /// What is kept on disk.
    pub store: Store,
    /// Where cameras upload pictures to.
    pub ftp: Ftp,
    /// The port that mini doorbells call.
    pub mini_doorbell: MiniDoorbell,
    /// In the order of the file.
    pub cameras: Vec<Camera>,
    /// What is doubtful but no mistake; each is worth a line in the log.
    pub warnings: Vec<Mistake>,
}

impl Default for Config {
    /// What holds without a configuration file: no cameras, no users.
    fn default() -> Self {
        Self {
            http: Http {
                listen: vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), 8484)],
                allow_origins: Vec::new(),
                trusted_proxies: Vec::new(),
                hosts: Vec::new(),
            },
            https: None,
            rtsp: Rtsp {
                listen: vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), 8554)],
                udp_ports: UdpPorts::Pair(8000),
            },
            rtsps: None,
            webrtc: Webrtc {
                listen: vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), 8555)],
                candidates: Vec::new(),
                ice_servers: Vec::new(),
            },
            auth: Auth::Users,
            users: Vec::new(),
            store: Store { path: PathBuf::from("data"), named: false },
            ftp: Ftp::OFF,
            mini_doorbell: MiniDoorbell::OFF,
            cameras: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// The tokens that devices show for their cameras, by the cameras' names.
    pub fn tokens(&self) -> impl Iterator<Item = (String, Secret)> {
        self.cameras.iter().filter_map(|camera| Some((camera.name.clone(), camera.source.token()?.clone())))
    }
}

/// `https:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Https {
    /// Where pages and API listen over TLS. Needs a restart when changed.
    pub listen: Vec<Listen>,
    /// The certificate, for RTSP over TLS as well; without one a self-made one is used.
    pub certificate: Option<CertificateFiles>,
}

/// `cert_file` and `key_file`, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, then those between it and the root.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `rtsps:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtsps {
    /// Where the RTSP server listens for TLS. Needs a restart when changed.
    pub listen: Vec<Listen>,
}

/// `rtsp:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtsp {
    /// Where the RTSP server listens. Needs a restart when changed.
    pub listen: Vec<Listen>,
    /// The one pair of ports for all viewers over UDP.
    pub udp_ports: UdpPorts,
}

/// `auth:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// The users of `users:`; without any, this machine only.
    Users,
    /// Everything is open to everybody.
    None,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sees, and gives commands.
    Admin,
    /// Sees.
    Viewer,
}

impl Role {
    /// The name in YAML and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Viewer => "viewer",
        }
    }
}

/// One entry of `users:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// argon2id in PHC form; without one there is no login over HTTP.
    pub password_hash: Option<Secret>,
    /// The password in stream URLs; without one there is no RTSP.
    pub stream_key: Option<Secret>,
}

/// `store:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The state directory. Needs a restart when changed.
    pub path: PathBuf,
    /// Whether the file names it. If not, a state directory that the program is told of at start takes its place.
    pub named: bool,
}

/// One entry of `cameras:`. Two are equal if a reload need not touch the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// Also RTSP path and web address: `a-z 0-9 _ -`.
    pub name: String,
    /// What it is and how to reach it.
    pub source: Source,
    /// How far its pictures are turned, clockwise.
    pub rotation: Rotation,
    /// Connect only while somebody watches.
    pub on_demand: bool,
    /// Connections to the device at the same time, all streams together. At least 1.
    pub max_connections: usize,
}

/// The file to read: the one named on the command line, else the first that exists of `./fanlight.yaml` and
/// `/etc/fanlight/fanlight.yaml`. With `None` there are no cameras: [`Config::default`].
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_owned()),
        None => first_of(&SEARCHED.map(PathBuf::from)),
    }
}

/// The first that exists; one that cannot be seen counts, so that reading it says why.
fn first_of(paths: &[PathBuf]) -> Option<PathBuf> {
    paths.iter().find(|path| path.try_exists().unwrap_or(true)).cloned()
}

/// Reads a configuration file, and the files and environment variables it names.
///
/// # Errors
/// All mistakes, each with its place.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let (name, text) = read_file(path)?;
    parse(&name, &text, path.parent().unwrap_or(Path::new("")), &|name| std::env::var(name).ok())
}

/// Reads a file that holds nothing but `users:`, at least one.
///
/// # Errors
/// All mistakes, each with its place.
pub(crate) fn load_users(path: &Path) -> Result<Vec<User>, Mistakes> {
    let (name, text) = read_file(path)?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse_with(&name, &text, base, &|name| std::env::var(name).ok(), sections::only_users).map(|(users, _)| users)
}

/// Reads a YAML file that is no configuration with the same care; `${NAME}` means nothing in it.
///
/// # Errors
/// All mistakes, each with its place.
pub(crate) fn load_other<T>(path: &Path, read: impl Fn(Fields<'_, '_>) -> T) -> Result<T, Mistakes> {
    let (name, text) = read_file(path)?;
    parse_other(&name, &text, read)
}

/// The same for a text that is there already.
pub(crate) fn parse_other<T>(name: &str, text: &str, read: impl Fn(Fields<'_, '_>) -> T) -> Result<T, Mistakes> {
    parse_with(name, text, Path::new(""), &|_| None, read).map(|(value, _)| value)
}

/// The name and the text of a file.
fn read_file(path: &Path) -> Result<(String, String), Mistakes> {
    let file = path.display().to_string();
    let fail = |place, words: String| {
        let list = mistakes::show("", vec![(place, words)], Vec::new());
        Mistakes { file: file.clone(), list }
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(Place::START, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fail(Place::START, "is larger than 1 MiB".into()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let good = String::from_utf8_lossy(good);
        let (before, line) = good.rsplit_once('\n').map_or(("", &*good), |(before, line)| (before, line));
        let lines = before.matches('\n').count() + usize::from(line.len() < good.len());
        fail(Place { line: lines + 1, column: line.chars().count() + 1 }, "is no UTF-8 text".into())
    })?;
    Ok((file, text))
}

/// Reads the text of a configuration file named `file`, whose relative paths start at `base`.
pub(crate) fn parse(file: &str, text: &str, base: &Path, environment: Environment<'_>) -> Result<Config, Mistakes> {
    let (mut config, warnings) = parse_with(file, text, base, environment, sections::read)?;
    config.warnings = warnings;
    Ok(config)
}

/// Reads the text of a file with `read`; also gives the warnings.
fn parse_with<T>(
    file: &str,
    text: &str,
    base: &Path,
    environment: Environment<'_>,
    read: impl Fn(Fields<'_, '_>) -> T,
) -> Result<(T, Vec<Mistake>), Mistakes> {
    let fail = |list| Mistakes { file: file.to_owned(), list };
    let root = Node::parse(text).map_err(|mistake| fail(mistakes::show(text, vec![mistake], Vec::new())))?;
    let context = Context::new(base, environment);
    let value = Fields::of(&context, &root).map(read);
    let found = context.found();
    match value {
        Some(value) if found.mistakes.is_empty() => Ok((value, mistakes::show(text, found.warnings, found.hidden))),
        _ => Err(fail(mistakes::show(text, found.mistakes, found.hidden))),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
