//! `godwit trigger` and `godwit broker`: the common things said in one line, with `kn`'s flags and those it lacks.

mod trial;

use std::process::ExitCode;

use godwit_mesh::manifest::Kind;
use http::Method;
use serde_json::{Map, Value, json};

use crate::api;
use crate::client::{DEFAULT_AGENT, ServerArgs};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  godwit trigger create alarms --filter type=dev.godwit.alarm --sink http://127.0.0.1:9000/
  godwit trigger create hot --cesql 'temperature > 80' --sink broker:alarms --retry 5 --dead-letter http://127.0.0.1:9/
  godwit trigger test -f trigger.yaml --event event.json
  godwit trigger delete alarms";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TriggerArgs {
    #[command(subcommand)]
    action: TriggerAction,
}

#[derive(Debug, clap::Subcommand)]
enum TriggerAction {
    /// Make a Trigger
    Create(Box<Create>),
    /// Delete Triggers
    Delete(Delete),
    /// Say without a server whether an event passes a Trigger's filter, and which part of it decides
    Test(trial::TestArgs),
}

const BROKER_EXAMPLES: &str = "\
Examples:
  godwit broker create alarms --retry 5 --backoff-policy exponential --backoff-delay PT1S
  godwit broker delete alarms";

#[derive(Debug, clap::Args)]
#[command(after_help = BROKER_EXAMPLES)]
pub(crate) struct BrokerArgs {
    #[command(subcommand)]
    action: BrokerAction,
}

#[derive(Debug, clap::Subcommand)]
enum BrokerAction {
    /// Make a Broker
    Create(CreateBroker),
    /// Delete Brokers' objects; what is in them stays
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its name
    name: String,
    /// Its namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The Broker whose events it wants
    #[arg(long, default_value = "default")]
    broker: String,
    /// An attribute and the value that it must have; may be given several times
    #[arg(long, value_name = "ATTRIBUTE=VALUE", value_parser = pair)]
    filter: Vec<(String, String)>,
    /// A CESQL expression that must hold
    #[arg(long, value_name = "EXPR")]
    cesql: Option<String>,
    /// Where the events go: a URL, or broker:NAME and the like
    #[arg(long, short, value_name = "SINK", value_parser = destination)]
    sink: Value,
    #[command(flatten)]
    delivery: Delivery,
}

#[derive(Debug, clap::Args)]
struct CreateBroker {
    /// Its name
    name: String,
    /// Its namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    delivery: Delivery,
}

#[derive(Debug, clap::Args)]
struct Delivery {
    /// Number of retries; without any of these an event waits and is tried again
    #[arg(long)]
    retry: Option<i32>,
    /// Longest time for one attempt, as in PT5S
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// How waits between attempts grow: linear or exponential
    #[arg(long, value_name = "POLICY")]
    backoff_policy: Option<String>,
    /// The first wait, as in PT0.5S
    #[arg(long, value_name = "DURATION")]
    backoff_delay: Option<String>,
    /// Where events go that cannot be delivered: a URL, or broker:NAME
    #[arg(long, value_name = "SINK", value_parser = destination)]
    dead_letter: Option<Value>,
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// Names
    #[arg(required = true)]
    names: Vec<String>,
    /// Their namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

pub(crate) async fn run(server: &ServerArgs, args: &TriggerArgs) -> anyhow::Result<ExitCode> {
    match &args.action {
        TriggerAction::Create(create) => make(server, Kind::Trigger, &create.namespace, &create.object()).await?,
        TriggerAction::Delete(delete) => remove(server, Kind::Trigger, delete).await?,
        TriggerAction::Test(args) => return trial::run(args),
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn run_broker(server: &ServerArgs, args: &BrokerArgs) -> anyhow::Result<()> {
    match &args.action {
        BrokerAction::Create(create) => make(server, Kind::Broker, &create.namespace, &create.object()).await,
        BrokerAction::Delete(delete) => remove(server, Kind::Broker, delete).await,
    }
}

async fn make(server: &ServerArgs, kind: Kind, namespace: &str, object: &Value) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let path = api::list_path(kind, Some(namespace));
    let made = api::send(&mut client, Method::POST, &path, "application/json", object).await?;
    let name = made.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    Ok(output::print(&format!("{} created\n", api::shown(kind, name)))?)
}

async fn remove(server: &ServerArgs, kind: Kind, delete: &Delete) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    for name in &delete.names {
        client.json(Method::DELETE, &api::path(kind, &delete.namespace, name), None).await?;
        output::print(&format!("{} deleted\n", api::shown(kind, name)))?;
    }
    Ok(())
}

impl Create {
    fn object(&self) -> Value {
        let attributes: Map<String, Value> = self.filter.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
        let mut spec = json!({"broker": self.broker, "subscriber": self.sink});
        let filters = [
            (!attributes.is_empty()).then(|| json!({"exact": attributes})),
            self.cesql.as_ref().map(|expression| json!({"cesql": expression})),
        ];
        match &self.cesql {
            // The plain form where it says all: an empty value asks for any that is not empty.
            None if !attributes.is_empty() => spec["filter"] = json!({"attributes": attributes}),
            None => {}
            Some(_) => spec["filters"] = filters.into_iter().flatten().collect(),
        }
        if let Some(delivery) = self.delivery.object() {
            spec["delivery"] = delivery;
        }
        object(Kind::Trigger, &self.name, &self.namespace, &spec)
    }
}

impl CreateBroker {
    fn object(&self) -> Value {
        let mut spec = json!({});
        if let Some(delivery) = self.delivery.object() {
            spec["delivery"] = delivery;
        }
        object(Kind::Broker, &self.name, &self.namespace, &spec)
    }
}

impl Delivery {
    fn object(&self) -> Option<Value> {
        let fields = [
            ("retry", self.retry.map(Value::from)),
            ("timeout", self.timeout.clone().map(Value::from)),
            ("backoffPolicy", self.backoff_policy.clone().map(Value::from)),
            ("backoffDelay", self.backoff_delay.clone().map(Value::from)),
            ("deadLetterSink", self.dead_letter.clone()),
        ];
        let map: Map<String, Value> = fields.into_iter().filter_map(|(name, v)| Some((name.to_owned(), v?))).collect();
        (!map.is_empty()).then_some(Value::Object(map))
    }
}

fn object(kind: Kind, name: &str, namespace: &str, spec: &Value) -> Value {
    let resource = kind.resource();
    json!({
        "apiVersion": resource.api_version(), "kind": resource.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write attribute=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A URL, or `kind:name` or `kind:name:namespace` as `kn` writes it.
fn destination(text: &str) -> Result<Value, String> {
    if text.contains("://") || text.starts_with('/') {
        return Ok(json!({ "uri": text }));
    }
    let mut parts = text.split(':');
    let (word, name, namespace) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let name = name.filter(|n| !n.is_empty()).ok_or("write a URL, or broker:NAME")?;
    let (api_version, kind) = match word {
        "ksvc" => ("serving.knative.dev/v1".to_owned(), "Service".to_owned()),
        "svc" | "service" => ("v1".to_owned(), "Service".to_owned()),
        word => {
            let resource = api::kind(word)?.resource();
            (resource.api_version(), resource.name.to_owned())
        }
    };
    let mut reference = json!({"apiVersion": api_version, "kind": kind, "name": name});
    if let Some(namespace) = namespace {
        reference["namespace"] = namespace.into();
    }
    Ok(json!({ "ref": reference }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_urls_or_objects() {
        assert_eq!(destination("http://x/"), Ok(json!({"uri": "http://x/"})));
        let broker = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b"}});
        assert_eq!(destination("broker:b"), Ok(broker));
        let service =
            json!({"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "s", "namespace": "n"}});
        assert_eq!(destination("ksvc:s:n"), Ok(service));
        assert!(destination("broker").is_err() && destination("pod:x").is_err());
    }

    #[test]
    fn flags_become_the_manifest_that_one_would_write() {
        let delivery =
            Delivery { retry: Some(5), timeout: None, backoff_policy: None, backoff_delay: None, dead_letter: None };
        let create = Create {
            name: "t".to_owned(),
            namespace: "default".to_owned(),
            broker: "default".to_owned(),
            filter: vec![("type".to_owned(), "a".to_owned())],
            cesql: None,
            sink: json!({"uri": "http://x/"}),
            delivery,
        };
        let spec = json!({
            "broker": "default", "subscriber": {"uri": "http://x/"},
            "filter": {"attributes": {"type": "a"}}, "delivery": {"retry": 5},
        });
        assert_eq!(create.object()["spec"], spec);
        let both = Create { cesql: Some("n > 1".to_owned()), ..create };
        assert_eq!(both.object()["spec"]["filters"], json!([{"exact": {"type": "a"}}, {"cesql": "n > 1"}]));
    }
}
