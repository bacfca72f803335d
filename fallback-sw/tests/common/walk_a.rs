//! Walk A: an L3VPN of two customer edges. 192.168.100.100 (CE1) and 192.168.1.100 (CE2, VLAN 300), and the same in IPv6;
//! MPLS over UDP between 10.101.10.39 (label 279) and 10.101.9.245 (label 280), each over two underlay vifs.

use fallback_sw::node::{
    decode,
    machine::{MachineConfig, Sent},
};

use super::{
    Node,
    packets::{Frame, Ip, Mac, Tunnelled, VRRP, eth, tagged},
};

/// The client behind CE1 and the server behind CE2.
pub const CLIENT: &str = "192.168.100.100";
pub const SERVER: &str = "192.168.1.100";
pub const CLIENT6: &str = "2001:db8:100::100";
pub const SERVER6: &str = "2001:db8:1::100";
/// The gateways: the nodes' addresses toward them.
pub const GATEWAY1: &str = "192.168.100.1";
pub const GATEWAY2: &str = "192.168.1.1";
pub const GATEWAY1_6: &str = "2001:db8:100::1";
pub const GATEWAY2_6: &str = "2001:db8:1::1";
/// Tunnel endpoints.
pub const TUNNEL1: &str = "10.101.10.39";
pub const TUNNEL2: &str = "10.101.9.245";
/// The label that leads into VRF 18 of CE1, and of CE2.
pub const LABEL1: u32 = 279;
pub const LABEL2: u32 = 280;

/// CE1's vif toward the client.
pub const LAN1: u32 = 100;
/// CE2's device toward the server, and the sub-interface with tag 300 on it.
pub const LAN2: u32 = 1;
pub const VLAN2: u32 = 300;
/// The underlay vifs of both.
pub const UNDERLAYS: [u32; 2] = [4111, 4109];

pub const CLIENT_MAC: Mac = [0x00, 0x0c, 0x29, 0x00, 0x01, 0x64];
pub const SERVER_MAC: Mac = [0x00, 0x0c, 0x29, 0x9b, 0x69, 0x69];
/// CE2's device toward the server.
pub const LAN2_MAC: Mac = [0x00, 0x0c, 0x29, 0x0f, 0xf4, 0xa1];
/// The underlay's router, and the MACs of the underlay vifs.
pub const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0, 0xfe];
pub const UNDERLAY_MACS: [Mac; 2] = [[0x02, 0, 0, 0, 0x41, 0x11], [0x02, 0, 0, 0, 0x41, 0x09]];

/// The state of CE1.
pub const CE1: &str = r#"{
  "generation": "1",
  "node": "ce1",
  "vrfs": [{"id": 8, "name": "underlay"}, {"id": 18, "name": "blue"}],
  "vifs": [
    {"id": 100, "name": "lan", "type": "VIRTUAL", "vrf": 18, "flags": {"policy": true},
      "addresses": ["192.168.100.1/24", "2001:db8:100::1/64"]},
    {"id": 4111, "name": "wan0", "type": "PHYSICAL", "mac": "02:00:00:00:41:11", "vrf": 8, "addresses": ["172.28.13.36/24"]},
    {"id": 4109, "name": "wan1", "type": "PHYSICAL", "mac": "02:00:00:00:41:09", "vrf": 8, "addresses": ["172.28.14.36/24"]}
  ],
  "nexthops": [
    {"id": 85, "vrf": 8, "encap": {"oif": 4111, "encapData": "0200000000fe 020000004111 0800"}},
    {"id": 86, "vrf": 8, "encap": {"oif": 4109, "encapData": "0200000000fe 020000004109 0800"}},
    {"id": 532, "vrf": 8, "composite": {"members": [{"nexthop": 85, "weight": 100}, {"nexthop": 86, "weight": 100}]}},
    {"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.245", "directNexthop": 532}},
    {"id": 513, "policy": true, "vrfTranslate": {"vrf": 18}},
    {"id": 514, "vrf": 18, "encap": {"oif": 100, "encapData": "000c29000164 00005e000100 0800"}},
    {"id": 515, "vrf": 18, "resolve": {"oif": 100}},
    {"id": 516, "vrf": 8, "receive": {"terminateMplsOUdp": true}}
  ],
  "routes": [
    {"vrf": 18, "prefix": "192.168.100.100/32", "nexthop": 514},
    {"vrf": 18, "prefix": "192.168.100.0/24", "nexthop": 515},
    {"vrf": 18, "prefix": "2001:db8:100::100/128", "nexthop": 514},
    {"vrf": 18, "prefix": "2001:db8:100::/64", "nexthop": 515},
    {"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 280},
    {"vrf": 18, "prefix": "2001:db8:1::/64", "nexthop": 489, "label": 280},
    {"vrf": 8, "prefix": "10.101.10.39/32", "nexthop": 516},
    {"vrf": 8, "prefix": "0.0.0.0/0", "nexthop": 532}
  ],
  "labels": [{"label": 279, "nexthop": 513}]
}"#;

/// The state of CE2.
pub const CE2: &str = r#"{
  "generation": "1",
  "node": "ce2",
  "vrfs": [{"id": 8, "name": "underlay"}, {"id": 18, "name": "blue"}],
  "vifs": [
    {"id": 1, "name": "eth1", "type": "PHYSICAL", "mac": "00:0c:29:0f:f4:a1", "vrf": 8},
    {"id": 12, "name": "eth1.300", "type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {"vid": 300}, "vrf": 18,
      "flags": {"policy": true}, "addresses": ["192.168.1.1/24", "2001:db8:1::1/64"]},
    {"id": 4111, "name": "wan0", "type": "PHYSICAL", "mac": "02:00:00:00:41:11", "vrf": 8, "addresses": ["172.28.23.36/24"]},
    {"id": 4109, "name": "wan1", "type": "PHYSICAL", "mac": "02:00:00:00:41:09", "vrf": 8, "addresses": ["172.28.24.36/24"]}
  ],
  "nexthops": [
    {"id": 85, "vrf": 8, "encap": {"oif": 4111, "encapData": "0200000000fe 020000004111 0800"}},
    {"id": 86, "vrf": 8, "encap": {"oif": 4109, "encapData": "0200000000fe 020000004109 0800"}},
    {"id": 532, "vrf": 8, "composite": {"members": [{"nexthop": 85, "weight": 100}, {"nexthop": 86, "weight": 100}]}},
    {"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.9.245", "dip": "10.101.10.39", "directNexthop": 532}},
    {"id": 513, "policy": true, "vrfTranslate": {"vrf": 18}},
    {"id": 577, "vrf": 18, "encap": {"oif": 12, "encapData": "000c299b6969 000c290ff4a1 8100 012c 0800"}},
    {"id": 515, "vrf": 18, "resolve": {"oif": 12}},
    {"id": 516, "vrf": 8, "receive": {"terminateMplsOUdp": true}}
  ],
  "routes": [
    {"vrf": 18, "prefix": "192.168.1.100/32", "nexthop": 577},
    {"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 515},
    {"vrf": 18, "prefix": "2001:db8:1::100/128", "nexthop": 577},
    {"vrf": 18, "prefix": "2001:db8:1::/64", "nexthop": 515},
    {"vrf": 18, "prefix": "192.168.100.0/24", "nexthop": 489, "label": 279},
    {"vrf": 18, "prefix": "2001:db8:100::/64", "nexthop": 489, "label": 279},
    {"vrf": 8, "prefix": "10.101.9.245/32", "nexthop": 516},
    {"vrf": 8, "prefix": "0.0.0.0/0", "nexthop": 532}
  ],
  "labels": [{"label": 280, "nexthop": 513}]
}"#;

/// A frame from the client to CE1.
pub fn from_client(ip: &[u8]) -> Vec<u8> {
    eth(VRRP, CLIENT_MAC, ip)
}

/// A frame from the server to CE2.
pub fn from_server(ip: &[u8]) -> Vec<u8> {
    tagged(LAN2_MAC, SERVER_MAC, &[(0x8100, 0, 300)], ip)
}

/// A frame from the underlay to either node, on one of its underlay vifs.
pub fn from_underlay(vif: u32, ip: &[u8]) -> Vec<u8> {
    let at = UNDERLAYS.iter().position(|id| *id == vif).unwrap();
    eth(UNDERLAY_MACS[at], ROUTER_MAC, ip)
}

/// The only frame that was sent, and on which device.
#[track_caller]
pub fn only(sent: Vec<Sent>) -> (u32, Frame) {
    assert_eq!(sent.len(), 1, "frames sent: {sent:?}");
    (u32::from(sent[0].port.get()), Frame::read(sent[0].packet.data()))
}

/// Both edges with the underlay between them.
pub struct WalkA {
    pub ce1: Node,
    pub ce2: Node,
}

impl Default for WalkA {
    fn default() -> Self {
        Self { ce1: Node::new(CE1), ce2: Node::new(CE2) }
    }
}

// Packets are on their way to somewhere: nothing is converted.
#[allow(clippy::wrong_self_convention)]
impl WalkA {
    /// A packet of the client through CE1: what it is in the underlay, and on which vif it left.
    #[track_caller]
    pub fn up(&mut self, ip: &[u8]) -> (u32, Tunnelled) {
        let (port, frame) = only(self.ce1.receive(LAN1, &from_client(ip)));
        (port, Tunnelled::read(frame.ip()))
    }

    /// A packet of the client through both edges: what reaches the server.
    #[track_caller]
    pub fn to_server(&mut self, ip: &[u8]) -> Ip {
        let (port, tunnelled) = self.up(ip);
        let (out, frame) = only(self.ce2.receive(port, &from_underlay(port, &tunnelled.outer.octets)));
        assert_eq!((out, frame.destination, frame.source), (LAN2, SERVER_MAC, LAN2_MAC));
        assert_eq!(frame.tags, [(0x8100, 0, 300)]);
        frame.ip()
    }

    /// A packet of the server through CE2: what it is in the underlay, and on which vif it left.
    #[track_caller]
    pub fn down(&mut self, ip: &[u8]) -> (u32, Tunnelled) {
        let (port, frame) = only(self.ce2.receive(LAN2, &from_server(ip)));
        (port, Tunnelled::read(frame.ip()))
    }

    /// A packet of the server through both edges: what reaches the client.
    #[track_caller]
    pub fn to_client(&mut self, ip: &[u8]) -> Ip {
        let (port, tunnelled) = self.down(ip);
        let (out, frame) = only(self.ce1.receive(port, &from_underlay(port, &tunnelled.outer.octets)));
        assert_eq!((out, frame.destination, frame.source), (LAN1, CLIENT_MAC, VRRP));
        assert_eq!(frame.tags, []);
        frame.ip()
    }

    /// No packet was dropped anywhere.
    #[track_caller]
    pub fn nothing_dropped(&self) {
        assert_eq!((self.ce1.all_drops(), self.ce2.all_drops()), (vec![], vec![]));
    }
}

impl Node {
    /// A node whose state is one in JSON with some text replaced; every `from` must be there.
    #[track_caller]
    pub fn altered(json: &str, changes: &[(&str, &str)]) -> Self {
        Self::new(&altered(json, changes))
    }

    /// Puts a change in force; base and new generation are filled in.
    #[track_caller]
    pub fn change(&mut self, json: &str) {
        let mut message: proto::v1::ForwardingDelta = proto::json::parse(json, "test delta").unwrap();
        message.base_generation = self.machine.control().snapshot().generation();
        message.generation = message.base_generation + 1;
        let delta = decode::delta(&message).unwrap_or_else(|errors| panic!("{errors}"));
        self.now += 1;
        self.machine.apply_delta(delta, self.now).unwrap_or_else(|errors| panic!("{errors}"));
    }

    /// Records of flows in all workers: two for a pair, one for a denial.
    pub fn flow_records(&self) -> u32 {
        self.machine.workers().iter().map(|worker| worker.flows().len()).sum()
    }
}

/// A state in JSON with some text replaced; every `from` must be there.
#[track_caller]
pub fn altered(json: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(json.to_owned(), |json, (from, to)| {
        assert!(json.contains(from), "not in the state: {from}");
        json.replace(from, to)
    })
}

/// The machine of tests with this many workers.
pub fn workers(count: usize) -> MachineConfig {
    MachineConfig { workers: count, ..MachineConfig::default() }
}
