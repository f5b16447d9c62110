//! The sections that agent and gateway have in common.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{Labels, Size};
use crate::{choice, settings};

settings! {
    /// `[http]`: events, API, health and metrics over HTTP.
    pub struct Http {
        /// Where HTTP is served. Beyond loopback this needs `tls-cert`, `tls-key` and `auth.credentials`, or `insecure = true`.
        listen: SocketAddr = "127.0.0.1:8080",
        /// The URL under which others reach this listener; shown in `status.address.url`. Not set: made from `listen`.
        public_url: Option<String> = "",
        /// File with the certificate chain (PEM); with `tls-key` it makes the listener speak TLS.
        tls_cert: Option<PathBuf> = "",
        /// File with the private key of the certificate (PEM).
        tls_key: Option<PathBuf> = "",
        /// Serve beyond loopback without TLS or credentials all the same.
        insecure: bool = "false",
        /// Further host names that requests which change things may name in their Host header.
        allowed_hosts: Vec<String> = "",
        /// Largest event, and any other request body.
        max_event: Size = "1MiB" in "64KiB" ..= "6MiB",
        /// Largest batch of events.
        max_batch: Size = "4MiB" in "64KiB" ..= "64MiB",
        /// Most connections at a time; one more takes the place of the one that has been idle, or has stalled in a request, for longest.
        max_connections: usize = "1024" in "1" ..= "65536",
        /// A connection without a request is closed after so long.
        idle_timeout: Duration = "120s" in "1s" ..= "1d",
        /// A request's head must be there within this time from its first byte.
        header_timeout: Duration = "10s" in "100ms" ..= "1h",
        /// How long a request may wait for room in a journal before it is answered 503.
        busy_wait: Duration = "10s" in "0s" ..= "1h",
        /// How long requests may go on after a shutdown began.
        drain: Duration = "5s" in "0s" ..= "1h",
    }
}

settings! {
    /// `[auth]`: who may come in.
    pub struct Auth {
        /// File with users and tokens, written by `godwit passwd` and `godwit token`. Not set: whoever reaches a listener may use it.
        credentials: Option<PathBuf> = "",
    }
}

settings! {
    /// `[resolve]`: what references to a Service mean here, where there is no Kubernetes to ask.
    pub struct Resolve {
        /// URLs of Services: `"namespace/name" = "http://…"`, for `ref` with kind Service. May be a section `[services]` of its own.
        services: Labels = "",
        /// URL of a Service that is not listed, with `{namespace}` and `{name}` in it. Not set: it has none, and what refers to it
        /// is not ready.
        service_template: Option<String> = "",
    }
}

choice! {
    /// What happens when a broker is at its limit.
    pub enum StoragePolicy {
        /// The oldest events go, and are counted for each consumer that did not have them yet.
        DropOldest = "drop-oldest",
        /// New events are refused.
        Reject = "reject",
    }
}

settings! {
    /// `[storage]`: how brokers keep events.
    pub struct Storage {
        /// Size of a journal's segment file; half of it is the most that one event, or a batch, may take. Not set: an eighth of
        /// `max-bytes`, from 256 KiB to 8 MiB.
        segment_bytes: Option<Size> = "" in "256KiB" ..= "1GiB",
        /// Most bytes of all brokers together; each may have at least four segments. Not set: a quarter of the free disk at
        /// first start, up to half where that is less than 32 MiB.
        max_bytes: Option<Size> = "" in "1MiB" ..= "16TiB",
        /// How long events that all consumers have passed are kept, while there is room.
        keep: Duration = "24h" in "0s" ..= "3650d",
        /// Events older than this go, at the latest at twice this age, whoever still wants them. Not set: no limit.
        max_age: Option<Duration> = "" in "1s" ..= "3650d",
        /// Most events of one broker, to the segment. Not set: no limit.
        max_count: Option<u64> = "" in "1" ..= "1_000_000_000_000",
        /// What happens at the limit: `drop-oldest` or `reject`.
        policy: StoragePolicy = "drop-oldest",
        /// How long a commit waits for company; spares flash at the price of slower acknowledgements.
        commit_delay: Duration = "0s" in "0s" ..= "10s",
    }
}

settings! {
    /// `[tracing]`: traces of what happens to events.
    pub struct Tracing {
        /// URL of a collector that takes OTLP over HTTP in JSON; `/v1/traces` where it has no path. Not set: no traces, and no cost.
        otlp_endpoint: Option<String> = "",
    }
}

choice! {
    /// How log lines look.
    pub enum Format {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

settings! {
    /// `[log]`: what is written to stderr.
    pub struct Log {
        /// `text` for people or `json` for machines.
        format: Format = "text",
        /// Least severity: `error`, `warn`, `info` or `debug`; also by module: `info,godwit_agent::mqtt=debug`.
        level: String = "info",
    }
}
