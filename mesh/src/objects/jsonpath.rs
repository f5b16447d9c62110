//! JSON paths as Kubernetes writes them in printer columns and `-o jsonpath`: `.a.b`, `\.` inside a name, `['a.b']`, `[0]`, `[*]`
//! and `[?(@.type=="Ready")]`.

use serde_json::Value;

/// Most steps of a path.
const MAX_STEPS: usize = 64;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The member of this name.
    Member(String),
    /// The item at this index; from the end where negative.
    Item(i64),
    /// All items or members.
    All,
    /// The items in which the members named have this value.
    Where(Vec<String>, String),
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// Parses a path; `None` if it is none, or one of those that are not known here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        if !rest.starts_with(['.', '[']) && !rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            if steps.len() == MAX_STEPS {
                return None;
            }
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(after.get(..end)?)?);
                rest = after.get(end + 1..)?;
            } else {
                rest = rest.strip_prefix('.')?;
                let (name, after) = member(rest);
                match name.as_str() {
                    // A path may end in a dot: `.` is the whole.
                    "" if after.is_empty() || after.starts_with('[') => {}
                    "" => return None,
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Member(name)),
                }
                rest = after;
            }
        }
        Some(Self(steps))
    }

    /// Everything that the path leads to, in order.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found
    }
}

impl Step {
    fn take<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Member(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Item(at), Value::Array(items)) => {
                let at = if *at < 0 { i64::try_from(items.len()).unwrap_or(i64::MAX) + at } else { *at };
                usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Where(path, wanted), Value::Array(items)) => {
                let is = |item: &&Value| match path.iter().try_fold(*item, |at, name| at.get(name)) {
                    Some(Value::String(text)) => text == wanted,
                    Some(Value::Number(number)) => wanted.parse().is_ok_and(|n: serde_json::Number| n == *number),
                    Some(Value::Bool(truth)) => wanted.parse().is_ok_and(|t: bool| t == *truth),
                    _ => false,
                };
                items.iter().filter(is).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A name up to the next dot or bracket that has no backslash before it.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket ends that was opened before `text`; brackets inside quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(inside) {
        return Some(Step::Member(name.to_owned()));
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        let (path, value) = condition.split_once("==")?;
        let path = path.trim().strip_prefix("@.")?;
        let value = value.trim();
        let value = unquoted(value).unwrap_or(value);
        return Some(Step::Where(path.split('.').map(str::to_owned).collect(), value.to_owned()));
    }
    inside.parse().ok().map(Step::Item)
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::manifest::schema::RESOURCES;

    fn find(path: &str) -> Vec<Value> {
        let value = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
            "items": [1, 2, 3],
        });
        Path::parse(path).expect(path).find(&value).into_iter().cloned().collect()
    }

    #[test]
    fn members_items_and_conditions_are_found() {
        assert_eq!(find(".status.conditions[?(@.type==\"Ready\")].status"), [json!("True")]);
        assert_eq!(find(".status.conditions[?(@.type=='Ready')].status"), [json!("True")]);
        assert_eq!(find(".metadata.annotations.a\\.b/c"), [json!("x")]);
        assert_eq!(find("$.metadata.annotations['a.b/c']"), [json!("x")]);
        assert_eq!(find(".items[0]"), [json!(1)]);
        assert_eq!(find(".items[-1]"), [json!(3)]);
        assert_eq!(find(".items[*]"), [json!(1), json!(2), json!(3)]);
        assert_eq!(find(".status.conditions[*].type"), [json!("Other"), json!("Ready")]);
        assert!(find(".nothing.here").is_empty());
        assert_eq!(find("").len(), 1);
    }

    #[test]
    fn the_columns_of_every_kind_are_paths() {
        for column in RESOURCES.iter().flat_map(|r| r.versions).flat_map(|v| v.columns) {
            assert!(Path::parse(column.path).is_some(), "{}", column.path);
        }
    }

    #[test]
    fn what_is_no_path_is_said_to_be_none() {
        for bad in ["a", ".a..b", ".a[", ".a[x]", ".a[?(@.b)]", "..a"] {
            assert_eq!(Path::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_none(text in ".{0,40}") {
            if let Some(path) = Path::parse(&text) {
                let _ = path.find(&json!({"a": [1, {"b": 2}]}));
            }
        }
    }
}
