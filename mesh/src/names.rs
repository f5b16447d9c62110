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

/// The name of a durable queue: a Broker, displayed as `namespace/name`, or a Channel, displayed as `channels/namespace/name`, which
/// is its path too. Brokers come first in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerName {
    channel: bool,
    namespace: String,
    name: String,
}

/// What a Channel's name begins with when it is displayed; no namespace is called so.
const CHANNELS: &str = "channels";

impl BrokerName {
    /// A checked broker name.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        Self::checked(false, "broker", namespace, name)
    }

    /// A checked name of a Channel.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn channel(namespace: &str, name: &str) -> Result<Self, NameError> {
        Self::checked(true, "channel", namespace, name)
    }

    fn checked(channel: bool, what: &'static str, namespace: &str, name: &str) -> Result<Self, NameError> {
        check_name("namespace", namespace)?;
        check_name(what, name)?;
        if RESERVED_NAMESPACES.contains(&namespace) {
            return Err(NameError::Reserved { name: namespace.to_owned() });
        }
        Ok(Self { channel, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Whether it is a Channel's. Channels never go up to the gateway.
    #[must_use]
    pub fn is_channel(&self) -> bool {
        self.channel
    }

    /// `broker` or `channel`.
    #[must_use]
    pub fn what(&self) -> &'static str {
        if self.channel { "channel" } else { "broker" }
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
        Self { channel: false, namespace: DEFAULT_NAMESPACE.to_owned(), name: "default".to_owned() }
    }
}

impl fmt::Display for BrokerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, slash) = if self.channel { (CHANNELS, "/") } else { ("", "") };
        write!(f, "{prefix}{slash}{}/{}", self.namespace, self.name)
    }
}

impl FromStr for BrokerName {
    type Err = NameError;

    /// Parses `namespace/name`, `name` in the default namespace, or `channels/namespace/name`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((CHANNELS, rest)) if rest.contains('/') => {
                let (namespace, name) = rest.split_once('/').unwrap_or_default();
                Self::channel(namespace, name)
            }
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
    fn a_channel_is_no_broker_of_its_name() {
        let channel = "channels/site-1/alarms".parse::<BrokerName>().expect("valid");
        assert!(channel.is_channel());
        assert_eq!(channel.to_string(), "channels/site-1/alarms");
        assert_ne!(channel, BrokerName::new("site-1", "alarms").expect("valid"));
        assert!("channels/alarms".parse::<BrokerName>().is_err(), "no namespace is called channels");
        assert!("channels/a/b/c".parse::<BrokerName>().is_err());
    }

    #[test]
    fn a_word_of_the_api_is_no_namespace() {
        assert!(matches!(BrokerName::new("status", "x"), Err(NameError::Reserved { .. })));
        assert!(matches!(BrokerName::new("Default", "x"), Err(NameError::Character { .. })));
        assert!(matches!(BrokerName::new("", "x"), Err(NameError::Length { .. })));
    }
}
