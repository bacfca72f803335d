//! Fragments: non-head fragments follow their head's flow, out of order is held, overlap is dropped, everything is bounded.

use std::collections::BTreeSet;

use crate::common::{
    Node,
    packets::{ACK, Ip, Packet, Tunnelled, mpls_udp, plain, segment, udp},
    walk_a::{
        CE1, CE2, CLIENT, CLIENT6, LABEL1, LABEL2, LAN1, LAN2, SERVER, SERVER6, TUNNEL1, TUNNEL2, UNDERLAYS, WalkA,
        altered, from_client, from_server, from_underlay, only, workers,
    },
};
use fallback_sw::{node::machine::Sent, packet};

/// A datagram of 2,008 octets in its UDP header and payload.
fn datagram(src: &str, dst: &str, id: u16) -> Packet {
    let payload: Vec<u8> = (0..2000u16).map(|i| i as u8).collect();
    udp(src, dst, 5000, 6000, &payload).id(id)
}

/// In three pieces: [0, 800), [800, 1600), [1600, 2008).
fn pieces(packet: &Packet) -> [Packet; 3] {
    [packet.part(0, 800), packet.part(800, 1600), packet.part(1600, 2008)]
}

fn inner(sent: &[Sent]) -> Vec<Ip> {
    let read = |s: &Sent| crate::common::packets::Frame::read(s.packet.data()).ip();
    sent.iter().map(|s| Tunnelled::read(read(s)).inner).collect()
}

fn spans(ips: &[Ip]) -> Vec<(usize, usize, bool)> {
    ips.iter().map(|ip| (ip.offset, ip.offset + ip.body.len(), ip.more)).collect()
}

/// Body of the datagram that these make, each octet once.
fn reassembled(ips: &[Ip]) -> Vec<u8> {
    let mut sorted: Vec<&Ip> = ips.iter().collect();
    sorted.sort_by_key(|ip| ip.offset);
    let mut body = Vec::new();
    for ip in &sorted {
        assert_eq!(ip.offset, body.len(), "a gap or an overlap");
        body.extend_from_slice(&ip.body);
    }
    assert!(!sorted.last().unwrap().more && sorted[..sorted.len() - 1].iter().all(|ip| ip.more));
    body
}

#[test]
fn fragments_follow_their_heads_flow_into_the_tunnel_and_out_of_it() {
    for (src, dst) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut walk = WalkA::default();
        let whole = datagram(src, dst, 77);
        let mut arrived = Vec::new();
        for piece in pieces(&whole) {
            arrived.push(walk.to_server(&piece.ip()));
        }
        assert_eq!(spans(&arrived), [(0, 800, true), (800, 1600, true), (1600, 2008, false)]);
        assert!(arrived.iter().all(|ip| ip.id == 77 && ip.ttl == 62));
        assert_eq!(reassembled(&arrived), Ip::read(&whole.ip()).body);
        // One pair at each edge, which all fragments count on.
        for node in [&walk.ce1, &walk.ce2] {
            assert_eq!(node.flow_records(), 2);
        }
        walk.nothing_dropped();
    }
}

#[test]
fn a_whole_packet_of_the_flow_runs_the_same_pair_as_its_fragments() {
    for count in [1, 2, 3] {
        let mut node = Node::with(CE1, workers(count));
        let mut sports = BTreeSet::new();
        let mut ports = BTreeSet::new();
        let small = udp(CLIENT, SERVER, 5000, 6000, b"small").ip();
        let parts = pieces(&datagram(CLIENT, SERVER, 9)).map(|piece| piece.ip());
        for ip in std::iter::once(&small).chain(&parts) {
            let (port, frame) = only(node.receive(LAN1, &from_client(ip)));
            sports.insert(Tunnelled::read(frame.ip()).sport);
            ports.insert(port);
        }
        assert_eq!((sports.len(), ports.len()), (1, 1), "{count} workers: entropy and ECMP member");
        assert_eq!((node.flow_records(), node.all_drops()), (2, vec![]), "{count} workers");
    }
}

#[test]
fn what_comes_before_its_head_is_held_and_released_in_order_after_it() {
    let mut node = Node::new(CE1);
    let [head, middle, last] = pieces(&datagram(CLIENT, SERVER, 1)).map(|piece| from_client(&piece.ip()));
    assert_eq!(node.receive(LAN1, &last).len(), 0);
    assert_eq!(node.receive(LAN1, &middle).len(), 0);
    assert_eq!(node.machine.held(), 2);

    let sent = node.receive(LAN1, &head);

    assert_eq!(spans(&inner(&sent)), [(0, 800, true), (1600, 2008, false), (800, 1600, true)]);
    assert_eq!((node.machine.held(), node.flow_records(), node.all_drops()), (0, 2, vec![]));
}

#[test]
fn out_of_a_tunnel_too_the_head_leads_whatever_the_order() {
    for (label, src, dst, json, port, outer) in [
        (LABEL2, CLIENT, SERVER, CE2, LAN2, (TUNNEL1, TUNNEL2)),
        (LABEL1, SERVER6, CLIENT6, CE1, LAN1, (TUNNEL2, TUNNEL1)),
    ] {
        let mut node = Node::new(json);
        let frames = pieces(&datagram(src, dst, 3)).map(|piece| {
            let stack = [crate::common::packets::entry(label, 0, true, 63)];
            from_underlay(UNDERLAYS[0], &mpls_udp(outer.0, outer.1, (50_000, 6635), &stack, &piece.ip()).ip())
        });
        assert_eq!(node.receive(UNDERLAYS[0], &frames[1]).len(), 0);
        let sent = node.receive(UNDERLAYS[0], &frames[0]);
        let more = node.receive(UNDERLAYS[0], &frames[2]);
        let read = |s: &Sent| {
            assert_eq!(u32::from(s.port.get()), port);
            crate::common::packets::Frame::read(s.packet.data()).ip()
        };
        let ips: Vec<Ip> = sent.iter().chain(&more).map(read).collect();
        assert_eq!(spans(&ips), [(0, 800, true), (800, 1600, true), (1600, 2008, false)]);
        assert_eq!(reassembled(&ips), Ip::read(&datagram(src, dst, 3).ip()).body);
        assert_eq!(node.all_drops(), []);
    }
}

#[test]
fn an_overlap_spoils_the_datagram_and_what_waited_with_it() {
    for (offset, end) in [(0, 808), (792, 808), (800, 1592), (1592, 2000)] {
        let mut node = Node::new(CE1);
        let whole = datagram(CLIENT, SERVER, 4);
        let [head, middle, last] = pieces(&whole);
        // The middle waits for its head; the overlap comes.
        assert_eq!(node.receive(LAN1, &from_client(&middle.ip())).len(), 0);
        if offset >= 1592 {
            assert_eq!(node.receive(LAN1, &from_client(&last.ip())).len(), 0);
        }
        let waiting = node.machine.held();
        assert_eq!(node.receive(LAN1, &from_client(&whole.part(offset, end).ip())).len(), 0, "{offset}..{end}");
        assert_eq!(node.machine.held(), 0);
        assert_eq!(node.all_drops(), [("Fragment errors", waiting + 1)]);
        // Not even a head helps it now; another datagram is not touched.
        assert_eq!(node.receive(LAN1, &from_client(&head.ip())).len(), 0);
        assert_eq!(node.all_drops(), [("Fragment errors", waiting + 2)]);
        for piece in pieces(&whole.id(5)) {
            assert_eq!(node.receive(LAN1, &from_client(&piece.ip())).len(), 1);
        }
    }
}

#[test]
fn an_exact_duplicate_is_dropped_alone() {
    let mut node = Node::new(CE1);
    let [head, middle, last] = pieces(&datagram(CLIENT, SERVER, 6)).map(|piece| from_client(&piece.ip()));
    let mut sent = node.receive(LAN1, &head);
    sent.extend(node.receive(LAN1, &head));
    sent.extend(node.receive(LAN1, &middle));
    sent.extend(node.receive(LAN1, &middle));
    sent.extend(node.receive(LAN1, &last));
    assert_eq!(spans(&inner(&sent)), [(0, 800, true), (800, 1600, true), (1600, 2008, false)]);
    assert_eq!(node.all_drops(), [("Fragment errors", 2)]);
}

#[test]
fn an_identification_is_free_as_soon_as_its_datagram_has_passed() {
    let mut node = Node::altered(
        CE1,
        &[(r#""generation": "1","#, r#""generation": "1", "settings": {"maxFragmentedDatagrams": 2},"#)],
    );
    for round in 0..50 {
        for piece in pieces(&datagram(CLIENT, SERVER, round % 3)) {
            assert_eq!(node.receive(LAN1, &from_client(&piece.ip())).len(), 1, "round {round}");
        }
    }
    assert_eq!(node.all_drops(), []);
    assert_eq!(node.machine.workers()[0].fragment_table().len(), 0);
}

#[test]
fn tiny_and_impossible_fragments_are_dropped() {
    let tcp = segment(CLIENT, SERVER, (1, 2), ACK, (1, 1), &[7; 100]);
    let tcp6 = segment(CLIENT6, SERVER6, (1, 2), ACK, (1, 1), &[7; 100]);
    let udp = udp(CLIENT, SERVER, 1, 2, &[7; 100]);
    let mut beyond = plain(CLIENT, SERVER, 17, &[0; 65_512]).part(65_504, 65_512);
    beyond.body().resize(64, 0);
    let mut uneven = udp.part(0, 80);
    uneven.body().pop();
    let mut empty = udp.part(8, 16);
    empty.body().clear();
    for (what, ip) in [
        ("a head without TCP's flags", tcp.part(0, 8).ip()),
        ("a head without all of TCP's header", tcp.part(0, 16).ip()),
        ("what would overlay TCP's flags", tcp.part(8, 40).ip()),
        ("the same in IPv6", tcp6.part(0, 8).ip()),
        ("the same in IPv6", tcp6.part(8, 40).ip()),
        ("an end beyond 65535", beyond.ip()),
        ("not the last and no multiple of eight", uneven.ip()),
        ("nothing in it", empty.ip()),
    ] {
        let mut node = Node::new(CE1);
        assert_eq!(node.receive(LAN1, &from_client(&ip)).len(), 0, "{what}");
        assert_eq!(node.all_drops(), [("Fragment errors", 1)], "{what}");
        assert_eq!((node.machine.held(), node.flow_records()), (0, 0), "{what}");
    }
}

#[test]
fn a_head_that_may_not_come_from_where_it_came_speaks_for_nobody() {
    let other = r#""vifs": [{"id": 101, "name": "lan2", "type": "VIRTUAL", "vrf": 18, "flags": {"policy": true}},"#;
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut node = Node::altered(CE1, &[(r#""vifs": ["#, other)]);
        let genuine = datagram(client, server, 9);
        let forged = udp(client, server, 1, 2, &[0xee; 2000]).id(9);
        // Of the reverse path, not of the other fragments.
        assert!(node.receive(101, &from_client(&forged.part(0, 800).ip())).is_empty());
        assert_eq!(node.all_drops(), [("Invalid Source", 1)]);
        assert_eq!(node.machine.workers()[0].fragment_table().len(), 0);
        let mut sent = Vec::new();
        for piece in pieces(&genuine).iter().rev() {
            sent.extend(node.receive(LAN1, &from_client(&piece.ip())));
        }
        assert_eq!(reassembled(&inner(&sent)), Ip::read(&genuine.ip()).body);
        assert_eq!(node.all_drops(), [("Invalid Source", 1)]);
    }
}

#[test]
fn the_end_of_a_datagram_binds_its_other_fragments() {
    let mut node = Node::new(CE1);
    let whole = datagram(CLIENT, SERVER, 8);
    // The same octets, said to be the last.
    let early_end = plain(CLIENT, SERVER, 17, &Ip::read(&whole.ip()).body[..1600]).id(8).part(800, 1600);
    assert_eq!(node.receive(LAN1, &from_client(&whole.part(0, 400).ip())).len(), 1);
    assert_eq!(node.receive(LAN1, &from_client(&early_end.ip())).len(), 1);
    assert_eq!(node.receive(LAN1, &from_client(&whole.part(1600, 2008).ip())).len(), 0);
    assert_eq!(node.all_drops(), [("Fragment errors", 1)]);
}

#[test]
fn fragments_are_bounded_in_number_and_time_while_traffic_lives_on() {
    let settings = r#""generation": "1", "settings": {"maxFragmentedDatagrams": 3, "maxHeld": 5, "maxHeldPerNeighbour": 5, "fragmentTimeoutSecs": 2},"#;
    let mut node = Node::altered(CE1, &[(r#""generation": "1","#, settings)]);
    let regular = from_client(&udp(CLIENT, SERVER, 1, 2, b"regular").ip());
    assert_eq!(node.receive(LAN1, &regular).len(), 1);
    // Datagrams without heads: three are tracked, the oldest give way.
    for id in 0..10 {
        let [_, middle, _] = pieces(&datagram(CLIENT, SERVER, id));
        assert_eq!(node.receive(LAN1, &from_client(&middle.ip())).len(), 0);
    }
    assert_eq!(node.all_drops(), [("Fragment Table Full", 7)]);
    assert_eq!((node.machine.held(), node.machine.workers()[0].fragment_table().len()), (3, 3));
    // Fragments that wait: five in all; with its oldest one a datagram loses all.
    for id in 7..10 {
        let [_, _, last] = pieces(&datagram(CLIENT, SERVER, id));
        assert_eq!(node.receive(LAN1, &from_client(&last.ip())).len(), 0);
    }
    assert_eq!((node.machine.held(), node.all_drops()), (4, vec![("Fragment Table Full", 9)]));
    assert_eq!(node.receive(LAN1, &from_client(&pieces(&datagram(CLIENT, SERVER, 7))[0].ip())).len(), 0);
    assert_eq!(node.all_drops(), [("Fragment Table Full", 9), ("Fragment errors", 1)]);
    assert_eq!(node.receive(LAN1, &regular).len(), 1);
    // Their time is over.
    assert_eq!(node.wait(2100).len(), 0);
    assert_eq!(node.all_drops(), [("Fragment Table Full", 9), ("Fragment errors", 1), ("Fragment Timeout", 4)]);
    assert_eq!((node.machine.held(), node.machine.workers()[0].fragment_table().len()), (0, 0));
    assert_eq!(node.receive(LAN1, &regular).len(), 1);
    for piece in pieces(&datagram(CLIENT, SERVER, 1)) {
        assert_eq!(node.receive(LAN1, &from_client(&piece.ip())).len(), 1);
    }
}

#[test]
fn all_fragments_of_a_datagram_take_one_ecmp_member_whatever_its_flow() {
    let mut used = BTreeSet::new();
    for sport in 1000..1040 {
        let mut node = Node::new(CE1);
        let whole = udp(CLIENT, SERVER, sport, 9, &[1; 2000]);
        let mut members = BTreeSet::new();
        for piece in pieces(&whole) {
            let (port, _) = only(node.receive(LAN1, &from_client(&piece.ip())));
            members.insert(port);
        }
        assert_eq!(members.len(), 1, "source port {sport}");
        used.extend(members);
    }
    assert_eq!(used.len(), 2, "both members are used");
}

#[test]
fn fragments_that_reach_several_workers_meet_at_the_owner_of_their_flow() {
    for (src, dst) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut node = Node::with(CE1, workers(3));
            let frames = pieces(&datagram(src, dst, 12)).map(|piece| from_client(&piece.ip()));
            let small = from_client(&udp(src, dst, 5000, 6000, b"small").ip());
            for (queue, at) in order.into_iter().enumerate() {
                node.now += 1;
                let mut batch = vec![packet::Packet::from_frame(&frames[at])];
                node.machine.receive(crate::common::vif(LAN1), queue, &mut batch, node.now);
                node.check_account();
            }
            let mut sent = node.machine.take_sent();
            sent.extend(node.receive(LAN1, &small));
            let ips = inner(&sent);
            assert_eq!(reassembled(&ips[..3]), Ip::read(&datagram(src, dst, 12).ip()).body, "{order:?}");
            assert_eq!((node.flow_records(), node.all_drops()), (2, vec![]), "{order:?}");
            let sports: BTreeSet<u16> = sent
                .iter()
                .map(|s| Tunnelled::read(crate::common::packets::Frame::read(s.packet.data()).ip()).sport)
                .collect();
            assert_eq!(sports.len(), 1);
        }
    }
}

/// An IPv6 datagram whose fragmentable part begins with destination options, so that later fragments name another protocol
/// than the head's: RFC 8200 §4.5.
#[test]
fn an_extension_header_behind_the_fragment_header_parts_no_datagram() {
    let udp = Ip::read(&datagram(CLIENT6, SERVER6, 0).ip()).body;
    let options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat();
    let whole = plain(CLIENT6, SERVER6, 60, &options).id(31);
    for count in [1, 3] {
        for order in [[0, 1], [1, 0]] {
            let mut node = Node::with(CE1, workers(count));
            let frames = [whole.part(0, 1000), whole.part(1000, 2016)].map(|piece| from_client(&piece.ip()));
            let mut sent = Vec::new();
            for at in order {
                sent.extend(node.receive(LAN1, &frames[at]));
            }
            assert_eq!(reassembled(&inner(&sent)), options, "{count} workers, {order:?}");
            assert_eq!((node.flow_records(), node.all_drops()), (2, vec![]));
        }
    }
}

#[test]
fn a_fragmented_message_finds_its_listener_by_the_heads_ports() {
    let host = r#""vifs": [
    {"id": 200, "name": "host", "type": "HOST", "vrf": 18, "mac": "02:00:00:00:02:00"},"#;
    let listen = r#""nexthops": [
    {"id": 700, "vrf": 18, "encap": {"oif": 200, "encapData": "020000000200 00005e000100 0800"}},
    {"id": 701, "vrf": 18, "receive": {"listeners": [{"proto": 17, "firstPort": 500, "nexthop": 700}]}},"#;
    let route = r#""routes": [
    {"vrf": 18, "prefix": "192.168.100.1/32", "nexthop": 701},"#;
    for policy in ["true", "false"] {
        let state = altered(
            CE1,
            &[
                (r#""vifs": ["#, host),
                (r#""nexthops": ["#, listen),
                (r#""routes": ["#, route),
                (r#""flags": {"policy": true}"#, &format!(r#""flags": {{"policy": {policy}}}"#)),
            ],
        );
        let mut node = Node::new(&state);
        let whole = udp(CLIENT, "192.168.100.1", 500, 500, &[3; 2000]);
        let [head, middle, last] = pieces(&whole).map(|piece| from_client(&piece.ip()));
        let mut sent = node.receive(LAN1, &middle);
        sent.extend(node.receive(LAN1, &head));
        sent.extend(node.receive(LAN1, &last));
        let read = |s: &Sent| {
            assert_eq!(s.port.get(), 200);
            crate::common::packets::Frame::read(s.packet.data()).ip()
        };
        let ips: Vec<Ip> = sent.iter().map(read).collect();
        assert_eq!(reassembled(&ips), Ip::read(&whole.ip()).body, "policy {policy}");
        let account = node.machine.account();
        // Without Policy there is no flow to follow: the datagram is put together first.
        let fates = if policy == "true" { (3, 0) } else { (1, 2) };
        assert_eq!((account.punted, account.consumed), fates, "policy {policy}");
        assert_eq!(node.all_drops(), [], "policy {policy}");
        // A port that nobody listens on.
        let other = udp(CLIENT, "192.168.100.1", 500, 501, &[3; 2000]).id(99);
        for piece in pieces(&other) {
            assert_eq!(node.receive(LAN1, &from_client(&piece.ip())).len(), 0);
        }
        assert_eq!(node.all_drops(), [("No Listener", if policy == "true" { 3 } else { 1 })], "policy {policy}");
    }
}

#[test]
fn a_servers_fragments_reach_the_client_through_both_edges() {
    let mut walk = WalkA::default();
    let whole = datagram(SERVER, CLIENT, 21);
    let arrived: Vec<Ip> = pieces(&whole).iter().map(|piece| walk.to_client(&piece.ip())).collect();
    assert_eq!(reassembled(&arrived), Ip::read(&whole.ip()).body);
    walk.nothing_dropped();
    let _ = from_server(&whole.ip());
}
