//! Several workers do what one does: the same bytes for each flow in the same order, and the same counts.

use std::collections::BTreeMap;

use fallback_sw::{node::machine::Sent, packet, worker::Worker};
use proptest::prelude::*;

use crate::common::{
    Node,
    packets::{ACK, FIN, Frame, ICMP, Packet, RST, SYN, Tunnelled, UDP, VRRP, echo_request, eth, segment, udp},
    records::{out_of_tunnel, out_of_tunnel_on},
    vif,
    walk_a::{CE1, CLIENT_MAC, GATEWAY1, LAN1, SERVER, UNDERLAYS, altered, workers},
};

/// Something that happens to flow `.0`, whose host nobody else uses.
#[derive(Debug, Clone, Copy)]
enum Input {
    Udp(u8),
    Answer(u8, bool),
    Tcp(u8, u8),
    TcpAnswer(u8, u8),
    Echo(u8),
    /// A third of a datagram.
    Part(u8, u8, u8),
    Large(u8),
    Expired(u8),
    Arp(u8),
    Wait(u16),
}

fn input() -> impl Strategy<Value = Input> {
    let flow = 0u8..6;
    let flags = prop::sample::select(vec![SYN, ACK, SYN | ACK, FIN | ACK, RST, SYN | FIN]);
    prop_oneof![
        4 => flow.clone().prop_map(Input::Udp),
        4 => (flow.clone(), any::<bool>()).prop_map(|(flow, other)| Input::Answer(flow, other)),
        3 => (flow.clone(), flags.clone()).prop_map(|(flow, flags)| Input::Tcp(flow, flags)),
        3 => (flow.clone(), flags).prop_map(|(flow, flags)| Input::TcpAnswer(flow, flags)),
        1 => flow.clone().prop_map(Input::Echo),
        4 => (flow.clone(), 0u8..2, 0u8..3).prop_map(|(flow, id, part)| Input::Part(flow, id, part)),
        1 => flow.clone().prop_map(Input::Large),
        1 => flow.clone().prop_map(Input::Expired),
        3 => flow.prop_map(Input::Arp),
        1 => (0u16..4000).prop_map(Input::Wait),
    ]
}

/// Hosts of UDP, TCP and ICMP differ, so that one neighbour is one flow's.
fn host(block: u8, flow: u8) -> String {
    format!("192.168.100.{}", block * 10 + flow)
}

fn up(packet: &Packet) -> (u32, Vec<u8>) {
    (LAN1, eth(VRRP, CLIENT_MAC, &packet.ip()))
}

fn arp(host: &str) -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
    [&VRRP[..], &CLIENT_MAC, &head, &CLIENT_MAC, &address(host), &VRRP, &address(GATEWAY1)].concat()
}

fn frames(input: Input) -> Vec<(u32, Vec<u8>)> {
    let tcp_ports = |flow: u8| (2000 + u16::from(flow), 80);
    match input {
        Input::Udp(flow) => vec![up(&udp(&host(1, flow), SERVER, 1000, 53, b"question"))],
        Input::Answer(flow, other) => {
            let answer = udp(SERVER, &host(1, flow), 53, 1000, b"answer");
            vec![(UNDERLAYS[usize::from(other)], out_of_tunnel_on(UNDERLAYS[usize::from(other)], &answer))]
        }
        Input::Tcp(flow, flags) => {
            vec![up(&segment(&host(2, flow), SERVER, tcp_ports(flow), flags, (100, 500), b"data"))]
        }
        Input::TcpAnswer(flow, flags) => {
            let (sport, dport) = tcp_ports(flow);
            let packet = segment(SERVER, &host(2, flow), (dport, sport), flags, (500, 105), b"data");
            vec![(UNDERLAYS[0], out_of_tunnel(&packet))]
        }
        Input::Echo(flow) => vec![up(&echo_request(&host(3, flow), SERVER, 7, 1))],
        Input::Part(flow, id, part) => {
            let whole = udp(&host(1, flow), SERVER, 1000, 53, &[flow; 1192]).id(u16::from(flow) * 2 + u16::from(id));
            let begin = usize::from(part) * 400;
            vec![up(&whole.part(begin, begin + 400))]
        }
        Input::Large(flow) => vec![up(&udp(&host(1, flow), SERVER, 1000, 53, &[flow; 1472]))],
        Input::Expired(flow) => vec![up(&udp(&host(1, flow), SERVER, 1000, 53, b"x").ttl(1))],
        Input::Arp(flow) => (1..4).map(|block| (LAN1, arp(&host(block, flow)))).collect(),
        Input::Wait(_) => vec![],
    }
}

/// What leaves, by the hosts that it concerns; outer identifications are each worker's own.
type Output = BTreeMap<String, Vec<(u32, Vec<u8>)>>;

fn collect(sent: Vec<Sent>, output: &mut Output) {
    for frame in sent {
        let octets = frame.packet.data();
        let read = Frame::read(octets);
        let (who, octets) = if read.ethertype == 0x0806 {
            (format!("ARP {:?}", &read.payload[24..28]), octets.to_vec())
        } else {
            let ip = read.ip();
            let is_tunnel = ip.proto == UDP && ip.ports().1 == 6635;
            let mut octets = octets.to_vec();
            let inner = if is_tunnel {
                octets[18..20].fill(0);
                octets[24..26].fill(0);
                Tunnelled::read(ip).inner
            } else {
                ip
            };
            if inner.proto == ICMP && matches!(inner.icmp().0, 3 | 11) {
                (format!("about {:?}", &inner.quoted()[12..20]), octets)
            } else {
                (format!("{} {}", inner.src, inner.dst), octets)
            }
        };
        output.entry(who).or_default().push((u32::from(frame.port.get()), octets));
    }
}

/// Everything that can be counted, of the node.
fn counts(node: &Node) -> impl PartialEq + std::fmt::Debug {
    let (total, each) = node.machine.counters();
    let vifs: Vec<_> =
        [LAN1, UNDERLAYS[0], UNDERLAYS[1]].iter().map(|id| (total.of_vif(vif(*id)), total.of_port(vif(*id)))).collect();
    assert_eq!(each.len(), node.machine.workers().len());
    (total.account, vifs, total.vrfs, node.flow_records(), node.machine.held())
}

fn run(inputs: &[(Input, usize)], count: usize) -> (Output, Node) {
    let mut node = Node::with(CE1, workers(count));
    let mut output = Output::new();
    for (input, queue) in inputs {
        if let Input::Wait(ms) = input {
            collect(node.wait(u64::from(*ms)), &mut output);
        }
        for (port, frame) in frames(*input) {
            node.now += 1;
            // Any queue may bring any packet.
            node.machine.receive(vif(port), *queue, &mut vec![packet::Packet::from_frame(&frame)], node.now);
            node.check_account();
            collect(node.machine.take_sent(), &mut output);
        }
    }
    (output, node)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn two_and_three_workers_do_what_one_does(inputs in prop::collection::vec((input(), 0usize..3), 1..80)) {
        let (output, node) = run(&inputs, 1);
        for count in [2, 3] {
            let (theirs, them) = run(&inputs, count);
            prop_assert_eq!(&theirs, &output, "{} workers", count);
            prop_assert_eq!(format!("{:?}", counts(&them)), format!("{:?}", counts(&node)), "{} workers", count);
        }
    }
}

#[test]
fn flows_are_spread_over_the_workers_and_none_is_in_two() {
    let mut node = Node::with(CE1, workers(3));
    for flow in 0..100 {
        let (port, frame) = up(&udp("192.168.100.9", SERVER, 1000 + flow, 53, b"x"));
        node.now += 1;
        node.machine.receive(vif(port), usize::from(flow) % 3, &mut vec![packet::Packet::from_frame(&frame)], node.now);
    }
    let shares: Vec<u32> = node.machine.workers().iter().map(|worker| worker.flows().len()).collect();
    assert_eq!(shares.iter().sum::<u32>(), 200);
    assert!(shares.iter().all(|share| *share >= 30), "{shares:?}");
    assert_eq!(node.all_drops(), []);
}

#[test]
fn packets_without_flows_stay_where_they_are() {
    let json = altered(CE1, &[("\"vrf\": 18, \"flags\": {\"policy\": true},", "\"vrf\": 18,")]);
    let mut node = Node::with(&json, workers(3));
    for flow in 0..60 {
        let (port, frame) = up(&udp("192.168.100.9", SERVER, 1000 + flow, 53, b"x"));
        node.machine.receive(vif(port), 1, &mut vec![packet::Packet::from_frame(&frame)], node.now);
    }
    let ways = |worker: &Worker| (worker.account().slow_path, worker.account().routed);
    let went: Vec<_> = node.machine.workers().iter().map(ways).collect();
    // One walk for each member of the underlay.
    assert_eq!((went, node.machine.take_sent().len()), (vec![(0, 0), (2, 58), (0, 0)], 60));
    // The pieces of a datagram meet at one worker all the same.
    let whole = udp("192.168.100.9", SERVER, 1000, 53, &[7; 1192]);
    for (queue, begin) in [(0, 0), (1, 400), (2, 800)] {
        let (port, frame) = up(&whole.part(begin, begin + 400));
        node.machine.receive(vif(port), queue, &mut vec![packet::Packet::from_frame(&frame)], node.now);
    }
    let walked = node.machine.workers().iter().map(|worker| worker.account().slow_path);
    assert_eq!(walked.filter(|walked| matches!(walked, 3 | 5)).count(), 1);
    node.check_account();
}
