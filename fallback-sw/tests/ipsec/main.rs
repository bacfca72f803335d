//! IPsec tunnels: customer edges and a regional edge without I/O, wired in memory. What is on the wire between them is looked at, and
//! what each packet moved in the accounts.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod drops;
mod lifetime;
mod net;
mod nic;
mod outside;
mod rekey;
mod secrets;
mod walk;
mod workers;
