//! What is believed of a neighbour's address: RFC 4861 §7.2.3 to §7.2.5, §7.3 and appendix C, and the same for ARP.

use fallback_sw::node::neighbours::nud::State;

use crate::{
    common::{
        Node,
        packets::{Frame, Mac, VRRP, addr, eth, icmp, udp},
        vif,
        walk_a::{CE1, CLIENT, GATEWAY1, GATEWAY1_6, LAN1, UNDERLAYS, from_client, only},
    },
    neighbours::{
        HOST, HOST_MAC, HOST6, NEW_MAC, advertisement, arp_frame, arp_octets, from_tunnel, gratuitous, i_have, known,
        solicitation, who_has,
    },
};

/// Flags of an advertisement.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

fn state(node: &Node, address: &str) -> Option<State> {
    node.machine.control().neighbours().state((vif(LAN1), addr(address)))
}

/// State and MAC of the IPv6 host.
fn host6(node: &Node) -> (Option<State>, Option<Mac>) {
    (state(node, HOST6), known(node, LAN1, HOST6))
}

/// An advertisement to the node alone.
fn to_node(flags: u8, mac: Mac) -> Vec<u8> {
    eth(VRRP, mac, &advertisement(HOST6, GATEWAY1_6, flags, HOST6, mac))
}

/// An advertisement to all nodes.
fn to_all(flags: u8, mac: Mac) -> Vec<u8> {
    eth(ALL_NODES, mac, &advertisement(HOST6, "ff02::1", flags, HOST6, mac))
}

/// An advertisement without target link-layer address option, as the answer to a unicast solicitation may be (§4.4).
fn without_address(flags: u8) -> Vec<u8> {
    let target = HOST6.parse::<std::net::Ipv6Addr>().unwrap().octets();
    eth(VRRP, HOST_MAC, &icmp(HOST6, GATEWAY1_6, 136, 0, [flags, 0, 0, 0], &target).ttl(255).ip())
}

/// A node that has the host's answer to a question of its own.
fn resolved() -> Node {
    let mut node = Node::new(CE1);
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"1")).len(), 1, "the question");
    assert_eq!(node.receive(LAN1, &to_node(SOLICITED | OVERRIDE, HOST_MAC)).len(), 1, "the packet");
    assert_eq!(host6(&node), (Some(State::Reachable), Some(HOST_MAC)));
    node.now += 2000;
    node
}

#[test]
fn an_unsolicited_advertisement_completes_an_entry_and_is_probed() {
    for frame in [to_all(OVERRIDE, HOST_MAC), to_all(0, HOST_MAC), to_node(0, HOST_MAC)] {
        let mut node = Node::new(CE1);
        node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"x"));
        let (_, packet) = only(node.receive(LAN1, &frame));
        assert_eq!((packet.destination, packet.ip().body[8]), (HOST_MAC, b'x'));
        assert_eq!(host6(&node), (Some(State::Delay), Some(HOST_MAC)));
        // §7.3.3: five seconds later it is asked, alone.
        assert_eq!(node.wait(4900).len(), 0);
        let (_, probe) = only(node.wait(200));
        assert_eq!((probe.destination, probe.ip().dst, probe.ip().icmp()), (HOST_MAC, addr(HOST6), (135, 0)));
        assert_eq!(state(&node, HOST6), Some(State::Probe));
        node.receive(LAN1, &without_address(SOLICITED));
        assert_eq!(host6(&node), (Some(State::Reachable), Some(HOST_MAC)), "an answer needs no address");
    }
}

#[test]
fn an_advertisement_without_address_resolves_nothing() {
    let mut node = Node::new(CE1);
    node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"x"));
    assert_eq!(node.receive(LAN1, &without_address(SOLICITED | OVERRIDE)).len(), 0);
    assert_eq!(host6(&node), (Some(State::Incomplete), None));
}

#[test]
fn an_unsolicited_advertisement_makes_no_entry_whatever_it_claims() {
    let mut node = Node::new(CE1);
    for flags in [0, OVERRIDE, SOLICITED, SOLICITED | OVERRIDE, 0xe0] {
        assert_eq!(node.receive(LAN1, &to_node(flags, HOST_MAC)).len(), 0);
    }
    assert_eq!(node.receive(LAN1, &to_all(OVERRIDE, HOST_MAC)).len(), 0);
    assert_eq!(node.receive(LAN1, &i_have(HOST_MAC, HOST)).len(), 0, "an ARP reply neither");
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 0);
    assert_eq!((host6(&node), state(&node, HOST)), ((None, None), None));
    assert_eq!(node.machine.account().consumed, 7);
}

#[test]
fn without_override_a_new_mac_is_not_taken_and_the_known_one_is_probed() {
    for frame in [to_node(SOLICITED, NEW_MAC), to_node(0, NEW_MAC), to_all(0, NEW_MAC)] {
        let mut node = resolved();
        node.receive(LAN1, &frame);
        assert_eq!(host6(&node), (Some(State::Delay), Some(HOST_MAC)));
        let (_, packet) = only(node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"2")));
        assert_eq!(packet.destination, HOST_MAC);
        let (_, probe) = only(node.wait(5100));
        assert_eq!(probe.destination, HOST_MAC);
    }
}

#[test]
fn with_override_another_address_is_taken_and_asked_about() {
    for frame in [to_all(OVERRIDE, NEW_MAC), to_node(OVERRIDE, NEW_MAC), to_node(SOLICITED | OVERRIDE, NEW_MAC)] {
        let mut node = resolved();
        node.receive(LAN1, &frame);
        // No question is open: the solicited flag proves nothing.
        assert_eq!(host6(&node), (Some(State::Delay), Some(NEW_MAC)));
        let (_, packet) = only(node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"2")));
        assert_eq!(packet.destination, NEW_MAC);
        let (_, probe) = only(node.wait(5100));
        assert_eq!(probe.destination, NEW_MAC);
    }
}

#[test]
fn an_unsolicited_advertisement_of_the_known_address_is_no_confirmation() {
    let mut node = resolved();
    let confirmed = node.now;
    for _ in 0..20 {
        node.wait(1000);
        node.receive(LAN1, &to_all(OVERRIDE, HOST_MAC));
        node.receive(LAN1, &to_node(SOLICITED | OVERRIDE, HOST_MAC));
    }
    // Asked 30 s after its answer (2 s of which passed in `resolved`).
    let sent = node.wait(28_200 - (node.now - confirmed));
    assert_eq!(only(sent).1.destination, HOST_MAC);
}

#[test]
fn a_solicitation_makes_a_stale_entry_that_is_probed_and_forgotten() {
    let mut node = Node::new(CE1);
    let ask = solicitation(HOST6, "ff02::1:ff00:1", GATEWAY1_6, Some(HOST_MAC));
    assert_eq!(node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 0, 1], HOST_MAC, &ask)).len(), 1, "the answer");
    assert_eq!(host6(&node), (Some(State::Delay), Some(HOST_MAC)));
    // Used at once, without a question.
    let (_, packet) = only(node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"x")));
    assert_eq!(packet.destination, HOST_MAC);
    let probes: Vec<Frame> = node.wait(8200).iter().map(|sent| Frame::read(sent.packet.data())).collect();
    assert_eq!(probes.iter().map(|probe| probe.destination).collect::<Vec<_>>(), [HOST_MAC; 3]);
    assert_eq!(host6(&node), (None, None));
    // Another address in a later one is taken, too.
    let mut node = resolved();
    let ask = solicitation(HOST6, "ff02::1:ff00:1", GATEWAY1_6, Some(NEW_MAC));
    node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 0, 1], NEW_MAC, &ask));
    assert_eq!(host6(&node), (Some(State::Delay), Some(NEW_MAC)));
}

#[test]
fn a_solicitation_for_somebody_else_teaches_nothing() {
    let ask = solicitation(HOST6, "ff02::1:ff00:9", "2001:db8:100::9", Some(NEW_MAC));
    let frame = eth([0x33, 0x33, 0xff, 0, 0, 9], NEW_MAC, &ask);
    let mut node = Node::new(CE1);
    node.receive(LAN1, &frame);
    assert_eq!(host6(&node), (None, None));
    let mut node = resolved();
    node.receive(LAN1, &frame);
    assert_eq!(host6(&node), (Some(State::Reachable), Some(HOST_MAC)));
}

#[test]
fn arp_announcements_are_taken_and_asked_about() {
    let reply = arp_frame([0xff; 6], NEW_MAC, None, &arp_octets(2, (NEW_MAC, HOST), (NEW_MAC, HOST)));
    // A reply with another MAC to a question that was not asked.
    for frame in [gratuitous(NEW_MAC, HOST), reply, i_have(NEW_MAC, HOST)] {
        let mut node = Node::new(CE1);
        node.receive(LAN1, &who_has(HOST, GATEWAY1));
        assert_eq!(state(&node, HOST), Some(State::Reachable));
        node.receive(LAN1, &frame);
        assert_eq!((state(&node, HOST), known(&node, LAN1, HOST)), (Some(State::Delay), Some(NEW_MAC)));
        let ask = arp_frame(NEW_MAC, VRRP, None, &arp_octets(1, (VRRP, GATEWAY1), ([0; 6], HOST)));
        let sent = node.wait(5100);
        assert_eq!(sent.iter().map(|s| s.packet.data().to_vec()).collect::<Vec<_>>(), [ask]);
        node.receive(LAN1, &i_have(NEW_MAC, HOST));
        assert_eq!(state(&node, HOST), Some(State::Reachable));
    }
}

#[test]
fn two_stations_that_answer_are_settled_by_override() {
    // A proxy answers first (§7.2.8: without override), then the host itself.
    let mut node = Node::new(CE1);
    node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"x"));
    assert_eq!(only(node.receive(LAN1, &to_node(SOLICITED, NEW_MAC))).1.destination, NEW_MAC);
    node.receive(LAN1, &to_node(SOLICITED | OVERRIDE, HOST_MAC));
    assert_eq!(host6(&node), (Some(State::Reachable), Some(HOST_MAC)));
    // The other way round the host stays.
    let mut node = Node::new(CE1);
    node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"x"));
    node.receive(LAN1, &to_node(SOLICITED | OVERRIDE, HOST_MAC));
    node.receive(LAN1, &to_node(SOLICITED, NEW_MAC));
    assert_eq!(known(&node, LAN1, HOST6), Some(HOST_MAC));
}

#[test]
fn router_discovery_and_redirects_change_nothing() {
    let mut node = Node::new(CE1);
    for (kind, to, mac) in [(133, "ff02::2", [0x33, 0x33, 0, 0, 0, 2]), (134, "ff02::1", ALL_NODES)] {
        let mut body = vec![0; if kind == 134 { 8 } else { 0 }];
        body.extend([1, 1]);
        body.extend(HOST_MAC);
        let message = icmp("fe80::7", to, kind, 0, [0; 4], &body).ttl(255).ip();
        assert_eq!(node.receive(LAN1, &eth(mac, HOST_MAC, &message)).len(), 0);
    }
    assert_eq!(node.all_drops(), [("Multicast Unsupported", 2)]);
    let mut body = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9].to_vec();
    body.extend(CLIENT.parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets());
    let redirect = icmp("fe80::7", "fe80::200:5eff:fe00:100", 137, 0, [0; 4], &body).ttl(255).ip();
    node.receive(LAN1, &eth(VRRP, HOST_MAC, &redirect));
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 0);
    assert_eq!(only(node.receive(LAN1, &from_client(&udp(CLIENT, HOST, 1, 2, b"x").ip()))).1.source, VRRP);
}

/// A solicitation for the gateway, to it alone, without source link-layer address.
fn to_node_without_address() -> Vec<u8> {
    let target = GATEWAY1_6.parse::<std::net::Ipv6Addr>().unwrap().octets();
    eth(VRRP, HOST_MAC, &icmp(HOST6, GATEWAY1_6, 135, 0, [0; 4], &target).ttl(255).ip())
}

#[test]
fn a_solicitation_without_address_is_answered_to_who_sent_the_frame() {
    let mut node = Node::new(CE1);
    let (out, answer) = only(node.receive(LAN1, &to_node_without_address()));
    assert_eq!((out, answer.destination, answer.ip().icmp()), (LAN1, HOST_MAC, (136, 0)));
    assert_eq!(host6(&node), (None, None), "nothing is learnt from it");
    // Once the host is known, by what is known.
    let mut node = resolved();
    let (_, answer) = only(node.receive(LAN1, &to_node_without_address()));
    assert_eq!(answer.destination, HOST_MAC);
}

#[test]
fn discovery_with_a_fragment_header_is_ignored_also_when_it_is_whole() {
    // RFC 6980 §5.
    let behind = |ip: &[u8]| {
        let mut ip = ip.to_vec();
        ip.splice(40..40, [58, 0, 0, 0, 0, 0, 0, 7]);
        (ip[5], ip[6]) = (ip[5] + 8, 44);
        eth(VRRP, HOST_MAC, &ip)
    };
    let mut node = Node::new(CE1);
    node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"x"));
    let told = advertisement(HOST6, GATEWAY1_6, SOLICITED | OVERRIDE, HOST6, HOST_MAC);
    assert!(node.receive(LAN1, &behind(&told)).is_empty());
    assert!(node.receive(LAN1, &behind(&to_node_without_address()[14..])).is_empty());
    assert_eq!((host6(&node), node.all_drops()), ((Some(State::Incomplete), None), vec![("Invalid ND", 2)]));
}
