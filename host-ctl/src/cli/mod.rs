//! `host-ctl`: what a node forwards, counts and drops, in the layout of the vRouter's tools.
//!
//! [`args`] is what can be typed, [`client`] the way to the node, [`command`] brings both together; each of the other
//! modules turns one response into text and nothing else, so that its output can be tested without a node.

pub mod acl;
pub mod args;
pub mod client;
pub mod command;
pub mod drops;
mod error;
mod exit;
pub mod flow;
pub mod mpls;
pub mod neigh;
pub mod nh;
pub mod offload;
pub mod rt;
pub mod sa;
pub mod stats;
pub mod status;
mod text;
pub mod vif;
pub mod vrf;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser as _, error::ErrorKind};

pub use error::Error;
pub use exit::Exit;

/// Runs the command line given by `args` on this process's standard streams.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe on help text is not an error.
            let _ = error.print();
            // clap's own status for wrong usage is 2, which means "not found" here.
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if help { Exit::Ok } else { Exit::Failed }.into();
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = command::run(cli, &mut out).and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit.into(),
        // The reader has seen enough: `host-ctl flow --list | head`.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok.into(),
        Err(error) => {
            // What was written before the error is still worth reading; if it can't be written either, this error is reported.
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "host-ctl: {error}");
            error.exit().into()
        }
    }
}
