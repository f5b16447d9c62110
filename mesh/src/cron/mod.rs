//! Schedules as cron writes them, and time zones as the system keeps them.
//!
//! [`Schedule`] reads what Knative's PingSource takes: five fields, six with seconds first, `@hourly` and its like, `@every 1h30m`.
//! [`Zone`] reads `/usr/share/zoneinfo`: the board has the data (or can be given it) and keeps it up to date with everything else
//! on it; carrying a copy in the program would cost more than all the rest of this module, and age.
//!
//! When clocks are put forward, what names an hour that is left out comes at the moment of the change; when they are put back,
//! it comes the first time only. What comes in every hour follows real time.

mod fields;
mod rule;
mod schedule;
mod zone;

pub use schedule::{Schedule, ScheduleError};
pub use zone::{Zone, ZoneError, check_zone_name};
