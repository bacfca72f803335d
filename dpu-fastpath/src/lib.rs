//! The dataplane of a machine with a SmartNIC or DPU: what is not in `main`, so that tests and benches reach it.

pub mod daemon;
mod hash;
pub mod nic;
pub mod offload;
pub mod port;
pub mod probe;
pub mod replay;
pub mod rte_flow;
pub mod security;
pub mod service;
