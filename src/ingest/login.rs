//! A camera's URL and login in the configuration, for the families that have both.

use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::{Node, Place};
use percent_encoding::percent_decode_str;
use url::Url;

/// A user name, and a password if there is one.
pub(super) type Login = Option<(String, Option<Secret>)>;

/// The keys `username` and `password`.
#[derive(Debug)]
pub(super) struct Keys {
    /// Where they are, if one is.
    place: Option<Place>,
    login: Login,
}

impl Keys {
    /// Takes both out of a family's mapping.
    pub(super) fn take(fields: &mut Fields<'_, '_>) -> Self {
        let context = fields.context;
        let name_node = fields.take("username");
        let username = name_node.and_then(|node| context.text(node));
        let password = fields.secret("password");
        if let (Some((place, _)), None) = (&password, name_node) {
            context.mistake(*place, "`password` without `username`");
        }
        let place = name_node.map(|node| node.place).or(password.as_ref().map(|(place, _)| *place));
        Self { place, login: username.map(|name| (name, password.map(|(_, password)| password))) }
    }

    /// The login of these keys or the one of the URL; both is a mistake.
    pub(super) fn or(self, context: &Context<'_>, in_url: Login) -> Login {
        match (self.place, in_url) {
            (None, in_url) => in_url,
            (Some(_), None) => self.login,
            (Some(place), Some(_)) => {
                context.mistake(place, "user name and password are given twice: in the URL and as keys");
                None
            }
        }
    }
}

/// Reads a URL and takes the login out of it. With `base` it may be a path on the same camera. `scheme` says what is
/// wrong with a scheme.
pub(super) fn url(
    context: &Context<'_>,
    node: &Node,
    base: Option<&Url>,
    scheme: impl Fn(&str) -> Result<(), &'static str>,
) -> Option<(Url, Login)> {
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
    if let Err(words) = scheme(url.scheme()) {
        return fail(words);
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
