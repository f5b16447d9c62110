//! From a destination as written to what is sent to (D28).

use std::sync::Arc;

use url::Url;

use super::endpoint::Endpoint;
use super::handshake::Handshake;
use super::triggers::DeliverySettings;
use crate::manifest::{Destination, Reference, Topic, flow};
use crate::names::BrokerName;

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A URL of somebody else's.
    Http(Box<Endpoint>),
    /// Topics of this process's own MQTT listener.
    Mqtt(Topic),
    /// A Broker of this process: events are appended without a detour by HTTP.
    Broker(BrokerName),
}

/// A destination that has no address yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unresolved(pub(crate) String);

impl Target {
    /// Resolves `destination`, written in an object of `namespace`.
    pub(crate) fn resolve(
        destination: &Destination,
        namespace: &str,
        settings: &DeliverySettings,
    ) -> Result<Self, Unresolved> {
        let uri = destination.uri.as_deref().unwrap_or_default();
        let Some(reference) = &destination.reference else {
            let url = Url::parse(uri).map_err(|e| Unresolved(format!("uri {uri}: {e}")))?;
            if url.scheme() == "mqtt" {
                return Topic::parse(&url).map(Self::Mqtt).map_err(|why| Unresolved(format!("uri {uri}: {why}")));
            }
            return Self::http(url, destination);
        };
        let there = reference.namespace.as_deref().unwrap_or(namespace);
        let base = if reference.is_service() {
            settings.services.url(there, &reference.name).map_err(Unresolved)?
        } else {
            let broker = referenced(reference, there)?;
            if uri.is_empty() {
                return Ok(Self::Broker(broker));
            }
            broker_url(&settings.address, &broker)
        };
        if uri.is_empty() {
            return Self::http(base, destination);
        }
        let why = |e| Unresolved(format!("uri {uri} relative to {} {there}/{}: {e}", reference.kind, reference.name));
        Self::http(base.join(uri).map_err(why)?, destination)
    }

    fn http(url: Url, destination: &Destination) -> Result<Self, Unresolved> {
        let endpoint = Endpoint::new(url, destination.authorities());
        endpoint.map(|endpoint| Self::Http(Box::new(endpoint))).map_err(Unresolved)
    }

    /// The same, asked for consent before anything is sent; `origin` is who asks.
    pub(crate) fn with_handshake(mut self, origin: &str, rate: Option<u32>) -> Self {
        if let Self::Http(endpoint) = &mut self {
            endpoint.handshake = Some(Arc::new(Handshake::new(origin, rate)));
        }
        self
    }

    /// The URL as `status` shows it, without user name and password.
    pub(crate) fn shown(&self, address: &Url) -> String {
        match self {
            Self::Http(endpoint) => endpoint.shown.to_string(),
            Self::Mqtt(topic) => topic.shown().to_owned(),
            Self::Broker(name) => shown(&broker_url(address, name)),
        }
    }
}

fn referenced(reference: &Reference, there: &str) -> Result<BrokerName, Unresolved> {
    let named = if reference.is_broker() {
        BrokerName::new(there, &reference.name)
    } else if reference.is_channel() {
        BrokerName::channel(there, &reference.name)
    } else if let Some(kind) = reference.flow() {
        flow::front(kind, there, &reference.name)
    } else {
        let version = reference.api_version.as_deref().unwrap_or("(no apiVersion)");
        return Err(Unresolved(format!(
            "{} {there}/{} of {version} has no address here: give a uri, or refer to a Broker, Channel, Sequence, Parallel or Service",
            reference.kind, reference.name
        )));
    };
    named.map_err(|e| Unresolved(e.to_string()))
}

/// The URL of a Broker of this process.
pub(crate) fn broker_url(address: &Url, broker: &BrokerName) -> Url {
    let mut url = address.clone();
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}/{broker}"));
    url
}

/// A URL without user name and password.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails: URLs with a host may have both, and others have none to take away.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Services;

    fn resolve(json: serde_json::Value) -> Result<String, Unresolved> {
        let destination: Destination = serde_json::from_value(json).expect("a destination");
        let services = [("site-1/display".to_owned(), "http://10.0.0.7/in".to_owned())].into();
        let settings = DeliverySettings {
            services: Services::new(&services, None).expect("valid"),
            ..crate::delivery::tests::settings()
        };
        Target::resolve(&destination, "site-1", &settings).map(|t| t.shown(&settings.address))
    }

    #[test]
    fn d28_a_destination_is_a_uri_a_ref_or_a_uri_relative_to_a_ref() {
        let broker = serde_json::json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "alarms"});
        assert_eq!(
            resolve(serde_json::json!({"uri": "https://sink.example/in"})),
            Ok("https://sink.example/in".to_owned())
        );
        assert_eq!(resolve(serde_json::json!({"ref": broker})), Ok("http://127.0.0.1:8080/site-1/alarms".to_owned()));
        assert_eq!(
            resolve(serde_json::json!({"ref": broker, "uri": "/other"})),
            Ok("http://127.0.0.1:8080/other".to_owned())
        );
        let service = serde_json::json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "event-display"}});
        assert!(resolve(service).is_err_and(|e| e.0.contains("Service site-1/event-display")));
    }

    #[test]
    fn channels_flows_and_services_have_addresses_too() {
        let of = |kind: &str, version: &str, name: &str| {
            resolve(serde_json::json!({"ref": {"apiVersion": version, "kind": kind, "name": name}, "uri": ""}))
        };
        let at = |path: &str| Ok(format!("http://127.0.0.1:8080/channels/site-1/{path}"));
        assert_eq!(of("Channel", "messaging.knative.dev/v1", "c"), at("c"));
        assert_eq!(of("InMemoryChannel", "messaging.knative.dev/v1", "c"), at("c"));
        assert_eq!(of("Sequence", "flows.knative.dev/v1", "s"), at("s-kn-sequence-0"));
        assert_eq!(of("Parallel", "flows.knative.dev/v1", "p"), at("p-kn-parallel"));
        for version in ["v1", "serving.knative.dev/v1"] {
            assert_eq!(of("Service", version, "display"), Ok("http://10.0.0.7/in".to_owned()));
        }
        assert!(of("KafkaChannel", "messaging.knative.dev/v1beta1", "c").is_err());
        assert!(of("Channel", "example.com/v1", "c").is_err());
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        let shown = resolve(serde_json::json!({"uri": "https://user:secret@sink.example/in"})).expect("resolved");
        assert_eq!(shown, "https://sink.example/in");
    }
}
