//! The key: which packets make one pair.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{by_flow, dropped, refused, walked},
    packets::{
        ACK, Packet, SYN, echo_reply, echo_request, entry, icmp, icmp_error, mpls_udp, plain, sctp, segment, syn, udp,
    },
    walk_a::{
        CE1, CLIENT, CLIENT6, GATEWAY1, LABEL1, LAN1, SERVER, SERVER6, TUNNEL1, TUNNEL2, UNDERLAYS, from_client,
        from_underlay,
    },
};

/// From CE2's site to CE1, by the first underlay vif.
fn down(packet: &Packet) -> Vec<u8> {
    let tunnelled = mpls_udp(TUNNEL2, TUNNEL1, (50000, 6635), &[entry(LABEL1, 0, true, 63)], &packet.ip());
    from_underlay(UNDERLAYS[0], &tunnelled.ip())
}

fn up(packet: &Packet) -> Vec<u8> {
    from_client(&packet.ip())
}

/// The request makes a pair, the reply rides it, and so does the next request; each `other` makes a pair of its own.
fn one_pair(request: &Packet, reply: &Packet, others: &[Packet]) {
    let mut node = Node::new(CE1);
    node.expect(LAN1, &up(request), &walked());
    node.expect(UNDERLAYS[0], &down(reply), &by_flow());
    node.expect(LAN1, &up(request), &by_flow());
    assert_eq!(node.flow_records(), 2);
    for (i, other) in others.iter().enumerate() {
        node.expect(LAN1, &up(other), &walked());
        assert_eq!(node.flow_records() as usize, 4 + 2 * i, "{other:?}");
    }
}

#[test]
fn udp_is_told_apart_by_both_ports() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let packet = |sport, dport| udp(c, s, sport, dport, b"x");
        one_pair(&packet(1, 2), &udp(s, c, 2, 1, b"x"), &[packet(1, 3), packet(3, 2), packet(2, 1)]);
    }
}

#[test]
fn tcp_is_told_apart_by_both_ports() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut node = Node::new(CE1);
        node.expect(LAN1, &up(&syn(c, s, 1, 2)), &walked());
        node.expect(UNDERLAYS[0], &down(&segment(s, c, (2, 1), SYN | ACK, (7, 1001), &[])), &by_flow());
        node.expect(LAN1, &up(&segment(c, s, (1, 2), ACK, (1001, 8), &[])), &by_flow());
        node.expect(LAN1, &up(&syn(c, s, 1, 3)), &walked());
        node.expect(LAN1, &up(&syn(c, s, 3, 2)), &walked());
        assert_eq!(node.flow_records(), 6);
    }
}

#[test]
fn sctp_is_told_apart_by_both_ports() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        one_pair(&sctp(c, s, 1, 2), &sctp(s, c, 2, 1), &[sctp(c, s, 1, 3), sctp(c, s, 3, 2)]);
    }
}

#[test]
fn echo_request_and_reply_are_one_pair_told_apart_by_the_identifier() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        one_pair(&echo_request(c, s, 77, 1), &echo_reply(s, c, 77, 1), &[echo_request(c, s, 78, 1)]);
        // The sequence number is no part of it.
        let mut node = Node::new(CE1);
        node.expect(LAN1, &up(&echo_request(c, s, 77, 1)), &walked());
        node.expect(LAN1, &up(&echo_request(c, s, 77, 2)), &by_flow());
    }
}

#[test]
fn other_icmp_is_told_apart_by_its_type_and_by_nothing_else() {
    // Timestamp request and reply; the identifier is no part of the key.
    let stamp = |id: u8| icmp(CLIENT, SERVER, 13, 0, [0, id, 0, 0], &[0; 12]);
    let mut node = Node::new(CE1);
    node.expect(LAN1, &up(&stamp(1)), &walked());
    node.expect(LAN1, &up(&stamp(2)), &by_flow());
    node.expect(LAN1, &up(&icmp(CLIENT, SERVER, 15, 0, [0; 4], &[])), &walked());
    assert_eq!(node.flow_records(), 4);
}

#[test]
fn other_protocols_are_told_apart_by_addresses_alone() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let gre = |src, dst, first| plain(src, dst, 47, &[first, 1, 2, 3, 4, 5, 6, 7]);
        one_pair(&gre(c, s, 0), &gre(s, c, 9), &[plain(c, s, 50, &[0; 16])]);
        let mut node = Node::new(CE1);
        node.expect(LAN1, &up(&gre(c, s, 0)), &walked());
        node.expect(LAN1, &up(&gre(c, s, 0xff)), &by_flow());
    }
}

/// All ICMP and ICMPv6 error types.
fn errors(v6: bool) -> &'static [(u8, u8)] {
    if v6 {
        &[(1, 4), (2, 0), (3, 0), (4, 1), (100, 0), (127, 0)]
    } else {
        &[(3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)]
    }
}

#[test]
fn an_error_rides_the_flow_of_the_packet_that_it_quotes() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        for (kind, code) in errors(c.contains(':')) {
            for sent in [
                udp(c, s, 1, 2, b"x"),
                syn(c, s, 1, 2),
                sctp(c, s, 1, 2),
                echo_request(c, s, 9, 1),
                plain(c, s, 47, &[0; 8]),
            ] {
                let mut node = Node::new(CE1);
                node.expect(LAN1, &up(&sent), &walked());
                let error = icmp_error(s, c, *kind, *code, &sent.clone().ttl(60).ip());
                node.expect(UNDERLAYS[0], &down(&error), &by_flow());
                // No flow of its own.
                assert_eq!(node.flow_records(), 2, "{sent:?} {kind}");
            }
        }
    }
}

#[test]
fn an_error_of_the_initiators_site_rides_the_other_direction() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut node = Node::new(CE1);
        node.expect(LAN1, &up(&udp(c, s, 1, 2, b"x")), &walked());
        let reply = udp(s, c, 2, 1, b"x");
        node.expect(UNDERLAYS[0], &down(&reply), &by_flow());
        let kind = if c.contains(':') { 1 } else { 3 };
        node.expect(LAN1, &up(&icmp_error(c, s, kind, 3, &reply.ip())), &by_flow());
        assert_eq!(node.flow_records(), 2);
    }
}

#[test]
fn an_error_that_matches_no_flow_is_dropped_and_makes_none() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        for (kind, code) in errors(c.contains(':')) {
            let mut node = Node::new(CE1);
            let error = icmp_error(s, c, *kind, *code, &udp(c, s, 1, 2, b"x").ip());
            node.expect(UNDERLAYS[0], &down(&error), &refused(DropReason::IcmpErrorUnmatched));
            assert_eq!(node.flow_records(), 0);
        }
    }
}

#[test]
fn an_error_about_another_hosts_packet_rides_nothing() {
    let mut node = Node::new(CE1);
    let sent = udp(CLIENT, SERVER, 1, 2, b"x");
    node.expect(LAN1, &up(&sent), &walked());
    // To the client's neighbour, about the client's packet.
    let error = icmp_error(SERVER, "192.168.100.101", 3, 3, &sent.ip());
    node.expect(UNDERLAYS[0], &down(&error), &dropped(DropReason::IcmpErrorUnmatched));
}

#[test]
fn an_error_about_an_error_is_dropped() {
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut node = Node::new(CE1);
        let sent = udp(c, s, 1, 2, b"x");
        node.expect(LAN1, &up(&sent), &walked());
        let kind = if c.contains(':') { 1 } else { 3 };
        let error = icmp_error(c, s, kind, 3, &udp(s, c, 2, 1, b"x").ip());
        let about_it = icmp_error(s, c, kind, 3, &error.ip());
        node.expect(UNDERLAYS[0], &down(&about_it), &dropped(DropReason::IcmpErrorUnmatched));
        assert_eq!(node.flow_records(), 2);
    }
}

#[test]
fn an_error_with_a_wrong_checksum_is_dropped() {
    let mut node = Node::new(CE1);
    let sent = udp(CLIENT, SERVER, 1, 2, b"x");
    node.expect(LAN1, &up(&sent), &walked());
    let mut error = icmp_error(SERVER, CLIENT, 3, 3, &sent.ip());
    error.body()[2] ^= 1;
    node.expect(UNDERLAYS[0], &down(&error), &dropped(DropReason::ChecksumErr));
}

#[test]
fn an_error_to_the_node_itself_that_nobody_waits_for_is_dropped() {
    let mut node = Node::new(CE1);
    let error = icmp_error(CLIENT, GATEWAY1, 3, 3, &udp(GATEWAY1, CLIENT, 1, 2, b"x").ip());
    node.expect(LAN1, &up(&error), &refused(DropReason::IcmpErrorUnmatched));
}

#[test]
fn an_error_where_no_flows_are_looked_up_is_routed_like_any_packet() {
    let mut node = Node::altered(CE1, &[("\"vrf\": 18, \"flags\": {\"policy\": true},", "\"vrf\": 18,")]);
    let error = icmp_error(CLIENT, SERVER, 3, 3, &udp(SERVER, CLIENT, 1, 2, b"x").ip());
    for _ in 0..2 {
        node.expect(LAN1, &up(&error), &walked());
    }
    assert_eq!(node.flow_records(), 0);
}
