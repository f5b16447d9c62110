//! Opening a journal after whatever happened: finds the newest segment with a sound head, replays what follows its snapshot, and
//! says which files are free. Reads one segment; more only where a head is damaged.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tracing::{info, warn};

use super::damage::{Damage, Told};
use super::error::OpenError;
use super::format::{HEAD_BYTES, Head, HeadRead, VERSION, snapshot_crc};
use super::scan::Scan;
use super::segment::{Segment, Table, parse_spare, spare_name};
use super::state::State;
use super::{Offset, Options};
use crate::storage::{Storage, StorageFile, read_exact_at};

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) table: Table,
    pub(super) spares: VecDeque<String>,
    pub(super) next_spare: u64,
    /// The highest sequence number that any file's name bears.
    pub(super) last_seq: u64,
    /// The last segment and how many of its bytes are in use; 0 if it must not be cut.
    pub(super) last_used: (u64, u64),
    /// What damage has been logged.
    pub(super) told: Told,
}

struct Recovery<'a> {
    storage: &'a Arc<dyn Storage>,
    dir: &'a str,
}

/// See the module.
pub(super) fn recover(storage: &Arc<dyn Storage>, dir: &str, options: &Options) -> Result<Recovered, OpenError> {
    Recovery { storage, dir }.run(options)
}

/// Why the journal in `dir` does not open where this is its newest segment: a newer program wrote it. `bytes` are its first.
pub(crate) fn newer(dir: &str, file: &str, bytes: &[u8]) -> Option<OpenError> {
    let (seq, _) = Segment::parse(file)?;
    let HeadRead::Version(found) = Head::decode(bytes, seq) else { return None };
    Some(OpenError::Version { dir: dir.to_owned(), file: file.to_owned(), found, known: VERSION })
}

impl Recovery<'_> {
    fn error(&self, what: &str) -> impl FnOnce(io::Error) -> OpenError {
        let (dir, what) = (self.dir.to_owned(), what.to_owned());
        move |source| OpenError::Io { dir, what, source }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.open(&format!("{}/{name}", self.dir), false)
    }

    fn run(&self, options: &Options) -> Result<Recovered, OpenError> {
        self.storage.make_dir(self.dir).map_err(self.error("making the folder"))?;
        let (mut table, mut spares, mut next_spare) = self.list(options)?;
        let last_seq = table.back().map_or(0, |s| s.seq);
        let (base, mut state, start) = self.base(&mut table, &mut spares, options)?;

        // Made ready for events and never begun. Under its name such a file would stand between the segment before it and the one
        // that this start begins, and hide what was found at the end of the former.
        // durable before: the sync of the folder that precedes the next segment's head.
        for name in spares.iter_mut().filter(|name| Segment::parse(name).is_some()) {
            let spare = spare_name(next_spare);
            next_spare += 1;
            let path = |name: &str| format!("{}/{name}", self.dir);
            self.storage
                .rename(&path(name), &path(&spare))
                .map_err(self.error("renaming a segment that was never begun"))?;
            *name = spare;
        }
        // Freed before the snapshot was written; not yet reused.
        while table.front().is_some_and(|s| s.seq < state.first_seq) {
            if let Some(segment) = table.pop_front() {
                self.set_free(&segment, options, &mut spares);
            }
        }
        let replay_from = table.partition_point(|s| s.seq < base);
        let (mut used, mut told) = ((0, 0), Told::default());
        for at in replay_from..table.len() {
            let until = table.get(at + 1).map(|s| s.first);
            if let Some(segment) = table.get(at) {
                let position = if segment.seq == base { start } else { HEAD_BYTES as u64 };
                used = (segment.seq, self.replay(segment, position, until, &mut state, &mut told));
            }
        }
        // A segment that got no event before the next was begun was freed then.
        for at in (1..table.len()).rev() {
            if table.get(at - 1).map(|s| s.first) == table.get(at).map(|s| s.first)
                && let Some(segment) = table.remove(at - 1)
            {
                self.set_free(&segment, options, &mut spares);
            }
        }
        if let Some(last) = table.back() {
            // durable before: what a dead process wrote and did not sync may be in the page cache only. It is served from now on,
            // so it must be on disk first.
            self.open(&last.name()).and_then(|file| file.sync_data()).map_err(self.error("syncing the last segment"))?;
        }
        if let Some(first) = table.front() {
            // A segment was reused and the snapshot that says so did not become durable: the files tell.
            let events = first.first.since(state.first);
            if events > 0 {
                info!(
                    dir = self.dir, from = %state.first, to = %first.first, events,
                    "the oldest events had made room before the last stop: counted as dropped_retention for who had not read them"
                );
            }
            state.trim(first.seq, first.first);
        }
        Ok(Recovered { state, table, spares, next_spare, last_seq, last_used: used, told })
    }

    fn list(&self, options: &Options) -> Result<(Table, VecDeque<String>, u64), OpenError> {
        let mut segments = Vec::new();
        let mut spares = Vec::new();
        for name in self.storage.list(self.dir).map_err(self.error("listing the folder"))? {
            let len = || self.open(&name).and_then(|file| file.len());
            if let Some((seq, first)) = Segment::parse(&name) {
                segments.push(Segment { seq, first, len: len().unwrap_or(0), begun_ms: None });
            } else if let Some(n) = parse_spare(&name) {
                if len().is_ok_and(|len| len == options.segment_bytes) {
                    spares.push((n, name));
                } else {
                    // Made half, or for another size.
                    let _ = self.storage.remove(&format!("{}/{name}", self.dir));
                }
            }
        }
        segments.sort_by_key(|s| s.seq);
        spares.sort();
        let next_spare = spares.last().map_or(0, |(n, _)| n + 1);
        Ok((segments.into(), spares.into_iter().map(|(_, name)| name).collect(), next_spare))
    }

    /// The newest segment with a sound head and snapshot, its state, and where its batches begin. Files behind it that were made
    /// ready and never begun become spares.
    fn base(
        &self,
        table: &mut Table,
        spares: &mut VecDeque<String>,
        options: &Options,
    ) -> Result<(u64, State, u64), OpenError> {
        let mut at = table.len();
        while at > 0 {
            at -= 1;
            let Some(segment) = table.get(at).cloned() else { break };
            let mut bytes = vec![0; HEAD_BYTES];
            let file = self.open(&segment.name());
            let read = file
                .as_ref()
                .map_err(io::Error::kind)
                .and_then(|f| read_exact_at(&**f, &mut bytes, 0).map_err(|e| e.kind()));
            let head = if read.is_ok() { Head::decode(&bytes, segment.seq) } else { HeadRead::Damaged };
            match (head, file) {
                (HeadRead::Version(found), _) => {
                    return Err(OpenError::Version {
                        dir: self.dir.to_owned(),
                        file: segment.name(),
                        found,
                        known: VERSION,
                    });
                }
                (HeadRead::Valid(head), Ok(file)) => {
                    let mut snapshot = vec![0; (head.snapshot_len as usize).min(usize::try_from(segment.len).unwrap_or(0))];
                    let whole = read_exact_at(&*file, &mut snapshot, HEAD_BYTES as u64).is_ok()
                        && snapshot_crc(head.epoch, head.seq, head.first, &snapshot) == head.snapshot_crc;
                    if let Some(state) = whole.then(|| State::decode(&snapshot)).flatten() {
                        return Ok((segment.seq, state, HEAD_BYTES as u64 + snapshot.len() as u64));
                    }
                    warn!(
                        dir = self.dir,
                        file = segment.name(),
                        at = HEAD_BYTES,
                        bytes = head.snapshot_len,
                        "the snapshot of a segment is damaged: replaying from the one before, nothing is lost by that alone"
                    );
                }
                (_, Ok(file)) => {
                    match Scan::new(file, segment.seq, HEAD_BYTES as u64 - 1).resync(Offset(0)) {
                        Ok(None) => {
                            table.remove(at);
                            self.set_free(&segment, options, spares);
                        }
                        Ok(Some(_)) => warn!(
                            dir = self.dir,
                            file = segment.name(),
                            at = 0,
                            bytes = HEAD_BYTES,
                            "the head of a segment is damaged: replaying from the one before, nothing is lost by that alone"
                        ),
                        // What cannot be read now may be there all the same: only what is known to hold nothing is free.
                        Err(error) => warn!(
                            dir = self.dir, file = segment.name(), %error,
                            "a segment cannot be read: it is kept, and replaying begins with the one before"
                        ),
                    }
                }
                (_, Err(_)) => warn!(dir = self.dir, file = segment.name(), "a segment cannot be opened"),
            }
        }
        let mut state = State::default();
        if let Some(first) = table.front() {
            warn!(dir = self.dir, "no segment has a sound head: cursors and facts are rebuilt from what can be read");
            (state.first_seq, state.first, state.next) = (first.seq, first.first, first.first);
        }
        Ok((0, state, 0))
    }

    fn set_free(&self, segment: &Segment, options: &Options, spares: &mut VecDeque<String>) {
        if segment.len == options.segment_bytes {
            spares.push_back(segment.name());
        } else {
            let _ = self.storage.remove(&format!("{}/{}", self.dir, segment.name()));
        }
    }

    /// Applies a segment's batches from `position` on to the state, over damage too; returns where the last one ends.
    fn replay(&self, segment: &Segment, position: u64, until: Option<Offset>, state: &mut State, told: &mut Told) -> u64 {
        let dir = self.dir;
        let mut lost = |state: &mut State, at, bytes, to: Offset, why: &str| {
            told.tell(&Damage { dir, segment, at, bytes, from: state.next, to: to.max(state.next), why });
            // Readers name these offsets when they come by, and their consumers count them.
            state.next = state.next.max(to);
        };
        if segment.first > state.next {
            lost(state, 0, 0, segment.first, "the segment before ends too early");
        }
        let file = match self.open(&segment.name()) {
            Ok(file) => file,
            Err(error) => {
                warn!(dir, file = segment.name(), %error, "a segment cannot be opened");
                return 0;
            }
        };
        let mut scan = Scan::new(file, segment.seq, position);
        loop {
            let at = scan.position();
            let (next, failed) = match scan.next() {
                Ok(found) => (found, None),
                Err(error) => (None, Some(error)),
            };
            let found = match next {
                Some(found) => found,
                None => match scan.resync(state.next) {
                    Ok(Some(found)) => {
                        let why = failed.map_or_else(
                            || "a batch between sound ones fails its check".to_owned(),
                            |error| format!("reading failed: {error}"),
                        );
                        let to = until.map_or(found.head.first, |until| until.min(found.head.first));
                        lost(state, at, found.position - at, to, &why);
                        found
                    }
                    Ok(None) if failed.is_none() => {
                        self.tell_cut(segment, &mut scan, state);
                        break;
                    }
                    end => {
                        let error = end.err().or(failed).map(|error| error.to_string()).unwrap_or_default();
                        warn!(dir, file = segment.name(), at, error, "a segment cannot be read to its end");
                        return 0;
                    }
                },
            };
            let head = found.head;
            if until.is_some_and(|until| head.first.plus(u64::from(head.events)) > until) {
                // Written, never durable for sure, and not acknowledged: the next segment begins before it.
                info!(
                    dir,
                    file = segment.name(),
                    at = found.position,
                    bytes = head.len,
                    events = head.events,
                    "a batch that was refused when it was written is passed over: nobody had an acknowledgement, nothing is counted"
                );
                break;
            }
            if head.first > state.next {
                lost(state, found.position, 0, head.first, "the next sound batch begins later");
            }
            state.apply_batch(&found.records, head.events_len as usize, head.events, head.epoch, head.elapsed_ms);
        }
        if let Some(until) = until
            && until > state.next
        {
            let at = scan.position();
            lost(state, at, segment.len.saturating_sub(at), until, "no sound batch follows in the segment");
        }
        scan.position()
    }

    /// Says that the log ends with the beginning of a batch, if it does. What a recycled file holds from before is no such thing.
    fn tell_cut(&self, segment: &Segment, scan: &mut Scan, state: &State) {
        let Ok(Some(head)) = scan.peek() else { return };
        if head.first == state.next && state.lineage.0.last().is_some_and(|(epoch, _)| *epoch == head.epoch) {
            info!(
                dir = self.dir,
                file = segment.name(),
                at = scan.position(),
                bytes = head.len,
                events = head.events,
                "an unfinished batch at the end is cut: nobody had an acknowledgement, nothing is counted"
            );
        }
    }
}
