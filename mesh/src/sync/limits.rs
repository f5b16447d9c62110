//! How much a peer may ask of us, and why its bytes were refused.

use thiserror::Error;

/// Most bytes of one chunk on the wire.
pub const MAX_CHUNK_BYTES: usize = 16 << 20;

/// Most bytes of one frame once it is decompressed, unless configured otherwise; what a decompression bomb can take. Room
/// for the largest event (1 MiB by default) several times over.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Most events of one frame.
pub const MAX_EVENTS: usize = 65_536;

/// Most skips of one frame.
pub const MAX_SKIPS: usize = 4_096;

/// Most brokers that one agent may bring.
pub const MAX_BROKERS: usize = 256;

/// Most epochs of a lineage that are exchanged: the newest ones.
pub const MAX_LINEAGE: usize = 64;

/// Window of the compression as a power of two: the least and the most that either side may ask for.
pub const WINDOW_LOG: std::ops::RangeInclusive<u32> = 15..=17;

/// The window that an agent asks for unless configured otherwise: 64 KiB, which costs the gateway about 0.3 MB a connection.
pub const DEFAULT_WINDOW_LOG: u32 = 16;

/// Shortest and longest time between two signs of life, in ms.
pub const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// Why the bytes of a peer were refused. The connection that brought them ends.
#[derive(Debug, Error)]
pub enum SyncError {
    /// A chunk, frame or count beyond its limit.
    #[error("{what} of {size} is more than the {limit} allowed")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size as announced, or where counting stopped.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes do not say what the protocol wants at this place.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The compression failed.
    #[error("{what}: {source}")]
    Zstd {
        /// What was being done.
        what: &'static str,
        /// What zstd says.
        source: std::io::Error,
    },
}

impl SyncError {
    pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed { what, why: why.into() }
    }

    pub(crate) fn check(what: &'static str, size: usize, limit: usize) -> Result<(), Self> {
        if size > limit {
            return Err(Self::TooLarge { what, size: size as u64, limit: limit as u64 });
        }
        Ok(())
    }
}
