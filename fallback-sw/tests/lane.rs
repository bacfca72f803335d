//! Two workers that receive the same: ordinary packets of one go ahead in the lane, all packets of the other go the general way. What they
//! send is the same, in the same order for each flow.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::{
    packets::{ACK, Packet as IpPacket, SYN, entry, mpls_udp, segment, tagged, udp},
    snapshot, vif,
};
use fallback_sw::{
    packet::{NicNote, Packet},
    worker::{Account, Outbox, TxKind, Worker, WorkerConfig},
};
use offload_rules::{VifId, forwarding::Snapshot};
use proptest::{collection::vec, prelude::*, test_runner::Config};
use std::sync::Arc;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// Devices: a LAN with a sub-interface, the underlay, a LAN without flows.
const PORTS: [u32; 3] = [1, 3, 4];

/// Flows from the LAN, tagged or not, into a tunnel and to another LAN; without flows from LAN 4.
const SITE: &str = r#"{"generation": "1", "node": "ce", "settings": {"maxFlows": 8192},
  "vrfs": [{"id": 2, "name": "tenant"}, {"id": 8, "name": "underlay"}],
  "vifs": [
    {"id": 1, "name": "lan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "mtu": 1500, "flags": {"policy": true, "noRpf": true},
      "addresses": ["172.16.0.1/24"]},
    {"id": 2, "name": "lan.100", "type": "PHYSICAL_VLAN", "mac": "02:00:00:00:00:01", "vrf": 2, "flags": {"policy": true, "noRpf": true},
      "parent": 1, "outerVlan": {"vid": 100}},
    {"id": 3, "name": "under", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 8, "addresses": ["192.0.2.1/24"]},
    {"id": 4, "name": "open", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "mtu": 1400, "flags": {"noRpf": true}}],
  "nexthops": [
    {"id": 10, "vrf": 2, "encap": {"oif": 1, "encapData": "020000000010 020000000001 0800"}},
    {"id": 11, "vrf": 2, "encap": {"oif": 2, "encapData": "020000000011 020000000001 8100 0064 0800"}},
    {"id": 12, "vrf": 2, "encap": {"oif": 4, "encapData": "020000000012 020000000001 0800"}},
    {"id": 33, "vrf": 8, "encap": {"oif": 3, "encapData": "020000000030 020000000001 0800"}},
    {"id": 30, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "192.0.2.1", "dip": "192.0.2.2", "directNexthop": 33}},
    {"id": 34, "vrf": 8, "receive": {"terminateMplsOUdp": true}},
    {"id": 40, "policy": true, "vrfTranslate": {"vrf": 2}},
    {"id": 41, "vrfTranslate": {"vrf": 2}}],
  "labels": [{"label": 200, "nexthop": 40}, {"label": 201, "nexthop": 41}],
  "routes": [
    {"vrf": 2, "prefix": "10.0.0.0/8", "nexthop": 10}, {"vrf": 2, "prefix": "10.1.0.0/16", "nexthop": 11},
    {"vrf": 2, "prefix": "10.2.0.0/16", "nexthop": 12}, {"vrf": 2, "prefix": "10.3.0.0/16", "nexthop": 30, "label": 300},
    {"vrf": 2, "prefix": "2001:db8::/32", "nexthop": 10}, {"vrf": 2, "prefix": "2001:db8:1::/48", "nexthop": 11},
    {"vrf": 2, "prefix": "2001:db8:2::/48", "nexthop": 12}, {"vrf": 2, "prefix": "2001:db8:3::/48", "nexthop": 30, "label": 301},
    {"vrf": 2, "prefix": "0.0.0.0/0", "nexthop": 10}, {"vrf": 2, "prefix": "::/0", "nexthop": 10},
    {"vrf": 8, "prefix": "192.0.2.1/32", "nexthop": 34}, {"vrf": 8, "prefix": "0.0.0.0/0", "nexthop": 33}]}"#;

/// What is done to a frame once it is made.
#[derive(Debug, Clone, Copy)]
enum Damage {
    None,
    /// Bits of one octet are turned over.
    Octet(u8, u8),
    /// Octets at the end are missing.
    Short(u8),
    /// Octets at the end are too many.
    Padded(u8),
    Mark(u32),
    Note,
}

/// A packet by small numbers.
#[derive(Debug, Clone, Copy)]
struct Choice {
    /// 0, 1: the LAN, without and with a tag; 2, 3: the tunnel, with and without flows; 4: a LAN without flows.
    way: u8,
    v6: bool,
    tcp: bool,
    /// 4: an address that no sender may use.
    host: u8,
    /// The second octet of the destination, or the third group; 4 and 5: an address that nothing is forwarded to.
    site: u8,
    ttl: u8,
    tos: u8,
    outer_tos: u8,
    pcp: u8,
    /// Octets of payload between the packet's number and that of its flow.
    len: u16,
    syn: bool,
    damage: Damage,
}

fn choice() -> impl Strategy<Value = Choice> {
    let damage = prop_oneof![
        24 => Just(Damage::None),
        4 => (0..100_u8, 1..=255_u8).prop_map(|(at, bits)| Damage::Octet(at, bits)),
        1 => (1..80_u8).prop_map(Damage::Short),
        1 => (1..40_u8).prop_map(Damage::Padded),
        1 => any::<u32>().prop_map(Damage::Mark),
        1 => Just(Damage::Note),
    ];
    let len = prop_oneof![12 => 0..40_u16, 1 => 1300..1480_u16];
    let small = prop_oneof![8 => Just(64_u8), 1 => 0..4_u8];
    let [host, site] = [(4_u8, 5_u8), (4, 6)].map(|(usual, all)| prop_oneof![12 => 0..usual, 1 => usual..all]);
    let what = (0..5_u8, any::<bool>(), any::<bool>(), host, site, small);
    (what, (any::<u8>(), any::<u8>(), 0..9_u8), len, prop::bool::weighted(0.1), damage).prop_map(
        |((way, v6, tcp, host, site, ttl), (tos, outer_tos, pcp), len, syn, damage)| Choice {
            way,
            v6,
            tcp,
            host,
            site,
            ttl,
            tos,
            outer_tos,
            pcp,
            len,
            syn,
            damage,
        },
    )
}

impl Choice {
    fn port(self) -> VifId {
        vif([1, 1, 3, 3, 4][usize::from(self.way)])
    }

    /// Tells packets of one flow from those of others, but not those that were damaged.
    fn flow(self) -> u8 {
        let part = |value: u8, room: u8| value % room;
        let flow = part(self.way, 5) * 32 + part(self.site, 4) * 8 + part(self.host, 2) * 4;
        flow + u8::from(self.v6) * 2 + u8::from(self.tcp)
    }

    fn ip(self, number: u32) -> IpPacket {
        let source = match (self.v6, self.host) {
            // No sender may use it.
            (false, 4) => "127.0.0.1".to_owned(),
            (true, 4) => "::1".to_owned(),
            (false, host) => format!("10.9.0.{}", 1 + host % 2),
            (true, host) => format!("2001:db8:9::{}", 1 + host % 2),
        };
        let destination = match (self.v6, self.site) {
            // A group, and what no router forwards to.
            (false, 4) => "224.0.0.9".to_owned(),
            (true, 4) => "ff0e::9".to_owned(),
            (false, 5) => "240.0.0.7".to_owned(),
            (true, 5) => "::ffff:10.0.0.7".to_owned(),
            (false, site) => format!("10.{site}.0.7"),
            (true, site) => format!("2001:db8:{site}::7"),
        };
        let mut payload = number.to_be_bytes().to_vec();
        // Of a fragment, this is the last octet: it is compared without order.
        payload.extend(std::iter::repeat_n(0xff, self.len.into()));
        let undamaged = matches!(self.damage, Damage::None | Damage::Padded(_));
        payload.push(if undamaged { self.flow() } else { 0xff });
        let packet = if self.tcp {
            let flags = if self.syn { SYN } else { ACK };
            segment(&source, &destination, (1000, 80), flags, (1, 1), &payload)
        } else {
            udp(&source, &destination, 1000, 53, &payload)
        };
        packet.ttl(self.ttl).tos(self.tos)
    }

    fn frame(self, number: u32) -> Vec<u8> {
        let inner = self.ip(number).ip();
        let ip = match self.way {
            2 | 3 => {
                let label = if self.way == 2 { 200 } else { 201 };
                let stack = [entry(label, 0, true, 63)];
                mpls_udp("192.0.2.2", "192.0.2.1", (50_000, 6635), &stack, &inner).tos(self.outer_tos).ip()
            }
            _ => inner,
        };
        let tags = match (self.way, self.pcp) {
            (1, pcp) => vec![(0x8100, pcp & 7, 100)],
            // A priority tag.
            (_, 8) => vec![(0x8100, 5, 0)],
            _ => Vec::new(),
        };
        let mut frame = tagged(MAC, STATION, &tags, &ip);
        match self.damage {
            Damage::Octet(at, bits) => {
                if let Some(octet) = frame.get_mut(usize::from(at)) {
                    *octet ^= bits;
                }
            }
            Damage::Short(octets) => frame.truncate(frame.len().saturating_sub(octets.into())),
            Damage::Padded(octets) => frame.extend(std::iter::repeat_n(0xee, octets.into())),
            Damage::None | Damage::Mark(_) | Damage::Note => {}
        }
        frame
    }
}

/// Frames by flow and port.
type Sent = BTreeMap<(u8, u32), Vec<(VifId, TxKind, Vec<u8>)>>;

struct Side {
    worker: Worker,
    out: Outbox,
}

impl Side {
    fn new(snapshot: &Arc<Snapshot>) -> Self {
        let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: false };
        Self { worker: Worker::new(config, Arc::clone(snapshot)).unwrap(), out: Outbox::default() }
    }

    /// What is sent, by the last octet of each frame, which tells the flow; in order but for what belongs to no flow. Without the
    /// identifications of headers that the node makes, which are given in the order of all packets.
    fn receive(&mut self, port: VifId, frames: &mut Vec<Packet>) -> Sent {
        self.worker.receive(port, frames, 1000, &mut self.out);
        let mut sent: BTreeMap<_, Vec<_>> = BTreeMap::new();
        self.out.dirty.clear();
        for port in PORTS {
            let queue = self.out.queue(vif(port));
            for (packet, meta) in queue.packets.drain(..).zip(queue.metas.drain(..)) {
                let mut frame = packet.data().to_vec();
                let flow = frame.last().copied().unwrap_or(0);
                let l3 = if frame.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
                for at in [4, 5, 10, 11] {
                    frame[l3 + at] = 0;
                }
                sent.entry((flow, port)).or_default().push((meta.vif, meta.kind, frame));
            }
        }
        sent.iter_mut()
            .filter(|((flow, _), _)| *flow == 0xff)
            .for_each(|(_, frames)| frames.sort_by(|a, b| a.2.cmp(&b.2)));
        self.out.events.clear();
        sent
    }

    /// A packet that begins a flow in the middle of a batch is a hit or takes the slow path, as batches happen to be cut.
    fn account(&self) -> Account {
        let account = self.worker.account().clone();
        Account {
            slow_path: account.slow_path + account.flow_hits + account.routed,
            flow_hits: 0,
            routed: 0,
            ..account
        }
    }
}

/// Frames in buffers that hold what came before.
fn fill(frames: &[(Choice, Vec<u8>)], before: &[u8]) -> Vec<Packet> {
    let fill = |(choice, frame): &(Choice, Vec<u8>)| {
        let mut packet = Packet::from_frame(before);
        packet.refill(frame);
        match choice.damage {
            Damage::Mark(mark) => packet.set_mark(Some(mark)),
            Damage::Note => packet.set_note(NicNote::Deciphered),
            _ => {}
        }
        packet
    };
    frames.iter().map(fill).collect()
}

fn compare(bursts: &[Vec<Choice>]) -> u64 {
    let snapshot = snapshot(SITE);
    let (mut lane, mut general) = (Side::new(&snapshot), Side::new(&snapshot));
    lane.worker.stay_in_the_lane();
    general.worker.leave_the_lane();
    let mut number = 0;
    let mut before = vec![0xff; 1700];
    for burst in bursts {
        for port in PORTS.map(vif) {
            let frames: Vec<_> = burst
                .iter()
                .filter(|choice| choice.port() == port)
                .map(|choice| {
                    number += 1;
                    (*choice, choice.frame(number))
                })
                .collect();
            let ours = lane.receive(port, &mut fill(&frames, &before));
            let theirs = general.receive(port, &mut fill(&frames, &before));
            assert_eq!(ours, theirs, "on {port}: {:?}", frames.iter().map(|(choice, _)| choice).collect::<Vec<_>>());
            assert_eq!(lane.account(), general.account());
            if let Some((_, frame)) = frames.last() {
                before.splice(..frame.len().min(1700), frame.iter().take(1700).copied());
            }
        }
    }
    let counts = |side: &Side| {
        let counters = side.worker.counters();
        PORTS.into_iter().chain([2]).map(|id| (counters.of_vif(vif(id)), counters.of_port(vif(id)))).collect::<Vec<_>>()
    };
    assert_eq!(counts(&lane), counts(&general));
    assert_eq!(lane.worker.account().unaccounted(lane.worker.held_packets()), 0);
    lane.worker.account().flow_hits + lane.worker.account().routed
}

#[test]
fn the_lane_and_the_general_way_send_the_same_frames_in_order() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let mut runner =
        proptest::test_runner::TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let total = std::cell::Cell::new(0);
    let strategy = vec(vec(choice(), 1..80), 1..8);
    runner
        .run(&strategy, |bursts| {
            total.set(total.get() + compare(&bursts));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(total.get() > u64::from(cases) * 20, "{} packets found flows or decisions", total.get());
}

#[test]
fn a_port_whose_packets_are_not_the_lanes_gets_another_try() {
    let snapshot = snapshot(SITE);
    let mut side = Side::new(&snapshot);
    let choice = Choice {
        way: 0,
        v6: false,
        tcp: false,
        host: 0,
        site: 2,
        ttl: 64,
        tos: 0,
        outer_tos: 0,
        pcp: 0,
        len: 0,
        syn: false,
        damage: Damage::None,
    };
    // New flows, then marked packets, then those of one flow: whichever way they go, all are forwarded, in order.
    for round in 0..40_u32 {
        let damage = if round % 20 < 10 { Damage::Mark(7) } else { Damage::None };
        let frames: Vec<_> = (0..16).map(|n| (Choice { damage, ..choice }, choice.frame(round * 16 + n))).collect();
        let sent = side.receive(vif(1), &mut fill(&frames, &[0; 64]));
        let numbers: Vec<_> = sent.values().flatten().map(|(_, _, frame)| frame[frame.len() - 2]).collect();
        let expected: Vec<_> = (0..16_u32).map(|n| (round * 16 + n) as u8).collect();
        assert_eq!(numbers, expected);
    }
    assert_eq!(side.worker.account().forwarded, 640);
}
