//! A program that is to run: started, and started again with growing waits when it has ended.

use std::path::PathBuf;
use std::time::Duration;

use godwit_mesh::event::Value;
use godwit_mesh::source::{Job, Missing, Sink, Stopped, Tries};

use super::child::{self, Child, Ended, Leftover};
use super::output;

/// First and longest wait before it is started again, in milliseconds.
const FIRST_WAIT_MS: u64 = 1000;
const LONGEST_WAIT_MS: u64 = 300_000;

/// Who has run for so long, in milliseconds, begins anew with the first wait.
const LONG_ENOUGH_MS: u64 = 60_000;

/// Who has crashed is taken to run again when it has run for so long, in milliseconds.
const STEADY_MS: u64 = 5_000;

/// Longest run that clears up after an earlier one.
const CLEAR_BEFORE: Duration = Duration::from_secs(60);

/// How often it is looked whether a program is there that was not, in milliseconds.
pub(super) const LOOK_AGAIN_MS: u64 = 10_000;

/// What is run.
#[derive(Debug, Clone)]
pub(super) struct Command {
    /// Its real path.
    pub(super) program: PathBuf,
    /// As it was written: what it sees as its own name.
    pub(super) name: String,
    pub(super) args: Vec<String>,
    /// The whole environment, but for `PATH`.
    pub(super) env: Vec<(String, String)>,
    pub(super) user: Option<String>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    /// Arguments of a run of the same program that clears up after an earlier one; none: nothing to clear up.
    pub(super) before: Vec<String>,
}

/// What becomes of what it prints to its standard output.
#[derive(Debug, Clone)]
pub(super) enum Printed {
    /// Lines in the log.
    Log,
    /// Events.
    Events { ty: Option<String>, content_type: Option<String>, overrides: Vec<(String, Value)> },
}

/// Keeps it running until the job is to stop.
pub(super) async fn running(
    job: &Job,
    sink: &Sink,
    command: &Command,
    printed: &Printed,
) -> Result<std::convert::Infallible, Stopped> {
    // A program outlives an agent that was killed; two of them must not send side by side.
    if let Some(leftover) = job.mark().and_then(|mark| Leftover::decode(&mark)) {
        leftover.end(job).await?;
    }
    let mut wait_ms = FIRST_WAIT_MS;
    let mut restarts = 0u64;
    loop {
        let begun = job.clock().elapsed_ms();
        let clear = child::clear_up(command, &command.before, CLEAR_BEFORE);
        job.stop.run_until_cancelled(clear).await.ok_or(Stopped)?;
        let why = match Child::start(command).await {
            Ok(child) => {
                job.live.show("pid", child.pid());
                // Who is killed from here on is known at the next start.
                sink.put(&[], Some(&child.leftover().encode()), Tries::ForEver).await?;
                match watch(job, sink, child, printed, restarts == 0).await {
                    Ended::Stopped => return Err(Stopped),
                    Ended::Exited(how) => how,
                }
            }
            Err(why) => why,
        };
        restarts += 1;
        job.live.show("restarts", restarts);
        job.live.show("pid", serde_json::Value::Null);
        if job.clock().elapsed_ms().saturating_sub(begun) >= LONG_ENOUGH_MS {
            wait_ms = FIRST_WAIT_MS;
        }
        let why = format!("{why}; it is started again after {} s", wait_ms / 1000);
        tracing::warn!(source = %format_args!("{} {}", job.kind(), job.name()), "{why}");
        job.live.failed(why.clone(), job.clock());
        job.live.deployed(Err(Missing::new("NotRunning", why)));
        job.wait(wait_ms).await?;
        wait_ms = (wait_ms * 2).min(LONGEST_WAIT_MS);
    }
}

/// One run, to its end.
async fn watch(job: &Job, sink: &Sink, mut child: Child, printed: &Printed, first: bool) -> Ended {
    if first {
        job.live.deployed(Ok(()));
    }
    let (stdout, stderr) = child.outputs();
    let outputs = output::take(job, sink, stdout, stderr, printed);
    let steady = async {
        if !first && job.wait(STEADY_MS).await.is_ok() {
            job.live.deployed(Ok(()));
        }
        std::future::pending::<()>().await;
    };
    let mut outputs = std::pin::pin!(outputs);
    let mut steady = std::pin::pin!(steady);
    let mut open = true;
    let ended = loop {
        tokio::select! {
            how = child.exited() => break Ended::Exited(how),
            () = &mut outputs, if open => open = false,
            () = &mut steady => {}
            () = job.stop.cancelled() => {
                child.terminate(&mut outputs, &mut open).await;
                break Ended::Stopped;
            }
        }
    };
    // Whatever it has started goes with it: nothing of it may hold its outputs open, or go on sending.
    child.kill_group();
    if open {
        let _ = tokio::time::timeout(child::LAST_WORDS, &mut outputs).await;
    }
    ended
}
