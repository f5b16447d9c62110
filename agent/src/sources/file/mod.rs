//! FileSource: each line of a file becomes an event ([`lines`]), or each file that is put into a folder ([`folder`]).

mod folder;
mod lines;

use std::path::PathBuf;

use godwit_mesh::manifest::{FileMode, FileSpec, SourceKind};
use godwit_mesh::source::{Job, Missing, Stopped};

use super::allow::Allowed;

/// How often a file or folder is looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 1000;

/// Runs a FileSource.
pub(super) async fn run(job: Job, allowed: Allowed) {
    if let SourceKind::File(spec) = &job.spec().what {
        let Err(Stopped) = follow(&job, spec, allowed).await;
    }
}

async fn follow(job: &Job, spec: &FileSpec, allowed: Allowed) -> Result<std::convert::Infallible, Stopped> {
    // First, so that what is missing is told in the order of the conditions.
    job.sink().await?;
    let path = permitted(job, spec.path.clone(), &allowed).await?;
    let done = match &spec.done {
        Some(done) => Some(permitted(job, done.clone(), &allowed).await?),
        None => None,
    };
    // From here on the paths are what was allowed, whatever becomes of links.
    let spec = FileSpec { path, done, ..spec.clone() };
    match spec.mode {
        FileMode::Lines => lines::follow(job, &spec).await,
        FileMode::Files => folder::follow(job, &spec).await,
    }
}

/// Where a path really is, once the configuration allows it.
async fn permitted(job: &Job, path: PathBuf, allowed: &Allowed) -> Result<PathBuf, Stopped> {
    loop {
        let (allowed, wanted) = (allowed.clone(), path.clone());
        let checked = tokio::task::spawn_blocking(move || allowed.check_new(&wanted)).await;
        match checked.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(real) => return Ok(real),
            Err(what) => {
                let why = format!("{what} is not there, or not listed in files.allow of the agent's configuration");
                job.live.deployed(Err(Missing::new("PathNotAllowed", why)));
            }
        }
        // A folder may come later; what is allowed does not change.
        job.wait(LOOK_EVERY_MS).await?;
    }
}
