//! Time that tests can hold: the wall clock, which a board may not have, and the elapsed time since the start, which it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// Before this instant (2026-01-01T00:00:00Z, in ms) a wall clock has plainly not been set: boards without a battery start
/// in 1970.
pub const EARLIEST_VALID_MS: u64 = 1_767_225_600_000;

/// A source of time. Cheap to clone; clones of a manual clock share its hands.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's own clocks.
    System {
        /// When this clock was made: the zero of [`Clock::elapsed_ms`].
        start: Instant,
    },
    /// A clock that stands still until it is moved.
    Manual(Arc<Hands>),
}

/// The hands of a manual clock.
#[derive(Debug, Default)]
pub struct Hands {
    elapsed_ms: AtomicU64,
    wall_ms: AtomicI64,
    moved: Notify,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self::System { start: Instant::now() }
    }

    /// A clock for tests that shows `wall_ms` and moves only by [`Clock::advance`] and [`Clock::set_wall`].
    #[must_use]
    pub fn manual(wall_ms: i64) -> Self {
        let hands = Hands::default();
        hands.wall_ms.store(wall_ms, Ordering::Relaxed);
        Self::Manual(Arc::new(hands))
    }

    /// Milliseconds since this clock was made; never goes back, whatever happens to the wall clock.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        match self {
            Self::System { start } => u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            Self::Manual(hands) => hands.elapsed_ms.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since 1970 by the wall clock, or `None` while that clock is plainly not set.
    #[must_use]
    pub fn wall_ms(&self) -> Option<u64> {
        let ms = match self {
            Self::System { .. } => {
                SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok())?
            }
            Self::Manual(hands) => u64::try_from(hands.wall_ms.load(Ordering::Relaxed)).ok()?,
        };
        (ms >= EARLIEST_VALID_MS).then_some(ms)
    }

    /// Resolves when [`Clock::elapsed_ms`] has reached `at_ms`; `u64::MAX` is never. Cancel-safe.
    pub async fn sleep_until(&self, at_ms: u64) {
        match self {
            Self::System { start } => match start.checked_add(Duration::from_millis(at_ms)) {
                Some(at) if at_ms != u64::MAX => tokio::time::sleep_until(at.into()).await,
                _ => std::future::pending().await,
            },
            Self::Manual(hands) => loop {
                let mut moved = std::pin::pin!(hands.moved.notified());
                moved.as_mut().enable();
                if self.elapsed_ms() >= at_ms {
                    return;
                }
                moved.await;
            },
        }
    }

    /// Moves a manual clock on by `ms`; does nothing to the system's.
    pub fn advance(&self, ms: u64) {
        if let Self::Manual(hands) = self {
            hands.elapsed_ms.fetch_add(ms, Ordering::Relaxed);
            hands.wall_ms.fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::Relaxed);
            hands.moved.notify_waiters();
        }
    }

    /// Sets a manual clock's wall time; does nothing to the system's.
    pub fn set_wall(&self, ms: i64) {
        if let Self::Manual(hands) = self {
            hands.wall_ms.store(ms, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_clock_in_1970_tells_no_time() {
        let clock = Clock::manual(12_000);
        assert_eq!(clock.wall_ms(), None);
        clock.set_wall(1_800_000_000_000);
        assert_eq!(clock.wall_ms(), Some(1_800_000_000_000));
        clock.advance(5);
        assert_eq!((clock.elapsed_ms(), clock.wall_ms()), (5, Some(1_800_000_000_005)));
    }

    /// Where seconds have 32 bits they end in January 2038.
    #[test]
    fn the_times_of_files_go_on_after_2038() {
        // Other file systems may end there themselves.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let file = tempfile::tempfile_in(folder).expect("a file");
        let in_2040 = UNIX_EPOCH + Duration::from_secs(2_208_988_800);
        file.set_modified(in_2040).expect("set");
        let modified = file.metadata().and_then(|about| about.modified()).expect("a time");
        assert_eq!(modified, in_2040);
    }

    #[test]
    fn a_sleeper_wakes_when_the_hands_have_come_to_its_time() {
        let clock = Clock::manual(0);
        let mut sleeping = std::pin::pin!(clock.sleep_until(10));
        assert!(sleeping.as_mut().now_or_never().is_none());
        clock.advance(9);
        assert!(sleeping.as_mut().now_or_never().is_none());
        clock.advance(1);
        assert!(sleeping.as_mut().now_or_never().is_some());
    }
}
