//! What can go wrong in a lab.

use std::{path::PathBuf, time::Duration};

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The lab cannot run on this machine as this user.
    #[error("{what}: {remedy}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// How to get it.
        remedy: String,
    },
    /// A program of the product is not there.
    #[error("{} does not exist: run `cargo build --workspace`, or name its directory in SLUICEGATE_BIN_DIR", .0.display())]
    NotBuilt(PathBuf),
    /// A command ended badly.
    #[error("`{command}` ended with {status}\n{output}")]
    Command {
        /// The whole command line.
        command: String,
        /// Exit status.
        status: std::process::ExitStatus,
        /// What it printed to both streams.
        output: String,
    },
    /// A command could not be started, or a file or socket not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it did not work.
        source: std::io::Error,
    },
    /// A condition did not come true in time.
    #[error("waited {waited:?} in vain for {what}{detail}")]
    Timeout {
        /// The condition.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen last; empty when nothing is known.
        detail: String,
    },
    /// Ctrl-C or SIGTERM: the lab is taken down.
    #[error("interrupted")]
    Interrupted,
    /// A node's API answered with an error.
    #[error("{node}: {call}: {status}")]
    Api {
        /// The node.
        node: String,
        /// The call.
        call: &'static str,
        /// Its answer.
        status: Box<tonic::Status>,
    },
    /// The node's API could not be reached.
    #[error("{node}: no connection to {socket}: {source}")]
    NoConnection {
        /// The node.
        node: String,
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// Output that is not what the program is known to print.
    #[error("`{command}` printed something unexpected ({expected}):\n{output}")]
    Unexpected {
        /// The whole command line.
        command: String,
        /// What was looked for.
        expected: &'static str,
        /// What it printed.
        output: String,
    },
    /// Something that has to hold does not.
    #[error("{0}")]
    Violated(String),
}

impl LabError {
    /// An I/O error with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A system call's error with what was tried.
    pub fn os(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let what = what.into();
        move |errno| Self::Io { what, source: errno.into() }
    }

    /// The gRPC status code, when a node's API answered with an error.
    #[must_use]
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Api { status, .. } => Some(status.code()),
            _ => None,
        }
    }
}
