//! What a program prints: log lines, or events. Bounded: a line that is too long is cut in the log, and lost as an event; more log
//! lines than [`BURST`] at a time and [`PER_SECOND`] after that are counted, not written.

use bytes::{Buf as _, Bytes, BytesMut};
use godwit_mesh::event::Event;
use godwit_mesh::source::{Job, Sink, Tries};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::super::data;
use super::keep::Printed;

/// The type of events where none is written.
const TYPE: &str = "dev.godwit.program.line";

/// Longest line that becomes an event, in bytes.
const MAX_EVENT_LINE: usize = 64 << 10;

/// Most bytes of a line in the log.
const MAX_LOG_LINE: usize = 512;

/// Bytes that are read at a time.
const READ_BYTES: usize = 8 << 10;

/// Most events of one commit.
const BATCH: usize = 64;

/// Who floods the log is read no faster than [`READ_BYTES`] in so many milliseconds, and then waits by itself.
const SLOW_DOWN_MS: u64 = 50;

/// Log lines at a time, and a second.
const BURST: u64 = 50;
const PER_SECOND: u64 = 10;

/// Takes both outputs until they are closed.
pub(super) async fn take(
    job: &Job,
    sink: &Sink,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    printed: &Printed,
) {
    let out = async {
        let Some(stdout) = stdout else { return };
        match printed {
            Printed::Log => log(job, stdout, "stdout").await,
            Printed::Events { .. } => events(job, sink, stdout, printed).await,
        }
    };
    let err = async {
        if let Some(stderr) = stderr {
            log(job, stderr, "stderr").await;
        }
    };
    tokio::join!(out, err);
}

/// Takes bytes apart into lines.
#[derive(Debug)]
struct Lines {
    bytes: BytesMut,
    limit: usize,
    /// Within a line that is too long.
    passing: bool,
}

/// A line, or the beginning of one that is too long.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Bytes),
    Cut(Bytes),
}

impl Lines {
    fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), limit, passing: false }
    }

    /// The next line that is there.
    fn next(&mut self) -> Option<Line> {
        loop {
            let end = self.bytes.iter().position(|b| *b == b'\n');
            match end {
                Some(end) if self.passing => {
                    self.bytes.advance(end + 1);
                    self.passing = false;
                }
                Some(end) if end <= self.limit => {
                    let line = self.bytes.split_to(end).freeze();
                    self.bytes.advance(1);
                    return Some(Line::Whole(line));
                }
                Some(_) => return Some(self.cut()),
                None if self.passing => {
                    self.bytes.clear();
                    return None;
                }
                None if self.bytes.len() > self.limit => return Some(self.cut()),
                None => return None,
            }
        }
    }

    fn cut(&mut self) -> Line {
        self.passing = true;
        Line::Cut(self.bytes.split_to(self.limit).freeze())
    }

    /// What is there at the end, without an end of its own.
    fn last(&mut self) -> Option<Line> {
        let rest = self.bytes.split().freeze();
        (!rest.is_empty() && !self.passing).then_some(Line::Whole(rest))
    }

    /// Reads more; `false` at the end.
    async fn read(&mut self, from: &mut pipe::Receiver) -> bool {
        self.bytes.reserve(READ_BYTES);
        let mut room = (&mut self.bytes).limit_to(READ_BYTES);
        from.read_buf(&mut room).await.is_ok_and(|n| n > 0)
    }
}

/// A buffer that takes no more than so many bytes.
trait LimitTo: bytes::BufMut + Sized {
    fn limit_to(self, bytes: usize) -> bytes::buf::Limit<Self> {
        bytes::BufMut::limit(self, bytes)
    }
}

impl<B: bytes::BufMut> LimitTo for B {}

async fn events(job: &Job, sink: &Sink, mut from: pipe::Receiver, printed: &Printed) {
    let Printed::Events { ty, content_type, overrides } = printed else { return };
    let (run, mut number) = (data::random(), 0u64);
    let mut lines = Lines::new(MAX_EVENT_LINE);
    let mut open = true;
    while open {
        open = lines.read(&mut from).await;
        loop {
            let mut batch: Vec<Event> = Vec::new();
            while batch.len() < BATCH {
                let next = match lines.next() {
                    None if !open => lines.last(),
                    next => next,
                };
                match next {
                    Some(Line::Whole(line)) if line.is_empty() => {}
                    Some(Line::Whole(line)) => {
                        number += 1;
                        let id = format!("{run}-{number}");
                        let event =
                            data::event(job, &id, ty.as_deref().unwrap_or(TYPE), None, content_type.as_deref(), line);
                        batch.extend(event.map(|mut event| {
                            for (name, value) in overrides {
                                // Checked when it was applied.
                                let _ = event.set(name, value.clone());
                            }
                            event
                        }));
                    }
                    Some(Line::Cut(_)) => job.live.lost("line_too_long", 1),
                    None => break,
                }
            }
            if batch.is_empty() {
                break;
            }
            // While this waits, the program's pipe fills, and then the program waits.
            if sink.put(&batch, None, Tries::ForEver).await.is_err() {
                job.live.lost("stopping", batch.len() as u64);
                return;
            }
        }
    }
}

async fn log(job: &Job, mut from: pipe::Receiver, stream: &'static str) {
    let mut lines = Lines::new(MAX_LOG_LINE);
    let mut rate = Rate { left: BURST, at_ms: job.clock().elapsed_ms(), held_back: 0 };
    let name = format!("{} {}", job.kind(), job.name());
    let mut open = true;
    while open {
        open = lines.read(&mut from).await;
        if rate.held_back > 0 && job.wait(SLOW_DOWN_MS).await.is_err() {
            return;
        }
        loop {
            let line = match lines.next() {
                None if !open => lines.last(),
                next => next,
            };
            let (line, more) = match line {
                Some(Line::Whole(line)) => (line, ""),
                Some(Line::Cut(line)) => (line, "…"),
                None => break,
            };
            let (write, held_back) = rate.pass(job.clock().elapsed_ms());
            if held_back > 0 {
                tracing::warn!(source = name, stream, "{held_back} lines of a program were too many for the log");
            }
            if write {
                // Debug form has no control characters in it, which a terminal might obey.
                tracing::info!(source = name, stream, "{}{more}", String::from_utf8_lossy(&line).escape_debug());
            }
        }
    }
    if rate.held_back > 0 {
        tracing::warn!(source = name, stream, "{} lines of a program were too many for the log", rate.held_back);
    }
}

/// So many lines at a time, and so many a second after that.
#[derive(Debug)]
struct Rate {
    left: u64,
    at_ms: u64,
    held_back: u64,
}

impl Rate {
    /// Whether the next line may be written; and how many were not, if that is to be said now.
    fn pass(&mut self, now_ms: u64) -> (bool, u64) {
        let earned = now_ms.saturating_sub(self.at_ms) * PER_SECOND / 1000;
        if earned > 0 {
            self.left = (self.left + earned).min(BURST);
            self.at_ms = now_ms;
        }
        if self.left == 0 {
            self.held_back += 1;
            return (false, 0);
        }
        self.left -= 1;
        (true, std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_once_and_the_next_is_whole() {
        let mut lines = Lines::new(4);
        lines.bytes.extend_from_slice(b"abcd\nabcdefghij");
        assert_eq!(lines.next(), Some(Line::Whole(Bytes::from_static(b"abcd"))));
        assert_eq!(lines.next(), Some(Line::Cut(Bytes::from_static(b"abcd"))));
        assert_eq!(lines.next(), None);
        lines.bytes.extend_from_slice(b"klm\nx");
        assert_eq!(lines.next(), None);
        assert_eq!(lines.last(), Some(Line::Whole(Bytes::from_static(b"x"))));
    }

    #[test]
    fn a_flood_is_held_back_and_counted() {
        let mut rate = Rate { left: BURST, at_ms: 0, held_back: 0 };
        let written = (0..1000).filter(|_| rate.pass(0).0).count() as u64;
        assert_eq!((written, rate.held_back), (BURST, 1000 - BURST));
        assert_eq!(rate.pass(1000), (true, 1000 - BURST));
    }

    proptest! {
        #[test]
        fn lines_come_the_same_whatever_the_pieces(text in "[ab\n]{0,60}", cuts in prop::collection::vec(1usize..9, 0..20)) {
            let all = |pieces: &[&[u8]]| {
                let mut lines = Lines::new(5);
                let mut got = Vec::new();
                for piece in pieces {
                    lines.bytes.extend_from_slice(piece);
                    got.extend(std::iter::from_fn(|| lines.next()));
                }
                got.extend(lines.last());
                got
            };
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(now);
                rest = later;
            }
            pieces.push(rest);
            prop_assert_eq!(all(&pieces), all(&[text.as_bytes()]));
        }
    }
}
