//! When to try again, and when to give up (D12-D15, "Our choice").
//!
//! A `delivery` that is written holds exactly as it is written. Without any, an edge needs something better than one attempt:
//! who is away is waited for, for ever, with waits of 1 s doubling to 5 minutes, spread at random.

use std::time::Duration;

use super::outcome::{Cause, Class, Failure};
use crate::manifest::{Annotations, BackoffPolicy, DeliverySpec, Format, Jitter};

/// Longest time for one attempt where none is written.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Our own waits: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The longest `Retry-After` that our own policy obeys with 429.
const LONGEST_ASKED: Duration = Duration::from_secs(24 * 3600);

/// How often our own policy tries again when the receiver answers, but with an error of its own.
const OWN_RETRIES: u32 = 10;

/// How one Trigger's events are sent and sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Longest time for one attempt.
    pub(crate) timeout: Duration,
    /// The form in which events are sent; none: whatever suits the event.
    pub(crate) format: Option<Format>,
    schedule: Schedule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Schedule {
    /// No `delivery` anywhere.
    Ours,
    /// As written.
    Written {
        retries: u32,
        /// None: no wait.
        backoff: Option<(BackoffPolicy, Duration)>,
        longest: Option<Duration>,
        jitter: Jitter,
        /// None: `Retry-After` is not looked at.
        retry_after_max: Option<Duration>,
    },
}

/// What has been tried so far for one event and one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Attempts {
    /// Attempts that failed.
    pub(crate) failed: u32,
    /// Those of them in which the receiver was there, but had an error of its own.
    answered: u32,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again after this.
    RetryAfter(Duration),
    /// The failure is final.
    GiveUp,
}

impl Policy {
    /// The policy of a `delivery` with the annotations beside it, or our own where there is none.
    pub(crate) fn new(delivery: Option<&DeliverySpec>, trigger: &Annotations, broker: Option<&Annotations>) -> Self {
        let Some(spec) = delivery else {
            return Self { timeout: DEFAULT_TIMEOUT, format: None, schedule: Schedule::Ours };
        };
        let longest = trigger.backoff_max.or(broker.and_then(|b| b.backoff_max)).map(|d| d.0);
        let jitter = match (trigger.jitter, broker.map(|b| b.jitter)) {
            (None, inherited) => inherited.flatten().unwrap_or_default(),
            (Some(own), _) => own,
        };
        Self {
            timeout: spec.timeout.map_or(DEFAULT_TIMEOUT, |t| t.0),
            format: spec.format,
            schedule: Schedule::Written {
                retries: spec.retry.and_then(|r| u32::try_from(r).ok()).unwrap_or(0),
                // D14: a policy without a delay, or a delay without a policy, is no wait.
                backoff: spec.backoff_policy.zip(spec.backoff_delay.map(|d| d.0)),
                longest,
                jitter,
                retry_after_max: spec.retry_after_max.map(|d| d.0).filter(|d| !d.is_zero()),
            },
        }
    }

    /// Counts a failed attempt and says what follows. `random` is drawn evenly from 0 to 1.
    pub(crate) fn after(&self, attempts: &mut Attempts, failure: &Failure, random: f64) -> Next {
        attempts.failed = attempts.failed.saturating_add(1);
        let class = failure.class();
        if class == Class::Retryable {
            attempts.answered = attempts.answered.saturating_add(1);
        }
        if class == Class::Final {
            return Next::GiveUp;
        }
        match &self.schedule {
            Schedule::Ours => {
                let spent = class == Class::Retryable && attempts.answered > OWN_RETRIES;
                if class == Class::Malformed || spent {
                    return Next::GiveUp;
                }
                let wait = doubled(FIRST_WAIT, attempts.failed).min(LONGEST_WAIT).mul_f64(random.clamp(0.0, 1.0));
                // Who says "too many requests" says how long to wait, and is obeyed (CloudEvents Web Hooks, section 2.2).
                let most = if failure.cause == Cause::Status(429) { LONGEST_ASKED } else { LONGEST_WAIT };
                Next::RetryAfter(asked_for(wait, failure, Some(most)))
            }
            Schedule::Written { retries, backoff, longest, jitter, retry_after_max } => {
                if attempts.failed > *retries {
                    return Next::GiveUp;
                }
                let wait = match backoff {
                    None => Duration::ZERO,
                    Some((BackoffPolicy::Linear, delay)) => delay.saturating_mul(attempts.failed),
                    Some((BackoffPolicy::Exponential, delay)) => doubled(*delay, attempts.failed),
                };
                let wait = longest.map_or(wait, |longest| wait.min(longest));
                let wait = match jitter {
                    Jitter::None => wait,
                    Jitter::Full => wait.mul_f64(random.clamp(0.0, 1.0)),
                };
                Next::RetryAfter(asked_for(wait, failure, *retry_after_max))
            }
        }
    }

    /// The wait before the next attempt to store a dead letter that the journal refused: ours, whatever is written.
    pub(crate) fn wait_for_disk(attempts: u32, random: f64) -> Duration {
        doubled(FIRST_WAIT, attempts).min(LONGEST_WAIT).mul_f64(random.clamp(0.1, 1.0))
    }
}

/// `delay`, doubled with each retry after the first.
fn doubled(delay: Duration, retry: u32) -> Duration {
    delay.saturating_mul(1u32.checked_shl(retry.saturating_sub(1)).filter(|f| *f != 0).unwrap_or(u32::MAX))
}

/// D15: at least what the receiver asked for, as far as that is obeyed.
fn asked_for(wait: Duration, failure: &Failure, most: Option<Duration>) -> Duration {
    match (failure.retry_after, most) {
        (Some(asked), Some(most)) => wait.max(asked.min(most)),
        _ => wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> DeliverySpec {
        serde_json::from_value(json).expect("a delivery")
    }

    fn written(json: serde_json::Value) -> Policy {
        Policy::new(Some(&spec(json)), &Annotations::default(), None)
    }

    fn failure(status: u16) -> Failure {
        Failure::new(Cause::Status(status), "http://a", String::new(), Vec::new())
    }

    /// The waits until the policy gives up, at most 20.
    fn waits(policy: &Policy, failure: &Failure) -> Vec<u128> {
        let mut attempts = Attempts::default();
        let mut waits = Vec::new();
        while waits.len() < 20
            && let Next::RetryAfter(wait) = policy.after(&mut attempts, failure, 1.0)
        {
            waits.push(wait.as_millis());
        }
        waits
    }

    #[test]
    fn d13_retry_is_the_number_of_retries_after_the_first_attempt() {
        assert_eq!(waits(&written(serde_json::json!({"retry": 3})), &failure(500)).len(), 3);
        assert_eq!(waits(&written(serde_json::json!({})), &failure(500)).len(), 0);
        assert_eq!(waits(&written(serde_json::json!({"retry": 3})), &failure(400)).len(), 0, "400 is final");
    }

    #[test]
    fn d14_linear_waits_grow_by_the_delay_and_exponential_ones_double() {
        let delivery = |policy: &str| serde_json::json!({"retry": 4, "backoffPolicy": policy, "backoffDelay": "PT0.2S"});
        assert_eq!(waits(&written(delivery("linear")), &failure(503)), [200, 400, 600, 800]);
        assert_eq!(waits(&written(delivery("exponential")), &failure(503)), [200, 400, 800, 1600]);
    }

    #[test]
    fn d14_a_delay_without_a_policy_and_a_policy_without_a_delay_are_no_wait() {
        assert_eq!(waits(&written(serde_json::json!({"retry": 2, "backoffDelay": "PT1S"})), &failure(503)), [0, 0]);
        assert_eq!(waits(&written(serde_json::json!({"retry": 2, "backoffPolicy": "linear"})), &failure(503)), [0, 0]);
    }

    #[test]
    fn d15_retry_after_counts_only_where_it_is_allowed_and_up_to_its_limit() {
        let mut busy = failure(503);
        busy.retry_after = Some(Duration::from_secs(100));
        let base = |max: &str| {
            written(
                serde_json::json!({"retry": 1, "backoffPolicy": "linear", "backoffDelay": "PT2S", "retryAfterMax": max}),
            )
        };
        assert_eq!(waits(&base("PT30S"), &busy), [30_000]);
        assert_eq!(waits(&base("PT1S"), &busy), [2_000], "never less than the backoff");
        assert_eq!(waits(&base("PT0S"), &busy), [2_000], "zero: ignored");
        assert_eq!(waits(&written(serde_json::json!({"retry": 1})), &busy), [0]);
    }

    #[test]
    fn our_choice_waits_for_ever_for_who_is_away_and_gives_up_on_errors_after_ten() {
        let ours = Policy::new(None, &Annotations::default(), None);
        let away = waits(&ours, &failure(503));
        assert_eq!(away.len(), 20);
        assert_eq!(away.get(..4), Some(&[1000, 2000, 4000, 8000][..]));
        assert_eq!(away.last(), Some(&300_000));
        assert_eq!(waits(&ours, &failure(500)).len(), 10);
        assert!(waits(&ours, &failure(410)).is_empty());
        let malformed = Failure::new(Cause::BadReply, "http://a", String::new(), Vec::new());
        assert!(waits(&ours, &malformed).is_empty());
        assert_eq!(waits(&written(serde_json::json!({"retry": 2})), &malformed).len(), 2, "D21: a failure like another");
    }

    #[test]
    fn our_choice_obeys_retry_after_with_429_for_a_day_and_with_503_as_long_as_its_own_longest_wait() {
        let ours = Policy::new(None, &Annotations::default(), None);
        for (status, seconds) in [(429, 3600), (503, 300)] {
            let mut asked = failure(status);
            asked.retry_after = Some(Duration::from_secs(3600));
            let next = ours.after(&mut Attempts::default(), &asked, 1.0);
            assert_eq!(next, Next::RetryAfter(Duration::from_secs(seconds)), "{status}");
        }
    }

    #[test]
    fn our_choice_caps_and_spreads_written_waits_only_on_request() {
        let annotations =
            Annotations { backoff_max: "PT1S".parse().ok(), jitter: Some(Jitter::Full), ..Annotations::default() };
        let delivery = spec(serde_json::json!({"retry": 9, "backoffPolicy": "exponential", "backoffDelay": "PT0.5S"}));
        let policy = Policy::new(Some(&delivery), &annotations, None);
        assert_eq!(waits(&policy, &failure(503)).get(..3), Some(&[500, 1000, 1000][..]));
        let mut attempts = Attempts::default();
        let next = policy.after(&mut attempts, &failure(503), 0.5);
        assert_eq!(next, Next::RetryAfter(Duration::from_millis(250)));
        let inherited = Policy::new(Some(&delivery), &Annotations::default(), Some(&annotations));
        assert_eq!(inherited, policy, "the Broker's hold where the Trigger has none");
    }
}
