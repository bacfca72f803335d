//! The dataplane of a machine with a SmartNIC or DPU: the daemon, with devices that DPDK drives, and its replay. Nothing in it
//! puts rules into hardware yet, and it says so.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use dpu_fastpath::daemon::{self, RunArgs};
use fallback_sw::{
    node::daemon::{self as node, CheckArgs},
    replay,
};

/// Sluicegate's dataplane for machines with a SmartNIC or DPU. It does not put rules into hardware yet.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward packets until told to stop.
    Run(Box<RunArgs>),
    /// Say whether a forwarding state is consistent; change nothing.
    Check(CheckArgs),
    /// Run captures through the software pipeline: the outcome is that of `fallback-sw replay`.
    Replay {
        /// Put a model of this NIC in front. Not implemented yet: refused.
        #[arg(long, value_name = "PROFILE")]
        nic: Option<String>,
        #[command(flatten)]
        args: replay::Args,
    },
}

fn main() -> ExitCode {
    node::start(|cli: Cli| match cli.command {
        Command::Run(args) => daemon::run(&args),
        Command::Check(args) => node::check(&args),
        Command::Replay { nic: Some(profile), .. } => bail!(
            "NIC profiles are not implemented yet; leave out `--nic {profile}` to replay through the software pipeline"
        ),
        Command::Replay { nic: None, args } => args.run().map_err(Into::into),
    })
}
