//! An RTSP camera in the configuration.

use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::Node;
use percent_encoding::percent_decode_str;
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

/// The part before the `@` of a URL, decoded.
type Login = Option<(String, Option<Secret>)>;

impl Config {
    /// The short form: a URL.
    pub(crate) fn short(context: &Context<'_>, node: &Node) -> Option<Self> {
        let (url, login) = url(context, node, None)?;
        let (username, password) = login.map_or((None, None), |(name, password)| (Some(name), password));
        Some(Self { url, sub: None, username, password, transport: Transport::default() })
    }

    /// The long form.
    pub(crate) fn long(mut fields: Fields<'_, '_>) -> Option<Self> {
        let context = fields.context;
        let main = fields.required("url").and_then(|node| url(context, node, None));
        let sub_node = fields.take("sub");
        let sub = sub_node.and_then(|node| url(context, node, main.as_ref().map(|(url, _)| url)));
        let name_node = fields.take("username");
        let username = name_node.and_then(|node| context.text(node));
        let password = fields.secret("password");
        let transports = [("tcp", Transport::Tcp), ("udp", Transport::Udp), ("auto", Transport::Auto)];
        let transport = fields.word("transport", &transports).unwrap_or_default();
        fields.finish();

        if let (Some((place, _)), None) = (&password, name_node) {
            context.mistake(*place, "`password` without `username`");
        }
        let place = name_node.map(|node| node.place).or(password.as_ref().map(|(place, _)| *place));
        let keys = username.map(|name| (name, password.map(|(_, password)| password)));
        let (url, in_url) = main?;
        let login = match (place, in_url) {
            (None, in_url) => in_url,
            (Some(_), None) => keys,
            (Some(place), Some(_)) => {
                context.mistake(place, "user name and password are given twice: in the URL and as keys");
                None
            }
        };
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

/// Reads a URL and takes the login out of it. With `base` it may be a path on the same camera.
fn url(context: &Context<'_>, node: &Node, base: Option<&Url>) -> Option<(Url, Login)> {
    let text = context.url_text(node)?;
    let fail = |words: &str| {
        context.mistake(node.place, words);
        None
    };
    let parsed = match base {
        Some(base) if text.starts_with('/') && !text.starts_with("//") => base.join(&text),
        _ => Url::parse(&text),
    };
    let hint = "in a password write / as %2F, ? as %3F, # as %23, or use `username` and `password`";
    let mut url = match parsed {
        Ok(url) => url,
        Err(error) => return fail(&format!("this is no URL: {error}; {hint}")),
    };
    match url.scheme() {
        "rtsp" => {}
        "rtsps" => return fail("cameras over TLS (`rtsps://`) are not supported by this version"),
        _ => return fail("expected a URL that begins with rtsp://"),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return fail("the URL names no host");
    }
    if url.port() == Some(0) {
        return fail("port 0 is no port of a camera");
    }
    if url.fragment().is_some() || (url.username().is_empty() && url.path().contains('@')) {
        return fail(&format!("`#` and `@` may not stand behind the host; {hint}"));
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let login = if url.username().is_empty() && url.password().is_none() {
        None
    } else {
        let (Some(name), Some(password)) = (decoded(url.username()), decoded(url.password().unwrap_or_default()))
        else {
            return fail("user name or password are no UTF-8 text");
        };
        Some((name, url.password().map(|_| Secret::new(password))))
    };
    // Cannot fail: the URL has a host.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    Some((url, login))
}
