//! Access lists that ask for ports, and fragments that come out of a tunnel: judged as anywhere, whoever has opened them. Into a
//! tunnel: lists, TTL and size come before the neighbour that its ESP packets go to.

use fallback_sw::{
    esp::{Key, OutboundConfig, OutboundSa, Tunnel},
    node::machine::MachineConfig,
    packet::{NicNote, Packet},
};

use crate::{
    common::{
        Node, hex,
        packets::{Frame, VRRP, eth, udp},
        vif,
        walk_a::altered,
    },
    net::{CE2_UP, CE2_WAN, CLIENT, END1, END2, LAN, Net, RE_MAC, RE_WAN, SERVER, WAN, ce1, ce2, re, to},
};

const DENY_53: &str = r#""acls": [{"id": 1, "entries": [{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 53, "last": 53}}],
    "defaultAction": "PERMIT"}],"#;
const PERMIT_54: &str = r#""acls": [{"id": 1, "entries": [{"id": 1, "action": "PERMIT", "proto": 17, "destinationPorts": {"first": 54, "last": 54}}],
    "defaultAction": "DENY"}],"#;

const ORDERS: [[usize; 3]; 3] = [[0, 1, 2], [1, 0, 2], [2, 1, 0]];

/// The fragments of a datagram to a port: port 53 is the one that both lists refuse.
fn pieces(src: &str, dst: &str, port: u16) -> [Vec<u8>; 3] {
    let whole = udp(src, dst, 5000, port, &[7; 2000]).id(7);
    [whole.part(0, 800), whole.part(800, 1600), whole.part(1600, 2008)].map(|piece| piece.ip())
}

/// With a small flow table: many nodes are made.
fn small(state: &str) -> String {
    altered(state, &[(r#""generation": "1","#, r#""generation": "1", "settings": {"maxFlows": 1024},"#)])
}

#[test]
fn what_came_out_of_both_tunnels_is_judged_by_the_list_of_the_way_out() {
    for (list, policy) in [(DENY_53, "true"), (DENY_53, "false"), (PERMIT_54, "true"), (PERMIT_54, "false")] {
        let state = altered(
            &ce2(),
            &[
                (r#""flags": {"policy": true}, "addresses""#, r#""egressAcls": [1], "addresses""#),
                (r#""id": 513, "policy": true"#, &format!(r#""id": 513, "policy": {policy}"#)),
                (r#""nexthops": ["#, &format!(r#"{list} "nexthops": ["#)),
            ],
        );
        for (port, order) in [53, 54].into_iter().flat_map(|port| ORDERS.map(|order| (port, order))) {
            let mut net = Net::with(&small(&ce1()), &small(&re()), &small(&state), MachineConfig::default());
            let frames = pieces(CLIENT, SERVER, port);
            // The first edge puts what comes before its head behind it: the second edge gets it in that order.
            let mut arrived = Vec::new();
            for at in order {
                let sent = net.from_client(&frames[at]);
                arrived.extend(net.carry(sent));
            }
            if port == 54 {
                assert_eq!(arrived.len(), 3, "policy {policy} {order:?}");
                assert!(arrived.iter().all(|(out, _)| *out == LAN));
                assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
            } else {
                assert_eq!(arrived.len(), 0, "policy {policy} {order:?}");
                let drops = net.ce2.all_drops();
                assert_eq!(drops.iter().map(|(_, n)| n).sum::<u64>(), 3, "{drops:?}");
            }
            net.nothing_in_the_clear();
        }
    }
}

/// From a tunnel of CE2's to one of CE1's, opened in software or by a NIC; no MPLS inside, no vif with Policy.
#[test]
fn between_two_tunnels_lists_judge_fragments_alike_whoever_opened_them() {
    for (list, egress) in [(DENY_53, true), (DENY_53, false), (PERMIT_54, true), (PERMIT_54, false)] {
        let lists = format!(r#"{list} "nexthops": ["#);
        let mut changes = vec![(r#""nexthops": ["#, lists.as_str())];
        if egress {
            changes.push((r#""name": "tunnel11", "#, r#""name": "tunnel11", "egressAcls": [1], "#));
            changes.push((r#""name": "tunnel12", "#, r#""name": "tunnel12", "egressAcls": [1], "#));
        } else {
            changes.push((r#""name": "tunnel21", "#, r#""name": "tunnel21", "ingressAcls": [1], "#));
        }
        let state = altered(&re(), &changes);
        for (port, order) in [53, 54].into_iter().flat_map(|port| ORDERS.map(|order| (port, order))) {
            for by_nic in [false, true] {
                let mut net = Net::with(&small(&ce1()), &small(&state), &small(&ce2()), MachineConfig::default());
                let tunnel =
                    Tunnel { source: CE2_WAN.parse().unwrap(), destination: RE_WAN[0].parse().unwrap(), udp: None };
                let key = Key::new(&hex(&CE2_UP[0].key())).unwrap();
                let config = OutboundConfig { spi: CE2_UP[0].spi(), key, esn: true, first: 1, tunnel };
                let mut sa = OutboundSa::new(&config);
                let frames = pieces(END2, END1, port);
                let mut sent = Vec::new();
                for at in order {
                    let frame = if by_nic {
                        to(RE_MAC, &frames[at])
                    } else {
                        let mut packet = Packet::from_frame(&frames[at]);
                        sa.seal(&mut packet, 0, 1, false).unwrap();
                        to(RE_MAC, packet.data())
                    };
                    let mut packet = Packet::from_frame(&frame);
                    if by_nic {
                        packet.set_note(NicNote::Opened(vif(21)));
                    }
                    net.re.now += 1;
                    let now = net.re.now;
                    net.re.machine.receive(vif(WAN), 0, &mut vec![packet], now);
                    sent.extend(net.re.machine.take_sent());
                    net.re.check_account();
                }
                let what = format!("egress {egress} port {port} {order:?} by NIC {by_nic}");
                assert_eq!(net.re.machine.held(), 0, "{what}");
                if port == 54 {
                    assert_eq!((sent.len(), net.re.all_drops()), (3, vec![]), "{what}");
                    assert!(sent.iter().all(|s| Frame::read(s.packet.data()).ip().ports() == (4500, 4500)), "{what}");
                } else {
                    assert_eq!((sent.len(), net.re.all_drops()), (0, vec![("Policy Deny", 3)]), "{what}");
                }
            }
        }
    }
}

#[test]
fn into_a_tunnel_the_checks_come_before_the_neighbour_of_its_underlay() {
    let header = r#""encap": {"oif": 1, "encapData": "02:00:00:00:00:ee 02:00:00:00:00:c2 0800"}"#;
    for policy in [true, false] {
        let lan = format!(r#""flags": {{"policy": {policy}}}, "ingressAcls": [1], "addresses""#);
        let state = altered(
            &ce2(),
            &[
                (r#""flags": {"policy": true}, "addresses""#, &lan),
                (header, r#""resolve": {"oif": 1}"#),
                (r#""nexthops": ["#, &format!(r#"{DENY_53} "nexthops": ["#)),
            ],
        );
        let mut node = Node::new(&state);
        let mut receive = |packet: &crate::common::packets::Packet| {
            let sent = node.receive(LAN, &eth(VRRP, [0, 0x0c, 0x29, 0, 1, 0x64], &packet.ip()));
            (sent.iter().map(|s| u32::from(s.port.get())).collect::<Vec<_>>(), node.machine.held(), sent)
        };
        let (ports, held, _) = receive(&udp(SERVER, CLIENT, 5000, 53, b"denied"));
        assert_eq!((&ports[..], held), (&[][..], 0), "policy {policy}");
        for (packet, icmp) in [
            (udp(SERVER, CLIENT, 5000, 54, b"old").ttl(1), (11, 0)),
            (udp(SERVER, CLIENT, 5000, 55, &[7; 1400]).df(), (3, 4)),
        ] {
            let (ports, held, sent) = receive(&packet);
            assert_eq!((&ports[..], held), (&[LAN][..], 0), "policy {policy}");
            assert_eq!(Frame::read(sent[0].packet.data()).ip().icmp(), icmp);
        }
        // What passes asks who takes the ESP packets.
        let (ports, held, sent) = receive(&udp(SERVER, CLIENT, 5000, 56, b"permitted"));
        assert_eq!((&ports[..], held, Frame::read(sent[0].packet.data()).ethertype), (&[WAN][..], 1, 0x0806));
        assert_eq!(node.all_drops(), [("TTL Exceeded", 1), ("Policy Deny", 1), ("Packet Too Big", 1)]);
    }
}
