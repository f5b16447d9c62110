//! Names that must not be mixed up: brokers, agents.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The namespace used where none is given.
pub const DEFAULT_NAMESPACE: &str = "default";

/// First path segments that the HTTP API keeps for itself: none of them can be a namespace.
pub const RESERVED_NAMESPACES: [&str; 14] = [
    "api",
    "apis",
    "openapi",
    "version",
    "sync",
    "mqtt",
    "channels",
    "sequences",
    "parallels",
    "metrics",
    "status",
    "healthz",
    "readyz",
    "livez",
];

/// Longest namespace, broker or agent name in bytes (the limit of a DNS subdomain, as in Kubernetes).
pub const MAX_NAME_BYTES: usize = 253;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The name is empty or longer than [`MAX_NAME_BYTES`].
    #[error("{what} \"{name}\" must have 1 to 253 characters")]
    Length {
        /// What the name was for.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// The name has a character outside `a-z 0-9 - .`, or begins or ends with `-` or `.`.
    #[error(
        "{what} \"{name}\" must consist of lower-case letters, digits, '-' and '.', and begin and end with a letter or digit"
    )]
    Character {
        /// What the name was for.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// The name is one of [`RESERVED_NAMESPACES`].
    #[error("\"{name}\" cannot be a namespace: the HTTP API uses this word itself")]
    Reserved {
        /// The name as given.
        name: String,
    },
}

/// Checks a Kubernetes object name (RFC 1123 subdomain).
///
/// # Errors
/// When the name is empty, too long or has characters that Kubernetes refuses.
pub fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(NameError::Length { what, name: name.chars().take(64).collect() });
    }
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let inside = bytes.iter().all(|&b| edge(b) || b == b'-' || b == b'.');
    if !inside || !bytes.first().copied().is_some_and(edge) || !bytes.last().copied().is_some_and(edge) {
        return Err(NameError::Character { what, name: name.to_owned() });
    }
    Ok(())
}

/// A broker's name: namespace and name. Displayed as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerName {
    namespace: String,
    name: String,
}

impl BrokerName {
    /// A checked broker name.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        check_name("namespace", namespace)?;
        check_name("broker", name)?;
        if RESERVED_NAMESPACES.contains(&namespace) {
            return Err(NameError::Reserved { name: namespace.to_owned() });
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Default for BrokerName {
    /// `default/default`, the broker that always exists.
    fn default() -> Self {
        Self { namespace: DEFAULT_NAMESPACE.to_owned(), name: "default".to_owned() }
    }
}

impl fmt::Display for BrokerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for BrokerName {
    type Err = NameError;

    /// Parses `namespace/name`, or `name` in the default namespace.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new(DEFAULT_NAMESPACE, text),
        }
    }
}

/// The stable name of an agent. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(std::sync::Arc<str>);

impl AgentId {
    /// A checked agent id; the rules are those of a Kubernetes object name.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(id: &str) -> Result<Self, NameError> {
        check_name("agent id", id)?;
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_name_is_parsed_with_and_without_namespace() {
        assert_eq!("alarms".parse::<BrokerName>().expect("valid").to_string(), "default/alarms");
        assert_eq!("site-1/alarms".parse::<BrokerName>().expect("valid").to_string(), "site-1/alarms");
    }

    #[test]
    fn a_word_of_the_api_is_no_namespace() {
        assert!(matches!(BrokerName::new("status", "x"), Err(NameError::Reserved { .. })));
        assert!(matches!(BrokerName::new("Default", "x"), Err(NameError::Character { .. })));
        assert!(matches!(BrokerName::new("", "x"), Err(NameError::Length { .. })));
    }
}
