//! What is in the flow tables, and packets out of walk A's tunnel.

use std::ops::Deref;

use fallback_sw::flow_table::{Record, Times};
use offload_rules::flow::{
    Decided,
    tcp::{TcpLetters, TcpState},
};

use super::{
    Node,
    packets::{Packet, entry, mpls_udp},
    walk_a::{LABEL1, TUNNEL1, TUNNEL2, UNDERLAYS, from_underlay},
};

/// Direction that made its pair: bit of a record's flags.
const INITIATOR: u8 = 1;

/// One direction of a flow: its record, and what is kept beside it.
#[derive(Debug, Clone, Copy)]
pub struct Direction {
    record: Record,
    pub times: Times,
    pub decided: Decided,
}

impl Deref for Direction {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// A frame with this packet out of CE1's tunnel, on an underlay vif.
pub fn out_of_tunnel_on(underlay: u32, inner: &Packet) -> Vec<u8> {
    let stack = [entry(LABEL1, 0, true, 63)];
    from_underlay(underlay, &mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &stack, &inner.ip()).ip())
}

/// The same on the first underlay vif.
pub fn out_of_tunnel(inner: &Packet) -> Vec<u8> {
    out_of_tunnel_on(UNDERLAYS[0], inner)
}

impl Node {
    /// All directions of flows of all workers.
    pub fn records(&self) -> Vec<Direction> {
        let mut records = Vec::new();
        for worker in self.machine.workers() {
            let flows = worker.flows();
            let mut at = 0;
            while let Some(slot) = flows.next_occupied(at) {
                let record = *flows.record(slot).unwrap();
                let decided = worker.programs().get(record.program).map_or(Decided::BY_NONE, |e| e.program.decided);
                records.push(Direction { record, times: flows.times(slot), decided });
                at = slot + 1;
            }
        }
        records
    }

    /// A flow's first direction, by its source port.
    #[track_caller]
    pub fn flow(&self, sport: u16) -> Direction {
        let found = self.records().into_iter().find(|r| r.key.sport == sport && r.flags & INITIATOR != 0);
        found.unwrap_or_else(|| panic!("no flow from port {sport}"))
    }

    /// Is there a flow from this port?
    pub fn has_flow(&self, sport: u16) -> bool {
        self.records().iter().any(|r| r.key.sport == sport && r.flags & INITIATOR != 0)
    }

    /// TCP's letters of a flow's first direction.
    #[track_caller]
    pub fn letters(&self, sport: u16) -> String {
        let this = self.flow(sport);
        let back = self.records().into_iter().find(|r| r.key.dport == sport && r.key.src == this.key.dst);
        let other = TcpState::from_bits(back.map_or(0, |record| record.tcp));
        TcpLetters { this: TcpState::from_bits(this.tcp), other }.to_string()
    }
}
