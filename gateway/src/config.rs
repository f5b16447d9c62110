//! The gateway's configuration: every key with its default and description. `config/gateway.toml` explains the same keys.

use std::path::PathBuf;

use godwit_mesh::config::{Auth, Files, Http, Log, Resolve, Size, Storage, Tracing};
use godwit_mesh::{sections, settings};

settings! {
    /// `[gateway]`: where this gateway keeps things and what it runs.
    pub struct Gateway {
        /// Folder for everything that must outlive a restart. One process at a time.
        data_dir: PathBuf = "godwit-data/gateway",
        /// Folder with manifests (YAML) of Brokers and Triggers; read again when a file changes and on SIGHUP. Not set: none.
        manifests: Option<PathBuf> = "",
        /// File with certificates (PEM) to trust among subscribers, in place of the system's.
        ca_file: Option<PathBuf> = "",
    }
}

settings! {
    /// `[delivery]`: to the subscribers of Triggers that this gateway runs.
    pub struct Delivery {
        /// Files with bearer tokens for subscribers, by `host` or `host:port`; read again when they change, sent over TLS or to this
        /// machine only.
        tokens: Files = "",
    }
}

settings! {
    /// `[sync]`: the agents' way in, on the HTTP listener.
    pub struct Sync {
        /// Most agents that may be known.
        max_agents: usize = "4096" in "1" ..= "1000000",
        /// Bytes that each broker of an agent may have sent without an answer.
        credit: Size = "1MiB" in "64KiB" ..= "64MiB",
    }
}

sections! {
    /// The gateway's whole configuration.
    pub struct Config {
        /// Folders.
        gateway: Gateway,
        /// The HTTP listener.
        http: Http { listen = "127.0.0.1:8090" },
        /// The agents' way in.
        sync: Sync,
        /// What references to a Service mean here.
        resolve: Resolve,
        /// To subscribers.
        delivery: Delivery,
        /// Who may come in.
        auth: Auth,
        /// How brokers keep events.
        storage: Storage,
        /// Traces.
        tracing: Tracing,
        /// Logs.
        log: Log,
    }
}
