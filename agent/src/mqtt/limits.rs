//! What one client, and all together, may cost. Every default is chosen so that a board with 64 MB does not notice a bad
//! client.

use std::time::Duration;

/// A packet up to this size needs no room among the larger ones.
pub(super) const SMALL_PACKET: usize = 4 << 10;

/// Said to a peer whose packet found no room.
pub(super) const NO_ROOM: &str = "too many large packets at once: try again";

/// Limits of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet in bytes, fixed header included. Announced to MQTT 5.0 clients.
    pub max_packet_bytes: usize,
    /// Bytes of all larger packets together that are still on their way. Never below `max_packet_bytes`.
    pub partial_bytes: usize,
    /// Bytes of all wills together that are kept for clients, small ones (512 bytes) not counted.
    pub will_bytes: usize,
    /// Open connections, those included that have not sent CONNECT yet. One more takes the place of the oldest without a CONNECT,
    /// or is closed at once.
    pub max_connections: usize,
    /// Sessions kept for clients that are away, and those of connected ones; above that the one away for longest makes room. Never
    /// below `max_connections`.
    pub max_sessions: usize,
    /// How long a connection may take from its first byte (and its TLS hand-shake) to a whole CONNECT with its credentials
    /// checked.
    pub connect_timeout: Duration,
    /// How long nothing may come in the middle of a packet.
    pub packet_timeout: Duration,
    /// How long a peer may take none of what waits for it.
    pub write_timeout: Duration,
    /// Publishes of QoS 1 and 2 that an MQTT 5.0 client may have open (its Receive Maximum); open QoS 2 hand-shakes that any
    /// client may have.
    pub receive_maximum: u16,
    /// Topic aliases that an MQTT 5.0 client may set.
    pub topic_alias_maximum: u16,
    /// Longest topic name in bytes. MQTT has no longer ones than 65,535.
    pub max_topic_bytes: usize,
    /// Longest topic filter in bytes: those of a client are kept, and it may have `max_subscriptions`.
    pub max_filter_bytes: usize,
    /// Most levels of a topic name or filter.
    pub max_topic_levels: usize,
    /// Bytes of all topic names together for which a client may have aliases at a time.
    pub max_alias_bytes: usize,
    /// Longest client id in bytes.
    pub max_client_id_bytes: usize,
    /// Subscriptions of one client.
    pub max_subscriptions: usize,
    /// Messages that may wait for one subscriber; further ones are dropped and counted.
    pub max_queued_messages: usize,
    /// Bytes of topic, properties and payload that may wait for one subscriber.
    pub max_queued_bytes: usize,
    /// Messages of QoS 1 and 2 on their way to one subscriber, unacknowledged.
    pub outgoing_window: u16,
    /// How long the session of a client that is away is kept: for MQTT 3.1.1 clients without clean session, and at most for
    /// MQTT 5.0 clients whatever they ask.
    pub session_expiry: Duration,
    /// Publishes a second that one client may send on average, with one second's worth at once; above that its socket is read
    /// more slowly. `None`: no limit.
    pub publishes_per_second: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_bytes: 1 << 20,
            partial_bytes: 4 << 20,
            will_bytes: 1 << 20,
            max_connections: 4096,
            max_sessions: 8192,
            connect_timeout: Duration::from_secs(10),
            packet_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            receive_maximum: 1024,
            topic_alias_maximum: 32,
            max_topic_bytes: 65_535,
            max_filter_bytes: 4096,
            max_topic_levels: 256,
            max_alias_bytes: 128 << 10,
            max_client_id_bytes: 256,
            max_subscriptions: 256,
            max_queued_messages: 1000,
            max_queued_bytes: 256 << 10,
            outgoing_window: 32,
            session_expiry: Duration::from_secs(7 * 24 * 3600),
            publishes_per_second: None,
        }
    }
}
