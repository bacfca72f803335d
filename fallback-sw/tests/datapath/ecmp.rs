//! Equal-cost multipath: shares, and which flows move when a member comes or goes.

use std::collections::BTreeMap;

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{by_flow, refused, walked},
    packets::udp,
    vif,
    walk_a::{CE1, CLIENT, CLIENT6, LAN1, SERVER, SERVER6, UNDERLAYS, from_client, only},
};

const FLOWS: u16 = 200;

fn way_of(node: &mut Node, flow: u16) -> u32 {
    let (client, server) = if flow.is_multiple_of(2) { (CLIENT, SERVER) } else { (CLIENT6, SERVER6) };
    // The account is looked at when all have passed.
    let frame = from_client(&udp(client, server, 1000 + flow, 53, b"x").ip());
    node.machine.receive_frame(vif(LAN1), &frame, node.now);
    only(node.machine.take_sent()).0
}

fn ways(node: &mut Node) -> Vec<u32> {
    (0..FLOWS).map(|flow| way_of(node, flow)).collect()
}

#[test]
fn flows_are_shared_out_by_weight_within_two_per_cent() {
    const MANY: u16 = 5000;
    for (weights, share) in [("100 100", 0.5), ("100 300", 0.25), ("9 1", 0.9)] {
        let (first, second) = weights.split_once(' ').unwrap();
        let mut node = Node::altered(
            CE1,
            &[(
                r#"{"nexthop": 85, "weight": 100}, {"nexthop": 86, "weight": 100}"#,
                &format!(r#"{{"nexthop": 85, "weight": {first}}}, {{"nexthop": 86, "weight": {second}}}"#),
            )],
        );
        let first = (0..MANY).filter(|flow| way_of(&mut node, *flow) == UNDERLAYS[0]).count();
        let got = first as f64 / f64::from(MANY);
        assert!((got - share).abs() < 0.02, "weights {weights}: {got}");
        node.check_account();
        assert_eq!(node.all_drops(), []);
    }
}

#[test]
fn a_flow_stays_with_its_member() {
    let mut node = Node::new(CE1);
    let first = ways(&mut node);
    for _ in 0..3 {
        assert_eq!(ways(&mut node), first);
    }
    assert!(UNDERLAYS.iter().all(|vif| first.contains(vif)));
}

#[test]
fn all_fragments_of_a_datagram_take_the_member_of_its_flow() {
    let mut node = Node::new(CE1);
    for flow in 0..40u16 {
        let (client, server) = if flow.is_multiple_of(2) { (CLIENT, SERVER) } else { (CLIENT6, SERVER6) };
        let whole = udp(client, server, 1000 + flow, 53, &[7; 100]).id(flow);
        let way = only(node.receive(LAN1, &from_client(&whole.ip()))).0;
        for (from, to) in [(0, 48), (48, 80), (80, 108)] {
            let (out, _) = only(node.receive(LAN1, &from_client(&whole.part(from, to).ip())));
            assert_eq!(out, way, "flow {flow}, octets {from}..{to}");
        }
    }
    assert_eq!(node.all_drops(), []);
    assert_eq!(node.flow_records(), 80);
}

/// A member is lost and returns: its flows move and come back, the others do not notice.
fn lost_and_returned(lose: impl Fn(&mut Node), restore: impl Fn(&mut Node)) {
    let mut node = Node::new(CE1);
    let before = ways(&mut node);
    lose(&mut node);
    assert_eq!(ways(&mut node), vec![UNDERLAYS[1]; usize::from(FLOWS)]);
    restore(&mut node);
    assert_eq!(ways(&mut node), before);
    assert_eq!(node.all_drops(), []);
    assert_eq!(node.flow_records(), 2 * u32::from(FLOWS));
}

#[test]
fn when_an_interface_goes_down_its_flows_move_and_come_back_with_it() {
    let set = |up| move |node: &mut Node| node.machine.set_up(vif(UNDERLAYS[0]), up, node.now);
    lost_and_returned(set(false), set(true));
}

fn composite(members: &str) -> String {
    format!(r#"{{"nexthops": [{{"id": 532, "vrf": 8, "composite": {{"members": [{members}]}}}}]}}"#)
}

#[test]
fn when_a_slot_becomes_a_hole_its_flows_move_and_come_back_with_it() {
    let hole = composite(r#"{"nexthop": 0}, {"nexthop": 86, "weight": 100}"#);
    let both = composite(r#"{"nexthop": 85, "weight": 100}, {"nexthop": 86, "weight": 100}"#);
    lost_and_returned(|node| node.change(&hole), |node| node.change(&both));
}

#[test]
fn when_a_member_is_not_valid_its_flows_move_and_come_back_with_it() {
    let set = |invalid: bool| {
        move |node: &mut Node| {
            node.change(&format!(
                r#"{{"nexthops": [{{"id": 85, "vrf": 8, "invalid": {invalid},
                    "encap": {{"oif": 4111, "encapData": "0200000000fe 020000004111 0800"}}}}]}}"#
            ));
        }
    };
    lost_and_returned(set(true), set(false));
}

#[test]
fn a_lost_member_of_four_moves_only_its_flows_to_all_the_others() {
    let vifs: Vec<String> =
        (201..=204).map(|id| format!(r#"{{"id": {id}, "name": "u{id}", "type": "VIRTUAL", "vrf": 8}}, "#)).collect();
    let encaps: Vec<String> = (201..=204)
        .map(|id| {
            format!(
                r#"{{"id": {id}, "vrf": 8, "encap": {{"oif": {id}, "encapData": "0200000000fe 00005e000100 0800"}}}}, "#
            )
        })
        .collect();
    let members: Vec<String> = (201..=204).map(|id| format!(r#"{{"nexthop": {id}}}"#)).collect();
    let mut node = Node::altered(
        CE1,
        &[
            ("\"vifs\": [", &format!("\"vifs\": [{}", vifs.concat())),
            ("\"nexthops\": [", &format!("\"nexthops\": [{}", encaps.concat())),
            (r#"{"nexthop": 85, "weight": 100}, {"nexthop": 86, "weight": 100}"#, &members.join(", ")),
        ],
    );
    let before = ways(&mut node);
    node.machine.set_up(vif(203), false, node.now);
    let after = ways(&mut node);
    let mut moved = BTreeMap::new();
    for (before, after) in before.iter().zip(&after) {
        if *before == 203 {
            *moved.entry(*after).or_insert(0) += 1;
        } else {
            assert_eq!(before, after);
        }
    }
    assert_eq!(moved.keys().copied().collect::<Vec<_>>(), [201, 202, 204]);
    // Flows that begin while it is away choose among the others, and stay there.
    let born: Vec<u32> = (FLOWS..2 * FLOWS).map(|flow| way_of(&mut node, flow)).collect();
    assert!(!born.contains(&203));
    node.machine.set_up(vif(203), true, node.now);
    assert_eq!(ways(&mut node), before);
    assert_eq!((FLOWS..2 * FLOWS).map(|flow| way_of(&mut node, flow)).collect::<Vec<_>>(), born);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn without_a_usable_member_it_is_an_invalid_nh_until_one_returns() {
    let mut node = Node::new(CE1);
    let frame = from_client(&udp(CLIENT, SERVER, 1, 2, b"x").ip());
    only(node.expect(LAN1, &frame, &walked()));
    for id in UNDERLAYS {
        node.machine.set_up(vif(id), false, node.now);
    }
    for _ in 0..2 {
        node.expect(LAN1, &frame, &refused(DropReason::InvalidNh));
    }
    node.machine.set_up(vif(UNDERLAYS[1]), true, node.now);
    assert_eq!(only(node.expect(LAN1, &frame, &walked())).0, UNDERLAYS[1]);
    only(node.expect(LAN1, &frame, &by_flow()));
}

#[test]
fn a_composite_of_holes_is_an_invalid_nh() {
    let mut node = Node::new(CE1);
    node.change(&composite(r#"{"nexthop": 0}, {"nexthop": 0}"#));
    node.expect(LAN1, &from_client(&udp(CLIENT, SERVER, 1, 2, b"x").ip()), &refused(DropReason::InvalidNh));
}
