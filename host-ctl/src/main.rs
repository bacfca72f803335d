//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    host_ctl::cli::main(std::env::args_os())
}
