//! How many bytes may be on their way unanswered.
//!
//! Too few and the link idles while answers travel, too many and the newest event waits behind minutes of old ones. The rate is
//! measured as what was answered between a frame's sending and its answer; the window is what that rate carries in two round
//! trips and a quarter second, and never more than in 4 s. Measures of a link that was not kept busy only ever raise it.

use std::time::Duration;

use tokio::time::Instant;

/// Before anything is measured, and at least.
const LEAST: u64 = 1 << 10;

/// At most, whatever the rate: what a gateway answers for at a time.
const MOST: u64 = 4 << 20;

/// The longest that unanswered bytes may take.
const LONGEST: Duration = Duration::from_secs(4);

const SLACK: Duration = Duration::from_millis(250);

/// What is remembered of a frame on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    at: Instant,
    answered: u64,
    bytes: u64,
    /// Whether the answer was asked for at once, and the link was kept busy.
    urgent: bool,
}

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    answered: u64,
    unanswered: u64,
    /// Bytes per second.
    rate: f64,
    round_trip: Duration,
}

impl Window {
    /// A window for a link whose hello took `round_trip`.
    pub(super) fn new(round_trip: Duration) -> Self {
        Self { answered: 0, unanswered: 0, rate: 0.0, round_trip }
    }

    /// Bytes that may be unanswered in all.
    pub(super) fn size(&self) -> u64 {
        let time = (self.round_trip * 2 + SLACK).min(LONGEST);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let size = (self.rate * time.as_secs_f64()) as u64;
        size.clamp(LEAST, MOST)
    }

    /// Bytes that may be sent now. What is begun may be finished: a frame that is larger goes alone.
    pub(super) fn room(&self) -> u64 {
        self.size().saturating_sub(self.unanswered)
    }

    /// Whether the answer to a frame of `bytes` should come at once, so that the window does not run dry.
    pub(super) fn presses(&self, bytes: u64) -> bool {
        self.unanswered + bytes >= self.size() / 2
    }

    /// Notes a frame that is sent.
    pub(super) fn sent(&mut self, bytes: u64, urgent: bool, now: Instant) -> Ticket {
        self.unanswered += bytes;
        Ticket { at: now, answered: self.answered, bytes, urgent }
    }

    /// Notes that a frame is answered.
    pub(super) fn answered(&mut self, ticket: &Ticket, now: Instant) {
        self.unanswered = self.unanswered.saturating_sub(ticket.bytes);
        self.answered += ticket.bytes;
        let took = now.duration_since(ticket.at).max(Duration::from_micros(100));
        #[allow(clippy::cast_precision_loss)]
        let measured = (self.answered - ticket.answered) as f64 / took.as_secs_f64();
        if measured > self.rate {
            self.rate = measured;
        } else if ticket.urgent {
            self.rate = self.rate * 0.75 + measured * 0.25;
        }
        if ticket.urgent {
            self.round_trip = self.round_trip.min(took);
        }
    }

    /// Forgets a frame whose answer does not depend on the link: its broker cannot store now.
    pub(super) fn forget(&mut self, ticket: &mut Ticket) {
        self.unanswered = self.unanswered.saturating_sub(ticket.bytes);
        ticket.bytes = 0;
        ticket.urgent = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Sends for a while over a link of `rate` bytes a second with `delay` each way; returns bytes carried, and the longest time
    /// that unanswered bytes would have taken once the rate was known.
    fn run(rate: u64, delay: Duration, seconds: u64) -> (u64, Duration) {
        let mut window = Window::new(delay * 2);
        let mut now = Instant::now();
        let start = now;
        let (mut free_at, mut flying, mut carried, mut worst) = (now, VecDeque::new(), 0, Duration::ZERO);
        while now < start + Duration::from_secs(seconds) {
            while let Some((due, _)) = flying.front() {
                if *due > now {
                    break;
                }
                let (_, ticket): (Instant, Ticket) = flying.pop_front().expect("just seen");
                window.answered(&ticket, now);
                carried += ticket.bytes;
            }
            while window.room() > 0 {
                let bytes = window.room().min(500);
                let urgent = window.presses(bytes);
                let ticket = window.sent(bytes, urgent, now);
                free_at = free_at.max(now) + Duration::from_nanos(bytes * 1_000_000_000 / rate);
                flying.push_back((free_at + delay * 2, ticket));
            }
            if now > start + Duration::from_secs(seconds / 2) {
                worst = worst.max(Duration::from_millis(window.unanswered * 1000 / rate));
            }
            now += Duration::from_millis(5).min(delay.max(Duration::from_millis(1)));
        }
        (carried, worst)
    }

    #[test]
    fn two_kilobits_with_two_seconds_of_round_trip_are_used_well() {
        let (carried, worst) = run(250, Duration::from_secs(1), 300);
        assert!(carried > 250 * 300 * 7 / 10, "{carried} bytes");
        assert!(worst <= Duration::from_millis(6100), "{worst:?} unanswered");
    }

    #[test]
    fn a_fast_link_is_used_well() {
        let (carried, worst) = run(1_000_000, Duration::from_millis(20), 20);
        assert!(carried > 1_000_000 * 20 * 7 / 10, "{carried} bytes");
        assert!(worst < Duration::from_secs(4), "{worst:?} unanswered");
    }
}
