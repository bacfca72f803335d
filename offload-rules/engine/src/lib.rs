//! The offload engine: turns the requests of workers into rules of a NIC, and the NIC's counters into reports.
//!
//! Pure: a state machine without I/O, clock or threads. Time is passed in, a NIC is a [`RuleBackend`] and maybe a [`SessionBackend`], nothing
//! waits. It needs neither a driver nor the software dataplane; a daemon runs it over whatever backend its devices have.
//!
//! [`protocol`] is what workers and engine tell each other; [`Engine::request`] and [`Engine::poll`] are where to begin to read. What the engine
//! asks of others is in three traits: [`Lowering`] (directions to rules), [`RuleBackend`] (rules to a NIC), [`SessionBackend`] (SAs to a NIC).
#![forbid(unsafe_code)]

mod backend;
mod config;
mod engine;
pub mod errno;
mod failure;
pub mod hash;
mod lowering;
mod meter;
pub mod protocol;
mod session_backend;
mod status;
#[cfg(test)]
mod tests;

pub use backend::{Completion, Hits, NicBackend, RuleBackend, Token};
pub use config::Config;
pub use engine::Engine;
pub use failure::{Failure, classify};
pub use lowering::{Lowering, SessionPlace};
pub use session_backend::{SessionBackend, SessionCounts, SessionKind, SessionSpec};
pub use status::{
    EngineStatus, Failures, InstalledRule, Mismatch, MismatchKind, ProbeResult, ShapeStatus, Totals, TransitStatus,
};
