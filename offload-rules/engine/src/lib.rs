//! The offload engine: turns the requests of workers into rules of a NIC, and the NIC's counters into reports.
//!
//! Pure: a state machine without I/O, clock or threads. Time is passed in, a NIC is a [`Backend`], nothing waits. It needs neither
//! a driver nor the software dataplane; a daemon runs it over whatever backend its devices have.
#![forbid(unsafe_code)]

mod backend;
mod config;
mod engine;
pub mod errno;
pub mod hash;
mod lowering;
mod meter;
pub mod protocol;
mod status;
#[cfg(test)]
mod tests;

pub use backend::{Backend, Completion, Failure, Hits, SessionCounts, SessionKind, SessionSpec, Token, classify};
pub use config::Config;
pub use engine::Engine;
pub use lowering::{Lowering, SessionPlace};
pub use status::{EngineStatus, Failures, Finding, InstalledRule, Mismatch, MismatchKind, ShapeStatus, Totals};
