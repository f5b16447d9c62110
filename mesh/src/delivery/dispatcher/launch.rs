//! Sending: what may go goes, and where order counts the next is made ready while one is on its way.

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::Running;
use crate::delivery::pages::Look;
use crate::delivery::room::{Found, Taken};
use crate::delivery::window::Outcome;
use crate::delivery::work::{Content, Job, Parcel};
use crate::journal::Offset;

/// Most bytes of events in one batch.
const BATCH_BYTES: usize = 256 << 10;
/// Larger events are not copied out of the page that they are on while they are sent.
const COPY_BYTES: usize = 8 << 10;

/// An event made ready while another is on its way.
pub(super) struct Next {
    job: Job,
    content: Content,
    taken: Taken,
}

impl Running {
    /// Sends what may go, and has it begin to go. Whether anything has come back at once.
    pub(super) fn launch(&mut self) -> bool {
        let before = self.deliveries.len();
        self.launch_all();
        self.deliveries.len() > before && self.take_back()
    }

    /// Takes those that have come back; others go on as far as they can. Whether there were any.
    pub(super) fn take_back(&mut self) -> bool {
        let mut some = false;
        while let Some(Some(finished)) = self.deliveries.next().now_or_never() {
            self.finished(finished);
            some = true;
        }
        some
    }

    /// Sends what may go.
    fn launch_all(&mut self) {
        let now = Instant::now();
        self.starved = None;
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let parcel = entry.remove();
            self.ready.push_front(parcel);
        }
        while self.deliveries.len() < self.parallelism && self.circuit.lets_pass(self.deliveries.len(), now) {
            // Where order counts nothing goes around what waits.
            if self.parallelism == 1 && !self.later.is_empty() {
                return;
            }
            let Some(mut parcel) = self.ready.pop_front() else { return };
            while parcel.offsets.len() < self.batch
                && parcel.is_fresh()
                && self.ready.front().is_some_and(|next| next.is_fresh() && next.offsets.len() == 1)
                && let Some(next) = self.ready.pop_front()
            {
                parcel.offsets.extend(next.offsets);
            }
            if !self.send(parcel) {
                return;
            }
        }
    }

    /// Sends one parcel. False when something it needs is not there yet: it stands first in line again then.
    fn send(&mut self, mut parcel: Parcel) -> bool {
        if let Some(Next { job, content, taken }) = self.next.take() {
            if parcel.is_fresh() && parcel.offsets == [job.offset] && self.window.is_open(job.offset) {
                let delivery = self.work.clone().deliver(parcel, vec![job], Some(content), taken);
                self.deliveries.push(Box::pin(delivery));
                return true;
            }
            self.share.give_back(&taken);
        }
        let mut jobs = Vec::with_capacity(parcel.offsets.len());
        let mut bytes = 0;
        let mut here = Vec::with_capacity(parcel.offsets.len());
        let mut absent = false;
        for (i, offset) in parcel.offsets.iter().enumerate() {
            // The cursor was moved past it.
            if !self.window.is_open(*offset) {
                continue;
            }
            match self.intake.look(*offset) {
                Look::Event(epoch, body) => {
                    if i > 0 && bytes + body.len() > BATCH_BYTES {
                        break;
                    }
                    bytes += body.len();
                    jobs.push(Job { epoch, offset: *offset, body: own(body) });
                    here.push(*offset);
                }
                Look::Lost(reason) => self.settle(*offset, Outcome::Dropped(reason)),
                Look::Absent => {
                    absent = true;
                    break;
                }
            }
        }
        // A batch that is not at hand as a whole goes as far as it is.
        let rest: Vec<Offset> = match here.last() {
            Some(last) => parcel.offsets.iter().copied().filter(|offset| offset > last).collect(),
            None if absent => {
                self.ready.push_front(parcel);
                return false;
            }
            None => return true,
        };
        for offset in rest.into_iter().rev() {
            let (stage, attempts) = (parcel.stage.clone(), parcel.attempts);
            let part = Parcel { stage, attempts, alone: parcel.alone, ..Parcel::new(offset) };
            self.ready.push_front(part);
        }
        parcel.offsets = here;
        match self.work.context.room.take(&mut self.share, bytes, &mut self.waited) {
            Found::Room(taken) => {
                self.deliveries.push(Box::pin(self.work.clone().deliver(parcel, jobs, None, taken)));
                true
            }
            Found::Later => {
                self.ready.push_front(parcel);
                false
            }
            Found::Wait(kib) => {
                self.starved = Some(kib);
                self.ready.push_front(parcel);
                false
            }
        }
    }

    /// Makes the next one ready while the only one that may be on its way is, if there is room.
    pub(super) fn prepare(&mut self) {
        if self.parallelism > 1 || self.batch > 1 || self.next.is_some() || self.deliveries.is_empty() {
            return;
        }
        let Some(offset) = self.ready.front().filter(|parcel| parcel.is_fresh()).map(Parcel::first) else { return };
        let Look::Event(epoch, body) = self.intake.look(offset) else { return };
        if body.len() > COPY_BYTES {
            return;
        }
        if let Found::Room(taken) = self.work.context.room.take(&mut self.share, body.len(), &mut None) {
            let job = Job { epoch, offset, body: own(body) };
            let content = self.work.prepare(std::slice::from_ref(&job));
            self.next = Some(Next { job, content, taken });
        }
    }

    /// Gives back what was made ready.
    pub(super) fn unprepare(&mut self) {
        if let Some(Next { taken, .. }) = self.next.take() {
            self.share.give_back(&taken);
        }
    }
}

/// Small events are copied out of the page that they are on.
fn own(body: Bytes) -> Bytes {
    if body.len() > COPY_BYTES { body } else { Bytes::copy_from_slice(&body) }
}
