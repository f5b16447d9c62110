//! Whether a subscriber is there at all. When it has been silent some times running, nothing new is sent to it: one event at a time
//! asks whether it is back, at the times that the policy gives for it, and with the first answer everything goes on.

use tokio::time::Instant;

use super::work::Contact;

/// So many attempts without an answer, one after the other, open the circuit.
const OPEN_AFTER: u32 = 5;

/// One subscriber's circuit.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    silent: u32,
    /// The next question may be asked then.
    ask_at: Option<Instant>,
}

impl Circuit {
    /// Notes how an attempt ended; after silence the next question waits until `again`.
    pub(crate) fn note(&mut self, contact: Contact, again: Option<Instant>) {
        match contact {
            Contact::None => {}
            Contact::Answered => *self = Self::default(),
            Contact::Silence => {
                self.silent = self.silent.saturating_add(1);
                self.ask_at = again;
            }
        }
    }

    /// Whether something may be sent now, while `under_way` deliveries are.
    pub(crate) fn lets_pass(&self, under_way: usize, now: Instant) -> bool {
        !self.is_open() || (under_way == 0 && self.ask_at.is_none_or(|at| at <= now))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.silent >= OPEN_AFTER
    }

    /// When the next question may be asked, where that is what everything waits for.
    pub(crate) fn ask_at(&self) -> Option<Instant> {
        self.ask_at.filter(|_| self.is_open())
    }

    /// Attempts without an answer, one after the other.
    pub(crate) fn silent(&self) -> u32 {
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_opens_it_one_asks_at_a_time_and_an_answer_closes_it() {
        let mut circuit = Circuit::default();
        let again = Instant::now() + Duration::from_secs(1);
        for _ in 0..OPEN_AFTER {
            assert!(circuit.lets_pass(3, Instant::now()));
            circuit.note(Contact::Silence, Some(again));
        }
        assert!(circuit.is_open());
        assert!(!circuit.lets_pass(0, Instant::now()), "not yet");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(circuit.lets_pass(0, Instant::now()));
        assert!(!circuit.lets_pass(1, Instant::now()), "one at a time");
        circuit.note(Contact::None, None);
        assert!(circuit.is_open());
        circuit.note(Contact::Answered, None);
        assert!(circuit.lets_pass(3, Instant::now()));
    }
}
