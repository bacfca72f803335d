//! The flow table alone: lookup in batches, new flows, memory.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};

use fallback_sw::flow_table::{FlowTable, NONE};
use offload_rules::{VifId, VrfId, flow::FlowKey};

use crate::measure::{Effort, Row, Sample, Target, Value};

/// Packets of a batch, as a worker gets them from a port.
const BATCH: usize = 64;
/// Packets between two looks at the clock.
const ROUND: usize = 64 * 1024;

/// Flow counts, and the nanoseconds that a cuckoo index with one-line records needs for a batched lookup on the machine of
/// the design's figures.
const SIZES: [(u32, &str, Option<f64>); 5] = [
    (1, "1", None),
    (1_000, "1 k", Some(8.5)),
    (100_000, "100 k", Some(24.0)),
    (1_000_000, "1 M", Some(52.0)),
    (10_000_000, "10 M", Some(69.0)),
];

/// Flow number n: clients in 10/8 with a few ports each, toward one of 256 servers.
fn forward(n: u32) -> FlowKey {
    let mixed = n.wrapping_mul(0x9e37_79b1);
    let src = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | (n >> 2)));
    let dst = IpAddr::V4(Ipv4Addr::from(0xc0a8_0000 | (mixed >> 24)));
    let vrf = VrfId::new(18).expect("a valid VRF");
    let vif = VifId::new(3).expect("a valid vif");
    FlowKey::new(vrf, vif, src, dst, 6, 1024 + ((mixed >> 8) as u16 & 0x7fff), 443 + (n & 3) as u16)
}

fn reverse(key: &FlowKey) -> FlowKey {
    key.reversed(key.vrf, VifId::TUNNEL)
}

/// Flow numbers below `count` in random order, with repetition: xorshift, scaled.
struct Numbers {
    state: u64,
    count: u32,
}

impl Numbers {
    fn next(&mut self) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (((self.state >> 32) * u64::from(self.count)) >> 32) as u32
    }

    fn keys(&mut self, keys: &mut [FlowKey]) {
        for key in keys {
            *key = forward(self.next());
        }
    }
}

fn filled(flows: u32) -> FlowTable {
    let mut table = FlowTable::new(2 * flows.max(8)).expect("memory for the flow table");
    fill(&mut table, 0..flows);
    table
}

fn fill(table: &mut FlowTable, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let key = forward(n);
        table.insert_pair(key, reverse(&key)).expect("room for the flow");
    }
}

/// Runs `each` on batches of keys; what making the keys costs is taken off.
fn batches(effort: &Effort, flows: u32, mut each: impl FnMut(&[FlowKey])) -> Sample {
    let mut keys = [forward(0); BATCH];
    let mut numbers = Numbers { state: 0x1234_5678_9abc_def1, count: flows };
    let generator = effort.measure(|| {
        for _ in 0..ROUND / BATCH {
            numbers.keys(&mut keys);
            black_box(&keys);
        }
        ROUND as u64
    });
    let all = effort.measure(|| {
        for _ in 0..ROUND / BATCH {
            numbers.keys(&mut keys);
            each(black_box(&keys));
        }
        ROUND as u64
    });
    all.less(generator)
}

/// Rows of the flow table.
pub(crate) fn rows(effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut hashes = [0; BATCH];
    let mut slots = [NONE; BATCH];

    let table = filled(1);
    let sample = batches(effort, 1_000, |keys| {
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = table.hash(key);
        }
        black_box(&hashes);
    });
    rows.push(Row {
        name: "hash of a key".into(),
        value: Value::PerPacket(sample),
        target: Some(Target::Nanoseconds(1.3)),
        against: "CRC32C 1.3 ns, AES 0.5 ns",
    });

    for (flows, name, target) in SIZES {
        if effort.quick && flows > 100_000 {
            continue;
        }
        let mut table = filled(flows);
        let mut lookup = |table: &FlowTable, keys: &[FlowKey], slots: &mut [u32; BATCH]| {
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = table.hash(key);
            }
            table.lookup_batch(keys, &hashes, slots);
        };
        let sample = batches(effort, flows, |keys| {
            lookup(&table, keys, &mut slots);
            black_box(&slots);
        });
        assert!(slots.iter().all(|slot| *slot != NONE), "every flow is found");
        rows.push(Row {
            name: format!("hash + lookup, hit, {name} flows"),
            value: Value::PerPacket(sample),
            target: target.map(Target::Nanoseconds),
            against: "design's cuckoo with 64 B records",
        });
        let sample = batches(effort, flows, |keys| {
            lookup(&table, keys, &mut slots);
            for slot in &slots {
                if let Some(record) = table.record_mut(*slot) {
                    record.last_seen = record.last_seen.wrapping_add(record.program);
                    record.packets += 1;
                    record.bytes += 64;
                }
            }
        });
        rows.push(Row {
            name: format!("hash + lookup + counters, hit, {name} flows"),
            value: Value::PerPacket(sample),
            target: None,
            against: "both lines of the record read and written",
        });
    }

    for (flows, name) in [(10_000, "10 k"), (1_000_000, "1 M")] {
        if effort.quick && flows > 100_000 {
            continue;
        }
        let table = filled(flows);
        let sample = batches(effort, u32::MAX, |keys| {
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = table.hash(&FlowKey { dport: 1, ..*key });
            }
            table.lookup_batch(keys, &hashes, &mut slots);
            black_box(&slots);
        });
        rows.push(Row {
            name: format!("hash + lookup, miss, {name} flows"),
            value: Value::PerPacket(sample),
            target: None,
            against: "",
        });
        drop(table);

        let empty = || FlowTable::new(2 * flows).expect("memory for the flow table");
        let sample = effort.measure_once_each(empty, |table| {
            fill(table, 0..flows);
            u64::from(flows)
        });
        rows.push(Row {
            name: format!("insert pairs, 0 to {name}, memory untouched"),
            value: Value::Rate(sample),
            target: Some(Target::MillionsPerSecond(2.0)),
            against: "the target is for the whole miss path",
        });

        let mut table = filled(flows);
        let mut oldest = 0u32;
        let mut newest = flows;
        let sample = effort.measure(|| {
            for _ in 0..1024 {
                let key = forward(oldest);
                let slot = table.find(table.hash(&key), &key).unwrap_or(NONE);
                assert_eq!(table.remove_pair(slot), 2, "the oldest flow is there");
                let key = forward(newest);
                table.insert_pair(key, reverse(&key)).expect("room for one more flow");
                oldest += 1;
                newest += 1;
            }
            1024
        });
        rows.push(Row {
            name: format!("remove + insert a pair, table full, {name}"),
            value: Value::Rate(sample),
            target: Some(Target::MillionsPerSecond(2.0)),
            against: "the target is for the whole miss path",
        });
        rows.push(Row {
            name: format!("memory of a pair, {name} of {name} flows"),
            value: Value::Octets(table.memory_bytes() as f64 / f64::from(flows)),
            target: Some(Target::Octets(429.0)),
            against: "10 M pairs in 4 GiB; records alone 256 B",
        });
    }
    rows
}
