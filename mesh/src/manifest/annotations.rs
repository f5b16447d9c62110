//! What we add to a Knative kind: annotations `godwit.dev/<name>`, validated like fields.
//!
//! | annotation | on | value | default |
//! |---|---|---|---|
//! | `godwit.dev/agents` | any | label selector; empty: every agent | absent: the object runs where it was applied |
//! | `godwit.dev/uplink` | Broker | `true`, `false` | `true` |
//! | `godwit.dev/start` | Trigger | `earliest`, `latest` | `latest` |
//! | `godwit.dev/hold` | Trigger | `true`, `false` | `false` |
//! | `godwit.dev/backoff-max` | Broker, Trigger | ISO 8601 duration above 0 | absent: no cap |
//! | `godwit.dev/backoff-jitter` | Broker, Trigger | `full`, `none` | `none` |
//!
//! An unknown name under `godwit.dev/`, or one on a kind that it does nothing for, is an error.

use std::collections::BTreeMap;

use super::duration::IsoDuration;
use super::error::FieldError;
use super::object::Kind;
use super::selector::LabelSelector;

const PREFIX: &str = "godwit.dev/";

/// Where a Trigger begins when it is first applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// At the next event.
    #[default]
    Latest,
    /// At the oldest event kept.
    Earliest,
}

/// Whether waits between retries are spread at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Jitter {
    /// The wait is exactly what the backoff says.
    #[default]
    None,
    /// The wait is drawn evenly between nothing and what the backoff says.
    Full,
}

/// Our annotations on one object, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// The agents that are to run this object, if it is for agents.
    pub agents: Option<LabelSelector>,
    /// Broker: whether its events go up to the gateway.
    pub uplink: Option<bool>,
    /// Trigger: where it begins when first applied.
    pub start: StartAt,
    /// Trigger: whether it holds events back under the policy `reject`.
    pub hold: bool,
    /// Longest wait between retries.
    pub backoff_max: Option<IsoDuration>,
    /// Whether waits between retries are spread at random; none: not said.
    pub jitter: Option<Jitter>,
}

impl Annotations {
    /// Reads ours among `annotations`. Paths are relative to `metadata`.
    pub(crate) fn parse(kind: Kind, annotations: &BTreeMap<String, String>) -> Result<Self, FieldError> {
        let mut parsed = Self::default();
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            parsed.take(kind, name, value).map_err(|why| FieldError::new(format!("annotations[{key}]"), why))?;
        }
        Ok(parsed)
    }

    fn take(&mut self, kind: Kind, name: &str, value: &str) -> Result<(), String> {
        match (name, kind) {
            ("agents", _) => self.agents = Some(value.parse().map_err(|e| format!("{e}"))?),
            ("uplink", Kind::Broker) => self.uplink = Some(boolean(value)?),
            ("start", Kind::Trigger) => {
                self.start = choice(value, &[("earliest", StartAt::Earliest), ("latest", StartAt::Latest)])?;
            }
            ("hold", Kind::Trigger) => self.hold = boolean(value)?,
            ("backoff-max", _) => {
                let max: IsoDuration = value.parse().map_err(|e| format!("{e}"))?;
                if max.0.is_zero() {
                    return Err("must be longer than nothing".to_owned());
                }
                self.backoff_max = Some(max);
            }
            ("backoff-jitter", _) => self.jitter = Some(choice(value, &[("full", Jitter::Full), ("none", Jitter::None)])?),
            ("uplink" | "start" | "hold", _) => return Err(format!("means nothing on a {kind}")),
            _ => return Err("is not known; known are agents, uplink, start, hold, backoff-max, backoff-jitter".to_owned()),
        }
        Ok(())
    }
}

fn boolean(value: &str) -> Result<bool, String> {
    choice(value, &[("true", true), ("false", false)])
}

fn choice<T: Copy>(value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(word, _)| *word == value).map(|(_, t)| *t).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("\"{}\" is not one of {}", value.chars().take(64).collect::<String>(), words.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: Kind, pairs: &[(&str, &str)]) -> Result<Annotations, FieldError> {
        Annotations::parse(kind, &pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn ours_are_read_and_others_left_alone() {
        let got = parse(
            Kind::Trigger,
            &[
                ("godwit.dev/start", "earliest"),
                ("godwit.dev/hold", "true"),
                ("godwit.dev/agents", ""),
                ("godwit.dev/backoff-max", "PT1M"),
                ("godwit.dev/backoff-jitter", "full"),
                ("eventing.knative.dev/broker.class", "Kafka"),
            ],
        )
        .expect("valid");
        assert_eq!(got.start, StartAt::Earliest);
        assert!(got.hold);
        assert!(got.agents.is_some_and(|s| s.is_empty()));
        assert_eq!(got.backoff_max.map(IsoDuration::as_millis), Some(60_000));
        assert_eq!(got.jitter, Some(Jitter::Full));
    }

    #[test]
    fn a_wrong_value_or_an_unknown_name_is_an_error_that_names_the_annotation() {
        for (kind, key, value) in [
            (Kind::Trigger, "godwit.dev/start", "oldest"),
            (Kind::Trigger, "godwit.dev/hold", "yes"),
            (Kind::Trigger, "godwit.dev/uplink", "true"),
            (Kind::Broker, "godwit.dev/start", "earliest"),
            (Kind::Broker, "godwit.dev/uplink", "no"),
            (Kind::Broker, "godwit.dev/backoff-max", "PT0S"),
            (Kind::Broker, "godwit.dev/agents", "a b"),
            (Kind::Broker, "godwit.dev/startt", "earliest"),
        ] {
            let error = parse(kind, &[(key, value)]).expect_err(key);
            assert_eq!(error.field, format!("annotations[{key}]"));
        }
    }
}
