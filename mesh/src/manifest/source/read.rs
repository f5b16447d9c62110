//! Reads the `spec` of each kind of source: the fields as they are written, and what they mean.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    ContainerSpec, FileMode, FileSpec, FileStart, HttpPollSpec, MqttSpec, PingSpec, ProgramSpec, SourceKind, SourceSpec,
    Subject,
};
use crate::event::{self, Event, Value};
use crate::manifest::annotations::Annotations;
use crate::manifest::destination::{Destination, absolute};
use crate::manifest::duration::IsoDuration;
use crate::manifest::error::FieldError;
use crate::manifest::kind::Kind;
use crate::manifest::metadata::Metadata;
use crate::manifest::selector::LabelSelector;
use crate::manifest::template::Template;

/// Most topic filters, arguments or variables of one source.
const MAX_LIST: usize = 256;

/// Shortest time between two questions of a source that polls.
const LEAST_INTERVAL_MS: u64 = 1000;

/// Attributes that are not a source's to override.
const CORE: [&str; 10] =
    ["id", "source", "type", "specversion", "datacontenttype", "dataschema", "subject", "time", "data", "data_base64"];

impl SourceSpec {
    /// Reads the `spec` of a source, which fits its schema.
    pub(in crate::manifest) fn new(
        kind: Kind,
        metadata: &Metadata,
        annotations: &Annotations,
        spec: &Json,
    ) -> Result<Self, FieldError> {
        let (sink, overrides, what) = match kind {
            Kind::PingSource => common::<RawPing>(spec, |raw| ping(raw, annotations))?,
            Kind::MqttSource => common::<RawMqtt>(spec, mqtt)?,
            Kind::HttpPollSource => common::<RawPoll>(spec, poll)?,
            Kind::FileSource => common::<RawFile>(spec, file)?,
            Kind::ProgramSource => common::<RawProgram>(spec, program)?,
            Kind::ContainerSource => common::<RawContainer>(spec, container)?,
            _ => common::<RawBinding>(spec, |raw| binding(raw, &metadata.namespace))?,
        };
        Ok(Self { name: metadata.object_name(), sink, overrides, what })
    }
}

/// The fields that all have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Common {
    sink: Option<Destination>,
    ce_overrides: Option<Overrides>,
}

#[derive(Debug, Deserialize)]
struct Overrides {
    #[serde(default)]
    extensions: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPing {
    #[serde(default)]
    schedule: String,
    timezone: Option<String>,
    content_type: Option<String>,
    data: Option<String>,
    data_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawMqtt {
    topics: Vec<String>,
    server: Option<String>,
    #[serde(rename = "type")]
    ty: Option<String>,
    source: Option<String>,
    subject: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawPoll {
    uri: String,
    interval: String,
    items: Option<String>,
    id: Option<String>,
    #[serde(rename = "type")]
    ty: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    path: std::path::PathBuf,
    mode: Option<FileMode>,
    start: Option<FileStart>,
    done: Option<std::path::PathBuf>,
    inline_bytes: Option<u64>,
    content_type: Option<String>,
    #[serde(rename = "type")]
    ty: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProgram {
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    user: Option<String>,
    #[serde(default)]
    lines: bool,
    content_type: Option<String>,
    #[serde(rename = "type")]
    ty: Option<String>,
    limits: Option<RawLimits>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLimits {
    memory_bytes: Option<u64>,
    open_files: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct RawContainer {
    template: Json,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
struct RawBinding {
    subject: RawSubject,
}

#[derive(Debug, Deserialize)]
struct RawSubject {
    kind: String,
    namespace: Option<String>,
    name: Option<String>,
    selector: Option<RawSelector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSelector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

type Parts = (Option<Destination>, Vec<(String, Value)>, SourceKind);

fn common<S: serde::de::DeserializeOwned>(
    spec: &Json,
    own: impl FnOnce(S) -> Result<SourceKind, FieldError>,
) -> Result<Parts, FieldError> {
    let shared: Common = typed(spec)?;
    let mut overrides = Vec::new();
    for (name, value) in shared.ce_overrides.map(|o| o.extensions).unwrap_or_default() {
        let wrong = |why: String| FieldError::new(format!("spec.ceOverrides.extensions[{name}]"), why);
        event::check_attribute_name(&name).map_err(|e| wrong(e.to_string()))?;
        if CORE.contains(&name.as_str()) {
            return Err(wrong("is no extension: the source itself says it".to_owned()));
        }
        let value = Value::String(value);
        let mut trial = Event::builder().id("1").source("/").ty("t").build().map_err(|e| wrong(e.to_string()))?;
        trial.set(&name, value.clone()).map_err(|e| wrong(e.to_string()))?;
        overrides.push((name, value));
    }
    Ok((shared.sink, overrides, own(typed(spec)?)?))
}

/// Reads the fields that a type has; whether there are others the schema has said.
fn typed<T: serde::de::DeserializeOwned>(spec: &Json) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(spec.clone()).map_err(|e| {
        let path = e.path().to_string();
        FieldError::new(if path == "." { "spec".to_owned() } else { format!("spec.{path}") }, e.into_inner())
    })
}

fn ping(raw: RawPing, annotations: &Annotations) -> Result<SourceKind, FieldError> {
    let schedule = if raw.schedule.is_empty() { "* * * * *" } else { &raw.schedule };
    let schedule = schedule.parse().map_err(|e| FieldError::new("spec.schedule", e))?;
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let data = match (some(raw.data), some(raw.data_base64)) {
        (Some(text), _) => Some(Bytes::from(text)),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text).map_err(|_| FieldError::new("spec.dataBase64", "is not base64"))?;
            Some(Bytes::from(bytes))
        }
        (None, None) => None,
    };
    let content_type = media(raw.content_type, "spec.contentType")?;
    let timezone = some(raw.timezone);
    if let Some(zone) = &timezone {
        crate::cron::check_zone_name(zone).map_err(|e| FieldError::new("spec.timezone", e))?;
    }
    Ok(SourceKind::Ping(PingSpec { schedule, timezone, content_type, data, missed: annotations.missed_runs }))
}

fn mqtt(raw: RawMqtt) -> Result<SourceKind, FieldError> {
    if raw.topics.is_empty() || raw.topics.len() > MAX_LIST {
        return Err(FieldError::new("spec.topics", format!("must have 1 to {MAX_LIST} topic filters")));
    }
    for (i, topic) in raw.topics.iter().enumerate() {
        check_topic_filter(topic).map_err(|why| FieldError::new(format!("spec.topics[{i}]"), why))?;
    }
    let template = |text: Option<String>, field: &str| {
        text.map(|text| text.parse::<Template>().map_err(|why| FieldError::new(field, why))).transpose()
    };
    Ok(SourceKind::Mqtt(MqttSpec {
        topics: raw.topics,
        server: raw.server,
        ty: template(raw.ty, "spec.type")?,
        source: template(raw.source, "spec.source")?,
        subject: template(raw.subject, "spec.subject")?,
    }))
}

fn poll(raw: RawPoll) -> Result<SourceKind, FieldError> {
    let uri = absolute(&raw.uri).map_err(|why| FieldError::new("spec.uri", why))?;
    if !matches!(uri.scheme(), "http" | "https") {
        return Err(FieldError::new("spec.uri", "must be an http:// or https:// URL"));
    }
    let interval: IsoDuration = raw.interval.parse().map_err(|e| FieldError::new("spec.interval", e))?;
    if interval.as_millis() < LEAST_INTERVAL_MS {
        return Err(FieldError::new("spec.interval", "must be PT1S or longer"));
    }
    for (field, pointer) in [("spec.items", &raw.items), ("spec.id", &raw.id)] {
        if pointer.as_ref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
            return Err(FieldError::new(field, "is no JSON pointer: it begins with /, as in /data/items"));
        }
    }
    if raw.id.is_some() && raw.items.is_none() {
        return Err(FieldError::new("spec.id", "means an item's, and there are no items"));
    }
    Ok(SourceKind::HttpPoll(HttpPollSpec { uri, interval, items: raw.items, id: raw.id, ty: type_of(raw.ty)? }))
}

fn file(raw: RawFile) -> Result<SourceKind, FieldError> {
    let mode = raw.mode.unwrap_or(FileMode::Lines);
    for (field, path) in [("spec.path", Some(&raw.path)), ("spec.done", raw.done.as_ref())] {
        if path.is_some_and(|path| !path.is_absolute()) {
            return Err(FieldError::new(field, "must be absolute, as in /var/log/messages"));
        }
    }
    if mode == FileMode::Lines && raw.done.is_some() {
        return Err(FieldError::new("spec.done", "is for mode files only"));
    }
    Ok(SourceKind::File(FileSpec {
        path: raw.path,
        mode,
        start: raw.start.unwrap_or(FileStart::Beginning),
        done: raw.done,
        inline_bytes: raw.inline_bytes,
        content_type: media(raw.content_type, "spec.contentType")?,
        ty: type_of(raw.ty)?,
    }))
}

fn program(raw: RawProgram) -> Result<SourceKind, FieldError> {
    let RawProgram { command, args, env, user, lines, content_type, ty, limits } = raw;
    if !command.first().is_some_and(|program| program.starts_with('/')) {
        return Err(FieldError::new("spec.command", "must begin with the absolute path of a program"));
    }
    if user.as_ref().is_some_and(String::is_empty) {
        return Err(FieldError::new("spec.user", "must not be empty"));
    }
    let command: Vec<String> = command.into_iter().chain(args).collect();
    without_nul(&command, "spec.command")?;
    let limits = limits.unwrap_or(RawLimits { memory_bytes: None, open_files: None });
    Ok(SourceKind::Program(ProgramSpec {
        command,
        env: variables(env, "spec.env")?,
        user,
        lines,
        content_type: media(content_type, "spec.contentType")?,
        ty: type_of(ty)?,
        memory_bytes: limits.memory_bytes,
        open_files: limits.open_files,
    }))
}

fn container(mut raw: RawContainer) -> Result<SourceKind, FieldError> {
    const AT: &str = "spec.template.spec.containers";
    let containers = raw.template.pointer_mut("/spec/containers").map(Json::take).unwrap_or_default();
    let containers: Vec<Json> = serde_json::from_value(containers).map_err(|_| FieldError::new(AT, "must be a list"))?;
    let Some(first) = containers.into_iter().next() else {
        return Err(FieldError::new(AT, "is missing").missing());
    };
    // A container has many more fields in Kubernetes; these are what can be done without it.
    let first: Container = serde_json::from_value(first).map_err(|e| FieldError::new(format!("{AT}[0]"), e))?;
    if first.image.is_empty() || first.image.starts_with('-') {
        return Err(FieldError::new(format!("{AT}[0].image"), "is missing, or no image").missing());
    }
    without_nul(&first.command, &format!("{AT}[0].command"))?;
    without_nul(&first.args, &format!("{AT}[0].args"))?;
    let env = variables(first.env, &format!("{AT}[0].env"))?;
    Ok(SourceKind::Container(ContainerSpec { image: first.image, command: first.command, args: first.args, env }))
}

fn binding(raw: RawBinding, namespace: &str) -> Result<SourceKind, FieldError> {
    let RawSubject { kind, namespace: named, name, selector } = raw.subject;
    let selector = selector.map(|s| selector_of(&s)).transpose()?;
    let namespace = named.unwrap_or_else(|| namespace.to_owned());
    Ok(SourceKind::Binding(Subject { kind, namespace, name, selector }))
}

/// A selector as Kubernetes' objects have it, by way of its text.
fn selector_of(raw: &RawSelector) -> Result<LabelSelector, FieldError> {
    let mut terms: Vec<String> = raw.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    for Expression { key, operator, values } in &raw.match_expressions {
        let values = values.join(",");
        terms.push(match operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        });
    }
    terms.join(",").parse().map_err(|e| FieldError::new("spec.subject.selector", e))
}

fn variables(env: Vec<Variable>, at: &str) -> Result<Vec<(String, String)>, FieldError> {
    let mut all = Vec::with_capacity(env.len());
    if env.len() > MAX_LIST {
        return Err(FieldError::new(at, format!("has more than {MAX_LIST} variables")));
    }
    for (i, Variable { name, value }) in env.into_iter().enumerate() {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(FieldError::new(format!("{at}[{i}].name"), "is no name of a variable, or its value has a zero"));
        }
        all.push((name, value));
    }
    Ok(all)
}

fn without_nul(words: &[String], at: &str) -> Result<(), FieldError> {
    if words.len() > MAX_LIST {
        return Err(FieldError::new(at, format!("has more than {MAX_LIST} words")));
    }
    match words.iter().position(|word| word.contains('\0')) {
        Some(i) => Err(FieldError::new(format!("{at}[{i}]"), "has a zero in it")),
        None => Ok(()),
    }
}

fn media(text: Option<String>, at: &str) -> Result<Option<String>, FieldError> {
    let text = text.filter(|text| !text.is_empty());
    if let Some(text) = &text {
        event::check_string(text).map_err(|e| FieldError::new(at, e))?;
    }
    Ok(text)
}

fn type_of(text: Option<String>) -> Result<Option<String>, FieldError> {
    if let Some(text) = &text {
        event::check_string(text).map_err(|e| FieldError::new("spec.type", e))?;
        if text.is_empty() {
            return Err(FieldError::new("spec.type", "must not be empty"));
        }
    }
    Ok(text)
}

/// A topic filter by the rules of MQTT (4.7.1); shared subscriptions make no sense of a mapping.
fn check_topic_filter(filter: &str) -> Result<(), String> {
    if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
        return Err("must have 1 to 65,535 bytes, none of them zero".to_owned());
    }
    if filter.starts_with('$') {
        return Err("topics that begin with $ are a broker's own".to_owned());
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "#" if levels.peek().is_none() => {}
            "+" => {}
            _ if level.contains(['#', '+']) => {
                return Err(
                    "# stands for all levels at the end, + for one level; neither with anything beside it".to_owned()
                );
            }
            _ => {}
        }
    }
    Ok(())
}
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::{Object, ObjectName, Spec};

    #[allow(clippy::needless_pass_by_value)] // As the cases are written.
    fn read(kind: &str, spec: Json) -> Result<SourceSpec, String> {
        let group = if matches!(kind, "PingSource" | "ContainerSource" | "SinkBinding") {
            "sources.knative.dev"
        } else {
            "godwit.dev"
        };
        let object = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let object = Object::from_value("test", "it", object).map_err(|e| e.to_string())?;
        match object.spec() {
            Spec::Source(source) => Ok((**source).clone()),
            other => panic!("{other:?}"),
        }
    }

    fn with(kind: &str, name: &str, value: Json) -> Result<SourceSpec, String> {
        let mut spec = match kind {
            "PingSource" => json!({}),
            "MqttSource" => json!({"topics": ["a/#"]}),
            "HttpPollSource" => json!({"uri": "http://h/x", "interval": "PT5S"}),
            "FileSource" => json!({"path": "/var/log/x"}),
            "ProgramSource" => json!({"command": ["/bin/true"]}),
            "SinkBinding" => json!({"subject": {"apiVersion": "godwit.dev/v1", "kind": "ProgramSource", "name": "p"}}),
            _ => json!({"template": {"spec": {"containers": [{"image": "i"}]}}}),
        };
        spec["sink"] = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default"}});
        if !name.is_empty() {
            spec[name] = value;
        }
        read(kind, spec)
    }

    #[test]
    fn each_kind_is_read() {
        for kind in
            ["PingSource", "MqttSource", "HttpPollSource", "FileSource", "ProgramSource", "SinkBinding", "ContainerSource"]
        {
            let source = with(kind, "ceOverrides", json!({"extensions": {"site": "harbour"}})).expect(kind);
            assert_eq!(source.overrides, [("site".to_owned(), Value::from("harbour"))]);
            assert!(source.sink.is_some());
        }
    }

    #[test]
    fn what_a_field_cannot_be_is_named() {
        for (kind, name, value, field) in [
            ("PingSource", "schedule", json!("61 * * * *"), "spec.schedule"),
            ("PingSource", "timezone", json!("../x"), "spec.timezone"),
            ("PingSource", "ceOverrides", json!({"extensions": {"Site": "x"}}), "spec.ceOverrides.extensions[Site]"),
            ("PingSource", "ceOverrides", json!({"extensions": {"id": "x"}}), "spec.ceOverrides.extensions[id]"),
            ("MqttSource", "topics", json!([]), "spec.topics"),
            ("MqttSource", "topics", json!(["a", "a/#/b"]), "spec.topics[1]"),
            ("MqttSource", "topics", json!(["$SYS/x"]), "spec.topics[0]"),
            ("MqttSource", "type", json!("{nothing}"), "spec.type"),
            ("HttpPollSource", "uri", json!("ftp://x/"), "spec.uri"),
            ("HttpPollSource", "interval", json!("PT0.5S"), "spec.interval"),
            ("HttpPollSource", "items", json!("data"), "spec.items"),
            ("HttpPollSource", "id", json!("/id"), "spec.id"),
            ("FileSource", "path", json!("log"), "spec.path"),
            ("FileSource", "done", json!("/done"), "spec.done"),
            ("ProgramSource", "command", json!([]), "spec.command"),
            ("ProgramSource", "command", json!(["sh"]), "spec.command"),
            ("ProgramSource", "env", json!([{"name": "A=B"}]), "spec.env[0].name"),
            ("ContainerSource", "template", json!({}), "spec.template.spec.containers"),
            ("ContainerSource", "template", json!({"spec": {"containers": [{"image": "--privileged"}]}}), "image"),
        ] {
            let error = with(kind, name, value).expect_err(name);
            assert!(error.contains(&format!("{field}: ")) || error.contains(field), "{kind} {name}: {error}");
        }
    }

    #[test]
    fn a_binding_finds_programs_by_name_or_label() {
        let binding = |subject: Json| match with("SinkBinding", "subject", subject).expect("valid").what {
            SourceKind::Binding(subject) => subject,
            other => panic!("{other:?}"),
        };
        let name = |name: &str| ObjectName { namespace: "default".to_owned(), name: name.to_owned() };
        let labels = BTreeMap::from([("app".to_owned(), "x".to_owned())]);
        let by_name = binding(json!({"apiVersion": "godwit.dev/v1", "kind": "ProgramSource", "name": "p"}));
        assert!(by_name.is(&name("p"), &labels) && !by_name.is(&name("q"), &labels));
        let by_label = binding(json!({"apiVersion": "godwit.dev/v1", "kind": "ProgramSource", "selector": {
            "matchLabels": {"app": "x"}, "matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "y"]}]}}));
        assert!(by_label.is(&name("q"), &labels) && !by_label.is(&name("q"), &BTreeMap::new()));
        let other = binding(json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "p"}));
        assert!(!other.is(&name("p"), &labels));
    }
}
