//! The clauses of the data path's semantics, one module each: a node or two without I/O, frames in, frames out, and exactly what
//! each packet moved in the account.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod acl;
mod change;
mod ecmp;
mod fragments;
mod isolation;
mod key;
mod limits;
mod mpls;
mod neighbours;
mod order;
mod receive;
mod route;
mod rpf;
mod size;
mod tcp;
mod ttl;
mod vif;
mod walk_a;
mod workers;
