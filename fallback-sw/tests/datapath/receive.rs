//! Receive: who on this node gets a packet.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{Moved, answered, by_flow, punted, refused, walked},
    packets::{ACK, Frame, Mac, Packet, SYN, VRRP, echo_reply, echo_request, eth, icmp, plain, segment, syn, udp},
    walk_a::{altered, only},
};

const LAN: u32 = 4;
const HOST: u32 = 5;
const AGENT: u32 = 6;
const STATION: Mac = [0x02, 0, 0, 0, 0, 0xaa];
const HOST_MAC: Mac = [0x02, 0, 0, 0, 0, 0x05];
const HOST_STACK: Mac = [0x02, 0, 0, 0, 0, 0x55];
const AGENT_STACK: Mac = [0x02, 0, 0, 0, 0, 0x66];
const CLIENT: &str = "10.0.4.100";
const VIP: &str = "10.9.9.9";
const CLIENT6: &str = "2001:db8:4::100";
const VIP6: &str = "2001:db8:9::9";

const STATE: &str = r#"{
  "generation": "1",
  "vrfs": [{"id": 2}],
  "vifs": [
    {"id": 4, "name": "lan", "type": "VIRTUAL", "vrf": 2, "addresses": ["10.0.4.1/24", "2001:db8:4::1/64"], "flags": {"policy": true}},
    {"id": 5, "name": "host", "type": "HOST", "mac": "02:00:00:00:00:05", "vrf": 2, "nexthop": 34, "flags": {"policy": true}},
    {"id": 6, "name": "agent", "type": "AGENT", "mac": "02:00:00:00:00:06", "vrf": 2, "flags": {"policy": true}}
  ],
  "nexthops": [
    {"id": 104, "vrf": 2, "encap": {"oif": 4, "encapData": "0200000000aa 00005e000100 0800"}},
    {"id": 34, "vrf": 2, "encap": {"oif": 5, "encapData": "020000000055 020000000005 0800"}},
    {"id": 36, "vrf": 2, "encap": {"oif": 6, "encapData": "020000000066 020000000006 0800"}},
    {"id": 37, "drop": {}},
    {"id": 105, "vrf": 2, "resolve": {"oif": 4}},
    {"id": 20, "vrf": 2, "receive": {
      "listeners": [
        {"proto": 6, "firstPort": 179, "nexthop": 34},
        {"proto": 17, "firstPort": 1000, "lastPort": 2000, "nexthop": 36},
        {"proto": 17, "firstPort": 1500, "nexthop": 34},
        {"proto": 1, "firstPort": 13, "nexthop": 34},
        {"proto": 58, "firstPort": 200, "lastPort": 201, "nexthop": 34}
      ],
      "defaults": [{"proto": 17, "nexthop": 37}, {"proto": 132, "nexthop": 36}]}},
    {"id": 21, "vrf": 2, "receive": {"defaults": [{"proto": 1, "nexthop": 34}, {"proto": 6, "nexthop": 34}]}}
  ],
  "routes": [
    {"vrf": 2, "prefix": "10.0.4.100/32", "nexthop": 104},
    {"vrf": 2, "prefix": "2001:db8:4::100/128", "nexthop": 104},
    {"vrf": 2, "prefix": "10.0.4.1/32", "nexthop": 21},
    {"vrf": 2, "prefix": "2001:db8:4::/64", "nexthop": 105},
    {"vrf": 2, "prefix": "10.9.9.9/32", "nexthop": 20},
    {"vrf": 2, "prefix": "2001:db8:9::9/128", "nexthop": 20}
  ]
}"#;

fn lan(ip: &[u8]) -> Vec<u8> {
    eth(VRRP, STATION, ip)
}

#[test]
fn a_listener_is_found_exact_then_by_range_then_by_default() {
    let cases = [
        (1500, Some((HOST, HOST_STACK))),
        (1000, Some((AGENT, AGENT_STACK))),
        (1499, Some((AGENT, AGENT_STACK))),
        (1501, Some((AGENT, AGENT_STACK))),
        (2000, Some((AGENT, AGENT_STACK))),
        // The default of UDP is a Drop nexthop.
        (999, None),
        (2001, None),
    ];
    for (client, vip) in [(CLIENT, VIP), (CLIENT6, VIP6)] {
        for (port, expected) in cases {
            let mut node = Node::new(STATE);
            let frame = lan(&udp(client, vip, 7, port, b"x").ip());
            let Some((vif, mac)) = expected else {
                node.expect(LAN, &frame, &refused(DropReason::Discard));
                continue;
            };
            let (out, frame) = only(node.expect(LAN, &frame, &punted()));
            assert_eq!((out, frame.destination), (vif, mac), "port {port}");
        }
    }
}

#[test]
fn what_nobody_listens_for_is_dropped() {
    for (client, vip) in [(CLIENT, VIP), (CLIENT6, VIP6)] {
        let mut node = Node::new(STATE);
        for packet in [syn(client, vip, 7, 180), syn(client, vip, 7, 178), plain(client, vip, 47, &[0; 8])] {
            node.expect(LAN, &lan(&packet.ip()), &refused(DropReason::NoListener));
        }
        assert_eq!(node.flow_records(), 0);
        let (out, _) = only(node.expect(LAN, &lan(&syn(client, vip, 7, 179).ip()), &punted()));
        assert_eq!(out, HOST);
    }
}

#[test]
fn icmp_listens_by_type() {
    let mut node = Node::new(STATE);
    let (out, frame) = only(node.expect(LAN, &lan(&icmp(CLIENT, VIP, 13, 0, [0; 4], &[0; 12]).ip()), &punted()));
    assert_eq!((out, frame.ip().icmp()), (HOST, (13, 0)));
    node.expect(LAN, &lan(&icmp(CLIENT, VIP, 15, 0, [0; 4], &[]).ip()), &refused(DropReason::NoListener));
    let (out, frame) = only(node.expect(LAN, &lan(&icmp(CLIENT6, VIP6, 201, 0, [0; 4], &[]).ip()), &punted()));
    assert_eq!((out, frame.ip().icmp()), (HOST, (201, 0)));
    node.expect(LAN, &lan(&icmp(CLIENT6, VIP6, 202, 0, [0; 4], &[]).ip()), &refused(DropReason::NoListener));
}

#[test]
fn an_echo_without_a_listener_is_answered_in_place_without_a_flow() {
    for (client, vip, reply) in [(CLIENT, VIP, (0, 0)), (CLIENT6, VIP6, (129, 0))] {
        let mut node = Node::new(STATE);
        for seq in 0..3 {
            // Whatever its TTL: it is not forwarded (RFC 1812 §5.3.1).
            let (out, frame) =
                only(node.expect(LAN, &lan(&echo_request(client, vip, 9, seq).ttl(1).ip()), &answered()));
            let answer = frame.ip();
            assert_eq!((out, frame.destination, answer.icmp()), (LAN, STATION, reply));
            assert_eq!((answer.src.to_string().as_str(), answer.dst.to_string().as_str()), (vip, client));
            assert_eq!(answer.body[4..8], [0, 9, 0, seq as u8]);
        }
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn a_listener_takes_an_echo_before_the_node_answers_it() {
    let mut node = Node::new(STATE);
    let (out, frame) = only(node.expect(LAN, &lan(&echo_request(CLIENT, "10.0.4.1", 9, 1).ip()), &punted()));
    assert_eq!((out, frame.ip().icmp()), (HOST, (8, 0)));
}

#[test]
fn what_is_punted_arrives_as_it_was_sent_even_with_its_last_ttl() {
    // RFC 1812 §5.3.1: the TTL is of no interest to who is the destination. RFC 5082 §3 needs 255 to stay 255.
    let mut node = Node::new(STATE);
    for (ttl, port) in [(1, 10), (255, 11)] {
        let packet = syn(CLIENT, VIP, port, 179).ttl(ttl).ip();
        let (out, frame) = only(node.expect(LAN, &lan(&packet), &punted()));
        assert_eq!((out, frame.payload), (HOST, packet));
    }
    let later = segment(CLIENT, VIP, (11, 179), ACK, (1001, 1), b"x").ttl(255).ip();
    let hit = Moved { slow_path: 0, flow_hits: 1, ..punted() };
    let (_, frame) = only(node.expect(LAN, &lan(&later), &hit));
    assert_eq!(frame.payload, later);
    assert_eq!((node.vif_packets(LAN), node.vif_packets(HOST)), ((3, 0, 0), (0, 3, 0)));
}

#[test]
fn the_host_answers_by_the_flow_and_speaks_first_from_the_nodes_address() {
    let mut node = Node::new(STATE);
    only(node.expect(LAN, &lan(&udp(CLIENT, VIP, 7, 1500, b"x").ip()), &punted()));
    let answer = eth(HOST_MAC, HOST_STACK, &udp(VIP, CLIENT, 1500, 7, b"y").ip());
    let (out, frame) = only(node.expect(HOST, &answer, &by_flow()));
    assert_eq!((out, frame.destination, frame.source, frame.ip().ports()), (LAN, STATION, VRRP, (1500, 7)));

    let first = eth(HOST_MAC, HOST_STACK, &syn("10.0.4.1", CLIENT, 40000, 179).ip());
    let (out, frame) = only(node.expect(HOST, &first, &walked()));
    assert_eq!((out, frame.destination, frame.ip().ports()), (LAN, STATION, (40000, 179)));
    let answer = segment(CLIENT, "10.0.4.1", (179, 40000), SYN | ACK, (5, 1001), &[]).ip();
    let hit = Moved { slow_path: 0, flow_hits: 1, ..punted() };
    let (out, _) = only(node.expect(LAN, &lan(&answer), &hit));
    assert_eq!(out, HOST);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn nobody_but_the_host_may_use_the_nodes_addresses() {
    let mut node = Node::new(STATE);
    node.expect(LAN, &lan(&udp("10.0.4.1", CLIENT, 1, 2, b"x").ip()), &refused(DropReason::OwnSource));
    let foreign = eth(HOST_MAC, HOST_STACK, &udp(CLIENT, "10.0.4.1", 1, 2, b"x").ip());
    node.expect(HOST, &foreign, &refused(DropReason::InvalidSource));
}

#[test]
fn answers_to_the_host_go_back_to_it_without_a_listener() {
    // From an address with listeners for other things, and from a vif's own address.
    for (own, client) in [(VIP, CLIENT), ("2001:db8:4::1", CLIENT6)] {
        let mut node = Node::new(STATE);
        let hit = Moved { slow_path: 0, flow_hits: 1, ..punted() };
        let from_host = |packet: Packet| eth(HOST_MAC, HOST_STACK, &packet.ip());
        only(node.expect(HOST, &from_host(syn(own, client, 40000, 443)), &walked()));
        only(node.expect(HOST, &from_host(echo_request(own, client, 77, 1)), &walked()));
        let answers = [segment(client, own, (443, 40000), SYN | ACK, (5, 1001), &[]), echo_reply(client, own, 77, 1)];
        for answer in answers {
            let (out, frame) = only(node.expect(LAN, &lan(&answer.ip()), &hit));
            assert_eq!((out, frame.destination, frame.payload), (HOST, HOST_STACK, answer.ip()));
        }
        // What is no answer still needs a listener.
        let other = segment(client, own, (443, 40001), SYN | ACK, (5, 1001), &[]);
        node.expect(LAN, &lan(&other.ip()), &refused(DropReason::NoListener));
    }
}

#[test]
fn fragments_reach_the_host_in_fragments_that_fit_whatever_the_policy() {
    // The host's link takes 1300: a whole of 2008 came over links of 1500, and its sender can do no more than fragment it.
    let narrow = altered(STATE, &[("\"vrf\": 2, \"nexthop\": 34,", "\"vrf\": 2, \"nexthop\": 34, \"mtu\": 1300,")]);
    let without = narrow.replace(", \"flags\": {\"policy\": true}", "");
    for state in [&narrow, &without] {
        for (client, vip) in [(CLIENT, VIP), (CLIENT6, VIP6)] {
            let mut node = Node::new(state);
            let datagram = udp(client, vip, 7, 1500, &[9; 2000]);
            let mut sent = Vec::new();
            for (from, to) in [(0, 1000), (1000, 9999)] {
                sent.extend(node.receive(LAN, &lan(&datagram.part(from, to).ip())));
            }
            let mut data = 0;
            for piece in &sent {
                let (vif, frame) = (piece.meta.vif, Frame::read(piece.packet.data()));
                let ip = frame.ip();
                assert_eq!((vif, frame.destination), (crate::common::vif(HOST), HOST_STACK));
                assert!(ip.octets.len() <= 1300, "{} octets", ip.octets.len());
                data += ip.octets.len() - if client == CLIENT { 20 } else { 48 };
            }
            assert_eq!((sent.len(), data), (2, 2008), "{client}");
            assert_eq!(
                (node.all_drops(), node.machine.account().punted),
                (vec![], if state == &narrow { 2 } else { 1 })
            );
        }
    }
}
