//! Chunks: `[type u8][length varint][bytes]`, one after the other, in a body that may be cut anywhere.
//!
//! [`Chunks`] collects what arrives and gives whole chunks back. Chunk types that are not known are passed over, so that a
//! later version may add some; a length beyond the limit ends the connection before any byte of it is kept.

use bytes::{Buf, Bytes, BytesMut};

use super::{SyncError, varint};

/// What a chunk carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A frame as it is. Empty: a heartbeat.
    Plain,
    /// A frame compressed in the context that the chunks before it built up.
    Continue,
    /// A frame compressed in a new context.
    Begin,
    /// The sender has given its context up; the receiver may too. Empty.
    End,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Continue => 1,
            Self::Begin => 2,
            Self::End => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Plain),
            1 => Some(Self::Continue),
            2 => Some(Self::Begin),
            3 => Some(Self::End),
            _ => None,
        }
    }
}

/// A heartbeat: an empty plain chunk.
pub const HEARTBEAT: &[u8] = &[0, 0];

/// Appends a chunk.
pub fn put(out: &mut Vec<u8>, kind: Kind, bytes: &[u8]) {
    out.push(kind.code());
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes chunks out of a stream.
#[derive(Debug)]
pub struct Chunks {
    buffer: BytesMut,
    max_bytes: usize,
}

impl Chunks {
    /// Chunks of at most `max_bytes` each.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_bytes }
    }

    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a chunk has begun and is not yet whole.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole chunk, or `None` until more bytes have arrived.
    ///
    /// # Errors
    /// When a chunk announces more bytes than allowed.
    #[allow(clippy::should_implement_trait)] // It fails, and may have more later.
    pub fn next(&mut self) -> Result<Option<(Kind, Bytes)>, SyncError> {
        loop {
            let Some((&code, rest)) = self.buffer.split_first() else { return Ok(None) };
            let Some((len, digits)) = varint::read(rest)? else { return Ok(None) };
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            SyncError::check("chunk", len, self.max_bytes)?;
            if rest.len() < digits + len {
                return Ok(None);
            }
            self.buffer.advance(1 + digits);
            let bytes = self.buffer.split_to(len).freeze();
            if self.buffer.is_empty() {
                // Do not hold a large chunk's memory for the small ones to come.
                self.buffer = BytesMut::new();
            }
            if let Some(kind) = Kind::from_code(code) {
                return Ok(Some((kind, bytes)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_come_whole_however_the_stream_is_cut(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8), cut in 1usize..40) {
            let mut wire = Vec::new();
            for body in &bodies {
                put(&mut wire, Kind::Continue, body);
            }
            let mut chunks = Chunks::new(1000);
            let mut seen = Vec::new();
            for part in wire.chunks(cut) {
                chunks.push(part);
                while let Some((kind, bytes)) = chunks.next().expect("valid") {
                    prop_assert_eq!(kind, Kind::Continue);
                    seen.push(bytes.to_vec());
                }
            }
            prop_assert!(!chunks.is_torn());
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut chunks = Chunks::new(64);
            chunks.push(&bytes);
            while let Ok(Some(_)) = chunks.next() {}
        }
    }

    #[test]
    fn a_chunk_of_an_unknown_type_is_passed_over() {
        let mut chunks = Chunks::new(100);
        chunks.push(&[9, 2, 1, 1]);
        chunks.push(HEARTBEAT);
        assert_eq!(chunks.next().expect("valid"), Some((Kind::Plain, Bytes::new())));
    }

    #[test]
    fn a_chunk_beyond_the_limit_is_refused_before_it_arrives() {
        let mut chunks = Chunks::new(100);
        chunks.push(&[0, 101]);
        assert!(matches!(chunks.next(), Err(SyncError::TooLarge { .. })));
    }
}
