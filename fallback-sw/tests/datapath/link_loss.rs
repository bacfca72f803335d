//! What was learnt on a link ends with the link (RFC 1122 §2.3.2.1).

use crate::{
    common::{
        Node,
        packets::{VRRP, addr, entry, eth, mpls_udp, udp},
        vif,
        walk_a::{
            CE1, CE2, CLIENT, CLIENT_MAC, GATEWAY1, GATEWAY1_6, GATEWAY2, LABEL2, LAN1, LAN2, LAN2_MAC, TUNNEL1,
            TUNNEL2, UNDERLAYS, from_client, from_underlay, only,
        },
    },
    neighbours::{
        BROADCAST, HOST, HOST_MAC, HOST6, NEW_MAC, advertisement, arp_frame, arp_octets, from_tunnel, i_have, known,
        sent_octets, who_has,
    },
};

/// CE2's sub-interface toward the server, as the state numbers it.
const VLAN_VIF: u32 = 12;

fn set_up(node: &mut Node, port: u32, up: bool) {
    node.now += 10;
    node.machine.set_up(vif(port), up, node.now);
}

fn down_and_up(node: &mut Node, port: u32) {
    set_up(node, port, false);
    set_up(node, port, true);
}

#[test]
fn case_08_a_station_replaced_while_the_link_was_down_is_found_at_once() {
    let mut node = Node::new(CE1);
    node.receive(LAN1, &who_has(HOST, GATEWAY1));
    node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"a"));
    node.receive(LAN1, &eth(VRRP, HOST_MAC, &advertisement(HOST6, GATEWAY1_6, 0x60, HOST6, HOST_MAC)));
    // Flows in both families, and one without policy of its own.
    let down = [from_tunnel(HOST, b"1"), from_tunnel(HOST6, b"2")];
    for frame in &down {
        assert_eq!(only(node.receive(UNDERLAYS[0], frame)).1.destination, HOST_MAC);
    }
    set_up(&mut node, LAN1, false);
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 0);
    for frame in &down {
        assert_eq!(node.receive(UNDERLAYS[0], frame).len(), 0);
    }
    assert_eq!(node.all_drops(), [("Interface Down", 2)], "while it is down");
    set_up(&mut node, LAN1, true);
    let ask = arp_frame(BROADCAST, VRRP, None, &arp_octets(1, (VRRP, GATEWAY1), ([0; 6], HOST)));
    assert_eq!(sent_octets(&node.receive(UNDERLAYS[0], &down[0])), [(LAN1, ask)]);
    let (_, solicitation) = only(node.receive(UNDERLAYS[0], &down[1]));
    assert_eq!((solicitation.ip().icmp(), solicitation.ip().dst), ((135, 0), addr("ff02::1:ff00:7")));
    let (_, frame) = only(node.receive(LAN1, &i_have(NEW_MAC, HOST)));
    assert_eq!((frame.destination, frame.ip().body[8]), (NEW_MAC, b'1'));
    let told = eth(VRRP, NEW_MAC, &advertisement(HOST6, GATEWAY1_6, 0x60, HOST6, NEW_MAC));
    let (_, frame) = only(node.receive(LAN1, &told));
    assert_eq!((frame.destination, frame.ip().body[8]), (NEW_MAC, b'2'));
    for frame in &down {
        assert_eq!(only(node.receive(UNDERLAYS[0], frame)).1.destination, NEW_MAC, "the flows go on");
    }
}

#[test]
fn a_link_that_was_down_for_a_moment_is_asked_on_anew() {
    let mut node = Node::new(CE1);
    node.receive(LAN1, &who_has(HOST, GATEWAY1));
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"1")).len(), 1);
    down_and_up(&mut node, LAN1);
    let sent = node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"2"));
    assert_eq!(only(sent).1.destination, BROADCAST);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn sub_interfaces_lose_neighbours_with_the_device_and_others_do_not() {
    let mut node = Node::new(CE2);
    let host = "192.168.1.9";
    let asks =
        |target: &str| arp_frame(BROADCAST, HOST_MAC, Some(300), &arp_octets(1, (HOST_MAC, host), ([0; 6], target)));
    node.receive(LAN2, &asks(GATEWAY2));
    assert_eq!(known(&node, VLAN_VIF, host), Some(HOST_MAC));
    down_and_up(&mut node, UNDERLAYS[0]);
    assert_eq!(known(&node, VLAN_VIF, host), Some(HOST_MAC), "another link");
    down_and_up(&mut node, LAN2);
    assert_eq!(known(&node, VLAN_VIF, host), None);
    let stack = [entry(LABEL2, 0, true, 63)];
    let packet = mpls_udp(TUNNEL1, TUNNEL2, (50_000, 6635), &stack, &udp(CLIENT, host, 1, 2, b"x").ip()).ip();
    let ask = arp_frame(BROADCAST, LAN2_MAC, Some(300), &arp_octets(1, (LAN2_MAC, GATEWAY2), ([0; 6], host)));
    let sent = node.receive(UNDERLAYS[1], &from_underlay(UNDERLAYS[1], &packet));
    assert_eq!(sent_octets(&sent), [(LAN2, ask)]);
}

#[test]
fn packets_held_for_a_link_that_goes_down_are_dropped_without_questions() {
    let mut node = Node::new(CE1);
    node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"1"));
    assert_eq!(node.machine.held(), 1);
    set_up(&mut node, LAN1, false);
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Interface Down", 1)]));
    assert_eq!(node.wait(5000).len(), 0);
}

#[test]
fn what_is_configured_stays_when_the_link_returns() {
    let mut node = Node::new(CE1);
    down_and_up(&mut node, LAN1);
    let (_, frame) = only(node.receive(UNDERLAYS[0], &from_tunnel(CLIENT, b"x")));
    assert_eq!(frame.destination, CLIENT_MAC);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn a_vif_that_is_put_on_another_link_forgets_who_was_on_the_old_one() {
    let lan = |name: &str, more: &str| {
        format!(
            r#"{{"vifs": [{{"id": 100, "name": "{name}", "type": "VIRTUAL", "vrf": 18, "flags": {{"policy": true}}{more}}}]}}"#
        )
    };
    let both = r#", "addresses": ["192.168.100.1/24", "2001:db8:100::1/64"]"#;
    let begun = || {
        let mut node = Node::new(CE1);
        node.receive(LAN1, &who_has(HOST, GATEWAY1));
        assert_eq!(known(&node, LAN1, HOST), Some(HOST_MAC));
        node
    };
    // Another device.
    let mut node = begun();
    node.change(&lan("lan", &format!(r#"{both}, "device": "eth9""#)));
    assert_eq!(known(&node, LAN1, HOST), None);
    // Another subnet, so that it is not on the link any more.
    let mut node = begun();
    node.change(&lan("lan", r#", "addresses": ["192.168.77.1/24", "2001:db8:100::1/64"]"#));
    assert_eq!(known(&node, LAN1, HOST), None);
    // Its address is the node's own now.
    let mut node = begun();
    node.change(&lan("lan", &format!(r#", "addresses": ["192.168.100.1/24", "{HOST}/24"]"#)));
    assert_eq!(known(&node, LAN1, HOST), None);
    // Another MTU is the same link.
    let mut node = begun();
    node.change(&lan("lan", &format!(r#"{both}, "mtu": 1400"#)));
    assert_eq!(known(&node, LAN1, HOST), Some(HOST_MAC));
    assert_eq!(node.receive(LAN1, &from_client(&udp(CLIENT, HOST, 1, 2, b"x").ip())).len(), 1);
}

#[test]
fn a_sub_interface_with_another_tag_is_another_link() {
    let mut node = Node::new(CE2);
    let ask = arp_frame(BROADCAST, HOST_MAC, Some(300), &arp_octets(1, (HOST_MAC, "192.168.1.9"), ([0; 6], GATEWAY2)));
    node.receive(LAN2, &ask);
    assert_eq!(known(&node, VLAN_VIF, "192.168.1.9"), Some(HOST_MAC));
    node.change(
        r#"{"vifs": [{"id": 12, "name": "eth1.301", "type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {"vid": 301}, "vrf": 18,
          "flags": {"policy": true}, "addresses": ["192.168.1.1/24", "2001:db8:1::1/64"]}],
          "nexthops": [{"id": 577, "vrf": 18, "encap": {"oif": 12, "encapData": "000c299b6969 000c290ff4a1 8100 012d 0800"}}]}"#,
    );
    assert_eq!(known(&node, VLAN_VIF, "192.168.1.9"), None);
}
