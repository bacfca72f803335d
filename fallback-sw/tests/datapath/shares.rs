//! What one tenant asks for costs another one nothing: held packets, neighbours that are asked for, the neighbour table.

use crate::{
    common::{
        Node,
        packets::{Frame, ICMP6, Mac, addr, eth, icmp, udp},
        walk_a::{CE1, LAN1, UNDERLAYS, workers},
    },
    neighbours::{BROADCAST, HOST, arp_frame, arp_octets, from_tunnel, known, sent_octets},
};

/// Two tenants, each with a network of senders (vif 1, 3) and one of receivers (vif 2, 4), with the same addresses.
const TWO: &str = r#"{
  "generation": "1", "node": "r", "settings": {"maxHeld": 16, "maxNeighbours": 8},
  "vrfs": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
  "vifs": [
    {"id": 1, "name": "a1", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 1, "addresses": ["10.1.0.1/16", "2001:db8:1::1/64"], "flags": {"policy": true}},
    {"id": 2, "name": "b1", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1, "addresses": ["10.2.0.1/16", "2001:db8:2::1/64"], "flags": {"policy": true}},
    {"id": 3, "name": "a2", "type": "PHYSICAL", "mac": "02:00:00:00:00:03", "vrf": 2, "addresses": ["10.1.0.1/16", "2001:db8:1::1/64"], "flags": {"policy": true}},
    {"id": 4, "name": "b2", "type": "PHYSICAL", "mac": "02:00:00:00:00:04", "vrf": 2, "addresses": ["10.2.0.1/16", "2001:db8:2::1/64"], "flags": {"policy": true}}
  ],
  "nexthops": [
    {"id": 11, "vrf": 1, "resolve": {"oif": 1}}, {"id": 12, "vrf": 1, "resolve": {"oif": 2}},
    {"id": 13, "vrf": 2, "resolve": {"oif": 3}}, {"id": 14, "vrf": 2, "resolve": {"oif": 4}},
    {"id": 20, "vrf": 1, "receive": {}}, {"id": 21, "vrf": 2, "receive": {}}
  ],
  "routes": [
    {"vrf": 1, "prefix": "10.1.0.0/16", "nexthop": 11}, {"vrf": 1, "prefix": "10.2.0.0/16", "nexthop": 12},
    {"vrf": 2, "prefix": "10.1.0.0/16", "nexthop": 13}, {"vrf": 2, "prefix": "10.2.0.0/16", "nexthop": 14},
    {"vrf": 1, "prefix": "2001:db8:1::/64", "nexthop": 11}, {"vrf": 1, "prefix": "2001:db8:2::/64", "nexthop": 12},
    {"vrf": 2, "prefix": "2001:db8:1::/64", "nexthop": 13}, {"vrf": 2, "prefix": "2001:db8:2::/64", "nexthop": 14},
    {"vrf": 1, "prefix": "10.1.0.1/32", "nexthop": 20}, {"vrf": 1, "prefix": "10.2.0.1/32", "nexthop": 20},
    {"vrf": 2, "prefix": "10.1.0.1/32", "nexthop": 21}, {"vrf": 2, "prefix": "10.2.0.1/32", "nexthop": 21}
  ]
}"#;

const SENDER: Mac = [0x02, 0, 0, 0, 0x11, 9];
const RECEIVER: Mac = [0x02, 0, 0, 0, 0x12, 9];

fn mac(port: u32) -> Mac {
    [0x02, 0, 0, 0, 0, port as u8]
}

/// A UDP packet of a sender on vif 1 or 3.
fn datagram(port: u32, dst: &str) -> Vec<u8> {
    let src = if dst.contains(':') { "2001:db8:1::9" } else { "10.1.0.9" };
    eth(mac(port), SENDER, &udp(src, dst, 1000, 2000, b"hello").ip())
}

/// "Who has `target`?" as the node asks on a vif.
fn question(port: u32, own: &str, target: &str) -> (u32, Vec<u8>) {
    (port, arp_frame(BROADCAST, mac(port), None, &arp_octets(1, (mac(port), own), ([0; 6], target))))
}

#[test]
fn case_03_a_scan_of_one_tenant_holds_back_no_request_of_another() {
    for count in [1, 2] {
        let mut node = Node::with(TWO, workers(count));
        for host in 10..30 {
            let target = format!("10.2.0.{host}");
            let sent = node.receive(1, &datagram(1, &target));
            assert_eq!(sent_octets(&sent), [question(2, "10.2.0.1", &target)], "each is asked for");
        }
        let sent = node.receive(3, &datagram(3, "10.2.0.9"));
        assert_eq!(sent_octets(&sent), [question(4, "10.2.0.1", "10.2.0.9")]);
        // The scan goes on; the packet is still there when the answer comes.
        (30..90).for_each(|host| _ = node.receive(1, &datagram(1, &format!("10.2.0.{host}"))));
        let told = arp_frame(mac(4), RECEIVER, None, &arp_octets(2, (RECEIVER, "10.2.0.9"), (mac(4), "10.2.0.1")));
        let sent = node.receive(4, &told);
        assert_eq!(sent.len(), 1);
        let frame = Frame::read(sent[0].packet.data());
        assert_eq!((frame.destination, frame.ip().src), (RECEIVER, addr("10.1.0.9")));
        let drops = node.all_drops();
        assert!(drops.iter().all(|(name, _)| *name == "Held Queue Full"), "{drops:?}");
    }
}

#[test]
fn case_03_the_same_in_ipv6() {
    let mut node = Node::new(TWO);
    for host in 0x10..0x60 {
        let sent = node.receive(1, &datagram(1, &format!("2001:db8:2::{host:x}")));
        let asked = Frame::read(sent[0].packet.data()).ip();
        assert_eq!((sent.len(), asked.proto, asked.icmp()), (1, ICMP6, (135, 0)));
    }
    let sent = node.receive(3, &datagram(3, "2001:db8:2::9"));
    assert_eq!((sent.len(), u32::from(sent[0].port.get())), (1, 4));
    let mut body = "2001:db8:2::9".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    body.extend([2, 1]);
    body.extend(RECEIVER);
    let told = icmp("2001:db8:2::9", "2001:db8:2::1", 136, 0, [0x60, 0, 0, 0], &body).ttl(255).ip();
    let sent = node.receive(4, &eth(mac(4), RECEIVER, &told));
    assert_eq!(sent.len(), 1);
    assert_eq!(Frame::read(sent[0].packet.data()).destination, RECEIVER);
}

#[test]
fn case_03_a_scan_out_of_a_tunnel_costs_a_local_sender_nothing() {
    let settings = r#""generation": "1", "settings": {"maxHeld": 4, "maxHeldPerNeighbour": 4},"#;
    let mut node = Node::altered(CE1, &[(r#""generation": "1","#, settings)]);
    node.receive(LAN1, &eth(crate::common::packets::VRRP, SENDER, &udp("192.168.100.100", HOST, 1, 2, b"mine").ip()));
    for host in 20..60 {
        let sent = node.receive(UNDERLAYS[0], &from_tunnel(&format!("192.168.100.{host}"), b"scan"));
        assert_eq!(sent.len(), 1);
    }
    assert_eq!(node.machine.held(), 4);
    let waits: Vec<_> = node.machine.workers()[0].hold_queue().neighbours().map(|((_, address), _)| address).collect();
    assert!(waits.contains(&addr(HOST)), "{waits:?}");
}

#[test]
fn retries_go_on_for_everybody_that_is_asked_for() {
    let mut node = Node::new(TWO);
    node.receive(3, &datagram(3, "10.2.0.9"));
    for second in 0..2 {
        (10..60).for_each(|host| _ = node.receive(1, &datagram(1, &format!("10.2.{second}.{host}"))));
        let asked = sent_octets(&node.wait(1000));
        assert_eq!(asked.iter().filter(|(port, _)| *port == 4).count(), 1, "once a second");
        let others = asked.iter().filter(|(port, _)| *port == 2).count();
        assert!(others <= 16, "{others} neighbours are asked for at once");
    }
}

#[test]
fn the_latest_packet_for_each_neighbour_is_kept_longest() {
    let mut node = Node::new(TWO);
    for _ in 0..8 {
        node.receive(1, &datagram(1, "10.2.0.9"));
    }
    (10..25).for_each(|host| _ = node.receive(1, &datagram(1, &format!("10.2.0.{host}"))));
    assert_eq!((node.machine.held(), node.all_drops()), (16, vec![("Held Queue Full", 7)]));
    assert_eq!(node.machine.workers()[0].hold_queue().neighbours().count(), 16);
}

#[test]
fn a_vif_that_fills_the_neighbour_table_gives_way_to_others() {
    let mut node = Node::new(TWO);
    let asks = |host: u8| {
        let sender = (SENDER, &*format!("10.1.0.{host}"));
        arp_frame(BROADCAST, SENDER, None, &arp_octets(1, sender, ([0; 6], "10.1.0.1")))
    };
    for host in 10..30 {
        assert_eq!(node.receive(1, &asks(host)).len(), 1, "answered, whether there is room or not");
    }
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 8);
    node.receive(3, &asks(9));
    assert_eq!(known(&node, 3, "10.1.0.9"), Some(SENDER));
    // And it stays, however long the other one goes on.
    for host in 30..250 {
        node.receive(1, &asks(host));
    }
    assert_eq!(known(&node, 3, "10.1.0.9"), Some(SENDER));
    assert_eq!(node.machine.control().snapshot().neighbours().len(), 8);
}

#[test]
fn a_gateway_is_known_even_in_a_table_that_is_full_of_others() {
    let changes = [
        (r#""maxNeighbours": 8"#, r#""maxNeighbours": 1"#),
        (
            r#"{"id": 20, "vrf": 1, "receive": {}}"#,
            r#"{"id": 20, "vrf": 1, "receive": {}}, {"id": 30, "vrf": 2, "resolve": {"oif": 4, "gateway": "10.2.0.254"}}"#,
        ),
        (
            r#"{"vrf": 1, "prefix": "10.1.0.0/16", "nexthop": 11}"#,
            r#"{"vrf": 1, "prefix": "10.1.0.0/16", "nexthop": 11}, {"vrf": 2, "prefix": "0.0.0.0/0", "nexthop": 30}"#,
        ),
    ];
    let mut node = Node::altered(TWO, &changes);
    let sender = |host: &str| arp_frame(BROADCAST, SENDER, None, &arp_octets(1, (SENDER, host), ([0; 6], "10.1.0.1")));
    node.receive(1, &sender("10.1.0.7"));
    node.wait(200);
    let told = arp_frame(mac(4), RECEIVER, None, &arp_octets(2, (RECEIVER, "10.2.0.254"), (mac(4), "10.2.0.1")));
    node.receive(4, &told);
    node.receive(1, &sender("10.1.0.8"));
    assert_eq!(known(&node, 4, "10.2.0.254"), Some(RECEIVER));
    let sent = node.receive(3, &datagram(3, "203.0.113.7"));
    assert_eq!(sent.iter().map(|s| Frame::read(s.packet.data()).destination).collect::<Vec<_>>(), [RECEIVER]);
}
