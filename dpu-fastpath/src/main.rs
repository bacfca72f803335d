//! The dataplane of a machine with a SmartNIC or DPU: the daemon, with devices that DPDK drives and rules in the NIC, and its replay.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dpu_fastpath::{
    daemon::{self, RunArgs},
    probe::{self, ProbeArgs},
    replay::{self, ReplayArgs},
};
use fallback_sw::node::daemon::{self as node, CheckArgs};

/// Sluicegate's dataplane for machines with a SmartNIC or DPU.
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
    /// Run captures through a node, with the twin of a NIC in front of it: no root, no sockets, the same outcome each time.
    Replay(Box<ReplayArgs>),
    /// Ask the NIC's driver which rules it takes: nothing is forwarded, and no flow is needed.
    Probe(Box<ProbeArgs>),
}

fn main() -> ExitCode {
    node::start(|cli: Cli| match cli.command {
        Command::Run(args) => daemon::run(&args),
        Command::Check(args) => node::check(&args),
        Command::Replay(args) => replay::run(*args),
        Command::Probe(args) => probe::run(&args),
    })
}
