//! One vocabulary for scenarios: a node without I/O from a state in JSON, frames in, frames out, and the account afterwards.
#![allow(dead_code, clippy::wrong_self_convention, unreachable_pub, clippy::unwrap_used, clippy::panic)]

pub mod account;
pub mod engine;
pub mod gateways;
pub mod records;
pub mod walk_a;

use fallback_sw::node::machine::{Machine, MachineConfig, Sent};
use offload_rules::DropReason;
pub use test_kit::{packets, snapshot, vif};

/// A node under test.
pub struct Node {
    pub machine: Machine,
    pub now: u64,
}

impl Node {
    pub fn new(json: &str) -> Self {
        Self::with(json, MachineConfig::default())
    }

    pub fn with(json: &str, config: MachineConfig) -> Self {
        Self { machine: Machine::new(config, snapshot(json)).unwrap(), now: 1000 }
    }

    /// Receives a frame on a port; what the node sends because of it.
    pub fn receive(&mut self, port: u32, frame: &[u8]) -> Vec<Sent> {
        self.now += 1;
        self.machine.receive_frame(vif(port), frame, self.now);
        let sent = self.machine.take_sent();
        self.check_account();
        sent
    }

    /// Lets milliseconds pass, a tick each tenth of a second; what the node sends meanwhile.
    pub fn wait(&mut self, ms: u64) -> Vec<Sent> {
        let end = self.now + ms;
        while self.now < end {
            self.now = (self.now + 100).min(end);
            self.machine.tick(self.now);
        }
        self.check_account();
        self.machine.take_sent()
    }

    /// Every received packet has met exactly one fate.
    pub fn check_account(&self) {
        let account = self.machine.account();
        assert_eq!(account.unaccounted(self.machine.held()), 0, "{account:?}");
    }

    /// Packets dropped for a reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.machine.account().dropped[reason.index()]
    }

    /// All drops, by name: what a test expects is compared whole.
    pub fn all_drops(&self) -> Vec<(&'static str, u64)> {
        let account = self.machine.account();
        DropReason::all().iter().map(|r| (r.name(), account.dropped[r.index()])).filter(|(_, n)| *n > 0).collect()
    }
}

/// Octets from hexadecimal with blanks.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
