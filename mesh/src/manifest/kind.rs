//! The kinds of objects.

use std::fmt;

use super::error::FieldError;
use super::schema::{RESOURCES, Resource, Version};

/// A kind. What is known of it stands in its [`Resource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is described in its resource")]
pub enum Kind {
    Broker,
    Trigger,
    Channel,
    InMemoryChannel,
    Subscription,
    Sequence,
    Parallel,
    EventType,
    PingSource,
    ContainerSource,
    SinkBinding,
    MqttSource,
    HttpPollSource,
    FileSource,
    ProgramSource,
    EventPolicy,
    RequestReply,
    EventTransform,
    JobSink,
    IntegrationSink,
    IntegrationSource,
    ApiServerSource,
    KafkaSource,
    KafkaSink,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = Self::KafkaSink as usize + 1;

    /// What is known of it.
    #[must_use]
    pub fn resource(self) -> &'static Resource {
        &RESOURCES[self as usize]
    }

    /// The kind and version that an object with these fields has.
    ///
    /// # Errors
    /// Which of the two is wrong or missing, and what to write.
    pub(crate) fn find(api_version: Option<&str>, kind: &str) -> Result<(Self, &'static Version), FieldError> {
        let written = api_version.ok_or_else(|| FieldError::new("apiVersion", "is missing, or no string").missing())?;
        if kind.is_empty() {
            return Err(FieldError::new("kind", "is missing, or no string").missing());
        }
        let (group, version) = written.split_once('/').unwrap_or(("", written));
        let mut named = RESOURCES.iter().filter(|r| r.name == kind).peekable();
        if named.peek().is_none() {
            return Err(FieldError::new("kind", format!("{} of {} is not known", cut(kind), cut(written))));
        }
        if let Some(found) = named.clone().find_map(|r| Some((r.kind, (r.group == group).then(|| r.version(version))??))) {
            return Ok(found);
        }
        let known: Vec<String> = named.flat_map(|r| r.versions.iter().map(|v| format!("{}/{}", r.group, v.name))).collect();
        let why = format!("\"{}\" is not known for a {kind}; write {}", cut(written), known.join(" or "));
        Err(FieldError::new("apiVersion", why))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource().name)
    }
}
