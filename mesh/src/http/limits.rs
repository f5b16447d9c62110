//! What a peer may take of us over HTTP.

use std::time::Duration;

/// Every CloudEvents intermediary must take events of this size, so no limit may be set below it.
pub const LEAST_EVENT_BYTES: usize = 64 << 10;

/// A body up to this size needs no room among the large ones: about what a connection's read buffer takes anyway.
pub(super) const SMALL_BODY: usize = 16 << 10;

/// Limits of one listener. The defaults suit a small board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. One more closes the one that has been idle for longest, else the one that stalls in the middle of a request
    /// for longest; it is refused if there is none.
    pub connections: usize,
    /// Bytes of a request's head; at least 8 KiB. An event of [`LEAST_EVENT_BYTES`] may consist of attributes alone.
    pub header_bytes: usize,
    /// Headers of a request (HTTP/1.1; over HTTP/2 only their bytes count).
    pub headers: usize,
    /// How long a request's head may take from its first byte.
    pub header_time: Duration,
    /// Bytes of one event, and of any other body that is read whole. Never below [`LEAST_EVENT_BYTES`].
    pub event_bytes: usize,
    /// Bytes of a batch of events.
    pub batch_bytes: usize,
    /// Bytes of all large bodies together that are held at once. Never below `batch_bytes`.
    pub bodies_bytes: usize,
    /// Bytes of all else together that is held for requests that are not here to their end: heads, small bodies, and 8 KiB (4 KiB for a
    /// stream of HTTP/2) for each.
    pub unfinished_bytes: usize,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How slowly a body may come, in bytes per second, after `body_grace`.
    pub body_rate: u32,
    /// How long a body may take whatever its rate; how long nothing of it may come; and how long a peer may leave our answer unread.
    pub body_grace: Duration,
    /// How long a request may wait for room in a journal before it is answered 503.
    pub busy_wait: Duration,
    /// How long a request may wait for room for a large body before it is answered 503: more than it takes if all other
    /// connections ask before it, and stall.
    pub room_wait: Duration,
    /// HTTP/2: requests at once on one connection. Clients begin with up to 100 before they have heard of a limit.
    pub streams: u32,
    /// HTTP/2: connections without a request; one more closes that which has been so for longest.
    pub idle_http2: usize,
    /// HTTP/2: bytes that a peer may send ahead on one stream.
    pub stream_window: u32,
    /// HTTP/2: bytes that a peer may send ahead on one connection.
    pub connection_window: u32,
    /// How long requests may go on after a shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_bytes: 80 << 10,
            headers: 256,
            header_time: Duration::from_secs(10),
            event_bytes: 1 << 20,
            batch_bytes: 4 << 20,
            bodies_bytes: 8 << 20,
            unfinished_bytes: 3 << 20,
            idle: Duration::from_secs(120),
            body_rate: 128,
            body_grace: Duration::from_secs(20),
            busy_wait: Duration::from_secs(10),
            room_wait: Duration::from_secs(30),
            streams: 128,
            idle_http2: 128,
            stream_window: 32 << 10,
            connection_window: 64 << 10,
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// These limits with those raised that specifications forbid to be lower.
    #[must_use]
    pub fn lawful(mut self) -> Self {
        self.connections = self.connections.max(1);
        self.header_bytes = self.header_bytes.max(8 << 10);
        self.event_bytes = self.event_bytes.max(LEAST_EVENT_BYTES);
        self.batch_bytes = self.batch_bytes.max(self.event_bytes);
        self.bodies_bytes = self.bodies_bytes.max(self.batch_bytes);
        self.streams = self.streams.max(1);
        self
    }
}
