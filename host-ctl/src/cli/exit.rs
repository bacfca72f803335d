//! The exit status of a command.

use std::process::ExitCode;

/// How a command ended; the number is the exit status and does not change between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Wrong usage, no node, refused, or an I/O error; standard error says which. Of `offload diff` also: there are differences.
    Failed = 1,
    /// The object that was asked for is not there (ENOENT).
    NotFound = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
