//! What we add to a Knative kind: annotations `godwit.dev/<name>`, validated like fields.
//!
//! [`ANNOTATIONS`] lists them with kind, type, unit and default; `docs/reference.md` shows that list.
//!
//! An unknown name under `godwit.dev/`, or one on a kind that it does nothing for, is an error.

use std::collections::BTreeMap;

use super::duration::IsoDuration;
use super::error::FieldError;
use super::kind::Kind;
use super::selector::LabelSelector;
use crate::broker::Retention;
use crate::config::{Setting as _, Size};
use crate::journal::Policy;

const PREFIX: &str = "godwit.dev/";

/// Smallest retention that can be meant.
const LEAST_BYTES: u64 = 64 << 10;

/// One of our annotations, for people.
#[derive(Debug)]
pub struct Annotation {
    /// Its name behind `godwit.dev/`.
    pub name: &'static str,
    /// The kinds that it means something on; none: all.
    pub kinds: &'static [Kind],
    /// What its value may be.
    pub value: &'static str,
    /// The unit of the value, if it has one.
    pub unit: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// All of them, by name.
pub static ANNOTATIONS: [Annotation; 16] = [
    Annotation {
        name: "agents",
        kinds: &[],
        value: "label selector; empty: every agent",
        unit: "",
        default: "absent: the object runs where it was applied",
        doc: "At a gateway: the object is for the agents with these labels, and does not run at the gateway itself.",
    },
    Annotation {
        name: "backoff-jitter",
        kinds: &[Kind::Broker, Kind::Trigger, Kind::Channel, Kind::InMemoryChannel, Kind::Subscription],
        value: "`full`, `none`",
        unit: "",
        default: "`none`",
        doc: "Whether waits between retries are drawn at random between nothing and what the backoff says.",
    },
    Annotation {
        name: "backoff-max",
        kinds: &[Kind::Broker, Kind::Trigger, Kind::Channel, Kind::InMemoryChannel, Kind::Subscription],
        value: "duration above 0",
        unit: "ISO 8601, as in `PT30S`",
        default: "absent: no cap",
        doc: "Longest wait between retries.",
    },
    Annotation {
        name: "batch",
        kinds: &[Kind::Trigger, Kind::Subscription],
        value: "number from 1 to 1000",
        unit: "events",
        default: "`1`",
        doc: "Most events that go to the subscriber in one request, as `application/cloudevents-batch+json`, up to 256 KiB: what is \
              there goes, nothing is waited for. Its answer is for all of them, and never a reply. Not beside `parallelism`.",
    },
    Annotation {
        name: "deduplication-window",
        kinds: &[Kind::Broker],
        value: "duration above 0",
        unit: "ISO 8601, as in `PT10M`",
        default: "absent: every event is stored",
        doc: "For how long an event is known by `source` and `id`: another of its name is acknowledged and not stored, whether a device, a subscriber's reply, a Trigger or a source brings it.",
    },
    Annotation {
        name: "hold",
        kinds: &[Kind::Trigger, Kind::Subscription],
        value: "`true`, `false`",
        unit: "",
        default: "`false`",
        doc: "Whether events wait for this Trigger under the policy `reject`, so that a full broker takes no more.",
    },
    Annotation {
        name: "missed-runs",
        kinds: &[Kind::PingSource],
        value: "`skip`, `once`, `all`",
        unit: "",
        default: "`once`",
        doc: "What becomes of runs that came due while the process was off or the clock wrong: nothing, one run for all of them, or \
              each (the newest 100).",
    },
    Annotation {
        name: "parallelism",
        kinds: &[Kind::Trigger, Kind::Subscription],
        value: "number from 1 to 256",
        unit: "events",
        default: "`1`",
        doc: "Most events that are on their way to the subscriber at a time. With 1 they arrive in order; with more, those with the same \
              `partitionkey` do.",
    },
    Annotation {
        name: "retention-age",
        kinds: &[Kind::Broker],
        value: "duration above 0",
        unit: "ISO 8601, as in `P7D`",
        default: "absent: `storage.max-age`",
        doc: "Events of this Broker that are older go, at the latest at twice this age.",
    },
    Annotation {
        name: "retention-bytes",
        kinds: &[Kind::Broker],
        value: "size of at least 64KiB",
        unit: "`64MiB`, `1GiB`",
        default: "absent: a share of `storage.max-bytes`",
        doc: "Most bytes of this Broker's journal, four segments at least; what is left of `storage.max-bytes` the others share.",
    },
    Annotation {
        name: "retention-count",
        kinds: &[Kind::Broker],
        value: "number above 0",
        unit: "events",
        default: "absent: `storage.max-count`",
        doc: "Most events of this Broker, to the segment.",
    },
    Annotation {
        name: "retention-policy",
        kinds: &[Kind::Broker],
        value: "`drop-oldest`, `reject`",
        unit: "",
        default: "absent: `storage.policy`",
        doc: "What happens when this Broker is at its limit.",
    },
    Annotation {
        name: "start",
        kinds: &[Kind::Trigger, Kind::Subscription],
        value: "`earliest`, `latest`",
        unit: "",
        default: "`latest`",
        doc: "Where the Trigger begins when it is first applied: at the oldest event kept, or at the next.",
    },
    Annotation {
        name: "uplink",
        kinds: &[Kind::Broker],
        value: "`true`, `false`",
        unit: "",
        default: "`true`",
        doc: "At an agent: whether the Broker's events go up to the gateway.",
    },
    Annotation {
        name: "webhook-handshake",
        kinds: &[Kind::Trigger],
        value: "`true`, `false`",
        unit: "",
        default: "`false`",
        doc: "Whether the subscriber is asked for consent before events are sent to it (CloudEvents Web Hooks); 410 then retires it.",
    },
    Annotation {
        name: "webhook-rate",
        kinds: &[Kind::Trigger],
        value: "number above 0",
        unit: "requests a minute",
        default: "absent: none is asked for",
        doc: "The rate that the handshake asks for; what the subscriber allows is kept.",
    },
];

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

/// What becomes of a schedule's runs that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedRuns {
    /// They are counted, and that is all.
    Skip,
    /// One run stands for all of them.
    #[default]
    Once,
    /// Each is made up for, the newest of them.
    All,
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
    /// Trigger: most events in one request; none: not said.
    pub batch: Option<u16>,
    /// Trigger: most events on their way at a time; none: not said.
    pub parallelism: Option<u16>,
    /// Longest wait between retries.
    pub backoff_max: Option<IsoDuration>,
    /// Whether waits between retries are spread at random; none: not said.
    pub jitter: Option<Jitter>,
    /// Broker: for how long an event is known by `source` and `id`.
    pub deduplication_window: Option<IsoDuration>,
    /// Broker: its own retention.
    pub retention: Retention,
    /// Trigger: whether its subscriber is asked for consent first.
    pub webhook_handshake: bool,
    /// Trigger: the requests a minute that the handshake asks for.
    pub webhook_rate: Option<u32>,
    /// PingSource: what becomes of runs that were missed.
    pub missed_runs: MissedRuns,
}

impl Annotations {
    /// Reads ours among `annotations`. Paths are relative to `metadata`.
    pub(crate) fn parse(kind: Kind, annotations: &BTreeMap<String, String>) -> Result<Self, FieldError> {
        let mut parsed = Self::default();
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            parsed.take(kind, name, value).map_err(|why| FieldError::new(format!("annotations[{key}]"), why))?;
        }
        if parsed.batch.is_some_and(|n| n > 1) && parsed.parallelism.is_some_and(|n| n > 1) {
            return Err(FieldError::new(format!("annotations[{PREFIX}batch]"), "goes with a parallelism of 1 only"));
        }
        Ok(parsed)
    }

    fn take(&mut self, kind: Kind, name: &str, value: &str) -> Result<(), String> {
        let Some(known) = ANNOTATIONS.iter().find(|a| a.name == name) else {
            let names: Vec<_> = ANNOTATIONS.iter().map(|a| a.name).collect();
            return Err(format!("is not known; known are {}", names.join(", ")));
        };
        if !known.kinds.is_empty() && !known.kinds.contains(&kind) {
            return Err(format!("means nothing on a {kind}"));
        }
        match name {
            "agents" => self.agents = Some(value.parse().map_err(|e| format!("{e}"))?),
            "uplink" => self.uplink = Some(boolean(value)?),
            "start" => self.start = choice(value, &[("earliest", StartAt::Earliest), ("latest", StartAt::Latest)])?,
            "batch" => self.batch = Some(number(value, 1000)?),
            "hold" => self.hold = boolean(value)?,
            "parallelism" => self.parallelism = Some(number(value, 256)?),
            "backoff-max" => self.backoff_max = Some(duration(value)?),
            "deduplication-window" => self.deduplication_window = Some(duration(value)?),
            "retention-age" => self.retention.max_age_ms = Some(duration(value)?.as_millis()),
            "retention-bytes" => match Size::from_text(value)? {
                Size(bytes) if bytes >= LEAST_BYTES => self.retention.max_bytes = Some(bytes),
                Size(_) => return Err(format!("must be {LEAST_BYTES} bytes or more")),
            },
            "retention-count" => match value.parse() {
                Ok(count) if count > 0 => self.retention.max_count = Some(count),
                _ => return Err(format!("\"{value}\" is not a number above 0")),
            },
            "retention-policy" => {
                let policies = [("drop-oldest", Policy::DropOldest), ("reject", Policy::Reject)];
                self.retention.policy = Some(choice(value, &policies)?);
            }
            "missed-runs" => {
                let choices = [("skip", MissedRuns::Skip), ("once", MissedRuns::Once), ("all", MissedRuns::All)];
                self.missed_runs = choice(value, &choices)?;
            }
            "backoff-jitter" => self.jitter = Some(choice(value, &[("full", Jitter::Full), ("none", Jitter::None)])?),
            "webhook-handshake" => self.webhook_handshake = boolean(value)?,
            "webhook-rate" => match value.parse() {
                Ok(rate) if rate > 0 => self.webhook_rate = Some(rate),
                _ => return Err(format!("\"{value}\" is not a number from 1 to {}", u32::MAX)),
            },
            _ => return Err("is listed, but nothing reads it".to_owned()),
        }
        Ok(())
    }
}

/// A duration longer than nothing.
fn duration(value: &str) -> Result<IsoDuration, String> {
    let duration: IsoDuration = value.parse().map_err(|e| format!("{e}"))?;
    if duration.0.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}

fn boolean(value: &str) -> Result<bool, String> {
    choice(value, &[("true", true), ("false", false)])
}

fn number(value: &str, most: u16) -> Result<u16, String> {
    let given = value.parse().ok().filter(|n| (1..=most).contains(n));
    given.ok_or_else(|| format!("\"{}\" is not a number from 1 to {most}", value.chars().take(64).collect::<String>()))
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
    fn a_batch_goes_with_one_delivery_at_a_time_only() {
        let both = [("godwit.dev/batch", "10"), ("godwit.dev/parallelism", "2")];
        assert_eq!(parse(Kind::Trigger, &both).expect_err("both").field, "annotations[godwit.dev/batch]");
        let one = parse(Kind::Trigger, &[("godwit.dev/batch", "10"), ("godwit.dev/parallelism", "1")]).expect("valid");
        assert_eq!((one.batch, one.parallelism), (Some(10), Some(1)));
    }

    #[test]
    fn every_annotation_in_the_list_is_read() {
        for annotation in &ANNOTATIONS {
            let kind = annotation.kinds.first().copied().unwrap_or(Kind::Sequence);
            let key = format!("godwit.dev/{}", annotation.name);
            let why = parse(kind, &[(&key, "\u{1}")]).expect_err("no such value").why;
            assert!(!why.contains("nothing reads it"), "{key}");
        }
    }

    #[test]
    fn a_wrong_value_or_an_unknown_name_is_an_error_that_names_the_annotation() {
        for (kind, key, value) in [
            (Kind::Trigger, "godwit.dev/start", "oldest"),
            (Kind::Trigger, "godwit.dev/hold", "yes"),
            (Kind::Trigger, "godwit.dev/uplink", "true"),
            (Kind::Trigger, "godwit.dev/parallelism", "0"),
            (Kind::Trigger, "godwit.dev/parallelism", "257"),
            (Kind::Trigger, "godwit.dev/batch", "many"),
            (Kind::Broker, "godwit.dev/start", "earliest"),
            (Kind::Broker, "godwit.dev/uplink", "no"),
            (Kind::Broker, "godwit.dev/backoff-max", "PT0S"),
            (Kind::Broker, "godwit.dev/agents", "a b"),
            (Kind::Broker, "godwit.dev/startt", "earliest"),
            (Kind::Sequence, "godwit.dev/backoff-max", "PT1S"),
        ] {
            let error = parse(kind, &[(key, value)]).expect_err(key);
            assert_eq!(error.field, format!("annotations[{key}]"));
        }
    }
}
