//! One run of a program: a process group of its own, its outputs, its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use godwit_mesh::source::{Job, Stopped};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::keep::Command;

/// How long a program has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// How long what a program has printed before its end may take to come.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often it is looked whether it has ended, where the kernel (before 5.3) does not say so.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Where a program finds others: nothing of the agent's own environment goes on to it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a run has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was asked to.
    Stopped,
    /// By itself; how.
    Exited(String),
}

/// A program that runs. Dropped, it is killed with its group.
#[derive(Debug)]
pub(super) struct Child {
    child: std::process::Child,
    group: Pid,
    /// Says when it has ended; `None` where the kernel cannot.
    pidfd: Option<AsyncFd<OwnedFd>>,
    outputs: (Option<pipe::Receiver>, Option<pipe::Receiver>),
    reaped: bool,
}

impl Child {
    /// Starts it. The error says what is wrong.
    pub(super) async fn start(command: &Command) -> Result<Self, String> {
        let wanted = command.clone();
        // Forking a process with much memory takes its time.
        let spawned = tokio::task::spawn_blocking(move || spawn(&wanted)).await.unwrap_or_else(|e| Err(e.to_string()));
        Self::adopt(spawned?).map_err(|e| format!("{}: {e}", command.name))
    }

    fn adopt(mut child: std::process::Child) -> io::Result<Self> {
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = rustix::process::pidfd_open(group, PidfdFlags::empty()).ok();
        let pidfd = pidfd.and_then(watched);
        let receiver = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd);
        let stdout = child.stdout.take().map(|out| receiver(out.into())).transpose()?;
        let stderr = child.stderr.take().map(|out| receiver(out.into())).transpose()?;
        Ok(Self { child, group, pidfd, outputs: (stdout, stderr), reaped: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output and error, once.
    pub(super) fn outputs(&mut self) -> (Option<pipe::Receiver>, Option<pipe::Receiver>) {
        (self.outputs.0.take(), self.outputs.1.take())
    }

    /// Resolves when it has ended, with how. Cancel-safe.
    pub(super) async fn exited(&mut self) -> String {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.reaped = true;
                    return how(status);
                }
                Ok(None) => {}
                Err(error) => return format!("nobody knows how it ended: {error}"),
            }
            match &self.pidfd {
                Some(pidfd) => {
                    if let Ok(mut ready) = pidfd.readable().await {
                        ready.clear_ready();
                    }
                }
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Asks it to end, waits, and has it killed if it does not. What it prints meanwhile is taken.
    pub(super) async fn terminate(&mut self, outputs: &mut Pin<&mut impl Future<Output = ()>>, open: &mut bool) {
        let _ = rustix::process::kill_process_group(self.group, Signal::TERM);
        let deadline = tokio::time::sleep(GRACE);
        let mut deadline = std::pin::pin!(deadline);
        loop {
            tokio::select! {
                _ = self.exited() => return,
                () = outputs.as_mut(), if *open => *open = false,
                () = &mut deadline => break,
            }
        }
        tracing::warn!(
            pid = self.child.id(),
            "a program has not ended within {} s of SIGTERM: it is killed",
            GRACE.as_secs()
        );
        self.kill_group();
        self.exited().await;
    }

    /// Kills it and all that it has started, unless they have left its group.
    pub(super) fn kill_group(&self) {
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
    }

    /// What is left of it if the agent ends without a word.
    pub(super) fn leftover(&self) -> Leftover {
        let pid = self.group.as_raw_nonzero().get();
        Leftover { pid, started: started(pid).unwrap_or_default(), boot: boot() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_group();
        if !self.reaped {
            // Killed above, so this does not wait for long.
            let _ = self.child.wait();
        }
    }
}

/// A process's descriptor, as the runtime waits for it.
#[expect(unsafe_code, reason = "tokio asks for the promise that a descriptor stays open while it is registered")]
fn watched(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open descriptor for as long as it lives, and the AsyncFd owns it.
    unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }.ok()
}

/// Runs the command's program with other arguments to its end, for so long at most, whatever becomes of it; without any, does nothing.
pub(super) async fn clear_up(command: &Command, arguments: &[String], most: Duration) {
    if arguments.is_empty() {
        return;
    }
    if let Ok(mut child) = Child::start(&Command { args: arguments.to_vec(), ..command.clone() }).await {
        let _ = tokio::time::timeout(most, child.exited()).await;
    }
}

fn spawn(command: &Command) -> Result<std::process::Child, String> {
    let mut spawned = std::process::Command::new(&command.program);
    spawned
        .arg0(&command.name)
        .args(&command.args)
        .env_clear()
        .env("PATH", PATH)
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = &command.user {
        let (uid, gid) = lookup(user)?;
        if uid != rustix::process::geteuid().as_raw() || gid != rustix::process::getegid().as_raw() {
            spawned.uid(uid).gid(gid);
        }
    }
    let child = spawned.spawn().map_err(|e| format!("{}: {e}", command.name))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let limits = [(Resource::As, command.memory_bytes), (Resource::Nofile, command.open_files)];
    for (resource, limit) in limits {
        let Some(limit) = limit else { continue };
        // It has run for a moment without: what it may take in that is no more than the agent itself might.
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        if let Err(error) = rustix::process::prlimit(pid, resource, limit) {
            tracing::warn!(program = command.name, %error, "a limit cannot be set");
        }
    }
    Ok(child)
}

/// User and group of a name in `/etc/passwd`.
fn lookup(user: &str) -> Result<(u32, u32), String> {
    let text = std::fs::read_to_string("/etc/passwd").map_err(|e| format!("/etc/passwd: {e}"))?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))).flatten()
    });
    found.ok_or_else(|| format!("there is no user {user} in /etc/passwd"))
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it has ended with status {code}"),
        (None, Some(signal)) => format!("it was killed by signal {signal}"),
        (None, None) => "it has ended".to_owned(),
    }
}

/// A program that an agent has left behind: process id, when it was started, and since which start of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    pid: i32,
    started: u64,
    boot: String,
}

impl Leftover {
    pub(super) fn encode(&self) -> Vec<u8> {
        format!("{} {} {}", self.pid, self.started, self.boot).into_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        })
    }

    /// Whether it still runs: the same process, not another that has got its number.
    fn runs(&self) -> bool {
        self.started != 0 && boot() == self.boot && started(self.pid) == Some(self.started)
    }

    /// Ends it with its group, if it still runs.
    pub(super) async fn end(&self, job: &Job) -> Result<(), Stopped> {
        let Some(group) = Pid::from_raw(self.pid).filter(|_| self.runs()) else { return Ok(()) };
        tracing::warn!(pid = self.pid, "a program from before the agent's last end still runs: it is ended");
        let _ = rustix::process::kill_process_group(group, Signal::TERM);
        for _ in 0..20 {
            job.wait(100).await?;
            if !self.runs() {
                break;
            }
        }
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        Ok(())
    }
}

/// When a process was started, in ticks since the machine was.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may have anything in it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18)?.parse().ok()).flatten()
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        Command {
            program: "/bin/sh".into(),
            name: "sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            user: None,
            memory_bytes: None,
            open_files: Some(32),
            before: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_run_ends_with_how_it_ended() {
        for (script, wanted) in [("exit 3", "status 3"), ("kill -9 $$", "signal 9"), ("test \"$A\" = b", "status 0")] {
            let mut child = Child::start(&sh(script)).await.expect("started");
            let how = child.exited().await;
            assert!(how.contains(wanted), "{script}: {how}");
        }
        // Under an emulator (cross/test) a new process does not share the memory by which it tells that there is no such program.
        if std::env::var_os("GODWIT_EMULATED").is_none() {
            let wrong = Command { program: "/no/such".into(), ..sh("") };
            assert!(Child::start(&wrong).await.is_err());
        }
        let nobody = Command { user: Some("no-such-user".to_owned()), ..sh("") };
        assert!(Child::start(&nobody).await.expect_err("unknown").contains("no user no-such-user"));
    }

    #[tokio::test]
    async fn nothing_of_the_agents_environment_goes_on_and_limits_hold() {
        let mut child = Child::start(&sh("sleep 0.2; [ -z \"$CARGO\" ] && [ $(ulimit -n) = 32 ]")).await.expect("started");
        assert!(child.exited().await.contains("status 0"));
    }

    #[tokio::test]
    async fn a_dropped_child_takes_its_children_with_it() {
        let mut child = Child::start(&sh("sleep 1000 & echo $!; wait")).await.expect("started");
        let (stdout, _) = child.outputs();
        let mut bytes = [0; 16];
        let out = stdout.expect("piped");
        let read = loop {
            out.readable().await.expect("readable");
            match out.try_read(&mut bytes) {
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
        };
        let grandchild: i32 = String::from_utf8_lossy(&bytes[..read]).trim().parse().expect("a process id");
        let leftover = child.leftover();
        assert_eq!(Leftover::decode(&leftover.encode()), Some(leftover.clone()));
        assert!(leftover.runs() && started(grandchild).is_some());
        assert!(!Leftover { started: leftover.started + 1, ..leftover.clone() }.runs());
        drop(child);
        assert!(!leftover.runs());
        for _ in 0..200 {
            if started(grandchild).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the grandchild lives on");
    }
}
