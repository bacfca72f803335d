//! Reverse path: where a source may come from, and how the way back follows.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{by_flow, dropped, refused, walked},
    packets::{Packet, Tunnelled, entry, mpls_udp, udp},
    walk_a::{
        CE1, CE2, CLIENT, CLIENT6, GATEWAY1, LABEL1, LABEL2, LAN1, SERVER, SERVER6, TUNNEL1, TUNNEL2, UNDERLAYS,
        from_client, from_underlay, only,
    },
};

const OTHER_SITE: &str = "10.101.8.1";

/// CE1 with a second site: 192.168.2.0/24 behind 10.101.8.1; 192.168.3.0/24 is behind both.
fn three_sites() -> Node {
    Node::altered(
        CE1,
        &[
            (
                "{\"id\": 513,",
                r#"{"id": 490, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.8.1", "directNexthop": 532}},
                   {"id": 600, "vrf": 18, "composite": {"members": [{"nexthop": 489, "label": 280}, {"nexthop": 490, "label": 290}]}},
                   {"id": 513,"#,
            ),
            (
                "\"routes\": [",
                r#""routes": [{"vrf": 18, "prefix": "192.168.2.0/24", "nexthop": 490, "label": 290},
                   {"vrf": 18, "prefix": "192.168.3.0/24", "nexthop": 600},"#,
            ),
        ],
    )
}

/// A packet that comes to CE1 out of the tunnel from this end, by this underlay vif.
fn from(tunnel: &str, vif: u32, packet: &Packet) -> Vec<u8> {
    from_underlay(vif, &mpls_udp(tunnel, TUNNEL1, (50000, 6635), &[entry(LABEL1, 0, true, 63)], &packet.ip()).ip())
}

#[test]
fn a_source_whose_route_leads_to_another_vif_is_an_invalid_source() {
    let mut ce1 = Node::new(CE1);
    for source in [SERVER, "203.0.113.1"] {
        ce1.expect(LAN1, &from_client(&udp(source, SERVER, 1, 2, b"x").ip()), &refused(DropReason::InvalidSource));
    }
    ce1.expect(LAN1, &from_client(&udp(SERVER6, SERVER6, 1, 2, b"x").ip()), &refused(DropReason::InvalidSource));
    ce1.expect(LAN1, &from_client(&udp(GATEWAY1, SERVER, 1, 2, b"x").ip()), &refused(DropReason::OwnSource));
    assert_eq!(ce1.flow_records(), 0);
}

#[test]
fn the_outer_source_must_be_the_tunnels_other_end() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut ce2 = Node::new(CE2);
        let packet = udp(client, server, 1, 2, b"x").ip();
        let tunnelled = |from: &str| {
            from_underlay(
                UNDERLAYS[0],
                &mpls_udp(from, TUNNEL2, (50000, 6635), &[entry(LABEL2, 0, true, 63)], &packet).ip(),
            )
        };
        ce2.expect(UNDERLAYS[0], &tunnelled("10.101.10.40"), &refused(DropReason::InvalidSource));
        assert_eq!(ce2.flow_records(), 0);
        only(ce2.expect(UNDERLAYS[0], &tunnelled(TUNNEL1), &walked()));
        // A flow that is there is no way in either.
        ce2.expect(UNDERLAYS[0], &tunnelled("10.101.10.40"), &dropped(DropReason::InvalidSource));
        only(ce2.expect(UNDERLAYS[0], &tunnelled(TUNNEL1), &by_flow()));
    }
}

#[test]
fn a_site_cannot_use_the_addresses_of_another_site_or_of_this_one() {
    let mut ce1 = three_sites();
    for source in [SERVER, "192.168.100.101", "203.0.113.1"] {
        let forged = from(OTHER_SITE, UNDERLAYS[0], &udp(source, CLIENT, 1, 2, b"x"));
        ce1.expect(UNDERLAYS[0], &forged, &refused(DropReason::InvalidSource));
    }
    let gateway = from(OTHER_SITE, UNDERLAYS[0], &udp(GATEWAY1, CLIENT, 1, 2, b"x"));
    ce1.expect(UNDERLAYS[0], &gateway, &refused(DropReason::OwnSource));
    assert_eq!(ce1.flow_records(), 0);
    only(ce1.expect(UNDERLAYS[0], &from(OTHER_SITE, UNDERLAYS[0], &udp("192.168.2.7", CLIENT, 1, 2, b"x")), &walked()));
}

/// Where CE1 sends a packet of the client: underlay vif, far end, label.
fn way_of(ce1: &mut Node, to: &str, sport: u16) -> (u32, String, u32) {
    let (port, frame) = only(ce1.receive(LAN1, &from_client(&udp(CLIENT, to, sport, 2, b"x").ip())));
    let up = Tunnelled::read(frame.ip());
    (port, up.outer.dst.to_string(), up.label)
}

#[test]
fn a_new_flows_answer_goes_back_by_the_underlay_vif_it_came_by() {
    let mut ce1 = Node::new(CE1);
    for sport in 1..40 {
        for vif in UNDERLAYS {
            let packet = udp(SERVER, CLIENT, 2, sport * 2 + u16::from(vif == UNDERLAYS[0]), b"x");
            only(ce1.expect(vif, &from(TUNNEL2, vif, &packet), &walked()));
            let answer = sport * 2 + u16::from(vif == UNDERLAYS[0]);
            assert_eq!(way_of(&mut ce1, SERVER, answer).0, vif);
        }
    }
    assert_eq!(ce1.all_drops(), []);
}

#[test]
fn a_flow_that_comes_back_by_another_member_is_followed_there() {
    let mut ce1 = three_sites();
    let ends = |label| if label == 280 { (TUNNEL2, 290, OTHER_SITE) } else { (OTHER_SITE, 280, TUNNEL2) };
    for sport in 1..9 {
        let (port, end, label) = way_of(&mut ce1, "192.168.3.9", sport);
        let (here, other_label, other) = ends(label);
        assert_eq!(end, here);
        let other_port = if port == UNDERLAYS[0] { UNDERLAYS[1] } else { UNDERLAYS[0] };
        ce1.wait(1100);
        let back = udp("192.168.3.9", CLIENT, 2, sport, b"x");
        only(ce1.expect(other_port, &from(other, other_port, &back), &by_flow()));
        assert_eq!(way_of(&mut ce1, "192.168.3.9", sport), (other_port, other.to_owned(), other_label));
    }
    assert_eq!(ce1.all_drops(), []);
    assert_eq!(ce1.flow_records(), 16);
    // A site that is no member is no way.
    let forged = from("10.101.7.1", UNDERLAYS[0], &udp("192.168.3.9", CLIENT, 2, 1, b"x"));
    ce1.expect(UNDERLAYS[0], &forged, &dropped(DropReason::InvalidSource));
}

#[test]
fn a_source_behind_two_vifs_may_come_by_either_and_is_answered_there() {
    const OTHER_LAN: u32 = 102;
    let mut ce1 = Node::altered(
        CE1,
        &[
            (
                "\"vifs\": [",
                r#""vifs": [{"id": 102, "name": "lan2", "type": "VIRTUAL", "vrf": 18, "flags": {"policy": true}},"#,
            ),
            (
                "{\"id\": 513,",
                r#"{"id": 517, "vrf": 18, "encap": {"oif": 102, "encapData": "000c29000164 00005e000100 0800"}},
                   {"id": 518, "vrf": 18, "composite": {"members": [{"nexthop": 514}, {"nexthop": 517}]}}, {"id": 513,"#,
            ),
            ("\"192.168.100.100/32\", \"nexthop\": 514", "\"192.168.100.100/32\", \"nexthop\": 518"),
        ],
    );
    let request = from_client(&udp(CLIENT, SERVER, 1, 2, b"x").ip());
    let reply = from(TUNNEL2, UNDERLAYS[0], &udp(SERVER, CLIENT, 2, 1, b"x"));
    only(ce1.expect(LAN1, &request, &walked()));
    assert_eq!(only(ce1.expect(UNDERLAYS[0], &reply, &by_flow())).0, LAN1);
    ce1.wait(1100);
    only(ce1.expect(OTHER_LAN, &request, &by_flow()));
    assert_eq!(only(ce1.expect(UNDERLAYS[0], &reply, &by_flow())).0, OTHER_LAN);
    assert_eq!(ce1.flow_records(), 2);
}
