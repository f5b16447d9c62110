//! `godwit passwd`: a user's password in a credentials file.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use godwit_mesh::door::{CredentialKind, CredentialsFile};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

const EXAMPLES: &str = "\
The file holds argon2id hashes, never the passwords. A running agent or gateway reads it again on SIGHUP.

Examples:
  godwit passwd /etc/godwit/private/credentials sensor-7    asks for the password twice
  echo \"$SECRET\" | godwit passwd /etc/godwit/private/credentials sensor-7
  godwit passwd /etc/godwit/private/credentials sensor-7 --delete";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PasswdArgs {
    /// The credentials file; made if it is not there.
    file: PathBuf,
    /// The user.
    user: String,
    /// Remove the user's password.
    #[arg(long)]
    delete: bool,
}

pub(crate) fn run(args: &PasswdArgs) -> anyhow::Result<()> {
    let mut file = CredentialsFile::open(&args.file)?;
    if args.delete {
        let removed = file.remove(&args.user, Some(CredentialKind::Password));
        ensure!(removed > 0, "{} has no password for {}", args.file.display(), args.user);
        file.save()?;
        eprintln!("removed the password of {}", args.user);
        return Ok(());
    }
    let password = if io::stdin().is_terminal() { ask_twice()? } else { read_line()? };
    ensure!(!password.is_empty(), "an empty password would let anybody in");
    file.set_password(&args.user, password.as_bytes())?;
    file.save()?;
    eprintln!("set the password of {}; send SIGHUP to a running agent or gateway", args.user);
    Ok(())
}

fn ask_twice() -> anyhow::Result<String> {
    let first = ask("Password: ")?;
    if first != ask("Again: ")? {
        bail!("the two passwords differ; nothing was changed");
    }
    Ok(first)
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    let _hidden = Hidden::begin()?;
    eprint!("{prompt}");
    io::stderr().flush()?;
    let line = read_line();
    eprintln!();
    line
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading the password")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Keeps the terminal from showing what is typed until it is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let shown = tcgetattr(io::stdin())?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
