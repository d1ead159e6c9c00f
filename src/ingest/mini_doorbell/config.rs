//! A mini doorbell in the configuration.

use super::BellId;
use crate::config::read::{Context, Fields};
use crate::config::tree::Node;

/// `source: mini-doorbell://[ID]` or `source: { mini_doorbell: { id } }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Which bell it is; without it, any that no other camera names.
    pub id: Option<BellId>,
}

const ID: &str = "the bell's id, 16 hexadecimal digits such as 00ff020056341200";

impl Config {
    /// The short form.
    pub(crate) fn short(context: &Context<'_>, node: &Node) -> Option<Self> {
        let text = context.url_text(node)?;
        let id = text.trim().split_once("://").map_or("", |(_, rest)| rest.trim_end_matches('/'));
        if id.is_empty() {
            return Some(Self::default());
        }
        match BellId::parse(id) {
            Some(id) => Some(Self { id: Some(id) }),
            None => {
                context.mistake(node.place, format!("expected mini-doorbell:// and {ID}, or nothing"));
                None
            }
        }
    }

    /// The long form.
    pub(crate) fn long(mut fields: Fields<'_, '_>) -> Option<Self> {
        let context = fields.context;
        let node = fields.take("id");
        let id = node.and_then(|node| context.parsed(node, ID, |text| BellId::parse(text.trim())));
        fields.finish();
        (id.is_some() || node.is_none()).then_some(Self { id })
    }
}
