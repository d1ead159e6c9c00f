//! A YAML document as a tree in which every value knows its place.
//!
//! serde stops at the first mistake of a document. So the file is read into this tree first, which fails only where it
//! is no YAML, and the tree is then turned into types key by key, noting every mistake on the way.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};
use std::fmt;
use std::ops::Range;

/// Nesting beyond this is no configuration of ours.
const MAX_DEPTH: usize = 24;
/// Values in one file, aliases expanded.
const MAX_NODES: usize = 100_000;

/// Line and column, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    /// Where a file as a whole is meant.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    fn of(location: Location) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

/// One value.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it is used; for an alias the alias.
    pub(crate) place: Place,
    /// Its bytes in the file, where it is defined; of a list or a mapping only the beginning.
    pub(crate) span: Range<usize>,
    pub(crate) value: Value,
}

/// What a value is. Scalars stay text: whether `0123` is a number or a password is known only to whoever asked for it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Reads one document; an empty one is `Null`.
    ///
    /// # Errors
    /// The place and the words where it is no YAML, where it is nested too deeply or grows too large by aliases.
    pub(crate) fn parse(text: &str) -> Result<Self, (Place, String)> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: MAX_DEPTH,
                flow_nesting_limit: MAX_DEPTH,
                max_nodes: MAX_NODES,
                max_events: 4 * MAX_NODES,
                max_recorded_anchor_events: MAX_NODES,
            },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
            // Found by our own reader, so that the other mistakes are shown as well.
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
            emit_comments: false,
            with_snippet: false,
        };
        match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
            Ok(raw) => Ok(Self::from_raw(raw, text)),
            Err(error) => {
                let place = error.location().map_or(Place::START, Place::of);
                let mut words = error.without_snippet().to_string();
                // The library ends its sentences with the place that we print in front.
                if let Some(at) = words.rfind(" at line ") {
                    words.truncate(at);
                }
                // Its advice is for programmers, its numbers are ours.
                if words.starts_with("multiple YAML documents") {
                    words = "a second document begins here; a configuration is one".into();
                } else if words.starts_with("budget breached") || words.contains("replay limit") {
                    words = "nested too deeply, or too much of it by aliases".into();
                }
                if text.lines().nth(place.line - 1).is_some_and(|line| line.contains("${")) {
                    words += "; a text with ${…} inside of { } or [ ] needs quotes";
                }
                Err((place, words))
            }
        }
    }

    fn from_raw(raw: Spanned<Raw>, text: &str) -> Self {
        let span = raw.defined.span();
        let offset = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let start = offset(span.byte_offset());
        let span = start..start.saturating_add(offset(span.byte_len()));
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Plain => Value::Text(text.get(span.clone()).unwrap_or_default().to_owned()),
            Raw::Text(text) => Value::Text(text),
            Raw::List(list) => Value::List(list.into_iter().map(|raw| Self::from_raw(raw, text)).collect()),
            Raw::Map(map) => Value::Map(
                map.into_iter().map(|(key, value)| (Self::from_raw(key, text), Self::from_raw(value, text))).collect(),
            ),
        };
        Self { place: Place::of(raw.referenced), span, value }
    }

    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// As serde-saphyr hands it over. `Plain` is a number or a truth value, of which only the spelling counts.
enum Raw {
    Null,
    Plain,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element()? {
            list.push(element);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, Node)> {
        let Value::Map(map) = Node::parse(text).expect("valid YAML").value else { panic!("no mapping") };
        map.into_iter()
            .map(|(key, value)| {
                let Value::Text(key) = key.value else { panic!("no text") };
                (key, value)
            })
            .collect()
    }

    fn text(node: &Node) -> &str {
        let Value::Text(text) = &node.value else { panic!("{} is no text", node.kind()) };
        text
    }

    #[test]
    fn scalars_keep_their_spelling() {
        let yaml =
            "a: 0123\nb: 1.50\nc: yes\n12: 0x1F\nd: \"0123\"\ne: .nan\nf: 99999999999999999999999999999999999999999\n";
        let found: Vec<_> = entries(yaml).iter().map(|(key, node)| format!("{key}={}", text(node))).collect();
        assert_eq!(
            found,
            ["a=0123", "b=1.50", "c=yes", "12=0x1F", "d=0123", "e=.nan", "f=99999999999999999999999999999999999999999"]
        );
    }

    #[test]
    fn places_count_characters_and_aliases_are_where_they_are_used() {
        let found = entries("ü: &x 5\nb: *x\n");
        assert_eq!(found[0].1.place, Place { line: 1, column: 7 });
        assert_eq!(found[1].1.place, Place { line: 2, column: 4 });
        assert_eq!(found[1].1.span, found[0].1.span);
    }

    #[test]
    fn what_is_no_yaml_is_an_error_with_its_place() {
        for (yaml, line, column, words) in [
            ("a: [1, 2", 1, 4, "unclosed bracket '['"),
            ("a: b: c", 1, 5, "mapping values are not allowed in this context"),
            ("a:\n\t- x", 2, 2, "tabs disallowed within this context (block indentation)"),
            ("a: *nope", 1, 4, "alias references unknown anchor"),
            ("a: 1\n---\nb: 2", 3, 1, "a second document begins here; a configuration is one"),
        ] {
            assert_eq!(Node::parse(yaml).expect_err(yaml), (Place { line, column }, words.to_owned()), "{yaml}");
        }
    }

    #[test]
    fn bombs_end_in_an_error() {
        let deep = "[".repeat(10_000);
        assert!(Node::parse(&deep).is_err());
        let indented: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(Node::parse(&indented).is_err());
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let alias = format!("*a{}", n - 1);
            laughs += &format!("a{n}: &a{n} [{}]\n", [alias.as_str(); 10].join(", "));
        }
        let words = "nested too deeply, or too much of it by aliases";
        assert_eq!(Node::parse(&laughs).expect_err("too much").1, words);
    }
}
