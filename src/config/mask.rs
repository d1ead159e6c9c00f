//! Hides secrets in the lines of a configuration file before they are shown under a mistake.
//!
//! What the file means may be unclear just where it is wrong, so this goes by looks and rather hides too much: values
//! of keys that sound like secrets, and whatever stands before an `@`.

use std::ops::Range;

/// Byte ranges of `text` that must not be shown.
pub(crate) fn ranges(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // Indentation of a secret key whose value goes on in the lines below it.
    let mut below: Option<usize> = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let trimmed = content.trim_start();
        let indent = content.len() - trimmed.len();
        if !trimmed.is_empty() && below.is_some_and(|key| indent <= key) {
            below = None;
        }
        if below.is_some() {
            // An empty range would still be shown as something.
            let hidden = offset + indent..offset + content.len();
            found.extend(Some(hidden).filter(|range| !range.is_empty()));
        } else {
            let (in_line, open) = line_ranges(content);
            found.extend(in_line.into_iter().map(|range| offset + range.start..offset + range.end));
            below = open.then_some(indent);
        }
        offset += line.len();
    }
    found
}

/// A URL as it may be shown.
pub(crate) fn hide_in_url(url: &str) -> String {
    let mut shown = url.to_owned();
    let mut hidden = ranges(url);
    hidden.sort_by_key(|range| range.start);
    for range in hidden.into_iter().rev() {
        shown.replace_range(range, "***");
    }
    shown
}

/// The ranges within one line, and whether the last secret goes on in the next.
fn line_ranges(line: &str) -> (Vec<Range<usize>>, bool) {
    let mut found = Vec::new();
    let mut open = false;
    if let Some(at) = line.rfind('@') {
        let start = match line.find("//") {
            Some(slashes) if slashes < at => slashes + 2,
            // `user:password@host` without a scheme
            _ => {
                let head = line.get(..at).unwrap_or_default();
                let token = head.rfind(|c: char| c.is_whitespace() || "\"'".contains(c)).map_or(0, |space| space + 1);
                head.get(token..).and_then(|token| token.find(':')).map_or(at, |colon| token + colon + 1)
            }
        };
        if start < at {
            found.push(start..at);
        }
    }
    let mut from = 0;
    while let Some((key_end, separator)) = secret_key(line, from) {
        let rest = line.get(separator + 1..).unwrap_or_default();
        let value = rest.trim_start();
        let start = line.len() - value.len();
        let in_url = line.as_bytes().get(separator) == Some(&b'=');
        let flow = line.get(..key_end).is_some_and(|head| head.contains('{'));
        let length = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => match closing(value, quote) {
                Some(end) => end,
                None => {
                    open = true;
                    value.len()
                }
            },
            // Look for secrets inside; whoever reads the key as a secret hides the whole.
            Some('{' | '[') => 0,
            None | Some('|' | '>' | '&' | '!') => {
                open = true;
                value.len()
            }
            Some(_) if in_url => value.find(|c: char| c.is_whitespace() || "&\"'".contains(c)).unwrap_or(value.len()),
            // Also plain text may go on in the next line.
            Some(_) => {
                let end = if flow { value.find([',', '}']) } else { None };
                open |= end.is_none();
                end.unwrap_or(value.len())
            }
        };
        if length > 0 {
            found.push(start..start + length);
        }
        from = (start + length).max(separator + 1);
    }
    (found, open)
}

/// The end of a key that names a secret, and its `:` or `=`, at or after `from`.
fn secret_key(line: &str, from: usize) -> Option<(usize, usize)> {
    const INSIDE: [&str; 6] = ["passw", "pasw", "passphrase", "pwd", "secret", "token"];
    const LAST: [&str; 5] = ["pass", "key", "hash", "psk", "pin"];
    let bytes = line.as_bytes();
    let mut at = from;
    loop {
        let separator = at + bytes.get(at..)?.iter().position(|b| matches!(b, b':' | b'='))?;
        let head = line.get(from..separator).unwrap_or_default().trim_end().trim_end_matches(['"', '\'']);
        let start = head
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |at| at + head.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8));
        let key = head.get(start..).unwrap_or_default().to_lowercase();
        // A camera may well be called `passage` or `monkey`.
        let last = key.rsplit(['_', '-']).next().unwrap_or_default();
        if (INSIDE.iter().any(|word| key.contains(word)) && !key.ends_with("_file")) || LAST.contains(&last) {
            return Some((from + head.len(), separator));
        }
        at = separator + 1;
    }
}

/// The length of a quoted text, both quotes included.
fn closing(value: &str, quote: char) -> Option<usize> {
    let mut characters = value.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if quote == '"' && c == '\\' {
            characters.next();
        } else if c == quote {
            if quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == '\'') {
                characters.next();
            } else {
                return Some(at + c.len_utf8());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(text: &str) -> String {
        let mut shown = text.to_owned();
        let mut ranges = ranges(text);
        ranges.sort_by_key(|range| range.start);
        for range in ranges.into_iter().rev() {
            shown.replace_range(range, "***");
        }
        shown
    }

    #[test]
    fn secrets_in_any_spelling_are_hidden() {
        for (line, shown) in [
            ("password: hunter2", "password: ***"),
            ("password: hunter2, and } more", "password: ***"),
            ("{ password: hunter2, b: 1 }", "{ password: ***, b: 1 }"),
            ("- {\"stream_key\": \"hun\\\"ter2\", b: 1}", "- {\"stream_key\": ***, b: 1}"),
            ("url: rtsp://admin:hun/t#er2@192.0.2.1/x", "url: rtsp://***@192.0.2.1/x"),
            ("source: admin:hunter2@192.0.2.1", "source: admin:***@192.0.2.1"),
            ("source: rtsp://h/user=a&password=hunter2&channel=1", "source: rtsp://h/user=a&password=***&channel=1"),
            ("password:\n    hunter2\n\n    hunter3\nb: 1", "password:\n    ***\n\n    ***\nb: 1"),
            ("a:\n  password: |\n    hunter2\n  b: 1", "a:\n  password: ***\n    ***\n  b: 1"),
            ("password: \"hunter\n  2\"\nb: 1", "password: ***\n  ***\nb: 1"),
            ("password_file: x.txt", "password_file: x.txt"),
            ("passage:\n  source: x", "passage:\n  source: x"),
        ] {
            assert_eq!(masked(line), shown);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_cut_at_characters(text in "[ -~\u{fc}\n\"'@:=|>{}pastokenwd]{0,120}") {
            for range in ranges(&text) {
                prop_assert!(text.get(range).is_some());
            }
        }
    }
}
