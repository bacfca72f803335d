//! Packets without flows that go by a decision that is kept: the same packets come out as from a walk for each, and only that is faster.

mod flows;
mod property;
mod world;

use offload_rules::{DropReason, VrfId};

use crate::common::{
    Node,
    account::{refused, routed, walked},
    packets::{echo_request, eth, udp},
    vif,
    walk_a::only,
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// A router: 10.0.0.0/8 behind LAN 1, where packets come in; LAN 2 with a connected subnet, and a router for 100.0.0.0/8 on it.
const ROUTER: &str = r#"{"generation": "1", "node": "re",
  "vrfs": [{"id": 2, "name": "transit"}, {"id": 3, "name": "other"}],
  "vifs": [
    {"id": 1, "name": "lan1", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "addresses": ["172.16.0.1/24"]},
    {"id": 2, "name": "lan2", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "addresses": ["172.17.0.1/16"]},
    {"id": 5, "name": "lan5", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 3, "addresses": ["172.18.0.1/16"]}],
  "nexthops": [
    {"id": 10, "vrf": 2, "encap": {"oif": 1, "encapData": "020000000010 020000000001 0800"}},
    {"id": 11, "vrf": 2, "encap": {"oif": 2, "encapData": "020000000020 020000000001 0800"}},
    {"id": 12, "vrf": 2, "resolve": {"oif": 2}},
    {"id": 13, "vrf": 3, "resolve": {"oif": 5}},
    {"id": 14, "vrf": 3, "encap": {"oif": 5, "encapData": "020000000050 020000000001 0800"}}],
  "routes": [
    {"vrf": 2, "prefix": "10.0.0.0/8", "nexthop": 10},
    {"vrf": 2, "prefix": "100.0.0.0/8", "nexthop": 11},
    {"vrf": 2, "prefix": "172.17.0.0/16", "nexthop": 12},
    {"vrf": 3, "prefix": "172.18.0.0/16", "nexthop": 13},
    {"vrf": 3, "prefix": "100.0.0.0/8", "nexthop": 14}]}"#;

fn to(destination: &str) -> Vec<u8> {
    eth(MAC, STATION, &udp("10.0.0.1", destination, 1024, 80, b"x").ip())
}

/// Where the only frame was sent, and to whom.
fn mac_of(sent: Vec<fallback_sw::node::machine::Sent>) -> (u32, [u8; 6]) {
    let (port, frame) = only(sent);
    (port, frame.destination)
}

/// Makes the node learn a station of LAN 2.
fn learn(node: &mut Node, address: &str, mac: [u8; 6]) {
    let told = crate::neighbours::arp_octets(1, (mac, address), ([0; 6], "172.17.0.1"));
    node.receive(2, &crate::neighbours::arp_frame([0xff; 6], mac, None, &told));
}

fn kept(node: &Node) -> usize {
    node.machine.workers().iter().map(fallback_sw::worker::Worker::routed_len).sum()
}

#[test]
fn the_first_packet_is_walked_and_all_alike_are_routed() {
    let mut node = Node::new(ROUTER);
    node.expect(1, &to("100.1.2.3"), &walked());
    for destination in ["100.1.2.3", "100.9.9.9", "100.0.0.1"] {
        assert_eq!(mac_of(node.expect(1, &to(destination), &routed())), (2, [2, 0, 0, 0, 0, 0x20]));
    }
    let echo = eth(MAC, STATION, &echo_request("10.7.7.7", "100.1.2.3", 1, 1).ip());
    node.expect(1, &echo, &routed());
    let tiers = node.machine.counters().0.tiers[&VrfId::new(2).unwrap()];
    assert_eq!((tiers.routed.packets, tiers.slow_path.packets, tiers.software.packets), (4, 1, 0));
    assert_eq!(tiers.routed.bytes, 3 * to("100.1.2.3").len() as u64 + echo.len() as u64);
}

#[test]
fn a_scan_of_many_destinations_is_routed_and_keeps_no_more() {
    let mut node = Node::new(ROUTER);
    node.receive(1, &to("100.1.2.3"));
    let before = kept(&node);
    for n in 0..20_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x6400_0000 | n.wrapping_mul(0x9e37_79b1) >> 8);
        node.machine.receive_frame(vif(1), &to(&address.to_string()), node.now);
    }
    assert_eq!(node.machine.take_sent().len(), 20_000);
    let account = node.machine.account();
    assert_eq!((account.routed, account.slow_path), (20_000, 1));
    assert_eq!(kept(&node), before);
    node.check_account();
}

#[test]
fn a_longer_prefix_is_honoured_by_the_next_packet_and_its_end_too() {
    let mut node = Node::new(ROUTER);
    (0..2).for_each(|_| _ = node.receive(1, &to("100.1.2.3")));
    node.change(r#"{"routes": [{"vrf": 2, "prefix": "100.1.2.0/24", "nexthop": 10}]}"#);
    assert_eq!(mac_of(node.receive(1, &to("100.1.2.3"))), (1, [2, 0, 0, 0, 0, 0x10]));
    assert_eq!(mac_of(node.receive(1, &to("100.1.3.3"))), (2, [2, 0, 0, 0, 0, 0x20]));
    node.change(r#"{"removeRoutes": [{"vrf": 2, "prefix": "100.1.2.0/24"}]}"#);
    assert_eq!(mac_of(node.receive(1, &to("100.1.2.3"))), (2, [2, 0, 0, 0, 0, 0x20]));
    node.change(r#"{"removeRoutes": [{"vrf": 2, "prefix": "100.0.0.0/8"}]}"#);
    node.expect(1, &to("100.1.2.3"), &refused(DropReason::NoRoute));
}

#[test]
fn a_source_that_no_longer_leads_back_is_refused_at_once() {
    let mut node = Node::new(ROUTER);
    node.receive(1, &to("100.1.2.3"));
    node.expect(1, &to("100.1.2.3"), &routed());
    node.change(r#"{"routes": [{"vrf": 2, "prefix": "10.0.0.0/24", "nexthop": 11}]}"#);
    node.expect(1, &to("100.1.2.3"), &refused(DropReason::InvalidSource));
}

#[test]
fn a_new_mac_of_a_nexthop_or_a_neighbour_is_honoured_by_the_next_packet() {
    let mut node = Node::new(ROUTER);
    node.receive(1, &to("100.1.2.3"));
    node.change(
        r#"{"nexthops": [{"id": 11, "vrf": 2, "encap": {"oif": 2, "encapData": "020000000021 020000000001 0800"}}]}"#,
    );
    assert_eq!(mac_of(node.receive(1, &to("100.1.2.3"))), (2, [2, 0, 0, 0, 0, 0x21]));
    for mac in [[2, 0, 0, 0, 2, 1], [2, 0, 0, 0, 2, 2]] {
        learn(&mut node, "172.17.7.7", mac);
        for moved in [walked(), routed()] {
            assert_eq!(mac_of(node.expect(1, &to("172.17.7.7"), &moved)), (2, mac));
        }
    }
}

#[test]
fn stations_of_a_connected_subnet_are_kept_apart() {
    let mut node = Node::new(ROUTER);
    for n in 1..=9 {
        learn(&mut node, &format!("172.17.7.{n}"), [2, 0, 0, 0, 7, n]);
    }
    for moved in [walked(), routed()] {
        for n in 1..=9 {
            let sent = node.expect(1, &to(&format!("172.17.7.{n}")), &moved);
            assert_eq!(mac_of(sent), (2, [2, 0, 0, 0, 7, n]));
        }
    }
    node.expect(1, &to("172.17.255.255"), &refused(DropReason::McastUnsupported));
}

#[test]
fn ttl_and_size_are_answered_as_by_a_walk() {
    let mut node = Node::new(ROUTER);
    node.receive(1, &to("100.1.2.3"));
    let last = udp("10.0.0.1", "100.1.2.3", 1024, 80, b"x").ttl(1);
    let expected = crate::common::account::refused(DropReason::TtlExceeded).and_made(1);
    node.expect(1, &eth(MAC, STATION, &last.ip()), &expected);
    let large = udp("10.0.0.1", "100.1.2.3", 1024, 80, &[7; 2000]);
    let sent = node.expect(1, &eth(MAC, STATION, &large.ip()), &walked().and_made(1));
    assert_eq!(sent.len(), 2);
}

#[test]
fn a_vif_that_gets_a_list_is_judged_by_it_at_once() {
    let mut node = Node::new(ROUTER);
    node.receive(1, &to("100.1.2.3"));
    node.expect(1, &to("100.1.2.3"), &routed());
    node.change(
        r#"{"acls": [{"id": 1, "entries": [{"id": 7, "action": "DENY", "proto": 17, "destinationPorts": {"first": 80, "last": 80}}]}],
        "vifs": [{"id": 1, "name": "lan1", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "addresses": ["172.16.0.1/24"],
            "ingressAcls": [1]}]}"#,
    );
    node.expect(1, &to("100.1.2.3"), &refused(DropReason::PolicyDeny));
    let other = eth(MAC, STATION, &udp("10.0.0.1", "100.1.2.3", 1024, 443, b"x").ip());
    (0..2).for_each(|_| _ = node.expect(1, &other, &walked()));
}

#[test]
fn stale_decisions_leave_and_their_programs_with_them() {
    let mut node = Node::new(ROUTER);
    node.receive(1, &to("100.1.2.3"));
    assert!(kept(&node) > 0);
    node.change(
        r#"{"nexthops": [{"id": 11, "vrf": 2, "encap": {"oif": 2, "encapData": "020000000021 020000000001 0800"}}]}"#,
    );
    node.wait(1000);
    assert_eq!(kept(&node), 0);
    assert_eq!(node.machine.workers()[0].programs().iter().count(), 0);
    // What they have counted stays.
    assert_eq!(node.machine.counters().0.tiers[&VrfId::new(2).unwrap()].slow_path.packets, 1);
}
