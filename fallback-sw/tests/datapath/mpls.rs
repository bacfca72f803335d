//! MPLS over UDP (RFC 7510): what goes into a tunnel, and what is let out of one.

use std::collections::BTreeSet;

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{by_flow, dropped, refused, routed, walked},
    packets::{Packet, Tunnelled, UDP, entry, mpls_udp, udp},
    walk_a::{
        CE1, CE2, CLIENT, CLIENT6, GATEWAY1, LABEL2, LAN1, LAN2, SERVER, SERVER6, TUNNEL1, TUNNEL2, UNDERLAYS, WalkA,
        from_client, from_underlay, only,
    },
};

fn inner() -> Vec<u8> {
    udp(CLIENT, SERVER, 1, 2, b"inner").ttl(63).ip()
}

/// From CE1 to CE2 with this label stack.
fn to_ce2(stack: &[[u8; 4]], inner: &[u8]) -> Packet {
    mpls_udp(TUNNEL1, TUNNEL2, (50000, 6635), stack, inner)
}

fn arrives(packet: &Packet) -> Vec<u8> {
    from_underlay(UNDERLAYS[0], &packet.ip())
}

#[test]
fn the_outer_headers_are_those_of_rfc_7510() {
    for (port, node) in [
        (6635, Node::new(CE1)),
        (51234, Node::altered(CE1, &[("\"directNexthop\": 532", "\"udpPort\": 51234, \"directNexthop\": 532")])),
    ] {
        let mut walk = WalkA { ce1: node, ..WalkA::default() };
        for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
            let packet = udp(client, server, 1, 2, b"payload").df().ip();
            let (_, up) = walk.up(&packet);
            assert_eq!((up.outer.src.to_string().as_str(), up.outer.dst.to_string().as_str()), (TUNNEL1, TUNNEL2));
            assert_eq!(
                (up.outer.ttl, up.outer.df, up.outer.more, up.outer.offset, up.outer.proto),
                (64, false, false, 0, UDP)
            );
            assert_eq!((up.dport, up.checksum), (port, 0));
            assert_eq!((up.label, up.tc, up.bottom, up.ttl), (LABEL2, 0, true, 63));
            assert_eq!(up.outer.octets.len(), packet.len() + 32);
            walk.to_server(&packet);
        }
        walk.nothing_dropped();
    }
}

#[test]
fn a_flows_outer_packets_share_an_identification_of_their_own() {
    let mut walk = WalkA::default();
    let mut of = |sport| -> BTreeSet<u32> {
        let packet = udp(CLIENT, SERVER, sport, 2, b"x").ip();
        (0..10).map(|_| walk.up(&packet).1.outer.id).collect()
    };
    let ids: Vec<BTreeSet<u32>> = (1000..1100).map(&mut of).collect();
    assert!(ids.iter().all(|ids| ids.len() == 1 && !ids.contains(&0)), "{ids:?}");
    assert_eq!(ids.into_iter().flatten().collect::<BTreeSet<u32>>().len(), 100);
}

#[test]
fn the_source_port_is_constant_for_a_flow_and_spread_over_flows() {
    let mut walk = WalkA::default();
    let mut ports = BTreeSet::new();
    for sport in 1000..1400 {
        let packet = udp(CLIENT, SERVER, sport, 2, b"x").ip();
        let (_, first) = walk.up(&packet);
        assert_eq!(walk.up(&packet).1.sport, first.sport);
        assert!(first.sport >= 49152, "{}", first.sport);
        ports.insert(first.sport);
    }
    // 400 draws of 16384 collide five times on average.
    assert!(ports.len() > 375, "{} ports for 400 flows", ports.len());
    let (low, high) = (ports.first().unwrap(), ports.last().unwrap());
    assert!(high - low > 14000, "{low}..={high}");
}

#[test]
fn dscp_is_copied_outward_or_mapped_and_its_class_is_the_traffic_class() {
    let map = "\"dscpMap\": [{\"inner\": 46, \"outer\": 10}, {\"inner\": 8, \"outer\": 0}], \"directNexthop\": 532";
    let mapped = Node::altered(CE1, &[("\"directNexthop\": 532", map)]);
    for (mut ce1, changes) in [(Node::new(CE1), [(46, 46), (8, 8)]), (mapped, [(46, 10), (8, 0)])] {
        for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
            for inner in 0..64u8 {
                let outer = changes.iter().find(|(from, _)| *from == inner).map_or(inner, |(_, to)| *to);
                let packet = udp(client, server, 1, 2, b"x").tos(inner << 2).ip();
                let (_, frame) = only(ce1.receive(LAN1, &from_client(&packet)));
                let up = Tunnelled::read(frame.ip());
                assert_eq!((up.outer.tos, up.tc, up.inner.tos), (outer << 2, outer >> 3, inner << 2), "{inner}");
            }
        }
    }
}

#[test]
fn ecn_is_copied_into_the_tunnel() {
    let mut walk = WalkA::default();
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        for ecn in 0..4 {
            let (_, up) = walk.up(&udp(client, server, 1, 2, b"x").tos(46 << 2 | ecn).ip());
            assert_eq!((up.outer.tos, up.inner.tos), (46 << 2 | ecn, 46 << 2 | ecn));
        }
    }
}

#[test]
fn ecn_comes_out_of_the_tunnel_as_rfc_6040_says() {
    const NOT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    // RFC 6040 figure 4. Rows: inner; columns: outer Not-ECT, ECT(0), ECT(1), CE.
    let figure = [
        (NOT, [Some(NOT), Some(NOT), Some(NOT), None]),
        (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
        (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
        (CE, [Some(CE); 4]),
    ];
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut ce2 = Node::new(CE2);
        // The flow is there: these go by it.
        only(ce2.receive(
            UNDERLAYS[0],
            &arrives(&to_ce2(&[entry(LABEL2, 0, true, 63)], &udp(client, server, 1, 2, b"x").ip())),
        ));
        for (inner_ecn, row) in figure {
            for (outer_ecn, expected) in [NOT, ECT0, ECT1, CE].into_iter().zip(row) {
                let inner = udp(client, server, 1, 2, b"x").tos(46 << 2 | inner_ecn).ip();
                let frame = arrives(&to_ce2(&[entry(LABEL2, 0, true, 63)], &inner).tos(outer_ecn));
                let before = ce2.drops(DropReason::EcnInvalid);
                let sent = ce2.receive(UNDERLAYS[0], &frame);
                match expected {
                    Some(ecn) => {
                        assert_eq!(only(sent).1.ip().tos, 46 << 2 | ecn, "inner {inner_ecn} outer {outer_ecn}")
                    }
                    None => {
                        assert_eq!((sent.len(), ce2.drops(DropReason::EcnInvalid)), (0, before + 1));
                    }
                }
            }
        }
        assert_eq!(ce2.all_drops(), [(DropReason::EcnInvalid.name(), 1)]);
    }
}

#[test]
fn both_ports_are_opened_and_no_other() {
    let mut ce2 = Node::new(CE2);
    for (port, moved) in [(6635, walked()), (51234, by_flow())] {
        let packet = mpls_udp(TUNNEL1, TUNNEL2, (50000, port), &[entry(LABEL2, 7, true, 255)], &inner());
        let (out, frame) = only(ce2.expect(UNDERLAYS[0], &arrives(&packet), &moved));
        assert_eq!((out, frame.ip().ttl), (LAN2, 62));
    }
    let packet = mpls_udp(TUNNEL1, TUNNEL2, (50000, 6636), &[entry(LABEL2, 0, true, 63)], &inner());
    ce2.expect(UNDERLAYS[0], &arrives(&packet), &refused(DropReason::NoListener));
}

#[test]
fn a_label_must_be_known_bottom_of_stack_and_alive() {
    let inner = inner();
    let other = entry(LABEL2, 0, true, 63);
    let cases = [
        (vec![entry(LABEL2, 0, false, 63)], DropReason::InvalidLabel),
        (vec![entry(LABEL2, 0, false, 63), other], DropReason::InvalidLabel),
        (vec![entry(LABEL2, 0, true, 0)], DropReason::TtlExceeded),
        (vec![entry(LABEL2 + 1, 0, true, 63)], DropReason::InvalidLabel),
        (vec![entry(1_048_575, 0, true, 63)], DropReason::InvalidLabel),
    ];
    let reserved = (0..16).map(|label| (vec![entry(label, 0, true, 63)], DropReason::InvalidLabel));
    for (stack, reason) in cases.into_iter().chain(reserved) {
        let mut ce2 = Node::new(CE2);
        ce2.expect(UNDERLAYS[0], &arrives(&to_ce2(&stack, &inner)), &dropped(reason));
        assert_eq!(ce2.flow_records(), 0);
    }
}

#[test]
fn behind_the_label_must_be_ip() {
    for version in (0..16u8).filter(|version| !matches!(version, 4 | 6)) {
        let mut bad = inner();
        bad[0] = version << 4 | 5;
        let frame = arrives(&to_ce2(&[entry(LABEL2, 0, true, 63)], &bad));
        Node::new(CE2).expect(UNDERLAYS[0], &frame, &dropped(DropReason::InvalidPacket));
    }
}

#[test]
fn a_frame_cut_anywhere_is_truncated() {
    for inner in [inner(), udp(CLIENT6, SERVER6, 1, 2, b"inner").ip()] {
        let whole = arrives(&to_ce2(&[entry(LABEL2, 0, true, 63)], &inner));
        let mut ce2 = Node::new(CE2);
        for len in 0..whole.len() {
            ce2.expect(UNDERLAYS[0], &whole[..len], &dropped(DropReason::Truncated));
        }
        only(ce2.expect(UNDERLAYS[0], &whole, &walked()));
    }
}

#[test]
fn a_tunnel_packet_that_ends_anywhere_inside_is_truncated() {
    for inner in [inner(), udp(CLIENT6, SERVER6, 1, 2, b"inner").ip()] {
        let whole = [&entry(LABEL2, 0, true, 63)[..], &inner].concat();
        let mut ce2 = Node::new(CE2);
        for len in 0..whole.len() {
            // The outer lengths say what is there.
            let packet = mpls_udp(TUNNEL1, TUNNEL2, (50000, 6635), &[], &whole[..len]);
            ce2.expect(UNDERLAYS[0], &arrives(&packet), &dropped(DropReason::Truncated));
        }
    }
}

/// With an outer UDP length that is not what is there.
fn with_udp_length(packet: &Packet, len: usize) -> Packet {
    let mut packet = packet.clone();
    packet.body()[4..6].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet
}

#[test]
fn case_06_nothing_behind_the_outer_udp_datagram_is_read() {
    for inner in [inner(), udp(CLIENT6, SERVER6, 1, 2, b"inner").ip()] {
        for port in [6635, 51234] {
            let whole = mpls_udp(TUNNEL1, TUNNEL2, (50000, port), &[entry(LABEL2, 0, true, 63)], &inner);
            let len = 8 + 4 + inner.len();
            let mut ce2 = Node::new(CE2);
            // RFC 768: at least the header; less than the label and the packet inside is no packet, whatever follows.
            for short in 0..8 {
                let frame = arrives(&with_udp_length(&whole, short));
                ce2.expect(UNDERLAYS[0], &frame, &dropped(DropReason::InvalidPacket));
            }
            for short in 8..len {
                let frame = arrives(&with_udp_length(&whole, short));
                ce2.expect(UNDERLAYS[0], &frame, &dropped(DropReason::Truncated));
            }
            ce2.expect(UNDERLAYS[0], &arrives(&with_udp_length(&whole, len + 1)), &dropped(DropReason::Truncated));
            // What is behind the datagram is no part of it.
            let mut longer = whole.clone();
            longer.body().extend([0xa5; 30]);
            let (_, frame) = only(ce2.expect(UNDERLAYS[0], &arrives(&longer), &walked()));
            assert_eq!(frame.ip().octets.len(), inner.len());
            // Once a flow is there, too.
            for short in [20, len - 1] {
                let frame = arrives(&with_udp_length(&longer, short));
                ce2.expect(UNDERLAYS[0], &frame, &dropped(DropReason::Truncated));
            }
        }
    }
}

#[test]
fn case_06_a_reassembled_outer_datagram_ends_where_its_length_says() {
    let inner = udp(CLIENT, SERVER, 1, 2, &[7; 60]).ip();
    let whole = mpls_udp(TUNNEL1, TUNNEL2, (50000, 6635), &[entry(LABEL2, 0, true, 63)], &inner);
    let mut ce2 = Node::new(CE2);
    for (len, arrived) in [(30, 0), (8 + 4 + inner.len(), 1)] {
        let packet = with_udp_length(&whole, len).id(len as u16);
        assert!(ce2.receive(UNDERLAYS[0], &arrives(&packet.part(0, 48))).is_empty());
        assert_eq!(ce2.receive(UNDERLAYS[0], &arrives(&packet.part(48, 1000))).len(), arrived, "UDP length {len}");
    }
    assert_eq!(ce2.all_drops(), [("Truncated", 1)]);
}

#[test]
fn a_tenants_datagram_that_ends_before_its_packet_is_forwarded_as_it_is() {
    // How long the datagram is concerns who receives it: a router goes by the IP length (RFC 1812 §5.2.2).
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut packet = udp(client, server, 1, 2, b"short");
        packet.body().extend([0; 9]);
        let mut walk = WalkA::default();
        // Reading checks the sum over the whole: not here.
        let (port, frame) = only(walk.ce1.receive(LAN1, &from_client(&packet.ip())));
        let sent = walk.ce2.receive(port, &from_underlay(port, &frame.payload));
        assert_eq!(sent[0].packet.data()[18..].len(), packet.ip().len());
        walk.nothing_dropped();
    }
}

#[test]
fn a_udp_checksum_that_is_there_must_be_right() {
    let payload = [&entry(LABEL2, 0, true, 63)[..], &inner()].concat();
    let mut packet = udp(TUNNEL1, TUNNEL2, 50000, 6635, &payload);
    let mut ce2 = Node::new(CE2);
    only(ce2.expect(UNDERLAYS[0], &arrives(&packet), &walked()));
    packet.body()[7] ^= 1;
    ce2.expect(UNDERLAYS[0], &arrives(&packet), &dropped(DropReason::ChecksumErr));
}

#[test]
fn a_tenant_cannot_send_into_a_tunnel_by_its_gateway() {
    let mut ce1 = Node::new(CE1);
    for port in [6635, 51234] {
        let forged = mpls_udp(
            CLIENT,
            GATEWAY1,
            (50000, port),
            &[entry(279, 0, true, 63)],
            &udp(SERVER, CLIENT, 1, 2, b"x").ip(),
        );
        ce1.expect(LAN1, &from_client(&forged.ip()), &refused(DropReason::NoListener));
        // The tunnel's own end is not to be found in the tenant's VRF.
        let forged =
            mpls_udp(CLIENT, TUNNEL1, (50000, port), &[entry(279, 0, true, 63)], &udp(SERVER, CLIENT, 1, 2, b"x").ip());
        ce1.expect(LAN1, &from_client(&forged.ip()), &refused(DropReason::NoRoute));
    }
    assert_eq!(ce1.flow_records(), 0);
}

#[test]
fn a_tenants_own_mpls_over_udp_is_carried_like_any_packet() {
    let mut walk = WalkA::default();
    let packet = mpls_udp(CLIENT, SERVER, (50000, 6635), &[entry(280, 0, true, 63)], &inner()).ip();
    let out = walk.to_server(&packet);
    assert_eq!((out.ttl, &out.body), (62, &packet[20..].to_vec()));
    walk.nothing_dropped();
}

#[test]
fn who_claims_the_nodes_own_tunnel_source_is_dropped() {
    let mut ce2 = Node::new(CE2);
    let packet = mpls_udp(TUNNEL2, TUNNEL2, (50000, 6635), &[entry(LABEL2, 0, true, 63)], &inner());
    ce2.expect(UNDERLAYS[0], &arrives(&packet), &dropped(DropReason::OwnSource));
    // From a tenant, and in the underlay without a tunnel.
    let plain = udp(TUNNEL2, "10.0.0.1", 1, 2, b"x");
    ce2.expect(UNDERLAYS[0], &arrives(&plain), &refused(DropReason::OwnSource));
    let mut ce1 = Node::new(CE1);
    ce1.expect(LAN1, &from_client(&udp(TUNNEL1, SERVER, 1, 2, b"x").ip()), &refused(DropReason::OwnSource));
    assert_eq!((ce1.flow_records(), ce2.flow_records()), (0, 0));
}

#[test]
fn a_label_may_lead_straight_to_an_interface_or_to_this_node() {
    let mut ce2 = Node::altered(
        CE2,
        &[
            (
                "\"nexthops\": [",
                r#""nexthops": [{"id": 700, "vrf": 18, "receive": {"listeners": [{"proto": 17, "firstPort": 2, "nexthop": 577}]}},"#,
            ),
            ("\"labels\": [", "\"labels\": [{\"label\": 270, \"nexthop\": 700}, {\"label\": 271, \"nexthop\": 577},"),
        ],
    );
    // No policy on these labels: a listener asks for ports, so that each packet walks; an interface takes all that are alike.
    for (label, second) in [(270, walked()), (271, routed())] {
        for moved in [walked(), second] {
            let frame = arrives(&to_ce2(&[entry(label, 0, true, 63)], &inner()));
            let (out, frame) = only(ce2.expect(UNDERLAYS[0], &frame, &moved));
            assert_eq!((out, frame.ip().ttl), (LAN2, 62), "label {label}");
        }
    }
    let frame = arrives(&to_ce2(&[entry(270, 0, true, 63)], &udp(CLIENT, SERVER, 1, 3, b"x").ip()));
    ce2.expect(UNDERLAYS[0], &frame, &refused(DropReason::NoListener));
    // The source must come from its tunnel here, too.
    let forged = mpls_udp("10.101.10.40", TUNNEL2, (50000, 6635), &[entry(271, 0, true, 63)], &inner());
    ce2.expect(UNDERLAYS[0], &arrives(&forged), &refused(DropReason::InvalidSource));
    assert_eq!(ce2.flow_records(), 0);
}
