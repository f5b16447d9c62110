//! The kinds Sequence and Parallel: `flows.knative.dev/v1`. They run as what they are made of: Channels and Subscriptions with names
//! of their own, which belong to them, are listed beside other objects, and change with them alone.
//!
//! Sequence X has for each step N the Channel `X-kn-sequence-N`, and the Subscription of the same name, which hands the channel's events
//! to the step and its replies to the next channel, or where the Sequence replies. Parallel X has the Channel `X-kn-parallel` in front; for
//! each branch N the Subscription `X-kn-parallel-filter-N` asks the branch's filter, whose replies (without a filter: all events)
//! go to the Channel `X-kn-parallel-N`, and the Subscription `X-kn-parallel-N` hands those to the branch's subscriber.

use serde_json::{Map, Value, json};

use super::error::FieldError;
use super::kind::Kind;
use super::metadata::ObjectName;
use super::object::{Object, Strictness};
use crate::names::{BrokerName, NameError};

/// Most steps or branches of one object.
const MAX_PARTS: usize = 64;

/// The Channel in front of a Sequence or a Parallel of this name: where its events are posted.
///
/// # Errors
/// When the name is too long for it.
pub(crate) fn front(kind: Kind, namespace: &str, name: &str) -> Result<BrokerName, NameError> {
    BrokerName::channel(namespace, &front_name(kind, name))
}

fn front_name(kind: Kind, name: &str) -> String {
    if kind == Kind::Parallel { format!("{name}-kn-parallel") } else { format!("{name}-kn-sequence-0") }
}

/// The Channels and Subscriptions that an object is made of; none but for a Sequence and a Parallel. `value` is the object with its
/// defaults.
///
/// # Errors
/// What is wrong with a field of the object.
pub(super) fn parts(kind: Kind, file: &str, name: &ObjectName, value: &Value) -> Result<Vec<Object>, FieldError> {
    let maker = Maker { file, owner: kind, name, value };
    match kind {
        Kind::Sequence => maker.sequence(),
        Kind::Parallel => maker.parallel(),
        _ => Ok(Vec::new()),
    }
}

/// Makes parts of one object.
struct Maker<'a> {
    file: &'a str,
    owner: Kind,
    name: &'a ObjectName,
    value: &'a Value,
}

impl Maker<'_> {
    fn sequence(&self) -> Result<Vec<Object>, FieldError> {
        let steps = self.list("steps")?;
        let name = |n: usize| format!("{}-kn-sequence-{n}", self.name.name);
        let mut parts = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            parts.push(self.channel(&name(n))?);
            let last = n + 1 == steps.len();
            let reply = if last { self.spec("reply").cloned() } else { Some(self.to_channel(&name(n + 1))) };
            parts.push(self.subscription(&name(n), &name(n), Some(destination(step)), reply, step.get("delivery"))?);
        }
        Ok(parts)
    }

    fn parallel(&self) -> Result<Vec<Object>, FieldError> {
        let front = front_name(Kind::Parallel, &self.name.name);
        let mut parts = vec![self.channel(&front)?];
        for (n, branch) in self.list("branches")?.iter().enumerate() {
            let name = format!("{front}-{n}");
            let delivery = branch.get("delivery");
            parts.push(self.channel(&name)?);
            let to_branch = Some(self.to_channel(&name));
            let filter = branch.get("filter").cloned();
            parts.push(self.subscription(&format!("{front}-filter-{n}"), &front, filter, to_branch, delivery)?);
            let reply = branch.get("reply").or_else(|| self.spec("reply")).cloned();
            parts.push(self.subscription(&name, &name, branch.get("subscriber").cloned(), reply, delivery)?);
        }
        Ok(parts)
    }

    fn spec(&self, field: &str) -> Option<&Value> {
        self.value.get("spec")?.get(field)
    }

    fn list(&self, field: &str) -> Result<&[Value], FieldError> {
        let path = format!("spec.{field}");
        match self.spec(field).and_then(Value::as_array).map(Vec::as_slice) {
            None | Some([]) => Err(FieldError::new(path, "must not be empty").missing()),
            Some(list) if list.len() > MAX_PARTS => {
                Err(FieldError::new(path, format!("has {} items, {MAX_PARTS} are the most", list.len())))
            }
            Some(list) => Ok(list),
        }
    }

    /// The kind of the channels that the author asked for, if it is one that runs here.
    fn channel_kind(&self) -> &'static str {
        match self.spec("channelTemplate").and_then(|t| t.get("kind")).and_then(Value::as_str) {
            Some("Channel") => "Channel",
            _ => "InMemoryChannel",
        }
    }

    fn to_channel(&self, name: &str) -> Value {
        json!({"ref": self.reference(name)})
    }

    fn reference(&self, name: &str) -> Value {
        json!({"apiVersion": "messaging.knative.dev/v1", "kind": self.channel_kind(), "name": name})
    }

    fn channel(&self, name: &str) -> Result<Object, FieldError> {
        let delivery = self.spec("channelTemplate").and_then(|t| t.pointer("/spec/delivery"));
        let spec = delivery.map_or_else(|| json!({}), |delivery| json!({"delivery": delivery}));
        self.part(self.channel_kind(), name, &spec)
    }

    fn subscription(
        &self,
        name: &str,
        channel: &str,
        subscriber: Option<Value>,
        reply: Option<Value>,
        delivery: Option<&Value>,
    ) -> Result<Object, FieldError> {
        let mut spec = Map::new();
        spec.insert("channel".to_owned(), self.reference(channel));
        let rest = [("subscriber", subscriber), ("reply", reply), ("delivery", delivery.cloned())];
        spec.extend(rest.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))));
        self.part("Subscription", name, &Value::Object(spec))
    }

    fn part(&self, kind: &str, name: &str, spec: &Value) -> Result<Object, FieldError> {
        let uid = self.value.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let mut annotations = Map::new();
        // Parts run where the whole does.
        let agents = "godwit.dev/agents";
        if let Some(selector) = self.value.get("metadata").and_then(|m| m.get("annotations")?.get(agents)) {
            annotations.insert(agents.to_owned(), selector.clone());
        }
        let part = json!({
            "apiVersion": "messaging.knative.dev/v1",
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self.name.namespace,
                "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": self.owner.resource().api_version(),
                    "kind": self.owner.resource().name,
                    "name": self.name.name,
                    "uid": uid,
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "spec": spec,
        });
        Object::read(self.file, part, Strictness::Ignore).map_err(|rejected| {
            let why = rejected.all().into_iter().next().map(|e| format!("{}: {}", e.field, e.why)).unwrap_or_default();
            FieldError::new("metadata.name", format!("its part {kind} {name} cannot be: {why}"))
        })
    }
}

/// A step without what is no part of a destination.
fn destination(step: &Value) -> Value {
    let mut step = step.clone();
    if let Value::Object(step) = &mut step {
        step.shift_remove("delivery");
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifests, Spec, parse_str};

    fn set(yaml: &str) -> Manifests {
        let objects = parse_str("test.yaml", yaml).expect("valid");
        Manifests::new(objects).expect("a set")
    }

    fn listed(set: &Manifests) -> Vec<String> {
        set.objects().map(ToString::to_string).collect()
    }

    /// Channel, subscriber and reply of each Subscription.
    fn ways(set: &Manifests) -> Vec<String> {
        let text = |value: &Value, path: &str| {
            let at = value.pointer(path)?;
            Some(at.pointer("/uri").or_else(|| at.pointer("/ref/name")).or_else(|| at.get("name"))?.as_str()?.to_owned())
        };
        let way = |object: &Object| {
            let value = object.current();
            let name = |path| text(&value, path).unwrap_or_else(|| "-".to_owned());
            format!("{} {} {}", name("/spec/channel"), name("/spec/subscriber"), name("/spec/reply"))
        };
        set.objects().filter(|o| o.kind() == Kind::Subscription).map(way).collect()
    }

    const SEQUENCE: &str = "
apiVersion: flows.knative.dev/v1
kind: Sequence
metadata: {name: s, namespace: site}
spec:
  steps:
  - uri: http://a
  - uri: http://b
    delivery: {retry: 3}
  reply: {uri: http://end}
";

    #[test]
    fn a_sequence_is_a_channel_and_a_subscription_for_each_step() {
        let set = set(SEQUENCE);
        assert_eq!(
            listed(&set),
            [
                "Sequence site/s",
                "InMemoryChannel site/s-kn-sequence-0",
                "InMemoryChannel site/s-kn-sequence-1",
                "Subscription site/s-kn-sequence-0",
                "Subscription site/s-kn-sequence-1"
            ]
        );
        assert_eq!(ways(&set), ["s-kn-sequence-0 http://a s-kn-sequence-1", "s-kn-sequence-1 http://b http://end"]);
        let retries: Vec<_> = set.triggers().map(|t| t.delivery.as_ref().and_then(|d| d.retry)).collect();
        assert_eq!(retries, [None, Some(3)]);
        assert!(set.triggers().all(|t| t.broker.is_channel()));
    }

    #[test]
    fn a_parallel_asks_each_branch_s_filter_and_passes_all_where_there_is_none() {
        let set = set("
apiVersion: flows.knative.dev/v1
kind: Parallel
metadata: {name: p}
spec:
  channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: Channel}
  branches:
  - filter: {uri: http://f0}
    subscriber: {uri: http://s0}
    reply: {uri: http://r0}
  - subscriber: {uri: http://s1}
  reply: {uri: http://r}
");
        assert_eq!(
            ways(&set),
            [
                "p-kn-parallel-0 http://s0 http://r0",
                "p-kn-parallel-1 http://s1 http://r",
                "p-kn-parallel http://f0 p-kn-parallel-0",
                "p-kn-parallel - p-kn-parallel-1"
            ]
        );
        assert!(listed(&set).contains(&"Channel default/p-kn-parallel".to_owned()));
    }

    #[test]
    fn parts_are_sent_on_as_the_whole_alone_and_run_where_it_does() {
        let set = set(&SEQUENCE.replace("namespace: site}", "namespace: site, annotations: {godwit.dev/agents: 'a=b'}}"));
        let json: Value = serde_json::from_slice(&set.to_json()).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(1));
        assert_eq!(set.len(), 1);
        assert_eq!(set.for_here().objects().count(), 0);
        let labels = [("a".to_owned(), "b".to_owned())].into();
        assert_eq!(set.for_agent(&labels).objects().count(), 5);
        assert!(set.objects().all(|o| o.annotations().agents.is_some()));
    }

    #[test]
    fn an_empty_list_a_name_too_long_and_a_name_that_is_taken_are_errors() {
        let error = |yaml: &str| parse_str("test.yaml", yaml).expect_err("refused").to_string();
        assert!(
            error("{apiVersion: flows.knative.dev/v1, kind: Sequence, metadata: {name: s}, spec: {steps: []}}")
                .contains("spec.steps")
        );
        let long = SEQUENCE.replace("name: s,", &format!("name: {},", "x".repeat(250)));
        assert!(error(&long).contains("metadata.name"), "{}", error(&long));
        let taken = format!(
            "{SEQUENCE}---\napiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\nmetadata: {{name: s-kn-sequence-1, namespace: site}}\n"
        );
        let objects = parse_str("test.yaml", &taken).expect("each is valid");
        let error = Manifests::new(objects).expect_err("refused").to_string();
        assert!(error.contains("Sequence site/s"), "{error}");
    }

    #[test]
    fn a_subscription_that_lacks_something_is_kept_and_says_what() {
        let lacking = |spec: &str| {
            let yaml = format!(
                "{{apiVersion: messaging.knative.dev/v1, kind: Subscription, metadata: {{name: s}}, spec: {spec}}}"
            );
            let objects = parse_str("test.yaml", &yaml).expect("valid");
            match objects.first().map(Object::spec) {
                Some(Spec::Lacking { why, .. }) => why.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert!(lacking("{subscriber: {uri: 'http://a'}}").contains("spec.channel"));
        assert!(
            lacking("{channel: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: c}}")
                .contains("spec.subscriber")
        );
        assert!(lacking("{channel: {apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, name: c}, subscriber: {uri: 'http://a'}}").contains("KafkaChannel"));
    }
}
