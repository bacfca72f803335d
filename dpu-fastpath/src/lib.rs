//! The dataplane of a machine with a SmartNIC or DPU: what is not in `main`, so that tests and benches reach it.

pub mod offload;
pub mod service;
