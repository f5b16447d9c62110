//! What agent and gateway have in common as daemons: heap, runtime, signals, readiness, and what they make of the sections of
//! the configuration that they share (HTTP listener, room on the disk, folder of manifests).
//!
//! Everything here is small on purpose: the agent is to live in a few megabytes, so it runs on one thread with a few short-lived
//! helpers, keeps one heap, and speaks systemd's notification protocol itself.

mod files;
mod folder;
mod front;
mod kept;
mod memory;
mod notify;
mod room;
mod serve;
mod signals;
mod told;

use std::io;
use std::time::Duration;

use crate::config::Resolve;
use crate::delivery::{Services, ServicesError};

pub use files::{Choose, FileSet, FileSetStatus, LOOK_EVERY};
pub use folder::ManifestFolder;
pub use front::{Bound, Front, FrontError, credentials, listener};
pub use kept::{read_kept, write_kept};
pub use memory::{forget_start, give_back, keep_small};
pub use notify::Notifier;
pub(crate) use room::{FILE as LIMIT_FILE, kept_limit};
pub use room::{broker_defaults, chosen_limit, chosen_segment, read_small, write_small};
pub use serve::{Daemon, ServeError, serve};
pub use signals::{Signal, Signals};
pub use told::told;

/// Most threads for calls that block (file reads, password checks, name look-ups).
const MAX_BLOCKING_THREADS: usize = 8;

/// Stack of each such thread in bytes: enough for the system's name resolver, the deepest of what they run.
const STACK_BYTES: usize = 256 << 10;

/// What `[resolve]` says of Services.
///
/// # Errors
/// The key that is wrong, and why.
pub fn services(config: &Resolve) -> Result<Services, ServicesError> {
    Services::new(&config.services.0, config.service_template.as_deref())
}

/// The runtime of a daemon: one thread, and up to 8 short-lived ones for what blocks.
///
/// # Errors
/// When the system refuses an event queue.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    // Where the limit of open files leaves no room for these, tokio panics rather than say so.
    (0..3).map(|_| std::os::unix::net::UnixStream::pair()).collect::<io::Result<Vec<_>>>().map(drop)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(Duration::from_secs(5))
        .build()
}
