//! Tables with a type, and the changes that one commit makes.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StateError;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 2 << 10;

/// Longest value in bytes, encoded.
pub const MAX_VALUE_BYTES: usize = 4 << 20;

/// A table: its name in the file and the type of its values, which are kept as CBOR maps with named fields, so that fields may
/// be added (`#[serde(default)]`).
///
/// ```
/// use godwit_mesh::state::Table;
///
/// const OBJECTS: Table<String> = Table::new("objects");
/// assert_eq!(OBJECTS.name(), "objects");
/// ```
#[derive(Debug)]
pub struct Table<V> {
    name: &'static str,
    values: PhantomData<fn() -> V>,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Table<V> {}

impl<V> Table<V> {
    /// The table with this name. One name has one type of values.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, values: PhantomData }
    }

    /// The table's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The removal of a key. One that does not exist is no error.
    #[must_use]
    pub fn delete(self, key: &[u8]) -> Op {
        Op { table: self.name, key: key.to_vec(), value: None }
    }
}

impl<V: Serialize> Table<V> {
    /// The setting of a key.
    ///
    /// # Errors
    /// [`StateError::TooLarge`]; [`StateError::Value`] if the value cannot be written as CBOR.
    pub fn put(self, key: &[u8], value: &V) -> Result<Op, StateError> {
        let bytes = serde_cbor::to_vec(value).map_err(|e| self.error(key, &e))?;
        for (what, size, limit) in [("key", key.len(), MAX_KEY_BYTES), ("value", bytes.len(), MAX_VALUE_BYTES)] {
            if size > limit {
                return Err(StateError::TooLarge { what, table: self.name, size, limit });
            }
        }
        Ok(Op { table: self.name, key: key.to_vec(), value: Some(bytes) })
    }
}

impl<V: DeserializeOwned> Table<V> {
    pub(super) fn decode(self, key: &[u8], bytes: &[u8]) -> Result<V, StateError> {
        serde_cbor::from_slice(bytes).map_err(|e| self.error(key, &e))
    }
}

impl<V> Table<V> {
    fn error(self, key: &[u8], why: &serde_cbor::Error) -> StateError {
        let key = String::from_utf8_lossy(key).into_owned();
        StateError::Value { table: self.name, key, why: why.to_string() }
    }
}

/// One change. Made by [`Table::put`] and [`Table::delete`], applied by [`super::State::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub(super) table: &'static str,
    pub(super) key: Vec<u8>,
    /// `None` removes the key.
    pub(super) value: Option<Vec<u8>>,
}
