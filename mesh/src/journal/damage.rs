//! Damage on the disk, said in the log: what, where, how much, and which count it moves. Each place once, however many readers
//! come by it and however often.

use std::collections::BTreeSet;

use tracing::warn;

use super::Offset;
use super::segment::Segment;

/// The count that lost events move when a consumer passes them.
const COUNT: &str = "godwit_consumer_events{outcome=\"dropped_quarantined\"}";

/// Most places remembered as said; beyond them they are said again.
const MOST_TOLD: usize = 1024;

/// Something of a segment that cannot be read as it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damage<'a> {
    pub(super) dir: &'a str,
    pub(super) segment: &'a Segment,
    /// Where in the file it begins.
    pub(super) at: u64,
    /// How many bytes of the file are passed over.
    pub(super) bytes: u64,
    /// The offsets `[from, to)` are lost; none if both are the same.
    pub(super) from: Offset,
    pub(super) to: Offset,
    /// Why, in words.
    pub(super) why: &'a str,
}

/// What has been said since the journal was opened: places in segments, and where lost offsets begin.
#[derive(Debug, Default)]
pub(super) struct Told {
    places: BTreeSet<(u64, u64)>,
    lost: BTreeSet<Offset>,
}

impl Told {
    /// Logs `damage` unless it has been logged before. The offsets that it costs are counted by each consumer as it passes them.
    pub(super) fn tell(&mut self, damage: &Damage<'_>) {
        let events = damage.to.since(damage.from);
        if self.places.len() + self.lost.len() >= MOST_TOLD {
            *self = Self::default();
        }
        let new_place = self.places.insert((damage.segment.seq, damage.at));
        let new = if events > 0 { self.lost.insert(damage.from) } else { new_place };
        if !new {
            return;
        }
        let Damage { dir, segment, at, bytes, from, to, why } = *damage;
        let file = segment.name();
        if events > 0 {
            warn!(dir, file, at, bytes, %from, %to, events, count = COUNT, "damage on the disk, its events are quarantined: {why}");
        } else {
            warn!(dir, file, at, bytes, events, "damage on the disk, no event is lost by it: {why}");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What `run` logs on this thread.
    pub(crate) fn logged(run: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("no panic before").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let out = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || out.clone()).finish();
        tracing::subscriber::with_default(subscriber, run);
        let bytes = lines.0.lock().expect("no panic before").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn damage_is_said_once_with_its_place_its_size_and_its_count() {
        let segment = Segment { seq: 2, first: Offset(7), len: 4096, begun_ms: None };
        let damage =
            Damage { dir: "journal", segment: &segment, at: 100, bytes: 300, from: Offset(8), to: Offset(10), why: "why" };
        let mut told = Told::default();
        let text = logged(|| {
            told.tell(&damage);
            told.tell(&damage);
            told.tell(&Damage { at: 500, from: Offset(10), ..damage });
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        for part in
            ["seg-0000000000000002-0000000000000007", "at=100", "bytes=300", "events=2", "dropped_quarantined", "why"]
        {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(text.contains("no event is lost"), "{text}");
    }
}
