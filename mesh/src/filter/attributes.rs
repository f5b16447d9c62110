//! `filter.attributes`: every attribute named must have exactly the value given.

use std::collections::BTreeMap;

use thiserror::Error;

/// Most bytes that an attribute's name may have.
const MAX_NAME_BYTES: usize = 255;

/// A filter that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{attribute}\" is not the name of an attribute: a lower-case letter, then lower-case letters and digits")]
pub struct FilterError {
    /// The name as given.
    pub attribute: String,
}

/// All of these must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Box<[(Box<str>, Expected)]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
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
                    return Err(FilterError { attribute: name.chars().take(64).collect() });
                }
                let expected = if value.is_empty() { Expected::Any } else { Expected::Exactly(value.as_str().into()) };
                Ok((name.as_str().into(), expected))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
