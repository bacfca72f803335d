//! IPsec tunnels: customer edges and a regional edge without I/O, wired in memory. What is on the wire between them is looked at, and
//! what each packet moved in the accounts.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod drops;
mod gateway;
mod lifetime;
mod lists;
mod narrow;
mod net;
mod nic;
mod numbers;
mod order;
mod outside;
mod path_mtu;
mod protect;
mod rekey;
mod secrets;
mod turns;
mod vectors;
mod walk;
mod workers;
