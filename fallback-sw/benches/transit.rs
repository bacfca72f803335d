//! Packets without flows: a router's transit by route, in the clear and from one IPsec tunnel into another, each row also with a walk of
//! the tables for each packet.

use std::{fmt::Write as _, net::Ipv4Addr, sync::Arc};

use fallback_sw::{
    esp::{Key, OutboundConfig, OutboundSa, Provider, Tunnel},
    node::decode,
    packet::{Packet, checksum},
    worker::{Grant, Outbox, Worker, WorkerConfig},
};
use offload_rules::{
    VifId,
    forwarding::{SaDirection, Snapshot},
};

use crate::{
    esp,
    measure::{Effort, Row, Sample, Target, Value},
};

/// Packets of a receive, and receives between two looks at the clock.
const BURST: usize = 64;
const ROUND: usize = 256;
/// Devices.
const LAN: u32 = 1;
const WAN: u32 = 3;
const KEY_OUT: &str = "000102030405060708090a0b0c0d0e0f10111213";
const KEY_IN: &str = "202122232425262728292a2b2c2d2e2f30313233";
const SPI: u32 = 4096;

/// How packets are decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deciding {
    /// As it is: a decision for all packets that are alike.
    Routed,
    /// By a walk for each.
    Walked,
}

/// Where the routes of plain transit lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toward {
    /// To one of 16 routers on another VLAN.
    Vlan,
    /// To a composite of four of those; the weights are equal, or not.
    Ecmp { weighted: bool },
    /// Into MPLS over UDP.
    Mpls,
}

/// Number n of the routes' prefixes: some /24 of 100.0.0.0/8.
const fn prefix(n: u32) -> u32 {
    0x6400_0000 | ((n.wrapping_mul(40_503) & 0xffff) << 8)
}

/// VLAN 100 of the LAN in VRF 2, where 10.0.0.0/8 is behind 02:00:00:00:00:10; VLAN 200 of the WAN, and the underlay, in VRF 2, too.
fn plain(routes: u32, toward: Toward) -> Arc<Snapshot> {
    let mut nexthops = String::new();
    for n in 0..16 {
        let _ = write!(
            nexthops,
            r#"{{"id": {}, "vrf": 2, "encap": {{"oif": 4, "encapData": "02000000003{n:x} 020000000003 810000c8 0800"}}}},"#,
            100 + n
        );
    }
    let weights = if toward == (Toward::Ecmp { weighted: true }) { [1, 2, 3, 4] } else { [100; 4] };
    let members: Vec<_> =
        (0..4).zip(weights).map(|(n, weight)| format!(r#"{{"nexthop": {}, "weight": {weight}}}"#, 100 + n)).collect();
    let leads = |n: u32| match toward {
        Toward::Vlan => format!(r#""nexthop": {}"#, 100 + n % 16),
        Toward::Ecmp { .. } => r#""nexthop": 50"#.to_owned(),
        Toward::Mpls => format!(r#""nexthop": 51, "label": {}"#, 300 + n % 16),
    };
    let routes: Vec<_> = (0..routes)
        .map(|n| format!(r#"{{"vrf": 2, "prefix": "{}/24", {}}}"#, Ipv4Addr::from_bits(prefix(n)), leads(n)))
        .collect();
    snapshot(&format!(
        r#"{{"generation": "1", "node": "re", "vrfs": [{{"id": 2, "name": "transit"}}],
        "vifs": [
            {{"id": 1, "name": "lan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "mtu": 9000}},
            {{"id": 2, "name": "lan.100", "type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {{"vid": 100}}, "mac": "02:00:00:00:00:01", "vrf": 2,
                "mtu": 1500, "addresses": ["172.16.0.1/24"]}},
            {{"id": 3, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:03", "vrf": 2, "mtu": 9000,
                "addresses": ["192.0.2.1/24"]}},
            {{"id": 4, "name": "wan.200", "type": "PHYSICAL_VLAN", "parent": 3, "outerVlan": {{"vid": 200}}, "mac": "02:00:00:00:00:03", "vrf": 2,
                "mtu": 1500, "addresses": ["172.17.0.1/24"]}}],
        "nexthops": [{nexthops}
            {{"id": 10, "vrf": 2, "encap": {{"oif": 2, "encapData": "020000000010 020000000001 81000064 0800"}}}},
            {{"id": 11, "vrf": 2, "encap": {{"oif": 3, "encapData": "020000000030 020000000003 0800"}}}},
            {{"id": 50, "vrf": 2, "composite": {{"members": [{}]}}}},
            {{"id": 51, "vrf": 2, "tunnel": {{"type": "MPLS_O_UDP", "sip": "192.0.2.1", "dip": "192.0.2.2", "directNexthop": 11}}}}],
        "routes": [{{"vrf": 2, "prefix": "10.0.0.0/8", "nexthop": 10}}, {}]}}"#,
        members.join(","),
        routes.join(",")
    ))
}

/// A regional edge with two tunnels in UDP: 10.101.10.0/24 behind the one, 10.101.9.0/24 behind the other.
fn edge() -> Arc<Snapshot> {
    let tunnel = |id: u32, end: &str, out: u32, inbound: u32| {
        format!(
            r#"{{"id": {id}, "name": "tunnel{id}", "type": "TUNNEL", "vrf": 8, "mtu": 8900, "tunnel": {{"source": "103.135.56.40",
                "destination": "{end}", "vrf": 2, "natT": {{}}, "outboundSas": [{out}], "inboundSas": [{inbound}]}}}}"#
        )
    };
    let sa = |id: u32, spi: u32, direction: &str, key: &str| {
        format!(r#"{{"id": {id}, "spi": {spi}, "direction": "{direction}", "key": "{key}", "esn": true}}"#)
    };
    let other = |key: &str| key.replace('0', "9");
    snapshot(&format!(
        r#"{{"generation": "1", "node": "re", "vrfs": [{{"id": 2, "name": "wan"}}, {{"id": 8, "name": "tunnels"}}],
        "vifs": [{{"id": 3, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:03", "vrf": 2, "mtu": 9000}}, {}, {}],
        "nexthops": [
            {{"id": 11, "vrf": 2, "encap": {{"oif": 3, "encapData": "020000000030 020000000003 0800"}}}},
            {{"id": 12, "vrf": 8, "encap": {{"oif": 11}}}}, {{"id": 13, "vrf": 8, "encap": {{"oif": 12}}}}],
        "routes": [
            {{"vrf": 2, "prefix": "0.0.0.0/0", "nexthop": 11}},
            {{"vrf": 8, "prefix": "10.101.10.0/24", "nexthop": 12}},
            {{"vrf": 8, "prefix": "10.101.9.0/24", "nexthop": 13}}],
        "sas": [{}, {}, {}, {}]}}"#,
        tunnel(11, "172.28.13.36", 1, 2),
        tunnel(12, "172.28.14.36", 3, 4),
        sa(1, SPI, "OUTBOUND", KEY_OUT),
        sa(2, SPI, "INBOUND", KEY_IN),
        sa(3, SPI + 1, "OUTBOUND", &other(KEY_OUT)),
        sa(4, SPI + 1, "INBOUND", &other(KEY_IN)),
    ))
}

fn snapshot(state: &str) -> Arc<Snapshot> {
    let message: proto::v1::ForwardingState = proto::json::parse(state, "the bench's state").expect("right JSON");
    let state = decode::state(&message).unwrap_or_else(|errors| panic!("{errors}"));
    Arc::new(Snapshot::empty().with_state(state).unwrap_or_else(|errors| panic!("{errors}")))
}

fn vif(number: u32) -> VifId {
    VifId::new(number).expect("a vif")
}

/// A worker with buffers that frames come in.
struct Router {
    worker: Worker,
    out: Outbox,
    packets: Vec<Packet>,
}

impl Router {
    fn new(snapshot: &Arc<Snapshot>, deciding: Deciding) -> Self {
        let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [1, 2], offload: false };
        let mut worker = Worker::new(config, Arc::clone(snapshot)).expect("memory for the flow table");
        if deciding == Deciding::Walked {
            worker.walk_each_packet();
        }
        for sa in snapshot.sas().filter(|sa| sa.direction == SaDirection::Outbound) {
            // All numbers at once: nobody asks for more while it is measured.
            worker.grant(&[Grant { sa: Arc::clone(sa), from: 1, until: 1 << 32 }]);
        }
        let packets = (0..BURST).map(|_| Packet::with_capacity(2048)).collect();
        Self { worker, out: Outbox::default(), packets }
    }

    fn receive(&mut self, port: u32) {
        self.worker.receive(vif(port), &mut self.packets, 1000, &mut self.out);
        let queue = self.out.queue(vif(WAN));
        queue.metas.clear();
        std::mem::swap(&mut self.packets, &mut queue.packets);
        self.out.dirty.clear();
        assert_eq!(self.packets.len(), BURST, "everything is forwarded: {:?}", self.worker.account());
    }

    /// Time for each packet that `write` puts into the buffers, less that of writing it.
    fn measure(
        &mut self,
        effort: &Effort,
        port: u32,
        deciding: Deciding,
        mut write: impl FnMut(&mut [Packet]),
    ) -> Sample {
        let rounds = |router: &mut Self, each: &mut dyn FnMut(&mut Self)| {
            effort.measure(|| {
                for _ in 0..ROUND {
                    each(router);
                }
                (ROUND * BURST) as u64
            })
        };
        let nic = rounds(self, &mut |router| write(&mut router.packets));
        let sample = rounds(self, &mut |router| {
            write(&mut router.packets);
            router.receive(port);
        });
        let account = self.worker.account();
        let expected = if deciding == Deciding::Routed { account.routed } else { account.slow_path };
        assert!(expected * 1000 > account.received * 998, "all go the same way: {account:?}");
        sample.less(nic)
    }
}

/// A UDP packet of IPv4, checksum of the header included.
fn ip(from: u32, to: u32, ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut packet = vec![0_u8; len];
    packet[..10].copy_from_slice(&[0x45, 0, (len >> 8) as u8, len as u8, 0, 0, 0x40, 0, 64, 17]);
    packet[12..16].copy_from_slice(&from.to_be_bytes());
    packet[16..20].copy_from_slice(&to.to_be_bytes());
    let sum = checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&ports.0.to_be_bytes());
    packet[22..24].copy_from_slice(&ports.1.to_be_bytes());
    packet[24..26].copy_from_slice(&((len - 20) as u16).to_be_bytes());
    packet
}

/// Frames of VLAN 100 to random destinations.
struct Frames {
    state: u64,
    header: Vec<u8>,
    sum: u16,
    routes: u32,
    destinations: u32,
}

impl Frames {
    fn new(routes: u32, destinations: u32) -> Self {
        let mut header = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x10, 0x81, 0, 0, 100, 8, 0];
        header.extend(ip(0x0a00_0001, 0, (1024, 53), 46));
        header[28..30].fill(0);
        let sum = checksum::sum(&header[18..38]);
        Self { state: 0x1234_5678_9abc_def1, header, sum, routes, destinations }
    }

    fn write(&mut self, packets: &mut [Packet]) {
        for packet in packets {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let flow = (((self.state >> 32) * u64::from(self.destinations)) >> 32) as u32;
            let to = prefix(flow % self.routes) | (flow / self.routes + 1) & 0xff;
            let from = 0x0a00_0000 | flow & 0xffff;
            let sum = u64::from(self.sum) + u64::from(to) + u64::from(from & 0xffff);
            // The template holds the host part of 10.0.0.1.
            let sum = sum + u64::from(!1_u16);
            let sum = (sum & 0xffff_ffff) + (sum >> 32);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            packet.refill(&self.header);
            let data = packet.data_mut();
            data[28..30].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            data[30..34].copy_from_slice(&from.to_be_bytes());
            data[34..38].copy_from_slice(&to.to_be_bytes());
        }
    }
}

fn plain_row(
    effort: &Effort,
    (what, toward): (&str, Toward),
    (count, routes): (u32, u32),
    deciding: Deciding,
) -> Option<Row> {
    let counts = |n: u32| if n >= 1_000_000 { "1 M".to_owned() } else { format!("{} k", n / 1000) };
    let how = if deciding == Deciding::Walked { ", each walked" } else { "" };
    let name = format!("{what}, 64 B, {} destinations, {} routes{how}", counts(count), counts(routes));
    if !effort.wants(&name) {
        return None;
    }
    let mut router = Router::new(&plain(routes, toward), deciding);
    let mut frames = Frames::new(routes, count);
    let sample = router.measure(effort, LAN, deciding, |packets| frames.write(packets));
    let (target, against) = match (deciding, toward, count) {
        (Deciding::Walked, ..) => (None, ""),
        (_, Toward::Vlan, 1000) => (Some(Target::Cycles(60.0)), "quoted: VPP IPv4 31 in its nodes, 41 in all"),
        (_, Toward::Vlan, _) => (Some(Target::Cycles(120.0)), "quoted, older processor: VPP 190 with 1 M routes"),
        (_, Toward::Mpls, _) => (Some(Target::Cycles(150.0)), "quoted: VPP encap 79 in its nodes, 90 in all"),
        (_, Toward::Ecmp { .. }, _) => (None, ""),
    };
    Some(Row { name, value: Value::PerPacket(sample), target, against })
}

fn edge_row(effort: &Effort, provider: Provider, (size, sizes): (&str, &[usize]), deciding: Deciding) -> Option<Row> {
    let how = if deciding == Deciding::Walked { ", each walked" } else { "" };
    let name = format!("ESP -> route -> ESP: {}, 128 bits, {size}{how}", provider.name());
    if !effort.wants(&name) {
        return None;
    }
    provider.use_for_the_process();
    let mut router = Router::new(&edge(), deciding);
    let tunnel = Tunnel::nat_t(Ipv4Addr::new(172, 28, 13, 36), Ipv4Addr::new(103, 135, 56, 40));
    let key = Key::new(&esp::octets(KEY_IN)).expect("a key");
    let mut peer = OutboundSa::by(provider, &OutboundConfig { spi: SPI, key, esn: true, first: 1, tunnel });
    let texts: Vec<_> = (0..1000_u32)
        .zip(sizes.iter().cycle())
        .map(|(n, len)| ip(0x0a65_0a27, 0x0a65_0900 | n & 0xff, (49152 + n as u16, 6635), *len))
        .collect();
    let mut next = 0;
    let sample = router.measure(effort, WAN, deciding, |packets| {
        for packet in &mut *packets {
            packet.refill(&texts[next % texts.len()]);
            next += 1;
        }
        esp::seal_all(&mut peer, packets);
    });
    let target = match (deciding, size) {
        (Deciding::Walked, _) => None,
        (_, "64 B") => Some(Target::Cycles(270.0)),
        (_, "IMIX") => Some(Target::Cycles(333.0)),
        _ => Some(Target::Cycles(571.0)),
    };
    let against = if target.is_some() { "quoted: VPP, ipsec-mb" } else { "" };
    Some(Row { name, value: Value::PerPacket(sample), target, against })
}

/// The rows.
pub(crate) fn rows(effort: &Effort) -> Vec<Row> {
    let ways = [
        ("VLAN -> route -> VLAN", Toward::Vlan),
        ("VLAN -> route -> ECMP of 4, equal", Toward::Ecmp { weighted: false }),
        ("VLAN -> route -> ECMP of 4, weighted", Toward::Ecmp { weighted: true }),
        ("VLAN -> route -> MPLSoUDP", Toward::Mpls),
    ];
    let mut rows = Vec::new();
    for way in ways {
        for deciding in [Deciding::Routed, Deciding::Walked] {
            rows.extend(plain_row(effort, way, (1000, 1000), deciding));
            if way.1 == Toward::Vlan {
                rows.extend(plain_row(effort, way, (1000, 10_000), deciding));
                rows.extend(plain_row(effort, way, (1_000_000, 1000), deciding));
                rows.extend(plain_row(effort, way, (1_000_000, 10_000), deciding));
            }
        }
    }
    let sizes: [(&str, &[usize]); 3] =
        [("64 B", &[64]), ("IMIX", &[64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 576, 64]), ("1420 B", &[1420])];
    for provider in esp::providers() {
        for size in sizes {
            for deciding in [Deciding::Routed, Deciding::Walked] {
                rows.extend(edge_row(effort, provider, size, deciding));
            }
        }
    }
    Provider::GRAVIOLA.use_for_the_process();
    rows
}
