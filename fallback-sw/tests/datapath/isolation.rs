//! Isolation: tenants with the same addresses never meet.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{answered, by_flow, refused, walked},
    packets::{Mac, Packet, Tunnelled, VRRP, echo_request, entry, eth, mpls_udp, syn, udp},
    walk_a::{CE1, CLIENT, CLIENT6, GATEWAY1, SERVER, SERVER6, TUNNEL1, TUNNEL2, UNDERLAYS, from_underlay, only},
};

/// LAN, station, label into the VRF and label out of it, for each tenant.
pub(crate) const BLUE: (u32, Mac, u32, u32) = (100, [0x00, 0x0c, 0x29, 0x00, 0x01, 0x64], 279, 280);
pub(crate) const GREEN: (u32, Mac, u32, u32) = (101, [0x00, 0x0c, 0x29, 0x00, 0x02, 0x64], 281, 282);

/// CE1 with a second tenant, VRF 19, whose addresses are those of the first.
fn node() -> Node {
    node_with("")
}

/// The same with these settings.
pub(crate) fn node_with(settings: &str) -> Node {
    Node::altered(
        CE1,
        &[
            (r#""generation": "1","#, &format!(r#""generation": "1", "settings": {{{settings}}},"#)),
            ("{\"id\": 18, \"name\": \"blue\"}", r#"{"id": 18, "name": "blue"}, {"id": 19, "name": "green"}"#),
            (
                "\"vifs\": [",
                r#""vifs": [{"id": 101, "name": "lan2", "type": "VIRTUAL", "vrf": 19, "flags": {"policy": true},
                   "addresses": ["192.168.100.1/24", "2001:db8:100::1/64"]},"#,
            ),
            (
                "\"nexthops\": [",
                r#""nexthops": [
                   {"id": 613, "policy": true, "vrfTranslate": {"vrf": 19}},
                   {"id": 614, "vrf": 19, "encap": {"oif": 101, "encapData": "000c29000264 00005e000100 0800"}},
                   {"id": 615, "vrf": 19, "resolve": {"oif": 101}},"#,
            ),
            (
                "\"routes\": [",
                r#""routes": [
                   {"vrf": 19, "prefix": "192.168.100.100/32", "nexthop": 614},
                   {"vrf": 19, "prefix": "192.168.100.0/24", "nexthop": 615},
                   {"vrf": 19, "prefix": "2001:db8:100::100/128", "nexthop": 614},
                   {"vrf": 19, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 282},
                   {"vrf": 19, "prefix": "2001:db8:1::/64", "nexthop": 489, "label": 282},"#,
            ),
            ("\"labels\": [", "\"labels\": [{\"label\": 281, \"nexthop\": 613}, "),
        ],
    )
}

fn up((_, mac, ..): (u32, Mac, u32, u32), packet: &Packet) -> Vec<u8> {
    eth(VRRP, mac, &packet.ip())
}

pub(crate) fn down((_, _, label, _): (u32, Mac, u32, u32), packet: &Packet) -> Vec<u8> {
    from_underlay(
        UNDERLAYS[0],
        &mpls_udp(TUNNEL2, TUNNEL1, (50000, 6635), &[entry(label, 0, true, 63)], &packet.ip()).ip(),
    )
}

#[test]
fn equal_addresses_and_ports_in_two_vrfs_are_two_flows() {
    let mut node = node();
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let before = node.flow_records();
        let (request, reply) = (udp(c, s, 1, 2, b"x"), udp(s, c, 2, 1, b"x"));
        for moved in [walked(), by_flow()] {
            for tenant in [BLUE, GREEN] {
                let (_, frame) = only(node.expect(tenant.0, &up(tenant, &request), &moved));
                assert_eq!(Tunnelled::read(frame.ip()).label, tenant.3);
            }
        }
        for tenant in [BLUE, GREEN] {
            let (out, frame) = only(node.expect(UNDERLAYS[0], &down(tenant, &reply), &by_flow()));
            assert_eq!((out, frame.destination), (tenant.0, tenant.1));
        }
        assert_eq!(node.flow_records(), before + 4);
    }
    assert_eq!(node.all_drops(), []);
}

#[test]
fn the_reply_of_one_tenant_is_none_for_the_other() {
    let mut node = node();
    only(node.expect(BLUE.0, &up(BLUE, &syn(CLIENT, SERVER, 1, 2)), &walked()));
    // The same tuple out of the other tenant's label begins a flow there; blue's is as it was.
    let (out, frame) = only(node.expect(UNDERLAYS[0], &down(GREEN, &udp(SERVER, CLIENT, 2, 1, b"x")), &walked()));
    assert_eq!((out, frame.destination), (GREEN.0, GREEN.1));
    let (out, _) = only(node.expect(UNDERLAYS[0], &down(BLUE, &udp(SERVER, CLIENT, 2, 1, b"x")), &walked()));
    assert_eq!(out, BLUE.0);
    assert_eq!(node.flow_records(), 6);
}

#[test]
fn the_gateway_answers_each_tenant_on_its_own_lan() {
    let mut node = node();
    for tenant in [BLUE, GREEN, BLUE] {
        let (out, frame) = only(node.expect(tenant.0, &up(tenant, &echo_request(CLIENT, GATEWAY1, 1, 1)), &answered()));
        assert_eq!((out, frame.destination), (tenant.0, tenant.1));
    }
}

#[test]
fn what_changes_for_one_tenant_is_nothing_to_the_other() {
    let mut node = node();
    let packet = udp(CLIENT, SERVER, 1, 2, b"x");
    for tenant in [BLUE, GREEN] {
        only(node.expect(tenant.0, &up(tenant, &packet), &walked()));
    }
    node.change(r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.1.0/24"}]}"#);
    node.expect(BLUE.0, &up(BLUE, &packet), &refused(DropReason::NoRoute));
    let (_, frame) = only(node.expect(GREEN.0, &up(GREEN, &packet), &by_flow()));
    assert_eq!(Tunnelled::read(frame.ip()).label, GREEN.3);
}

#[test]
fn a_tenant_has_no_way_to_the_underlay() {
    let mut node = node();
    for (to, port) in [("172.28.13.36", 22), (TUNNEL1, 6635), (TUNNEL2, 6635)] {
        node.expect(BLUE.0, &up(BLUE, &udp(CLIENT, to, 1, port, b"x")), &refused(DropReason::NoRoute));
    }
}
