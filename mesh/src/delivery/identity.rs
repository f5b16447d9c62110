//! Uids of Triggers and Subscriptions: drawn when a Trigger is first applied, kept as a fact in its Broker's journal, gone with the Trigger.
//!
//! The uid is part of the consumer's name: a Trigger that was deleted and made anew under its old name is a new Trigger.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::triggers::Owner;
use crate::journal::Journal;
use crate::manifest::{Kind, ObjectKey, ObjectName};

/// What the facts' keys begin with, for each kind that has a cursor.
const PREFIXES: [(Kind, &str); 2] = [(Kind::Trigger, "t"), (Kind::Subscription, "c")];

/// What is kept of a Trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: String,
    pub(crate) owner: String,
}

impl Identity {
    /// A new Trigger's.
    pub(crate) fn draw(owner: Owner) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        let uid = uuid(bytes);
        Ok(Self { uid, owner: owner.name().to_owned() })
    }

    /// The one kept in this journal for the Trigger.
    pub(crate) fn find(journal: &Journal, of: &ObjectKey) -> Option<Self> {
        serde_json::from_slice(&journal.fact(&key(of))?).ok()
    }

    /// All that are kept in this journal. What cannot be read is passed over.
    pub(crate) fn all(journal: &Journal) -> Vec<(ObjectKey, Self)> {
        let of_kind = |(kind, prefix): (Kind, &'static str)| {
            let read = move |(key, value): (Vec<u8>, Vec<u8>)| {
                let (namespace, name) = std::str::from_utf8(&key).ok()?.strip_prefix(prefix)?.split_once('/')?;
                let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
                Some((ObjectKey { kind, name }, serde_json::from_slice(&value).ok()?))
            };
            journal.facts(prefix.as_bytes()).into_iter().filter_map(read)
        };
        PREFIXES.into_iter().flat_map(of_kind).collect()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are JSON, and memory takes all writes")
    }
}

/// Random bytes as a uid.
pub(crate) fn uuid(bytes: [u8; 16]) -> String {
    // Version 4, variant 1, as everybody expects of a uid.
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let mut uid = String::with_capacity(36);
    for (i, digit) in format!("{number:032x}").chars().enumerate() {
        if matches!(i, 8 | 12 | 16 | 20) {
            uid.push('-');
        }
        let _ = uid.write_char(digit); // writing to a String cannot fail
    }
    uid
}

/// The fact's key.
pub(crate) fn key(of: &ObjectKey) -> Vec<u8> {
    let prefix = PREFIXES.iter().find(|(kind, _)| *kind == of.kind).map_or("t", |(_, prefix)| prefix);
    format!("{prefix}{}", of.name).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_uuid_of_version_4() {
        let uid = Identity::draw(Owner::Files).expect("random numbers").uid;
        let parts: Vec<_> = uid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{uid}");
        assert_eq!(uid.chars().nth(14), Some('4'), "{uid}");
        assert!(matches!(uid.chars().nth(19), Some('8' | '9' | 'a' | 'b')), "{uid}");
    }
}
