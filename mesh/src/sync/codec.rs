//! Frames to chunks and back: plain, or zstd with one context for as long as it pays.
//!
//! Each frame is flushed, so that the receiver has all of it with the last byte of its chunk. The effort follows the traffic:
//! a trickle is compressed as well as can be, a flood as fast as can be; a change of effort begins a new context. The tables
//! are kept small (about 0.4 MB at the default window), since an agent has few megabytes in all.

use bytes::Bytes;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use super::SyncError;
use super::chunk::{self, Kind};
use super::limits::WINDOW_LOG;

/// How much work goes into a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Level 16: some 30 µs an event on a small machine; for a trickle.
    Most,
    /// Level 9: for a backlog on a common link.
    Middle,
    /// Level 1: for a backlog where the link is as fast as the processor.
    Least,
}

impl Effort {
    /// The effort that fits `bytes` of bodies sent in the last second.
    #[must_use]
    pub const fn for_rate(bytes: u64) -> Self {
        match bytes {
            0..0x10_0000 => Self::Most,
            0x10_0000..0x80_0000 => Self::Middle,
            _ => Self::Least,
        }
    }

    const fn level(self) -> i32 {
        match self {
            Self::Most => 16,
            Self::Middle => 9,
            Self::Least => 1,
        }
    }
}

/// The sending end.
pub struct Encoder {
    window_log: u32,
    context: Option<(Effort, CCtx<'static>)>,
    squeezed: Vec<u8>,
}

impl Encoder {
    /// An encoder whose window is 2^`window_log` bytes (brought into [`WINDOW_LOG`]). Its context is made when first needed.
    #[must_use]
    pub fn new(window_log: u32) -> Self {
        Self { window_log: window_log.clamp(*WINDOW_LOG.start(), *WINDOW_LOG.end()), context: None, squeezed: Vec::new() }
    }

    /// Appends `frame` to `out` as a chunk.
    ///
    /// # Errors
    /// When zstd fails, for want of memory.
    pub fn put(&mut self, out: &mut Vec<u8>, frame: &[u8], effort: Effort) -> Result<(), SyncError> {
        let failed = |source| SyncError::Zstd { what: "compressing a frame", source };
        let kind = match &self.context {
            Some((used, _)) if *used == effort => Kind::Continue,
            _ => Kind::Begin,
        };
        if kind == Kind::Begin {
            self.context = Some((effort, new_context(effort, self.window_log).map_err(failed)?));
        }
        let Some((_, context)) = &mut self.context else { return Ok(()) };
        self.squeezed.clear();
        self.squeezed.reserve(zstd::zstd_safe::compress_bound(frame.len()) + 32);
        let mut input = InBuffer::around(frame);
        loop {
            let have = self.squeezed.len();
            let mut output = OutBuffer::around_pos(&mut self.squeezed, have);
            context.compress_stream(&mut output, &mut input).map_err(zstd_error).map_err(failed)?;
            let left = context.flush_stream(&mut output).map_err(zstd_error).map_err(failed)?;
            if left == 0 && input.pos() == frame.len() {
                break;
            }
            self.squeezed.reserve(left.max(4096));
        }
        chunk::put(out, kind, &self.squeezed);
        if self.squeezed.capacity() > 256 << 10 {
            self.squeezed = Vec::new();
        }
        Ok(())
    }

    /// Gives the context up and appends the chunk that says so; nothing if there is none.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.context.take().is_some() {
            chunk::put(out, Kind::End, &[]);
            self.squeezed = Vec::new();
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("window_log", &self.window_log).finish_non_exhaustive()
    }
}

fn zstd_error(code: zstd::zstd_safe::ErrorCode) -> std::io::Error {
    std::io::Error::other(zstd::zstd_safe::get_error_name(code))
}

fn new_context(effort: Effort, window_log: u32) -> std::io::Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or(std::io::ErrorKind::OutOfMemory)?;
    for parameter in [
        CParameter::CompressionLevel(effort.level()),
        CParameter::WindowLog(window_log),
        CParameter::HashLog(15),
        CParameter::ChainLog(15),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ] {
        context.set_parameter(parameter).map_err(zstd_error)?;
    }
    Ok(context)
}

/// The receiving end.
pub struct Decoder {
    window_log: u32,
    max_frame_bytes: usize,
    context: Option<DCtx<'static>>,
}

impl Decoder {
    /// A decoder for windows of up to 2^`window_log` bytes and frames of up to `max_frame_bytes`.
    #[must_use]
    pub fn new(window_log: u32, max_frame_bytes: usize) -> Self {
        Self { window_log: window_log.clamp(*WINDOW_LOG.start(), *WINDOW_LOG.end()), max_frame_bytes, context: None }
    }

    /// The frame in a chunk; `None` for a heartbeat or the end of a context.
    ///
    /// # Errors
    /// When the frame is too large, its compression invalid, or it continues a context that was never begun.
    pub fn open(&mut self, kind: Kind, bytes: &Bytes) -> Result<Option<Bytes>, SyncError> {
        match kind {
            Kind::Plain if bytes.is_empty() => Ok(None),
            Kind::Plain => {
                SyncError::check("frame", bytes.len(), self.max_frame_bytes)?;
                Ok(Some(bytes.clone()))
            }
            Kind::End => {
                self.context = None;
                Ok(None)
            }
            Kind::Begin => {
                let failed = |source| SyncError::Zstd { what: "making a decompression context", source };
                let mut context = DCtx::try_create().ok_or_else(|| failed(std::io::ErrorKind::OutOfMemory.into()))?;
                context.set_parameter(DParameter::WindowLogMax(self.window_log)).map_err(zstd_error).map_err(failed)?;
                self.context = Some(context);
                self.inflate(bytes).map(Some)
            }
            Kind::Continue => self.inflate(bytes).map(Some),
        }
    }

    fn inflate(&mut self, bytes: &Bytes) -> Result<Bytes, SyncError> {
        let failed = |source| SyncError::Zstd { what: "decompressing a frame", source };
        let Some(context) = &mut self.context else {
            return Err(SyncError::malformed("chunk", "it continues a context that was never begun"));
        };
        let mut frame: Vec<u8> = Vec::with_capacity((bytes.len() * 4 + 256).min(self.max_frame_bytes + 1));
        let mut input = InBuffer::around(bytes);
        loop {
            let have = frame.len();
            let (read, full) = {
                let mut output = OutBuffer::around_pos(&mut frame, have);
                context.decompress_stream(&mut output, &mut input).map_err(zstd_error).map_err(failed)?;
                (input.pos(), output.pos() == output.capacity())
            };
            SyncError::check("frame", frame.len(), self.max_frame_bytes)?;
            if !full && read == bytes.len() {
                return Ok(frame.into());
            }
            if frame.len() == frame.capacity() {
                // Doubles, but never past the limit by more than the byte that shows it was passed.
                frame
                    .reserve_exact(frame.len().max(256).min((self.max_frame_bytes + 1).saturating_sub(frame.len()).max(1)));
            } else if frame.len() == have && read < bytes.len() {
                return Err(SyncError::malformed("chunk", "the compressed bytes end before the chunk does"));
            }
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("max_frame_bytes", &self.max_frame_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Chunks;
    use proptest::prelude::*;

    fn open_all(wire: &[u8], decoder: &mut Decoder) -> Result<Vec<Bytes>, SyncError> {
        let mut chunks = Chunks::new(1 << 20);
        chunks.push(wire);
        let mut frames = Vec::new();
        while let Some((kind, bytes)) = chunks.next()? {
            frames.extend(decoder.open(kind, &bytes)?);
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_come_back_through_any_change_of_effort(frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..3000), 0u8..4), 0..12)) {
            let mut encoder = Encoder::new(15);
            let mut wire = Vec::new();
            for (frame, effort) in &frames {
                let effort = match effort { 0 => Effort::Most, 1 => Effort::Middle, 2 => Effort::Least, _ => { encoder.end(&mut wire); Effort::Middle } };
                encoder.put(&mut wire, frame, effort).expect("compresses");
            }
            let opened = open_all(&wire, &mut Decoder::new(15, 1 << 20)).expect("opens");
            prop_assert_eq!(opened, frames.into_iter().map(|(f, _)| Bytes::from(f)).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_never_panics(begin: bool, bytes: Vec<u8>) {
            let mut decoder = Decoder::new(15, 4096);
            let _ = decoder.open(if begin { Kind::Begin } else { Kind::Continue }, &Bytes::from(bytes));
        }
    }

    #[test]
    fn a_large_frame_comes_back() {
        let frame: Vec<u8> = (0..1_500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut wire = Vec::new();
        Encoder::new(16).put(&mut wire, &frame, Effort::Least).expect("compresses");
        let mut chunks = Chunks::new(16 << 20);
        chunks.push(&wire);
        let (kind, bytes) = chunks.next().expect("valid").expect("whole");
        let opened = Decoder::new(16, 8 << 20).open(kind, &bytes).expect("opens").expect("a frame");
        assert!(opened == frame, "{} bytes came back of {}", opened.len(), frame.len());
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut wire = Vec::new();
        Encoder::new(16).put(&mut wire, &vec![0; 4 << 20], Effort::Most).expect("compresses");
        assert!(wire.len() < 2000);
        let opened = open_all(&wire, &mut Decoder::new(16, 1 << 20));
        assert!(matches!(opened, Err(SyncError::TooLarge { .. })), "{opened:?}");
    }

    #[test]
    fn a_context_that_was_never_begun_is_refused() {
        assert!(Decoder::new(16, 1000).open(Kind::Continue, &Bytes::from_static(b"x")).is_err());
    }
}
