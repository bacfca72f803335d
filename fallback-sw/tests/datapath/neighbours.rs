//! ARP and ND: who is answered, what is learnt, what waits for it, and when it is forgotten.

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType};

use crate::common::{
    Node,
    packets::{Frame, ICMP6, Ip, Mac, Tunnelled, VRRP, addr, entry, eth, icmp, mpls_udp, plain, udp},
    snapshot, vif,
    walk_a::{
        CE1, CE2, CLIENT, CLIENT_MAC, CLIENT6, GATEWAY1, GATEWAY1_6, GATEWAY2, LABEL1, LABEL2, LAN1, LAN2, LAN2_MAC,
        SERVER, TUNNEL1, TUNNEL2, UNDERLAYS, altered, from_client, from_server, from_underlay, only, workers,
    },
};
use fallback_sw::{
    node::{control::Control, machine::Sent},
    packet::Packet,
    worker::{Event, NeighbourClaim, Outbox, Worker, WorkerConfig},
};
use offload_rules::{MacAddr, flow::VrfCounter};

/// A host of the client's subnet that has to be resolved.
pub(crate) const HOST: &str = "192.168.100.7";
pub(crate) const HOST6: &str = "2001:db8:100::7";
pub(crate) const HOST_MAC: Mac = [0x00, 0x0c, 0x29, 0, 0, 7];
pub(crate) const NEW_MAC: Mac = [0x00, 0x0c, 0x29, 0, 0, 0x77];
pub(crate) const BROADCAST: Mac = [0xff; 6];

fn v4(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

pub(crate) fn arp_octets(operation: u16, sender: (Mac, &str), target: (Mac, &str)) -> Vec<u8> {
    let operation = ArpOperation(operation);
    let (from, to) = (v4(sender.1), v4(target.1));
    let arp = ArpPacket::new(ArpHardwareId::ETHERNET, EtherType::IPV4, operation, &sender.0, &from, &target.0, &to);
    arp.unwrap().to_bytes().to_vec()
}

pub(crate) fn arp_frame(to: Mac, from: Mac, tag: Option<u16>, arp: &[u8]) -> Vec<u8> {
    let tag = tag.map_or(vec![], |vid| [&[0x81, 0x00][..], &vid.to_be_bytes()].concat());
    [&to[..], &from, &tag, &[0x08, 0x06], arp].concat()
}

/// "Who has `target`?" of a host on CE1's LAN.
pub(crate) fn who_has(sender: &str, target: &str) -> Vec<u8> {
    arp_frame(BROADCAST, HOST_MAC, None, &arp_octets(1, (HOST_MAC, sender), ([0; 6], target)))
}

/// "I have" to CE1.
pub(super) fn i_have(mac: Mac, sender: &str) -> Vec<u8> {
    arp_frame(VRRP, mac, None, &arp_octets(2, (mac, sender), (VRRP, GATEWAY1)))
}

pub(crate) fn gratuitous(mac: Mac, address: &str) -> Vec<u8> {
    arp_frame(BROADCAST, mac, None, &arp_octets(1, (mac, address), ([0; 6], address)))
}

pub(crate) fn sent_octets(sent: &[Sent]) -> Vec<(u32, Vec<u8>)> {
    sent.iter().map(|s| (u32::from(s.port.get()), s.packet.data().to_vec())).collect()
}

pub(crate) fn known(node: &Node, port: u32, address: &str) -> Option<Mac> {
    node.machine.control().snapshot().neighbour(vif(port), addr(address)).map(|neighbour| neighbour.mac.0)
}

pub(crate) fn solicitation(src: &str, dst: &str, target: &str, mac: Option<Mac>) -> Vec<u8> {
    let mut body = target.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    if let Some(mac) = mac {
        body.extend([1, 1]);
        body.extend(mac);
    }
    icmp(src, dst, 135, 0, [0; 4], &body).ttl(255).ip()
}

pub(crate) fn advertisement(src: &str, dst: &str, flags: u8, target: &str, mac: Mac) -> Vec<u8> {
    let mut body = target.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    body.extend([2, 1]);
    body.extend(mac);
    icmp(src, dst, 136, 0, [flags, 0, 0, 0], &body).ttl(255).ip()
}

/// A UDP packet that comes out of the tunnel at CE1.
pub(crate) fn from_tunnel(dst: &str, payload: &[u8]) -> Vec<u8> {
    let source = if dst.contains(':') { "2001:db8:1::100" } else { SERVER };
    let inner = udp(source, dst, 6000, 5000, payload).ip();
    let stack = [entry(LABEL1, 0, true, 63)];
    from_underlay(UNDERLAYS[0], &mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &stack, &inner).ip())
}

/// CE1 with more in its lists.
fn with(vifs: &str, nexthops: &str, routes: &str, lan: &str) -> Node {
    let list = |name: &str| format!(r#""{name}": ["#);
    let longer = |name: &str, more: &str| format!("{} {more}", list(name));
    Node::altered(
        CE1,
        &[
            (&list("vifs"), &longer("vifs", vifs)),
            (&list("nexthops"), &longer("nexthops", nexthops)),
            (&list("routes"), &longer("routes", routes)),
            (r#""flags": {"policy": true}"#, &format!(r#""flags": {{"policy": true{lan}}}"#)),
        ],
    )
}

fn passes(node: &Node, vrf: u16, what: VrfCounter) -> u64 {
    let vrf = offload_rules::VrfId::new(vrf.into()).unwrap();
    node.machine.counters().0.vrfs.get(&vrf).map_or(0, |counts| counts[what.index()])
}

#[test]
fn arp_for_an_own_address_is_answered_and_the_asker_learnt() {
    let mut node = Node::new(CE1);
    let sent = node.receive(LAN1, &who_has(HOST, GATEWAY1));
    let reply = arp_frame(HOST_MAC, VRRP, None, &arp_octets(2, (VRRP, GATEWAY1), (HOST_MAC, HOST)));
    assert_eq!(sent_octets(&sent), [(LAN1, reply)]);
    assert_eq!((known(&node, LAN1, HOST), node.all_drops()), (Some(HOST_MAC), vec![]));
    assert_eq!(node.machine.account().consumed, 1);
}

#[test]
fn arp_on_a_sub_interface_is_answered_with_its_tag() {
    let mut node = Node::new(CE2);
    let host = "192.168.1.9";
    let ask = arp_frame(BROADCAST, HOST_MAC, Some(300), &arp_octets(1, (HOST_MAC, host), ([0; 6], GATEWAY2)));
    let sent = node.receive(LAN2, &ask);
    let reply = arp_frame(HOST_MAC, LAN2_MAC, Some(300), &arp_octets(2, (LAN2_MAC, GATEWAY2), (HOST_MAC, host)));
    assert_eq!(sent_octets(&sent), [(LAN2, reply)]);
}

#[test]
fn a_solicitation_for_an_own_address_is_answered() {
    for (target, group) in [(GATEWAY1_6, "ff02::1:ff00:1"), ("fe80::200:5eff:fe00:100", "ff02::1:ff00:100")] {
        let mut node = Node::new(CE1);
        let ask = solicitation(HOST6, group, target, Some(HOST_MAC));
        let (port, frame) = only(node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 1, 0], HOST_MAC, &ask)));
        let told = frame.ip();
        assert_eq!((port, frame.destination, frame.source), (LAN1, HOST_MAC, VRRP));
        assert_eq!((told.src, told.dst, told.ttl, told.proto), (addr(target), addr(HOST6), 255, ICMP6));
        // Router, solicited, override.
        let body = [&[0xe0, 0, 0, 0][..], &Ip::read(&ask).body[8..24], &[2, 1], &VRRP].concat();
        assert_eq!((told.icmp(), &told.body[4..]), ((136, 0), &body[..]));
        assert_eq!((known(&node, LAN1, HOST6), node.all_drops()), (Some(HOST_MAC), vec![]));
    }
}

#[test]
fn the_proxy_flag_answers_for_everyone_but_leaves_probes_alone() {
    let mut node = with("", "", "", r#", "proxy": true"#);
    for target in ["192.168.100.200", SERVER, "8.8.8.8"] {
        let sent = node.receive(LAN1, &who_has(HOST, target));
        let reply = arp_frame(HOST_MAC, VRRP, None, &arp_octets(2, (VRRP, target), (HOST_MAC, HOST)));
        assert_eq!(sent_octets(&sent), [(LAN1, reply)]);
    }
    assert_eq!(passes(&node, 18, VrfCounter::ArpVirtualProxy), 3);
    // RFC 5227: a probe, an announcement; RFC 4862: duplicate address detection.
    assert_eq!(node.receive(LAN1, &who_has("0.0.0.0", "192.168.100.200")).len(), 0);
    assert_eq!(node.all_drops(), [("ARP Not For Us", 1)]);
    assert_eq!(node.receive(LAN1, &gratuitous(HOST_MAC, "192.168.100.200")).len(), 0);
    let dad = solicitation("::", "ff02::1:ff00:9", "2001:db8:100::9", None);
    assert_eq!(node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 0, 9], HOST_MAC, &dad)).len(), 0);
    assert_eq!(node.all_drops(), [("ARP Not For Us", 2)]);
    // A probe for an own address is answered, or somebody would take it.
    let sent = node.receive(LAN1, &who_has("0.0.0.0", GATEWAY1));
    let reply = arp_frame(HOST_MAC, VRRP, None, &arp_octets(2, (VRRP, GATEWAY1), (HOST_MAC, "0.0.0.0")));
    assert_eq!(sent_octets(&sent), [(LAN1, reply)]);
    let dad = solicitation("::", "ff02::1:ff00:1", GATEWAY1_6, None);
    let (_, frame) = only(node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 0, 1], HOST_MAC, &dad)));
    assert_eq!((frame.destination, frame.ip().dst), ([0x33, 0x33, 0, 0, 0, 1], addr("ff02::1")));
    // For IPv6 too, without overriding what the host itself says.
    let ask = solicitation(HOST6, "ff02::1:ff00:9", "2001:db8:100::9", Some(HOST_MAC));
    let (_, frame) = only(node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 0, 9], HOST_MAC, &ask)));
    assert_eq!(frame.ip().body[4] & 0x20, 0);
}

#[test]
fn a_routes_flags_say_who_answers_for_its_addresses() {
    let agent = r#"{"id": 300, "name": "agent", "type": "AGENT", "vrf": 18, "mac": "02:00:00:00:03:00"},
      {"id": 301, "name": "host", "type": "HOST", "vrf": 18, "mac": "02:00:00:00:03:01", "addresses": ["10.99.0.1/24"]},"#;
    let route = |net: u8, flag: &str| {
        format!(r#"{{"vrf": 18, "prefix": "10.{net}.0.0/16", "nexthop": 489, "label": 280, "{flag}": true}},"#)
    };
    let routes =
        [route(1, "proxyArp"), route(2, "proxyArpForHost"), route(3, "trapArp"), route(4, "floodArp")].concat();
    let mut node = with(agent, "", &routes, "");
    let answer = |target: &str| arp_frame(HOST_MAC, VRRP, None, &arp_octets(2, (VRRP, target), (HOST_MAC, HOST)));

    assert_eq!(sent_octets(&node.receive(LAN1, &who_has(HOST, "10.1.2.3"))), [(LAN1, answer("10.1.2.3"))]);
    // H holds on the host's vif only.
    assert_eq!(node.receive(LAN1, &who_has(HOST, "10.2.2.3")).len(), 0);
    assert_eq!(node.all_drops(), [("ARP Not For Us", 1)]);
    let mac = [2, 0, 0, 0, 3, 1];
    let ask = arp_frame(BROADCAST, HOST_MAC, None, &arp_octets(1, (HOST_MAC, "10.99.0.2"), ([0; 6], "10.2.2.3")));
    let reply = arp_frame(HOST_MAC, mac, None, &arp_octets(2, (mac, "10.2.2.3"), (HOST_MAC, "10.99.0.2")));
    assert_eq!(sent_octets(&node.receive(301, &ask)), [(301, reply)]);
    // T goes to the agent as it came, and counts as punted.
    let ask = who_has(HOST, "10.3.2.3");
    assert_eq!(sent_octets(&node.receive(LAN1, &ask)), [(300, ask)]);
    assert_eq!(node.machine.account().punted, 1);
    // F is for a bridge: counted.
    assert_eq!(node.receive(LAN1, &who_has(HOST, "10.4.2.3")).len(), 0);
    assert_eq!(passes(&node, 18, VrfCounter::ArpFlood), 1);
    // No flag: nobody's business; a route alone makes no proxy.
    assert_eq!(node.receive(LAN1, &who_has(HOST, SERVER)).len(), 0);
    assert_eq!(node.all_drops(), [("ARP Not For Us", 3)]);
    // Probes are left alone under P as well.
    assert_eq!(node.receive(LAN1, &who_has("0.0.0.0", "10.1.2.3")).len(), 0);
}

#[test]
fn bad_arp_is_counted_and_teaches_nothing() {
    let good = arp_octets(2, (HOST_MAC, HOST), (VRRP, GATEWAY1));
    let mut bad: Vec<Vec<u8>> = [(1, 6), (3, 6), (4, 5), (5, 16), (7, 9), (8, 1), (14, 224)]
        .map(|(at, value)| {
            let mut arp = good.clone();
            arp[at] = value;
            arp
        })
        .to_vec();
    bad.extend((0..good.len()).map(|len| good[..len].to_vec()));
    let mut node = Node::new(CE1);
    let count = bad.len() as u64;
    for arp in bad {
        assert_eq!(node.receive(LAN1, &arp_frame(VRRP, HOST_MAC, None, &arp)).len(), 0);
    }
    assert_eq!((node.all_drops(), known(&node, LAN1, HOST)), (vec![("Invalid ARP", count)], None));
}

#[test]
fn an_announcement_changes_a_neighbour_and_every_program_with_its_mac() {
    let mut node = Node::new(CE1);
    node.receive(LAN1, &who_has(HOST, GATEWAY1));
    // Two flows of one program, and one out of a tenant's own vif.
    let down = [from_tunnel(HOST, b"a"), from_tunnel(HOST, b"b")];
    let local = from_client(&udp(CLIENT, HOST, 1, 2, b"c").ip());
    let macs = |node: &mut Node| -> Vec<Mac> {
        let mut macs: Vec<Mac> = down.iter().map(|f| only(node.receive(UNDERLAYS[0], f)).1.destination).collect();
        macs.push(only(node.receive(LAN1, &local)).1.destination);
        macs
    };
    assert_eq!(macs(&mut node), [HOST_MAC; 3]);
    let records = node.flow_records();
    assert_eq!(node.receive(LAN1, &gratuitous(NEW_MAC, HOST)).len(), 0);
    assert_eq!(macs(&mut node), [NEW_MAC; 3]);
    // A gratuitous reply does the same.
    let reply = arp_frame(BROADCAST, HOST_MAC, None, &arp_octets(2, (HOST_MAC, HOST), (HOST_MAC, HOST)));
    assert_eq!(node.receive(LAN1, &reply).len(), 0);
    assert_eq!(macs(&mut node), [HOST_MAC; 3]);
    assert_eq!((node.flow_records(), node.all_drops()), (records, vec![]), "the flows are kept");
}

#[test]
fn what_nobody_asked_for_makes_no_entry() {
    let mut node = Node::new(CE1);
    node.receive(LAN1, &gratuitous(HOST_MAC, HOST));
    node.receive(LAN1, &arp_frame(BROADCAST, HOST_MAC, None, &arp_octets(2, (HOST_MAC, HOST), (HOST_MAC, HOST))));
    node.receive(LAN1, &who_has(HOST, "192.168.100.200"));
    let told = advertisement(HOST6, "ff02::1", 0x20, HOST6, HOST_MAC);
    node.receive(LAN1, &eth([0x33, 0x33, 0, 0, 0, 1], HOST_MAC, &told));
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 0);
}

#[test]
fn a_claim_to_an_own_address_is_refused() {
    let mut node = Node::new(CE1);
    assert_eq!(node.receive(LAN1, &gratuitous(HOST_MAC, GATEWAY1)).len(), 0);
    assert_eq!(node.receive(LAN1, &i_have(HOST_MAC, GATEWAY1)).len(), 0);
    assert_eq!(node.all_drops(), [("Invalid ARP", 2)]);
    let told = advertisement(GATEWAY1_6, "ff02::1", 0x20, GATEWAY1_6, HOST_MAC);
    assert_eq!(node.receive(LAN1, &eth([0x33, 0x33, 0, 0, 0, 1], HOST_MAC, &told)).len(), 0);
    assert_eq!(node.all_drops(), [("Invalid ARP", 2), ("Invalid ND", 1)]);
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 0);
}

#[test]
fn a_sender_from_another_subnet_is_not_learnt() {
    let mut node = Node::new(CE1);
    let sent = node.receive(LAN1, &who_has("10.20.30.40", GATEWAY1));
    assert_eq!(sent.len(), 1, "answered all the same");
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 0);
}

#[test]
fn solicitations_from_afar_or_malformed_are_refused() {
    let ask = solicitation(HOST6, "ff02::1:ff00:1", GATEWAY1_6, Some(HOST_MAC));
    let mut routed = ask.clone();
    routed[7] = 254;
    let mut code = ask.clone();
    code[41] = 1;
    for ip in [routed, code] {
        let mut node = Node::new(CE1);
        assert_eq!(node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 0, 1], HOST_MAC, &ip)).len(), 0);
        assert_eq!(node.all_drops().iter().map(|(_, n)| n).sum::<u64>(), 1);
        assert_eq!(node.machine.control().snapshot().neighbours().len(), 0);
    }
}

#[test]
fn packets_for_an_unknown_neighbour_are_held_and_leave_in_order() {
    let mut node = Node::new(CE1);
    let ask = arp_frame(BROADCAST, VRRP, None, &arp_octets(1, (VRRP, GATEWAY1), ([0; 6], HOST)));
    assert_eq!(sent_octets(&node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"1"))), [(LAN1, ask)]);
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"2")).len(), 0, "one question is enough");
    assert_eq!(node.receive(LAN1, &from_client(&udp(CLIENT, HOST, 1, 2, b"3").ip())).len(), 0);
    assert_eq!(node.machine.held(), 3);

    let sent = node.receive(LAN1, &i_have(HOST_MAC, HOST));

    let frames: Vec<Frame> = sent.iter().map(|s| Frame::read(s.packet.data())).collect();
    assert!(frames.iter().all(|frame| (frame.destination, frame.source) == (HOST_MAC, VRRP)));
    let payloads: Vec<u8> = frames.iter().map(|frame| frame.ip().body[8]).collect();
    assert_eq!(payloads, *b"123");
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![]));
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"4")).len(), 1);
}

#[test]
fn the_question_is_tagged_on_a_sub_interface_and_multicast_in_ipv6() {
    let mut node = Node::new(CE2);
    let host = "192.168.1.9";
    let stack = [entry(LABEL2, 0, true, 63)];
    let inner = udp(CLIENT, host, 1, 2, b"x").ip();
    let packet = mpls_udp(TUNNEL1, TUNNEL2, (50_000, 6635), &stack, &inner).ip();
    let sent = node.receive(UNDERLAYS[0], &from_underlay(UNDERLAYS[0], &packet));
    let ask = arp_frame(BROADCAST, LAN2_MAC, Some(300), &arp_octets(1, (LAN2_MAC, GATEWAY2), ([0; 6], host)));
    assert_eq!(sent_octets(&sent), [(LAN2, ask)]);
    let told = arp_frame(LAN2_MAC, HOST_MAC, Some(300), &arp_octets(2, (HOST_MAC, host), (LAN2_MAC, GATEWAY2)));
    let (port, frame) = only(node.receive(LAN2, &told));
    assert_eq!((port, frame.destination, &frame.tags[..]), (LAN2, HOST_MAC, &[(0x8100, 0, 300)][..]));

    let mut node = Node::new(CE1);
    let (port, frame) = only(node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"x")));
    let ask = frame.ip();
    assert_eq!((port, frame.destination), (LAN1, [0x33, 0x33, 0xff, 0, 0, 7]));
    assert_eq!((ask.src, ask.dst, ask.ttl), (addr(GATEWAY1_6), addr("ff02::1:ff00:7"), 255));
    let body = [&[0; 4][..], &"2001:db8:100::7".parse::<std::net::Ipv6Addr>().unwrap().octets(), &[1, 1], &VRRP];
    assert_eq!((ask.icmp(), &ask.body[4..]), ((135, 0), &body.concat()[..]));
    let told = advertisement(HOST6, GATEWAY1_6, 0x60, HOST6, HOST_MAC);
    let (port, frame) = only(node.receive(LAN1, &eth(VRRP, HOST_MAC, &told)));
    assert_eq!((port, frame.destination, frame.ip().body[8]), (LAN1, HOST_MAC, b'x'));
    assert_eq!(node.all_drops(), []);
}

#[test]
fn a_silent_neighbour_is_asked_thrice_then_senders_get_unreachable() {
    for count in [1, 3] {
        let mut node = Node::with(CE1, workers(count));
        let packet = from_client(&udp(CLIENT, HOST, 1, 2, b"anyone?").ip());
        let ask = arp_frame(BROADCAST, VRRP, None, &arp_octets(1, (VRRP, GATEWAY1), ([0; 6], HOST)));
        assert_eq!(sent_octets(&node.receive(LAN1, &packet)), [(LAN1, ask.clone())]);
        assert_eq!(node.wait(900).len(), 0);
        assert_eq!(sent_octets(&node.wait(200)), [(LAN1, ask.clone())]);
        assert_eq!(sent_octets(&node.wait(1000)), [(LAN1, ask.clone())]);
        assert_eq!((node.machine.held(), node.all_drops()), (1, vec![]));
        let (port, frame) = only(node.wait(1000));
        let error = frame.ip();
        assert_eq!((port, error.src, error.dst, error.icmp()), (LAN1, addr(GATEWAY1), addr(CLIENT), (3, 1)));
        assert_eq!(error.quoted(), &packet[14..]);
        assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Neighbour Unresolved", 1)]));
        assert_eq!(node.wait(5000).len(), 0, "nobody waits: nobody asks");
        // The next packet begins anew.
        assert_eq!(sent_octets(&node.receive(LAN1, &packet)), [(LAN1, ask)]);
    }
    // Through the tunnel, and in IPv6.
    let mut node = Node::new(CE1);
    node.receive(UNDERLAYS[0], &from_tunnel(HOST6, b"anyone?"));
    let sent = node.wait(3100);
    let error = Tunnelled::read(Frame::read(sent.last().unwrap().packet.data()).ip()).inner;
    assert_eq!((error.src, error.dst, error.icmp()), (addr(GATEWAY1_6), addr("2001:db8:1::100"), (1, 3)));
}

#[test]
fn packets_that_wait_are_bounded_for_each_neighbour_and_in_all() {
    let settings = r#""generation": "1", "settings": {"maxHeldPerNeighbour": 3, "maxHeld": 5},"#;
    let mut node = Node::altered(CE1, &[(r#""generation": "1","#, settings)]);
    for payload in [b"1", b"2", b"3", b"4"] {
        node.receive(UNDERLAYS[0], &from_tunnel(HOST, payload));
    }
    assert_eq!((node.machine.held(), node.all_drops()), (3, vec![("Held Queue Full", 1)]));
    for host in 8..12 {
        let sent = node.receive(UNDERLAYS[0], &from_tunnel(&format!("192.168.100.{host}"), b"x"));
        assert_eq!(sent.len(), 1, "asked for, whatever can be held");
    }
    assert_eq!((node.machine.held(), node.all_drops()), (5, vec![("Held Queue Full", 3)]));
    // The oldest gave way; the latest for each neighbour is kept.
    let sent = node.receive(LAN1, &i_have(HOST_MAC, HOST));
    assert_eq!(sent.iter().map(|s| Frame::read(s.packet.data()).ip().body[8]).collect::<Vec<_>>(), *b"4");
    assert_eq!(node.machine.held(), 4);
}

#[test]
fn a_neighbour_is_asked_after_thirty_seconds_and_forgotten_if_silent() {
    let mut node = Node::new(CE1);
    node.receive(LAN1, &who_has(HOST, GATEWAY1));
    let ask = arp_frame(HOST_MAC, VRRP, None, &arp_octets(1, (VRRP, GATEWAY1), ([0; 6], HOST)));
    assert_eq!(node.wait(29_900).len(), 0);
    assert_eq!(sent_octets(&node.wait(200)), [(LAN1, ask.clone())], "at the MAC that is known");
    // It answers: thirty seconds more.
    node.receive(LAN1, &i_have(HOST_MAC, HOST));
    assert_eq!(node.wait(29_900).len(), 0);
    assert_eq!(sent_octets(&node.wait(2300)), vec![(LAN1, ask); 3]);
    assert_eq!(known(&node, LAN1, HOST), Some(HOST_MAC));
    assert_eq!(node.wait(1000).len(), 0);
    assert_eq!(known(&node, LAN1, HOST), None);
    // Its flows begin with a question again.
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"x")).len(), 1);
    assert_eq!(node.machine.held(), 1);
}

#[test]
fn a_flow_whose_neighbour_is_gone_waits_for_it_and_goes_on() {
    let mut node = Node::new(CE1);
    node.receive(LAN1, &who_has(HOST, GATEWAY1));
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"1")).len(), 1);
    node.wait(33_500);
    assert_eq!(known(&node, LAN1, HOST), None);
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"2")).len(), 1, "a question");
    let (_, frame) = only(node.receive(LAN1, &i_have(NEW_MAC, HOST)));
    assert_eq!((frame.destination, frame.ip().body[8]), (NEW_MAC, b'2'));
    assert_eq!((node.flow_records(), node.all_drops()), (2, vec![]));
}

#[test]
fn the_neighbour_table_is_bounded_and_stale_entries_give_way() {
    let settings = r#""generation": "1", "settings": {"maxNeighbours": 2},"#;
    let mut node = Node::altered(CE1, &[(r#""generation": "1","#, settings)]);
    for host in ["192.168.100.8", "192.168.100.9"] {
        node.receive(LAN1, &who_has(host, GATEWAY1));
    }
    node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"x"));
    assert_eq!(node.receive(LAN1, &i_have(HOST_MAC, HOST)).len(), 0);
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Neighbour Table Full", 1)]));
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel("192.168.100.8", b"x")).len(), 1, "those known live on");
    // Both are silent after thirty seconds: the next newcomer takes the place of one.
    node.wait(30_500);
    node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"y"));
    let (_, frame) = only(node.receive(LAN1, &i_have(HOST_MAC, HOST)));
    assert_eq!((frame.destination, frame.ip().body[8]), (HOST_MAC, b'y'));
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 2);
}

#[test]
fn a_vif_without_arp_neither_asks_nor_answers() {
    let mut node = with("", "", "", r#", "noArp": true"#);
    assert_eq!(node.receive(LAN1, &who_has(HOST, GATEWAY1)).len(), 0);
    let ask = solicitation(HOST6, "ff02::1:ff00:1", GATEWAY1_6, Some(HOST_MAC));
    assert_eq!(node.receive(LAN1, &eth([0x33, 0x33, 0xff, 0, 0, 1], HOST_MAC, &ask)).len(), 0);
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(HOST, b"x")).len(), 0);
    assert_eq!(node.all_drops(), [("Neighbour Unresolved", 1), ("ARP Not For Us", 2)]);
    // What has a fixed header is sent as ever.
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(CLIENT, b"x")).len(), 1);
    assert_eq!(node.receive(UNDERLAYS[0], &from_tunnel(CLIENT6, b"x")).len(), 1);
    let _ = (CLIENT_MAC, from_server(&plain(SERVER, CLIENT, 17, &[0; 8]).ip()));
}

#[test]
fn answers_of_the_node_itself_wait_for_their_neighbour_too() {
    let mut node = Node::new(CE1);
    // TTL 1 from a host that nobody has resolved: the ICMP error waits for ARP.
    let packet = eth(VRRP, HOST_MAC, &udp(HOST, SERVER, 1, 2, b"x").ttl(1).ip());
    let ask = arp_frame(BROADCAST, VRRP, None, &arp_octets(1, (VRRP, GATEWAY1), ([0; 6], HOST)));
    assert_eq!(sent_octets(&node.receive(LAN1, &packet)), [(LAN1, ask)]);
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("TTL Exceeded", 1)]));
    let (_, frame) = only(node.receive(LAN1, &i_have(HOST_MAC, HOST)));
    assert_eq!((frame.destination, frame.ip().icmp()), (HOST_MAC, (11, 0)));
}

#[test]
fn a_flood_of_arp_does_not_flood_control() {
    let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: false };
    let mut worker = Worker::new(config, snapshot(CE1)).unwrap();
    let mut out = Outbox::default();
    let mut told = |now: u64| {
        for i in 0..5000u32 {
            let sender = format!("192.168.100.{}", 2 + i % 250);
            worker.receive(vif(LAN1), &mut vec![Packet::from_frame(&who_has(&sender, GATEWAY1))], now, &mut out);
        }
        std::mem::take(&mut out.events).len()
    };
    assert_eq!(told(1000), 1000);
    assert_eq!(told(1100), 100);
    assert_eq!(told(9000), 1000);
}

#[test]
fn what_answers_the_node_is_heard_through_a_flood_of_announcements() {
    let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: false };
    let mut worker = Worker::new(config, snapshot(CE1)).unwrap();
    let mut out = Outbox::default();
    for _ in 0..5000 {
        worker.receive(vif(LAN1), &mut vec![Packet::from_frame(&who_has("192.168.100.9", HOST))], 1000, &mut out);
    }
    out.events.clear();
    worker.receive(vif(LAN1), &mut vec![Packet::from_frame(&i_have(HOST_MAC, HOST))], 1000, &mut out);
    let claim = NeighbourClaim::Advertisement { mac: Some(MacAddr(HOST_MAC)), solicited: true, replace: true };
    assert_eq!(out.events, [Event::Neighbour { neighbour: (vif(LAN1), addr(HOST)), claim }]);
}

#[test]
fn what_is_heard_on_a_vif_that_is_gone_forgets_no_neighbour() {
    let settings = r#""generation": "1", "settings": {"maxNeighbours": 1},"#;
    let mut control = Control::new(snapshot(&altered(CE1, &[(r#""generation": "1","#, settings)])));
    let claim = NeighbourClaim::Request { mac: MacAddr(HOST_MAC) };
    let heard = |port: u32| Event::Neighbour { neighbour: (vif(port), addr(HOST)), claim };
    assert!(control.handle([heard(LAN1)], 1000).snapshot.is_some());
    assert_eq!(control.tick(26_000).ask, [], "doubtful");
    let actions = control.handle([heard(77)], 26_001);
    assert!(actions.snapshot.is_none() && actions.give_up.is_empty());
    assert_eq!(control.snapshot().neighbours().len(), 1);
}
