//! Gateways by address: who is asked, what serves all destinations, and what follows when the gateway changes or is gone.

use crate::common::{
    Node,
    account::{by_flow, walked},
    gateways::{arp, live, underlay_answer, underlay_gateways},
    packets::{Frame, ICMP, ICMP6, Ip, Mac, Tunnelled, addr, echo_request, eth, icmp, tagged, udp},
    vif,
    walk_a::{CE2, CLIENT, LAN1, LAN2, LAN2_MAC, SERVER, UNDERLAY_MACS, UNDERLAYS, from_client, only, workers},
};
use fallback_sw::node::machine::Sent;

const LAN: u32 = 1;
const WAN: u32 = 2;
const LAN_MAC: Mac = [2, 0, 0, 0, 0, 1];
const WAN_MAC: Mac = [2, 0, 0, 0, 0, 2];
const HOST: &str = "10.0.0.7";
const HOST6: &str = "2001:db8:1::7";
const HOST_MAC: Mac = [2, 0, 0, 0, 0, 7];
const OWN: &str = "198.51.100.1";
const GATEWAY: &str = "198.51.100.254";
const GATEWAY6: &str = "fe80::fe";
const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0, 0xfe];
const NEW_MAC: Mac = [2, 0, 0, 0, 0, 0xfd];
/// Link-local address of the WAN vif.
const OWN_LINK_LOCAL: &str = "fe80::ff:fe00:2";
const FAR: &str = "203.0.113.9";
const FAR6: &str = "2001:db8:ffff::9";

/// A router with a LAN, and all else behind a gateway for each family.
const ROUTER: &str = r#"{
  "generation": "1", "node": "router",
  "vrfs": [{"id": 1, "name": "main"}],
  "vifs": [
    {"id": 1, "name": "lan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 1, "flags": {"policy": true},
      "addresses": ["10.0.0.1/24", "2001:db8:1::1/64"]},
    {"id": 2, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1, "flags": {"policy": true},
      "addresses": ["198.51.100.1/24"]}
  ],
  "nexthops": [
    {"id": 10, "vrf": 1, "encap": {"oif": 1, "encapData": "020000000007 020000000001 0800"}},
    {"id": 11, "vrf": 1, "resolve": {"oif": 2}},
    {"id": 12, "vrf": 1, "resolve": {"oif": 2, "gateway": "198.51.100.254"}},
    {"id": 13, "vrf": 1, "resolve": {"oif": 2, "gateway": "fe80::fe"}}
  ],
  "routes": [
    {"vrf": 1, "prefix": "10.0.0.0/24", "nexthop": 10},
    {"vrf": 1, "prefix": "2001:db8:1::/64", "nexthop": 10},
    {"vrf": 1, "prefix": "198.51.100.0/24", "nexthop": 11},
    {"vrf": 1, "prefix": "0.0.0.0/0", "nexthop": 12},
    {"vrf": 1, "prefix": "::/0", "nexthop": 13}
  ]
}"#;

/// "Who has `gateway`?" of the WAN vif.
fn who_has(gateway: &str) -> Vec<u8> {
    arp(1, WAN_MAC, [0xff; 6], (OWN, WAN_MAC), (gateway, [0; 6]))
}

/// The gateway's answer.
fn i_have(gateway: &str, mac: Mac) -> Vec<u8> {
    arp(2, mac, WAN_MAC, (gateway, mac), (OWN, WAN_MAC))
}

fn gratuitous(address: &str, mac: Mac) -> Vec<u8> {
    arp(1, mac, [0xff; 6], (address, mac), (address, [0; 6]))
}

/// A solicited advertisement of the IPv6 gateway, with override.
fn advertised(mac: Mac) -> Vec<u8> {
    let target = GATEWAY6.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let body = [&target[..], &[2, 1], &mac].concat();
    eth(WAN_MAC, mac, &icmp(GATEWAY6, OWN_LINK_LOCAL, 136, 0, [0xe0, 0, 0, 0], &body).ttl(255).ip())
}

fn octets(sent: &[Sent]) -> Vec<(u32, Vec<u8>)> {
    sent.iter().map(|s| (u32::from(s.port.get()), s.packet.data().to_vec())).collect()
}

fn from_host(ip: &[u8]) -> Vec<u8> {
    eth(LAN_MAC, HOST_MAC, ip)
}

/// Destination MACs and IP packets of what was sent on the WAN, without what was asked.
fn carried(sent: &[Sent]) -> Vec<(Mac, Ip)> {
    let frames = sent.iter().filter(|s| s.port == vif(WAN)).map(|s| Frame::read(s.packet.data()));
    let ip = frames.filter(|frame| matches!(frame.ethertype, 0x0800 | 0x86dd)).map(|f| (f.destination, f.ip()));
    ip.filter(|(_, ip)| !(ip.proto == ICMP6 && ip.icmp().0 == 135)).collect()
}

/// With both gateways known.
fn resolved() -> Node {
    let mut node = Node::new(ROUTER);
    node.receive(LAN, &from_host(&udp(HOST, FAR, 1, 1, b"").ip()));
    node.receive(WAN, &i_have(GATEWAY, GATEWAY_MAC));
    node.receive(LAN, &from_host(&udp(HOST6, FAR6, 1, 1, b"").ip()));
    node.receive(WAN, &advertised(GATEWAY_MAC));
    assert_eq!(node.all_drops(), []);
    node
}

#[test]
fn the_gateway_is_resolved_in_place_of_the_destination_and_held_leave() {
    let mut node = Node::new(ROUTER);
    let first = udp(HOST, FAR, 5000, 53, b"first");
    assert_eq!(octets(&node.receive(LAN, &from_host(&first.ip()))), [(WAN, who_has(GATEWAY))]);
    // One to somewhere else waits for the same neighbour: nobody is asked again.
    let second = udp(HOST, "192.0.2.77", 5001, 53, b"second");
    assert_eq!(node.receive(LAN, &from_host(&second.ip())).len(), 0);
    let sent = node.receive(WAN, &i_have(GATEWAY, GATEWAY_MAC));
    let went: Vec<_> = carried(&sent).iter().map(|(mac, ip)| (*mac, ip.dst, ip.ttl)).collect();
    assert_eq!(went, [(GATEWAY_MAC, addr(FAR), 63), (GATEWAY_MAC, addr("192.0.2.77"), 63)]);
    // From now on all destinations go there at once, and the gateway is the only neighbour.
    for host in 1..=200u8 {
        let (port, frame) = only(node.expect(
            LAN,
            &from_host(&udp(HOST, &format!("203.0.113.{host}"), 5002, 53, b"x").ip()),
            &walked(),
        ));
        assert_eq!((port, frame.destination, frame.source), (WAN, GATEWAY_MAC, WAN_MAC));
    }
    node.expect(LAN, &from_host(&first.ip()), &by_flow());
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 1);
    // One program for each direction: whatever the destination, they are treated alike.
    assert!(node.machine.workers()[0].programs().iter().count() <= 3);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn an_ipv6_gateway_is_solicited_from_the_own_link_local_address() {
    let mut node = Node::new(ROUTER);
    let (port, frame) = only(node.receive(LAN, &from_host(&udp(HOST6, FAR6, 5000, 53, b"first").ip())));
    let asked = frame.ip();
    assert_eq!((port, frame.destination, frame.source), (WAN, [0x33, 0x33, 0xff, 0, 0, 0xfe], WAN_MAC));
    assert_eq!((asked.src, asked.dst, asked.ttl), (addr(OWN_LINK_LOCAL), addr("ff02::1:ff00:fe"), 255));
    assert_eq!((asked.proto, asked.icmp().0), (ICMP6, 135));
    let (mac, ip) = carried(&node.receive(WAN, &advertised(GATEWAY_MAC))).remove(0);
    assert_eq!((mac, ip.dst, ip.ttl), (GATEWAY_MAC, addr(FAR6), 63));
    assert_eq!(node.all_drops(), []);
}

#[test]
fn ipv4_goes_through_a_gateway_of_ipv6() {
    // RFC 8950, RFC 5549: the nexthop's family is not the packet's; the ethertype is that of the packet.
    let mut node = Node::altered(
        ROUTER,
        &[(r#""prefix": "0.0.0.0/0", "nexthop": 12"#, r#""prefix": "0.0.0.0/0", "nexthop": 13"#)],
    );
    let (_, frame) = only(node.receive(LAN, &from_host(&udp(HOST, FAR, 5000, 53, b"first").ip())));
    assert_eq!((frame.ip().proto, frame.ip().icmp().0), (ICMP6, 135));
    let sent = node.receive(WAN, &advertised(GATEWAY_MAC));
    let (_, frame) = only(sent);
    assert_eq!((frame.destination, frame.ethertype, frame.ip().dst), (GATEWAY_MAC, 0x0800, addr(FAR)));
    // IPv6 shares the neighbour.
    let (_, frame) = only(node.expect(LAN, &from_host(&udp(HOST6, FAR6, 5000, 53, b"x").ip()), &walked()));
    assert_eq!((frame.destination, frame.ethertype), (GATEWAY_MAC, 0x86dd));
}

#[test]
fn a_gateway_that_announces_another_mac_is_followed_by_every_flow() {
    let mut node = resolved();
    let flows: Vec<_> = (0..20u16).map(|n| udp(HOST, &format!("203.0.113.{n}"), 6000 + n, 53, b"x")).collect();
    for flow in &flows {
        node.expect(LAN, &from_host(&flow.ip()), &walked());
    }
    node.receive(WAN, &gratuitous(GATEWAY, NEW_MAC));
    for flow in &flows {
        let (_, frame) = only(node.expect(LAN, &from_host(&flow.ip()), &by_flow()));
        assert_eq!(frame.destination, NEW_MAC);
    }
    // The other gateway, on the same vif, is another neighbour.
    let (_, frame) = only(node.receive(LAN, &from_host(&udp(HOST6, FAR6, 1, 1, b"").ip())));
    assert_eq!(frame.destination, GATEWAY_MAC);
    node.receive(WAN, &advertised(NEW_MAC));
    let (_, frame) = only(node.receive(LAN, &from_host(&udp(HOST6, FAR6, 1, 1, b"").ip())));
    assert_eq!(frame.destination, NEW_MAC);
}

#[test]
fn answers_come_back_from_the_gateway_and_no_other_vif() {
    let mut node = resolved();
    node.expect(LAN, &from_host(&udp(HOST, FAR, 5000, 53, b"ask").ip()), &walked());
    let back = udp(FAR, HOST, 53, 5000, b"answer");
    let (port, frame) = only(node.expect(WAN, &eth(WAN_MAC, GATEWAY_MAC, &back.ip()), &by_flow()));
    assert_eq!((port, frame.destination), (LAN, HOST_MAC));
    // A source that the route leads to the gateway for may not come from the LAN.
    node.receive(LAN, &from_host(&udp(FAR, "203.0.113.10", 1, 1, b"").ip()));
    assert_eq!(node.all_drops(), [("Invalid Source", 1)]);
}

#[test]
fn a_packet_for_the_wans_own_address_is_not_handed_to_the_gateway() {
    let without = r#"{"vrf": 1, "prefix": "198.51.100.0/24", "nexthop": 11},"#;
    let mut node = Node::altered(ROUTER, &[(without, "")]);
    let (port, frame) = only(node.receive(LAN, &from_host(&echo_request(HOST, OWN, 1, 1).ip())));
    assert_eq!((port, frame.ip().icmp().0), (LAN, 0));
    // Nor is one for all of its subnet.
    node.receive(LAN, &from_host(&udp(HOST, "198.51.100.255", 1, 1, b"").ip()));
    assert_eq!(node.all_drops(), [("Multicast Unsupported", 1)]);
}

#[test]
fn what_the_node_makes_itself_goes_through_the_gateway_too() {
    let mut node = resolved();
    // An answer to an echo request, and to a packet whose TTL is over, from far away.
    let ask = eth(WAN_MAC, GATEWAY_MAC, &echo_request(FAR, OWN, 1, 1).ip());
    let (port, frame) = only(node.receive(WAN, &ask));
    assert_eq!((port, frame.destination, frame.ip().dst, frame.ip().icmp()), (WAN, GATEWAY_MAC, addr(FAR), (0, 0)));
    let (port, frame) = only(node.receive(WAN, &eth(WAN_MAC, GATEWAY_MAC, &udp(FAR, HOST, 1, 1, b"").ttl(1).ip())));
    assert_eq!((port, frame.destination, frame.ip().dst, frame.ip().icmp()), (WAN, GATEWAY_MAC, addr(FAR), (11, 0)));
    // They wait for it as others do.
    let mut node = Node::new(ROUTER);
    assert_eq!(octets(&node.receive(WAN, &ask)), [(WAN, who_has(GATEWAY))]);
    let (mac, ip) = carried(&node.receive(WAN, &i_have(GATEWAY, GATEWAY_MAC))).remove(0);
    assert_eq!((mac, ip.icmp()), (GATEWAY_MAC, (0, 0)));
}

#[test]
fn a_gateway_on_a_sub_interface_is_asked_and_reached_with_its_tag() {
    let mut node = Node::altered(
        CE2,
        &[
            (
                r#""nexthops": ["#,
                r#""nexthops": [{"id": 20, "vrf": 18, "resolve": {"oif": 12, "gateway": "192.168.1.254"}},"#,
            ),
            (r#""routes": ["#, r#""routes": [{"vrf": 18, "prefix": "0.0.0.0/0", "nexthop": 20},"#),
        ],
    );
    let ask =
        tagged(LAN2_MAC, [0, 0x0c, 0x29, 0x9b, 0x69, 0x69], &[(0x8100, 0, 300)], &udp(SERVER, FAR, 1, 1, b"").ip());
    let sent = node.receive(LAN2, &ask);
    let request = arp(1, LAN2_MAC, [0xff; 6], ("192.168.1.1", LAN2_MAC), ("192.168.1.254", [0; 6]));
    let with_tag = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0x01, 0x2c], &frame[12..]].concat();
    assert_eq!(octets(&sent), [(LAN2, with_tag(&request))]);
    let reply = arp(2, GATEWAY_MAC, LAN2_MAC, ("192.168.1.254", GATEWAY_MAC), ("192.168.1.1", LAN2_MAC));
    let (_, frame) = only(node.receive(LAN2, &with_tag(&reply)));
    assert_eq!((frame.destination, frame.ip().dst, frame.tags), (GATEWAY_MAC, addr(FAR), vec![(0x8100, 0, 300)]));
}

#[test]
fn the_outer_packets_of_an_mpls_tunnel_go_to_a_gateway() {
    let mut node = Node::new(&underlay_gateways());
    let inner = udp(CLIENT, SERVER, 5000, 53, b"x");
    let (port, asked) = only(node.receive(LAN1, &from_client(&inner.ip())));
    let at = UNDERLAYS.iter().position(|id| *id == port).unwrap();
    assert_eq!((asked.destination, asked.ethertype), ([0xff; 6], 0x0806));
    let (out, frame) = only(node.receive(port, &underlay_answer(at, GATEWAY_MAC)));
    assert_eq!((out, frame.destination, frame.source), (port, GATEWAY_MAC, UNDERLAY_MACS[at]));
    let tunnelled = Tunnelled::read(frame.ip());
    assert_eq!((tunnelled.outer.dst, tunnelled.inner.dst), (addr("10.101.9.245"), addr(SERVER)));
    // Its MAC is followed there as well.
    let announced = [("172.28.13.1"), ("172.28.14.1")][at];
    node.receive(port, &gratuitous(announced, NEW_MAC));
    let (_, frame) = only(node.expect(LAN1, &from_client(&inner.ip()), &by_flow()));
    assert_eq!(frame.destination, NEW_MAC);
}

#[test]
fn a_silent_gateway_is_asked_three_times_then_senders_get_unreachable() {
    let mut node = Node::new(ROUTER);
    let packets = [udp(HOST, FAR, 5000, 53, b"x"), udp(HOST6, FAR6, 5000, 53, b"x")];
    let mut asked = 0;
    for packet in &packets {
        asked += node.receive(LAN, &from_host(&packet.ip())).len();
    }
    let sent = node.wait(3500);
    let answers: Vec<_> =
        sent.iter().filter(|s| s.port == vif(LAN)).map(|s| Frame::read(s.packet.data()).ip()).collect();
    asked += sent.iter().filter(|s| s.port == vif(WAN)).count();
    // Each at most once a second (RFC 4861 §7.2.2).
    assert!((6..=8).contains(&asked), "{asked}");
    // Host unreachable (RFC 1812 §4.3.3.1), address unreachable (RFC 4443 §3.1).
    let told: Vec<_> = answers.iter().map(|ip| (ip.proto, ip.dst, ip.icmp())).collect();
    assert_eq!(told, [(ICMP, addr(HOST), (3, 1)), (ICMP6, addr(HOST6), (1, 3))]);
    assert_eq!(node.all_drops(), [("Neighbour Unresolved", 2)]);
    // A later packet asks again, and is sent when the gateway is there.
    assert!(node.receive(LAN, &from_host(&packets[0].ip())).len() <= 1);
    let (mac, ip) = carried(&node.receive(WAN, &i_have(GATEWAY, GATEWAY_MAC))).remove(0);
    assert_eq!((mac, ip.dst), (GATEWAY_MAC, addr(FAR)));
}

#[test]
fn all_workers_learn_a_gateway_that_one_of_them_has_asked_for() {
    let mut node = Node::with(ROUTER, workers(4));
    let packets: Vec<_> = (0..40u16).map(|n| udp(HOST, FAR, 7000 + n, 53, b"x")).collect();
    for packet in &packets {
        node.receive(LAN, &from_host(&packet.ip()));
    }
    let sent = node.receive(WAN, &i_have(GATEWAY, GATEWAY_MAC));
    // Each worker holds up to eight; the oldest have given way to the latest.
    let went = carried(&sent);
    assert!(went.len() >= 8 && went.iter().all(|(mac, _)| *mac == GATEWAY_MAC), "{}", went.len());
    for packet in &packets {
        let (port, frame) = only(node.receive(LAN, &from_host(&packet.ip())));
        assert_eq!((port, frame.destination), (WAN, GATEWAY_MAC));
    }
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 1);
}

/// The vif that a flow's packet leaves on.
fn way(node: &mut Node, flow: u16) -> u32 {
    only(node.receive(LAN1, &from_client(&udp(CLIENT, SERVER, 1000 + flow, 53, b"x").ip()))).0
}

#[test]
fn a_gateway_is_asked_for_before_any_packet_needs_it() {
    let mut node = Node::new(&underlay_gateways());
    live(&mut node, 300, [true, true]);
    // All leave at once.
    assert!((0..40).map(|flow| way(&mut node, flow)).any(|vif| vif == UNDERLAYS[0]));
    assert_eq!(node.all_drops(), []);
}

#[test]
fn of_two_gateways_the_dead_one_loses_its_flows_and_gets_them_back() {
    let mut node = Node::new(&underlay_gateways());
    live(&mut node, 1000, [true, true]);
    let before: Vec<_> = (0..60).map(|flow| way(&mut node, flow)).collect();
    assert!(UNDERLAYS.iter().all(|vif| before.contains(vif)));
    // As long as it answers, nothing happens.
    live(&mut node, 60_000, [true, true]);
    assert_eq!((0..60).map(|flow| way(&mut node, flow)).collect::<Vec<_>>(), before);
    // Within seconds, though no packet of theirs says so.
    live(&mut node, 7000, [false, true]);
    assert_eq!((0..60).map(|flow| way(&mut node, flow)).collect::<Vec<_>>(), vec![UNDERLAYS[1]; 60]);
    live(&mut node, 60_000, [false, true]);
    assert_eq!((0..60).map(|flow| way(&mut node, flow)).collect::<Vec<_>>(), vec![UNDERLAYS[1]; 60]);
    live(&mut node, 9000, [true, true]);
    assert_eq!((0..60).map(|flow| way(&mut node, flow)).collect::<Vec<_>>(), before);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn what_waits_for_a_gateway_that_is_found_dead_goes_to_the_other() {
    let mut node = Node::new(&underlay_gateways());
    live(&mut node, 300, [false, true]);
    let waiting = (0..40u16).find(|flow| {
        let packet = udp(CLIENT, SERVER, 1000 + flow, 53, b"x");
        node.receive(LAN1, &from_client(&packet.ip())).is_empty()
    });
    assert!(waiting.is_some(), "no flow of the silent gateway");
    let sent = live(&mut node, 4000, [false, true]);
    let (port, frame) = only(sent);
    assert_eq!((port, frame.destination), (UNDERLAYS[1], [2, 0, 0, 0, 0xfe, 1]));
    assert_eq!(node.all_drops(), []);
}

#[test]
fn when_both_gateways_are_silent_the_sender_is_told() {
    let mut node = Node::new(&underlay_gateways());
    live(&mut node, 40_000, [false, false]);
    node.receive(LAN1, &from_client(&udp(CLIENT, SERVER, 1000, 53, b"x").ip()));
    let (port, frame) = only(live(&mut node, 5000, [false, false]));
    assert_eq!((port, frame.ip().dst, frame.ip().icmp()), (LAN1, addr(CLIENT), (3, 1)));
    assert_eq!(node.all_drops(), [("Neighbour Unresolved", 1)]);
    // The first that answers gets the traffic.
    live(&mut node, 9000, [true, false]);
    assert_eq!(way(&mut node, 1), UNDERLAYS[0]);
}

#[test]
fn a_gateway_silent_for_long_loses_its_mac_and_is_still_asked() {
    let mut node = resolved();
    let packet = from_host(&udp(HOST, FAR, 5000, 53, b"x").ip());
    node.receive(LAN, &packet);
    // Nobody else could take its packets: they go on to the MAC that is known, until the cache gives it up.
    node.wait(10_000);
    let (_, frame) = only(node.receive(LAN, &packet));
    assert_eq!(frame.destination, GATEWAY_MAC);
    node.wait(25_000);
    assert_eq!(carried(&node.receive(LAN, &packet)).len(), 0);
    let told: Vec<_> = node.wait(5000).into_iter().filter(|sent| sent.port == vif(LAN)).collect();
    assert_eq!(only(told).1.ip().icmp(), (3, 1));
    assert_eq!(node.all_drops(), [("Neighbour Unresolved", 1)]);
    let asked = node.wait(20_000).iter().filter(|sent| sent.packet.data() == who_has(GATEWAY)).count();
    assert!((2..=20).contains(&asked), "{asked}");
}

#[test]
fn a_gateway_whose_link_was_down_is_asked_again_at_once() {
    let mut node = resolved();
    node.machine.set_up(vif(WAN), false, node.now);
    node.wait(5000);
    node.machine.set_up(vif(WAN), true, node.now);
    let sent = node.wait(200);
    assert!(sent.iter().any(|sent| sent.packet.data() == who_has(GATEWAY)), "{sent:?}");
    node.receive(WAN, &i_have(GATEWAY, NEW_MAC));
    let (_, frame) = only(node.receive(LAN, &from_host(&udp(HOST, FAR, 5000, 53, b"x").ip())));
    assert_eq!(frame.destination, NEW_MAC);
}

#[test]
fn a_gateway_whose_vif_moves_to_another_device_is_asked_again_at_once() {
    let mut node = resolved();
    node.change(
        r#"{"vifs": [{"id": 2, "name": "wan", "device": "other", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1,
            "flags": {"policy": true}, "addresses": ["198.51.100.1/24"]}]}"#,
    );
    let sent = node.wait(200);
    assert!(sent.iter().any(|sent| sent.packet.data() == who_has(GATEWAY)), "{sent:?}");
    // Silent there, it is asked on.
    assert!(node.wait(2500).iter().any(|sent| sent.packet.data() == who_has(GATEWAY)));
    node.receive(WAN, &i_have(GATEWAY, NEW_MAC));
    let (_, frame) = only(node.receive(LAN, &from_host(&udp(HOST, FAR, 5000, 53, b"x").ip())));
    assert_eq!(frame.destination, NEW_MAC);
}

#[test]
fn a_gateway_that_no_nexthop_names_any_more_is_not_asked_any_more() {
    let mut node = resolved();
    let asked = |node: &mut Node| {
        let sent = node.wait(10_000);
        sent.iter().filter(|s| s.packet.data().get(38..42) == Some(&[198, 51, 100, 254])).count()
    };
    assert!(asked(&mut node) > 3);
    node.change(r#"{"nexthops": [{"id": 12, "vrf": 1, "resolve": {"oif": 2, "gateway": "198.51.100.253"}}]}"#);
    let sent = node.wait(300);
    assert!(sent.iter().any(|sent| sent.packet.data() == who_has("198.51.100.253")), "{sent:?}");
    // The cache looks after it as after any neighbour, which is long after.
    assert_eq!(asked(&mut node), 0);
}

#[test]
fn a_silent_gateway_is_dead_again_after_its_vif_was_briefly_away() {
    let mut node = Node::new(ROUTER);
    let is_dead = |node: &Node| node.machine.control().snapshot().is_gateway_dead(vif(WAN), GATEWAY.parse().unwrap());
    node.wait(5000);
    assert!(is_dead(&node));
    // Sooner than anybody has looked.
    node.change(
        r#"{"removeVifs": [2], "removeNexthops": [11, 12, 13], "removeRoutes": [{"vrf": 1, "prefix": "198.51.100.0/24"},
            {"vrf": 1, "prefix": "0.0.0.0/0"}, {"vrf": 1, "prefix": "::/0"}]}"#,
    );
    node.change(
        r#"{"vifs": [{"id": 2, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1,
              "flags": {"policy": true}, "addresses": ["198.51.100.1/24"]}],
            "nexthops": [{"id": 12, "vrf": 1, "resolve": {"oif": 2, "gateway": "198.51.100.254"}}],
            "routes": [{"vrf": 1, "prefix": "0.0.0.0/0", "nexthop": 12}]}"#,
    );
    node.wait(5000);
    assert!(is_dead(&node));
    node.receive(WAN, &i_have(GATEWAY, GATEWAY_MAC));
    assert!(!is_dead(&node));
}
