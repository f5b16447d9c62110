//! When to try again: full jitter, from half a second up to a cap, so that a thousand agents do not come back in step.

use std::time::Duration;

/// The longest first wait.
const FIRST: Duration = Duration::from_millis(500);

/// Waits between attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, next: FIRST.min(max) }
    }

    /// How long to wait before the next attempt: anything up to a limit that doubles.
    pub(super) fn wait(&mut self) -> Duration {
        let limit = self.next;
        self.next = (self.next * 2).min(self.max);
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        limit.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The gateway answered, or the network is another one: begin again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(60));
        for n in 0..20 {
            let limit = (FIRST * 2u32.pow(n.min(10))).min(Duration::from_secs(60));
            assert!(backoff.wait() <= limit);
        }
        assert_eq!(backoff.next, Duration::from_secs(60));
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
