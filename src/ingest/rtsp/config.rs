//! An RTSP camera in the configuration.

use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::Node;
use crate::ingest::login::{self, Keys};
use std::fmt;
use url::Url;

/// `source: rtsp://…` or `source: { rtsp: { url, sub, username, password, transport } }`.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The main stream. Holds no user name and no password.
    pub url: Url,
    /// The second, smaller stream of the same camera, if it has one. Holds no user name and no password.
    pub sub: Option<Url>,
    /// The login, from `username` or from the URL.
    pub username: Option<String>,
    /// The password, from `password` or from the URL.
    pub password: Option<Secret>,
    /// How media is carried.
    pub transport: Transport,
}

/// How the camera sends RTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved in the RTSP connection.
    #[default]
    Tcp,
    /// In UDP packets beside it.
    Udp,
    /// TCP first, UDP where the camera refuses that.
    Auto,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Url| crate::config::hide_in_url(url.as_str());
        f.debug_struct("Config")
            .field("url", &shown(&self.url))
            .field("sub", &self.sub.as_ref().map(shown))
            .field("username", &self.username)
            .field("password", &self.password)
            .field("transport", &self.transport)
            .finish()
    }
}

impl Config {
    /// The short form: a URL.
    pub(crate) fn short(context: &Context<'_>, node: &Node) -> Option<Self> {
        let (url, login) = login::url(context, node, None, scheme)?;
        let (username, password) = login.map_or((None, None), |(name, password)| (Some(name), password));
        Some(Self { url, sub: None, username, password, transport: Transport::default() })
    }

    /// The long form.
    pub(crate) fn long(mut fields: Fields<'_, '_>) -> Option<Self> {
        let context = fields.context;
        let main = fields.required("url").and_then(|node| login::url(context, node, None, scheme));
        let sub_node = fields.take("sub");
        let base = main.as_ref().map(|(url, _)| url);
        let sub = sub_node.and_then(|node| login::url(context, node, base, scheme));
        let keys = Keys::take(&mut fields);
        let transports = [("tcp", Transport::Tcp), ("udp", Transport::Udp), ("auto", Transport::Auto)];
        let transport = fields.word("transport", &transports).unwrap_or_default();
        fields.finish();

        let (url, in_url) = main?;
        let login = keys.or(context, in_url);
        let (sub, in_sub) = sub.map_or((None, None), |(url, login)| (Some(url), login));
        if let Some(node) = sub_node
            && in_sub.is_some()
            && in_sub != login
        {
            context.mistake(
                node.place,
                "user name and password of both streams must be the same; give them in `url` only",
            );
        }
        let (username, password) = login.map_or((None, None), |(name, password)| (Some(name), password));
        Some(Self { url, sub, username, password, transport })
    }
}

fn scheme(scheme: &str) -> Result<(), &'static str> {
    match scheme {
        "rtsp" => Ok(()),
        "rtsps" => Err("cameras over TLS (`rtsps://`) are not supported by this version"),
        _ => Err("expected a URL that begins with rtsp://"),
    }
}
