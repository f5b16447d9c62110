//! The agent's configuration: every key with its default and description. `config/agent.toml` explains the same keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use godwit_mesh::config::{Auth, Files, Http, Labels, Log, Resolve, Size, Storage, Tracing};
use godwit_mesh::{sections, settings};

settings! {
    /// `[agent]`: who this agent is and where it keeps things.
    pub struct Agent {
        /// The agent's name at the gateway: lower-case letters, digits, `-` and `.`. Not set: made once from the host's name
        /// and kept in the data folder.
        id: Option<String> = "",
        /// Folder for everything that must outlive a restart. One process at a time.
        data_dir: PathBuf = "godwit-data/agent",
        /// Labels by which objects at the gateway choose agents (`godwit.dev/agents`).
        labels: Labels = "",
        /// Folder with manifests (YAML) of Brokers and Triggers; re-read on SIGHUP. Not set: none.
        manifests: Option<PathBuf> = "",
    }
}

settings! {
    /// `[mqtt]`: the listener for devices, MQTT 3.1.1 and 5.0.
    pub struct Mqtt {
        /// Where MQTT is served; empty for not at all. Beyond loopback this needs `tls-cert`, `tls-key` and
        /// `auth.credentials`, or `insecure = true`.
        listen: Option<SocketAddr> = "127.0.0.1:1883",
        /// File with the certificate chain (PEM); with `tls-key` it makes the listener speak TLS.
        tls_cert: Option<PathBuf> = "",
        /// File with the private key of the certificate (PEM).
        tls_key: Option<PathBuf> = "",
        /// Serve beyond loopback without TLS or credentials all the same.
        insecure: bool = "false",
        /// Largest packet that is taken.
        max_packet: Size = "1MiB" in "1KiB" ..= "6MiB",
        /// Most connections at a time; one more takes the place of the oldest that has not sent its CONNECT, or is closed at once.
        max_connections: usize = "4096" in "1" ..= "65536",
        /// A client must have sent its CONNECT within this time.
        connect_timeout: Duration = "10s" in "100ms" ..= "1h",
        /// Publishes a second that one client may send on average; above that it is read more slowly. Not set: no limit.
        publishes_per_second: Option<u32> = "" in "1" ..= "1000000",
        /// How long the session of a client that is away is kept.
        session_expiry: Duration = "7d" in "0s" ..= "3650d",
        /// Most sessions, those of connected clients included; above that the one whose client has been away for longest goes, those
        /// without subscriptions first. Never fewer than `max-connections`.
        max_sessions: usize = "8192" in "1" ..= "1000000",
    }
}

settings! {
    /// `[gateway]`: the way up.
    pub struct Gateway {
        /// URL of the gateway, `http://…` or `https://…`. Not set: the agent works alone, and events wait.
        url: Option<String> = "",
        /// File with the token by which this agent proves itself.
        token_file: Option<PathBuf> = "",
        /// File with certificates (PEM) to trust in place of the system's.
        ca_file: Option<PathBuf> = "",
        /// How often each side shows that it lives when it has nothing to say.
        heartbeat: Duration = "30s" in "100ms" ..= "10m",
        /// Longest wait between two attempts to connect.
        backoff_max: Duration = "60s" in "500ms" ..= "1h",
    }
}

settings! {
    /// `[delivery]`: to the subscribers of Triggers that this agent runs.
    pub struct Delivery {
        /// File with certificates (PEM) to trust among subscribers, in place of the system's.
        ca_file: Option<PathBuf> = "",
        /// Files with bearer tokens for subscribers, by `host` or `host:port`; read again when they change, sent over TLS or to this
        /// machine only.
        tokens: Files = "",
    }
}

settings! {
    /// `[programs]`: what ProgramSources and ContainerSources may run, whoever brought them.
    pub struct Programs {
        /// Absolute paths of programs; `*` stands for any part of a name, `**` for any part of a path. A pattern is held against what
        /// links lead to. For containers, the path of podman or docker. Empty: nothing is run.
        allow: Vec<String> = "",
    }
}

settings! {
    /// `[files]`: what FileSources may read, move and delete, whoever brought them.
    pub struct AllowedFiles {
        /// Absolute paths of files and folders, with `*` and `**` as in `programs.allow`. Empty: nothing is read.
        allow: Vec<String> = "",
    }
}

sections! {
    /// The agent's whole configuration.
    pub struct Config {
        /// Who this agent is.
        agent: Agent,
        /// The MQTT listener.
        mqtt: Mqtt,
        /// The HTTP listener.
        http: Http,
        /// The way up.
        gateway: Gateway,
        /// To subscribers on site.
        delivery: Delivery,
        /// What references to a Service mean here.
        resolve: Resolve,
        /// What may be run.
        programs: Programs,
        /// What may be read.
        files: AllowedFiles,
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
