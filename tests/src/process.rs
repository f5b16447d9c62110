//! One process under test: its log in a file, killed with the test that began it.
//!
//! `setpriv --pdeathsig` has the kernel kill the process when the thread that began it ends, even by a signal; so begin processes
//! in the test's own thread, not in one that ends before it.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal};

use crate::skip;
use crate::wait::{self, Seen};

/// How many lines of a log are shown when something fails.
const SHOWN_LINES: usize = 25;

/// What to start: a program with its arguments, environment, and what stands before it on the line (`ip netns exec …`).
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables set for it.
    pub environment: Vec<(String, String)>,
    /// Programs that run it, outermost first, each with its arguments.
    pub before: Vec<String>,
}

impl Line {
    /// The same, run by a program that takes it as its argument and becomes its process: an emulator or a profiler, with its own
    /// arguments. By none, if there is none.
    #[must_use]
    pub fn run_by(mut self, runner: &[String]) -> Self {
        if let Some((program, its)) = runner.split_first() {
            let taken = std::mem::replace(&mut self.program, program.into());
            let before = its.iter().cloned().chain([taken.display().to_string()]);
            self.arguments = before.chain(self.arguments).collect();
        }
        self
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `line`; what it prints is appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, line: &Line, log: &Path) -> Result<Self> {
        let out = open_log(log)?;
        let mut words: Vec<std::ffi::OsString> = line.before.iter().map(Into::into).collect();
        if skip::has_program("setpriv") {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(Into::into));
        }
        words.push(line.program.clone().into());
        words.extend(line.arguments.iter().map(Into::into));
        let (program, arguments) = words.split_first().context("a line has a program")?;
        let child = Command::new(program)
            .args(arguments)
            .envs(line.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}: {program:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs, else how it ended.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it at once, as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended before of its own accord, with its last log lines: nothing may crash by itself.
    pub fn kill9(mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            anyhow::bail!("{} had ended by itself ({status}) before it was killed\n{}", self.name, self.last_lines());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to end by SIGTERM and gives its exit status.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let what = format!("{} ends after SIGTERM", self.name);
        let status = wait::until(what, limit, || match self.child.try_wait() {
            Ok(Some(status)) => Seen::Yes(status),
            Ok(None) => Seen::NotYet("it still runs".to_owned()),
            Err(error) => Seen::NotYet(error.to_string()),
        });
        status.with_context(|| self.last_lines())
    }

    /// The end of its log, for a message.
    #[must_use]
    pub fn last_lines(&self) -> String {
        last_lines(&self.name, &self.log)
    }

    /// Memory that is its own, shared pages counted by their share (PSS), in KiB.
    ///
    /// # Errors
    /// When the process is gone or the kernel does not tell.
    pub fn pss_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss line")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Bytes that it has had written to block devices, or will: what it made dirty counts at once.
    ///
    /// # Errors
    /// When the process is gone or the kernel does not tell.
    pub fn written_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/io", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
        Ok(line.parse()?)
    }

    /// How often its threads have waited for something so far, and so have been woken: voluntary context switches. Threads that
    /// have ended no longer count.
    ///
    /// # Errors
    /// When the process is gone or the kernel does not tell.
    pub fn wakeups(&self) -> Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // A thread may have ended since.
            let Ok(text) = std::fs::read_to_string(task?.path().join("status")) else { continue };
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.context("no voluntary_ctxt_switches")?.trim().parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Processor time it used so far, in seconds.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let after = text.rsplit_once(") ").context("a stat line has a name")?.1;
        let ticks: u32 = after.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(f64::from(ticks) / 100.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait()
            && status.signal().is_some_and(|signal| signal == Signal::ABORT.as_raw() || signal == Signal::SEGV.as_raw())
        {
            eprintln!("{} crashed: {status}\n{}", self.name, self.last_lines());
        }
    }
}

/// The end of a log file, for a message.
#[must_use]
pub fn last_lines(name: &str, log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    format!("--- last lines of {name}\n{}\n---", lines.get(from..).unwrap_or_default().join("\n"))
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}
