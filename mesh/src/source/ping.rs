//! PingSource: an event at the times of a schedule.
//!
//! The last run is durable with its event, so that a run is made once, and runs that came due meanwhile are known after a
//! start. A run's `id` is its time, behind the agent's id: whoever gets a run twice by way of a URL can tell.
//!
//! While the clock is plainly not set there are no runs. A clock that goes forward makes the runs in between missed ones, as if
//! the process had been off; one that goes back by up to a minute makes no run a second time, and one that goes back further was
//! wrong before: the schedule begins anew. There is no jitter: it spreads the load of many boards' schedulers in Knative, and a
//! board has one.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::job::Job;
use super::live::Missing;
use super::sink::{Sink, Stopped, Tries};
use crate::cron::Zone;
use crate::event::{Event, EventError, Value};
use crate::manifest::{MissedRuns, PingSpec, SourceKind};

/// The events' type.
pub const TYPE: &str = "dev.knative.sources.ping";

/// A run that comes later than this, in seconds, is one that was missed.
const GRACE: i64 = 5;

/// A clock that goes back by more than this, in seconds, was wrong before.
const BACK: i64 = 60;

/// Most runs that are made up for.
const MOST_MADE_UP: usize = 100;

/// Missed runs are not counted beyond this.
const MOST_COUNTED: u64 = 10_000;

/// Longest sleep in milliseconds: a clock that has jumped is noticed after so long at most.
const LONGEST_SLEEP_MS: u64 = 60_000;

/// How often it is looked whether the clock is set, or the time zone there, in milliseconds.
const LOOK_AGAIN_MS: u64 = 5_000;

/// Runs a PingSource.
pub(super) async fn run(job: Job) {
    if let SourceKind::Ping(spec) = &job.spec().what {
        let Err(Stopped) = fire(&job, spec).await;
    }
}

async fn fire(job: &Job, spec: &PingSpec) -> Result<std::convert::Infallible, Stopped> {
    let source = format!("/apis/v1/namespaces/{}/pingsources/{}", job.name().namespace, job.name().name);
    job.live.attributes(TYPE, &source);
    let sink = job.sink().await?;
    let zone = zone(job, spec.timezone.as_deref()).await?;
    let now = now_ms(job).await? / 1000;
    let mut last = match job.mark().and_then(|mark| mark.try_into().ok()).map(i64::from_le_bytes) {
        Some(last) => last,
        None => {
            // From now on it is known what was missed.
            sink.put(&[], Some(&now.to_le_bytes()), Tries::ForEver).await?;
            now
        }
    };
    loop {
        let ms = now_ms(job).await?;
        let now = ms / 1000;
        if last > now + BACK {
            tracing::warn!(source = %job.name(), "the clock went back by {} s: the PingSource's schedule begins anew", last - now);
            sink.put(&[], Some(&now.to_le_bytes()), Tries::ForEver).await?;
            last = now;
        }
        let Some(next) = spec.schedule.next(last, &zone) else {
            job.live.deployed(Err(Missing::new("NeverAgain", "the schedule names no time that will come")));
            job.stop.cancelled().await;
            return Err(Stopped);
        };
        job.live.deployed(Ok(()));
        if next > now {
            job.live.show("next_run", rfc3339(next * 1000));
            let wait = u64::try_from(next.saturating_mul(1000) - ms).unwrap_or(0);
            job.wait(wait.min(LONGEST_SLEEP_MS)).await?;
            continue;
        }
        last = due(job, spec, &sink, &zone, &source, last, now).await?;
        job.live.show("last_run", rfc3339(last * 1000));
    }
}

/// Makes the runs that have come due after `last`. Returns the last one.
async fn due(
    job: &Job,
    spec: &PingSpec,
    sink: &Sink,
    zone: &Zone,
    source: &str,
    last: i64,
    now: i64,
) -> Result<i64, Stopped> {
    let newest = spec.schedule.last(last, now, zone).unwrap_or(now);
    let runs = match spec.missed {
        MissedRuns::Skip if now - newest > GRACE => Vec::new(),
        MissedRuns::Skip | MissedRuns::Once => vec![newest],
        MissedRuns::All => {
            let mut runs = vec![newest];
            while runs.len() < MOST_MADE_UP
                && let Some(before) = runs.last().and_then(|run| spec.schedule.last(last, run - 1, zone))
            {
                runs.push(before);
            }
            runs.reverse();
            runs
        }
    };
    let all = spec.schedule.count(last, now, zone, MOST_COUNTED);
    job.live.lost("missed", all.saturating_sub(runs.len() as u64));
    if runs.is_empty() {
        sink.put(&[], Some(&newest.to_le_bytes()), Tries::ForEver).await?;
    }
    for run in runs {
        match event(job, spec, source, run) {
            Ok(event) => sink.put(&[event], Some(&run.to_le_bytes()), Tries::Five).await?,
            Err(error) => {
                job.live.failed(error.to_string(), job.clock());
                job.live.lost("invalid", 1);
                sink.put(&[], Some(&run.to_le_bytes()), Tries::ForEver).await?;
            }
        }
    }
    Ok(newest)
}

/// The event of a run.
fn event(job: &Job, spec: &PingSpec, source: &str, run: i64) -> Result<Event, EventError> {
    let agent = job.agent().map(|agent| format!("{agent}/")).unwrap_or_default();
    let mut builder = Event::builder().id(format!("{agent}{}", rfc3339(run * 1000))).source(source).ty(TYPE);
    if let Some(now) = job.now() {
        builder = builder.time(now);
    }
    if let Some(content_type) = &spec.content_type {
        builder = builder.attribute("datacontenttype", Value::String(content_type.clone()));
    }
    if let Some(data) = &spec.data {
        builder = builder.untyped_data(data.clone());
    }
    let mut event = builder.build()?;
    job.override_attributes(&mut event);
    Ok(event)
}

/// Milliseconds since 1970, once the clock is set.
async fn now_ms(job: &Job) -> Result<i64, Stopped> {
    loop {
        if let Some(ms) = job.clock().wall_ms() {
            return Ok(i64::try_from(ms).unwrap_or(i64::MAX));
        }
        let why = "the clock is not set, so nobody knows when to run; it is looked at again and again";
        job.live.deployed(Err(Missing { unknown: true, ..Missing::new("ClockNotSet", why) }));
        job.wait(LOOK_AGAIN_MS).await?;
    }
}

/// The time zone, once its data is there.
async fn zone(job: &Job, name: Option<&str>) -> Result<Zone, Stopped> {
    let Some(name) = name else { return Ok(Zone::utc()) };
    loop {
        let wanted = name.to_owned();
        let why = match tokio::task::spawn_blocking(move || Zone::load(&wanted)).await {
            Ok(Ok(zone)) => return Ok(zone),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        job.live.deployed(Err(Missing::new("TimeZoneUnknown", why)));
        job.wait(LOOK_AGAIN_MS).await?;
    }
}

/// A time as attributes have it; one beyond the year 9999 does not come.
pub(super) fn rfc3339(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
