//! Medians, Markdown tables and verdicts.

use serde::Serialize;

/// The median; the mean of the middle two where their number is even; none of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// `median (min-max)` with that many digits; a dash of nothing.
pub fn spread(values: impl IntoIterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (median(values.iter().copied()), values.first(), values.last()) {
        (Some(m), Some(min), Some(max)) => format!("{m:.digits$} ({min:.digits$}-{max:.digits$})"),
        _ => "-".into(),
    }
}

/// A Markdown table; the first column is text, the others are numbers.
pub fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let rule: Vec<&str> = head.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "--:" }).collect();
    let mut text = format!("| {} |\n|{}|\n", head.join(" | "), rule.join("|"));
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

/// One target and whether it was met.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What was asked.
    pub target: String,
    /// What was measured.
    pub measured: String,
    /// Met.
    pub pass: bool,
}

impl Verdict {
    /// A verdict.
    pub fn new(pass: bool, target: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { target: target.into(), measured: measured.into(), pass }
    }
}

/// The verdicts as a table.
pub fn verdicts(list: &[Verdict]) -> String {
    let word = |pass| if pass { "met" } else { "**missed**" }.to_owned();
    let rows: Vec<_> = list.iter().map(|v| vec![v.target.clone(), v.measured.clone(), word(v.pass)]).collect();
    markdown(&["target", "measured", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([1.0, 2.0]), Some(1.5));
        assert_eq!(median([]), None);
        assert_eq!(spread([0.2, 0.1, 0.4], 2), "0.20 (0.10-0.40)");
    }

    #[test]
    fn a_table() {
        let text = verdicts(&[Verdict::new(false, "at most 1", "2")]);
        assert_eq!(text, "| target | measured |  |\n|---|--:|--:|\n| at most 1 | 2 | **missed** |\n");
    }
}
