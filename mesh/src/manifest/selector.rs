//! Label selectors as Kubernetes writes them in one line: `site=north,tier in (edge, boat),!spare`.
//!
//! Every requirement must hold. The empty selector holds for everything.

use std::collections::BTreeMap;
use std::str::FromStr;

use thiserror::Error;

/// A parsed selector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// The text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// A label key has characters that Kubernetes refuses.
    #[error("\"{0}\" is not a label key")]
    Key(String),
    /// A label value has characters that Kubernetes refuses.
    #[error("\"{0}\" is not a label value (at most 63 letters, digits, '-', '_', '.')")]
    Value(String),
    /// Something stands where it cannot.
    #[error("\"{0}\" is not a requirement: write key=value, key!=value, key in (a,b), key notin (a,b), key or !key")]
    Requirement(String),
}

impl LabelSelector {
    /// Whether all requirements hold for these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }

    /// Whether this selector holds for everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        split_outside_parentheses(text).map(|part| requirement(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

/// The parts between commas that are not inside parentheses.
fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    let wrong = || SelectorError::Requirement(part.chars().take(80).collect());
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(checked_key(key.trim())?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(checked_key(key.trim())?, vec![checked_value(value.trim())?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(checked_key(key.trim())?, vec![checked_value(value.trim())?]));
    }
    if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(wrong)?;
        let values = list.split(',').map(|v| checked_value(v.trim())).collect::<Result<Vec<_>, _>>()?;
        let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
        let key = checked_key(key.trim())?;
        return match operator {
            "in" => Ok(Requirement::In(key, values)),
            "notin" => Ok(Requirement::NotIn(key, values)),
            _ => Err(wrong()),
        };
    }
    if part.contains(char::is_whitespace) || part.is_empty() {
        return Err(wrong());
    }
    Ok(Requirement::Exists(checked_key(part)?))
}

fn checked_key(key: &str) -> Result<String, SelectorError> {
    if is_label_key(key) { Ok(key.to_owned()) } else { Err(SelectorError::Key(key.chars().take(80).collect())) }
}

fn checked_value(value: &str) -> Result<String, SelectorError> {
    if is_label_value(value) { Ok(value.to_owned()) } else { Err(SelectorError::Value(value.chars().take(80).collect())) }
}

/// Whether Kubernetes takes `key` for a label or annotation: an optional DNS prefix and `/`, then a name.
pub(crate) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(|p| crate::names::check_name("label prefix", p).is_ok()) && !name.is_empty() && is_label_value(name)
}

/// Whether Kubernetes takes `value` for a label: empty, or at most 63 characters that begin and end with a letter or digit.
pub(crate) fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return true };
    value.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        selector.parse::<LabelSelector>().expect(selector).matches(&labels)
    }

    #[test]
    fn the_empty_selector_holds_for_every_agent() {
        assert!(holds("", &[]));
        assert!(holds("  ", &[("site", "north")]));
    }

    #[test]
    fn equality_and_sets_are_read_as_kubernetes_reads_them() {
        let north = &[("site", "north"), ("tier", "edge")][..];
        assert!(holds("site=north", north));
        assert!(holds("site==north,tier in (boat, edge)", north));
        assert!(holds("site in (north)", north));
        assert!(!holds("site!=north", north));
        assert!(!holds("tier notin (edge,boat)", north));
        assert!(holds("tier notin (boat)", north));
        assert!(holds("site,!spare", north));
        assert!(!holds("spare", north));
        assert!(holds("spare!=yes", north), "an absent label is not equal to anything");
        assert!(holds("example.com/rack=", &[("example.com/rack", "")]));
    }

    #[test]
    fn a_malformed_selector_is_refused_with_its_part() {
        for bad in ["site=north,", "site in north", "site in (a", "a b", "=x", "site=a b", "-a=b", "x of (a)"] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(text in ".{0,40}") {
            let _ = text.parse::<LabelSelector>();
        }
    }
}
