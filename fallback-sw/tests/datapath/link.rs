//! What belongs to one link: link-local addresses, groups, anycast, subnet broadcasts; and addresses that belong to nobody.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{Moved, answered, dropped, punted, refused, walked},
    packets::{Frame, Ip, Mac, Packet, addr, echo_request, entry, eth, icmp, icmp_error, mpls_udp, plain, syn, udp},
    vif,
    walk_a::{
        CE2, CLIENT, CLIENT6, LABEL2, SERVER, SERVER6, TUNNEL1, TUNNEL2, UNDERLAYS, altered, from_underlay, only,
        workers,
    },
};

const ONE: u32 = 1;
const TWO: u32 = 2;
const MACS: [Mac; 2] = [[0x02, 0, 0, 0, 0, 0x01], [0x02, 0, 0, 0, 0, 0x02]];
const TENANT_MAC: Mac = [0x02, 0xaa, 0xaa, 0xaa, 0xaa, 0x01];
const STATION: Mac = [0x02, 0xaa, 0xaa, 0xaa, 0xaa, 0x02];
const HOST: u32 = 3;
const HOST_MAC: Mac = [0x02, 0, 0, 0, 0, 0x03];
const HOST_STACK: Mac = [0x02, 0xaa, 0xaa, 0xaa, 0xaa, 0x03];
const TENANT: &str = "10.1.0.9";
const TENANT6: &str = "fd00:1::9";
/// The modified EUI-64 addresses of both vifs.
const LINK_LOCAL: [&str; 2] = ["fe80::ff:fe00:1", "fe80::ff:fe00:2"];

/// A router with a tenant on one vif and the default routes on another; the host's link is 169.254.1.0/30.
const STATE: &str = r#"{
  "generation": "1",
  "vrfs": [{"id": 1, "name": "one"}],
  "vifs": [
    {"id": 1, "name": "a1", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 1,
      "addresses": ["10.1.0.1/16", "fd00:1::1/64"], "flags": {"policy": true}},
    {"id": 2, "name": "b1", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1,
      "addresses": ["10.2.0.1/16", "169.254.2.1/24"], "flags": {"policy": true}},
    {"id": 3, "name": "host", "type": "HOST", "mac": "02:00:00:00:00:03", "vrf": 1, "nexthop": 13,
      "addresses": ["169.254.1.1/30"], "flags": {"policy": true}}
  ],
  "nexthops": [
    {"id": 11, "vrf": 1, "encap": {"oif": 1, "encapData": "02aaaaaaaa01 020000000001 0800"}},
    {"id": 12, "vrf": 1, "encap": {"oif": 2, "encapData": "02aaaaaaaa02 020000000002 0800"}},
    {"id": 13, "vrf": 1, "encap": {"oif": 3, "encapData": "02aaaaaaaa03 020000000003 0800"}},
    {"id": 14, "vrf": 1, "resolve": {"oif": 1}},
    {"id": 20, "vrf": 1, "receive": {"listeners": [{"proto": 17, "firstPort": 500, "nexthop": 13},
      {"proto": 6, "firstPort": 179, "nexthop": 13}, {"proto": 6, "firstPort": 80, "nexthop": 13}]}}
  ],
  "routes": [
    {"vrf": 1, "prefix": "10.1.0.0/16", "nexthop": 11},
    {"vrf": 1, "prefix": "fd00:1::/64", "nexthop": 14},
    {"vrf": 1, "prefix": "fd00:1::9/128", "nexthop": 11},
    {"vrf": 1, "prefix": "169.254.1.2/32", "nexthop": 13},
    {"vrf": 1, "prefix": "169.254.2.0/24", "nexthop": 12},
    {"vrf": 1, "prefix": "169.254.169.254/32", "nexthop": 20},
    {"vrf": 1, "prefix": "169.254.2.1/32", "nexthop": 20},
    {"vrf": 1, "prefix": "fe80::ff:fe00:2/128", "nexthop": 20},
    {"vrf": 1, "prefix": "10.2.0.1/32", "nexthop": 20},
    {"vrf": 1, "prefix": "::/0", "nexthop": 12},
    {"vrf": 1, "prefix": "0.0.0.0/0", "nexthop": 12}
  ]
}"#;

/// With policy on every vif, and on none.
fn nodes() -> [Node; 2] {
    [Node::new(STATE), Node::altered(STATE, &[(", \"flags\": {\"policy\": true}", "")])]
}

fn from_tenant(ip: &[u8]) -> Vec<u8> {
    eth(MACS[0], TENANT_MAC, ip)
}

fn from_station(ip: &[u8]) -> Vec<u8> {
    eth(MACS[1], STATION, ip)
}

/// The answer to a frame on a vif, to who asked.
#[track_caller]
fn answer(node: &mut Node, port: u32, frame: &[u8], asker: Mac) -> Ip {
    let (out, answer) = only(node.expect(port, frame, &answered()));
    assert_eq!((out, answer.destination), (port, asker));
    assert_eq!(answer.source, if port == HOST { HOST_MAC } else { MACS[port as usize - 1] });
    answer.ip()
}

/// Source and destination.
fn ends(ip: &Ip) -> (String, String) {
    (ip.src.to_string(), ip.dst.to_string())
}

#[test]
fn case_04_link_local_addresses_are_not_routed() {
    // With the default routes, and with routes of their own.
    let routes = r#""routes": [{"vrf": 1, "prefix": "169.254.0.0/16", "nexthop": 12}, {"vrf": 1, "prefix": "fe80::/10", "nexthop": 12},
        {"vrf": 1, "prefix": "169.254.9.9/32", "nexthop": 12}, {"vrf": 1, "prefix": "fe80::9/128", "nexthop": 12},"#;
    let routed = altered(STATE, &[("\"routes\": [", routes)]);
    let no_rpf = STATE.replace("\"policy\": true", "\"policy\": true, \"noRpf\": true");
    let no_policy = routed.replace(", \"flags\": {\"policy\": true}", "");
    for state in [STATE, &routed, &no_rpf, &no_policy] {
        let mut node = Node::new(state);
        for packet in [
            udp(TENANT, "169.254.9.9", 1, 2, b"x"),
            udp(TENANT6, "fe80::9", 1, 2, b"x"),
            udp(TENANT6, "febf::9", 1, 2, b"x"),
            syn(TENANT6, "fe80::9", 1, 2),
            plain(TENANT, "169.254.9.9", 47, &[0; 8]),
            echo_request(TENANT, "169.254.9.9", 1, 1),
            echo_request("169.254.5.5", "169.254.9.9", 1, 1),
            udp("fe80::5", "fe80::9", 1, 2, b"x"),
        ] {
            node.expect(ONE, &from_tenant(&packet.ip()), &refused(DropReason::LinkLocal));
        }
        node.expect(TWO, &from_station(&udp("169.254.5.5", TENANT, 1, 2, b"x").ip()), &refused(DropReason::LinkLocal));
        // One that the vif has a subnet for is no better.
        node.expect(TWO, &from_station(&udp("169.254.2.5", TENANT, 1, 2, b"x").ip()), &refused(DropReason::LinkLocal));
        // RFC 4443 §3.1: beyond scope of source address, told on the link by the address of that link.
        let lost = udp("fe80::5", TENANT6, 1, 2, b"x").ip();
        let told = refused(DropReason::LinkLocal).and_made(1);
        let (out, frame) = only(node.expect(TWO, &from_station(&lost), &told));
        let error = frame.ip();
        assert_eq!((out, frame.destination, error.icmp(), error.quoted()), (TWO, STATION, (1, 2), &lost[..]));
        assert_eq!(ends(&error), (LINK_LOCAL[1].to_owned(), "fe80::5".to_owned()));
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn case_04_fragments_with_link_local_addresses_are_not_routed() {
    for mut node in nodes() {
        for (packet, port) in [
            (udp(TENANT, "169.254.9.9", 1, 2, &[0; 60]), ONE),
            (udp(TENANT6, "fe80::9", 1, 2, &[0; 60]), ONE),
            (udp("169.254.5.5", TENANT, 1, 2, &[0; 60]), TWO),
        ] {
            let frame = |ip: Vec<u8>| if port == ONE { from_tenant(&ip) } else { from_station(&ip) };
            // Whichever comes first.
            for parts in [[(0, 32), (32, 999)], [(32, 999), (0, 32)]] {
                for (from, to) in parts {
                    assert!(node.receive(port, &frame(packet.part(from, to).ip())).is_empty());
                }
            }
        }
        assert_eq!(node.all_drops(), [("Link Local", 12)]);
        assert_eq!((node.flow_records(), node.machine.held()), (0, 0));
    }
}

#[test]
fn case_04_link_local_addresses_come_out_of_no_tunnel() {
    let straight = "\"labels\": [{\"label\": 271, \"nexthop\": 577},";
    let policy = Node::altered(CE2, &[("\"labels\": [", straight)]);
    let none =
        Node::altered(CE2, &[("\"labels\": [", straight), ("\"policy\": true, \"vrfTranslate\"", "\"vrfTranslate\"")]);
    for mut ce2 in [policy, none] {
        for inner in [
            udp("169.254.5.5", SERVER, 1, 2, b"x"),
            udp(CLIENT, "169.254.9.9", 1, 2, b"x"),
            udp("fe80::5", SERVER6, 1, 2, b"x"),
            udp(CLIENT6, "fe80::9", 1, 2, b"x"),
            // The link-local address of the vif on the other side is on another link.
            echo_request("fe80::5", "fe80::20c:29ff:fe0f:f4a1", 1, 1),
        ] {
            for label in [LABEL2, 271] {
                let packet = mpls_udp(TUNNEL1, TUNNEL2, (50000, 6635), &[entry(label, 0, true, 63)], &inner.ip());
                ce2.expect(UNDERLAYS[0], &from_underlay(UNDERLAYS[0], &packet.ip()), &refused(DropReason::LinkLocal));
            }
        }
        assert_eq!(ce2.flow_records(), 0);
    }
}

#[test]
fn case_04_an_error_from_a_link_local_address_is_not_routed_by_a_flow() {
    let mut node = Node::new(STATE);
    for (tenant, far, router) in [(TENANT, "203.0.113.9", "169.254.5.5"), (TENANT6, "2001:db8::9", "fe80::5")] {
        let packet = udp(tenant, far, 1, 2, b"x").ip();
        let (_, sent) = only(node.expect(ONE, &from_tenant(&packet), &walked()));
        let (kind, code) = if tenant == TENANT { (3, 1) } else { (1, 3) };
        let error = icmp_error(router, tenant, kind, code, &sent.ip().octets);
        node.expect(TWO, &from_station(&error.ip()), &dropped(DropReason::LinkLocal));
        // From a router with an address for it, it is forwarded.
        let router = if tenant == TENANT { "203.0.113.1" } else { "2001:db8::1" };
        assert_eq!(
            node.receive(TWO, &from_station(&icmp_error(router, tenant, kind, code, &sent.ip().octets).ip())).len(),
            1
        );
    }
}

#[test]
fn a_vif_answers_an_echo_at_its_link_local_address_on_its_link() {
    for mut node in nodes() {
        for (port, mac) in [(ONE, TENANT_MAC), (TWO, STATION)] {
            let (own, frame) = (LINK_LOCAL[port as usize - 1], |ip: &[u8]| eth(MACS[port as usize - 1], mac, ip));
            let reply = answer(&mut node, port, &frame(&echo_request("fe80::5", own, 7, 1).ip()), mac);
            assert_eq!((ends(&reply), reply.icmp()), ((own.to_owned(), "fe80::5".to_owned()), (129, 0)));
            // Large ones in fragments, asked and answered.
            let large = icmp("fe80::5", own, 128, 0, [0, 7, 0, 2], &[9; 2000]);
            assert!(node.receive(port, &frame(&large.part(0, 1000).ip())).is_empty());
            let sent = node.receive(port, &frame(&large.part(1000, 9999).ip()));
            let pieces: Vec<_> = sent.iter().map(|sent| (sent.meta.vif, Frame::read(sent.packet.data()))).collect();
            let mut data = Vec::new();
            for (out, piece) in &pieces {
                let ip = piece.ip();
                assert_eq!((*out, piece.destination, ends(&ip).0.as_str()), (vif(port), mac, own));
                assert!(ip.octets.len() <= 1500 && ip.octets[6] == 44, "{} octets", ip.octets.len());
                data.extend_from_slice(&ip.octets[48..]);
            }
            assert_eq!((pieces.len(), data.len(), data[0]), (2, 2008, 129));
            assert_eq!(data[8..], [9; 2000]);
        }
        // A station with an address of the subnet asks there, too, and is answered on the link.
        let reply = answer(&mut node, ONE, &from_tenant(&echo_request(TENANT6, LINK_LOCAL[0], 7, 1).ip()), TENANT_MAC);
        assert_eq!(ends(&reply), (LINK_LOCAL[0].to_owned(), TENANT6.to_owned()));
        // An address of the node with a link-local sender.
        let reply = answer(&mut node, ONE, &from_tenant(&echo_request("fe80::5", "fd00:1::1", 7, 1).ip()), TENANT_MAC);
        assert_eq!(ends(&reply), ("fd00:1::1".to_owned(), "fe80::5".to_owned()));
        assert_eq!(node.all_drops(), []);
        // The address of one link on another one; and who claims the vif's own.
        for (from, to, reason) in [
            ("fe80::5", "fe80::ff:fe00:3", DropReason::LinkLocal),
            (LINK_LOCAL[0], LINK_LOCAL[0], DropReason::OwnSource),
        ] {
            node.expect(ONE, &from_tenant(&echo_request(from, to, 7, 1).ip()), &refused(reason));
        }
    }
}

#[test]
fn without_ethernet_link_local_addresses_are_answered_at_the_far_end() {
    // No route leads to them, and the default routes lead to another link.
    let bare = r#""vifs": [{"id": 4, "name": "tun", "type": "PHYSICAL", "vrf": 1, "addresses": ["169.254.10.1/30", "fe80::30/64"],
        "flags": {"policy": true, "rawIp": true}},"#;
    let bare = altered(STATE, &[("\"vifs\": [", bare)]);
    for state in [&bare, &bare.replace("\"policy\": true", "\"policy\": false")] {
        let mut node = Node::new(state);
        for (from, to) in [("169.254.10.2", "169.254.10.1"), ("fe80::31", "fe80::30"), ("fe80::31", "fd00:1::1")] {
            let mut sent = node.expect(4, &echo_request(from, to, 7, 1).ip(), &answered());
            let reply = sent.pop().unwrap();
            let ip = Ip::read(reply.packet.data());
            assert_eq!((reply.meta.vif, ends(&ip)), (vif(4), (to.to_owned(), from.to_owned())));
            // Large ones in fragments that fit.
            let large = if from == "169.254.10.2" {
                icmp(from, to, 8, 0, [0, 7, 0, 2], &[9; 2000])
            } else {
                icmp(from, to, 128, 0, [0, 7, 0, 2], &[9; 2000])
            };
            assert!(node.receive(4, &large.part(0, 1000).ip()).is_empty());
            let sent = node.receive(4, &large.part(1000, 9999).ip());
            assert!(sent.len() == 2 && sent.iter().all(|sent| sent.meta.vif == vif(4) && sent.packet.len() <= 1500));
        }
        assert_eq!(node.all_drops(), []);
    }
}

#[test]
fn whichever_worker_has_it_an_answer_stays_on_the_link() {
    let mut node = Node::with(STATE, workers(3));
    for id in 0..40 {
        let asked = from_tenant(&echo_request("fe80::5", LINK_LOCAL[0], id, 1).ip());
        let sent = node.receive(ONE, &asked);
        let (port, frame) = only(sent);
        assert_eq!((port, frame.destination, frame.ip().icmp()), (ONE, TENANT_MAC, (129, 0)));
        assert!(node.receive(ONE, &from_tenant(&udp(TENANT6, "fe80::9", id, 2, b"x").ip())).is_empty());
    }
    assert_eq!(node.all_drops(), [("Link Local", 40)]);
}

#[test]
fn at_a_link_local_address_listeners_are_found_like_anywhere() {
    for mut node in nodes() {
        // No listener is named for the first vif's.
        node.expect(
            ONE,
            &from_tenant(&udp("fe80::5", LINK_LOCAL[0], 1, 500, b"x").ip()),
            &refused(DropReason::NoListener),
        );
        node.expect(
            TWO,
            &from_station(&udp("fe80::5", LINK_LOCAL[1], 1, 501, b"x").ip()),
            &refused(DropReason::NoListener),
        );
        for (from, to) in [("fe80::5", LINK_LOCAL[1]), ("169.254.2.5", "169.254.2.1"), ("169.254.2.5", "10.2.0.1")] {
            let (out, _) = only(node.expect(TWO, &from_station(&udp(from, to, 1, 500, b"x").ip()), &punted()));
            assert_eq!(out, HOST, "{from} to {to}");
        }
    }
}

#[test]
fn a_link_local_service_of_the_node_answers_on_every_link() {
    // As a cloud's metadata service is: not forwarded, but taken in.
    for mut node in nodes() {
        let (out, _) = only(node.expect(ONE, &from_tenant(&syn(TENANT, "169.254.169.254", 5, 80).ip()), &punted()));
        assert_eq!(out, HOST);
        let answer = udp("169.254.169.254", TENANT, 500, 5, b"y").ip();
        let (out, frame) = only(node.receive(HOST, &eth(HOST_MAC, HOST_STACK, &answer)));
        assert_eq!((out, frame.destination), (ONE, TENANT_MAC));
        // Its neighbour is nobody.
        node.expect(ONE, &from_tenant(&syn(TENANT, "169.254.169.253", 5, 80).ip()), &refused(DropReason::LinkLocal));
    }
}

#[test]
fn the_hosts_link_goes_on_working_and_leads_nowhere() {
    let from_host = |ip: &[u8]| eth(HOST_MAC, HOST_STACK, ip);
    for mut node in nodes() {
        let reply =
            answer(&mut node, HOST, &from_host(&echo_request("169.254.1.2", "169.254.1.1", 1, 1).ip()), HOST_STACK);
        assert_eq!(ends(&reply), ("169.254.1.1".to_owned(), "169.254.1.2".to_owned()));
        // What the host says from an address of the node leaves; a peer on the link that the address is of is reached.
        let (out, _) =
            only(node.expect(HOST, &from_host(&udp("10.2.0.1", "203.0.113.9", 500, 500, b"x").ip()), &walked()));
        assert_eq!(out, TWO);
        let (out, _) =
            only(node.expect(HOST, &from_host(&udp("169.254.2.1", "169.254.2.5", 500, 500, b"x").ip()), &walked()));
        assert_eq!(out, TWO);
        // From its own link-local address nothing goes further, and from that of one link nothing on another one.
        for (from, to) in [("169.254.1.2", TENANT), ("169.254.1.2", "203.0.113.9"), ("169.254.2.1", TENANT)] {
            node.expect(HOST, &from_host(&udp(from, to, 1, 2, b"x").ip()), &refused(DropReason::LinkLocal));
        }
        // Nor does anything else come to the host's link.
        for to in ["169.254.1.1", "169.254.1.2"] {
            node.expect(ONE, &from_tenant(&echo_request(TENANT, to, 1, 1).ip()), &refused(DropReason::LinkLocal));
        }
    }
}

/// The MAC of an IPv6 group (RFC 2464 §7).
fn group_mac(group: &str) -> Mac {
    let std::net::IpAddr::V6(group) = addr(group) else { panic!("no IPv6 group") };
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

#[test]
fn an_echo_to_the_groups_of_a_router_is_answered_from_a_unicast_address() {
    for mut node in nodes() {
        // RFC 4291 §2.8: all nodes, all routers, and the solicited-node groups of own addresses.
        for group in ["ff02::1", "ff02::2", "ff02::1:ff00:1"] {
            let ask = |from: &str| eth(group_mac(group), TENANT_MAC, &echo_request(from, group, 7, 1).ip());
            let reply = answer(&mut node, ONE, &ask("fe80::5"), TENANT_MAC);
            assert_eq!(ends(&reply), (LINK_LOCAL[0].to_owned(), "fe80::5".to_owned()), "{group}");
            let reply = answer(&mut node, ONE, &ask(TENANT6), TENANT_MAC);
            assert_eq!(ends(&reply), ("fd00:1::1".to_owned(), TENANT6.to_owned()), "{group}");
        }
        // A vif with no other IPv6 address has its link-local one.
        let ask = eth(group_mac("ff02::1"), STATION, &echo_request("fe80::5", "ff02::1", 7, 1).ip());
        assert_eq!(ends(&answer(&mut node, TWO, &ask, STATION)).0, LINK_LOCAL[1]);
        for (group, reason) in [
            ("ff02::1:ff00:7", refused(DropReason::McastUnsupported)),
            ("ff02::5", refused(DropReason::McastUnsupported)),
            ("ff05::2", dropped(DropReason::McastUnsupported)),
        ] {
            let ask = eth(group_mac(group), TENANT_MAC, &echo_request("fe80::5", group, 7, 1).ip());
            node.expect(ONE, &ask, &reason);
        }
        // Nothing but an echo, and no error (RFC 4443 §2.4e).
        let ask = eth(group_mac("ff02::1"), TENANT_MAC, &udp("fe80::5", "ff02::1", 1, 2, b"x").ip());
        node.expect(ONE, &ask, &dropped(DropReason::McastUnsupported));
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn the_subnet_router_anycast_address_is_answered_from_a_unicast_address() {
    for mut node in nodes() {
        let reply = answer(&mut node, ONE, &from_tenant(&echo_request(TENANT6, "fd00:1::", 7, 1).ip()), TENANT_MAC);
        assert_eq!(ends(&reply), ("fd00:1::1".to_owned(), TENANT6.to_owned()));
        node.expect(ONE, &from_tenant(&udp(TENANT6, "fd00:1::", 1, 2, b"x").ip()), &refused(DropReason::NoListener));
    }
    // RFC 6164: between two routers with a /127 it is the other one's own.
    let mut node = Node::altered(STATE, &[("fd00:1::1/64", "fd00:1::1/127")]);
    let asked = node.receive(ONE, &from_tenant(&echo_request(TENANT6, "fd00:1::", 7, 1).ip()));
    assert_eq!((asked.len(), Frame::read(asked[0].packet.data()).ip().icmp()), (1, (135, 0)));
}

/// A neighbour solicitation or advertisement with a link-layer address.
fn nd(kind: u8, (src, dst): (&str, &str), flags: u8, target: &str, mac: Option<Mac>) -> Vec<u8> {
    let std::net::IpAddr::V6(target) = addr(target) else { panic!("no IPv6 address") };
    let option = mac.map_or(vec![], |mac| [&[if kind == 135 { 1 } else { 2 }, 1][..], &mac].concat());
    let body = [&target.octets()[..], &option].concat();
    icmp(src, dst, kind, 0, [flags, 0, 0, 0], &body).ttl(255).ip()
}

/// Answered by the node without a walk.
fn told() -> Moved {
    Moved { slow_path: 0, ..answered() }
}

#[test]
fn a_solicitation_for_a_link_local_or_anycast_address_is_answered() {
    const OVERRIDE: u8 = 0x20;
    const SOLICITED: u8 = 0x40;
    const ROUTER: u8 = 0x80;
    let mut node = Node::new(STATE);
    let cases = [
        ("fe80::5", LINK_LOCAL[0], Some(TENANT_MAC), ROUTER | SOLICITED | OVERRIDE, LINK_LOCAL[0], "fe80::5"),
        // RFC 4862 §5.4.3: who wants the address for itself is told, and everybody with it.
        ("::", LINK_LOCAL[0], None, ROUTER | OVERRIDE, LINK_LOCAL[0], "ff02::1"),
        // RFC 4861 §7.2.7: one of several routers.
        ("fe80::5", "fd00:1::", Some(TENANT_MAC), ROUTER | SOLICITED, LINK_LOCAL[0], "fe80::5"),
    ];
    for (src, target, mac, flags, from, to) in cases {
        let group = if target == "fd00:1::" { "ff02::1:ff00:0" } else { "ff02::1:ff00:1" };
        let asked = nd(135, (src, group), 0, target, mac);
        let (_, frame) = only(node.expect(ONE, &eth(group_mac(group), TENANT_MAC, &asked), &told()));
        let ip = frame.ip();
        assert_eq!((ip.icmp(), ends(&ip)), ((136, 0), (from.to_owned(), to.to_owned())), "{src} asks for {target}");
        assert_eq!((ip.body[4], ip.body.last_chunk::<6>()), (flags, Some(&MACS[0])), "{src} asks for {target}");
    }
    assert_eq!(node.all_drops(), []);
}

/// An ARP packet of a station.
fn arp(operation: u8, (mac, sender): (Mac, [u8; 4]), target: [u8; 4]) -> Vec<u8> {
    let head = [&[0xff; 6][..], &STATION, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    [&head[..], &mac, &sender, &[0; 6], &target].concat()
}

#[test]
fn who_claims_the_vifs_own_mac_is_refused_and_nothing_is_learnt() {
    let mut node = Node::new(STATE);
    for operation in [1, 2] {
        let claim = arp(operation, (MACS[1], [10, 2, 0, 9]), [10, 2, 0, 1]);
        node.expect(TWO, &claim, &dropped(DropReason::ArpInvalid));
        node.expect(TWO, &arp(operation, (MACS[1], [10, 2, 0, 9]), [10, 2, 0, 9]), &dropped(DropReason::ArpInvalid));
    }
    for packet in [
        nd(136, ("fd00:1::9", "ff02::1"), 0x20, "fd00:1::9", Some(MACS[0])),
        nd(136, ("fd00:1::9", "fd00:1::1"), 0x60, "fd00:1::9", Some(MACS[0])),
        nd(135, ("fd00:1::9", "ff02::1:ff00:1"), 0, "fd00:1::1", Some(MACS[0])),
    ] {
        node.expect(ONE, &from_tenant(&packet), &dropped(DropReason::NdInvalid));
    }
    // Nobody has the broadcast address of a subnet.
    node.expect(TWO, &arp(1, (STATION, [10, 2, 255, 255]), [10, 2, 0, 1]), &dropped(DropReason::ArpInvalid));
    let snapshot = node.machine.control().snapshot();
    for (port, address) in [(TWO, "10.2.0.9"), (ONE, "fd00:1::9"), (TWO, "10.2.255.255")] {
        assert!(snapshot.neighbour(vif(port), addr(address)).is_none(), "{address}");
    }
    // The same from its own MAC.
    only(node.expect(TWO, &arp(1, (STATION, [10, 2, 0, 9]), [10, 2, 0, 1]), &told()));
}

#[test]
fn a_subnets_broadcast_or_network_address_is_no_source() {
    // RFC 1812 §5.3.7, and no error is sent about such a packet (§4.3.2.7), whatever its TTL.
    let no_rpf = STATE.replace("\"policy\": true", "\"policy\": true, \"noRpf\": true");
    for mut node in nodes().into_iter().chain([Node::new(&no_rpf)]) {
        for source in ["10.1.255.255", "10.1.0.0"] {
            let packet = udp(source, "203.0.113.9", 1, 2, b"x").ttl(1);
            node.expect(ONE, &from_tenant(&packet.ip()), &refused(DropReason::InvalidSource));
        }
        // By another vif than that of the subnet.
        let astray = udp("10.1.255.255", "203.0.113.9", 1, 2, b"x");
        node.expect(TWO, &from_station(&astray.ip()), &refused(DropReason::InvalidSource));
        let large = udp("10.1.255.255", "10.2.0.9", 1, 2, &[0; 1600]).df();
        node.expect(ONE, &from_tenant(&large.ip()), &refused(DropReason::InvalidSource));
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn the_nodes_own_addresses_are_no_source_with_or_without_rpf() {
    let no_rpf = STATE.replace("\"policy\": true", "\"policy\": true, \"noRpf\": true");
    for mut node in nodes().into_iter().chain([Node::new(&no_rpf)]) {
        for source in ["10.1.0.1", "10.2.0.1", "fd00:1::1"] {
            let to = if source.contains(':') { "2001:db8::9" } else { "203.0.113.9" };
            node.expect(ONE, &from_tenant(&udp(source, to, 1, 2, b"x").ip()), &refused(DropReason::OwnSource));
        }
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn addresses_that_no_host_has_are_neither_source_nor_destination() {
    // RFC 1812 §5.3.7, RFC 6890 §2.2.2 and §2.2.3, RFC 4291 §2.5 and §2.7.
    let sources =
        ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "254.1.2.3", "255.255.255.255"];
    let sources6 = ["::", "::1", "ff02::1", "::ffff:10.1.0.9"];
    let destinations = ["0.1.2.3", "127.0.0.1", "240.0.0.1", "255.255.255.254"];
    let destinations6 = ["::1", "::ffff:203.0.113.9"];
    let no_rpf = STATE.replace("\"policy\": true", "\"policy\": true, \"noRpf\": true");
    for mut node in nodes().into_iter().chain([Node::new(&no_rpf)]) {
        let mut expect = |packet: &Packet, reason| {
            // No error is sent, though the TTL is used up.
            node.expect(ONE, &from_tenant(&packet.clone().ttl(1).ip()), &dropped(reason));
        };
        for source in sources {
            expect(&udp(source, "203.0.113.9", 1, 2, b"x"), DropReason::InvalidSource);
        }
        for source in sources6 {
            expect(&udp(source, "2001:db8::9", 1, 2, b"x"), DropReason::InvalidSource);
        }
        for destination in destinations {
            expect(&udp(TENANT, destination, 1, 2, b"x"), DropReason::InvalidPacket);
        }
        for destination in destinations6 {
            expect(&udp(TENANT6, destination, 1, 2, b"x"), DropReason::InvalidPacket);
        }
    }
}
