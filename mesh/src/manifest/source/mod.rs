//! The kinds that make events: PingSource, ContainerSource and SinkBinding of `sources.knative.dev/v1`, and ours.

mod read;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use super::annotations::MissedRuns;
use super::destination::Destination;
use super::duration::IsoDuration;
use super::kind::Kind;
use super::metadata::ObjectName;
use super::selector::LabelSelector;
use super::template::Template;
use crate::cron::Schedule;
use crate::event::Value;

/// A source, validated.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its namespace and name.
    pub name: ObjectName,
    /// Where its events go; absent: a SinkBinding is to say it.
    pub sink: Option<Destination>,
    /// What is set on every event: `ceOverrides.extensions`.
    pub overrides: Vec<(String, Value)>,
    /// What it does.
    pub what: SourceKind,
}

/// What a source does, by kind.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// Makes an event at the times of a schedule.
    Ping(PingSpec),
    /// Takes what is published under topics.
    Mqtt(MqttSpec),
    /// Asks a URL again and again.
    HttpPoll(HttpPollSpec),
    /// Reads a file's lines, or the files of a folder.
    File(FileSpec),
    /// Runs a program.
    Program(ProgramSpec),
    /// Runs a container.
    Container(ContainerSpec),
    /// Tells programs where to send their events.
    Binding(Subject),
}

/// A PingSource.
#[derive(Debug, Clone)]
pub struct PingSpec {
    /// When it fires.
    pub schedule: Schedule,
    /// The time zone of the schedule; absent: UTC.
    pub timezone: Option<String>,
    /// Media type of the data.
    pub content_type: Option<String>,
    /// The events' data.
    pub data: Option<Bytes>,
    /// What becomes of runs that were missed.
    pub missed: MissedRuns,
}

/// A MqttSource.
#[derive(Debug, Clone)]
pub struct MqttSpec {
    /// Topic filters.
    pub topics: Vec<String>,
    /// URL of another MQTT broker; absent: the agent's own listener.
    pub server: Option<String>,
    /// The events' type.
    pub ty: Option<Template>,
    /// The events' source.
    pub source: Option<Template>,
    /// The events' subject.
    pub subject: Option<Template>,
}

/// A HttpPollSource.
#[derive(Debug, Clone)]
pub struct HttpPollSpec {
    /// What is asked.
    pub uri: url::Url,
    /// How often.
    pub interval: IsoDuration,
    /// JSON pointer to the list whose items become events.
    pub items: Option<String>,
    /// JSON pointer, within an item, to what it is known by.
    pub id: Option<String>,
    /// The events' type.
    pub ty: Option<String>,
}

/// What a FileSource reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileMode {
    /// Each line of one file is an event.
    Lines,
    /// Each file of a folder is an event.
    Files,
}

/// Where a FileSource begins in a file that it sees for the first time at its first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileStart {
    /// At its beginning.
    Beginning,
    /// At its end.
    End,
}

/// A FileSource.
#[derive(Debug, Clone)]
pub struct FileSpec {
    /// The file, or the folder.
    pub path: std::path::PathBuf,
    /// Which of the two.
    pub mode: FileMode,
    /// Where the first file is begun.
    pub start: FileStart,
    /// Where files go when their events are durable; absent: they are deleted.
    pub done: Option<std::path::PathBuf>,
    /// Largest file whose content is in its event; a larger one is only referred to. Absent: 64 KiB.
    pub inline_bytes: Option<u64>,
    /// Media type of the events' data.
    pub content_type: Option<String>,
    /// The events' type.
    pub ty: Option<String>,
}

/// A ProgramSource.
#[derive(Debug, Clone)]
pub struct ProgramSpec {
    /// The program and all its arguments.
    pub command: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// The user that it runs as.
    pub user: Option<String>,
    /// Whether each line that it prints is an event.
    pub lines: bool,
    /// Media type of the data of such events.
    pub content_type: Option<String>,
    /// The type of such events.
    pub ty: Option<String>,
    /// Most bytes of its address space.
    pub memory_bytes: Option<u64>,
    /// Most files that it may have open.
    pub open_files: Option<u64>,
}

/// A ContainerSource: the first container of its template.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// The image.
    pub image: String,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
}

/// What a SinkBinding binds.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Kind of the objects.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
    /// Name of the one object.
    pub name: Option<String>,
    /// Labels of the objects.
    pub selector: Option<LabelSelector>,
}

/// Whether objects of a kind are sources.
pub(super) fn is_source(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::PingSource
            | Kind::ContainerSource
            | Kind::SinkBinding
            | Kind::MqttSource
            | Kind::HttpPollSource
            | Kind::FileSource
            | Kind::ProgramSource
    )
}

impl SourceSpec {
    /// What it asks for that is not built yet.
    #[must_use]
    pub fn not_built(&self) -> Option<&'static str> {
        match &self.what {
            SourceKind::Mqtt(mqtt) if mqtt.server.is_some() => {
                Some("spec.server: other MQTT brokers are not built yet; without it, the agent's own listener is meant")
            }
            _ => None,
        }
    }
}

impl Subject {
    /// Whether it is this ProgramSource.
    #[must_use]
    pub fn is(&self, name: &ObjectName, labels: &BTreeMap<String, String>) -> bool {
        self.kind == Kind::ProgramSource.resource().name
            && self.namespace == name.namespace
            && match (&self.name, &self.selector) {
                (Some(wanted), _) => *wanted == name.name,
                (None, Some(selector)) => selector.matches(labels),
                (None, None) => false,
            }
    }
}
