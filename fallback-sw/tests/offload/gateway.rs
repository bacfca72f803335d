//! Flows in hardware that leave through gateways by address: software sees none of their packets.

use super::*;
use crate::common::{
    gateways::{arp, live, underlay_answer, underlay_gateways},
    packets::Mac,
};

const NEW_MAC: Mac = [2, 0, 0, 0, 0xfd, 0];

/// A flow in hardware, with the place of the gateway that it leaves through.
fn offloaded_behind_gateways() -> (Node, OffloadId, usize) {
    let mut node = Node::with(&underlay_gateways(), with_engine());
    live(&mut node, 500, [true, true]);
    let underlay = converse(&mut node, 1);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    (node, id, UNDERLAYS.iter().position(|id| *id == underlay).unwrap())
}

/// The way out of what is asked for again, once.
#[track_caller]
fn replaced(node: &mut Node, id: OffloadId) -> Direction {
    let (again, directions) = node.asked_install();
    assert_eq!(again, id);
    node.in_hardware(id);
    both(directions).0
}

#[test]
fn rules_move_to_the_other_gateway_within_seconds_and_come_back() {
    let (mut node, id, at) = offloaded_behind_gateways();
    live(&mut node, 60_000, [true, true]);
    node.asked_nothing();
    let mut alive = [true, true];
    alive[at] = false;
    live(&mut node, 7000, alive);
    assert_eq!(replaced(&mut node, id).egress_port, Some(vif(UNDERLAYS[1 - at])));
    live(&mut node, 40_000, alive);
    node.asked_nothing();
    live(&mut node, 9000, [true, true]);
    assert_eq!(replaced(&mut node, id).egress_port, Some(vif(UNDERLAYS[at])));
    assert_eq!(node.all_drops(), []);
}

#[test]
fn rules_follow_the_mac_of_their_gateway() {
    let (mut node, id, at) = offloaded_behind_gateways();
    let gateway = ["172.28.13.1", "172.28.14.1"][at];
    node.receive(UNDERLAYS[at], &arp(1, NEW_MAC, [0xff; 6], (gateway, NEW_MAC), (gateway, [0; 6])));
    let header = |direction: &Direction| {
        direction.program.forward().and_then(|forward| forward.l2).map(|header| header.bytes()[..6].to_vec())
    };
    assert_eq!(header(&replaced(&mut node, id)), Some(NEW_MAC.to_vec()));
    // Without a word as well: the new MAC answers the question to all.
    let other: Mac = [2, 0, 0, 0, 0xfc, 0];
    for _ in 0..80 {
        for sent in node.wait(100) {
            let is_for = |place: usize| sent.port == vif(UNDERLAYS[place]);
            match sent.packet.data() {
                octets if is_for(at) && octets.starts_with(&[0xff; 6]) => {
                    node.receive(UNDERLAYS[at], &underlay_answer(at, other));
                }
                _ if is_for(1 - at) => {
                    _ = node.receive(UNDERLAYS[1 - at], &underlay_answer(1 - at, [2, 0, 0, 0, 0xfe, 1 - at as u8]))
                }
                _ => {}
            }
        }
    }
    let asked = node.asked();
    let last = asked.iter().rev().find_map(|request| match request {
        Request::Install { directions, .. } => directions[0].as_ref().and_then(header),
        _ => None,
    });
    assert_eq!(last, Some(other.to_vec()));
    assert_eq!(node.all_drops(), []);
}
