//! Logs: `tracing` events to stderr, as text for people or one JSON object a line for machines. `spans` are the traces of events.
//!
//! Colours are used only when stderr is a terminal and `NO_COLOR` is not set. Levels are a list of targets
//! (`info,godwit_agent::mqtt=debug`); regular expressions are not offered, they would cost the agent memory for nothing.

mod spans;

use std::io::IsTerminal;

use thiserror::Error;
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Format, Log};

pub use spans::{QUEUE, Role, Span, Spans, TRACE_PARENT, TraceContext, endpoint};

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The level is not understood.
    #[error("log.level \"{level}\" is neither error, warn, info, debug nor a list such as info,godwit_agent=debug")]
    Level {
        /// The level as given.
        level: String,
    },
    /// The collector's URL is none.
    #[error("tracing.otlp-endpoint \"{endpoint}\" is no URL such as http://127.0.0.1:4318")]
    Endpoint {
        /// The URL as given.
        endpoint: String,
    },
    /// Logging has been set up before.
    #[error("logging is set up twice in one process")]
    Twice,
}

/// Starts logging to stderr. Once in a process.
///
/// # Errors
/// See [`ObserveError`].
pub fn logs(log: &Log) -> Result<(), ObserveError> {
    let targets = targets(&log.level)?;
    let more = targets.default_level() == Some(LevelFilter::TRACE)
        || targets.iter().any(|(_, severity)| severity == LevelFilter::TRACE);
    let registry = tracing_subscriber::registry();
    let outcome = match log.format {
        Format::Text => {
            let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(colours(&std::io::stderr())).with_target(false);
            registry.with(layer.with_filter(targets)).try_init()
        }
        Format::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_current_span(false);
            registry.with(layer.with_filter(targets)).try_init()
        }
    };
    outcome.map_err(|_| ObserveError::Twice)?;
    if more && STATIC_MAX_LEVEL < LevelFilter::TRACE {
        tracing::warn!("log.level = \"{}\": trace is not in this program; it tells what debug does", log.level);
    }
    Ok(())
}

/// Checks a level without setting anything up.
///
/// # Errors
/// [`ObserveError::Level`].
pub fn check_level(level: &str) -> Result<(), ObserveError> {
    targets(level).map(drop)
}

/// Whether colours may be written to a stream: it is a terminal and `NO_COLOR` is not set.
#[must_use]
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn targets(level: &str) -> Result<Targets, ObserveError> {
    let wrong = || ObserveError::Level { level: level.to_owned() };
    // `Targets` takes a bare word for a target; here it is a level or a mistake.
    if level.is_empty() {
        return Err(wrong());
    }
    for part in level.split(',') {
        let severity = part.rsplit_once('=').map_or(part, |(_, severity)| severity);
        if severity.trim().is_empty() {
            return Err(wrong());
        }
        severity.trim().parse::<LevelFilter>().map_err(|_| wrong())?;
    }
    level.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_a_list_by_module() {
        for good in ["info", "debug", "off", "warn,godwit_agent::mqtt=trace"] {
            assert!(check_level(good).is_ok(), "{good}");
        }
        for wrong in ["", "loud", "godwit_agent", "info,godwit_agent=loud"] {
            assert!(check_level(wrong).is_err(), "{wrong}");
        }
    }
}
