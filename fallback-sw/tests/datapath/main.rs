//! The clauses of the data path that are about more than one packet: fragments, sizes, neighbours, TCP, limits, changes of the
//! forwarding state, several workers.

#[path = "../common/mod.rs"]
mod common;

mod change;
mod fragments;
mod limits;
mod neighbours;
mod size;
mod tcp;
mod workers;
