//! What a filter asks of `type` or `source` at the least, so that an index can find the few filters that an event concerns.

use super::attributes::Expected;
use super::texts::Relation;
use super::{Filter, Node};

/// Values of which an event must have one, or the filter does not hold, without a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The attribute `type` is one of these.
    Type(Vec<Box<str>>),
    /// The attribute `source` is one of these.
    Source(Vec<Box<str>>),
}

impl Key {
    fn of(name: &str, value: &str) -> Option<Self> {
        match name {
            "type" => Some(Self::Type(vec![value.into()])),
            "source" => Some(Self::Source(vec![value.into()])),
            _ => None,
        }
    }

    /// `type` tells more than `source`, as a rule.
    fn better(self, other: Option<Self>) -> Self {
        match (self, other) {
            (Self::Source(_), Some(types @ Self::Type(_))) => types,
            (this, _) => this,
        }
    }

    fn or(self, other: Self) -> Option<Self> {
        let join = |mut ours: Vec<Box<str>>, theirs: Vec<Box<str>>| {
            ours.extend(theirs);
            ours.sort_unstable();
            ours.dedup();
            ours
        };
        match (self, other) {
            (Self::Type(ours), Self::Type(theirs)) => Some(Self::Type(join(ours, theirs))),
            (Self::Source(ours), Self::Source(theirs)) => Some(Self::Source(join(ours, theirs))),
            _ => None,
        }
    }
}

impl Filter {
    /// What every event that the filter wants has. None: nothing that an index could use. An event without it is not wanted, and
    /// asking the filter would not have met a fault either.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        self.0.key()
    }
}

impl Node {
    fn key(&self) -> Option<Key> {
        let pairs = |found: &mut dyn Iterator<Item = Option<Key>>| {
            found.flatten().fold(None, |best: Option<Key>, key| Some(key.better(best)))
        };
        match self {
            Self::Attributes(attributes) => pairs(&mut attributes.expected().map(|(name, expected)| match expected {
                Expected::Exactly(text) => Key::of(name, text),
                Expected::Any => None,
            })),
            Self::Texts(texts) if texts.relation == Relation::Exact => {
                pairs(&mut texts.given.iter().map(|(name, text)| Key::of(name, text)))
            }
            Self::Texts(_) | Self::Not(_) => None,
            // A part that may meet a fault is to be asked whatever comes behind it.
            Self::All(parts) => {
                let mut best: Option<Key> = None;
                for part in parts {
                    if let Some(key) = part.key() {
                        best = Some(key.better(best));
                    }
                    if part.may_fault() {
                        break;
                    }
                }
                best
            }
            // One part that anything may satisfy, and the key is gone.
            Self::Any(parts) => {
                let mut keys = parts.iter().map(Self::key);
                let first = keys.next().flatten()?;
                keys.try_fold(first, |all, key| all.or(key?))
            }
            Self::Cesql(expression) => ["type", "source"]
                .into_iter()
                .find_map(|name| expression.required(name).and_then(|value| Key::of(name, value))),
        }
    }

    fn may_fault(&self) -> bool {
        match self {
            Self::Attributes(_) | Self::Texts(_) => false,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::may_fault),
            Self::Not(part) => part.may_fault(),
            Self::Cesql(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Dialect;

    fn key(json: &str) -> Option<Key> {
        let dialects: Vec<Dialect> = serde_json::from_str(json).expect(json);
        Filter::dialects(&dialects).expect(json).key()
    }

    fn types(values: &[&str]) -> Option<Key> {
        Some(Key::Type(values.iter().map(|v| (*v).into()).collect()))
    }

    #[test]
    fn equality_of_type_or_source_is_a_key_wherever_it_must_hold() {
        assert_eq!(key(r#"[{"exact":{"type":"a","source":"/s"}}]"#), types(&["a"]));
        assert_eq!(key(r#"[{"exact":{"source":"/s"}}]"#), Some(Key::Source(vec!["/s".into()])));
        assert_eq!(key(r#"[{"exact":{"source":"/s"}},{"exact":{"type":"a"}}]"#), types(&["a"]));
        assert_eq!(key(r#"[{"prefix":{"subject":"x"}},{"all":[{"exact":{"type":"a"}}]}]"#), types(&["a"]));
        assert_eq!(
            key(r#"[{"any":[{"exact":{"type":"b"}},{"exact":{"type":"a"}},{"exact":{"type":"b"}}]}]"#),
            types(&["a", "b"])
        );
        assert_eq!(key(r#"[{"cesql":"type = 'a' AND subject LIKE 'x%'"}]"#), types(&["a"]));
    }

    #[test]
    fn what_need_not_hold_is_no_key() {
        for json in [
            "[]",
            r#"[{"prefix":{"type":"a"}}]"#,
            r#"[{"not":{"exact":{"type":"a"}}}]"#,
            r#"[{"exact":{"subject":"a"}}]"#,
            r#"[{"any":[{"exact":{"type":"a"}},{"exact":{"source":"/s"}}]}]"#,
            r#"[{"any":[{"exact":{"type":"a"}},{"prefix":{"type":"b"}}]}]"#,
            r#"[{"cesql":"type = 'a' OR subject LIKE 'x%'"}]"#,
        ] {
            assert_eq!(key(json), None, "{json}");
        }
    }

    #[test]
    fn a_part_that_may_meet_a_fault_is_asked_before_a_key_behind_it() {
        assert_eq!(key(r#"[{"cesql":"subject = 'x'"},{"exact":{"type":"a"}}]"#), None);
        assert_eq!(key(r#"[{"exact":{"type":"a"}},{"cesql":"subject = 'x'"}]"#), types(&["a"]));
    }
}
