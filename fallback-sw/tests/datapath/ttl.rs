//! TTL and hop limit: taken down once for each route lookup, answered at the end of their life.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{by_flow, dropped_by_flow, refused, walked},
    packets::{Ip, Tunnelled, VRRP, eth, udp},
    walk_a::{
        CLIENT, CLIENT_MAC, CLIENT6, GATEWAY1, GATEWAY1_6, GATEWAY2, GATEWAY2_6, LAN1, SERVER, SERVER6, WalkA,
        from_client, from_underlay, only,
    },
};

const FAMILIES: [(&str, &str, &str, &str); 2] =
    [(CLIENT, SERVER, GATEWAY1, GATEWAY2), (CLIENT6, SERVER6, GATEWAY1_6, GATEWAY2_6)];

/// Time exceeded, from this address to the client, quoting the packet as it was received.
#[track_caller]
fn is_time_exceeded(error: &Ip, from: &str, to: &str, quoted: &[u8]) {
    let kind = if to.contains(':') { (3, 0) } else { (11, 0) };
    assert_eq!((error.icmp(), error.src.to_string().as_str(), error.dst.to_string().as_str()), (kind, from, to));
    assert_eq!(error.quoted(), quoted);
}

#[test]
fn each_edge_takes_one_off_and_the_label_carries_the_same_ttl() {
    for (client, server, ..) in FAMILIES {
        let mut walk = WalkA::default();
        for ttl in [255, 64, 3] {
            let packet = udp(client, server, 1, 2, b"x").ttl(ttl).ip();
            let (_, up) = walk.up(&packet);
            assert_eq!((up.inner.ttl, up.ttl, up.outer.ttl), (ttl - 1, ttl - 1, 64));
            assert_eq!(walk.to_server(&packet).ttl, ttl - 2);
        }
        walk.nothing_dropped();
    }
}

#[test]
fn at_one_the_first_edge_answers_from_its_gateway_address() {
    for (client, server, gateway, _) in FAMILIES {
        let mut walk = WalkA::default();
        for ttl in [1, 0] {
            let packet = udp(client, server, 1, u16::from(ttl) + 2, b"payload").ttl(ttl).ip();
            for moved in [refused(DropReason::TtlExceeded), dropped_by_flow(DropReason::TtlExceeded)] {
                let (port, frame) = only(walk.ce1.expect(LAN1, &from_client(&packet), &moved.and_made(1)));
                assert_eq!((port, frame.destination, frame.source), (LAN1, CLIENT_MAC, VRRP));
                is_time_exceeded(&frame.ip(), gateway, client, &packet);
            }
        }
    }
}

#[test]
fn at_two_the_second_edge_answers_through_the_tunnel() {
    for (client, server, _, gateway) in FAMILIES {
        let mut walk = WalkA::default();
        let packet = udp(client, server, 1, 2, b"payload").ttl(2).ip();
        let (port, up) = walk.up(&packet);
        assert_eq!((up.inner.ttl, up.ttl), (1, 1));
        let frame = from_underlay(port, &up.outer.octets);
        let (back, frame) = only(walk.ce2.expect(port, &frame, &refused(DropReason::TtlExceeded).and_made(1)));
        let error = Tunnelled::read(frame.ip());
        is_time_exceeded(&error.inner, gateway, client, &up.inner.octets);
        // The first edge knows the flow that the error is about.
        let (_, frame) = only(walk.ce1.expect(back, &from_underlay(back, &error.outer.octets), &by_flow()));
        is_time_exceeded(&frame.ip(), gateway, client, &up.inner.octets);
    }
}

#[test]
fn a_time_exceeded_error_is_never_answered_by_another() {
    let mut walk = WalkA::default();
    let sent = udp(CLIENT, SERVER, 1, 2, b"x").ip();
    walk.up(&sent);
    let error =
        crate::common::packets::icmp_error(CLIENT, SERVER, 11, 0, &udp(SERVER, CLIENT, 2, 1, b"x").ip()).ttl(1).ip();
    walk.ce1.expect(LAN1, &from_client(&error), &dropped_by_flow(DropReason::TtlExceeded));
}

/// VRFs 2, 3, 4, 5, 6, 7, each of which hands everything to the next; the last sends it out.
fn chain(length: usize, last: &str) -> Node {
    let vrfs: Vec<String> = (2..=8).map(|id| format!(r#"{{"id": {id}}}"#)).collect();
    let translate: Vec<String> =
        (2..=8).map(|to| format!(r#"{{"id": {}, "vrfTranslate": {{"vrf": {to}}}}}"#, 100 + to)).collect();
    let default =
        |vrf: usize, nexthop: &str| format!(r#"{{"vrf": {vrf}, "prefix": "0.0.0.0/0", "nexthop": {nexthop}}}"#);
    let mut routes: Vec<String> = (0..length).map(|i| default(2 + i, &(103 + i).to_string())).collect();
    routes.push(default(2 + length, last));
    routes.push(r#"{"vrf": 2, "prefix": "10.0.1.0/24", "nexthop": 11}"#.to_owned());
    Node::new(&format!(
        r#"{{"generation": "1", "vrfs": [{}],
          "vifs": [
            {{"id": 1, "name": "in", "type": "VIRTUAL", "vrf": 2, "addresses": ["10.0.1.1/24"], "flags": {{"policy": true}}}},
            {{"id": 2, "name": "out", "type": "VIRTUAL", "vrf": 8, "addresses": ["10.0.2.1/24"], "flags": {{"policy": true}}}}],
          "nexthops": [
            {{"id": 11, "vrf": 2, "encap": {{"oif": 1, "encapData": "0200000000aa 00005e000100 0800"}}}},
            {{"id": 12, "vrf": 8, "encap": {{"oif": 2, "encapData": "0200000000bb 00005e000100 0800"}}}}, {}],
          "routes": [{}]}}"#,
        vrfs.join(","),
        translate.join(","),
        routes.join(",")
    ))
}

fn through(ttl: u8) -> Vec<u8> {
    eth(VRRP, [2, 0, 0, 0, 0, 0xaa], &udp("10.0.1.9", "10.9.9.9", 1, 2, b"x").ttl(ttl).ip())
}

#[test]
fn a_chain_of_vrf_translations_takes_one_off_for_each_lookup() {
    for length in 0..=4u8 {
        let mut node = chain(usize::from(length), "12");
        let lookups = length + 1;
        for moved in [walked(), by_flow()] {
            let (port, frame) = only(node.expect(1, &through(64), &moved));
            assert_eq!((port, frame.ip().ttl), (2, 64 - lookups), "{length} translations");
        }
        let (_, frame) = only(node.expect(1, &through(lookups + 1), &by_flow()));
        assert_eq!(frame.ip().ttl, 1);
        let moved = dropped_by_flow(DropReason::TtlExceeded).and_made(1);
        let (port, frame) = only(node.expect(1, &through(lookups), &moved));
        assert_eq!((port, frame.ip().src.to_string()), (1, "10.0.1.1".to_owned()));
    }
}

#[test]
fn a_loop_of_vrf_translations_is_a_packet_loop_and_makes_no_flow() {
    // VRF 2 → 3 → 4 → 2, and VRF 2 → 2.
    for (length, last) in [(2, "102"), (0, "102")] {
        let mut node = chain(length, last);
        for _ in 0..2 {
            node.expect(1, &through(64), &refused(DropReason::PacketLoop));
        }
        assert_eq!(node.flow_records(), 0);
    }
}
