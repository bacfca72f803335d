//! Routes and nexthops: the longest prefix, what covers it, and chains that end nowhere.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{by_flow, refused, walked},
    packets::{Frame, Mac, Tunnelled, VRRP, eth, udp},
    walk_a::{CE1, CLIENT, CLIENT6, LAN1, SERVER, SERVER6, from_client, only},
};

const ROUTES: &str = "\"routes\": [";
const NEXTHOPS: &str = "\"nexthops\": [";

fn packet(to: &str) -> Vec<u8> {
    let client = if to.contains(':') { CLIENT6 } else { CLIENT };
    from_client(&udp(client, to, 1, 2, b"x").ip())
}

fn label(node: &mut Node, to: &str) -> u32 {
    let (_, frame) = only(node.receive(LAN1, &packet(to)));
    Tunnelled::read(frame.ip()).label
}

/// CE1 with a route for each prefix to the tunnel, told apart by label.
fn with_routes(routes: &[(&str, u32)]) -> Node {
    let routes: Vec<String> = routes
        .iter()
        .map(|(prefix, label)| format!(r#"{{"vrf": 18, "prefix": "{prefix}", "nexthop": 489, "label": {label}}}, "#))
        .collect();
    Node::altered(CE1, &[(ROUTES, &format!("{ROUTES}{}", routes.concat()))])
}

#[test]
fn the_longest_prefix_wins_in_both_families() {
    let v4 =
        [("0.0.0.0/0", 500), ("10.0.0.0/8", 508), ("10.1.0.0/16", 516), ("10.1.2.0/24", 524), ("10.1.2.3/32", 532)];
    let v6 =
        [("::/0", 600), ("fd00::/16", 616), ("fd00:1::/32", 632), ("fd00:1:2::/48", 648), ("fd00:1:2::3/128", 699)];
    let mut node = with_routes(&[v4, v6].concat());
    let cases = [
        ("9.9.9.9", 500),
        ("10.2.0.1", 508),
        ("10.1.3.1", 516),
        ("10.1.2.4", 524),
        ("10.1.2.2", 524),
        ("10.1.2.3", 532),
        ("11.0.0.0", 500),
        ("10.255.255.254", 508),
        ("2001:db8::1", 600),
        ("fd00:2::1", 616),
        ("fd00:1:3::1", 632),
        ("fd00:1:2::4", 648),
        ("fd00:1:2::3", 699),
        ("fd01::1", 600),
    ];
    for (to, expected) in cases {
        assert_eq!(label(&mut node, to), expected, "{to}");
    }
    assert_eq!(node.all_drops(), []);
}

#[test]
fn deleting_a_route_restores_the_covering_one_with_its_label() {
    for (wide, narrow, to) in [("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3"), ("fd00::/16", "fd00:1::/32", "fd00:1::3")] {
        let mut node = with_routes(&[(wide, 508), (narrow, 516)]);
        assert_eq!(label(&mut node, to), 516);
        let removal = |prefix: &str| format!(r#"{{"removeRoutes": [{{"vrf": 18, "prefix": "{prefix}"}}]}}"#);
        node.change(&removal(narrow));
        // The flow that is there goes the other way; no packet is lost.
        let (_, frame) = only(node.expect(LAN1, &packet(to), &by_flow()));
        assert_eq!(Tunnelled::read(frame.ip()).label, 508);
        node.change(&format!(r#"{{"routes": [{{"vrf": 18, "prefix": "{narrow}", "nexthop": 489, "label": 517}}]}}"#));
        assert_eq!(label(&mut node, to), 517);

        node.change(&removal(narrow));
        node.change(&removal(wide));
        node.expect(LAN1, &packet(to), &refused(DropReason::NoRoute));
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn a_destination_without_a_route_has_no_route() {
    for to in ["10.1.2.3", "fd00::1"] {
        Node::new(CE1).expect(LAN1, &packet(to), &refused(DropReason::NoRoute));
    }
}

#[test]
fn a_route_to_nexthop_0_is_no_route_and_hides_the_covering_one() {
    let mut node = with_routes(&[("10.0.0.0/8", 508)]);
    assert_eq!(label(&mut node, "10.1.2.3"), 508);
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "10.1.0.0/16", "nexthop": 0}]}"#);
    node.expect(LAN1, &packet("10.1.2.3"), &refused(DropReason::NoRoute));
    node.expect(LAN1, &packet("10.1.2.4"), &refused(DropReason::NoRoute));
    assert_eq!(label(&mut node, "10.2.2.3"), 508);
}

#[test]
fn a_drop_nexthop_discards_and_one_that_is_not_valid_is_an_invalid_nh() {
    let drop = "{\"id\": 37, \"drop\": {}}, {\"id\": 38, \"vrf\": 18, \"invalid\": true, \"encap\": {\"oif\": 100, \"encapData\": \"000c29000164 00005e000100 0800\"}}, ";
    for (nexthop, reason) in [(37, DropReason::Discard), (38, DropReason::InvalidNh)] {
        let route = format!(r#"{{"vrf": 18, "prefix": "10.0.0.0/8", "nexthop": {nexthop}}}, "#);
        let mut node =
            Node::altered(CE1, &[(ROUTES, &format!("{ROUTES}{route}")), (NEXTHOPS, &format!("{NEXTHOPS}{drop}"))]);
        for _ in 0..2 {
            node.expect(LAN1, &packet("10.1.2.3"), &refused(reason));
        }
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn a_flow_is_dropped_while_its_nexthop_is_invalid_and_no_longer() {
    let mut node = Node::new(CE1);
    let tunnel = |invalid: bool| {
        format!(
            r#"{{"nexthops": [{{"id": 489, "vrf": 8, "invalid": {invalid}, "tunnel": {{"type": "MPLS_O_UDP", "sip": "10.101.10.39",
               "dip": "10.101.9.245", "directNexthop": 532}}}}]}}"#
        )
    };
    for to in [SERVER, SERVER6] {
        only(node.expect(LAN1, &packet(to), &walked()));
        node.change(&tunnel(true));
        node.expect(LAN1, &packet(to), &refused(DropReason::InvalidNh));
        node.change(&tunnel(false));
        only(node.expect(LAN1, &packet(to), &walked()));
    }
}

#[test]
fn a_connected_neighbour_is_asked_for_and_then_written_to() {
    let mut node = Node::new(CE1);
    // The client's neighbour asks a host of the same site through the gateway.
    let neighbour: Mac = [0x02, 0, 0, 0, 0, 0x32];
    let sent = node.receive(LAN1, &packet("192.168.100.50"));
    let asked = Frame::read(sent[0].packet.data());
    assert_eq!((sent.len(), asked.ethertype, asked.destination, asked.source), (1, 0x0806, [0xff; 6], VRRP));
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &VRRP, &[192, 168, 100, 1], &[0; 6], &[192, 168, 100, 50]].concat();
    assert_eq!(asked.payload[..28], body);
    assert_eq!((node.machine.held(), node.flow_records()), (1, 0));

    let reply = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &neighbour, &[192, 168, 100, 50], &VRRP, &[192, 168, 100, 1]].concat();
    let sent = node.receive(LAN1, &[&VRRP[..], &neighbour, &[8, 6], &reply].concat());
    let (out, frame) = only(sent);
    assert_eq!((out, frame.destination, frame.source, frame.ip().ttl), (LAN1, neighbour, VRRP, 63));
    assert_eq!(node.machine.held(), 0);
    only(node.expect(LAN1, &packet("192.168.100.50"), &by_flow()));
    assert_eq!(node.all_drops(), []);
}

#[test]
fn the_broadcast_address_of_a_subnet_is_nobody() {
    let mut node = Node::new(CE1);
    for to in ["192.168.100.255", "192.168.100.0"] {
        node.expect(LAN1, &packet(to), &refused(DropReason::McastUnsupported));
    }
}

#[test]
fn a_frame_of_the_flow_is_the_same_as_the_first_one() {
    let mut node = Node::new(CE1);
    let frame = eth(VRRP, [2, 0, 0, 0, 0, 1], &udp(CLIENT, SERVER, 1, 2, b"x").ip());
    let (first, later) = (only(node.receive(LAN1, &frame)), only(node.receive(LAN1, &frame)));
    let (first_in, later_in) = (Tunnelled::read(first.1.ip()), Tunnelled::read(later.1.ip()));
    assert_eq!(first.0, later.0);
    assert_eq!(
        (first_in.inner.octets, first_in.sport, first_in.label, first_in.ttl),
        (later_in.inner.octets, later_in.sport, later_in.label, later_in.ttl)
    );
}
