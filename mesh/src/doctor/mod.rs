//! `doctor`: is this board fit for an agent, and if not, what is to be done?
//!
//! Each check looks at one thing and gives one [`Finding`]. A check has two halves: one that looks (reads `/proc`, `/sys`, the
//! data folder, asks a peer), and one that judges what was seen; what parses and what judges is tested on captured text. What
//! cannot be seen, because the kernel does not tell or this user may not, is [`Verdict::Unknown`] and never `ok`. Nothing is
//! changed: the one file that is written (to time the disk) loses its name before anything goes into it.
//!
//! Nothing hangs: each step on the network has [`STEP`] (a look-up [`LOOKUP`]), and whoever gathers the findings waits no longer
//! than [`TOTAL`]; what blocks (a dead NFS server, a card that is dying) does so in a thread of its own and is reported as
//! missing. Numbers that
//! are a matter of judgement (what is slow, what wears out) are constants beside the check.

pub(crate) mod certificate;
mod clock;
mod fetch;
mod machine;
mod medium;
mod memory;
mod mounts;
mod name;
mod place;
mod ports;
mod processes;
mod report;
mod room;
mod sync;
mod units;
mod way;
mod wear;

use std::time::Duration;

pub use certificate::{Chain, Owner, certificates};
pub use clock::clock;
pub use fetch::{Answer, Endpoint, FetchError};
pub use machine::{entropy, files, kernel, libc};
pub use memory::memory;
pub use name::name;
pub use place::{Place, storage};
pub use ports::{Listener, Port, held_unseen, ports};
pub use processes::{Keeper, Process, keeper, listener_pid, machine_up};
pub use report::{Finding, Report, Verdict};
pub use room::room;
pub use sync::fdatasync;
pub use units::{endurance, size};
pub use way::{Gateway, Token, gateway};
pub use wear::{Counted, flash};

/// How long one step on the network may take: TCP, a TLS handshake, an answer.
pub const STEP: Duration = Duration::from_secs(5);

/// How long a name look-up may take: with a dead name server first in `resolv.conf` the answer of the second takes 5 s and more.
pub const LOOKUP: Duration = Duration::from_secs(12);

/// How long all of the gateway's answers together may take: with the look-up less than [`TOTAL`].
pub const GATEWAY: Duration = Duration::from_secs(16);

/// How long all checks together may take; what has not been found out by then is reported as such.
pub const TOTAL: Duration = Duration::from_secs(30);
