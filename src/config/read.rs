//! Reading a [`Node`] key by key, noting every mistake and going on.

use super::secret::Secret;
use super::tree::{Node, Place, Value};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

/// A secret in a file of its own is no longer than this.
const MAX_SECRET_BYTES: u64 = 4096;
/// More mistakes than this are not noted.
const MAX_MISTAKES: usize = 1000;

/// Where environment variables come from; tests bring their own.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What reading a file needs and finds.
pub(crate) struct Context<'a> {
    /// Relative paths start here.
    base: &'a Path,
    environment: Environment<'a>,
    mistakes: RefCell<Vec<(Place, String)>>,
    warnings: RefCell<Vec<(Place, String)>>,
    hidden: RefCell<Vec<Range<usize>>>,
}

/// What was found besides the configuration.
pub(crate) struct Found {
    pub(crate) mistakes: Vec<(Place, String)>,
    pub(crate) warnings: Vec<(Place, String)>,
    /// Bytes of the file that must not be shown.
    pub(crate) hidden: Vec<Range<usize>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(base: &'a Path, environment: Environment<'a>) -> Self {
        Self {
            base,
            environment,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            hidden: RefCell::default(),
        }
    }

    pub(crate) fn found(self) -> Found {
        Found {
            mistakes: self.mistakes.into_inner(),
            warnings: self.warnings.into_inner(),
            hidden: self.hidden.into_inner(),
        }
    }

    /// Notes a mistake. `text` must hold no secret.
    pub(crate) fn mistake(&self, place: Place, text: impl Into<String>) {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.len() < MAX_MISTAKES {
            mistakes.push((place, text.into()));
        }
    }

    /// Notes a doubt that stops nobody.
    pub(crate) fn warn(&self, place: Place, text: impl Into<String>) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MAX_MISTAKES {
            warnings.push((place, text.into()));
        }
    }

    /// Never shows the texts of this value: a secret may be among them.
    pub(crate) fn hide(&self, node: &Node) {
        self.hide_deep(node, false);
    }

    fn hide_deep(&self, node: &Node, keys: bool) {
        match &node.value {
            Value::Null => {}
            Value::Text(_) => self.hidden.borrow_mut().push(node.span.clone()),
            Value::List(list) => list.iter().for_each(|node| self.hide_deep(node, keys)),
            Value::Map(map) => {
                for (key, value) in map {
                    if keys {
                        self.hide_deep(key, keys);
                    }
                    self.hide_deep(value, keys);
                }
            }
        }
    }

    /// A text, `${NAME}` filled in by `encode`, which is told what stands before it.
    fn expand(&self, node: &Node, text: &str, encode: &dyn Fn(&str, &str, String) -> String) -> Option<String> {
        let mut whole = String::with_capacity(text.len());
        let mut rest = text;
        let mut good = true;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            let after = from.strip_prefix("${").unwrap_or_default();
            if let Some(before) = before.strip_suffix('$') {
                whole += before;
                whole += "${";
                rest = after;
                continue;
            }
            whole += before;
            let name = after.split_once('}').map(|(name, _)| name).filter(|name| is_variable(name));
            let Some(name) = name else {
                self.mistake(
                    node.place,
                    "`${` must be followed by a name and `}`; write `$${` where it is meant as it is",
                );
                return None;
            };
            rest = after.get(name.len() + 1..).unwrap_or_default();
            match (self.environment)(name) {
                Some(value) => {
                    let value = encode(&whole, rest, value);
                    whole += &value;
                }
                None => {
                    self.mistake(node.place, format!("environment variable {name} is not set"));
                    good = false;
                }
            }
        }
        whole += rest;
        good.then_some(whole)
    }

    /// A text with `${NAME}` filled in.
    pub(crate) fn text(&self, node: &Node) -> Option<String> {
        self.text_with(node, &|_, _, value| value)
    }

    /// A URL with `${NAME}` filled in. Within `user:password@` it is percent-encoded, so that no password can turn
    /// into a host.
    pub(crate) fn url_text(&self, node: &Node) -> Option<String> {
        self.text_with(node, &|before, after, value| {
            let in_user_info = before.contains("://") && after.contains('@');
            if in_user_info { encode_user_info(&value) } else { value }
        })
    }

    fn text_with(&self, node: &Node, encode: &dyn Fn(&str, &str, String) -> String) -> Option<String> {
        match &node.value {
            Value::Text(text) => self.expand(node, text, encode),
            _ => {
                self.mistake(node.place, format!("expected a text, found {}", node.kind()));
                None
            }
        }
    }

    /// A text turned into something; a mistake says what was expected and quotes what is there.
    pub(crate) fn parsed<T>(&self, node: &Node, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Value::Text(_) = node.value else {
            self.mistake(node.place, format!("expected {expected}, found {}", node.kind()));
            return None;
        };
        let text = self.text(node)?;
        let value = parse(text.trim());
        if value.is_none() {
            self.mistake(node.place, format!("expected {expected}, found {}", self.quote(node)));
        }
        value
    }

    /// A text as it stands in the file, for a message: `${NAME}` not filled in, quotes added.
    pub(crate) fn quote(&self, node: &Node) -> String {
        let Value::Text(text) = &node.value else { return node.kind().to_owned() };
        if self.hidden.borrow().contains(&node.span) || !super::mask::ranges(text).is_empty() {
            return "\"***\"".into();
        }
        let mut quoted = String::from("\"");
        for (n, c) in text.chars().enumerate() {
            if n == 60 {
                quoted.push('…');
                break;
            }
            if c.is_control() {
                let _ = write!(quoted, "{}", c.escape_default());
            } else {
                quoted.push(c);
            }
        }
        quoted.push('"');
        quoted
    }

    /// A path; a relative one starts at the configuration file.
    pub(crate) fn path(&self, node: &Node) -> Option<PathBuf> {
        let text = self.text(node)?;
        if text.is_empty() {
            self.mistake(node.place, "expected a path, found an empty text");
            return None;
        }
        Some(self.relative(&text))
    }

    /// The path of a file that can be read; a relative one starts at the configuration file.
    pub(crate) fn file(&self, node: &Node) -> Option<PathBuf> {
        let path = self.path(node)?;
        if let Err(error) = std::fs::File::open(&path) {
            self.mistake(node.place, format!("{} cannot be read: {error}", self.quote(node)));
            return None;
        }
        Some(path)
    }

    /// A path as seen from the configuration file.
    pub(crate) fn relative(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// The one or the several elements of a value: `x` means `[x]`.
    pub(crate) fn list<'n>(&self, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(list) => list,
            _ => std::slice::from_ref(node),
        }
    }

    fn secret_file(&self, node: &Node) -> Option<Secret> {
        let path = self.path(node)?;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            std::fs::File::open(&path)?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let words = match read() {
            Ok(bytes) if bytes.len() as u64 > MAX_SECRET_BYTES => format!("is longer than {MAX_SECRET_BYTES} bytes"),
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => {
                    let text = text.trim_end_matches(['\n', '\r']);
                    if !text.is_empty() {
                        return Some(Secret::new(text));
                    }
                    "is empty".into()
                }
                Err(_) => "is no UTF-8 text".into(),
            },
            Err(error) => format!("cannot be read: {error}"),
        };
        self.mistake(node.place, format!("{} {words}", self.quote(node)));
        None
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Percent-encodes what would end the user-info of a URL; existing `%41` stay.
fn encode_user_info(text: &str) -> String {
    let mut encoded = String::new();
    for (at, c) in text.char_indices() {
        let is_code = || text.get(at + 1..at + 3).is_some_and(|code| code.chars().all(|c| c.is_ascii_hexdigit()));
        if "/?#@:[]\\ ".contains(c) || c.is_control() || (c == '%' && !is_code()) {
            let _ = write!(encoded, "%{:02X}", u32::from(c));
        } else {
            encoded.push(c);
        }
    }
    encoded
}

/// A mapping while it is read. Every key asked for counts as known; [`Fields::finish`] reports the others.
pub(crate) struct Fields<'n, 'c> {
    pub(crate) context: &'c Context<'c>,
    pub(crate) place: Place,
    entries: Vec<Entry<'n>>,
    known: Vec<String>,
}

struct Entry<'n> {
    name: String,
    key: &'n Node,
    value: &'n Node,
    used: bool,
}

impl<'n, 'c> Fields<'n, 'c> {
    /// The entries of a mapping; `Null` has none. Anything else, a key that is no text and a key that is there twice
    /// are mistakes.
    pub(crate) fn of(context: &'c Context<'c>, node: &'n Node) -> Option<Self> {
        let map: &[(Node, Node)] = match &node.value {
            Value::Map(map) => map,
            Value::Null => &[],
            _ => {
                context.mistake(node.place, format!("expected a mapping (`key: value`), found {}", node.kind()));
                return None;
            }
        };
        let mut entries: Vec<Entry<'n>> = Vec::new();
        for (key, value) in map {
            let Value::Text(name) = &key.value else {
                context.mistake(key.place, format!("expected a key, found {}", key.kind()));
                continue;
            };
            if let Some(first) = entries.iter().find(|entry| entry.name == *name) {
                let line = first.key.place.line;
                context.hide(value);
                context.mistake(key.place, format!("{} is already given in line {line}", context.quote(key)));
                continue;
            }
            entries.push(Entry { name: name.clone(), key, value, used: false });
        }
        Some(Self { context, place: node.place, entries, known: Vec::new() })
    }

    fn entry(&mut self, name: &str) -> Option<&mut Entry<'n>> {
        self.known.push(name.to_owned());
        let entry = self.entries.iter_mut().find(|entry| entry.name == name)?;
        entry.used = true;
        Some(entry)
    }

    /// Whether a secret is given in either form, even a wrong one.
    pub(crate) fn has(&self, name: &str) -> bool {
        let file = format!("{name}_file");
        self.entries.iter().any(|entry| entry.name == name || entry.name == file)
    }

    /// The value of a key; one that is empty is as good as not there.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'n Node> {
        let entry = self.entry(name)?;
        (!matches!(entry.value.value, Value::Null)).then_some(entry.value)
    }

    /// The value of a key, without asking for it.
    pub(crate) fn value(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.value)
    }

    /// Like [`Self::take`]; a missing one is a mistake of the whole mapping.
    pub(crate) fn required(&mut self, name: &str) -> Option<&'n Node> {
        let found = self.take(name);
        if found.is_none() {
            let place =
                self.entries.iter().find(|entry| entry.name == name).map_or(self.place, |entry| entry.key.place);
            self.context.mistake(place, format!("`{name}` is missing"));
        }
        found
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        let node = self.take(name)?;
        self.context.parsed(node, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    /// A whole number within a range.
    pub(crate) fn whole_at(&mut self, name: &str, range: RangeInclusive<u32>) -> Option<(u32, Place)> {
        let node = self.take(name)?;
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let number =
            self.context.parsed(node, &expected, |text| text.parse().ok().filter(|number| range.contains(number)))?;
        Some((number, node.place))
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let node = self.take(name)?;
        let expected: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.context.parsed(node, &format!("one of {}", expected.join(", ")), |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// A secret `x`, or the content of the file named by `x_file`. Both is a mistake. Also gives its place.
    pub(crate) fn secret(&mut self, name: &str) -> Option<(Place, Secret)> {
        let given = self.take(name);
        let file_key = format!("{name}_file");
        let file = self.take(&file_key);
        if let Some(node) = given {
            self.context.hide_deep(node, true);
        }
        match (given, file) {
            (None, None) => None,
            (Some(_), Some(file)) => {
                self.context.mistake(file.place, format!("`{name}` and `{file_key}` are both given; one is enough"));
                None
            }
            (None, Some(file)) => Some((file.place, self.context.secret_file(file)?)),
            (Some(node), None) => {
                let text = self.context.text(node)?;
                if text.is_empty() {
                    self.context.mistake(node.place, format!("`{name}` is empty"));
                    return None;
                }
                Some((node.place, Secret::new(text)))
            }
        }
    }

    /// Keys that a later version will know: one clear mistake each.
    pub(crate) fn later(&mut self, names: &[&str]) {
        for name in names {
            let found = self.entries.iter_mut().find(|entry| entry.name == *name && !entry.used);
            if let Some(entry) = found {
                entry.used = true;
                self.context.hide(entry.value);
                self.context.mistake(entry.key.place, format!("`{name}` is not supported by this version"));
            }
        }
    }

    /// Every entry that nobody asked for yet, as name, key and value.
    pub(crate) fn rest(&mut self) -> Vec<(String, &'n Node, &'n Node)> {
        self.entries
            .iter_mut()
            .filter(|entry| !entry.used)
            .map(|entry| {
                entry.used = true;
                (entry.name.clone(), entry.key, entry.value)
            })
            .collect()
    }

    /// Reports the keys that nobody asked for. Their values are hidden: `pasword: …` is a secret too.
    pub(crate) fn finish(mut self) {
        let known = self.known.join(", ");
        for (_, key, value) in self.rest() {
            self.context.hide(value);
            let name = self.context.quote(key);
            self.context.mistake(key.place, format!("unknown field {name}, expected one of {known}"));
        }
    }
}
