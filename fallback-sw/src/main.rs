//! The daemon of a customer edge, and its replay.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fallback_sw::{
    node::daemon::{self, CheckArgs, Equipment, RunArgs},
    replay,
};

/// Sluicegate's software dataplane.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward packets until told to stop.
    Run(RunArgs),
    /// Say whether a forwarding state is consistent; change nothing.
    Check(CheckArgs),
    /// Run captures through a node: no root, no sockets, the same outcome each time.
    Replay(replay::Args),
}

fn main() -> ExitCode {
    daemon::start(|cli: Cli| match cli.command {
        Command::Run(args) => daemon::run(&args, |_, _| Ok(Equipment::default())),
        Command::Check(args) => daemon::check(&args),
        Command::Replay(args) => args.run().map_err(Into::into),
    })
}
