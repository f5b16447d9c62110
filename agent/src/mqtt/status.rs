//! What a listener counts, and how it shows itself in `/status`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything a listener counts since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted by CONNACK.
    pub connections: Counter,
    /// TCP connections closed at once because there were too many.
    pub too_many_connections: Counter,
    /// Connections closed before their CONNECT to make room for others.
    pub evicted_connections: Counter,
    /// Sessions of clients that were away, forgotten to make room: those that held nothing, and those that held something.
    pub evicted_sessions: [Counter; 2],
    /// CONNECTs refused, for whatever reason.
    pub refused_connects: Counter,
    /// CONNECTs refused for their credentials; among the above.
    pub refused_credentials: Counter,
    /// Connections ended by a breach of the protocol or of a limit.
    pub faults: Counter,
    /// Connections ended by a time limit: keep-alive, a packet that stopped half-way, a peer that takes nothing.
    pub timeouts: Counter,
    /// Connections taken over by another with the same client id.
    pub take_overs: Counter,
    /// Publishes that came, by QoS.
    pub publishes: [Counter; 3],
    /// Bytes of the PUBLISH packets that came.
    pub publish_bytes: Counter,
    /// QoS 2 publishes that were here already.
    pub duplicates: Counter,
    /// Publishes refused because the broker was at its limit.
    pub refused_full: Counter,
    /// Publishes refused because the disk was full.
    pub refused_disk_full: Counter,
    /// Publishes refused because the disk failed.
    pub refused_disk: Counter,
    /// Publishes refused because they were too large for the journal.
    pub refused_too_large: Counter,
    /// Publishes to a topic that begins with `$`, dropped.
    pub refused_topic: Counter,
    /// Publishes that no source mapping wanted.
    pub unrouted: Counter,
    /// Messages sent to live subscribers.
    pub deliveries: Counter,
    /// Messages dropped because a subscriber was slow, or took no packet of that size, or they had expired.
    pub dropped_deliveries: Counter,
    /// Wills published.
    pub wills: Counter,
    /// Events that Triggers published here.
    pub trigger_publishes: Counter,
}

impl Counters {
    /// Each counter with its metric name, its label if it has one, and a help text.
    #[must_use]
    pub fn each(&self) -> Vec<Metric> {
        let plain = |name, help, counter: &Counter| Metric { name, help, label: None, value: counter.get() };
        let labelled = |name, help, key, text, counter: &Counter| Metric {
            name,
            help,
            label: Some((key, text)),
            value: counter.get(),
        };
        let [qos0, qos1, qos2] = &self.publishes;
        let (published, refused) = ("godwit_mqtt_publishes", "godwit_mqtt_refused_publishes");
        let publishes = "PUBLISH packets that came, by QoS";
        let [bare, holding] = &self.evicted_sessions;
        let (evicted, evictions) =
            ("godwit_mqtt_evicted_sessions", "Sessions of absent clients that made room, by what they held");
        let refusals = "Publishes that were not stored, by reason";
        vec![
            plain("godwit_mqtt_connections", "Connections accepted", &self.connections),
            plain(
                "godwit_mqtt_too_many_connections",
                "Connections closed because there were too many",
                &self.too_many_connections,
            ),
            plain(
                "godwit_mqtt_evicted_connections",
                "Connections closed before their CONNECT to make room for others",
                &self.evicted_connections,
            ),
            labelled(evicted, evictions, "held", "nothing", bare),
            labelled(evicted, evictions, "held", "something", holding),
            plain("godwit_mqtt_refused_connects", "CONNECTs refused", &self.refused_connects),
            plain("godwit_mqtt_refused_credentials", "CONNECTs refused for their credentials", &self.refused_credentials),
            plain("godwit_mqtt_faults", "Connections ended by a breach of the protocol or of a limit", &self.faults),
            plain("godwit_mqtt_timeouts", "Connections ended by a time limit", &self.timeouts),
            plain("godwit_mqtt_take_overs", "Connections taken over by another with their client id", &self.take_overs),
            labelled(published, publishes, "qos", "0", qos0),
            labelled(published, publishes, "qos", "1", qos1),
            labelled(published, publishes, "qos", "2", qos2),
            plain("godwit_mqtt_publish_bytes", "Bytes of the PUBLISH packets that came", &self.publish_bytes),
            plain("godwit_mqtt_duplicates", "QoS 2 publishes that were here already", &self.duplicates),
            labelled(refused, refusals, "reason", "full", &self.refused_full),
            labelled(refused, refusals, "reason", "disk_full", &self.refused_disk_full),
            labelled(refused, refusals, "reason", "disk", &self.refused_disk),
            labelled(refused, refusals, "reason", "too_large", &self.refused_too_large),
            labelled(refused, refusals, "reason", "topic", &self.refused_topic),
            labelled(refused, refusals, "reason", "unrouted", &self.unrouted),
            plain("godwit_mqtt_deliveries", "Messages sent to live subscribers", &self.deliveries),
            plain(
                "godwit_mqtt_dropped_deliveries",
                "Messages for live subscribers that were dropped",
                &self.dropped_deliveries,
            ),
            plain("godwit_mqtt_wills", "Wills published", &self.wills),
            plain("godwit_mqtt_trigger_publishes", "Events that Triggers published here", &self.trigger_publishes),
        ]
    }

    /// The counters for `/status`.
    pub(super) fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        for metric in self.each() {
            let name = metric.name.trim_start_matches("godwit_mqtt_");
            match metric.label {
                None => {
                    object.insert(name.to_owned(), metric.value.into());
                }
                Some((_, label)) => {
                    let group = object.entry(name).or_insert_with(|| json!({}));
                    if let Value::Object(group) = group {
                        group.insert(label.to_owned(), metric.value.into());
                    }
                }
            }
        }
        Value::Object(object)
    }
}

/// One counter as `/metrics` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Name, without `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// A label and its value.
    pub label: Option<(&'static str, &'static str)>,
    /// The count.
    pub value: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_grouped_by_their_label_in_status() {
        let counters = Counters::default();
        counters.publishes[1].add(3);
        counters.refused_full.add(2);
        let status = counters.to_json();
        assert_eq!(status["publishes"]["1"], 3);
        assert_eq!(status["refused_publishes"]["full"], 2);
        assert_eq!(status["connections"], 0);
    }
}
