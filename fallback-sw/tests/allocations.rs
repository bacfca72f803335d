//! What flows cost the allocator: nothing each, however many there are and whatever they have of their own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::Ipv4Addr,
};

use common::{
    packets::{eth, udp},
    snapshot, vif,
};
use fallback_sw::{
    flow_table::{Binding, FlowTable},
    packet::Packet,
    worker::{
        Outbox, Programs, Worker, WorkerConfig,
        leases::{self, Leases},
    },
};
use offload_rules::{
    NexthopId, VrfId,
    flow::{Decided, Dependency, Egress, FlowKey, Forward, Operations, Program, SequenceShift},
    forwarding::Snapshot,
};

thread_local! {
    /// Allocations that this thread has made, and those of them that it has given back.
    static COUNTS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counted by thread.
struct Counting;

// SAFETY: each call is handed on as it is; counting allocates nothing, since the cell needs neither initialisation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTS.set((COUNTS.get().0 + 1, COUNTS.get().1));
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        COUNTS.set((COUNTS.get().0, COUNTS.get().1 + 1));
        // SAFETY: as the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What some work allocates, and how much of that it keeps.
fn counted<T>(work: impl FnOnce() -> T) -> (T, u64, i64) {
    let before = COUNTS.get();
    let result = work();
    let after = COUNTS.get();
    let (allocated, freed) = (after.0 - before.0, after.1 - before.1);
    (result, allocated, allocated.cast_signed() - freed.cast_signed())
}

fn vrf() -> VrfId {
    VrfId::new(2).unwrap()
}

/// A program that names an operand.
fn program() -> Program {
    let forward =
        Forward { shift: Some(SequenceShift::Sequence), ttl: 1, ..Forward::unchanged(Egress::Output(vif(3))) };
    Program {
        ops: Operations::Forward(forward),
        dependencies: vec![Dependency::Vif(vif(3)), Dependency::Destination(vrf())],
        nexthop: NexthopId::NONE,
        label: None,
        vrf: vrf(),
        passes: Vec::new(),
        decided: Decided::BY_NONE,
    }
}

#[test]
fn a_million_flows_with_operands_share_a_program_and_no_allocations() {
    const FLOWS: u32 = 1_000_000;
    let mut flows = FlowTable::with_seed(2 * FLOWS, 7).unwrap();
    let (mut programs, mut leases, snapshot) = (Programs::default(), Leases::default(), Snapshot::empty());
    let (id, _, kept) = counted(|| {
        let mut id = 0;
        for number in 0..FLOWS {
            let client = Ipv4Addr::from_bits(0x0a00_0000 | number >> 4).into();
            let server = Ipv4Addr::from_bits(0xc0a8_0100 | number & 0xff).into();
            let key = FlowKey::new(vrf(), vif(1), client, server, 6, 1024 + (number & 15) as u16, 443);
            let slots = flows.insert_pair(key, key.reversed(vrf(), vif(3))).unwrap();
            id = programs.intern(program(), vrf(), &snapshot);
            for slot in [slots.0, slots.1] {
                flows.record_mut(slot).unwrap().program = id;
                let lease = leases.add(leases::NONE, u64::from(slot));
                *flows.binding_mut(slot).unwrap() = Binding { sequence_shift: slot, offload: 0, leases: lease };
            }
        }
        id
    });
    assert_eq!((programs.iter().count(), leases.held(), flows.len()), (1, 2 * FLOWS, 2 * FLOWS));
    let of_one = (0..2 * FLOWS).filter(|slot| flows.record(*slot).is_some_and(|record| record.program == id)).count();
    let own = (0..2 * FLOWS).filter(|slot| flows.binding(*slot).sequence_shift == *slot).count();
    assert_eq!((of_one, own), (2_000_000, 2_000_000));
    // Groups by destination are as many as networks, not as flows: 62,500 clients are in 245 of them.
    assert!(kept < 1000, "{kept} allocations are kept");
}

/// Two LANs whose flows are looked up.
const SITE: &str = r#"{"generation": "1", "node": "ce", "settings": {"maxFlows": 65536},
  "vrfs": [{"id": 2, "name": "tenant"}],
  "vifs": [
    {"id": 1, "name": "lan1", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "flags": {"policy": true},
      "addresses": ["172.16.0.1/24"], "ingressAcls": [1]},
    {"id": 3, "name": "lan3", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "flags": {"policy": true},
      "addresses": ["172.17.0.1/24"]}],
  "acls": [{"id": 1, "entries": [{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 53, "last": 53}},
    {"id": 2, "action": "PERMIT", "proto": 17}]}],
  "nexthops": [
    {"id": 10, "vrf": 2, "encap": {"oif": 1, "encapData": "020000000010 020000000001 0800"}},
    {"id": 11, "vrf": 2, "encap": {"oif": 3, "encapData": "020000000020 020000000001 0800"}}],
  "routes": [{"vrf": 2, "prefix": "10.0.0.0/8", "nexthop": 10}, {"vrf": 2, "prefix": "100.0.0.0/8", "nexthop": 11}]}"#;

#[test]
fn a_first_packet_that_goes_the_way_of_others_allocates_nothing() {
    const FLOWS: u32 = 4000;
    let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: false };
    let mut worker = Worker::new(config, snapshot(SITE)).unwrap();
    let mut out = Outbox::default();
    let frame = |number: u32| {
        let (client, server) = (format!("10.0.0.{}", number % 250), format!("100.0.0.{}", number / 250));
        let packet = udp(&client, &server, 1024 + (number % 7) as u16, 80, b"x").ip();
        Packet::from_frame(&eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0x10], &packet))
    };
    let mut frames: Vec<Packet> = (0..2 * FLOWS).map(frame).collect();
    let mut second = frames.split_off(FLOWS as usize);
    for frames in [&mut frames, &mut second] {
        out.queue(vif(3)).packets.reserve(2 * FLOWS as usize);
        out.queue(vif(3)).metas.reserve(2 * FLOWS as usize);
        let ((), allocated, _) = counted(|| worker.receive(vif(1), frames, 1000, &mut out));
        if worker.flows().len() == 4 * FLOWS {
            assert!(allocated < 100, "{allocated} allocations for {FLOWS} flows");
        }
    }
    assert_eq!((worker.flows().len(), worker.account().forwarded), (4 * FLOWS, 2 * u64::from(FLOWS)));
    assert!(worker.decisions_shared() > u64::from(4 * FLOWS) - 10, "{}", worker.decisions_shared());
}

#[test]
fn packets_of_known_flows_and_routes_allocate_nothing() {
    const FLOWS: u32 = 100;
    // LAN 3 without flows: what comes from it goes by its routes.
    let text = SITE.replace(
        r#""vrf": 2, "flags": {"policy": true},
      "addresses": ["172.17.0.1/24"]"#,
        r#""vrf": 2, "addresses": ["172.17.0.1/24"]"#,
    );
    assert_ne!(text, SITE);
    let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: false };
    let mut worker = Worker::new(config, snapshot(&text)).unwrap();
    let mut out = Outbox::default();
    let (there, back) = (
        |number: u32| udp(&format!("10.0.0.{number}"), "100.0.0.1", 1024, 80, b"x"),
        |number: u32| udp("100.0.0.1", &format!("10.0.0.{number}"), 80, 1024, b"x"),
    );
    let mut frames: [Vec<Packet>; 2] = std::array::from_fn(|_| Vec::with_capacity(FLOWS as usize));
    for port in [1, 3] {
        out.queue(vif(port)).packets.reserve(FLOWS as usize);
        out.queue(vif(port)).metas.reserve(FLOWS as usize);
    }
    for round in 0..4 {
        for (frames, make) in frames.iter_mut().zip([&there as &dyn Fn(u32) -> _, &back]) {
            frames.extend(
                (0..FLOWS).map(|number| {
                    Packet::from_frame(&eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0x10], &make(number).ip()))
                }),
            );
        }
        let [there, back] = &mut frames;
        let ((), allocated, _) = counted(|| {
            worker.receive(vif(1), there, 1000 + round, &mut out);
            worker.receive(vif(3), back, 1000 + round, &mut out);
        });
        assert!(round < 2 || allocated == 0, "{allocated} allocations in round {round}");
        for port in [1, 3] {
            assert_eq!(out.queue(vif(port)).packets.len(), FLOWS as usize);
            out.queue(vif(port)).packets.clear();
            out.queue(vif(port)).metas.clear();
        }
        out.dirty.clear();
    }
    let account = worker.account();
    assert!(account.flow_hits >= u64::from(3 * FLOWS) && account.routed >= u64::from(3 * FLOWS), "{account:?}");
}
