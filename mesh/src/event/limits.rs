//! What a decoder accepts from a peer.

/// Limits for decoding one message. The size of the message itself is limited by whoever reads it from the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most context attributes of one event, extensions included.
    pub max_attributes: usize,
    /// Most events of one batch.
    pub max_batch: usize,
}

impl Default for Limits {
    /// 128 attributes, 10,000 events.
    fn default() -> Self {
        Self { max_attributes: 128, max_batch: 10_000 }
    }
}
