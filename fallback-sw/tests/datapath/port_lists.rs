//! Access lists that ask for ports, and fragments: only the first one has the ports, and the others share its verdict (RFC 1858
//! §2, RFC 8200 §4.5) whatever way they take. What no list asks for ports is forwarded without its head.

use std::collections::BTreeSet;

use crate::common::{
    Node, packets,
    packets::{
        ACK, Frame, ICMP, ICMP6, Ip, Packet, SCTP, TCP, Tunnelled, UDP, VRRP, entry, eth, icmp, icmp_error, mpls_udp,
        plain, segment, udp,
    },
    vif,
    walk_a::{CE1, CLIENT, LAN1, SERVER, UNDERLAYS, altered, from_client, workers},
};
use fallback_sw::{node::machine::Sent, packet};

/// The client's vif and the server's; and the same of a second tenant, with the same addresses.
const IN: u32 = 1;
const OUT: u32 = 2;
const IN_B: u32 = 3;
const OUT_B: u32 = 4;
const UNDERLAY: u32 = 9;
const HOST: u32 = 10;

const C: &str = "10.0.1.9";
const S: &str = "10.0.2.9";
const C6: &str = "2001:db8:1::9";
const S6: &str = "2001:db8:2::9";
const NODE: &str = "10.0.1.1";

/// The port that lists ask for, and another one; for ICMP they are types: timestamp and information request in IPv4.
const LISTED: u16 = 53;
const OTHER: u16 = 54;

/// A router with two tenants' vifs, a tunnel's end, and a host that listens on all of UDP at [`NODE`].
#[derive(Default)]
struct Router {
    policy: bool,
    /// More fields of the vifs.
    on_in: String,
    on_out: String,
    on_out_b: String,
    lists: String,
    /// The nexthop 20 that label 300 leads to has Policy.
    label_policy: bool,
    workers: usize,
}

impl Router {
    /// With one list, number 1.
    fn with_list(entries: &str, default: &str) -> Self {
        let default = if default.is_empty() { String::new() } else { format!(r#", "defaultAction": "{default}""#) };
        Self { lists: format!(r#"{{"id": 1, "entries": [{entries}]{default}}}"#), ..Self::default() }
    }

    fn node(&self) -> Node {
        let Self { policy, on_in, on_out, on_out_b, lists, label_policy, workers: count } = self;
        let tenant = |id: u32, name: &str, vrf: u32, net: u32, more: &str| {
            format!(
                r#"{{"id": {id}, "name": "{name}", "type": "VIRTUAL", "vrf": {vrf}, "flags": {{"policy": {policy}}},
                    "addresses": ["10.0.{net}.1/24", "2001:db8:{net}::1/64"]{more}}}"#
            )
        };
        let encap = |id: u32, vrf: u32, oif: u32| {
            format!(
                r#"{{"id": {id}, "vrf": {vrf}, "encap": {{"oif": {oif}, "encapData": "0200000000{id} 00005e000100 0800"}}}}"#
            )
        };
        let routes = |vrf: u32, net: u32, nexthop: u32| {
            format!(
                r#"{{"vrf": {vrf}, "prefix": "10.0.{net}.0/24", "nexthop": {nexthop}}},
                   {{"vrf": {vrf}, "prefix": "2001:db8:{net}::/64", "nexthop": {nexthop}}}"#
            )
        };
        let json = format!(
            r#"{{"generation": "1", "settings": {{"maxFlows": 1024}}, "vrfs": [{{"id": 2}}, {{"id": 3}}, {{"id": 8}}],
              "vifs": [{}, {}, {}, {},
                {{"id": {UNDERLAY}, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:99", "vrf": 8, "addresses": ["192.0.2.1/24"]}},
                {{"id": {HOST}, "name": "host", "type": "HOST", "vrf": 2, "mac": "02:00:00:00:02:00"}}],
              "acls": [{lists}],
              "nexthops": [{}, {}, {}, {}, {},
                {{"id": 19, "vrf": 8, "encap": {{"oif": {UNDERLAY}, "encapData": "020000000098 020000000099 0800"}}}},
                {{"id": 20, "policy": {label_policy}, "vrfTranslate": {{"vrf": 2}}}},
                {{"id": 21, "vrf": 8, "receive": {{"terminateMplsOUdp": true}}}},
                {{"id": 22, "vrf": 2, "tunnel": {{"type": "MPLS_O_UDP", "sip": "192.0.2.1", "dip": "192.0.2.2", "directNexthop": 19}}}},
                {{"id": 23, "vrf": 2, "receive": {{"defaults": [{{"proto": 17, "nexthop": 15}}]}}}}],
              "routes": [{}, {}, {}, {},
                {{"vrf": 2, "prefix": "10.0.7.0/24", "nexthop": 22, "label": 400}},
                {{"vrf": 2, "prefix": "2001:db8:7::/64", "nexthop": 22, "label": 400}},
                {{"vrf": 2, "prefix": "{NODE}/32", "nexthop": 23}},
                {{"vrf": 8, "prefix": "192.0.2.1/32", "nexthop": 21}},
                {{"vrf": 8, "prefix": "10.0.7.0/24", "nexthop": 22, "label": 400}},
                {{"vrf": 8, "prefix": "2001:db8:7::/64", "nexthop": 22, "label": 400}}],
              "labels": [{{"label": 300, "nexthop": 20}}, {{"label": 301, "nexthop": 12}}, {{"label": 302, "nexthop": 14}},
                {{"label": 303, "nexthop": 16}}]}}"#,
            tenant(IN, "in", 2, 1, on_in),
            tenant(OUT, "out", 2, 2, on_out),
            tenant(IN_B, "in-b", 3, 1, ""),
            tenant(OUT_B, "out-b", 3, 2, on_out_b),
            encap(11, 2, IN),
            encap(12, 2, OUT),
            encap(13, 3, IN_B),
            encap(14, 3, OUT_B),
            encap(15, 2, HOST),
            routes(2, 1, 11),
            routes(2, 2, 12),
            routes(3, 1, 13),
            routes(3, 2, 14),
        );
        // A nexthop without VRF: two tenants' labels may lead to such ones.
        let json = json.replace(
            r#"{"id": 20,"#,
            &format!(r#"{{"id": 16, "encap": {{"oif": {OUT_B}, "encapData": "020000000016 00005e000100 0800"}}}}, {{"id": 20,"#),
        );
        let json = json.replace(r#""id": 12, "vrf": 2, "#, r#""id": 12, "#);
        Node::with(&json, workers((*count).max(1)))
    }
}

/// One entry for a protocol and [`LISTED`], in the family's numbers.
fn entry_for(action: &str, proto: u8, scope: &str) -> String {
    let port = if matches!(proto, ICMP | ICMP6) { 13 } else { LISTED };
    format!(
        r#"{{"id": 1, "action": "{action}", "proto": {proto}, "scope": "{scope}", "destinationPorts": {{"first": {port}, "last": {port}}}}}"#
    )
}

/// A datagram of a protocol, some 2,000 octets, to [`LISTED`] or [`OTHER`] (ICMP: of type 13 or 15), with an identification.
fn datagram(proto: u8, (src, dst): (&str, &str), listed: bool, id: u16) -> Packet {
    let payload: Vec<u8> = (0..2000u16).map(|i| i as u8).collect();
    let port = if listed { LISTED } else { OTHER };
    let packet = match proto {
        UDP => udp(src, dst, 5000, port, &payload),
        TCP => segment(src, dst, (5000, port), ACK, (1, 1), &payload),
        SCTP => {
            let mut body = packets::sctp(src, dst, 5000, port);
            body.body().extend_from_slice(&payload);
            body
        }
        _ => icmp(src, dst, if listed { 13 } else { 15 }, 0, [0; 4], &payload),
    };
    // An ICMPv6 type below 128 is an error: what is informational begins there.
    if proto == ICMP6 {
        icmp(src, dst, if listed { 200 } else { 201 }, 0, [0; 4], &payload).id(id)
    } else {
        packet.id(id)
    }
}

/// In three: [0, 800), [800, 1600), the rest.
fn pieces(packet: &Packet) -> [Packet; 3] {
    [packet.part(0, 800), packet.part(800, 1600), packet.part(1600, usize::MAX)]
}

fn frame(packet: &Packet) -> Vec<u8> {
    eth(VRRP, [2, 0, 0, 0, 0, 9], &packet.ip())
}

fn tunnelled(label: u32, packet: &Packet) -> Vec<u8> {
    let stack = [entry(label, 0, true, 63)];
    eth(
        [2, 0, 0, 0, 0, 0x99],
        [2, 0, 0, 0, 0, 0x98],
        &mpls_udp("192.0.2.2", "192.0.2.1", (50_000, 6635), &stack, &packet.ip()).ip(),
    )
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Body of the datagram whose fragments were sent on one port, each octet once.
#[track_caller]
fn reassembled(sent: &[Sent], port: u32) -> Vec<u8> {
    let read = |s: &Sent| {
        assert_eq!(u32::from(s.port.get()), port);
        Frame::read(s.packet.data()).ip()
    };
    let mut ips: Vec<Ip> = sent.iter().map(read).collect();
    ips.sort_by_key(|ip| ip.offset);
    let mut body = Vec::new();
    for ip in ips {
        assert_eq!(ip.offset, body.len(), "a gap or an overlap");
        body.extend_from_slice(&ip.body);
    }
    body
}

/// All fragments, in every order, pass or none does; and what was dropped was so by the policy.
#[track_caller]
fn judged_alike(make: &dyn Fn() -> Node, port: u32, frames: &[Vec<u8>; 3], passes: Option<(u32, &[u8])>, what: &str) {
    for order in ORDERS {
        let mut node = make();
        let mut sent = Vec::new();
        for at in order {
            sent.extend(node.receive(port, &frames[at]));
        }
        assert_eq!(node.machine.held(), 0, "{what}, {order:?}");
        if let Some((out, body)) = passes {
            assert_eq!(reassembled(&sent, out), body, "{what}, {order:?}");
            assert_eq!(node.all_drops(), [], "{what}, {order:?}");
        } else {
            assert_eq!(sent.len(), 0, "{what}, {order:?}");
            let (names, counts): (Vec<_>, Vec<_>) = node.all_drops().into_iter().unzip();
            assert!(names.iter().all(|name| matches!(*name, "Policy Deny" | "Flow Action Drop")), "{what}: {names:?}");
            assert_eq!(counts.iter().sum::<u64>(), 3, "{what}, {order:?}");
        }
    }
}

#[test]
fn fragments_share_the_verdict_on_their_head_on_every_way_through_a_list() {
    for (ends, protos) in [((C, S), [UDP, TCP, SCTP, ICMP]), ((C6, S6), [UDP, TCP, SCTP, ICMP6])] {
        for proto in protos {
            for (action, default) in [("DENY", "PERMIT"), ("DENY", ""), ("PERMIT", "DENY")] {
                for scope in
                    ["ACL_SCOPE_STATEFUL", "ACL_SCOPE_STATELESS"].into_iter().take(if proto == UDP { 2 } else { 1 })
                {
                    for (egress, policy) in [(false, false), (true, false), (false, true), (true, true)] {
                        let entry = entry_for(action, proto, scope);
                        let entry = if proto == ICMP6 { entry.replace(": 13", ": 200") } else { entry };
                        let mut router = Router { policy, ..Router::with_list(&entry, default) };
                        if egress {
                            router.on_out = r#", "egressAcls": [1]"#.into();
                        } else {
                            router.on_in = r#", "ingressAcls": [1]"#.into();
                        }
                        for listed in [true, false] {
                            let whole = datagram(proto, ends, listed, 7);
                            let body = Ip::read(&whole.ip()).body;
                            let passes = (listed == (action == "PERMIT")).then_some((OUT, &body[..]));
                            let what = format!(
                                "{ends:?} {proto} {action}/{default} {scope} egress {egress} policy {policy} listed {listed}"
                            );
                            judged_alike(&|| router.node(), IN, &pieces(&whole).map(|p| frame(&p)), passes, &what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn lists_judge_fragments_out_of_a_tunnel_alike_whatever_the_label() {
    for ends in [("10.0.7.9", S), ("2001:db8:7::9", S6)] {
        for (label, label_policy) in [(300, true), (300, false), (301, false)] {
            for (action, default) in [("DENY", "PERMIT"), ("PERMIT", "DENY")] {
                let router = Router {
                    label_policy,
                    on_out: r#", "egressAcls": [1]"#.into(),
                    ..Router::with_list(&entry_for(action, UDP, "ACL_SCOPE_STATEFUL"), default)
                };
                for listed in [true, false] {
                    let whole = datagram(UDP, ends, listed, 7);
                    let body = Ip::read(&whole.ip()).body;
                    let passes = (listed == (action == "PERMIT")).then_some((OUT, &body[..]));
                    let frames = pieces(&whole).map(|p| tunnelled(label, &p));
                    let what = format!("{ends:?} label {label} policy {label_policy} {action} listed {listed}");
                    judged_alike(&|| router.node(), UNDERLAY, &frames, passes, &what);
                    // A whole packet is judged the same.
                    let small = udp(ends.0, ends.1, 5000, if listed { LISTED } else { OTHER }, b"x");
                    let sent = router.node().receive(UNDERLAY, &tunnelled(label, &small));
                    assert_eq!(sent.len(), usize::from(passes.is_some()), "{what}");
                }
            }
        }
    }
}

#[test]
fn into_a_tunnel_the_list_of_the_way_in_judges_fragments_alike() {
    for ends in [(C, "10.0.7.9"), (C6, "2001:db8:7::9")] {
        for listed in [true, false] {
            let router = Router {
                on_in: r#", "ingressAcls": [1]"#.into(),
                ..Router::with_list(&entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), "PERMIT")
            };
            for order in ORDERS {
                let mut node = router.node();
                let frames = pieces(&datagram(UDP, ends, listed, 7)).map(|p| frame(&p));
                let sent: Vec<Sent> = order.into_iter().flat_map(|at| node.receive(IN, &frames[at])).collect();
                let inner = sent.iter().map(|s| Tunnelled::read(Frame::read(s.packet.data()).ip()));
                let sports: BTreeSet<u16> = inner.map(|t| t.sport).collect();
                assert_eq!((sent.len(), sports.len()), if listed { (0, 0) } else { (3, 1) }, "{order:?}");
            }
        }
    }
}

#[test]
fn service_lists_judge_fragments_by_the_ports_of_their_head() {
    for (policy, lists) in [true, false].into_iter().flat_map(|p| [(p, "serviceAcls"), (p, "ingressAcls")]) {
        for (action, default) in [("DENY", "PERMIT"), ("PERMIT", "DENY")] {
            let router = Router {
                policy,
                on_in: format!(r#", "{lists}": [1]"#),
                ..Router::with_list(&entry_for(action, UDP, "ACL_SCOPE_STATEFUL"), default)
            };
            for (listed, order) in [true, false].into_iter().flat_map(|l| ORDERS.map(|o| (l, o))) {
                let mut node = router.node();
                let whole = datagram(UDP, (C, NODE), listed, 7);
                let frames = pieces(&whole).map(|p| frame(&p));
                let sent: Vec<Sent> = order.into_iter().flat_map(|at| node.receive(IN, &frames[at])).collect();
                assert_eq!(node.machine.held(), 0);
                if listed == (action == "PERMIT") {
                    assert_eq!(reassembled(&sent, HOST), Ip::read(&whole.ip()).body, "{policy} {order:?}");
                    assert_eq!(node.all_drops(), []);
                } else {
                    assert_eq!(sent.len(), 0, "{policy} {action} {listed} {order:?}");
                    let deny = node.all_drops().iter().any(|(name, _)| *name == "Policy Deny");
                    assert!(deny, "{:?}", node.all_drops());
                }
            }
        }
    }
}

#[test]
fn without_its_head_a_fragment_waits_and_is_given_up() {
    for ends in [(C, S), (C6, S6)] {
        let router = Router {
            on_in: r#", "ingressAcls": [1]"#.into(),
            ..Router::with_list(&entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), "PERMIT")
        };
        let mut node = router.node();
        let [_, middle, last] = pieces(&datagram(UDP, ends, false, 7)).map(|p| frame(&p));
        assert_eq!(node.receive(IN, &middle).len() + node.receive(IN, &last).len(), 0);
        assert_eq!(node.machine.held(), 2);
        assert_eq!(node.wait(10_200).len(), 0);
        assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Fragment Timeout", 2)]));
    }
}

#[test]
fn interleaved_and_doubled_datagrams_are_judged_each_by_its_own_head() {
    for (policy, ends) in [(true, (C, S)), (false, (C, S)), (true, (C6, S6)), (false, (C6, S6))] {
        let router = Router {
            policy,
            on_in: r#", "ingressAcls": [1]"#.into(),
            ..Router::with_list(&entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), "PERMIT")
        };
        let mut node = router.node();
        let good = datagram(UDP, ends, false, 1);
        let (g, b) = (pieces(&good).map(|p| frame(&p)), pieces(&datagram(UDP, ends, true, 2)).map(|p| frame(&p)));
        let mut sent = Vec::new();
        for frame in [&b[1], &g[2], &g[0], &b[0], &b[0], &g[0], &b[2], &g[1]] {
            sent.extend(node.receive(IN, frame));
        }
        assert_eq!(reassembled(&sent, OUT), Ip::read(&good.ip()).body);
        let dropped: u64 = node.all_drops().iter().map(|(_, n)| n).sum();
        assert_eq!((dropped, node.all_drops().last()), (5, Some(&("Fragment errors", 2))), "{:?}", node.all_drops());
    }
}

#[test]
fn an_overlap_that_would_change_the_ports_spoils_the_datagram() {
    let router = Router {
        on_in: r#", "ingressAcls": [1]"#.into(),
        ..Router::with_list(&entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), "PERMIT")
    };
    let (good, bad) = (datagram(UDP, (C, S), false, 7), datagram(UDP, (C, S), true, 7));
    // A second head with other ports, before and behind the first.
    let mut node = router.node();
    assert_eq!(node.receive(IN, &frame(&good.part(0, 800))).len(), 1);
    assert_eq!(node.receive(IN, &frame(&bad.part(0, 16))).len(), 0);
    assert_eq!(node.receive(IN, &frame(&good.part(800, usize::MAX))).len(), 0);
    assert_eq!(node.all_drops(), [("Fragment errors", 2)]);
    // What overlays the head, held before it.
    let mut node = router.node();
    assert_eq!(node.receive(IN, &frame(&bad.part(8, 816))).len(), 0);
    assert_eq!(node.receive(IN, &frame(&good.part(0, 800))).len(), 0);
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Fragment errors", 2)]));
    // Heads that do not hold the ports, and what overlays TCP's flags (RFC 1858 §3, RFC 3128).
    for packet in [
        datagram(TCP, (C, S), false, 7).part(0, 8),
        datagram(TCP, (C, S), false, 7).part(8, 800),
        datagram(SCTP, (C, S), false, 7).part(0, 8),
        datagram(TCP, (C6, S6), false, 7).part(0, 8),
        datagram(TCP, (C6, S6), false, 7).part(8, 800),
    ] {
        let mut node = router.node();
        assert_eq!(node.receive(IN, &frame(&packet)).len(), 0);
        assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Fragment errors", 1)]));
    }
}

#[test]
fn tenants_with_equal_addresses_and_identification_have_own_heads() {
    let deny = entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL");
    for policy in [true, false] {
        let router = Router {
            policy,
            on_out: r#", "egressAcls": [1]"#.into(),
            on_out_b: r#", "egressAcls": [1]"#.into(),
            ..Router::with_list(&deny, "PERMIT")
        };
        for ends in [(C, S), (C6, S6)] {
            let mut node = router.node();
            let good = datagram(UDP, ends, false, 7);
            let (g, b) = (pieces(&good).map(|p| frame(&p)), pieces(&datagram(UDP, ends, true, 7)).map(|p| frame(&p)));
            let mut sent = Vec::new();
            for at in [1, 0, 2] {
                sent.extend(node.receive(IN, &g[at]));
                assert_eq!(node.receive(IN_B, &b[at]).len(), 0);
            }
            assert_eq!(reassembled(&sent, OUT), Ip::read(&good.ip()).body);
            assert_eq!(node.all_drops().iter().map(|(_, n)| n).sum::<u64>(), 3);
        }
    }
    // Labels that lead to nexthops without a VRF.
    let router = Router {
        on_out: r#", "egressAcls": [1]"#.into(),
        on_out_b: r#", "egressAcls": [1]"#.into(),
        ..Router::with_list(&deny, "PERMIT")
    };
    let mut node = router.node();
    let ends = ("10.0.7.9", S);
    let good = datagram(UDP, ends, false, 7);
    let (g, b) =
        (pieces(&good).map(|p| tunnelled(301, &p)), pieces(&datagram(UDP, ends, true, 7)).map(|p| tunnelled(303, &p)));
    let mut sent = Vec::new();
    for at in [1, 0, 2] {
        sent.extend(node.receive(UNDERLAY, &g[at]));
        assert_eq!(node.receive(UNDERLAY, &b[at]).len(), 0);
    }
    assert_eq!(reassembled(&sent, OUT), Ip::read(&good.ip()).body);
    assert_eq!(node.all_drops(), [("Policy Deny", 3)]);
}

#[test]
fn what_no_list_asks_ports_for_is_forwarded_without_its_head() {
    let on_in = r#", "ingressAcls": [1]"#;
    let other_net = r#"{"id": 1, "action": "DENY", "proto": 17, "source": "10.9.0.0/16", "destinationPorts": {"first": 53, "last": 53}}"#;
    let behind = format!(r#"{{"id": 9, "action": "PERMIT"}}, {}"#, entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"));
    for (what, router, v6) in [
        ("no list", Router::default(), true),
        ("a list that nobody uses", Router::with_list(&entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), ""), true),
        ("ports of other addresses", Router { on_in: on_in.into(), ..Router::with_list(other_net, "PERMIT") }, true),
        ("ports behind a match", Router { on_in: on_in.into(), ..Router::with_list(&behind, "DENY") }, true),
        (
            "permitted with the port and without",
            Router {
                on_in: on_in.into(),
                ..Router::with_list(&entry_for("PERMIT", UDP, "ACL_SCOPE_STATEFUL"), "PERMIT")
            },
            true,
        ),
        (
            "ports of another protocol",
            Router {
                on_in: on_in.into(),
                ..Router::with_list(&entry_for("DENY", TCP, "ACL_SCOPE_STATEFUL"), "PERMIT")
            },
            // There the protocol is the head's to tell.
            false,
        ),
    ] {
        for ends in [(C, S), (C6, S6)].into_iter().take(if v6 { 2 } else { 1 }) {
            let mut node = router.node();
            let [_, middle, last] = pieces(&datagram(UDP, ends, true, 7)).map(|p| frame(&p));
            for frame in [&last, &middle, &last] {
                assert_eq!(node.receive(IN, frame).len(), 1, "{what}, {ends:?}");
            }
            assert_eq!((node.machine.held(), node.all_drops()), (0, vec![]), "{what}");
            assert!(node.machine.workers()[0].fragment_table().is_empty(), "{what}");
        }
    }
    // What is denied whatever its ports is dropped at once.
    for denied in [r#"{"id": 1, "action": "DENY", "proto": 17}"#, &entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL")] {
        let router = Router { on_in: on_in.into(), ..Router::with_list(denied, "DENY") };
        let mut node = router.node();
        let [_, middle, _] = pieces(&datagram(UDP, (C, S), false, 7)).map(|p| frame(&p));
        assert_eq!(node.receive(IN, &middle).len(), 0);
        assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Policy Deny", 1)]));
    }
}

#[test]
fn without_policy_all_fragments_take_one_ecmp_member_list_or_not() {
    let lan = "\"vrf\": 18, \"flags\": {\"policy\": true},";
    let list =
        format!(r#""acls": [{{"id": 1, "entries": [{}]}}], "labels": ["#, entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"));
    for lists in ["", "\"ingressAcls\": [1],"] {
        let json = altered(CE1, &[(lan, &format!("\"vrf\": 18, {lists}")), ("\"labels\": [", &list)]);
        let mut used = BTreeSet::new();
        for sport in 1000..1020 {
            for dst in [SERVER, "192.168.1.101", "192.168.1.102"] {
                let mut node = Node::new(&json);
                let whole = udp(CLIENT, dst, sport, OTHER, &[1; 2000]);
                let parts = pieces(&whole).map(|p| from_client(&p.ip()));
                let sent: Vec<Sent> = parts.iter().rev().flat_map(|p| node.receive(LAN1, p)).collect();
                let ports: BTreeSet<u16> = sent.iter().map(|s| s.port.get()).collect();
                assert_eq!((sent.len(), ports.len()), (3, 1), "{sport} {dst} {lists}");
                used.extend(ports);
            }
        }
        assert_eq!(used.into_iter().map(u32::from).collect::<Vec<_>>(), [UNDERLAYS[1], UNDERLAYS[0]]);
    }
}

#[test]
fn several_workers_judge_fragments_as_one_does() {
    for (ends, listed) in [((C, S), true), ((C, S), false), ((C6, S6), true), ((C6, S6), false)] {
        for (order, policy) in ORDERS.into_iter().flat_map(|o| [(o, true), (o, false)]) {
            let router = Router {
                policy,
                workers: 3,
                on_out: r#", "egressAcls": [1]"#.into(),
                ..Router::with_list(&entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), "PERMIT")
            };
            let mut node = router.node();
            let whole = datagram(UDP, ends, listed, 7);
            let frames = pieces(&whole).map(|p| frame(&p));
            for (queue, at) in order.into_iter().enumerate() {
                node.now += 1;
                let mut batch = vec![packet::Packet::from_frame(&frames[at])];
                node.machine.receive(vif(IN), queue, &mut batch, node.now);
                node.check_account();
            }
            let sent = node.machine.take_sent();
            assert_eq!(node.machine.held(), 0);
            if listed {
                assert_eq!(sent.len(), 0, "{ends:?} {order:?} policy {policy}");
            } else {
                assert_eq!(reassembled(&sent, OUT), Ip::read(&whole.ip()).body, "{ends:?} {order:?} policy {policy}");
            }
        }
    }
}

/// Destination options behind the fragment header: later fragments name protocol 60 (RFC 8200 §4.5).
#[test]
fn behind_an_extension_header_the_head_tells_protocol_and_port() {
    for (list, listed) in [
        (entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), true),
        (entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), false),
        (r#"{"id": 1, "action": "DENY", "proto": 17}"#.to_owned(), true),
        (r#"{"id": 1, "action": "DENY", "proto": 60}"#.to_owned(), false),
    ] {
        for policy in [true, false] {
            let router =
                Router { policy, on_in: r#", "ingressAcls": [1]"#.into(), ..Router::with_list(&list, "PERMIT") };
            let udp = Ip::read(&datagram(UDP, (C6, S6), listed, 0).ip()).body;
            let options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat();
            let frames = pieces(&plain(C6, S6, 60, &options).id(31)).map(|p| frame(&p));
            let passes = (!listed).then_some((OUT, &options[..]));
            judged_alike(&|| router.node(), IN, &frames, passes, &format!("{list} policy {policy} listed {listed}"));
        }
    }
}

#[test]
fn an_icmp_error_on_a_vif_without_policy_is_judged_by_its_own_type() {
    let quoted = udp(S, C, LISTED, 5000, b"x").ip();
    let error = frame(&icmp_error(C, S, 3, 3, &quoted));
    let list = |action: &str, kind: u8| {
        format!(
            r#"{{"id": 1, "action": "{action}", "proto": 1, "destinationPorts": {{"first": {kind}, "last": {kind}}}}}"#
        )
    };
    for (list, default, passes) in [
        (list("DENY", 3), "PERMIT", false),
        (list("PERMIT", 3), "DENY", true),
        // What a list says of the packet that it is about says nothing of the error.
        (entry_for("PERMIT", UDP, "ACL_SCOPE_STATEFUL"), "DENY", false),
        (entry_for("DENY", UDP, "ACL_SCOPE_STATEFUL"), "PERMIT", true),
    ] {
        let router = Router { on_in: r#", "ingressAcls": [1]"#.into(), ..Router::with_list(&list, default) };
        assert_eq!(router.node().receive(IN, &error).len(), usize::from(passes), "{list}");
    }
}

#[test]
fn a_fragmented_icmp_error_makes_no_flow_and_passes_no_policy() {
    for (ends, kind) in [((C, S), 3), ((C6, S6), 1)] {
        let quoted = udp(ends.1, ends.0, LISTED, 5000, &[7; 400]).ip();
        let error = icmp_error(ends.0, ends.1, kind, 3, &quoted);
        for order in [[0, 1], [1, 0]] {
            let mut node = Router { policy: true, ..Router::default() }.node();
            let frames = [frame(&error.part(0, 48)), frame(&error.part(48, usize::MAX))];
            for at in order {
                assert_eq!(node.receive(IN, &frames[at]).len(), 0);
            }
            assert_eq!(node.flow_records(), 0);
            assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("ICMP Error Unmatched", 2)]));
        }
    }
}
