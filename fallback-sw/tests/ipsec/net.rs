//! Walk A through a regional edge: two customer edges, each with two tunnels to it. CE1 sends ESP in UDP, CE2 bare ESP. MPLS over
//! UDP goes from end to end, ESP from hop to hop.

use std::collections::VecDeque;

use fallback_sw::node::machine::{MachineConfig, Sent};

use crate::common::{
    Node,
    packets::{Frame, Ip, Mac, VRRP, eth},
    walk_a::altered,
};

pub const CLIENT: &str = "192.168.100.100";
pub const SERVER: &str = "192.168.1.100";
/// Addresses on the wire: CE1, CE2, and the regional edge, which has two.
pub const CE1_WAN: &str = "172.28.13.36";
pub const CE2_WAN: &str = "198.51.100.7";
pub const RE_WAN: [&str; 2] = ["103.135.56.40", "103.135.56.41"];
/// Ends of MPLS over UDP.
pub const END1: &str = "10.101.10.39";
pub const END2: &str = "10.101.9.245";

pub const LAN: u32 = 100;
pub const WAN: u32 = 1;
pub const TUNNELS: [u32; 2] = [4111, 4109];
pub const CE1_MAC: Mac = [2, 0, 0, 0, 0, 0xc1];
pub const CE2_MAC: Mac = [2, 0, 0, 0, 0, 0xc2];
pub const RE_MAC: Mac = [2, 0, 0, 0, 0, 0xee];
const CLIENT_MAC: Mac = [0, 0x0c, 0x29, 0, 1, 0x64];

/// A pair of SAs: from one node to another, with a key that no other pair has.
#[derive(Debug, Clone, Copy)]
pub struct Pair(pub u32);

impl Pair {
    pub fn key(self) -> String {
        format!("{:08x}", self.0).repeat(5)
    }

    pub fn spi(self) -> u32 {
        0x1000 + self.0
    }

    pub fn outbound(self) -> String {
        self.outbound_with("")
    }

    /// With further fields.
    pub fn outbound_with(self, more: &str) -> String {
        let (id, spi, key) = (self.0, self.spi(), self.key());
        format!(r#"{{"id": {id}, "spi": {spi}, "direction": "OUTBOUND", "key": "{key}", "esn": true{more}}}"#)
    }

    pub fn inbound(self) -> String {
        self.inbound_with("")
    }

    pub fn inbound_with(self, more: &str) -> String {
        let (id, spi, key) = (self.0, self.spi(), self.key());
        format!(r#"{{"id": {id}, "spi": {spi}, "direction": "INBOUND", "key": "{key}", "esn": true{more}}}"#)
    }
}

/// Pairs of the first and second tunnel of CE1 and CE2: up is toward the regional edge.
pub const CE1_UP: [Pair; 2] = [Pair(0x11), Pair(0x12)];
pub const CE1_DOWN: [Pair; 2] = [Pair(0x21), Pair(0x22)];
pub const CE2_UP: [Pair; 2] = [Pair(0x31), Pair(0x32)];
pub const CE2_DOWN: [Pair; 2] = [Pair(0x41), Pair(0x42)];

/// A tunnel vif.
pub fn tunnel(id: u32, from: &str, to: &str, (outbound, inbound): (&[Pair], &[Pair]), more: &str) -> String {
    let list = |pairs: &[Pair]| pairs.iter().map(|pair| pair.0.to_string()).collect::<Vec<_>>().join(",");
    let (outbound, inbound) = (list(outbound), list(inbound));
    format!(
        r#"{{"id": {id}, "name": "tunnel{id}", "type": "TUNNEL", "vrf": 8, "mtu": 1400, "tunnel": {{"source": "{from}",
            "destination": "{to}", "vrf": 2, "outboundSas": [{outbound}], "inboundSas": [{inbound}]{more}}}}}"#
    )
}

pub const NAT_T: &str = r#", "natT": {}"#;

/// A customer edge.
fn edge(
    wan: (&str, Mac),
    own: &str,
    other: &str,
    lan: (&str, &str),
    far: &str,
    (up, down): ([Pair; 2], [Pair; 2]),
    more: &str,
) -> String {
    let tunnels: Vec<_> =
        (0..2).map(|i| tunnel(TUNNELS[i], wan.0, RE_WAN[i], (&up[i..=i], &down[i..=i]), more)).collect();
    let sas: Vec<_> = up.iter().map(|pair| pair.outbound()).chain(down.iter().map(|pair| pair.inbound())).collect();
    let mac = |mac: Mac| mac.map(|octet| format!("{octet:02x}")).join(":");
    let (address, own_mac, gateway) = (wan.0, mac(wan.1), mac(RE_MAC));
    let (gateway_lan, lan) = lan;
    let (tunnels, sas) = (tunnels.join(","), sas.join(","));
    format!(
        r#"{{
  "generation": "1",
  "node": "ce",
  "vrfs": [{{"id": 2, "name": "wan"}}, {{"id": 8, "name": "tunnels"}}, {{"id": 18, "name": "blue"}}],
  "vifs": [
    {{"id": 100, "name": "lan", "type": "VIRTUAL", "vrf": 18, "flags": {{"policy": true}}, "addresses": ["{gateway_lan}/24"]}},
    {{"id": 1, "name": "wan", "type": "PHYSICAL", "mac": "{own_mac}", "vrf": 2, "addresses": ["{address}/24"]}},
    {{"id": 3, "name": "host", "type": "HOST", "mac": "02:00:00:00:00:33", "vrf": 2, "nexthop": 12}},
    {tunnels}
  ],
  "nexthops": [
    {{"id": 12, "vrf": 2, "encap": {{"oif": 3, "encapData": "020000000033 020000000034 0800"}}}},
    {{"id": 10, "vrf": 2, "encap": {{"oif": 1, "encapData": "{gateway} {own_mac} 0800"}}}},
    {{"id": 11, "vrf": 2, "receive": {{"listeners": [{{"proto": 17, "firstPort": 500, "nexthop": 12}},
      {{"proto": 17, "firstPort": 4500, "nexthop": 12}}]}}}},
    {{"id": 85, "vrf": 8, "encap": {{"oif": 4111, "encapData": "00 00 5e 00 01 00 00 00 5e 00 01 00 08 00"}}}},
    {{"id": 86, "vrf": 8, "encap": {{"oif": 4109}}}},
    {{"id": 532, "vrf": 8, "composite": {{"members": [{{"nexthop": 85, "weight": 100}}, {{"nexthop": 86, "weight": 100}}]}}}},
    {{"id": 489, "vrf": 8, "tunnel": {{"type": "MPLS_O_UDP", "sip": "{own}", "dip": "{other}", "directNexthop": 532}}}},
    {{"id": 513, "policy": true, "vrfTranslate": {{"vrf": 18}}}},
    {{"id": 514, "vrf": 18, "encap": {{"oif": 100, "encapData": "000c29000164 00005e000100 0800"}}}},
    {{"id": 516, "vrf": 8, "receive": {{"terminateMplsOUdp": true}}}}
  ],
  "routes": [
    {{"vrf": 18, "prefix": "{lan}/32", "nexthop": 514}},
    {{"vrf": 18, "prefix": "{far}/32", "nexthop": 489, "label": 280}},
    {{"vrf": 8, "prefix": "{own}/32", "nexthop": 516}},
    {{"vrf": 8, "prefix": "{other}/32", "nexthop": 532}},
    {{"vrf": 2, "prefix": "{address}/32", "nexthop": 11}},
    {{"vrf": 2, "prefix": "0.0.0.0/0", "nexthop": 10}}
  ],
  "labels": [{{"label": 280, "nexthop": 513}}],
  "sas": [{sas}]
}}"#
    )
}

pub fn ce1() -> String {
    edge((CE1_WAN, CE1_MAC), END1, END2, ("192.168.100.1", CLIENT), SERVER, (CE1_UP, CE1_DOWN), NAT_T)
}

pub fn ce2() -> String {
    edge((CE2_WAN, CE2_MAC), END2, END1, ("192.168.1.1", SERVER), CLIENT, (CE2_UP, CE2_DOWN), "")
}

/// The regional edge: tunnels 11 and 12 to CE1, 21 and 22 to CE2, all in one VRF that knows no tenant.
pub fn re() -> String {
    let to = |id: u32, i: usize, ce: &str, up: Pair, down: Pair, more: &str| {
        tunnel(id, RE_WAN[i], ce, (&[down], &[up]), more)
    };
    let tunnels = [
        to(11, 0, CE1_WAN, CE1_UP[0], CE1_DOWN[0], NAT_T),
        to(12, 1, CE1_WAN, CE1_UP[1], CE1_DOWN[1], NAT_T),
        to(21, 0, CE2_WAN, CE2_UP[0], CE2_DOWN[0], ""),
        to(22, 1, CE2_WAN, CE2_UP[1], CE2_DOWN[1], ""),
    ]
    .join(",");
    let down = CE1_DOWN.iter().chain(&CE2_DOWN).map(|pair| pair.outbound());
    let sas: Vec<_> = down.chain(CE1_UP.iter().chain(&CE2_UP).map(|pair| pair.inbound())).collect();
    let sas = sas.join(",");
    format!(
        r#"{{
  "generation": "1",
  "node": "re",
  "vrfs": [{{"id": 2, "name": "wan"}}, {{"id": 8, "name": "tunnels"}}],
  "vifs": [
    {{"id": 1, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:ee", "vrf": 2,
      "addresses": ["103.135.56.40/24", "103.135.56.41/24"]}},
    {tunnels}
  ],
  "nexthops": [
    {{"id": 10, "vrf": 2, "encap": {{"oif": 1, "encapData": "0200000000c1 0200000000ee 0800"}}}},
    {{"id": 20, "vrf": 2, "encap": {{"oif": 1, "encapData": "0200000000c2 0200000000ee 0800"}}}},
    {{"id": 11, "vrf": 8, "encap": {{"oif": 11}}}},
    {{"id": 12, "vrf": 8, "encap": {{"oif": 12}}}},
    {{"id": 21, "vrf": 8, "encap": {{"oif": 21}}}},
    {{"id": 22, "vrf": 8, "encap": {{"oif": 22}}}},
    {{"id": 30, "vrf": 8, "composite": {{"members": [{{"nexthop": 11}}, {{"nexthop": 12}}]}}}},
    {{"id": 31, "vrf": 8, "composite": {{"members": [{{"nexthop": 21}}, {{"nexthop": 22}}]}}}}
  ],
  "routes": [
    {{"vrf": 8, "prefix": "10.101.10.39/32", "nexthop": 30}},
    {{"vrf": 8, "prefix": "10.101.9.245/32", "nexthop": 31}},
    {{"vrf": 2, "prefix": "172.28.13.36/32", "nexthop": 10}},
    {{"vrf": 2, "prefix": "198.51.100.7/32", "nexthop": 20}}
  ],
  "sas": [{sas}]
}}"#
    )
}

/// The three nodes, the wire between them, and what was on it.
pub struct Net {
    pub ce1: Node,
    pub re: Node,
    pub ce2: Node,
    /// IP packets on the wire, in order.
    pub wire: Vec<Ip>,
}

impl Default for Net {
    fn default() -> Self {
        Self::with(&ce1(), &re(), &ce2(), MachineConfig::default())
    }
}

// Packets are on their way to somewhere: nothing is converted.
#[allow(clippy::wrong_self_convention)]
impl Net {
    pub fn with(ce1: &str, re: &str, ce2: &str, config: MachineConfig) -> Self {
        let [ce1, re, ce2] = [ce1, re, ce2].map(|state| Node::with(state, config));
        Self { ce1, re, ce2, wire: Vec::new() }
    }

    /// With some text of CE1's state replaced.
    pub fn altered(changes: &[(&str, &str)]) -> Self {
        Self::with(&altered(&ce1(), changes), &re(), &ce2(), MachineConfig::default())
    }

    fn node(&mut self, mac: Mac) -> &mut Node {
        match mac {
            CE1_MAC => &mut self.ce1,
            CE2_MAC => &mut self.ce2,
            RE_MAC => &mut self.re,
            other => panic!("nobody has {other:02x?}"),
        }
    }

    /// Carries frames to where they go; what reaches a LAN (or a host).
    pub fn carry(&mut self, sent: Vec<Sent>) -> Vec<(u32, Ip)> {
        let mut todo: VecDeque<Sent> = sent.into();
        let mut arrived = Vec::new();
        while let Some(sent) = todo.pop_front() {
            let frame = Frame::read(sent.packet.data());
            if u32::from(sent.port.get()) != WAN {
                arrived.push((u32::from(sent.port.get()), frame.ip()));
                continue;
            }
            self.wire.push(frame.ip());
            let octets = sent.packet.data().to_vec();
            todo.extend(self.node(frame.destination).receive(WAN, &octets));
        }
        arrived
    }

    /// What the client sends: ESP on the wire, not delivered yet.
    pub fn from_client(&mut self, ip: &[u8]) -> Vec<Sent> {
        self.ce1.receive(LAN, &eth(VRRP, CLIENT_MAC, ip))
    }

    /// A packet of the client: what reaches the server.
    #[track_caller]
    pub fn to_server(&mut self, ip: &[u8]) -> Ip {
        let sent = self.from_client(ip);
        self.one(sent)
    }

    /// A packet of the server: what reaches the client.
    #[track_caller]
    pub fn to_client(&mut self, ip: &[u8]) -> Ip {
        let sent = self.ce2.receive(LAN, &eth(VRRP, CLIENT_MAC, ip));
        self.one(sent)
    }

    #[track_caller]
    fn one(&mut self, sent: Vec<Sent>) -> Ip {
        let mut arrived = self.carry(sent);
        assert_eq!(arrived.len(), 1, "{arrived:?}; drops {:?}", self.all_drops());
        let (port, ip) = arrived.remove(0);
        assert_eq!(port, LAN);
        ip
    }

    pub fn all_drops(&self) -> [Vec<(&'static str, u64)>; 3] {
        [self.ce1.all_drops(), self.re.all_drops(), self.ce2.all_drops()]
    }

    /// Nothing on the wire but ESP, bare or in UDP.
    #[track_caller]
    pub fn nothing_in_the_clear(&self) {
        for ip in &self.wire {
            let esp = ip.proto == 50 || ip.proto == 17 && ip.ports() == (4500, 4500);
            assert!(esp, "in the clear: {ip:?}");
        }
    }
}

/// An IP packet on the wire as a frame to a node.
pub fn to(mac: Mac, ip: &[u8]) -> Vec<u8> {
    eth(mac, [2, 0, 0, 0, 0, 0x99], ip)
}
