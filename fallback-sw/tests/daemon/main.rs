//! The daemon as a process: signals, links, the last state, reserved sequence numbers. Its devices are not there, so that anybody can run it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod last_state;
mod links;
mod numbers;
mod process;
mod signals;
