//! The DPDK driver `net_twin`: the NIC of [`crate::model`] as ports of a DPDK program.
//!
//! A twin port wraps another DPDK port, which carries its frames. What arrives there passes the NIC's rules first: frames that
//! a rule forwards leave by the lower port of the egress twin without the host, the others reach the host as from any NIC, with
//! mark and metadata. All twin ports of a process are one NIC.
//!
//! Nothing here unwinds into C: no operation panics, and a lock that a panic left behind is taken anyway.

mod args;
mod burst;
mod device;
mod ethdev;
mod ffi;
mod flow;
mod hairpin;
mod log;
mod lower;
mod mbuf;
mod security;
mod twin;
