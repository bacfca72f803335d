//! One vocabulary for the tests of several crates: packets, built and read by an independent implementation, and forwarding states.
//!
//! A dev-dependency only. Like a test, it panics where something is not as it should be.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::wrong_self_convention)]

pub mod packets;
mod state;

pub use state::{snapshot, vif};
