//! ContainerSource: the first container of its template, run by podman or docker where the board has one.
//!
//! The command line of either is a program like another: it needs its place in `programs.allow`, stays in the foreground, and is
//! kept running. The container is removed when it ends, and one that an earlier run left behind before the next is started. It is no
//! process of ours: the engine hands on SIGTERM, and what does not end by it is killed by another run of the engine.

use std::path::PathBuf;
use std::time::Duration;

use godwit_mesh::manifest::{ContainerSpec, SourceKind};
use godwit_mesh::source::{Job, Missing, Stopped};

use super::super::allow::Allowed;
use super::binding::Bound;
use super::child;
use super::keep::{self, Command, Printed};
use super::permitted;

/// Where the programs are looked for, podman before docker: it needs no daemon.
const ENGINES: [&str; 4] = ["/usr/bin/podman", "/usr/local/bin/podman", "/usr/bin/docker", "/usr/local/bin/docker"];

/// Longest run of the engine that kills a container: with the time that a program has to end, within the agent's stop.
const KILL: Duration = Duration::from_secs(10);

/// Runs a ContainerSource.
pub(in crate::sources) async fn run(job: Job, allowed: Allowed) {
    if let SourceKind::Container(spec) = &job.spec().what {
        let Err(Stopped) = serve(&job, spec, &allowed).await;
    }
}

async fn serve(job: &Job, spec: &ContainerSpec, allowed: &Allowed) -> Result<std::convert::Infallible, Stopped> {
    let sink = job.sink().await?;
    let engine = engine(job).await?;
    let program = permitted(job, engine.clone(), allowed).await?;
    let bound = Bound {
        sink: job.spec().sink.clone().ok_or(Stopped)?,
        holder: job.name().clone(),
        overrides: job.spec().overrides.clone(),
    };
    let env = bound.environment(&spec.env, sink.uri());
    // Neither part has an underscore.
    let name = format!("godwit-{}_{}", job.name().namespace, job.name().name);
    let command = Command {
        program,
        name: engine.display().to_string(),
        args: arguments(spec, &name, &env),
        // What the engine itself needs: where its user keeps images.
        env: ["HOME", "XDG_RUNTIME_DIR"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .collect(),
        user: None,
        memory_bytes: None,
        open_files: None,
        before: ["rm", "--force", &name].map(str::to_owned).to_vec(),
    };
    let stopped = keep::running(job, &sink, &command, &Printed::Log).await;
    // However it came to its end: a container is no child of its engine's command.
    child::clear_up(&command, &["kill", &name].map(str::to_owned), KILL).await;
    stopped
}

/// The engine of this board, once there is one.
async fn engine(job: &Job) -> Result<PathBuf, Stopped> {
    loop {
        if let Some(engine) = ENGINES.iter().map(PathBuf::from).find(|path| path.is_file()) {
            return Ok(engine);
        }
        let why = "this board has neither podman nor docker; a ProgramSource needs none";
        job.live.deployed(Err(Missing::new("NoContainerEngine", why)));
        job.wait(keep::LOOK_AGAIN_MS).await?;
    }
}

/// The arguments of `run`. On the host's network, so that a sink on loopback is reached.
fn arguments(spec: &ContainerSpec, name: &str, env: &[(String, String)]) -> Vec<String> {
    let mut args: Vec<String> = ["run", "--rm", "--network=host", "--name", name].map(str::to_owned).to_vec();
    for (name, value) in env {
        args.push(format!("--env={name}={value}"));
    }
    let mut command = spec.command.iter();
    if let Some(entry) = command.next() {
        args.push(format!("--entrypoint={entry}"));
    }
    args.push("--".to_owned());
    args.push(spec.image.clone());
    args.extend(command.cloned());
    args.extend(spec.args.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_object_becomes_an_option_of_the_engine() {
        let spec = ContainerSpec {
            image: "example.org/heartbeats:v1".to_owned(),
            command: vec!["/app".to_owned(), "--period=1".to_owned()],
            args: vec!["--privileged".to_owned()],
            env: Vec::new(),
        };
        let env = [
            ("A".to_owned(), "x --privileged".to_owned()),
            ("K_SINK".to_owned(), "http://127.0.0.1:8080/default/default".to_owned()),
        ];
        assert_eq!(
            arguments(&spec, "godwit-default-x", &env),
            [
                "run",
                "--rm",
                "--network=host",
                "--name",
                "godwit-default-x",
                "--env=A=x --privileged",
                "--env=K_SINK=http://127.0.0.1:8080/default/default",
                "--entrypoint=/app",
                "--",
                "example.org/heartbeats:v1",
                "--period=1",
                "--privileged",
            ]
        );
    }
}
