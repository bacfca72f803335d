//! The dataplane of a machine with a SmartNIC or DPU. What is here today is its replay, which runs the software pipeline that all
//! hardware will be compared with. Nothing in it drives hardware yet, and it says so.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fallback_sw::replay;

/// Sluicegate's dataplane for machines with a SmartNIC or DPU. It does not drive hardware yet.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Not implemented yet: says what to run instead.
    Run {
        /// Ignored.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        rest: Vec<String>,
    },
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe on help text is nobody's concern.
            let _ = error.print();
            // As everywhere: 1 is an error, wrong usage too.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match carry_out(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("dpu-fastpath: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> Result<(), String> {
    match command {
        Command::Run { .. } => Err("DPDK ports and hardware offload are not implemented yet; run `fallback-sw run`, \
             which forwards in software on any NIC that the kernel drives"
            .to_owned()),
        Command::Replay { nic: Some(profile), .. } => Err(format!(
            "NIC profiles are not implemented yet; leave out `--nic {profile}` to replay through the software pipeline"
        )),
        Command::Replay { nic: None, args } => args.run().map_err(|error| error.to_string()),
    }
}
