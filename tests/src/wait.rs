//! Waiting for a condition with a deadline, and saying what was seen instead.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a look at a condition found.
pub enum Seen<T> {
    /// It holds.
    Yes(T),
    /// It does not hold yet; this is what was there instead.
    NotYet(String),
}

/// Looks until `look` says yes.
///
/// # Errors
/// After `limit`, with `what` and what the last look saw.
pub fn until<T>(what: impl Display, limit: Duration, mut look: impl FnMut() -> Seen<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look() {
            Seen::Yes(value) => return Ok(value),
            Seen::NotYet(last) if begun.elapsed() >= limit => bail!("{what}: not within {limit:?}; last seen: {last}"),
            Seen::NotYet(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Looks until `look` gives `expected` or more.
///
/// # Errors
/// After `limit`, with the last value or why there was none.
pub fn at_least(what: impl Display, limit: Duration, expected: u64, mut look: impl FnMut() -> Result<u64>) -> Result<u64> {
    until(format!("{what} (at least {expected})"), limit, || match look() {
        Ok(value) if value >= expected => Seen::Yes(value),
        Ok(value) => Seen::NotYet(value.to_string()),
        Err(error) => Seen::NotYet(format!("{error:#}")),
    })
}
