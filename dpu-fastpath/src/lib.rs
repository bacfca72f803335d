//! The dataplane of a machine with a SmartNIC or DPU: what is not in `main`, so that tests and benches reach it.

pub mod daemon;
pub mod nic;
pub mod port;
pub mod probe;
pub mod replay;
pub mod rte_flow;
pub mod security;
