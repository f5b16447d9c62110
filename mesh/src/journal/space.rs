//! Room for new segments: spares, new files, and the oldest segments that must go. Also the limits of size, age, count and `keep`.
//!
//! Files are freed strictly from the oldest on, and durably one before the next, so that whatever a power cut brings back, no hole
//! arises in the middle of the log.

use std::io;

use tracing::{debug, warn};

use super::Policy;
use super::error::Refused;
use super::format::{HEAD_BYTES, Head, HeadRead};
use super::log::{Log, Need, RESERVE, lock};
use super::segment::{Segment, spare_name};
use crate::storage::read_exact_at;

impl Log {
    /// Bytes of all segment files, spares included.
    pub(super) fn bytes(&self) -> u64 {
        let held: u64 = lock(&self.view).table.iter().map(|s| s.len).sum();
        held + self.spares.len() as u64 * self.options.segment_bytes
    }

    pub(super) fn may_grow(&self) -> bool {
        self.bytes() + self.options.segment_bytes <= self.options.max_bytes
    }

    /// A file for a new segment: a spare, a new one, or the oldest segment's.
    pub(super) fn take_file(&mut self, need: Need) -> Result<String, Refused> {
        let reserve = if need == Need::Events { RESERVE } else { 0 };
        while self.spares.len() <= reserve {
            match self.add_spare() {
                // The reserve was lost in a power cut, and those that hold do not let the oldest go. A start and the cursors may
                // exceed the limit by this segment: events may not, so it is free again with the next start or the next roll.
                Err(Refused::Full) if need == Need::Control => {
                    let name = self.new_file(false).map_err(|e| Refused::from_io("making a segment", &e))?;
                    self.spares.push_back(name);
                }
                other => other?,
            }
        }
        self.spares.pop_front().ok_or(Refused::DiskFull)
    }

    /// Brings the reserve back to its size after a segment was begun from it.
    pub(super) fn refill_reserve(&mut self) -> Result<(), Refused> {
        while self.spares.len() < RESERVE {
            self.add_spare()?;
        }
        self.control_only = false;
        Ok(())
    }

    /// One more spare: a new file while the limit allows, else the oldest segment's.
    fn add_spare(&mut self) -> Result<(), Refused> {
        let mut refused = if self.options.policy == Policy::Reject { Refused::Full } else { Refused::DiskFull };
        let before = self.spares.len();
        loop {
            if self.may_grow() {
                match self.new_file(false) {
                    Ok(name) => {
                        self.spares.push_back(name);
                        return Ok(());
                    }
                    // Giving up more events would not mend the disk.
                    Err(e) if matches!(refused, Refused::Disk(_)) => return Err(Refused::from_io("making a segment", &e)),
                    Err(e) => refused = Refused::from_io("making a segment", &e),
                }
            }
            if !self.give_up_oldest() {
                return Err(refused);
            }
            if self.spares.len() > before {
                return Ok(());
            }
            // The file had another size and is gone: there may be room for a new one now, and no other need be given up.
        }
    }

    /// Makes a spare's file. With `zeros` its blocks are written, not only reserved, so that commits into it are cheap.
    fn new_file(&mut self, zeros: bool) -> io::Result<String> {
        let name = spare_name(self.next_spare);
        let path = self.path(&name);
        let len = self.options.segment_bytes;
        let make = || {
            let file = self.storage.open(&path, true)?;
            let reserved = match file.allocate(len) {
                Err(e) if e.kind() == io::ErrorKind::Unsupported => false,
                other => other.map(|()| true)?,
            };
            if zeros || !reserved {
                let block = vec![0; 64 << 10];
                let mut at = 0;
                while at < len {
                    let n = (len - at).min(block.len() as u64);
                    file.write_all_at(&block[..usize::try_from(n).unwrap_or(0)], at)?;
                    at += n;
                }
                file.sync_data()?;
            }
            Ok(())
        };
        match make() {
            Ok(()) => {
                self.next_spare += 1;
                Ok(name)
            }
            Err(e) => {
                let _ = self.storage.remove(&path);
                Err(e)
            }
        }
    }

    /// Whether a spare should be made ready while there is time.
    #[must_use]
    pub fn wants_spare(&self) -> bool {
        let filling = self.starved || self.position > self.options.segment_bytes / 2;
        self.spares.len() < RESERVE + usize::from(filling) && self.may_grow()
    }

    /// Makes one spare ready. Slow: it writes a whole segment of zeros.
    ///
    /// # Errors
    /// Whatever the file system answers; nothing has changed then.
    pub fn make_spare(&mut self) -> io::Result<()> {
        let name = self.new_file(true)?;
        self.spares.push_back(name);
        self.control_only &= self.spares.len() < RESERVE;
        self.starved &= self.spares.len() <= RESERVE;
        Ok(())
    }

    /// Frees the oldest segment, if the policy lets it go. Who had not read it has the loss counted: in the next snapshot, or,
    /// should the power fail before, by the recovery that finds the segment gone.
    fn give_up_oldest(&mut self) -> bool {
        let held = {
            let view = lock(&self.view);
            let Some(end) = view.table.get(1).map(|s| s.first) else { return false };
            view.state.consumers.values().any(|c| c.holds && c.cursor < end)
        };
        if self.options.policy == Policy::Reject && held {
            return false;
        }
        self.free_oldest()
    }

    fn free_oldest(&mut self) -> bool {
        let Some(seq) = ({ lock(&self.view).table.front().map(|s| s.seq) }) else { return false };
        if let Err(e) = self.settle_freed(seq) {
            warn!(dir = %self.dir, error = %e, "could not take the name off a freed segment: freeing no more of them");
            return false;
        }
        let mut view = lock(&self.view);
        let Some(segment) = view.table.pop_front() else { return false };
        let (seq, first) = view.table.front().map_or((segment.seq + 1, view.state.next), |s| (s.seq, s.first));
        view.state.trim(seq, first);
        drop(view);
        self.release(&segment);
        true
    }

    /// Makes durable that the freed segments below `seq` have lost their names.
    ///
    /// durable before: the next younger one loses its own. Were an older one found again after a power cut and a younger one not,
    /// what lies between them would look like damage, and what was refused at the end of the older one would be read in its place.
    fn settle_freed(&mut self, seq: u64) -> io::Result<()> {
        while let Some(name) = self.lingering.last() {
            match self.storage.remove(&self.path(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => self.lingering.pop(),
            };
            self.freed = true;
        }
        for at in 0..self.spares.len() {
            let Some(name) = self.spares.get(at).filter(|name| Segment::parse(name).is_some_and(|(s, _)| s < seq)) else {
                continue;
            };
            let spare = spare_name(self.next_spare);
            self.storage.rename(&self.path(name), &self.path(&spare))?;
            self.next_spare += 1;
            self.spares[at] = spare;
            self.freed = true;
        }
        if self.freed {
            self.storage.sync_dir(&self.dir)?;
            self.freed = false;
        }
        Ok(())
    }

    /// A freed segment's file becomes a spare, or goes.
    pub(super) fn release(&mut self, segment: &Segment) {
        let name = segment.name();
        let path = self.path(&name);
        self.freed = true;
        if segment.len == self.options.segment_bytes && self.spares.len() <= RESERVE {
            let spare = spare_name(self.next_spare);
            self.next_spare += 1;
            let renamed = self.storage.rename(&path, &self.path(&spare));
            self.spares.push_back(if renamed.is_ok() { spare } else { name });
        } else if let Err(e) = self.storage.remove(&path) {
            warn!(dir = %self.dir, file = name, error = %e, "could not remove a segment that is no longer needed");
            self.lingering.push(name);
        }
    }

    /// Applies the limits of age, count, size and `keep`. To be called now and then.
    pub fn maintain(&mut self) {
        self.end_the_old();
        while self.oldest_is_due() && self.free_oldest() {}
    }

    /// Ends the active segment once it is as old as events may become: only whole segments go, and where events are few, one
    /// would take months to fill. An event thus goes at the latest at twice its age limit.
    fn end_the_old(&mut self) {
        let Some(max) = self.options.max_age_ms else { return };
        let now = self.now_ms();
        let old = {
            let view = lock(&self.view);
            let old = |s: &Segment| s.first < view.state.next && s.begun_ms.is_some_and(|ms| now.saturating_sub(ms) >= max);
            view.table.back().is_some_and(old)
        };
        if old && let Err(error) = self.roll(Need::Events) {
            debug!(dir = %self.dir, %error, "events older than the limit stay for now");
        }
    }

    fn oldest_is_due(&mut self) -> bool {
        let too_many_bytes = self.bytes() > self.options.max_bytes;
        let now = self.now_ms();
        let mut view = lock(&self.view);
        let Some(next) = view.table.get(1).cloned() else { return false };
        let passed = view.state.consumers.values().all(|c| c.cursor >= next.first);
        let held = view.state.consumers.values().any(|c| c.holds && c.cursor < next.first);
        let may_drop = passed || self.options.policy == Policy::DropOldest || !held;
        let kept = view.state.next.since(next.first);
        if may_drop && (too_many_bytes || self.options.max_count.is_some_and(|max| kept >= max)) {
            return true;
        }
        let begun = next.begun_ms.or_else(|| self.read_begun(&next)).unwrap_or(0);
        if let Some(segment) = view.table.get_mut(1) {
            segment.begun_ms = Some(begun);
        }
        let age = now.saturating_sub(begun);
        (passed && age >= self.options.keep_ms) || self.options.max_age_ms.is_some_and(|max| age >= max)
    }

    /// When a segment of an earlier start was begun, from its head.
    fn read_begun(&self, segment: &Segment) -> Option<u64> {
        let file = self.storage.open(&self.path(&segment.name()), false).ok()?;
        let mut bytes = [0; HEAD_BYTES];
        read_exact_at(&*file, &mut bytes, 0).ok()?;
        match Head::decode(&bytes, segment.seq) {
            HeadRead::Valid(head) => Some(head.elapsed_ms),
            _ => None,
        }
    }
}
