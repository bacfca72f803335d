//! What is addressed to the node itself in fragments is put together and read.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Node, hex};
use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpFragOffset, IpHeaders, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice, UdpHeader,
};
use fallback_sw::node::machine::MachineConfig;
use fallback_sw::packet::{Packet, fragment, parse, reassembly::Reassembly};
use offload_rules::DropReason;

const TENANT: u32 = 1;
const UNDERLAY: u32 = 2;
const PLAIN: u32 = 4;

const STATE: &str = r#"{
  "generation": "1",
  "settings": {"maxFragmentedDatagrams": 3, "maxHeld": 6, "maxHeldPerNeighbour": 6, "fragmentTimeoutSecs": 5},
  "vrfs": [{"id": 2}, {"id": 8}],
  "vifs": [
    {"id": 1, "name": "tenant", "type": "VIRTUAL", "vrf": 2, "addresses": ["192.168.0.1/24", "fd00::1/64"], "mtu": 1500,
     "flags": {"policy": true, "rawIp": true}},
    {"id": 2, "name": "underlay", "type": "PHYSICAL", "mac": "00:00:5e:00:01:01", "vrf": 8, "addresses": ["10.0.0.2/24"]},
    {"id": 4, "name": "plain", "type": "VIRTUAL", "vrf": 8, "addresses": ["10.4.0.1/24"], "mtu": 1500,
     "flags": {"rawIp": true}}
  ],
  "nexthops": [
    {"id": 10, "vrf": 2, "encap": {"oif": 1}},
    {"id": 11, "vrf": 2, "receive": {}},
    {"id": 12, "vrf": 8, "encap": {"oif": 4}},
    {"id": 13, "vrf": 8, "receive": {}},
    {"id": 20, "vrf": 8, "receive": {"terminateMplsOUdp": true}},
    {"id": 85, "vrf": 8, "encap": {"oif": 2, "encapData": "00005e000109 00005e000101 0800"}},
    {"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.9.9.2", "dip": "10.9.9.1", "directNexthop": 85,
      "udpPort": 6635}},
    {"id": 513, "vrf": 8, "policy": true, "vrfTranslate": {"vrf": 2}}
  ],
  "routes": [
    {"vrf": 2, "prefix": "192.168.0.0/24", "nexthop": 10},
    {"vrf": 2, "prefix": "fd00::/64", "nexthop": 10},
    {"vrf": 2, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 48},
    {"vrf": 2, "prefix": "192.168.0.1/32", "nexthop": 11},
    {"vrf": 2, "prefix": "fd00::1/128", "nexthop": 11},
    {"vrf": 8, "prefix": "10.4.0.0/24", "nexthop": 12},
    {"vrf": 8, "prefix": "10.4.0.1/32", "nexthop": 13},
    {"vrf": 8, "prefix": "10.9.9.2/32", "nexthop": 20}
  ],
  "labels": [{"label": 300, "nexthop": 513}]
}"#;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn ping4(src: [u8; 4], dst: [u8; 4], len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let kind = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 7, seq: 1 });
    PacketBuilder::ipv4(src, dst, 64).icmpv4(kind).write(&mut out, &payload(len)).unwrap();
    allow_fragments(out)
}

fn ping6(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let kind = Icmpv6Type::EchoRequest(IcmpEchoHeader { id: 7, seq: 1 });
    PacketBuilder::ipv6(v6("fd00::64"), v6("fd00::1"), 64).icmpv6(kind).write(&mut out, &payload(len)).unwrap();
    out
}

fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// Clears DF and numbers the datagram.
fn allow_fragments(mut l3: Vec<u8>) -> Vec<u8> {
    let (mut header, rest) = Ipv4Header::from_slice(&l3).unwrap();
    header.dont_fragment = false;
    header.identification = 77;
    header.header_checksum = header.calc_header_checksum();
    let rest = rest.to_vec();
    l3.clear();
    header.write(&mut l3).unwrap();
    l3.extend(rest);
    l3
}

fn fragments(l3: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let ip = parse::ip(l3, l3[0] >> 4).unwrap();
    if ip.version == 4 {
        fragment::split(l3, &ip, mtu, &mut Vec::new(), &mut out).unwrap();
    } else {
        fragment::split_at_source(l3, &ip, mtu, 77, &mut Vec::new(), &mut out).unwrap();
    }
    out.iter().map(|packet| packet.data().to_vec()).collect()
}

/// The payload of an echo reply that came in these packets, its checksums and fields checked.
fn echo_reply(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Reassembly::default();
    let mut whole = packets[0].clone();
    if packets.len() > 1 {
        for packet in packets {
            assert!(packet.len() <= 1500);
            let ip = parse::ip(packet, packet[0] >> 4).unwrap();
            all.add(Packet::from_frame(packet), &ip).unwrap();
        }
        whole = all.whole().unwrap().data().to_vec();
    }
    let sliced = SlicedPacket::from_ip(&whole).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(_), TransportSlice::Icmpv4(icmp)) => {
            let header = icmp.header();
            assert_eq!(header.icmp_type, Icmpv4Type::EchoReply(IcmpEchoHeader { id: 7, seq: 1 }));
            assert_eq!(header.icmp_type.calc_checksum(icmp.payload()), header.checksum);
            icmp.payload().to_vec()
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = icmp.header();
            assert_eq!(header.icmp_type, Icmpv6Type::EchoReply(IcmpEchoHeader { id: 7, seq: 1 }));
            let (from, to) = (ip.header().source(), ip.header().destination());
            assert_eq!(header.icmp_type.calc_checksum(from, to, icmp.payload()).unwrap(), header.checksum);
            icmp.payload().to_vec()
        }
        other => panic!("no echo reply: {other:?}"),
    }
}

/// Received fragments were used up, all of them.
fn assert_consumed(node: &Node, packets: u64) {
    let account = node.machine.counters().0.account;
    assert_eq!((account.consumed, account.dropped_total()), (packets, 0), "{:?}", node.all_drops());
}

#[test]
fn a_fragmented_echo_request_is_answered_in_fragments_whatever_the_order() {
    let in_order: [usize; 3] = [0, 1, 2];
    for order in [in_order, [2, 1, 0], [1, 2, 0]] {
        for (request, port) in [
            (ping4([192, 168, 0, 100], [192, 168, 0, 1], 3500), TENANT),
            (ping6(3500), TENANT),
            // No policy on the vif: no flow lookup.
            (ping4([10, 4, 0, 100], [10, 4, 0, 1], 3500), PLAIN),
        ] {
            let mut node = Node::new(STATE);
            let pieces = fragments(&request, 1300);
            assert_eq!(pieces.len(), 3);
            let mut sent = Vec::new();
            for at in order {
                assert!(sent.is_empty(), "answered too early");
                sent = node.receive(port, &pieces[at]);
            }
            assert_eq!(sent.len(), 3);
            let reply: Vec<_> = sent.iter().map(|sent| sent.packet.data().to_vec()).collect();
            assert_eq!(echo_reply(&reply), payload(3500));
            assert_consumed(&node, 3);
            assert_eq!(node.machine.counters().0.account.originated, 3);
            assert_eq!(node.machine.held(), 0);
        }
    }
}

#[test]
fn a_request_that_overlaps_itself_is_dropped_whole() {
    let mut node = Node::new(STATE);
    let pieces = fragments(&ping4([10, 4, 0, 100], [10, 4, 0, 1], 3500), 1300);
    let mut overlapping = pieces[1].clone();
    overlapping[7] -= 1;
    let (mut header, _) = Ipv4Header::from_slice(&overlapping).unwrap();
    header.header_checksum = header.calc_header_checksum();
    overlapping[..20].copy_from_slice(&header.to_bytes());
    for piece in [&pieces[0], &overlapping, &pieces[1], &pieces[2]] {
        assert!(node.receive(PLAIN, piece).is_empty());
    }
    assert_eq!(node.all_drops(), [(DropReason::FragmentErr.name(), 4)]);
}

#[test]
fn what_is_not_complete_in_time_is_dropped() {
    let mut node = Node::new(STATE);
    let pieces = fragments(&ping4([192, 168, 0, 100], [192, 168, 0, 1], 3500), 1300);
    node.receive(TENANT, &pieces[0]);
    node.receive(TENANT, &pieces[2]);
    assert_eq!(node.machine.held(), 2);
    node.wait(4800);
    assert_eq!(node.machine.held(), 2);
    node.wait(300);
    assert_eq!((node.machine.held(), node.drops(DropReason::FragmentTimeout)), (0, 2));
    // Later ones are no continuation of it.
    assert!(node.receive(TENANT, &pieces[1]).is_empty());
}

#[test]
fn neither_datagrams_nor_fragments_pile_up() {
    let mut node = Node::new(STATE);
    for host in 0..5 {
        let pieces = fragments(&ping4([10, 4, 0, 100 + host], [10, 4, 0, 1], 3500), 1300);
        node.receive(PLAIN, &pieces[0]);
    }
    assert_eq!((node.machine.held(), node.drops(DropReason::FragmentTableFull)), (3, 2));
    // Small pieces of one datagram, up to what may be held in all.
    let mut node = Node::new(STATE);
    for piece in &fragments(&ping4([10, 4, 0, 100], [10, 4, 0, 1], 3500), 316)[..7] {
        node.receive(PLAIN, piece);
    }
    assert_eq!((node.machine.held(), node.drops(DropReason::FragmentTableFull)), (0, 7));
}

/// An IP packet in MPLS over UDP toward the node.
fn tunnelled(inner: &[u8]) -> Vec<u8> {
    let label = hex("0012c140");
    let body = [&label[..], inner].concat();
    let (src, dst) = ([10, 9, 9, 1], [10, 9, 9, 2]);
    let udp = UdpHeader::with_ipv4_checksum(50000, 6635, &Ipv4Header::new(0, 64, 17.into(), src, dst).unwrap(), &body);
    let mut out = Vec::new();
    PacketBuilder::ip(IpHeaders::Ipv4(Ipv4Header::new(0, 64, 17.into(), src, dst).unwrap(), Default::default()))
        .udp(50000, 6635)
        .write(&mut out, &body)
        .unwrap();
    assert_eq!(out[26..28], udp.unwrap().checksum.to_be_bytes());
    allow_fragments(out)
}

fn on_underlay(l3: &[u8]) -> Vec<u8> {
    [hex("00005e000101 00005e000109 0800"), l3.to_vec()].concat()
}

#[test]
fn a_tunnel_packet_fragmented_outside_is_opened_once_reassembled() {
    let mut inner = Vec::new();
    PacketBuilder::ipv4([192, 168, 1, 5], [192, 168, 0, 100], 64)
        .udp(53, 4000)
        .write(&mut inner, &payload(1400))
        .unwrap();
    let pieces = fragments(&tunnelled(&inner), 576);
    assert_eq!(pieces.len(), 3);
    for (order, workers) in [([0usize, 1, 2], 1), ([2, 0, 1], 1), ([1, 2, 0], 3)] {
        let mut node = Node::with(STATE, MachineConfig { workers, ..MachineConfig::default() });
        let mut sent = Vec::new();
        for at in order {
            assert!(sent.is_empty());
            sent = node.receive(UNDERLAY, &on_underlay(&pieces[at]));
        }
        let account = node.machine.counters().0.account;
        assert_eq!((account.forwarded, account.consumed, account.dropped_total()), (1, 2, 0), "{:?}", node.all_drops());
        assert_eq!((sent.len(), sent[0].port.get()), (1, TENANT as u16));
        // The inner packet, one hop further.
        assert_eq!(sent[0].packet.data()[20..], inner[20..]);
        assert_eq!(sent[0].packet.data()[8], 63);
        // The next one needs a head of its own.
        assert!(node.receive(UNDERLAY, &on_underlay(&pieces[1])).is_empty());
    }
}

#[test]
fn a_fragmented_echo_request_that_comes_by_a_tunnel_is_answered_by_it() {
    let mut node = Node::new(STATE);
    let request = ping4([192, 168, 1, 5], [192, 168, 0, 1], 3000);
    let mut sent = Vec::new();
    for piece in fragments(&request, 1300) {
        sent = node.receive(UNDERLAY, &on_underlay(&tunnelled(&piece)));
    }
    let reply: Vec<_> = sent.iter().map(|sent| sent.packet.data()[14 + 32..].to_vec()).collect();
    assert_eq!(echo_reply(&reply), payload(3000));
    assert_consumed(&node, 3);
}

#[test]
fn a_repeated_fragment_is_dropped_and_spoils_nothing() {
    let mut node = Node::new(STATE);
    let mut inner = Vec::new();
    PacketBuilder::ipv4([192, 168, 1, 5], [192, 168, 0, 100], 64)
        .udp(53, 4000)
        .write(&mut inner, &payload(1400))
        .unwrap();
    let pieces = fragments(&tunnelled(&inner), 576);
    for at in [0, 1, 1, 0] {
        assert!(node.receive(UNDERLAY, &on_underlay(&pieces[at])).is_empty());
    }
    assert_eq!(node.receive(UNDERLAY, &on_underlay(&pieces[2])).len(), 1);
    assert_eq!(node.all_drops(), [(DropReason::FragmentErr.name(), 2)]);
}

#[test]
fn whole_packets_are_never_held() {
    let mut node = Node::new(STATE);
    let request = ping4([192, 168, 0, 100], [192, 168, 0, 1], 100);
    assert_eq!(Ipv4Header::from_slice(&request).unwrap().0.fragment_offset, IpFragOffset::ZERO);
    assert_eq!(node.receive(TENANT, &request).len(), 1);
    assert_consumed(&node, 1);
}
