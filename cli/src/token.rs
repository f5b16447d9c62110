//! `godwit token`: bearer tokens in a credentials file.

use std::path::PathBuf;

use anyhow::ensure;
use godwit_mesh::door::{CredentialKind, CredentialsFile};

use crate::output;

const EXAMPLES: &str = "\
A token has 256 random bits. It is printed once; the file keeps only its SHA-256. An agent's token at the gateway bears the
agent's id as its user.

Examples:
  godwit token /etc/godwit/private/credentials boat-7 > boat-7.token
  godwit token /etc/godwit/private/credentials boat-7 --delete";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TokenArgs {
    /// The credentials file; made if it is not there.
    file: PathBuf,
    /// Whose token: a user, or an agent's id.
    user: String,
    /// Remove all tokens of the user.
    #[arg(long)]
    delete: bool,
}

pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let mut file = CredentialsFile::open(&args.file)?;
    if args.delete {
        let removed = file.remove(&args.user, Some(CredentialKind::Token));
        ensure!(removed > 0, "{} has no token for {}", args.file.display(), args.user);
        file.save()?;
        eprintln!("removed {removed} token(s) of {}", args.user);
        return Ok(());
    }
    let token = file.add_token(&args.user)?;
    file.save()?;
    eprintln!("made a token for {}; send SIGHUP to a running agent or gateway", args.user);
    Ok(output::print(&format!("{token}\n"))?)
}
