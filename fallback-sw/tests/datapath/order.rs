//! The order of work: one flow lookup for a packet whose vif or nexthop has Policy, a walk for each that has none. The order of
//! checks (RFC 1812 §5.2.1.2): lists, TTL, size, then the neighbour.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{Moved, by_flow, dropped_by_flow, refused, routed, walked},
    packets::{Ip, Packet, echo_request, entry, mpls_udp, syn, udp},
    walk_a::{
        CE1, CE2, CLIENT, CLIENT6, GATEWAY1, GATEWAY1_6, LABEL1, LABEL2, LAN1, SERVER, SERVER6, TUNNEL1, TUNNEL2,
        UNDERLAYS, from_client, from_underlay, only,
    },
};

/// Neighbours of the client that nobody has resolved.
const HOST: &str = "192.168.100.7";
const HOST6: &str = "2001:db8:100::7";

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
fn a_label_whose_nexthop_has_no_policy_makes_no_flow() {
    let tunnelled =
        mpls_udp(TUNNEL1, TUNNEL2, (50000, 6635), &[entry(LABEL2, 0, true, 63)], &udp(CLIENT, SERVER, 1, 2, b"x").ip());
    let frame = from_underlay(UNDERLAYS[0], &tunnelled.ip());

    let mut node = Node::altered(CE2, &[("\"id\": 513, \"policy\": true", "\"id\": 513")]);
    for moved in [walked(), routed(), routed()] {
        node.expect(UNDERLAYS[0], &frame, &moved);
    }
    assert_eq!(node.flow_records(), 0);

    let mut node = Node::new(CE2);
    node.expect(UNDERLAYS[0], &frame, &walked());
    node.expect(UNDERLAYS[0], &frame, &by_flow());
    assert_eq!(node.flow_records(), 2);
}

/// CE1 whose LAN has these fields, flags and an MTU of 1,400; the lists 1 and 2 deny everything, 3 denies UDP and TCP to port 53.
fn ce1(policy: bool, fields: &str, also: &[(&str, &str)]) -> Node {
    let lan = "\"vrf\": 18, \"flags\": {\"policy\": true},";
    let with = format!("\"vrf\": 18, \"mtu\": 1400, \"flags\": {{\"policy\": {policy}}}, {fields}");
    let port = r#""destinationPorts": {"first": 53, "last": 53}"#;
    let lists = format!(
        r#""acls": [{{"id": 1, "defaultAction": "DENY"}}, {{"id": 2, "defaultAction": "DENY"}},
             {{"id": 3, "entries": [{{"id": 1, "action": "DENY", "proto": 17, {port}}}, {{"id": 2, "action": "DENY", "proto": 6, {port}}}]}}],
           "labels": ["#
    );
    let mut changes = vec![(lan, with.as_str()), ("\"labels\": [", lists.as_str())];
    changes.extend(also);
    Node::altered(CE1, &changes)
}

/// What a tenant packet from the other edge is on the underlay.
fn down(packet: &Packet) -> Vec<u8> {
    let stack = [entry(LABEL1, 0, true, 63)];
    from_underlay(UNDERLAYS[0], &mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &stack, &packet.ip()).ip())
}

fn up(packet: &Packet) -> Vec<u8> {
    from_client(&packet.ip())
}

/// A node sends nothing at once and nothing while a neighbour that was asked for would be given up.
#[track_caller]
fn stays_silent(node: &mut Node, port: u32, frame: &[u8], moved: &Moved) {
    assert_eq!(node.expect(port, frame, moved).len(), 0);
    assert_eq!(node.machine.held(), 0);
    assert_eq!(node.wait(4000).len(), 0, "neither a question nor an answer");
}

#[test]
fn a_denied_packet_asks_for_no_neighbour_and_is_not_answered() {
    for (client, server, host) in [(CLIENT, SERVER, HOST), (CLIENT6, SERVER6, HOST6)] {
        for packet in [udp(client, host, 1, 53, b"x"), syn(client, host, 1, 53), echo_request(client, host, 1, 1)] {
            // By the list of the way in, and of the way out; with a flow for the denial and without.
            for list in ["\"ingressAcls\": [1],", "\"egressAcls\": [2],"] {
                let mut node = ce1(true, list, &[]);
                stays_silent(&mut node, LAN1, &up(&packet), &refused(DropReason::PolicyDeny));
                assert_eq!(node.flow_records(), 1, "the denial is remembered");
                stays_silent(&mut node, LAN1, &up(&packet), &dropped_by_flow(DropReason::FlowActionDrop));
                let mut node = ce1(false, list, &[]);
                stays_silent(&mut node, LAN1, &up(&packet), &refused(DropReason::PolicyDeny));
            }
        }
        // Out of a tunnel, toward a vif whose list denies it.
        for label_policy in ["true", "false"] {
            let label = (r#""id": 513, "policy": true"#, format!(r#""id": 513, "policy": {label_policy}"#));
            let mut node = ce1(true, "\"egressAcls\": [3],", &[(label.0, &label.1)]);
            stays_silent(
                &mut node,
                UNDERLAYS[0],
                &down(&udp(server, host, 1, 53, b"x")),
                &refused(DropReason::PolicyDeny),
            );
            // What is permitted asks.
            assert_eq!(node.receive(UNDERLAYS[0], &down(&udp(server, host, 1, 54, b"x"))).len(), 1);
            assert_eq!(node.machine.held(), 1);
        }
    }
}

/// The error says what it has to, and nobody was asked for.
#[track_caller]
fn is_error(error: &Ip, icmp: (u8, u8), from: &str, mtu: Option<u16>) {
    assert_eq!((error.icmp(), error.src.to_string().as_str()), (icmp, from));
    if let Some(mtu) = mtu {
        assert_eq!(error.body[6..8], mtu.to_be_bytes());
    }
}

#[test]
fn ttl_and_size_are_answered_before_the_neighbour_is_asked_for() {
    for (client, host, gateway, exceeded, too_big) in
        [(CLIENT, HOST, GATEWAY1, (11, 0), (3, 4)), (CLIENT6, HOST6, GATEWAY1_6, (3, 0), (2, 0))]
    {
        for policy in [true, false] {
            let mut node = ce1(policy, "", &[]);
            let old = up(&udp(client, host, 1, 2, b"x").ttl(1));
            let large = up(&udp(client, host, 1, 2, &[7; 1400]).df());
            for (frame, reason, icmp, mtu) in
                [(old, DropReason::TtlExceeded, exceeded, None), (large, DropReason::PacketTooBig, too_big, Some(1400))]
            {
                let (port, frame) = only(node.expect(LAN1, &frame, &refused(reason).and_made(1)));
                assert_eq!(port, LAN1);
                is_error(&frame.ip(), icmp, gateway, mtu);
                assert_eq!((node.machine.held(), node.wait(4000).len()), (0, 0));
            }
            // TTL comes before size.
            let both = up(&udp(client, host, 1, 2, &[7; 1400]).df().ttl(1));
            let (_, frame) = only(node.expect(LAN1, &both, &refused(DropReason::TtlExceeded).and_made(1)));
            is_error(&frame.ip(), exceeded, gateway, None);
            // The list comes before both.
            let mut node = ce1(policy, "\"ingressAcls\": [1],", &[]);
            stays_silent(&mut node, LAN1, &both, &refused(DropReason::PolicyDeny));
        }
    }
}

#[test]
fn a_large_packet_that_may_be_fragmented_waits_for_its_neighbour() {
    let mut node = ce1(true, "", &[]);
    node.receive(LAN1, &up(&udp(CLIENT, HOST, 1, 2, &[7; 1400])));
    assert_eq!((node.machine.held(), node.all_drops()), (1, vec![]));
}

#[test]
fn the_checks_come_before_the_neighbour_of_a_tunnels_underlay_too() {
    let direct = [
        (
            r#"{"id": 85, "vrf": 8, "encap": {"oif": 4111, "encapData": "0200000000fe 020000004111 0800"}}"#,
            r#"{"id": 85, "vrf": 8, "resolve": {"oif": 4111}}"#,
        ),
        (r#""directNexthop": 532"#, r#""directNexthop": 85"#),
    ];
    for (client, server, gateway, exceeded, too_big) in
        [(CLIENT, SERVER, GATEWAY1, (11, 0), (3, 4)), (CLIENT6, SERVER6, GATEWAY1_6, (3, 0), (2, 0))]
    {
        for policy in [true, false] {
            let mut node = ce1(policy, "\"ingressAcls\": [3],", &direct);
            stays_silent(&mut node, LAN1, &up(&udp(client, server, 1, 53, b"x")), &refused(DropReason::PolicyDeny));
            let old = up(&udp(client, server, 1, 2, b"x").ttl(1));
            let (port, frame) = only(node.expect(LAN1, &old, &refused(DropReason::TtlExceeded).and_made(1)));
            assert_eq!(port, LAN1);
            is_error(&frame.ip(), exceeded, gateway, None);
            // 1,500 less 32 octets of MPLS over UDP.
            let large = up(&udp(client, server, 1, 2, &[7; 1441]).df());
            let (_, frame) = only(node.expect(LAN1, &large, &refused(DropReason::PacketTooBig).and_made(1)));
            is_error(&frame.ip(), too_big, gateway, Some(1468));
            assert_eq!((node.machine.held(), node.wait(4000).len()), (0, 0));
            // What passes asks for the tunnel's end.
            let (port, _) = only(node.receive(LAN1, &up(&udp(client, server, 1, 2, b"x"))));
            assert_eq!((port, node.machine.held()), (UNDERLAYS[0], 1));
        }
    }
}

#[test]
fn on_a_vif_without_arp_the_checks_come_first_too() {
    let no_arp = [("\"flags\": {\"policy\": true}", "\"flags\": {\"policy\": true, \"noArp\": true}")];
    let mut node = ce1(true, "\"ingressAcls\": [3],", &no_arp);
    stays_silent(&mut node, LAN1, &up(&udp(CLIENT, HOST, 1, 53, b"x")), &refused(DropReason::PolicyDeny));
    let old = up(&udp(CLIENT, HOST, 1, 2, b"x").ttl(1));
    let (_, frame) = only(node.expect(LAN1, &old, &refused(DropReason::TtlExceeded).and_made(1)));
    is_error(&frame.ip(), (11, 0), GATEWAY1, None);
    stays_silent(&mut node, LAN1, &up(&udp(CLIENT, HOST, 1, 2, b"x")), &refused(DropReason::NeighbourUnresolved));
}

#[test]
fn held_packets_are_judged_by_the_lists_in_force_on_resolution() {
    let mut node = ce1(true, "\"ingressAcls\": [3],", &[]);
    node.receive(LAN1, &up(&udp(CLIENT, HOST, 1, 2, b"x")));
    assert_eq!(node.machine.held(), 1);
    node.change(r#"{"acls": [{"id": 3, "defaultAction": "DENY"}]}"#);
    node.receive(LAN1, &super::neighbours::i_have([0x00, 0x0c, 0x29, 0, 0, 7], HOST));
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Policy Deny", 1)]));
}

#[test]
fn a_flow_whose_neighbour_is_gone_is_judged_before_it_waits() {
    let mac = [0x00, 0x0c, 0x29, 0, 0, 7];
    let mut node = ce1(true, "\"ingressAcls\": [3],", &[]);
    let packet = udp(CLIENT, HOST, 1, 2, b"x");
    node.receive(LAN1, &up(&packet));
    assert_eq!(node.receive(LAN1, &super::neighbours::i_have(mac, HOST)).len(), 1);
    // The neighbour falls silent and is forgotten; its flow stays.
    node.wait(34_000);
    let old = up(&packet.clone().ttl(1));
    let (port, frame) = only(node.receive(LAN1, &old));
    assert_eq!(port, LAN1);
    is_error(&frame.ip(), (11, 0), GATEWAY1, None);
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("TTL Exceeded", 1)]));
    node.change(r#"{"acls": [{"id": 3, "defaultAction": "DENY"}]}"#);
    assert_eq!(node.receive(LAN1, &up(&packet)).len(), 0);
    assert_eq!(node.wait(4000).len(), 0);
    assert_eq!(node.all_drops(), [("TTL Exceeded", 1), ("Flow Action Drop", 1)]);
}
