//! Random instants and numbers.

use std::time::Duration;

/// A number below `limit`; 0 when the system has no random bytes or `limit` is 0.
#[must_use]
pub fn below(limit: u64) -> u64 {
    getrandom::u64().ok().and_then(|number| number.checked_rem(limit)).unwrap_or(0)
}

/// Sleeps for a random time up to `limit`.
pub fn sleep(limit: Duration) {
    std::thread::sleep(Duration::from_micros(below(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX))));
}
