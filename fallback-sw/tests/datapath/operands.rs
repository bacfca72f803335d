//! What each flow has of its own, and what flows that are treated alike share.

use std::collections::BTreeSet;

use crate::common::{
    Node,
    packets::{Tunnelled, udp},
    walk_a::{CE1, CLIENT, LAN1, SERVER, from_client, only},
};

#[test]
fn thousands_of_flows_with_own_operands_share_few_programs() {
    const FLOWS: u16 = 4000;
    let mut node = Node::new(CE1);
    let mut own = BTreeSet::new();
    for sport in 1..=FLOWS {
        let frame = from_client(&udp(CLIENT, SERVER, sport, 9, b"payload").ip());
        let (_, sent) = only(node.receive(LAN1, &frame));
        let tunnelled = Tunnelled::read(sent.ip());
        own.insert((tunnelled.sport, tunnelled.outer.id));
    }
    assert_eq!(own.len(), usize::from(FLOWS), "each with its source port and identification");
    let programs: usize = node.machine.workers().iter().map(|worker| worker.programs().iter().count()).sum();
    // Two tunnels, and the way back to the client from each.
    assert!(programs <= 4, "{programs} programs");
}
