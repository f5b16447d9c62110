//! ProgramSource, and what it has in common with ContainerSource: a program that is told where to send events, is kept running, and
//! is ended with all that it has started.
//!
//! - [`child`] is one run of it: its process group, its outputs, its end;
//! - [`keep`] starts it again and again;
//! - [`output`] makes log lines or events of what it prints;
//! - [`binding`] is SinkBinding: what else says where events go.
//!
//! Which programs may be run at all, `programs.allow` in the agent's own configuration says.

mod binding;
mod child;
mod container;
mod keep;
mod output;

use std::path::PathBuf;

use godwit_mesh::manifest::{ProgramSpec, SourceKind};
use godwit_mesh::source::{Job, Missing, Stopped};

use super::allow::Allowed;
use binding::Bound;
pub(super) use binding::run as run_binding;
pub(super) use container::run as run_container;
use keep::{Command, Printed};

/// Runs a ProgramSource.
pub(super) async fn run(job: Job, allowed: Allowed) {
    let mut objects = job.objects.clone();
    while !job.stop.is_cancelled() {
        objects.borrow_and_update();
        let bound = Bound::of(&job);
        // Another binding is another environment: the program is started anew.
        let stop = job.stop.child_token();
        let mut work = std::pin::pin!(work(job.within(stop.clone()), allowed.clone(), bound.clone()));
        loop {
            tokio::select! {
                () = &mut work => break,
                Ok(()) = objects.changed() => {
                    if Bound::of(&job) != bound {
                        stop.cancel();
                        work.await;
                        break;
                    }
                }
            }
        }
    }
}

async fn work(job: Job, allowed: Allowed, bound: Option<Bound>) {
    if let SourceKind::Program(spec) = &job.spec().what {
        let Err(Stopped) = serve(&job, spec, allowed, bound).await;
    }
}

async fn serve(
    job: &Job,
    spec: &ProgramSpec,
    allowed: Allowed,
    bound: Option<Bound>,
) -> Result<std::convert::Infallible, Stopped> {
    let Some(bound) = bound else {
        let why = "spec.sink is missing, and no SinkBinding has this program for its subject";
        job.live.sink(Err(Missing::new("SinkMissing", why)));
        job.stop.cancelled().await;
        return Err(Stopped);
    };
    let sink = job.resolved(&bound.sink, &bound.holder).await?;
    let program = permitted(job, spec.command.first().map(PathBuf::from).unwrap_or_default(), &allowed).await?;
    let command = Command {
        program,
        name: spec.command.first().cloned().unwrap_or_default(),
        args: spec.command.iter().skip(1).cloned().collect(),
        env: bound.environment(&spec.env, sink.uri()),
        user: spec.user.clone(),
        memory_bytes: spec.memory_bytes,
        open_files: spec.open_files,
        before: Vec::new(),
    };
    let printed = if spec.lines {
        Printed::Events { ty: spec.ty.clone(), content_type: spec.content_type.clone(), overrides: bound.overrides.clone() }
    } else {
        Printed::Log
    };
    keep::running(job, &sink, &command, &printed).await
}

/// The program's real path, once the configuration allows it.
async fn permitted(job: &Job, path: PathBuf, allowed: &Allowed) -> Result<PathBuf, Stopped> {
    loop {
        let (allowed, wanted) = (allowed.clone(), path.clone());
        let checked =
            tokio::task::spawn_blocking(move || allowed.check(&wanted)).await.unwrap_or_else(|e| Err(e.to_string()));
        match checked {
            Ok(real) => return Ok(real),
            Err(what) => {
                let why = format!("{what} is not there, or not listed in programs.allow of the agent's configuration");
                job.live.deployed(Err(Missing::new("ProgramNotAllowed", why)));
            }
        }
        // It may be installed later; what is allowed does not change.
        job.wait(keep::LOOK_AGAIN_MS).await?;
    }
}
