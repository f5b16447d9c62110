//! How long deliveries take, by Knative's names as OpenMetrics writes them: `kn.eventing.dispatch.duration` and
//! `kn.eventing.process.duration`.
//!
//! Labels are Knative's, but for the two that its own views leave out by default, because their number follows what passes: the type
//! of the event and the destination. Of statuses so many are told apart as there is room for; what a subscriber answers does not
//! decide how much memory that takes.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::outcome::{Cause, Failure};
use crate::http::metrics::{Histogram, Metrics};
use crate::names::BrokerName;

const DISPATCH: &str = "kn_eventing_dispatch_duration_seconds";
const DISPATCH_HELP: &str = "The time it took to dispatch an event to a subscriber, its reply stored, one attempt each.";
const PROCESS: &str = "kn_eventing_process_duration_seconds";
const PROCESS_HELP: &str =
    "The time from an event's arrival at the Broker to the first attempt to dispatch it, by the clock on the wall.";

/// Knative's bounds, in microseconds.
const BOUNDS_US: &[u64] = &[
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000, 5_000_000, 7_500_000,
    10_000_000,
];

/// Most statuses of one Broker's subscribers that are told apart.
const MOST_STATUSES: usize = 16;

/// What an attempt was answered: an HTTP status, or nothing.
pub(crate) type Answered = Option<u16>;

/// The histograms, once there is somebody to show them to.
#[derive(Debug, Default)]
pub(crate) struct Times {
    metrics: OnceLock<Metrics>,
    known: Mutex<BTreeMap<BrokerName, Known>>,
}

/// Those of one Broker.
#[derive(Debug)]
struct Known {
    process: Histogram,
    /// By the label's text.
    dispatch: Vec<(Answered, Histogram)>,
    /// For statuses that are not told apart.
    other: Option<Histogram>,
}

impl Times {
    /// Shows them among these metrics from now on.
    pub(super) fn register(&self, metrics: &Metrics) {
        let _ = self.metrics.set(metrics.clone());
    }

    /// Adds one attempt.
    pub(super) fn dispatched(&self, broker: &BrokerName, outcome: &Result<Answered, Failure>, took: Duration) {
        let answered = outcome.as_ref().map_or_else(answered, |answered| *answered);
        self.with(broker, |metrics, known| known.dispatch(metrics, broker, answered).observe(took));
    }

    /// Adds an event that is dispatched for the first time. Both times in ms since 1970; without one of them, or where the clock was set
    /// back in between, it is not counted.
    pub(super) fn processed(&self, broker: &BrokerName, arrival_ms: Option<u64>, now_ms: Option<u64>) {
        let waited = arrival_ms.zip(now_ms).and_then(|(arrival, now)| now.checked_sub(arrival));
        if let Some(ms) = waited {
            self.with(broker, |_, known| known.process.observe(Duration::from_millis(ms)));
        }
    }

    fn with(&self, broker: &BrokerName, observe: impl FnOnce(&Metrics, &mut Known)) {
        let Some(metrics) = self.metrics.get() else { return };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(broker) {
            return observe(metrics, known);
        }
        let process = metrics.histogram(PROCESS, PROCESS_HELP, &labels(broker), BOUNDS_US);
        let known = all.entry(broker.clone()).or_insert(Known { process, dispatch: Vec::new(), other: None });
        observe(metrics, known);
    }
}

impl Known {
    fn dispatch(&mut self, metrics: &Metrics, broker: &BrokerName, answered: Answered) -> &Histogram {
        let make = |status: Option<&str>| {
            let labels = labels(broker).into_iter().chain(status.map(|status| ("http_response_status_code", status)));
            metrics.histogram(DISPATCH, DISPATCH_HELP, &labels.collect::<Vec<_>>(), BOUNDS_US)
        };
        let at = self.dispatch.iter().position(|(known, _)| *known == answered);
        if at.is_none() && self.dispatch.len() >= MOST_STATUSES {
            return self.other.get_or_insert_with(|| make(Some("other")));
        }
        let at = at.unwrap_or_else(|| {
            let status = answered.map(|status| status.to_string());
            self.dispatch.push((answered, make(status.as_deref())));
            self.dispatch.len() - 1
        });
        &self.dispatch[at].1
    }
}

/// What both histograms of a Broker have.
fn labels(broker: &BrokerName) -> [(&'static str, &str); 4] {
    let (name, namespace) = if broker.is_channel() {
        ("kn_channel_name", "kn_channel_namespace")
    } else {
        ("kn_broker_name", "kn_broker_namespace")
    };
    [
        (name, broker.name()),
        (namespace, broker.namespace()),
        ("messaging_system", "knative"),
        ("messaging_operation_name", "send"),
    ]
}

/// What a failed attempt was answered.
fn answered(failure: &Failure) -> Answered {
    match failure.cause {
        Cause::NoResponse | Cause::NotStored | Cause::TtlUsedUp => None,
        Cause::BadReply => Some(200),
        Cause::Gone => Some(410),
        Cause::Status(status) => Some(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::metrics::Format;

    const LABELS: &str = "kn_broker_name=\"default\",kn_broker_namespace=\"default\",messaging_system=\"knative\",\
        messaging_operation_name=\"send\"";

    #[test]
    fn each_broker_and_status_has_a_histogram_by_knatives_name() {
        let (times, metrics, broker) = (Times::default(), Metrics::new(), BrokerName::default());
        times.dispatched(&broker, &Ok(Some(202)), Duration::from_millis(3));
        times.register(&metrics);
        times.dispatched(&broker, &Ok(Some(202)), Duration::from_millis(7));
        times.dispatched(&broker, &Ok(Some(202)), Duration::from_millis(70));
        times.dispatched(&broker, &Err(Failure::no_response("http://a", "refused")), Duration::from_secs(20));
        let text = metrics.render(Format::OpenMetrics);
        let labels = format!("{LABELS},http_response_status_code=\"202\"");
        assert!(text.contains(&format!("{DISPATCH}_count{{{labels}}} 2\n")), "{text}");
        assert!(text.contains(&format!("{DISPATCH}_bucket{{{labels},le=\"0.01\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("{DISPATCH}_count{{{LABELS}}} 1\n")), "nobody answered: {text}");
    }

    #[test]
    fn what_subscribers_answer_does_not_decide_how_many_there_are() {
        let (times, metrics, broker) = (Times::default(), Metrics::new(), BrokerName::default());
        times.register(&metrics);
        for status in 200..600 {
            times.dispatched(&broker, &Ok(Some(status)), Duration::from_millis(3));
        }
        let text = metrics.render(Format::OpenMetrics);
        assert_eq!(text.matches(&format!("{DISPATCH}_count")).count(), MOST_STATUSES + 1);
        assert!(text.contains("status_code=\"other\"} 384\n"), "{text}");
    }

    #[test]
    fn an_event_counts_from_its_arrival_where_both_times_are_known() {
        let (times, metrics) = (Times::default(), Metrics::new());
        let channel: BrokerName = "channels/site-1/c".parse().expect("a name");
        times.register(&metrics);
        times.processed(&channel, Some(1_000), Some(1_006));
        for (arrival, now) in [(None, Some(1)), (Some(1), None), (Some(2), Some(1))] {
            times.processed(&channel, arrival, now);
        }
        let text = metrics.render(Format::OpenMetrics);
        let labels = "kn_channel_name=\"c\",kn_channel_namespace=\"site-1\"";
        assert!(text.contains(&format!("{PROCESS}_bucket{{{labels}")), "{text}");
        assert!(text.contains("le=\"0.005\"} 0\n") && text.contains("le=\"0.01\"} 1\n"), "{text}");
    }
}
