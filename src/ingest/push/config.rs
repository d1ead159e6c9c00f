//! A camera whose pictures are pushed, in the configuration.

use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::Node;

/// `source: "push:"` or `source: { push: { token, event } }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What lets a device in that cannot sign in; also its FTP password.
    pub token: Option<Secret>,
    /// The kind of event that a plain picture is; `None` for a camera whose device sends some at any time.
    pub event: Option<String>,
}

/// Shorter tokens are warned of, in characters.
const SHORT_TOKEN: usize = 8;
/// Names of kinds end up in URLs and topics.
const MAX_KIND: usize = 32;
/// Kinds that a picture cannot be.
const NO_PICTURES: [&str; 5] = ["online", "offline", "door_opened", "power", "new_doorbell"];

impl Config {
    /// The short form.
    pub(crate) fn short(context: &Context<'_>, node: &Node) -> Option<Self> {
        let text = context.url_text(node)?;
        if matches!(text.trim(), "push:" | "push://") {
            return Some(Self::default());
        }
        context.mistake(node.place, "expected `push:` and nothing after it; its token goes into `push: { token: … }`");
        None
    }

    /// The long form.
    pub(crate) fn long(mut fields: Fields<'_, '_>) -> Option<Self> {
        let token = fields.secret("token");
        if let Some((place, token)) = &token
            && token.reveal().chars().count() < SHORT_TOKEN
        {
            let words = format!("a token of less than {SHORT_TOKEN} characters is soon guessed");
            fields.context.warn(*place, words);
        }
        let context = fields.context;
        let expected = "the kind of event that each picture is, such as motion, pir, visitor or alarm";
        let event = fields.take("event").and_then(|node| {
            context.parsed(node, expected, |text| {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                let fits = (1..=MAX_KIND).contains(&text.len()) && text.bytes().all(plain);
                (fits && !NO_PICTURES.contains(&text)).then(|| text.to_owned())
            })
        });
        fields.finish();
        Some(Self { token: token.map(|(_, token)| token), event })
    }
}
