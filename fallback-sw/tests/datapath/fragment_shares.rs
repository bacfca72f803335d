//! The tables of fragments are shared among tenants: what one of them fills is its own.

use crate::common::{
    Node,
    packets::{Packet, VRRP, echo_request, entry, eth, mpls_udp, udp},
    walk_a::{
        CE1, CLIENT, GATEWAY1, LABEL1, LAN1, SERVER, TUNNEL1, TUNNEL2, UNDERLAYS, altered, from_client, from_underlay,
    },
};

/// Another tenant's vif, and the label that leads into its VRF.
const OTHER: u32 = 101;
const OTHER_LABEL: u32 = 281;

/// CE1 with another tenant, who uses the same addresses; eight datagrams and sixteen fragments find room.
fn node() -> Node {
    let settings = r#""settings": {"maxFragmentedDatagrams": 8, "maxHeld": 16, "maxFlows": 4096}, "vrfs": [{"id": 19, "name": "red"},"#;
    let vif = r#""vifs": [{"id": 101, "name": "other", "type": "VIRTUAL", "vrf": 19, "flags": {"policy": true},
      "addresses": ["192.168.100.1/24"]},"#;
    let nexthops = r#""nexthops": [{"id": 613, "policy": true, "vrfTranslate": {"vrf": 19}},
      {"id": 614, "vrf": 19, "encap": {"oif": 101, "encapData": "000c29000164 00005e000100 0800"}},
      {"id": 615, "vrf": 19, "resolve": {"oif": 101}},"#;
    let routes = r#""routes": [{"vrf": 19, "prefix": "192.168.100.0/24", "nexthop": 615},
      {"vrf": 19, "prefix": "192.168.100.100/32", "nexthop": 614},
      {"vrf": 19, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 282},"#;
    let labels = r#""labels": [{"label": 281, "nexthop": 613},"#;
    let changes = [
        (r#""vrfs": ["#, settings),
        (r#""vifs": ["#, vif),
        (r#""nexthops": ["#, nexthops),
        (r#""routes": ["#, routes),
        (r#""labels": ["#, labels),
    ];
    Node::new(&altered(CE1, &changes))
}

fn datagram(id: u16) -> Packet {
    udp(CLIENT, SERVER, 5000, 6000, &[7; 2000]).id(id)
}

fn pieces(packet: &Packet) -> [Packet; 3] {
    [packet.part(0, 800), packet.part(800, 1600), packet.part(1600, usize::MAX)]
}

fn from_other(packet: &Packet) -> Vec<u8> {
    eth(VRRP, [2, 0, 0, 0, 0, 0xbb], &packet.ip())
}

fn tunnelled(label: u32, packet: &Packet) -> Vec<u8> {
    let stack = [entry(label, 0, true, 63)];
    from_underlay(UNDERLAYS[0], &mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &stack, &packet.ip()).ip())
}

/// A flood of fragments that complete nothing: without heads, heads alone, or many of a few datagrams.
fn flood() -> Vec<(&'static str, Vec<Packet>)> {
    let many = |id: u16| (2..100).map(move |i| datagram(id).part(8 * i, 8 * i + 8));
    vec![
        ("without heads", (0..100).map(|id| datagram(id).part(800, 1600)).collect()),
        ("heads alone", (0..100).map(|id| datagram(id).part(0, 800)).collect()),
        ("many of a few", (0..4).flat_map(many).collect()),
    ]
}

#[test]
fn a_flood_of_one_tenants_fragments_costs_another_one_nothing() {
    for (what, flood) in flood() {
        let mut node = node();
        let attack = |node: &mut Node| flood.iter().for_each(|packet| _ = node.receive(OTHER, &from_other(packet)));
        let [head, middle, last] = pieces(&datagram(7)).map(|piece| from_client(&piece.ip()));
        attack(&mut node);
        assert_eq!(node.receive(LAN1, &last).len(), 0);
        attack(&mut node);
        assert_eq!(node.receive(LAN1, &middle).len(), 0);
        attack(&mut node);
        assert_eq!(node.receive(LAN1, &head).len(), 3, "{what}");
        // And in order.
        for piece in pieces(&datagram(8)).map(|piece| from_client(&piece.ip())) {
            assert_eq!(node.receive(LAN1, &piece).len(), 1, "{what}");
            attack(&mut node);
        }
        let table = node.machine.workers()[0].fragment_table();
        assert!(table.len() <= 8 && table.held() <= 16, "{what}");
    }
}

#[test]
fn tenants_behind_one_underlay_have_their_own_shares() {
    for (what, flood) in flood() {
        let mut node = node();
        let attack = |node: &mut Node| {
            flood.iter().for_each(|packet| _ = node.receive(UNDERLAYS[0], &tunnelled(OTHER_LABEL, packet)));
        };
        let whole = udp(SERVER, CLIENT, 5000, 6000, &[7; 2000]).id(7);
        let [head, middle, last] = pieces(&whole).map(|piece| tunnelled(LABEL1, &piece));
        assert_eq!(node.receive(UNDERLAYS[0], &last).len(), 0);
        attack(&mut node);
        assert_eq!(node.receive(UNDERLAYS[0], &middle).len(), 0);
        attack(&mut node);
        assert_eq!(node.receive(UNDERLAYS[0], &head).len(), 3, "{what}");
    }
}

#[test]
fn what_is_put_together_for_the_node_is_shared_too() {
    // Echo requests of both tenants to their gateways; the flood's are never whole.
    let mut node = node();
    let mut echo = echo_request(CLIENT, GATEWAY1, 1, 1);
    echo.body().extend([0; 1984]);
    let sum = checksum(echo.body());
    echo.body()[2..4].copy_from_slice(&sum.to_be_bytes());
    let attack = |node: &mut Node| {
        for id in 0..100 {
            node.receive(OTHER, &from_other(&echo.clone().id(id).part(0, 800)));
        }
    };
    for order in [[0, 1, 2], [2, 1, 0]] {
        let frames = pieces(&echo.clone().id(7)).map(|piece| from_client(&piece.ip()));
        let mut sent = Vec::new();
        for at in order {
            sent.extend(node.receive(LAN1, &frames[at]));
            attack(&mut node);
        }
        assert!(!sent.is_empty(), "answered, {order:?}: {:?}", node.all_drops());
    }
}

/// The checksum of an ICMP message whose own is set to what it was.
fn checksum(message: &mut [u8]) -> u16 {
    message[2..4].fill(0);
    let words = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[test]
fn the_same_link_local_addresses_on_two_links_are_two_datagrams() {
    for policy in ["true", "false"] {
        let vif = r#""vifs": [{"id": 101, "name": "other", "type": "VIRTUAL", "vrf": 18, "addresses": ["192.168.200.1/24"]},"#;
        let lan = format!(r#""flags": {{"policy": {policy}}}"#);
        let mut node = Node::new(&altered(CE1, &[(r#""flags": {"policy": true}"#, &lan), (r#""vifs": ["#, vif)]));
        // The node's address on both, by their MAC (RFC 4291 §2.5.1, appendix A).
        let mut echo = echo_request("fe80::9", "fe80::200:5eff:fe00:100", 1, 1).id(7);
        echo.body().extend([0; 1984]);
        let [head, middle, last] = pieces(&echo);
        node.receive(LAN1, &from_client(&head.ip()));
        // It overlaps the first and the second piece of what comes by the other link.
        node.receive(OTHER, &from_other(&echo.part(400, 1200)));
        node.receive(LAN1, &from_client(&middle.ip()));
        node.receive(LAN1, &from_client(&last.ip()));
        let errors = node.all_drops().iter().any(|(name, _)| *name == "Fragment errors");
        assert!(!errors, "policy {policy}: {:?}", node.all_drops());
        assert_eq!(node.machine.held(), 1, "the other link's, policy {policy}");
    }
}
