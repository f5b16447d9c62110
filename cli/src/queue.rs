//! Which durable queue a command means: a broker, or with `--channel` a channel. Both are journals with cursors on them, and the
//! server has the same for both.

use godwit_mesh::names::{BrokerName, DEFAULT_NAMESPACE, NameError};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct QueueArgs {
    /// The broker, NAMESPACE/NAME or NAME
    #[arg(long, global = true, default_value_t)]
    broker: BrokerName,
    /// A channel in place of the broker, NAMESPACE/NAME or NAME
    #[arg(long, global = true, value_name = "CHANNEL", value_parser = channel, conflicts_with = "broker")]
    channel: Option<BrokerName>,
}

impl QueueArgs {
    fn name(&self) -> &BrokerName {
        self.channel.as_ref().unwrap_or(&self.broker)
    }

    /// Where the server has what it keeps of it: `cursors`, `events`, `dead-letters`.
    pub(crate) fn path(&self, what: &str) -> String {
        let name = self.name();
        format!("/apis/godwit.dev/v1/namespaces/{}/{}s/{}/{what}", name.namespace(), name.what(), name.name())
    }

    /// Where it takes events.
    pub(crate) fn ingress(&self) -> String {
        format!("/{}", self.name())
    }
}

/// Reads a channel's name, also as the server shows it (`channels/NAMESPACE/NAME`).
fn channel(text: &str) -> Result<BrokerName, NameError> {
    match text.split_once('/') {
        None => BrokerName::channel(DEFAULT_NAMESPACE, text),
        Some(_) if text.parse::<BrokerName>().is_ok_and(|name| name.is_channel()) => text.parse(),
        Some((namespace, name)) => BrokerName::channel(namespace, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(broker: &str, of: Option<&str>) -> QueueArgs {
        let channel = of.map(|text| channel(text).expect("a name"));
        QueueArgs { broker: broker.parse().expect("a name"), channel }
    }

    #[test]
    fn a_broker_and_a_channel_of_one_name_are_in_two_places() {
        let broker = queue("site/x", None);
        assert_eq!(broker.path("cursors"), "/apis/godwit.dev/v1/namespaces/site/brokers/x/cursors");
        assert_eq!(broker.ingress(), "/site/x");
        let channel = queue("default", Some("site/x"));
        assert_eq!(channel.path("events"), "/apis/godwit.dev/v1/namespaces/site/channels/x/events");
        assert_eq!(channel.ingress(), "/channels/site/x");
    }

    #[test]
    fn a_channel_is_named_short_long_or_as_the_server_shows_it() {
        for text in ["x", "default/x", "channels/default/x"] {
            assert_eq!(queue("default", Some(text)).ingress(), "/channels/default/x", "{text}");
        }
        assert_eq!(queue("channels/default/x", None).path("cursors"), queue("default", Some("x")).path("cursors"));
        assert!(channel("channels/x").is_err(), "no namespace is called channels");
        assert!(channel("a/b/c").is_err());
    }
}
