//! The software path on DPDK ports, beside DPDK's own forwarders on the same devices.
//!
//! The devices are `net_pcap` that plays a capture for ever and drops what is sent. It copies each frame that it hands out; that is
//! in every figure, and alone in that of `io`.

use std::{path::Path, sync::Arc, time::Duration};

use dpu_fastpath::port::{DpdkPorts, PortMap};
use fallback_sw::{
    io::{KernelPorts, Port},
    packet::Packet,
    worker::{Outbox, Worker, WorkerConfig},
};
use offload_rules::VifId;

use crate::{
    Rows,
    measure::{Effort, Row, Sample, Value},
    nic::{Bench, open_all},
    peers::{self, Folder},
    site::{self, Template, Transport, Way},
};

/// Flows, one frame of each in the capture.
const FLOWS: u32 = 1000;
/// Packets between two looks at the clock.
const ROUND: u64 = 64 * 1024;

/// A capture with one 64 octet frame of each flow (libpcap's classic format, Ethernet).
fn capture(path: &Path, way: Way) -> std::io::Result<()> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_ne_bytes());
    }
    let template = Template::new(way, Transport::Udp, 0);
    let frames = template.sized(64);
    let mut packet = Packet::with_capacity(2048);
    for flow in 0..FLOWS {
        frames.write(&mut packet, flow);
        let data = packet.data();
        for word in [0, 0, data.len() as u32, data.len() as u32] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(data);
    }
    std::fs::write(path, file)
}

/// A worker on its ports, run as the daemon's thread runs it.
struct Loop {
    worker: Worker,
    ports: Vec<(VifId, Box<dyn Port>)>,
    out: Outbox,
    batch: Vec<Packet>,
}

impl Loop {
    fn once(&mut self, from: usize) -> u64 {
        let Some((vif, port)) = self.ports.get_mut(from) else { return 0 };
        let count = port.receive(&mut self.batch, &mut self.out.spare, site::BURST).expect("frames are received");
        self.worker.receive(*vif, &mut self.batch, 1000, &mut self.out);
        for egress in std::mem::take(&mut self.out.dirty) {
            let mut spare = std::mem::take(&mut self.out.spare);
            let queue = self.out.queue(egress);
            queue.metas.clear();
            if let Some((_, port)) = self.ports.iter_mut().find(|(vif, _)| *vif == egress) {
                port.transmit(&mut queue.packets, &mut spare).expect("frames are sent");
            }
            self.out.spare = spare;
        }
        count as u64
    }
}

/// Rows of the slow path.
pub(crate) fn rows(bench: &mut Bench, effort: &Effort) -> Rows {
    let folder = Folder::new("slow-path").expect("a folder below /run");
    let vdevs: Vec<(String, String)> = [("lan", Way::Out), ("underlay", Way::In)]
        .into_iter()
        .zip(0..)
        .map(|((device, way), number)| {
            let path = folder.0.join(format!("{device}.pcap"));
            capture(&path, way).expect("a capture is written");
            (format!("net_pcap{number}"), format!("rx_pcap={},infinite_rx=1", path.display()))
        })
        .collect();
    let mut map = Vec::new();
    for ((name, arguments), device) in vdevs.iter().zip(["lan", "underlay"]) {
        bench.eal.add_vdev(name, arguments).expect("a port that plays a capture");
        map.push(PortMap { device: device.to_owned(), ethdev: name.clone() });
    }
    let mut open = DpdkPorts::new(Arc::clone(&bench.eal), &map, Box::new(KernelPorts)).expect("both ports");
    let snapshot = site::snapshot(FLOWS);
    let vifs: Vec<VifId> = snapshot.vifs().filter(|vif| vif.kind.port().is_some()).map(|vif| vif.id).collect();
    let opened = open_all(&mut open, &snapshot);
    let ports = vifs.into_iter().zip(opened.into_iter().flat_map(|opened| opened.ports)).collect();
    let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [1, 2], offload: false };
    let worker = Worker::new(config, snapshot).expect("memory for the flow table");
    let mut node = Loop { worker, ports, out: Outbox::default(), batch: Vec::new() };

    let mut rows = Vec::new();
    let mut row = |name: &str, sample: Sample, against: &'static str| {
        rows.push(Row { name: name.to_owned(), value: Value::PerPacket(sample), target: None, against });
        sample.median
    };
    // The first packets of all flows.
    while node.worker.counters().account.received < u64::from(4 * FLOWS) {
        node.once(0);
    }
    let mut ours = Vec::new();
    for (from, name, against) in [
        (0, "dpu-fastpath, VLAN -> MPLSoUDP", "1 k flows, 64 B, flow state and counters"),
        (1, "dpu-fastpath, MPLSoUDP -> VLAN", ""),
    ] {
        let before = node.worker.counters().account.clone();
        let sample = effort.measure(|| {
            let mut packets = 0;
            while packets < ROUND {
                packets += node.once(from);
            }
            packets
        });
        let after = &node.worker.counters().account;
        assert_eq!(after.slow_path, before.slow_path, "every packet finds its flow");
        assert_eq!(after.forwarded - before.forwarded, after.received - before.received, "everything is forwarded");
        ours.push(row(name, sample, against));
    }
    drop(node);
    let mut notes = Vec::new();
    let lines: Vec<String> = vdevs.iter().map(|(name, arguments)| format!("{name},{arguments}")).collect();
    let captures = ["lan", "underlay"].map(|device| folder.0.join(format!("{device}.pcap")));
    let run = effort.run.max(Duration::from_millis(500));
    for (peer, against, measured) in [
        ("dpdk-testpmd io", "nothing done: the driver's floor", peers::testpmd(bench, "io", &lines, run)),
        ("dpdk-testpmd macswap", "two addresses exchanged", peers::testpmd(bench, "macswap", &lines, run)),
        (
            "OVS-DPDK",
            "a rule for a port: two addresses, TTL; no tunnel, no state",
            peers::open_vswitch(bench, &captures, run),
        ),
    ] {
        match measured {
            Ok(time) => {
                let theirs = row(peer, Sample::of(vec![time]), against);
                let ratios: Vec<_> = ours.iter().map(|ours| format!("{:.2}", ours / theirs)).collect();
                notes.push(format!("dpu-fastpath : {peer} = {} times the CPU time of a packet", ratios.join(" and ")));
            }
            Err(why) => notes.push(format!("{peer} SKIPPED: {why}")),
        }
    }
    (rows, notes)
}
