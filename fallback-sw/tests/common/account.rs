//! What one packet moved in the node's account.

use fallback_sw::{node::machine::Sent, worker::Account};
use offload_rules::{DropReason, VifId};

use super::Node;

/// The difference between two accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moved {
    pub received: u64,
    pub forwarded: u64,
    pub punted: u64,
    pub consumed: u64,
    pub originated: u64,
    pub flow_hits: u64,
    pub routed: u64,
    pub slow_path: u64,
    pub dropped: Vec<(&'static str, u64)>,
}

/// The first packet of a flow, or one that no flow is made for: forwarded by a walk.
pub fn walked() -> Moved {
    Moved { received: 1, forwarded: 1, slow_path: 1, ..Moved::default() }
}

/// Forwarded by its flow.
pub fn by_flow() -> Moved {
    Moved { received: 1, forwarded: 1, flow_hits: 1, ..Moved::default() }
}

/// Without a flow, forwarded as an earlier packet's walk said.
pub fn routed() -> Moved {
    Moved { received: 1, forwarded: 1, routed: 1, ..Moved::default() }
}

/// Handed to the host by a walk.
pub fn punted() -> Moved {
    Moved { received: 1, punted: 1, slow_path: 1, ..Moved::default() }
}

/// Answered by the node, after a walk.
pub fn answered() -> Moved {
    Moved { received: 1, consumed: 1, originated: 1, slow_path: 1, ..Moved::default() }
}

/// Dropped before it was decided on.
pub fn dropped(reason: DropReason) -> Moved {
    Moved { received: 1, dropped: vec![(reason.name(), 1)], ..Moved::default() }
}

/// Dropped by a walk.
pub fn refused(reason: DropReason) -> Moved {
    Moved { slow_path: 1, ..dropped(reason) }
}

/// Dropped by its flow.
pub fn dropped_by_flow(reason: DropReason) -> Moved {
    Moved { flow_hits: 1, ..dropped(reason) }
}

impl Moved {
    /// The node has made this many packets because of it.
    #[must_use]
    pub fn and_made(self, originated: u64) -> Self {
        Self { originated, ..self }
    }

    fn between(before: &Account, after: &Account) -> Self {
        let dropped = DropReason::all()
            .iter()
            .map(|r| (r.name(), after.dropped[r.index()] - before.dropped[r.index()]))
            .filter(|(_, n)| *n > 0)
            .collect();
        assert_eq!(before.originated_dropped, after.originated_dropped, "a packet of the node's own went nowhere");
        Self {
            received: after.received - before.received,
            forwarded: after.forwarded - before.forwarded,
            punted: after.punted - before.punted,
            consumed: after.consumed - before.consumed,
            originated: after.originated - before.originated,
            flow_hits: after.flow_hits - before.flow_hits,
            routed: after.routed - before.routed,
            slow_path: after.slow_path - before.slow_path,
            dropped,
        }
    }
}

impl Node {
    /// Receives a frame; what the node sends because of it, after a look at exactly what moved.
    #[track_caller]
    pub fn expect(&mut self, port: u32, frame: &[u8], expected: &Moved) -> Vec<Sent> {
        let before = self.machine.counters().0.account;
        let sent = self.receive(port, frame);
        let after = self.machine.counters().0.account;
        assert_eq!(Moved::between(&before, &after), *expected);
        assert_eq!(
            sent.len() as u64,
            expected.forwarded + expected.punted + expected.originated,
            "frames sent: {sent:?}"
        );
        sent
    }

    /// Packets received and sent on a vif so far, and received there and dropped.
    pub fn vif_packets(&self, id: u32) -> (u64, u64, u64) {
        let counters = self.machine.counters().0.of_vif(VifId::new(id).unwrap());
        (counters.rx_packets, counters.tx_packets, counters.drops)
    }
}
