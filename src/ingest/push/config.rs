//! A camera whose pictures are pushed, in the configuration.

use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::Node;

/// `source: "push:"` or `source: { push: { token } }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What lets a device in that cannot sign in; also its FTP password.
    pub token: Option<Secret>,
}

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
        let token = fields.secret("token").map(|(_, token)| token);
        fields.finish();
        Some(Self { token })
    }
}
