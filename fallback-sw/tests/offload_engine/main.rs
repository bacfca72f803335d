//! An offload engine beside the node, without DPDK: its thread and rings, and a node that offloads flows to a NIC in memory.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod nic;
mod node;
mod runner;

use std::time::{Duration, Instant};

/// Waits until a condition holds.
#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
