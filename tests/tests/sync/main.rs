//! Agent and gateway in one process over loopback, with a relay in between that cuts, holds and swallows: what the protocol
//! promises, at the instants that real processes hit only by luck.

mod cuts;
mod fallback;
mod figures;
mod histories;
mod objects;
mod pair;
mod refusals;
mod relay;
mod revoked;
