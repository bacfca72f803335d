//! The offload engine: turns the requests of workers into rules of a NIC, and the NIC's counters into reports.
//!
//! The core is a state machine: time is passed in, a NIC is a [`Backend`], nothing waits.
#![forbid(unsafe_code)]

mod backend;
mod config;
mod engine;
mod lowering;
mod meter;
mod runner;
mod status;
#[cfg(test)]
mod tests;

pub use backend::{Backend, Completion, Failure, Hits, SessionCounts, SessionKind, SessionSpec, Token, classify};
pub use config::Config;
pub use engine::Engine;
pub use lowering::{Lowering, SessionPlace};
pub use runner::{Deliver, Ended, Handle, Observe, Runner, RunnerConfig};
pub use status::{EngineStatus, Failures, Finding, InstalledRule, Mismatch, MismatchKind, ShapeStatus, Totals};
