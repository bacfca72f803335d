//! The golden packet: MPLS over UDP, byte for byte.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Node, hex};
use fallback_sw::{node::machine::MachineConfig, packet::checksum::checksum};

const STATE: &str = r#"{
  "generation": "1",
  "vrfs": [{"id": 2}, {"id": 8}],
  "vifs": [
    {"id": 1, "name": "tenant", "type": "VIRTUAL", "vrf": 2, "addresses": ["1.1.1.254/24"], "flags": {"policy": true}},
    {"id": 2, "name": "underlay", "type": "PHYSICAL", "mac": "00:00:5e:00:01:01", "vrf": 8, "addresses": ["1.1.1.2/24"]}
  ],
  "nexthops": [
    {"id": 10, "vrf": 2, "resolve": {"oif": 1}},
    {"id": 85, "vrf": 8, "encap": {"oif": 2, "encapData": "00005e000100 00005e000101 0800"}},
    {"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "1.1.2.2", "dip": "2.2.1.1", "directNexthop": 85,
      "udpPort": 51234}}
  ],
  "routes": [
    {"vrf": 2, "prefix": "1.1.1.0/24", "nexthop": 10},
    {"vrf": 2, "prefix": "2.2.2.0/24", "nexthop": 489, "label": 48}
  ]
}"#;

/// The inner packet as it comes in: TTL 64.
fn inner() -> Vec<u8> {
    let mut packet = hex("4500006c 00010000 40110000 01010101 02020202 1f001f00 00580000");
    packet.resize(108, 0xa5);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn the_golden_packet_leaves_byte_for_byte() {
    let mut node = Node::with(STATE, MachineConfig { ip_id: 1, entropy: Some(0xeb06), ..MachineConfig::default() });
    let frame = [hex("00005e000100 020000000001 0800"), inner()].concat();

    let sent = node.receive(1, &frame);

    assert_eq!(sent.len(), 1, "{:?}", node.all_drops());
    let golden = hex("0800 4500008c00010000 4011745b 01010202 02020101 eb06c822 00780000 0003013f \
         4500006c00010000 3f11757b 01010101 02020202");
    let out = sent[0].packet.data();
    assert_eq!(out[12..12 + golden.len()], golden);
    // What comes behind the inner IP header is as it was.
    assert_eq!(out[14 + 32 + 20..], inner()[20..]);
}
