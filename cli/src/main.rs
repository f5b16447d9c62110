//! `godwit`: run, feed, watch and steer agents and gateways.
//!
//! One file per command; [`client`] speaks HTTP to the server, [`output`] decides what a terminal gets. Exit codes: 0 done,
//! 1 failed or refused, 2 wrong usage, 3 the server cannot be reached, 4 the server wants other credentials.

mod api;
mod apply;
mod check;
mod client;
mod completion;
mod cursor;
mod dead_letter;
mod describe;
mod dev;
mod doctor;
mod eval;
mod get;
mod link;
mod output;
mod passwd;
mod queue;
mod send;
mod tail;
mod token;
mod trigger;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use client::ServerArgs;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 the server cannot be reached, 4 the server wants other credentials.

Examples:
  godwit dev                                    a gateway and an agent on this machine, to try things out
  godwit send --type door.opened --data '{\"door\":3}'
  godwit tail --from start
  godwit get brokers
  godwit doctor                                 is this board fit for an agent?";

/// Run, feed, watch and steer Godwit's agents and gateways.
#[derive(Debug, Parser)]
#[command(name = "godwit", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway and an agent on this machine, with a sink that prints what arrives.
    Dev(dev::DevArgs),
    /// Send events to a broker or a channel.
    Send(send::SendArgs),
    /// Print the events of a broker or a channel as they come.
    Tail(tail::TailArgs),
    /// List agents, brokers, triggers or objects of another kind.
    Get(get::GetArgs),
    /// Show one object and how it stands.
    Describe(describe::ObjectArgs),
    /// Bring the objects in files to a server.
    Apply(apply::ApplyArgs),
    /// Show what `apply` would change.
    Diff(apply::DiffArgs),
    /// Change one object in an editor ($EDITOR).
    Edit(describe::ObjectArgs),
    /// Delete objects.
    Delete(apply::DeleteArgs),
    /// Make or delete a Trigger in one line, or try out those in files.
    Trigger(trigger::TriggerArgs),
    /// Make or delete a Broker in one line.
    Broker(trigger::BrokerArgs),
    /// Look at the cursors of a broker's or channel's consumers, or move one by hand.
    Cursor(cursor::CursorArgs),
    /// Look at what could not be delivered, send it again or drop it.
    DeadLetter(dead_letter::DeadLetterArgs),
    /// Look at an agent's link to the gateway, hold it or let it go on.
    Link(link::LinkArgs),
    /// Set or remove a user's password in a credentials file.
    Passwd(passwd::PasswdArgs),
    /// Make or remove a token in a credentials file.
    Token(token::TokenArgs),
    /// Check manifests without a server.
    Check(check::CheckArgs),
    /// Look at this board: is it fit for an agent, and what is to be done?
    Doctor(doctor::DoctorArgs),
    /// Run a CESQL expression on an event without a server.
    Eval(eval::EvalArgs),
    /// Write the completion script for a shell.
    Completion(completion::CompletionArgs),
}

fn main() -> ExitCode {
    godwit_mesh::process::keep_small();
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) if client::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            client::exit_code(&error)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = godwit_mesh::process::runtime;
    let server = cli.server;
    let done = |()| ExitCode::SUCCESS;
    match cli.command {
        Command::Dev(args) => runtime()?.block_on(dev::run(args)).map(done),
        Command::Send(args) => runtime()?.block_on(send::run(&server, args)).map(done),
        Command::Tail(args) => runtime()?.block_on(tail::run(&server, args)).map(done),
        Command::Get(args) => runtime()?.block_on(get::run(&server, &args)).map(done),
        Command::Describe(args) => runtime()?.block_on(describe::describe(&server, &args)).map(done),
        Command::Apply(args) => runtime()?.block_on(apply::apply(&server, &args)),
        Command::Diff(args) => runtime()?.block_on(apply::diff(&server, &args)),
        Command::Edit(args) => runtime()?.block_on(describe::edit(&server, &args)).map(done),
        Command::Delete(args) => runtime()?.block_on(apply::delete(&server, &args)).map(done),
        Command::Trigger(args) => runtime()?.block_on(trigger::run(&server, &args)),
        Command::Broker(args) => runtime()?.block_on(trigger::run_broker(&server, &args)).map(done),
        Command::Cursor(args) => runtime()?.block_on(cursor::run(&server, args)).map(done),
        Command::DeadLetter(args) => runtime()?.block_on(dead_letter::run(&server, args)),
        Command::Link(args) => runtime()?.block_on(link::run(&server, &args)).map(done),
        Command::Passwd(args) => passwd::run(&args).map(done),
        Command::Token(args) => token::run(&args).map(done),
        Command::Check(args) => check::run(&args),
        // It has a runtime of its own, which it leaves behind when something hangs.
        Command::Doctor(args) => doctor::run(&server, args),
        Command::Eval(args) => eval::run(&args),
        Command::Completion(args) => completion::run(&args).map(done),
    }
}
