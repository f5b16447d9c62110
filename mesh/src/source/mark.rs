//! Durable marks: how far a source has come.
//!
//! A mark is a fact in a Broker's journal. It rides in the commit of the events that it is about, in the Broker that they go to;
//! those of a source whose sink is a URL are in `default/default`. A source whose sink has changed leaves an older mark behind:
//! each has a number, and the highest counts.

use crate::broker::{Broker, Brokers};
use crate::delivery::{Owner, append};
use crate::manifest::{Kind, ObjectName};

/// All marks have keys that begin so.
const PREFIX: &[u8] = b"source/";

/// Longest mark in bytes: facts stay in memory, and every segment begins with them.
pub(super) const MAX_BYTES: usize = 8 << 10;

/// The mark of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Grows with each mark of the source.
    pub(super) number: u64,
    /// Who brought the source.
    pub(super) owner: String,
    /// What the source made of it.
    pub(super) value: Vec<u8>,
}

impl Mark {
    pub(super) fn key(kind: Kind, name: &ObjectName) -> Vec<u8> {
        format!("source/{kind}/{name}").into_bytes()
    }

    pub(super) fn encode(number: u64, owner: Owner, value: &[u8]) -> Vec<u8> {
        let mut out = number.to_le_bytes().to_vec();
        out.extend_from_slice(owner.name().as_bytes());
        out.push(0);
        out.extend_from_slice(value);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let end = rest.iter().position(|b| *b == 0)?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            owner: String::from_utf8(rest.get(..end)?.to_vec()).ok()?,
            value: rest.get(end + 1..)?.to_vec(),
        })
    }

    /// The newest mark under this key.
    pub(super) fn find(brokers: &Brokers, key: &[u8]) -> Option<Self> {
        let marks = brokers.list().into_iter().filter_map(|broker| Self::decode(&broker.journal().fact(key)?));
        marks.max_by_key(|mark| mark.number)
    }

    /// Removes the marks under this key, durably, wherever they are.
    pub(super) async fn forget(brokers: &Brokers, key: &[u8]) {
        for broker in brokers.list() {
            if broker.journal().fact(key).is_some() {
                remove(&broker, key).await;
            }
        }
    }

    /// Removes the marks of those sources that `gone` names by owner and key.
    pub(super) async fn forget_all(brokers: &Brokers, gone: impl Fn(&str, &[u8]) -> bool) {
        for broker in brokers.list() {
            for (key, value) in broker.journal().facts(PREFIX) {
                if Self::decode(&value).is_none_or(|mark| gone(&mark.owner, &key)) {
                    remove(&broker, &key).await;
                }
            }
        }
    }
}

async fn remove(broker: &Broker, key: &[u8]) {
    if let Err(error) = append(broker.journal(), |append| append.delete(key)).await {
        let key = String::from_utf8_lossy(key);
        tracing::warn!(mark = %key, broker = %broker.name(), %error, "the mark of a source that has gone stays behind");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mark_is_read_back(number: u64, value: Vec<u8>) {
            let mark = Mark::decode(&Mark::encode(number, Owner::Files, &value)).expect("a mark");
            prop_assert_eq!(mark, Mark { number, owner: "files".to_owned(), value });
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Mark::decode(&bytes);
        }
    }
}
