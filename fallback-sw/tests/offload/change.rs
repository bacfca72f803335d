//! What a changed forwarding state does to flows in hardware.

use offload_rules::{MacAddr, flow::Op};

use super::*;
use crate::common::walk_a::{CLIENT_MAC, GATEWAY1};

#[test]
fn a_changed_route_replaces_rules_and_an_unrelated_change_none() {
    let (mut node, id, _) = offloaded(1);
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "10.1.0.0/16", "nexthop": 489, "label": 999}]}"#);
    node.change(r#"{"vrfs": [{"id": 77}], "labels": [{"label": 777, "nexthop": 513}]}"#);
    node.wait(200);
    node.asked_nothing();
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 555}]}"#);
    let (again, directions) = node.asked_install();
    assert_eq!(again, id);
    let (first, _) = both(directions);
    assert_eq!(first.program.label.map(|label| label.get()), Some(555));
    assert_eq!(node.status(1).tier, Tier::Hardware, "the old rules go on until the new ones are there");
}

fn lan(more: &str) -> String {
    format!(
        r#"{{"id": 100, "name": "lan", "type": "VIRTUAL", "vrf": 18, "flags": {{"policy": true}},
          "addresses": ["192.168.100.1/24", "2001:db8:100::1/64"]{more}}}"#
    )
}

#[test]
fn a_larger_mtu_on_the_way_in_replaces_the_rules() {
    let (mut node, id, _) = offloaded(1);
    node.change(&format!(r#"{{"vifs": [{}]}}"#, lan(r#", "mtu": 9000"#)));
    let (again, directions) = node.asked_install();
    assert_eq!((again, both(directions).0.ingress_mtu), (id, 9000));
}

#[test]
fn what_a_list_denies_now_is_taken_back_and_then_dropped_by_rule() {
    let (mut node, id, underlay) = offloaded(1);
    let deny = r#"{"id": 5, "entries": [{"id": 1, "action": "DENY", "proto": 17}]}"#;
    node.change(&format!(r#"{{"acls": [{deny}], "vifs": [{}]}}"#, lan(r#", "ingressAcls": [5]"#)));
    assert_eq!(node.asked_remove(), id);
    node.gone(id);
    node.wait(2000);
    for _ in 0..3 {
        assert_eq!(node.receive(LAN1, &up_frame(1)).len(), 0);
        let answer = udp(SERVER, CLIENT, 9, 1, b"answer");
        assert_eq!(node.receive(underlay, &out_of_tunnel_on(underlay, &answer)).len(), 0);
    }
    node.wait(2000);
    let (id, directions) = node.asked_install();
    let first = directions[0].clone().unwrap();
    assert_eq!((first.program.drops().is_some(), first.egress_port), (true, None));
    let before = node.all_drops()[0].1;
    node.in_hardware(id);
    node.nic_counts(id, 0, 5, 500);
    assert_eq!(node.all_drops()[0], ("Flow Action Drop", before + 5));
}

#[test]
fn a_denied_flow_is_asked_for_with_its_one_direction() {
    let deny = r#""acls": [{"id": 5, "entries": [{"id": 1, "action": "DENY", "proto": 17}]}], "labels""#;
    let listed = r#""flags": {"policy": true}, "ingressAcls": [5],"#;
    let state = altered(CE1, &[(r#""labels""#, deny), (r#""flags": {"policy": true},"#, listed)]);
    let mut node = Node::with(&state, with_engine());
    for _ in 0..2 {
        assert_eq!(node.receive(LAN1, &up_frame(1)).len(), 0);
    }
    let (id, directions) = node.asked_install();
    let [Some(first), None] = directions else { panic!("{directions:?}") };
    assert!(first.program.drops().is_some());
    node.in_hardware(id);
    node.nic_counts(id, 0, 7, 700);
    assert_eq!(node.vif_packets(LAN1), (9, 0, 9));
}

#[test]
fn a_label_that_leads_elsewhere_takes_the_rules_back() {
    let (mut node, id, underlay) = offloaded(1);
    node.change(
        r#"{"vrfs": [{"id": 19}], "nexthops": [{"id": 600, "policy": true, "vrfTranslate": {"vrf": 19}}],
        "labels": [{"label": 279, "nexthop": 600}, {"label": 281, "nexthop": 513}]}"#,
    );
    assert_eq!(node.asked_remove(), id);
    node.gone(id);
    // By the new label the flow is seen again, and asked for anew.
    let answer = udp(SERVER, CLIENT, 9, 1, b"answer").ip();
    let stack = [common::packets::entry(281, 0, true, 63)];
    let frame = common::packets::mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &stack, &answer);
    for _ in 0..2 {
        only(node.receive(underlay, &from_underlay(underlay, &frame.ip())));
    }
    node.wait(1500);
    let (other, directions) = node.asked_install();
    assert_eq!(both(directions).1.arrival.tunnel.unwrap().label.get(), 281);
    assert_ne!(other, id);
}

#[test]
fn rules_that_lead_to_a_neighbour_not_known_any_more_are_taken_back() {
    let (mut node, id, underlay) = offloaded(1);
    node.change(r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.100.100/32"}]}"#);
    assert_eq!(node.asked_remove(), id);
    node.gone(id);
    node.wait(500);
    node.asked_nothing();
    let answer = udp(SERVER, CLIENT, 9, 1, b"answer");
    let sent = node.receive(underlay, &out_of_tunnel_on(underlay, &answer));
    assert_eq!(Frame::read(sent[0].packet.data()).ethertype, 0x0806, "asked for");
}

/// An ARP request of the client to its gateway, by which it is learnt.
fn client_asks(mac: [u8; 6]) -> Vec<u8> {
    let [client, gateway] = [CLIENT, GATEWAY1].map(|text| text.parse::<std::net::Ipv4Addr>().unwrap().octets());
    let fixed = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &mac, &fixed, &mac, &client, &[0; 6], &gateway].concat()
}

#[test]
fn case_08_rules_toward_a_neighbour_end_with_its_link_and_come_back() {
    const NEW_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
    let learnt = altered(CE1, &[(r#"{"vrf": 18, "prefix": "192.168.100.100/32", "nexthop": 514},"#, "")]);
    let mut node = Node::with(&learnt, with_engine());
    node.receive(LAN1, &client_asks(CLIENT_MAC));
    let underlay = converse(&mut node, 1);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    node.machine.set_up(vif(LAN1), false, node.now);
    assert_eq!(node.asked_remove(), id);
    node.gone(id);
    node.machine.set_up(vif(LAN1), true, node.now);
    let answer = udp(SERVER, CLIENT, 9, 1, b"answer");
    let sent = node.receive(underlay, &out_of_tunnel_on(underlay, &answer));
    assert_eq!(Frame::read(sent[0].packet.data()).ethertype, 0x0806, "asked for");
    let sent = node.receive(LAN1, &client_asks(NEW_MAC));
    let frames: Vec<Frame> = sent.iter().map(|sent| Frame::read(sent.packet.data())).collect();
    assert!(frames.iter().any(|frame| frame.destination == NEW_MAC && frame.ethertype == 0x0800), "{frames:?}");
    node.wait(1500);
    converse(&mut node, 1);
    node.wait(1500);
    let (_, directions) = node.asked_install();
    let header = node.machine.control().snapshot().vif(vif(LAN1)).unwrap().header_to(MacAddr(NEW_MAC)).unwrap();
    let (one, other) = both(directions);
    assert!([one, other].iter().any(|direction| direction.program.ops.list().contains(&Op::RewriteL2(header))));
}

#[test]
fn changes_in_quick_succession_keep_no_flow_waiting() {
    let mut node = Node::with(CE1, with_engine());
    for sport in 1..4000 {
        converse(&mut node, sport);
    }
    assert_eq!(node.asked().len(), 3999);
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 555}]}"#);
    node.change(r#"{"vrfs": [{"id": 77}]}"#);
    let mut again: Vec<OffloadId> = node.asked().iter().filter_map(Request::id).collect();
    again.sort_unstable();
    again.dedup();
    assert_eq!(again.len(), 3999);
}

#[test]
fn a_vif_that_goes_takes_its_flows_and_their_rules() {
    let (mut node, id, _) = offloaded(1);
    node.change(
        r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.100.100/32"}, {"vrf": 18, "prefix": "192.168.100.0/24"},
        {"vrf": 18, "prefix": "2001:db8:100::100/128"}, {"vrf": 18, "prefix": "2001:db8:100::/64"}],
        "removeNexthops": [514, 515], "removeVifs": [100]}"#,
    );
    assert_eq!(node.asked_remove(), id);
    assert!(!node.has_flow(1));
    node.nic_counts(id, 0, 2, 200);
    node.gone(id);
}

#[test]
fn rules_for_clear_packets_go_when_their_source_moves_into_ipsec() {
    // By its route, and by the nexthop of the tunnel that leads back.
    let ipsec = r#""vifs": [{"id": 9, "name": "ipsec", "type": "TUNNEL", "vrf": 8, "mtu": 1400, "tunnel": {"source": "172.28.13.36",
        "destination": "203.0.113.1", "vrf": 8}}], "nexthops": [{"id": 95, "vrf": 8, "encap": {"oif": 9}}"#;
    for change in [
        format!(r#"{{{ipsec}], "routes": [{{"vrf": 8, "prefix": "10.101.9.245/32", "nexthop": 95}}]}}"#),
        format!(
            r#"{{{ipsec}, {{"id": 489, "vrf": 8, "tunnel": {{"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.245",
            "directNexthop": 95}}}}]}}"#
        ),
    ] {
        let (mut node, id, underlay) = offloaded(1);
        node.change(&change);
        assert_eq!(node.asked_remove(), id);
        node.gone(id);
        let answer = udp(SERVER, CLIENT, 9, 1, b"answer");
        assert!(node.receive(underlay, &out_of_tunnel_on(underlay, &answer)).is_empty());
        assert_eq!(node.drops(DropReason::Unprotected), 1, "{:?}", node.all_drops());
        node.wait(2000);
        node.asked_nothing();
    }
}
