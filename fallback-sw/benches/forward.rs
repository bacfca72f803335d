//! Whole paths of a packet, memory to memory, through `Worker::receive`.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use fallback_sw::packet::{Packet, parse};
use offload_rules::VrfId;

use crate::{
    measure::{self, Effort, Row, Sample, Target, Value},
    site::{ACK, BURST, Site, Sized, Template, Transport, Way, key, vif},
};

/// Packets between two looks at the clock.
pub(crate) const ROUND: usize = 32 * 1024;
/// Packets of a row when it runs once: to warm up, and to measure.
#[allow(dead_code, reason = "for whoever divides instructions by packets")]
pub(crate) const ONCE: usize = 2 * ROUND;

/// Sizes of a tenant's frames, tag included: a run takes them in turn, burst by burst.
const SIZES: [(&str, &[usize]); 3] =
    [("64 B", &[64]), ("IMIX", &[64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64]), ("1420 B", &[1420])];

/// What is done with the frames of some flows: [`Site::write_only`] or [`Site::forward`].
type Step = fn(&mut Site, &Sized<'_>, &[u32], usize);

/// Members of a set in random order, with repetition.
pub(crate) struct Picker<'a> {
    state: u64,
    flows: &'a [u32],
}

impl<'a> Picker<'a> {
    pub(crate) const fn new(flows: &'a [u32]) -> Self {
        Self { state: 0x1234_5678_9abc_def1, flows }
    }

    #[inline]
    pub(crate) fn burst(&mut self, out: &mut [u32; BURST]) {
        for out in out {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let at = ((self.state >> 32) * self.flows.len() as u64) >> 32;
            *out = self.flows[at as usize];
        }
    }
}

pub(crate) fn round(
    site: &mut Site,
    frames: &[Sized<'_>],
    picker: &mut Picker<'_>,
    each: impl Fn(&mut Site, &Sized<'_>, &[u32], usize),
) -> u64 {
    let mut flows = [0; BURST];
    for burst in 0..ROUND / BURST {
        picker.burst(&mut flows);
        each(site, &frames[burst % frames.len()], &flows, burst);
    }
    ROUND as u64
}

/// Time per packet of open flows, without the making of frames.
#[inline(never)] // so that callgrind can be told to count from here on
fn hits(effort: &Effort, site: &mut Site, template: &Template, sizes: &[usize], flows: &[u32]) -> Sample {
    let frames: Vec<Sized<'_>> = sizes.iter().map(|size| template.sized(*size)).collect();
    let mut picker = Picker::new(flows);
    let nic = effort.measure(|| round(site, &frames, &mut picker, Site::write_only));
    let before = site.worker.counters().account.clone();
    let all = effort.measure(|| round(site, &frames, &mut picker, Site::forward));
    let after = &site.worker.counters().account;
    assert_eq!(after.slow_path, before.slow_path, "every packet finds its flow");
    assert_eq!(after.dropped_total(), before.dropped_total(), "nothing is dropped");
    assert_eq!(after.received - before.received, after.forwarded - before.forwarded, "everything is forwarded");
    all.less(nic)
}

/// Rows of the parser.
pub(crate) fn parser(effort: &Effort) -> Vec<Row> {
    let vrf = VrfId::new(2).expect("a valid VRF");
    let mut rows = Vec::new();
    for (name, way, transport) in
        [("VLAN, IPv4, UDP", Way::Out, Transport::Udp), ("VLAN, IPv4, TCP", Way::Out, Transport::Tcp)]
    {
        let template = Template::new(way, transport, ACK);
        let frames = template.sized(64);
        let mut packets: Vec<Packet> = (0..BURST).map(|_| Packet::with_capacity(64)).collect();
        for (n, packet) in (0..).zip(&mut packets) {
            frames.write(packet, n);
        }
        let sample = effort.measure(|| {
            for _ in 0..ROUND / BURST {
                for packet in black_box(&packets) {
                    let frame = packet.data();
                    let ethernet = parse::ethernet(frame).expect("a whole header");
                    let ip = parse::ip(frame.get(ethernet.len..).unwrap_or(&[]), 4).expect("a right packet");
                    black_box(parse::flow_key(&ip, vrf, vif(2)));
                }
            }
            ROUND as u64
        });
        rows.push(Row {
            name: format!("parse Ethernet + IP + key: {name}"),
            value: Value::PerPacket(sample),
            target: None,
            against: "",
        });
    }
    rows
}

/// Rows of packets that find their flow.
pub(crate) fn hit(effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (count, name, out_target, in_target) in [
        (1_000, "1 k", Some(60.0), Some(62.0)),
        (100_000, "100 k", None, None),
        (1_000_000, "1 M", Some(110.0), Some(115.0)),
    ] {
        if effort.quick && count > 100_000 {
            continue;
        }
        let flows: Vec<u32> = (0..count).collect();
        for (transport, proto) in [(Transport::Udp, "UDP"), (Transport::Tcp, "TCP")] {
            let mut site = None;
            for (way, what, target) in
                [(Way::Out, "VLAN -> MPLSoUDP", out_target), (Way::In, "MPLSoUDP -> VLAN", in_target)]
            {
                let template = Template::new(way, transport, ACK);
                for (size, sizes) in SIZES {
                    if size != "64 B" && (transport == Transport::Tcp || count == 100_000) {
                        continue;
                    }
                    let against = match (way, size, count) {
                        (Way::Out, "64 B", 100_000) => "quoted: OVS route 466",
                        (Way::Out, "64 B", 1_000_000) => "quoted: VPP encap without flows 150, OVS route 397-593",
                        (Way::Out, "64 B", _) => {
                            "quoted: VPP encap without flows 79 in its nodes, 90 in all; OVS route 150-229"
                        }
                        (Way::Out, "IMIX", _) => "quoted: VPP encap without flows 161",
                        (Way::Out, ..) => "quoted: VPP encap without flows 191",
                        (Way::In, "64 B", _) => "quoted: VPP decap without flows 108 in its nodes, 119 in all",
                        (Way::In, ..) => "",
                    };
                    let name = format!("{what}, {proto} {size}, {name} flows");
                    if !effort.wants(&name) {
                        continue;
                    }
                    let site = site.get_or_insert_with(|| {
                        let mut site = Site::new(count, 0, 1);
                        site.open(transport, &flows);
                        site
                    });
                    rows.push(Row {
                        name,
                        value: Value::PerPacket(hits(effort, site, &template, sizes, &flows)),
                        target: target.map(Target::Cycles),
                        against,
                    });
                }
            }
        }
    }
    rows
}

/// Rows of first packets, and of the memory that flows take.
pub(crate) fn miss(effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (count, name) in [(10_000_u32, "10 k"), (100_000, "100 k"), (1_000_000, "1 M")] {
        if effort.quick && count > 100_000 {
            continue;
        }
        let count = count / BURST as u32 * BURST as u32;
        let flows: Vec<u32> = (0..count).collect();
        for (transport, proto) in [(Transport::Udp, "UDP"), (Transport::Tcp, "TCP SYN")] {
            if transport == Transport::Tcp && count > 100_000 {
                continue;
            }
            let template = Template::new(Way::Out, transport, crate::site::SYN);
            let frames = template.sized(64);
            let each = |site: &mut Site, what: Step| {
                for (burst, flows) in flows.chunks_exact(BURST).enumerate() {
                    what(site, &frames, flows, burst);
                }
                u64::from(count)
            };
            // Room for four times as many, so that half-open flows stay below their share.
            let fresh = || Site::new(count * 4, 0, 1);
            let nic = effort.measure_once_each(fresh, |site| each(site, Site::write_only));
            let all = effort.measure_once_each(fresh, |site| each(site, Site::forward));
            rows.push(Row {
                name: format!("first packet, {proto}, 0 to {name} flows"),
                value: Value::Rate(all.less(nic)),
                target: Some(Target::MillionsPerSecond(2.0)),
                against: "classify both ways + insert the pair + forward; memory untouched before",
            });
        }
    }
    for (count, name) in [(100_000_u32, "100 k"), (1_000_000, "1 M"), (10_000_000, "10 M")] {
        if effort.quick && count > 100_000 {
            continue;
        }
        let count = count / BURST as u32 * BURST as u32;
        let before = measure::resident();
        let mut site = Site::new(count, 0, 1);
        let flows: Vec<u32> = (0..count).collect();
        let list = flows.len() * size_of::<u32>();
        site.open(Transport::Udp, &flows);
        assert_eq!(site.worker.flows().len(), 2 * count, "every pair is in the table");
        let resident = measure::resident().saturating_sub(before).saturating_sub(list);
        rows.push(Row {
            name: format!("memory of a pair, table of {name}"),
            value: Value::Octets(site.worker.flows().memory_bytes() as f64 / f64::from(count)),
            target: Some(Target::Octets(256.0)),
            against: "records 2 x 128, index, bitmap",
        });
        rows.push(Row {
            name: format!("resident memory of the process, {name} pairs"),
            value: Value::Octets(resident as f64),
            target: (count > 9_000_000).then_some(Target::Octets(4.0 * 1024.0 * 1024.0 * 1024.0)),
            against: "all of a worker with its tables",
        });
    }
    rows
}

/// Forwards on this thread's core for a while: time per packet, without the making of frames.
fn alone(site: &mut Site, flows: &[u32], run: Duration) -> f64 {
    let template = Template::new(Way::Out, Transport::Udp, 0);
    let frames = [template.sized(64)];
    let mut picker = Picker::new(flows);
    let mut timed = |each: Step| {
        let (start, cpu, mut packets) = (Instant::now(), measure::cpu_time(), 0);
        while start.elapsed() < run {
            packets += round(site, &frames, &mut picker, each);
        }
        (measure::cpu_time() - cpu).as_nanos() as f64 / packets as f64
    };
    timed(Site::forward);
    timed(Site::forward) - timed(Site::write_only)
}

/// Rows of two workers, each on its core with its share of the flows.
pub(crate) fn scaling(effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    let run = effort.run.max(Duration::from_millis(50));
    for (count, name) in [(1_000_u32, "1 k"), (1_000_000, "1 M")] {
        if effort.quick && count > 100_000 {
            continue;
        }
        let mut ratios = Vec::new();
        let all: Vec<u32> = (0..count * 2).collect();
        let share = |id: usize| -> Vec<u32> {
            // Which worker owns a flow: as `Worker` computes it, and as a NIC would be told to steer.
            let owner = |n: &u32| ((u128::from(key(*n, Transport::Udp).owner_hash()) * 2) >> 64) as usize;
            all.iter().copied().filter(|n| owner(n) == id).collect()
        };
        let shares = [share(0), share(1)];
        for _ in 0..effort.repeats.min(5) {
            let single = {
                let mut site = Site::new(count, 0, 1);
                let flows = all.get(..count as usize).unwrap_or(&[]);
                site.open(Transport::Udp, flows);
                alone(&mut site, flows, run)
            };
            let barrier = Barrier::new(2);
            let times: Vec<f64> = thread::scope(|scope| {
                let workers = shares.iter().enumerate().map(|(id, flows)| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        measure::pin(id).expect("two cores to run on");
                        let mut site = Site::new(count * 2, id, 2);
                        site.open(Transport::Udp, flows);
                        barrier.wait();
                        alone(&mut site, flows, run)
                    })
                });
                workers.collect::<Vec<_>>().into_iter().map(|worker| worker.join().expect("a worker ended")).collect()
            });
            ratios.push(times.iter().map(|time| single / time).sum());
        }
        rows.push(Row {
            name: format!("two workers against one, {name} flows each"),
            value: Value::Times(Sample::of(ratios)),
            target: Some(Target::Times(1.9)),
            against: "VLAN -> MPLSoUDP, UDP 64 B; by CPU time, flows steered to their owners",
        });
    }
    rows
}
