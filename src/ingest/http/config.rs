//! A camera that serves JPEG by HTTP, in the configuration.

use super::tls::Fingerprint;
use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::Node;
use crate::ingest::login::{self, Keys};
use std::fmt;
use std::time::Duration;
use url::Url;

/// `source: http://…` or `source: { http: { url, every, username, password, fingerprint } }`.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the pictures are. Holds no user name and no password, unless the camera wants them as a query.
    pub url: Url,
    /// From the start of one request for a picture to the start of the next; streams come as they come.
    pub every: Duration,
    /// The login, from `username` or from the URL.
    pub username: Option<String>,
    /// The password, from `password` or from the URL.
    pub password: Option<Secret>,
    /// The certificate that an `https` camera must show; without it, any is taken.
    pub fingerprint: Option<Fingerprint>,
}

/// How often a picture is fetched where the configuration does not say.
pub(super) const EVERY: Duration = Duration::from_secs(1);

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &crate::config::hide_in_url(self.url.as_str()))
            .field("every", &self.every)
            .field("username", &self.username)
            .field("password", &self.password)
            .field("fingerprint", &self.fingerprint)
            .finish()
    }
}

impl Config {
    /// The short form: a URL.
    pub(crate) fn short(context: &Context<'_>, node: &Node) -> Option<Self> {
        let (url, login) = login::url(context, node, None, scheme)?;
        let (username, password) = login.map_or((None, None), |(name, password)| (Some(name), password));
        Some(Self { url, every: EVERY, username, password, fingerprint: None })
    }

    /// The long form.
    pub(crate) fn long(mut fields: Fields<'_, '_>) -> Option<Self> {
        let context = fields.context;
        let url = fields.required("url").and_then(|node| login::url(context, node, None, scheme));
        let expected = "a time from 50ms to 1d, such as 500ms, 2s or 1m";
        let range = Duration::from_millis(50)..=Duration::from_secs(86_400);
        let every = |text: &str| crate::config::duration(text).filter(|every| range.contains(every));
        let every = fields.take("every").map(|node| context.parsed(node, expected, every));
        let keys = Keys::take(&mut fields);
        let expected = "the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons";
        let fingerprint_node = fields.take("fingerprint");
        let fingerprint = fingerprint_node.and_then(|node| context.parsed(node, expected, Fingerprint::read));
        fields.finish();

        let (url, in_url) = url?;
        if let Some(node) = fingerprint_node.filter(|_| url.scheme() == "http") {
            context.mistake(node.place, "`fingerprint` is of use with https:// only");
        }
        let (username, password) =
            keys.or(context, in_url).map_or((None, None), |(name, password)| (Some(name), password));
        Some(Self { url, every: every.flatten().unwrap_or(EVERY), username, password, fingerprint })
    }
}

fn scheme(scheme: &str) -> Result<(), &'static str> {
    match scheme {
        "http" | "https" => Ok(()),
        _ => Err("expected a URL that begins with http:// or https://"),
    }
}
