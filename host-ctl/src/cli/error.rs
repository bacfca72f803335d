//! What can go wrong, where, and what to do.

use std::{error::Error as _, io, path::PathBuf};

use proto::json::JsonError;
use tonic::{Code, Status};

use super::exit::Exit;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such socket.
    #[error("{}: there is no such socket; start the node, or name its socket with --socket or SLUICEGATE_SOCKET", .0.display())]
    NoSocket(PathBuf),
    /// No process accepts connections.
    #[error("{}: nobody listens on this socket; the node is not running, start it", .0.display())]
    NobodyListens(PathBuf),
    /// Not allowed to connect.
    #[error("{}: permission denied; run as root or as a member of the group that owns the socket", .0.display())]
    Permission(PathBuf),
    /// Something else has this name.
    #[error("{}: not a unix socket; name the node's socket with --socket or SLUICEGATE_SOCKET", .0.display())]
    NotASocket(PathBuf),
    /// Any other reason.
    #[error("{}: can't connect: {source}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What answers is not a node.
    #[error("{}: what listens here does not speak gRPC ({problem}); name the node's socket with --socket", .path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        problem: String,
    },
    /// What was asked for is not there.
    #[error("{what}: {message}")]
    NotFound {
        /// What was asked for: `vif 4113`.
        what: String,
        /// The node's words.
        message: String,
    },
    /// The node does not understand what was asked for.
    #[error("{what}: {message}")]
    Argument {
        /// What was asked for: `route to 10.0.0/8 in vrf 18`.
        what: String,
        /// The node's words.
        message: String,
    },
    /// The node refused a state or a change; the state in force stays.
    #[error("{what}: refused by the node, its state stays as it was:\n{}", indented(.message))]
    Refused {
        /// The file.
        what: String,
        /// All that is wrong, one a line.
        message: String,
    },
    /// The node did not answer in time.
    #[error("{what}: the node did not answer within {seconds} s; try again, or allow more with --timeout")]
    Timeout {
        /// What was asked for.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// The connection ended before the answer did.
    #[error("{what}: the connection to the node broke ({problem}); is it a node that listens, and does it still run?")]
    Broken {
        /// What was asked for.
        what: String,
        /// What the transport says.
        problem: String,
    },
    /// The node has no such service: it drives no NIC.
    #[error("{what}: this node forwards in software only: it has no offload engine")]
    SoftwareOnly {
        /// What was asked for.
        what: String,
    },
    /// Any other answer.
    #[error("{what}: the node answered {code:?}: {message}")]
    Node {
        /// What was asked for.
        what: String,
        /// The kind of error.
        code: Code,
        /// The node's words.
        message: String,
    },
    /// An answer without its main part.
    #[error("{what}: the node's answer holds no {part}; do host-ctl and the node have the same version?")]
    Incomplete {
        /// What was asked for.
        what: String,
        /// What is missing.
        part: &'static str,
    },
    /// A file could not be read.
    #[error("{path}: can't read it: {source}")]
    File {
        /// Its name.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Not the JSON of a message.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Standard output or a file could not be written.
    #[error("can't write the output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// The error of a call. `seconds` is the limit that the call had.
    pub(super) fn of_call(what: &str, status: &Status, seconds: u64) -> Self {
        let (what, message) = (what.to_owned(), status.message().to_owned());
        // Only an error of the transport has a source: a node's answer is a code and words.
        let broken = status.source().map(root_cause);
        match status.code() {
            Code::NotFound => Self::NotFound { what, message },
            Code::InvalidArgument => Self::Argument { what, message },
            Code::DeadlineExceeded => Self::Timeout { what, seconds },
            // How tonic's client reports its own timer.
            Code::Cancelled if message == "Timeout expired" => Self::Timeout { what, seconds },
            code => match broken {
                Some(problem) => Self::Broken { what, problem },
                None => Self::Node { what, code, message },
            },
        }
    }

    /// The error of a call to the offload engine, which a node without a NIC does not have.
    pub(super) fn of_offload_call(what: &str, status: &Status, seconds: u64) -> Self {
        match status.code() {
            Code::Unimplemented => Self::SoftwareOnly { what: what.to_owned() },
            _ => Self::of_call(what, status, seconds),
        }
    }

    /// The error of a call that was to change the state: `file` says from what.
    pub(super) fn of_change(file: &str, status: &Status, seconds: u64) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition => {
                Self::Refused { what: file.to_owned(), message: status.message().to_owned() }
            }
            _ => Self::of_call(file, status, seconds),
        }
    }

    /// The exit status that goes with it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::NotFound { .. } => Exit::NotFound,
            _ => Exit::Failed,
        }
    }
}

/// The innermost error, which says what happened.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn indented(message: &str) -> String {
    message.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
