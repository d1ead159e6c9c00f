//! A camera that serves JPEG by HTTP, in the configuration.

use crate::config::read::{Context, Fields};
use crate::config::tree::Node;
use url::Url;

/// `source: http://…` or `source: { http: { url, every, username, password } }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the pictures are.
    pub url: Url,
}

impl Config {
    /// The short form: a URL.
    pub(crate) fn short(context: &Context<'_>, node: &Node) -> Option<Self> {
        let text = context.url_text(node)?;
        match Url::parse(&text) {
            Ok(url) => Some(Self { url }),
            Err(error) => {
                context.mistake(node.place, format!("this is no URL: {error}"));
                None
            }
        }
    }

    /// The long form.
    pub(crate) fn long(mut fields: Fields<'_, '_>) -> Option<Self> {
        let context = fields.context;
        let config = fields.required("url").and_then(|node| Self::short(context, node));
        fields.finish();
        config
    }
}
