//! Knative's DeliverySpec: how often, how long and where to when a subscriber does not take an event (D12-D15, D25).

use serde::Deserialize;

use super::destination::Destination;
use super::duration::IsoDuration;
use super::error::FieldError;

/// How waits between retries grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackoffPolicy {
    /// `backoffDelay` times the number of the retry, from 1.
    Linear,
    /// `backoffDelay`, then twice as long each time.
    Exponential,
}

/// The form in which events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Structured mode.
    Json,
    /// Binary mode.
    Binary,
}

/// A `delivery` as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeliverySpec {
    /// Where events go that cannot be delivered.
    pub dead_letter_sink: Option<Destination>,
    /// Number of retries after the first attempt (D13).
    pub retry: Option<i32>,
    /// Longest time for one attempt.
    pub timeout: Option<IsoDuration>,
    /// How waits grow; without it there is no wait.
    pub backoff_policy: Option<BackoffPolicy>,
    /// The first wait; without it there is no wait (D14).
    pub backoff_delay: Option<IsoDuration>,
    /// Longest `Retry-After` that is obeyed; absent or zero: none is (D15).
    pub retry_after_max: Option<IsoDuration>,
    /// The form in which events are sent; absent: the sender's choice.
    pub format: Option<Format>,
}

impl DeliverySpec {
    /// Checks what types cannot. Paths are relative to the spec.
    pub(crate) fn check(&self) -> Result<(), FieldError> {
        if let Some(retry) = self.retry.filter(|r| *r < 0) {
            return Err(FieldError::new("retry", format!("{retry} must not be negative")));
        }
        if self.timeout.is_some_and(|t| t.0.is_zero()) {
            return Err(FieldError::new("timeout", "must be longer than nothing"));
        }
        if let Some(sink) = &self.dead_letter_sink {
            sink.check().map_err(|e| e.within("deadLetterSink"))?;
        }
        Ok(())
    }
}
