//! The whole way of a packet through a worker: from a tenant into MPLS over UDP into ESP, and back.

use std::{net::Ipv4Addr, sync::Arc};

use fallback_sw::{
    esp::{InboundConfig, InboundSa, Key, Opened, OutboundConfig, OutboundSa, Provider, Tunnel},
    node::decode,
    packet::{Packet, checksum},
    worker::{Grant, Outbox, Worker, WorkerConfig},
};
use offload_rules::{
    VifId,
    forwarding::{SaDirection, Snapshot},
};

use crate::measure::{Effort, Row, Sample, Target, Value};

/// Octets of the tenant's IP packets, in turn.
const SIZES: [(&str, &[usize]); 4] = [
    ("64 B", &[64]),
    ("512 B", &[512]),
    ("1420 B", &[1420]),
    ("IMIX", &[64, 576, 64, 64, 576, 64, 1500, 64, 576, 64, 576, 64]),
];
const FLOWS: u16 = 1000;
/// Packets of a receive, and receives between two looks at the clock.
const BURST: usize = 64;
const ROUND: usize = 64;
const LAN: u32 = 1;
const WAN: u32 = 2;
const KEY_OUT: &str = "000102030405060708090a0b0c0d0e0f10111213";
const KEY_IN: &str = "202122232425262728292a2b2c2d2e2f30313233";
const SPI: u32 = 4096;

/// A customer edge with one tunnel in UDP. Its neighbours are 02:00:00:00:00:10 on the LAN and 02:00:00:00:00:30 on the other side.
fn snapshot() -> Arc<Snapshot> {
    let state = format!(
        r#"{{"generation": "1", "node": "ce",
        "vrfs": [{{"id": 2, "name": "wan"}}, {{"id": 8, "name": "tunnels"}}, {{"id": 18, "name": "tenant"}}],
        "vifs": [
            {{"id": 1, "name": "lan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 18, "mtu": 1500, "flags": {{"policy": true}}}},
            {{"id": 2, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:03", "vrf": 2, "mtu": 9000}},
            {{"id": 11, "name": "tunnel", "type": "TUNNEL", "vrf": 8, "mtu": 8900, "tunnel": {{"source": "172.28.13.36",
                "destination": "103.135.56.40", "vrf": 2, "natT": {{}}, "outboundSas": [1], "inboundSas": [2]}}}}],
        "nexthops": [
            {{"id": 10, "vrf": 18, "encap": {{"oif": 1, "encapData": "020000000010 020000000001 0800"}}}},
            {{"id": 11, "vrf": 2, "encap": {{"oif": 2, "encapData": "020000000030 020000000003 0800"}}}},
            {{"id": 12, "vrf": 8, "encap": {{"oif": 11}}}},
            {{"id": 13, "vrf": 8, "tunnel": {{"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.245", "directNexthop": 12}}}},
            {{"id": 14, "policy": true, "vrfTranslate": {{"vrf": 18}}}},
            {{"id": 15, "vrf": 8, "receive": {{"terminateMplsOUdp": true}}}}],
        "routes": [
            {{"vrf": 18, "prefix": "10.0.0.0/8", "nexthop": 10}},
            {{"vrf": 18, "prefix": "192.168.0.0/16", "nexthop": 13, "label": 280}},
            {{"vrf": 8, "prefix": "10.101.10.39/32", "nexthop": 15}},
            {{"vrf": 8, "prefix": "10.101.9.245/32", "nexthop": 12}},
            {{"vrf": 2, "prefix": "0.0.0.0/0", "nexthop": 11}}],
        "labels": [{{"label": 279, "nexthop": 14}}],
        "sas": [
            {{"id": 1, "spi": {SPI}, "direction": "OUTBOUND", "key": "{KEY_OUT}", "esn": true}},
            {{"id": 2, "spi": {SPI}, "direction": "INBOUND", "key": "{KEY_IN}", "esn": true}}]}}"#
    );
    let message: proto::v1::ForwardingState = proto::json::parse(&state, "the bench's state").expect("right JSON");
    let state = decode::state(&message).unwrap_or_else(|errors| panic!("{errors}"));
    Arc::new(Snapshot::empty().with_state(state).unwrap_or_else(|errors| panic!("{errors}")))
}

fn vif(number: u32) -> VifId {
    VifId::new(number).expect("a vif")
}

pub(super) fn octets(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap_or("0"), 16).expect("digits");
    (0..hex.len() / 2).map(|i| digit(2 * i)).collect()
}

/// An IPv4 UDP packet of a flow.
fn ip(from: [u8; 4], to: [u8; 4], ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut packet = vec![0_u8; len];
    packet[..10].copy_from_slice(&[0x45, 0, (len >> 8) as u8, len as u8, 0, 0, 0x40, 0, 64, 17]);
    packet[12..16].copy_from_slice(&from);
    packet[16..20].copy_from_slice(&to);
    let sum = checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&ports.0.to_be_bytes());
    packet[22..24].copy_from_slice(&ports.1.to_be_bytes());
    packet[24..26].copy_from_slice(&((len - 20) as u16).to_be_bytes());
    packet
}

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [192, 168, 1, 100];

/// What the tenant sends.
fn from_tenant(flow: u16, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x10, 8, 0];
    frame.extend(ip(CLIENT, SERVER, (1024 + flow, 53), len));
    frame
}

/// The answer, in MPLS over UDP: what is sealed at the other end.
fn answer(flow: u16, len: usize) -> Vec<u8> {
    let inner = ip(SERVER, CLIENT, (53, 1024 + flow), len);
    let mut outer = ip([10, 101, 9, 245], [10, 101, 10, 39], (0xc123, 6635), 32);
    let total = (32 + len) as u16;
    outer[2..4].copy_from_slice(&total.to_be_bytes());
    outer[10..12].fill(0);
    let sum = checksum::checksum(&outer[..20]);
    outer[10..12].copy_from_slice(&sum.to_be_bytes());
    outer[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    outer[28..32].copy_from_slice(&(279_u32 << 12 | 0x100 | 64).to_be_bytes());
    outer.extend(inner);
    outer
}

/// A worker with its tunnel, and the other end of it.
struct Bench {
    worker: Worker,
    out: Outbox,
    packets: Vec<Packet>,
    peer: OutboundSa,
    now: u64,
}

impl Bench {
    fn new(provider: Provider) -> Self {
        provider.use_for_the_process();
        let snapshot = snapshot();
        let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [1, 2], offload: false };
        let mut worker = Worker::new(config, Arc::clone(&snapshot)).expect("memory for the flow table");
        // All numbers at once: nobody asks for more while it is measured.
        let sa = snapshot.sas().find(|sa| sa.direction == SaDirection::Outbound).expect("an SA");
        worker.grant(&[Grant { sa: Arc::clone(sa), from: 1, until: 1 << 32 }]);
        let tunnel = Tunnel::nat_t(Ipv4Addr::new(103, 135, 56, 40), Ipv4Addr::new(172, 28, 13, 36));
        let key = Key::new(&octets(KEY_IN)).expect("a key");
        let peer = OutboundSa::by(provider, &OutboundConfig { spi: SPI, key, esn: true, first: 1, tunnel });
        let packets = (0..BURST).map(|_| Packet::with_capacity(2048)).collect();
        Self { worker, out: Outbox::default(), packets, peer, now: 1000 }
    }

    fn receive(&mut self, port: u32, egress: u32) {
        self.worker.receive(vif(port), &mut self.packets, self.now, &mut self.out);
        let queue = self.out.queue(vif(egress));
        queue.metas.clear();
        std::mem::swap(&mut self.packets, &mut queue.packets);
        self.out.dirty.clear();
        assert_eq!(self.packets.len(), BURST, "everything is forwarded: {:?}", self.worker.counters().account);
    }

    fn write(&mut self, frames: &[Vec<u8>], burst: usize) {
        for (i, packet) in self.packets.iter_mut().enumerate() {
            packet.refill(&frames[(burst * BURST + i) % frames.len()]);
        }
    }

    /// The other end seals.
    fn write_sealed(&mut self, texts: &[Vec<u8>], burst: usize) {
        self.write(texts, burst);
        super::seal_all(&mut self.peer, &mut self.packets);
    }

    fn measure(&mut self, effort: &Effort, mut each: impl FnMut(&mut Self, usize)) -> Sample {
        effort.measure(|| {
            for burst in 0..ROUND {
                each(self, burst);
            }
            (ROUND * BURST) as u64
        })
    }

    /// What the tenant sends: opens the flows.
    fn open(&mut self, sizes: &[usize]) -> Vec<Vec<u8>> {
        let frames: Vec<_> = (0..FLOWS).zip(sizes.iter().cycle()).map(|(flow, len)| from_tenant(flow, *len)).collect();
        for burst in 0..2 * usize::from(FLOWS) / BURST {
            self.write(&frames, burst);
            self.receive(LAN, WAN);
        }
        frames
    }

    /// There: less the writing of frames.
    fn out(&mut self, effort: &Effort, sizes: &[usize]) -> Sample {
        let frames = self.open(sizes);
        let nic = self.measure(effort, |bench, burst| bench.write(&frames, burst));
        let all = self.measure(effort, |bench, burst| {
            bench.write(&frames, burst);
            bench.receive(LAN, WAN);
        });
        self.is_right(&frames);
        all.less(nic)
    }

    /// Back: less what the other end does.
    fn back(&mut self, effort: &Effort, sizes: &[usize]) -> Sample {
        self.open(sizes);
        let texts: Vec<_> = (0..FLOWS).zip(sizes.iter().cycle()).map(|(flow, len)| answer(flow, *len)).collect();
        let nic = self.measure(effort, |bench, burst| bench.write_sealed(&texts, burst));
        let all = self.measure(effort, |bench, burst| {
            bench.write_sealed(&texts, burst);
            bench.receive(WAN, LAN);
        });
        all.less(nic)
    }

    /// The last packet that was sent opens, and is a tenant's behind the headers of MPLS over UDP.
    fn is_right(&mut self, frames: &[Vec<u8>]) {
        let Some(packet) = self.packets.last_mut() else { return };
        let key = Key::new(&octets(KEY_OUT)).expect("a key");
        let mut sa = InboundSa::new(&InboundConfig { spi: SPI, key, esn: true, window: 64 }).expect("a window");
        packet.advance(14 + 28);
        let esp = packet.data_mut();
        let Ok(Opened::Packet { at, len }) = sa.open(esp) else { panic!("what was sealed does not open") };
        // From behind the checksum of the header that the TTL is in.
        let inside = &esp[at + 32 + 12..at + len];
        assert!(frames.iter().any(|frame| &frame[14 + 12..] == inside), "the tenant's packet is inside");
    }
}

/// How one way is measured.
type Way = fn(&mut Bench, &Effort, &[usize]) -> Sample;

/// The rows, by provider and size.
pub(super) fn rows(effort: &Effort) -> Vec<Row> {
    const OUT: &str = "host -> MPLSoUDP -> ESP";
    let ways: [(&str, Way); 2] = [(OUT, Bench::out), ("ESP -> MPLSoUDP -> host", Bench::back)];
    let mut rows = Vec::new();
    for provider in super::providers() {
        let mut bench = None;
        for (size, sizes) in SIZES {
            for (way, measure) in ways {
                let name = format!("{way}: {}, 128 bits, {size}", provider.name());
                if !effort.wants(&name) {
                    continue;
                }
                let (target, against) = match (way, size) {
                    (OUT, "64 B") => (Some(Target::Cycles(300.0)), "quoted, without flows: VPP 386 to 409"),
                    (OUT, "1420 B") => (Some(Target::Cycles(540.0)), "quoted, without flows: VPP 618"),
                    (OUT, "IMIX") => (None, "quoted, without flows: VPP 428 to 453"),
                    _ => (None, ""),
                };
                let bench = bench.get_or_insert_with(|| Bench::new(provider));
                let value = Value::PerPacket(measure(bench, effort, sizes));
                rows.push(Row { name, value, target, against });
            }
        }
    }
    Provider::GRAVIOLA.use_for_the_process();
    rows
}
