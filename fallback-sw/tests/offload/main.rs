//! Offload, the worker's side: what is asked of an engine and when, and what its answers do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod change;
#[path = "../common/mod.rs"]
mod common;
mod gateway;

use common::{
    Node,
    engine::with_engine,
    packets::{ACK, FIN, Frame, PSH, RST, SYN, echo_reply, echo_request, segment, udp},
    records::out_of_tunnel_on,
    vif,
    walk_a::{
        CE1, CE2, CLIENT, LABEL1, LABEL2, LAN1, LAN2, LAN2_MAC, SERVER, TUNNEL1, TUNNEL2, UNDERLAY_MACS, UNDERLAYS,
        altered, from_client, from_server, from_underlay, only,
    },
};
use fallback_sw::{packet::Packet, worker::Traffic};
use offload_engine::protocol::{OffloadId, Report, Request, Tier};
use offload_rules::{
    DropReason, VifId,
    forwarding::VlanTag,
    lower::{Direction, FailureClass, NotOffloaded, Unsupported},
};

const PORTS: (u16, u16) = (1, 9);

fn up_frame(sport: u16) -> Vec<u8> {
    from_client(&udp(CLIENT, SERVER, sport, 9, b"payload of some octets, beyond padding").ip())
}

/// Walked, then one ordinary packet of each direction, which comes by the same underlay vif as they leave on.
fn converse(node: &mut Node, sport: u16) -> u32 {
    node.receive(LAN1, &up_frame(sport));
    let (underlay, _) = only(node.receive(LAN1, &up_frame(sport)));
    down(node, underlay, sport);
    underlay
}

fn down(node: &mut Node, underlay: u32, sport: u16) {
    let answer = udp(SERVER, CLIENT, 9, sport, b"an answer of some octets, beyond padding");
    only(node.receive(underlay, &out_of_tunnel_on(underlay, &answer)));
}

/// A flow in hardware.
fn offloaded(sport: u16) -> (Node, OffloadId, u32) {
    let mut node = Node::with(CE1, with_engine());
    let underlay = converse(&mut node, sport);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    (node, id, underlay)
}

/// An established TCP connection, each direction seen once with data.
fn connected(node: &mut Node) -> u32 {
    let (client, server) = (PORTS, (PORTS.1, PORTS.0));
    let up = |flags, numbers, data: &[u8]| from_client(&segment(CLIENT, SERVER, client, flags, numbers, data).ip());
    let (underlay, _) = only(node.receive(LAN1, &up(SYN, (1000, 0), &[])));
    let answer = segment(SERVER, CLIENT, server, SYN | ACK, (5000, 1001), &[]);
    only(node.receive(underlay, &out_of_tunnel_on(underlay, &answer)));
    only(node.receive(LAN1, &up(ACK, (1001, 5001), &[])));
    node.asked_nothing();
    assert_eq!(node.runs(1), (Tier::Software, Some(NotOffloaded::OneSided)));
    only(node.receive(LAN1, &up(ACK | PSH, (1001, 5001), b"request")));
    node.asked_nothing();
    let answer = segment(SERVER, CLIENT, server, ACK | PSH, (5001, 1008), b"answer");
    only(node.receive(underlay, &out_of_tunnel_on(underlay, &answer)));
    underlay
}

fn both(directions: [Option<Direction>; 2]) -> (Direction, Direction) {
    let [Some(first), Some(second)] = directions else { panic!("not both: {directions:?}") };
    (first, second)
}

#[test]
fn rules_are_asked_for_when_both_directions_have_shown_how_they_arrive() {
    let mut node = Node::with(CE1, with_engine());
    node.receive(LAN1, &up_frame(1));
    node.asked_nothing();
    assert_eq!(node.runs(1), (Tier::Software, Some(NotOffloaded::OneSided)));
    let (underlay, sent) = only(node.receive(LAN1, &up_frame(1)));
    node.asked_nothing();
    down(&mut node, underlay, 1);
    let (id, directions) = node.asked_install();
    assert_eq!((id.worker, node.runs(1)), (0, (Tier::Pending, Some(NotOffloaded::Pending))));
    let (first, second) = both(directions);

    let here = first.arrival;
    assert_eq!((here.port, here.vif, here.tags, here.pcp_dei), (vif(LAN1), vif(LAN1), [None, None], 0));
    assert_eq!((here.tunnel, here.tos, here.ttl), (None, 0, 64));
    assert_eq!(here.eth_dst.0, common::packets::VRRP);
    assert_eq!((first.egress_port, first.ingress_mtu), (Some(vif(underlay)), 1500));
    let outer = common::packets::Tunnelled::read(sent.ip());
    assert_eq!((u32::from(first.ip_id), first.tunnel_sport), (outer.outer.id, outer.sport));

    let there = second.arrival;
    let at = UNDERLAYS.iter().position(|id| *id == underlay).unwrap();
    assert_eq!((there.port, there.vif, there.eth_dst.0), (vif(underlay), vif(underlay), UNDERLAY_MACS[at]));
    let tunnel = there.tunnel.unwrap();
    assert_eq!((tunnel.source.to_string(), tunnel.destination.to_string()), (TUNNEL2.to_owned(), TUNNEL1.to_owned()));
    assert_eq!((tunnel.udp_port, tunnel.label.get(), tunnel.label_ttl), (6635, LABEL1, 63));
    assert_eq!((there.ttl, second.key.vif, second.ingress_mtu), (64, VifId::TUNNEL, 1500 - 32));
    assert_eq!(second.egress_port, Some(vif(LAN1)));

    // Asked once.
    converse(&mut node, 1);
    node.asked_nothing();
    node.in_hardware(id);
    assert_eq!(node.runs(1), (Tier::Hardware, None));
}

#[test]
fn a_tag_is_part_of_how_a_packet_arrives() {
    let mut node = Node::with(CE2, with_engine());
    let frame = |tos| from_server(&udp(SERVER, CLIENT, 1, 9, b"from a sub-interface").tos(tos).ttl(17).ip());
    node.receive(LAN2, &frame(0));
    let (underlay, _) = only(node.receive(LAN2, &frame(0x2e)));
    let inner = udp(CLIENT, SERVER, 9, 1, b"back").ip();
    let stack = [common::packets::entry(LABEL2, 0, true, 40)];
    let tunnelled = common::packets::mpls_udp(TUNNEL1, TUNNEL2, (50_000, 51234), &stack, &inner);
    node.receive(underlay, &from_underlay(underlay, &tunnelled.ip()));
    let (_, directions) = node.asked_install();
    let (first, second) = both(directions);
    let tag = VlanTag { tpid: 0x8100, vid: 300 };
    assert_eq!((first.arrival.port, first.arrival.tags), (vif(LAN2), [Some(tag), None]));
    assert_eq!((first.arrival.vif, first.key.vif), (vif(12), vif(12)));
    assert_eq!((first.arrival.eth_dst.0, first.arrival.tos, first.arrival.ttl), (LAN2_MAC, 0x2e, 17));
    let tunnel = second.arrival.tunnel.unwrap();
    assert_eq!((tunnel.udp_port, tunnel.label.get(), tunnel.label_ttl), (51234, LABEL2, 40));
    assert_eq!(second.egress_port, Some(vif(LAN2)));
}

#[test]
fn without_an_engine_nothing_is_asked_and_the_reason_says_so() {
    let mut node = Node::new(CE1);
    converse(&mut node, 1);
    node.asked_nothing();
    assert_eq!(node.runs(1), (Tier::Software, Some(NotOffloaded::NoHardware)));
}

#[test]
fn icmp_is_not_asked_for() {
    let mut node = Node::with(CE1, with_engine());
    let (underlay, _) = only(node.receive(LAN1, &from_client(&echo_request(CLIENT, SERVER, 7, 1).ip())));
    for seq in 1..5 {
        node.receive(LAN1, &from_client(&echo_request(CLIENT, SERVER, 7, seq).ip()));
        node.receive(underlay, &out_of_tunnel_on(underlay, &echo_reply(SERVER, CLIENT, 7, seq)));
    }
    node.asked_nothing();
    assert_eq!(node.runs(7), (Tier::Software, Some(NotOffloaded::Unsupported(Unsupported::Icmp))));
}

#[test]
fn tcp_is_asked_for_when_it_is_established_and_taken_back_with_a_fin() {
    let mut node = Node::with(CE1, with_engine());
    connected(&mut node);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    // Gigabytes pass in hardware; the FIN comes by software with numbers that look old.
    let fin = segment(CLIENT, SERVER, PORTS, FIN | ACK, (1001u32.wrapping_add(0xa000_0000), 77), &[]);
    only(node.receive(LAN1, &from_client(&fin.ip())));
    assert_eq!(node.asked_remove(), id);
    assert_eq!(node.letters(1), "SSrEErF");
    assert_eq!(node.runs(1).1, None, "the rules are still there");
    // What passed until they were gone is counted.
    let before = node.flow(1).packets;
    node.nic_counts(id, 0, 10, 1000);
    assert_eq!(node.flow(1).packets, before + 10);
    node.gone(id);
    assert_eq!(node.runs(1), (Tier::Software, Some(NotOffloaded::NotEstablished)));
    assert_eq!(node.status(1).hardware.packets, 10, "what the NIC has carried is told as long as the flow is there");
    only(node.receive(LAN1, &from_client(&fin.ip())));
    node.asked_nothing();
    assert_eq!(node.all_drops(), []);
}

#[test]
fn a_reset_of_an_offloaded_connection_is_believed() {
    let mut node = Node::with(CE1, with_engine());
    let underlay = connected(&mut node);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    // A stray segment with another TTL comes by software, then much passes in hardware.
    let stray = segment(CLIENT, SERVER, PORTS, ACK, (1008, 5007), b"x").ttl(9);
    only(node.receive(LAN1, &from_client(&stray.ip())));
    let reset = segment(SERVER, CLIENT, (9, 1), RST | ACK, (0x0700_0000, 0x0800_0000), &[]);
    only(node.receive(underlay, &out_of_tunnel_on(underlay, &reset)));
    assert_eq!(node.asked_remove(), id);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn resets_after_a_fin_are_believed_until_the_rules_are_gone() {
    let mut node = Node::with(CE1, with_engine());
    let underlay = connected(&mut node);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    // The server closes; the client's data, in hardware still, acknowledges what was before the FIN, and is answered with resets.
    let fin = segment(SERVER, CLIENT, (9, 1), FIN | ACK, (5007, 0x0800_0000), &[]);
    only(node.receive(underlay, &out_of_tunnel_on(underlay, &fin)));
    assert_eq!(node.asked_remove(), id);
    let reset = segment(SERVER, CLIENT, (9, 1), RST, (5007, 0), &[]);
    for _ in 0..3 {
        only(node.receive(underlay, &out_of_tunnel_on(underlay, &reset)));
    }
    assert_eq!(node.all_drops(), []);
}

#[test]
fn a_reset_out_of_window_is_ignored_once_the_flow_is_in_software() {
    let mut node = Node::with(CE1, with_engine());
    let underlay = connected(&mut node);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    node.told(id, Tier::Software, Some(NotOffloaded::Off));
    // Both directions show their numbers, far from the old ones.
    let data = segment(CLIENT, SERVER, PORTS, ACK, (0x4000_0000, 0x5000_0000), b"x");
    only(node.receive(LAN1, &from_client(&data.ip())));
    let data = segment(SERVER, CLIENT, (9, 1), ACK, (0x5000_0000, 0x4000_0001), b"y");
    only(node.receive(underlay, &out_of_tunnel_on(underlay, &data)));
    let reset = segment(SERVER, CLIENT, (9, 1), RST, (0x5000_1000, 0), &[]);
    assert_eq!(node.receive(underlay, &out_of_tunnel_on(underlay, &reset)).len(), 0);
    assert_eq!(node.all_drops(), [("TCP reset ignored", 1)]);
}

#[test]
fn a_flow_lives_as_long_as_the_nic_counts_and_its_removal_is_told() {
    let (mut node, id, _) = offloaded(1);
    for _ in 0..20 {
        node.wait(60_000);
        node.nic_counts(id, 1, 1, 100);
        assert!(node.has_flow(1));
    }
    assert_eq!(node.status(1).tier, Tier::Hardware);
    node.asked_nothing();
    node.wait(400_000);
    assert!(!node.has_flow(1));
    assert_eq!(node.asked_remove(), id);
    // Late counts of a flow that is not there any more still count.
    let before = node.machine.counters().0;
    node.nic_counts(id, 0, 3, 300);
    let after = node.machine.counters().0;
    assert_eq!(after.of_vif(vif(LAN1)).rx_packets, before.of_vif(vif(LAN1)).rx_packets + 3);
    assert_eq!(after.account.forwarded, before.account.forwarded + 3);
    node.gone(id);
    node.nic_counts(id, 0, 3, 300);
    assert_eq!(node.machine.counters().0.account, after.account, "the id is not used any more");
    converse(&mut node, 1);
    assert_ne!(node.asked_install().0, id);
}

#[test]
fn counters_are_those_of_a_run_in_software_alone() {
    let mut software = Node::new(CE1);
    let underlay = converse(&mut software, 1);
    let (mut node, id, same) = offloaded(1);
    assert_eq!(same, underlay);
    for _ in 0..10 {
        software.receive(LAN1, &up_frame(1));
        down(&mut software, underlay, 1);
    }
    let len = |frame: &[u8]| frame.len() as u64;
    let back = out_of_tunnel_on(underlay, &udp(SERVER, CLIENT, 9, 1, b"an answer of some octets, beyond padding"));
    node.nic_counts(id, 0, 10, 10 * len(&up_frame(1)));
    node.nic_counts(id, 1, 4, 4 * len(&back));
    node.nic_counts(id, 1, 6, 6 * len(&back));
    let (plain, mixed) = (software.machine.counters().0, node.machine.counters().0);
    for id in [LAN1, UNDERLAYS[0], UNDERLAYS[1]] {
        assert_eq!(mixed.of_vif(vif(id)), plain.of_vif(vif(id)), "vif {id}");
        assert_eq!(mixed.of_port(vif(id)), plain.of_port(vif(id)), "port {id}");
    }
    assert_eq!(mixed.vrfs, plain.vrfs);
    assert_eq!((mixed.account.hardware, mixed.account.flow_hits + 20), (20, plain.account.flow_hits));
    let account =
        fallback_sw::worker::Account { hardware: 0, flow_hits: plain.account.flow_hits, ..(*mixed.account).clone() };
    assert_eq!(account, *plain.account);
    let (hard, soft) = (mixed.tiers.values().next().unwrap(), plain.tiers.values().next().unwrap());
    assert_eq!((hard.hardware.packets, soft.hardware.packets, hard.software.packets), (20, 0, 2));
    assert_eq!(hard.hardware.bytes + hard.software.bytes, soft.software.bytes);
    assert_eq!((hard.slow_path, soft.slow_path.packets), (soft.slow_path, 1));
    for (a, b) in node.records().iter().zip(software.records()) {
        assert_eq!((a.packets, a.bytes), (b.packets, b.bytes));
    }
    let hardware = node.status(1).hardware;
    assert_eq!(hardware, Traffic { packets: 10, bytes: 10 * len(&up_frame(1)) });
}

#[test]
fn unanswered_udp_asks_for_one_direction_and_for_both_once_answered() {
    let mut node = Node::with(CE1, with_engine());
    for _ in 0..10 {
        node.receive(LAN1, &up_frame(1));
    }
    node.wait(3000);
    node.asked_nothing();
    let mut underlay = 0;
    for _ in 0..30 {
        underlay = only(node.receive(LAN1, &up_frame(1))).0;
    }
    node.wait(1500);
    let (id, directions) = node.asked_install();
    assert!(directions[0].is_some() && directions[1].is_none());
    node.in_hardware(id);
    assert_eq!(node.runs(1), (Tier::Hardware, None));
    down(&mut node, underlay, 1);
    let (again, directions) = node.asked_install();
    assert_eq!(again, id);
    both(directions);
}

#[test]
fn a_nic_that_ignores_its_rules_is_detected_and_unused_for_a_minute() {
    let (mut node, id, underlay) = offloaded(1);
    for _ in 0..200 {
        node.receive(LAN1, &up_frame(1));
    }
    node.asked_nothing();
    node.wait(2000);
    let mut asked = Vec::new();
    for n in 1..=64 {
        assert!(asked.is_empty(), "after {n} packets");
        node.receive(LAN1, &up_frame(1));
        asked = node.asked();
    }
    assert!(matches!(asked[..], [Request::NotHonoured { id: a }, Request::Remove { id: b }] if a == id && b == id));
    node.gone(id);
    assert_eq!(node.runs(1), (Tier::Software, Some(NotOffloaded::NotHonoured)));
    for _ in 0..50 {
        node.wait(1000);
        node.receive(LAN1, &up_frame(1));
        down(&mut node, underlay, 1);
    }
    node.asked_nothing();
    for _ in 0..12 {
        node.wait(1000);
        node.receive(LAN1, &up_frame(1));
    }
    assert_ne!(node.asked_install().0, id);
}

#[test]
fn a_nic_that_counts_is_believed_though_some_packets_come_by_software() {
    let (mut node, id, underlay) = offloaded(1);
    node.nic_counts(id, 0, 1, 100);
    node.nic_counts(id, 1, 1, 100);
    node.wait(2500);
    for _ in 0..100 {
        node.receive(LAN1, &up_frame(1));
        down(&mut node, underlay, 1);
    }
    node.asked_nothing();
    assert_eq!(node.status(1).tier, Tier::Hardware);
}

#[test]
fn packets_that_arrive_with_another_ttl_for_good_get_new_rules() {
    let (mut node, id, _) = offloaded(1);
    node.nic_counts(id, 0, 1, 100);
    let other = from_client(&udp(CLIENT, SERVER, 1, 9, b"nearer by one hop").ttl(63).ip());
    let mut asked = Vec::new();
    for _ in 0..20 {
        node.wait(1000);
        for _ in 0..80 {
            node.receive(LAN1, &other);
        }
        asked.extend(node.asked());
        if asked.len() == 1 {
            node.in_hardware(id);
            node.nic_counts(id, 0, 1, 100);
        }
    }
    let [Request::Install { id: again, directions, .. }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((*again, directions[0].as_ref().unwrap().arrival.ttl), (id, 63));
}

#[test]
fn a_full_queue_is_a_reason_and_asked_again() {
    let mut node = Node::with(CE1, with_engine());
    converse(&mut node, 1);
    let asked = node.asked();
    node.machine.offload_refused(&asked);
    assert_eq!(node.runs(1), (Tier::Software, Some(NotOffloaded::QueueFull)));
    node.wait(300);
    let (id, _) = node.asked_install();
    node.in_hardware(id);
    // A removal must not get lost either.
    node.wait(400_000);
    let asked = node.asked();
    assert!(matches!(asked[..], [Request::Remove { .. }]), "{asked:?}");
    node.machine.offload_refused(&asked);
    node.wait(300);
    assert_eq!(node.asked_remove(), id);
    node.gone(id);
    // Never taken: nothing to remove.
    converse(&mut node, 2);
    let asked = node.asked();
    node.machine.offload_refused(&asked);
    node.machine.offload_enabled(false);
    node.wait(400_000);
    node.asked_nothing();
}

#[test]
fn switched_off_nothing_is_asked_and_on_again_everything_is() {
    let (mut node, id, _) = offloaded(1);
    node.machine.offload_enabled(false);
    node.told(id, Tier::Software, Some(NotOffloaded::Off));
    converse(&mut node, 2);
    node.wait(1000);
    node.asked_nothing();
    assert_eq!(node.runs(1), (Tier::Software, Some(NotOffloaded::Off)));
    assert_eq!(node.runs(2), (Tier::Software, Some(NotOffloaded::Off)));
    node.machine.offload_enabled(true);
    node.wait(100);
    let asked = node.asked();
    assert!(asked.iter().all(|request| matches!(request, Request::Install { .. })), "{asked:?}");
    let ids: Vec<OffloadId> = asked.iter().filter_map(Request::id).collect();
    assert!(ids.len() == 2 && ids.contains(&id), "{ids:?}");
}

#[test]
fn a_waiting_flow_tells_when_it_carries_more() {
    let mut node = Node::with(CE1, with_engine());
    converse(&mut node, 1);
    let (id, _) = node.asked_install();
    node.told(id, Tier::Software, Some(NotOffloaded::Placement));
    let mut rates = Vec::new();
    for second in 0..6 {
        for _ in 0..if second < 3 { 10 } else { 40 } {
            node.receive(LAN1, &up_frame(1));
        }
        node.wait(990);
        rates.extend(node.machine.take_offload_requests());
    }
    let rates: Vec<u64> = rates
        .iter()
        .map(|request| if let Request::Rate { rate, .. } = request { *rate } else { panic!("{request:?}") })
        .collect();
    let (first, last) = (rates[0], *rates.last().unwrap());
    assert!(rates.len() <= 5 && last > 3 * first, "{rates:?}");
    node.told(id, Tier::Software, Some(NotOffloaded::Failed(FailureClass::Busy)));
    assert_eq!(node.runs(1).1, Some(NotOffloaded::Failed(FailureClass::Busy)));
}

#[test]
fn a_flow_marked_in_one_direction_runs_the_other_in_software() {
    let mut node = Node::with(CE1, with_engine());
    connected(&mut node);
    let (id, _) = node.asked_install();
    let why = Some(NotOffloaded::Unsupported(Unsupported::Encap));
    node.report(Report::Marked { id, directions: [true, false] });
    node.told(id, Tier::Partial, why);
    assert_eq!(node.runs(1), (Tier::Partial, why));
    let back = node.flow(1).reverse;
    let other = node.worker().offload_status(back).unwrap();
    assert_eq!((other.tier, other.reason), (Tier::Software, why));
}

#[test]
fn a_mark_finds_the_flow_and_a_wrong_one_does_no_harm() {
    let mut node = Node::with(CE1, with_engine());
    converse(&mut node, 1);
    let (one, _) = node.asked_install();
    converse(&mut node, 2);
    let (two, _) = node.asked_install();
    for id in [one, two] {
        node.told(id, Tier::Partial, Some(NotOffloaded::Unsupported(Unsupported::Encap)));
    }
    assert_eq!(node.runs(1).0, Tier::Partial);
    let mut expected = Vec::new();
    for frame in [up_frame(1), up_frame(2)] {
        expected.push(only(node.receive(LAN1, &frame)).1);
    }
    // Right, wrong, unknown, none; and a mark on a packet of no flow.
    let marks = [(1, Some(one.entry)), (2, Some(one.entry)), (1, Some(0x00ff_ffff)), (2, None), (1, Some(one.entry))];
    let mut packets: Vec<Packet> = marks
        .iter()
        .map(|(sport, mark)| {
            let mut packet = Packet::from_frame(&up_frame(*sport));
            packet.set_mark(*mark);
            packet
        })
        .collect();
    let mut stranger = Packet::from_frame(&up_frame(3));
    stranger.set_mark(Some(two.entry));
    packets.push(stranger);
    node.machine.receive(vif(LAN1), 0, &mut packets, node.now);
    let sent = node.machine.take_sent();
    // Ports have queues of their own.
    let times = |frame: &Frame| sent.iter().filter(|sent| Frame::read(sent.packet.data()) == *frame).count();
    assert_eq!((sent.len(), times(&expected[0]), times(&expected[1])), (6, 3, 2));
    assert_eq!((node.flow(1).packets, node.flow(2).packets, node.flow(3).packets), (6, 5, 1));
    let counters = node.machine.counters().0;
    let tiers = counters.tiers.values().next().unwrap();
    assert_eq!((tiers.partial.packets, tiers.slow_path.packets), (2, 3));
    assert_eq!(tiers.partial.packets + tiers.software.packets, counters.account.flow_hits);
    // What the NIC counts of marked packets was counted by software.
    node.nic_counts(one, 0, 2, 200);
    assert_eq!((node.flow(1).packets, node.machine.account().hardware), (6, 0));
    node.check_account();
}

#[test]
fn every_packet_is_in_one_tier() {
    let mut node = Node::with(CE1, with_engine());
    for sport in 1..5 {
        converse(&mut node, sport);
    }
    let total = node.machine.counters().0;
    let mut sum = Traffic::default();
    for tiers in total.tiers.values() {
        for part in [tiers.hardware, tiers.partial, tiers.software, tiers.routed, tiers.slow_path, tiers.punt] {
            sum.add(part);
        }
    }
    let octets: u64 = [LAN1, UNDERLAYS[0], UNDERLAYS[1]].iter().map(|id| total.of_port(vif(*id)).rx_bytes).sum();
    assert_eq!(sum, Traffic { packets: total.account.received, bytes: octets });
    assert_eq!(total.tiers.keys().map(|vrf| vrf.get()).collect::<Vec<_>>(), [18]);
}
