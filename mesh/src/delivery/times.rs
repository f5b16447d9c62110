//! How long deliveries take, by Knative's name: `kn.eventing.dispatch.duration`, as OpenMetrics writes it.
//!
//! One histogram for each Broker and class of answer, so that their number does not follow what subscribers answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::outcome::{Cause, Failure};
use crate::http::metrics::{Histogram, Metrics};
use crate::names::BrokerName;

const NAME: &str = "kn_eventing_dispatch_duration_seconds";
const HELP: &str = "The time it took to dispatch an event to a subscriber, its reply stored, one attempt each.";

/// Knative's bounds, in microseconds.
const BOUNDS_US: &[u64] = &[
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000, 5_000_000, 7_500_000,
    10_000_000,
];

/// The histograms, once there is somebody to show them to.
#[derive(Debug, Default)]
pub(crate) struct Times {
    metrics: OnceLock<Metrics>,
    known: Mutex<BTreeMap<(BrokerName, &'static str), Histogram>>,
}

impl Times {
    /// Shows them among these metrics from now on.
    pub(super) fn register(&self, metrics: &Metrics) {
        let _ = self.metrics.set(metrics.clone());
    }

    /// Adds one attempt.
    pub(super) fn observe(&self, broker: &BrokerName, outcome: &Result<(), Failure>, took: Duration) {
        let Some(metrics) = self.metrics.get() else { return };
        let class = class(outcome);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, histogram)) = known.iter().find(|((other, c), _)| other == broker && *c == class) {
            histogram.observe(took);
            return;
        }
        let labels = [
            ("kn_broker_name", broker.name()),
            ("kn_broker_namespace", broker.namespace()),
            ("http_response_status_class", class),
        ];
        let histogram = metrics.histogram(NAME, HELP, &labels, BOUNDS_US);
        histogram.observe(took);
        known.insert((broker.clone(), class), histogram);
    }
}

/// `2xx` for what was taken, whatever it was; `none` where there was no answer.
fn class(outcome: &Result<(), Failure>) -> &'static str {
    let Err(failure) = outcome else { return "2xx" };
    match failure.cause {
        Cause::NoResponse | Cause::NotStored => "none",
        Cause::BadReply => "2xx",
        Cause::Gone | Cause::TtlUsedUp => "4xx",
        Cause::Status(..200) => "1xx",
        Cause::Status(200..300) => "2xx",
        Cause::Status(300..400) => "3xx",
        Cause::Status(400..500) => "4xx",
        Cause::Status(500..) => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::metrics::Format;

    #[test]
    fn each_broker_and_class_of_answer_has_a_histogram_by_knatives_name() {
        let (times, metrics, broker) = (Times::default(), Metrics::new(), BrokerName::default());
        times.observe(&broker, &Ok(()), Duration::from_millis(3));
        times.register(&metrics);
        times.observe(&broker, &Ok(()), Duration::from_millis(7));
        times.observe(&broker, &Ok(()), Duration::from_millis(70));
        times.observe(&broker, &Err(Failure::no_response("http://a", "refused")), Duration::from_secs(20));
        let text = metrics.render(Format::OpenMetrics);
        let labels = "kn_broker_name=\"default\",kn_broker_namespace=\"default\",http_response_status_class=\"2xx\"";
        assert!(text.contains(&format!("{NAME}_count{{{labels}}} 2\n")), "{text}");
        assert!(text.contains(&format!("{NAME}_bucket{{{labels},le=\"0.01\"}} 1\n")), "{text}");
        assert!(text.contains("status_class=\"none\"} 1\n"), "{text}");
    }
}
