//! The NIC twin: a NIC in software that executes rte_flow rules.
//!
//! [`model`] is the NIC itself, written from DPDK's rte_flow guide alone: it shares nothing with the code that lowers flows
//! to rules, so that each judges the other. It is pure: time is passed in, and no I/O happens.

pub mod model;

#[cfg(feature = "pmd")]
mod pmd;
