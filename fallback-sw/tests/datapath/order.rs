//! The order of work: one flow lookup for a packet whose vif or nexthop has Policy, a walk for each that has none.

use crate::common::{
    Node,
    account::{by_flow, walked},
    packets::{entry, mpls_udp, udp},
    walk_a::{CE1, CE2, CLIENT, LABEL2, LAN1, SERVER, TUNNEL1, TUNNEL2, UNDERLAYS, from_client, from_underlay},
};

#[test]
fn every_packet_of_a_flow_is_looked_up_once_and_only_the_first_walks() {
    let mut node = Node::new(CE1);
    let frame = from_client(&udp(CLIENT, SERVER, 1, 2, b"x").ip());
    node.expect(LAN1, &frame, &walked());
    for _ in 0..10 {
        node.expect(LAN1, &frame, &by_flow());
    }
}

#[test]
fn a_label_whose_nexthop_has_no_policy_walks_each_time_and_makes_no_flow() {
    let tunnelled =
        mpls_udp(TUNNEL1, TUNNEL2, (50000, 6635), &[entry(LABEL2, 0, true, 63)], &udp(CLIENT, SERVER, 1, 2, b"x").ip());
    let frame = from_underlay(UNDERLAYS[0], &tunnelled.ip());

    let mut node = Node::altered(CE2, &[("\"id\": 513, \"policy\": true", "\"id\": 513")]);
    for _ in 0..3 {
        node.expect(UNDERLAYS[0], &frame, &walked());
    }
    assert_eq!(node.flow_records(), 0);

    let mut node = Node::new(CE2);
    node.expect(UNDERLAYS[0], &frame, &walked());
    node.expect(UNDERLAYS[0], &frame, &by_flow());
    assert_eq!(node.flow_records(), 2);
}
