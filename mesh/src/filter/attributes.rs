//! `filter.attributes`: every attribute named must have exactly the value given.

use std::collections::BTreeMap;

use super::{FilterError, some};
use crate::event::{AttributeRef, StoredEvent};
use crate::journal::Summary;

/// Most bytes that an attribute's name may have.
const MAX_NAME_BYTES: usize = 255;

/// All of these must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Box<[(Box<str>, Expected)]>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// Present and not empty.
    Any,
    /// Exactly this, letter for letter.
    Exactly(Box<str>),
}

impl Attributes {
    /// Checks the names (D29).
    pub(super) fn compile(attributes: &BTreeMap<String, String>) -> Result<Self, FilterError> {
        attributes
            .iter()
            .map(|(name, value)| {
                if !is_name(name) {
                    let cut: String = name.chars().take(64).collect();
                    return Err(FilterError { why: no_name(&cut), field: format!("[{cut}]") });
                }
                let expected = if value.is_empty() { Expected::Any } else { Expected::Exactly(value.as_str().into()) };
                Ok((name.as_str().into(), expected))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a segment with this summary may hold a match.
    pub(super) fn wants(&self, summary: &Summary) -> bool {
        self.0.iter().all(|(name, expected)| match (&**name, expected) {
            ("type", Expected::Exactly(text)) => some(&summary.types, |value| value == &**text),
            ("source", Expected::Exactly(text)) => some(&summary.sources, |value| value == &**text),
            _ => true,
        })
    }

    /// The names and what they must be, in the order in which they are looked at.
    pub(super) fn expected(&self) -> impl Iterator<Item = (&str, &Expected)> {
        self.0.iter().map(|(name, expected)| (&**name, expected))
    }

    pub(super) fn matches(&self, event: &StoredEvent, scratch: &mut String) -> bool {
        self.expected().all(|(name, expected)| Self::holds(name, expected, event, scratch))
    }

    /// An attribute that is absent does not match. Only texts can equal a text: what came as a Boolean, an Integer or Binary
    /// does not equal its own canonical form.
    pub(super) fn holds(name: &str, expected: &Expected, event: &StoredEvent, scratch: &mut String) -> bool {
        let Some(value) = event.attribute(name, scratch) else { return false };
        match expected {
            Expected::Any => !matches!(value.as_str(), Some("")) && value != AttributeRef::Binary(b""),
            Expected::Exactly(text) => value.as_str() == Some(text),
        }
    }
}

/// What is wrong with something that is no attribute's name.
pub(super) fn no_name(name: &str) -> String {
    format!("\"{name}\" is not the name of an attribute: a lower-case letter, then lower-case letters and digits")
}

pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::UNTOLD;
    use crate::event::{Event, encode_event};
    use crate::journal::{Epoch, Offset, Values};

    fn compile(name: &str) -> Result<Attributes, FilterError> {
        Attributes::compile(&BTreeMap::from([(name.to_owned(), "x".to_owned())]))
    }

    #[test]
    fn d29_attribute_names_begin_with_a_letter_and_have_lower_case_letters_and_digits() {
        for name in ["type", "myextension", "a1", "badwordfilter"] {
            assert!(compile(name).is_ok(), "{name}");
        }
        for name in ["", "Type", "1a", "my-extension", "my_extension", "my.extension", "ünicode", "a b", "a\n"] {
            assert!(compile(name).is_err(), "{name:?}");
        }
    }

    fn matches(filter: &[(&str, &str)], event: &Event) -> bool {
        let filter = filter.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut body = Vec::new();
        encode_event(&mut body, event, None, std::iter::empty());
        let stored = StoredEvent::new(body.into(), Epoch(1), Offset(0), None).expect("stored");
        Attributes::compile(&filter).expect("valid").matches(&stored, &mut String::new())
    }

    fn event() -> crate::event::EventBuilder {
        Event::builder().id("1").source("/sensors/7").ty("temperature")
    }

    #[test]
    fn d26_all_attributes_must_be_equal_letter_for_letter() {
        let event = event().subject("hall").attribute("floor", "2").build().expect("valid");
        assert!(matches(&[], &event));
        assert!(matches(&[("type", "temperature")], &event));
        assert!(matches(&[("type", "temperature"), ("source", "/sensors/7"), ("floor", "2")], &event));
        assert!(!matches(&[("type", "Temperature")], &event));
        assert!(!matches(&[("type", "temperature"), ("floor", "3")], &event));
        assert!(!matches(&[("room", "2")], &event), "absent");
        assert!(matches(&[("specversion", "1.0")], &event));
    }

    #[test]
    fn a_segment_is_ruled_out_only_when_its_summary_lists_no_match() {
        let set = |values: &[&str]| Some(values.iter().map(|v| (*v).to_owned()).collect());
        let wants = |filter: &[(&str, &str)], types: Values, sources: Values| {
            let filter = filter.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let summary = Summary { types, sources, topics: None };
            Attributes::compile(&filter).expect("valid").wants(&summary)
        };
        let both = &[("type", "t"), ("source", "/s")][..];
        assert!(wants(both, set(&["t", "u"]), set(&["/s"])));
        assert!(!wants(both, set(&["u"]), set(&["/s"])));
        assert!(!wants(both, set(&["t"]), set(&["/r"])));
        assert!(wants(both, None, None), "too many to say");
        assert!(wants(both, set(&["t"]), set(&["/r", UNTOLD])), "one that cannot be told");
        assert!(wants(&[("type", ""), ("floor", "2")], set(&["u"]), set(&[])));
    }

    #[test]
    fn an_empty_value_asks_for_one_that_is_present_and_not_empty() {
        let with = event().attribute("floor", "2").attribute("blank", "").build().expect("valid");
        assert!(matches(&[("floor", "")], &with));
        assert!(!matches(&[("blank", "")], &with));
        assert!(!matches(&[("room", "")], &with));
        assert!(!matches(&[("subject", "")], &with));
    }

    #[test]
    fn what_is_no_text_equals_no_text_but_is_present() {
        let typed = event().attribute("count", 5).attribute("good", true).build().expect("valid");
        assert!(!matches(&[("count", "5")], &typed));
        assert!(!matches(&[("good", "true")], &typed));
        assert!(matches(&[("count", ""), ("good", "")], &typed));
    }
}
