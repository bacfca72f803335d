//! A router without flows that everything can happen to: states, packets and changes by choice of a few numbers.

use fallback_sw::{node::decode, packet::Packet};

use crate::{
    common::{
        Node,
        packets::{ACK, SYN, echo_request, entry, eth, icmp_error, mpls_udp, segment, udp},
        vif,
    },
    neighbours::{arp_frame, arp_octets},
};

/// Devices: two LANs in VRF 2, one with a list, one without reverse-path check in VRF 3, and the underlay in VRF 8.
pub(super) const PORTS: [u32; 5] = [1, 2, 4, 5, 3];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// Nexthops that routes of VRF 2 and 3 may have; those from 30 on want a label.
const NEXTHOPS: [u32; 16] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 30, 31, 32];

const OBJECTS: &str = r#"
  "settings": {"maxFlows": 1024},
  "vrfs": [{"id": 2, "name": "transit"}, {"id": 3, "name": "other"}, {"id": 8, "name": "underlay"}],
  "vifs": [
    {"id": 1, "name": "lan1", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "mtu": 1500,
      "addresses": ["172.16.0.1/24", "fd00:16::1/64"]},
    {"id": 2, "name": "lan2", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "mtu": 1400, "addresses": ["172.17.0.1/24"]},
    {"id": 3, "name": "under", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 8, "mtu": 1500, "addresses": ["192.0.2.1/24"]},
    {"id": 4, "name": "listed", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "ingressAcls": [1]},
    {"id": 5, "name": "open", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 3, "flags": {"noRpf": true}},
    {"id": 9, "name": "host", "type": "HOST", "mac": "02:00:00:00:00:09", "vrf": 2, "nexthop": 17}
  ],
  "acls": [{"id": 1, "entries": [{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 53, "last": 53}}]}],
  "labels": [{"label": 200, "nexthop": 40}, {"label": 201, "nexthop": 10}, {"label": 202, "nexthop": 21}, {"label": 203, "nexthop": 15},
    {"label": 204, "nexthop": 18}, {"label": 205, "nexthop": 41}],
"#;

fn nexthops(variant: u8) -> String {
    let mac = format!("0200000000{:02x}", 0x10 + variant % 3);
    let weights = [(100, 100), (1, 3), (5, 1)][usize::from(variant % 3)];
    format!(
        r#"{{"id": 10, "vrf": 2, "encap": {{"oif": 1, "encapData": "{mac} 020000000001 0800"}}}},
    {{"id": 11, "vrf": 2, "encap": {{"oif": 2, "encapData": "{mac} 020000000001 0800"}}}},
    {{"id": 12, "vrf": 2, "resolve": {{"oif": 1}}}},
    {{"id": 13, "vrf": 2, "resolve": {{"oif": 2, "gateway": "172.17.0.9"}}}},
    {{"id": 14, "vrf": 2, "encap": {{"oif": 4, "encapData": "{mac} 020000000001 0800"}}}},
    {{"id": 15, "vrf": 2, "composite": {{"members": [{{"nexthop": 10, "weight": {}}}, {{"nexthop": 11, "weight": {}}}]}}}},
    {{"id": 16, "vrf": 2, "composite": {{"members": [{{"nexthop": 15}}, {{"nexthop": 13}}, {{"nexthop": 0}}, {{"nexthop": 22}}]}}}},
    {{"id": 17, "vrf": 2, "encap": {{"oif": 9, "encapData": "020000000009 020000000001 0800"}}}},
    {{"id": 18, "vrf": 2, "vrfTranslate": {{"vrf": 3}}}},
    {{"id": 19, "vrf": 3, "vrfTranslate": {{"vrf": 2}}}},
    {{"id": 20, "drop": {{}}}},
    {{"id": 21, "vrf": 2, "receive": {{"listeners": [{{"proto": 17, "firstPort": 53, "nexthop": 17}}]}}}},
    {{"id": 22, "vrf": 3, "encap": {{"oif": 5, "encapData": "{mac} 020000000001 0800"}}}},
    {{"id": 33, "vrf": 8, "encap": {{"oif": 3, "encapData": "{mac} 020000000001 0800"}}}},
    {{"id": 34, "vrf": 8, "receive": {{"terminateMplsOUdp": true}}}},
    {{"id": 30, "vrf": 8, "tunnel": {{"type": "MPLS_O_UDP", "sip": "192.0.2.1", "dip": "192.0.2.2", "directNexthop": 33}}}},
    {{"id": 31, "vrf": 8, "tunnel": {{"type": "MPLS_O_UDP", "sip": "192.0.2.1", "dip": "198.51.100.3"}}}},
    {{"id": 32, "vrf": 2, "composite": {{"members": [{{"nexthop": 30, "label": 400}}, {{"nexthop": 31, "weight": {}}}]}}}},
    {{"id": 40, "vrfTranslate": {{"vrf": 2}}}},
    {{"id": 41, "policy": true, "vrfTranslate": {{"vrf": 2}}}}"#,
        weights.0, weights.1, weights.1
    )
}

/// A route by numbers: VRF, prefix, nexthop.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteChoice {
    pub(super) vrf: u8,
    pub(super) base: u8,
    pub(super) len: u8,
    pub(super) nexthop: u8,
}

/// Addresses that packets and prefixes are made of: hosts, the node's own, a broadcast address, one of the link.
const ADDRESSES: [&str; 14] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "10.64.0.1",
    "100.0.0.7",
    "172.16.0.50",
    "172.16.0.51",
    "172.16.0.1",
    "172.17.0.9",
    "172.17.0.255",
    "192.0.2.1",
    "198.51.100.3",
    "203.0.113.5",
    "169.254.7.7",
];
const ADDRESSES6: [&str; 5] = ["fd00:16::50", "2001:db8::1", "2001:db8:1::2", "fd00:16::1", "fe80::7"];

impl RouteChoice {
    fn vrf(self) -> u32 {
        [2, 2, 3][usize::from(self.vrf) % 3]
    }

    fn prefix(self) -> String {
        if self.base % 4 == 3 {
            let base = ADDRESSES6[usize::from(self.base / 4) % 4];
            let net: ipnet::Ipv6Net =
                format!("{base}/{}", [0, 16, 32, 48, 64, 128][usize::from(self.len) % 6]).parse().unwrap();
            return net.trunc().to_string();
        }
        let base = ADDRESSES[usize::from(self.base) % 13];
        let net: ipnet::Ipv4Net =
            format!("{base}/{}", [0, 8, 9, 16, 23, 24, 30, 32][usize::from(self.len) % 8]).parse().unwrap();
        net.trunc().to_string()
    }

    fn json(self) -> String {
        let nexthop = match NEXTHOPS[usize::from(self.nexthop) % NEXTHOPS.len()] {
            // A gateway of IPv4 takes no IPv6.
            13 | 16 if self.base % 4 == 3 => 12,
            nexthop => nexthop,
        };
        let label =
            if nexthop >= 30 { format!(r#", "label": {}"#, 300 + u32::from(self.len) % 3) } else { String::new() };
        format!(r#"{{"vrf": {}, "prefix": "{}", "nexthop": {nexthop}{label}}}"#, self.vrf(), self.prefix())
    }

    fn removal(self) -> String {
        format!(r#"{{"vrf": {}, "prefix": "{}"}}"#, self.vrf(), self.prefix())
    }
}

/// The state with these routes, besides those to connected subnets and to tunnel ends.
pub(super) fn state(routes: &[RouteChoice]) -> String {
    let mut all = vec![
        r#"{"vrf": 2, "prefix": "172.16.0.0/24", "nexthop": 12}"#.to_owned(),
        r#"{"vrf": 2, "prefix": "fd00:16::/64", "nexthop": 12}"#.to_owned(),
        r#"{"vrf": 2, "prefix": "10.0.0.0/16", "nexthop": 10}"#.to_owned(),
        r#"{"vrf": 2, "prefix": "10.64.0.0/16", "nexthop": 30, "label": 300}"#.to_owned(),
        r#"{"vrf": 2, "prefix": "203.0.113.0/24", "nexthop": 15}"#.to_owned(),
        r#"{"vrf": 2, "prefix": "2001:db8::/32", "nexthop": 11}"#.to_owned(),
        r#"{"vrf": 3, "prefix": "10.0.0.0/16", "nexthop": 22}"#.to_owned(),
        r#"{"vrf": 8, "prefix": "192.0.2.1/32", "nexthop": 34}"#.to_owned(),
        r#"{"vrf": 8, "prefix": "0.0.0.0/0", "nexthop": 33}"#.to_owned(),
    ];
    let mut known: Vec<String> =
        ["172.16.0.0/24", "fd00:16::/64", "10.0.0.0/16", "10.64.0.0/16", "203.0.113.0/24", "2001:db8::/32"]
            .map(|net| format!("2 {net}"))
            .to_vec();
    known.push("3 10.0.0.0/16".to_owned());
    for route in routes {
        let name = format!("{} {}", route.vrf(), route.prefix());
        if !known.contains(&name) {
            known.push(name);
            all.push(route.json());
        }
    }
    format!(
        r#"{{"generation": "1", "node": "re", {OBJECTS} "nexthops": [{}], "routes": [{}]}}"#,
        nexthops(0),
        all.join(",\n")
    )
}

/// The same with flag P on all vifs, and for all that comes out of tunnels: each packet has a flow.
pub(super) fn stateful(routes: &[RouteChoice]) -> String {
    let json = state(routes).replace(r#""flags": {"noRpf": true}"#, r#""flags": {"noRpf": true, "policy": true}"#);
    let mac = r#""mac": "02:00:00:00:00:01", "vrf": "#;
    let flagged =
        [2, 8].map(|number| (format!("{mac}{number}"), format!(r#"{mac}{number}, "flags": {{"policy": true}}"#)));
    let json = flagged.iter().fold(json, |json, (plain, flagged)| json.replace(plain, flagged));
    json.replace(r#"{"id": 40, "vrfTranslate""#, r#"{"id": 40, "policy": true, "vrfTranslate""#)
}

/// Something that happens to the node.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// In one burst.
    Frames(Vec<FrameChoice>),
    PutRoute(RouteChoice),
    DropRoute(RouteChoice),
    /// MACs and weights.
    Nexthops(u8),
    Label(u8, u8),
    /// A station of LAN 1 (or the gateway of LAN 2) tells its MAC.
    Arp(u8, u8),
    Link(u8, bool),
    Mtu(u8, u16),
    List(bool),
    Wait,
}

/// A frame by numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameChoice {
    pub(super) port: u8,
    pub(super) source: u8,
    pub(super) destination: u8,
    pub(super) kind: u8,
    pub(super) ttl: u8,
    pub(super) len: u16,
    pub(super) outer: u8,
    pub(super) sport: u8,
}

impl FrameChoice {
    pub(super) fn port(self) -> u32 {
        PORTS[usize::from(self.port) % PORTS.len()]
    }

    pub(super) fn frame(self) -> Vec<u8> {
        let v6 = self.kind % 5 == 4;
        let pick = |n: u8| {
            if v6 { ADDRESSES6[usize::from(n) % ADDRESSES6.len()] } else { ADDRESSES[usize::from(n) % ADDRESSES.len()] }
        };
        let (source, destination) = (pick(self.source), pick(self.destination));
        let payload = vec![7; if self.len > 1300 { usize::from(self.len) } else { 20 }];
        let sport = 1000 + u16::from(self.sport);
        let ip = match self.kind % 12 {
            0 => segment(source, destination, (sport, 80), SYN, (1, 0), b""),
            1 => segment(source, destination, (sport, 80), ACK, (1, 1), &payload),
            2 => echo_request(source, destination, sport, 1),
            3 => udp(source, destination, sport, 53, &payload),
            4 | 9 => udp(source, destination, sport, 80, &payload),
            5 => udp(source, destination, sport, 80, &payload).df(),
            6 => udp(source, destination, sport, 80, &[7; 96]).part(0, 48),
            7 if !v6 => {
                let about = udp(destination, source, 80, sport, b"x").ip();
                icmp_error(source, destination, 3, 1, &about)
            }
            8 => udp(source, destination, sport, 80, &payload).tos(0xb9),
            _ => udp(source, destination, sport, 443, &payload),
        };
        let ttl = [1, 2, 3, 64, 64, 64, 64, 64][usize::from(self.ttl) % 8];
        let inner = ip.ttl(ttl).ip();
        if self.port() == 3 && self.outer % 8 != 7 {
            let from = ["192.0.2.2", "198.51.100.3", "192.0.2.9", "10.0.0.1"][usize::from(self.outer) % 4];
            let label = 200 + u32::from(self.outer / 4) % 7;
            let outer = mpls_udp(from, "192.0.2.1", (50_000, 6635), &[entry(label, 0, true, 64)], &inner);
            let outer = if self.outer.is_multiple_of(5) { outer.tos(1) } else { outer };
            return eth(MAC, STATION, &outer.ip());
        }
        eth(MAC, STATION, &inner)
    }
}

impl Event {
    /// Lets it happen to a node. False: the node has refused it.
    pub(super) fn happen(&self, node: &mut Node) -> bool {
        match self {
            Self::Frames(choices) => {
                let Some(port) = choices.first().map(|choice| choice.port()) else { return true };
                let mut frames = choices.iter().map(|choice| Packet::from_frame(&choice.frame())).collect();
                node.machine.receive(vif(port), 0, &mut frames, node.now);
            }
            Self::PutRoute(route) => return change(node, &format!(r#"{{"routes": [{}]}}"#, route.json())),
            Self::DropRoute(route) => return change(node, &format!(r#"{{"removeRoutes": [{}]}}"#, route.removal())),
            Self::Nexthops(variant) => return change(node, &format!(r#"{{"nexthops": [{}]}}"#, nexthops(*variant))),
            Self::Label(label, nexthop) => {
                let nexthop = [40, 10, 11, 15, 18, 41, 16][usize::from(*nexthop) % 7];
                let label = 200 + u32::from(*label) % 6;
                return change(node, &format!(r#"{{"labels": [{{"label": {label}, "nexthop": {nexthop}}}]}}"#));
            }
            Self::Arp(who, mac) => {
                let (port, address, own) = match who % 3 {
                    0 => (1, "172.16.0.50", "172.16.0.1"),
                    1 => (1, "172.16.0.51", "172.16.0.1"),
                    _ => (2, "172.17.0.9", "172.17.0.1"),
                };
                let station = [2, 0, 0, 0, 1, mac % 4];
                let told = arp_octets(1, (station, address), ([0; 6], own));
                node.machine.receive_frame(vif(port), &arp_frame([0xff; 6], station, None, &told), node.now);
            }
            Self::Link(port, up) => node.machine.set_up(vif(PORTS[usize::from(*port) % 5]), *up, node.now),
            Self::Mtu(port, mtu) => {
                node.machine.set_device_mtu(vif(PORTS[usize::from(*port) % 5]), u32::from(*mtu), node.now);
            }
            Self::List(denies) => {
                let action = if *denies { "DENY" } else { "PERMIT" };
                return change(
                    node,
                    &format!(
                        r#"{{"acls": [{{"id": 1, "entries": [{{"id": 1, "action": "{action}", "proto": 17}}]}}]}}"#
                    ),
                );
            }
            Self::Wait => {
                node.now += 500;
                node.machine.tick(node.now);
            }
        }
        true
    }
}

/// Puts a change in force, if it is one that the node takes.
fn change(node: &mut Node, json: &str) -> bool {
    let mut message: proto::v1::ForwardingDelta = proto::json::parse(json, "test delta").unwrap();
    message.base_generation = node.machine.control().snapshot().generation();
    message.generation = message.base_generation + 1;
    let delta = decode::delta(&message).unwrap_or_else(|errors| panic!("{errors}"));
    node.machine.apply_delta(delta, node.now).is_ok()
}
