//! `godwit completion`: the script that lets a shell complete our commands and flags.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  godwit completion bash > /etc/bash_completion.d/godwit
  godwit completion zsh > \"${fpath[1]}/_godwit\"
  godwit completion fish > ~/.config/fish/completions/godwit.fish";

/// The shell to complete for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Target {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionArgs {
    /// Which shell.
    shell: Target,
}

pub(crate) fn run(args: &CompletionArgs) -> anyhow::Result<()> {
    let shell = match args.shell {
        Target::Bash => Shell::Bash,
        Target::Zsh => Shell::Zsh,
        Target::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::Cli::command(), "godwit", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
