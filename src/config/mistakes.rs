//! Mistakes in a configuration, shown where they are.

use super::mask;
use super::tree::Place;
use std::fmt;
use std::ops::Range;

/// Mistakes shown at most; nobody corrects more at once.
const SHOWN: usize = 100;
/// Characters of a source line that are shown around a mistake.
const WIDTH: usize = 120;

/// One mistake, or one doubt where it is a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in that line, from 1, in characters.
    pub column: usize,
    /// What is wrong. Holds no secret.
    pub text: String,
    /// The line, secrets hidden, shortened around the mistake; empty where there is none.
    pub source: String,
    /// Where the mistake is in `source`, from 0, in characters.
    pub caret: usize,
}

/// All that is wrong with a configuration file, in the order of the file. Its text holds no secret.
///
/// Prints `FILE:LINE:COLUMN: text` for each, with the line and a caret below.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    /// The file as it was named.
    pub file: String,
    /// At least one.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.list.iter().take(SHOWN).enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", mistake.in_file(&self.file))?;
        }
        if let Some(more) = self.list.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            write!(f, "\n… and {more} more")?;
        }
        Ok(())
    }
}

impl Mistake {
    /// The mistake as [`Mistakes`] prints it.
    pub fn in_file(&self, file: &str) -> impl fmt::Display {
        InFile { file: file.to_owned(), mistake: self.clone() }
    }
}

struct InFile {
    file: String,
    mistake: Mistake,
}

impl fmt::Display for InFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { line, column, text, source, caret } = &self.mistake;
        write!(f, "{}:{line}:{column}: {text}", self.file)?;
        if !source.is_empty() {
            let number = line.to_string();
            write!(f, "\n  {number} | {source}\n  {:2$} | {:caret$}^", "", "", number.len())?;
        }
        Ok(())
    }
}

/// Turns places and words into [`Mistake`]s: sorted, each with its line, in which the `secret` byte ranges and all that
/// looks like a secret are hidden.
pub(crate) fn show(text: &str, mut found: Vec<(Place, String)>, secret: Vec<Range<usize>>) -> Vec<Mistake> {
    found.sort();
    found.dedup();
    let mut hidden = mask::ranges(text);
    hidden.extend(secret);
    let lines: Vec<(usize, &str)> = text
        .split_inclusive('\n')
        .scan(0, |offset, line| {
            let start = *offset;
            *offset += line.len();
            Some((start, line.trim_end_matches(['\n', '\r'])))
        })
        .collect();
    found
        .into_iter()
        .map(|(place, text)| {
            let (source, caret) = match lines.get(place.line - 1) {
                Some((offset, line)) if !line.trim().is_empty() => {
                    masked_line(line, *offset, place.column - 1, &hidden)
                }
                _ => (String::new(), 0),
            };
            Mistake { line: place.line, column: place.column, text, source, caret }
        })
        .collect()
}

/// A line with its secrets as `***`, and where the character at `column` (from 0) has gone.
fn masked_line(line: &str, offset: usize, column: usize, hidden: &[Range<usize>]) -> (String, usize) {
    let here: Vec<&Range<usize>> =
        hidden.iter().filter(|range| range.start < offset + line.len() && range.end > offset).collect();
    let mut shown: Vec<char> = Vec::new();
    let mut caret = None;
    let mut in_secret = false;
    for (n, (at, c)) in line.char_indices().enumerate() {
        let secret = here.iter().any(|range| range.contains(&(offset + at)));
        if n == column {
            // Within a secret it points to its beginning.
            caret = Some(if secret && in_secret { shown.len().saturating_sub(3) } else { shown.len() });
        }
        if secret && !in_secret {
            shown.extend("***".chars());
        } else if !secret {
            // Terminals obey control characters.
            shown.push(if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            });
        }
        in_secret = secret;
    }
    let caret = caret.unwrap_or(shown.len());
    if shown.len() <= WIDTH {
        return (shown.into_iter().collect(), caret);
    }
    let start = caret.saturating_sub(WIDTH / 2).min(shown.len() - WIDTH);
    let part: String = shown.iter().skip(start).take(WIDTH).collect();
    let (before, after) = (if start > 0 { "…" } else { "" }, if start + WIDTH < shown.len() { "…" } else { "" });
    (format!("{before}{part}{after}"), caret - start + before.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize, words: &str) -> (Place, String) {
        (Place { line, column }, words.to_owned())
    }

    #[test]
    fn prints_file_line_column_and_a_caret_in_order() {
        let text = "http: {}\n\tcameras: { tür: [] }\n";
        let list = show(text, vec![at(2, 13, "second"), at(1, 1, "first"), at(9, 1, "beyond")], Vec::new());
        let shown = Mistakes { file: "a.yaml".into(), list }.to_string();
        assert_eq!(
            shown,
            "a.yaml:1:1: first\n  1 | http: {}\n    | ^\n\
             a.yaml:2:13: second\n  2 |  cameras: { tür: [] }\n    |             ^\n\
             a.yaml:9:1: beyond"
        );
    }

    #[test]
    fn the_caret_follows_what_is_hidden() {
        let text = "a: { password: longer-than-three, b: 1 }";
        let list = show(text, vec![at(1, 35, "x"), at(1, 20, "y")], Vec::new());
        assert_eq!((list[1].source.as_str(), list[1].caret), ("a: { password: ***, b: 1 }", 20));
        assert_eq!(list[0].caret, 15);
        let list = show("x: canary", vec![at(1, 1, "x")], vec![3..9, 5..20]);
        assert_eq!(list[0].source, "x: ***");
    }

    #[test]
    fn long_lines_are_shortened_around_the_mistake() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let list = show(&text, vec![at(1, 501, "x")], Vec::new());
        let shown: Vec<char> = list[0].source.chars().collect();
        assert_eq!(shown.len(), WIDTH + 2);
        assert_eq!(shown[list[0].caret], 'X');
    }
}
