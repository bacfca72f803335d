//! The clauses of the data path's semantics, one module each: a node or two without I/O, frames in, frames out, and exactly what
//! each packet moved in the account.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod acl;
mod change;
mod device;
mod discovery;
mod ecmp;
mod fragment_shares;
mod fragments;
mod gateway;
mod history;
mod isolation;
mod key;
mod limits;
mod link;
mod link_loss;
mod list_changes;
mod mpls;
mod narrow;
mod neighbours;
mod operands;
mod order;
mod port_lists;
mod receive;
mod room;
mod route;
mod routed;
mod rpf;
mod shares;
mod size;
mod tcp;
mod ttl;
mod vif;
mod walk_a;
mod workers;
