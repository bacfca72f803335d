//! Kernel I/O: what a node forwards between two veth devices, beside `dpdk-testpmd` on the same veth.
//!
//! One sender (raw socket, whole bursts), one forwarder, and a sink that drops: the rate is what the sink's device received.
//! Figures of one run compare with each other; those of two runs do not.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use etherparse::PacketBuilder;
use proto::v1::{self, nexthop::Kind};

use crate::lab::{End, Lab, LabError, Namespace, Node, NodeConfig, Process, Veth, find_in_path, io::RawSocket, until};

/// Frame sizes in octets, with the Ethernet header.
const SIZES: [usize; 2] = [64, 1400];
/// UDP flows that the sender rotates through.
const FLOWS: u16 = 1000;
/// Frames handed to the kernel at once.
const BURST: usize = 64;
/// The node's share of testpmd's rate that is aimed at, percent.
const TARGET: f64 = 95.0;

const NODE_IN: &str = "02:00:00:00:00:01";
const NODE_OUT: &str = "02:00:00:00:00:02";
/// An address of no host: the sink's kernel drops what is sent there at once.
const ELSEWHERE: &str = "02:00:00:00:00:99";

/// How a forwarder reads and writes its devices.
#[derive(Debug, Clone, Copy)]
struct Driver {
    name: &'static str,
    node: v1::IoDriver,
    testpmd: &'static str,
}

const DRIVERS: [Driver; 2] = [
    Driver { name: "AF_XDP", node: v1::IoDriver::AfXdp, testpmd: "net_af_xdp" },
    Driver { name: "AF_PACKET", node: v1::IoDriver::AfPacket, testpmd: "net_af_packet" },
];

/// Measures and prints the table.
///
/// # Errors
/// When the node cannot be measured. Without dpdk-testpmd its column stays empty, with the reason below the table.
pub fn run(seconds: u32) -> Result<(), LabError> {
    let duration = Duration::from_secs(u64::from(seconds.max(1)));
    let mut notes = Vec::new();
    println!(
        "kernel I/O on veth, one worker, {FLOWS} flows, {} s each, frames per second at the sink",
        duration.as_secs()
    );
    println!(
        "{:<10} {:>6} {:>12} {:>14} {:>14} {:>9}  target",
        "driver", "octets", "sent/s", "fallback-sw/s", "testpmd/s", "ratio"
    );
    for driver in DRIVERS {
        for size in SIZES {
            let ours = measure(size, duration, |bench| bench.start_node(driver))?;
            let theirs = match measure(size, duration, |bench| bench.start_testpmd(driver)) {
                Ok(rates) => Some(rates),
                Err(LabError::Interrupted) => return Err(LabError::Interrupted),
                Err(error) => {
                    // The last words say why; before them stands how testpmd is used.
                    let text = error.to_string();
                    let reason: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
                    let reason = reason.get(reason.len().saturating_sub(4)..).unwrap_or_default().join(" | ");
                    notes.push(format!("testpmd on {} SKIPPED: {reason}", driver.name));
                    None
                }
            };
            let ratio = theirs.as_ref().map(|theirs| 100.0 * ours.received / theirs.received.max(1.0));
            println!(
                "{:<10} {size:>6} {:>12.0} {:>14.0} {:>14} {:>9}  >= {TARGET:.0} %",
                driver.name,
                ours.sent,
                ours.received,
                theirs.map_or("-".to_owned(), |rates| format!("{:.0}", rates.received)),
                ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.0} %")),
            );
        }
    }
    notes.dedup();
    for note in notes {
        println!("{note}");
    }
    Ok(())
}

/// Frames per second.
struct Rates {
    sent: f64,
    received: f64,
}

/// Sender, forwarder and sink, each in a namespace.
struct Bench {
    sender: Namespace,
    forwarder: Namespace,
    sink: Namespace,
    lab: Lab,
}

/// Whatever forwards; it ends when it is dropped.
enum Forwarder {
    Node { _node: Box<Node> },
    Testpmd { _process: Process, _locks: LibxdpLocks },
}

/// libxdp makes a directory for its locks and leaves it, empty. It goes again, unless it was there before.
struct LibxdpLocks {
    was_there: bool,
}

impl LibxdpLocks {
    const DIRECTORY: &str = "/run/xdp";

    fn new() -> Self {
        Self { was_there: std::path::Path::new(Self::DIRECTORY).exists() }
    }
}

impl Drop for LibxdpLocks {
    fn drop(&mut self) {
        if !self.was_there {
            // Fails when somebody else uses it by now.
            let _ = std::fs::remove_dir(Self::DIRECTORY);
        }
    }
}

fn measure(
    size: usize,
    duration: Duration,
    start: impl FnOnce(&Bench) -> Result<Forwarder, LabError>,
) -> Result<Rates, LabError> {
    let lab = Lab::new()?;
    let bench = Bench {
        sender: lab.namespace("sender")?,
        forwarder: lab.namespace("forwarder")?,
        sink: lab.namespace("sink")?,
        lab,
    };
    for namespace in [&bench.sender, &bench.forwarder, &bench.sink] {
        namespace.silence_ipv6()?;
    }
    let end = |namespace, device, mac| End { namespace, device, mac };
    Veth::plug(end(&bench.sender, "eth0", "02:00:00:00:00:11"), end(&bench.forwarder, "in0", NODE_IN), 1500)?;
    Veth::plug(end(&bench.forwarder, "out0", NODE_OUT), end(&bench.sink, "eth0", "02:00:00:00:00:22"), 1500)?;
    let forwarder = start(&bench)?;

    let mut socket = RawSocket::open(&bench.sender, "eth0")?;
    let frames = frames(size)?;
    let received = || bench.sink.inside(|| received_packets("eth0"));
    let stop = AtomicBool::new(false);
    let rates = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0_u64;
            for burst in frames.chunks(BURST).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                sent += socket.send_burst(burst)? as u64;
            }
            Ok::<u64, LabError>(sent)
        });
        let measured = (|| {
            until("the first frames at the sink", Duration::from_secs(10), || Ok((received()? > 0).then_some(())))?;
            let (begun, before) = (Instant::now(), received()?);
            std::thread::sleep(duration);
            let after = received()?;
            Ok::<_, LabError>((after - before) as f64 / begun.elapsed().as_secs_f64())
        })();
        let begun = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        // What was sent before the first frame came through counts too little to matter over seconds.
        Ok::<_, LabError>(Rates { sent: sent as f64 / (duration + begun.elapsed()).as_secs_f64(), received: measured? })
    })?;
    drop(forwarder);
    Ok(rates)
}

impl Bench {
    fn start_node(&self, driver: Driver) -> Result<Forwarder, LabError> {
        let vif = |id: u32, device: &str, address: &str| v1::Vif {
            id,
            name: device.to_owned(),
            device: device.to_owned(),
            r#type: v1::VifType::Physical.into(),
            vrf: 1,
            addresses: vec![address.to_owned()],
            flags: Some(v1::VifFlags { policy: true, no_rpf: true, ..Default::default() }),
            io: driver.node.into(),
            ..Default::default()
        };
        let encap_data = format!("{ELSEWHERE} {NODE_OUT} 0800");
        let nexthop = |id, kind| v1::Nexthop { id, vrf: 1, kind: Some(kind), ..Default::default() };
        let route =
            |prefix: &str, nexthop| v1::Route { vrf: 1, prefix: prefix.to_owned(), nexthop, ..Default::default() };
        let state = v1::ForwardingState {
            generation: 1,
            node: "bench".to_owned(),
            vifs: vec![vif(1, "in0", "10.1.0.1/16"), vif(2, "out0", "10.2.255.1/16")],
            vrfs: vec![v1::Vrf { id: 1, name: "bench".to_owned() }],
            nexthops: vec![
                nexthop(1, Kind::Resolve(v1::ResolveNexthop { oif: 1, ..Default::default() })),
                nexthop(2, Kind::Encap(v1::EncapNexthop { oif: 2, encap_data })),
            ],
            routes: vec![route("10.1.0.0/16", 1), route("10.2.0.0/16", 2)],
            ..Default::default()
        };
        let node =
            Node::start(&self.lab, &self.forwarder, &NodeConfig { state, workers: 1, last_state: None, nic: None })?;
        Ok(Forwarder::Node { _node: Box::new(node) })
    }

    fn start_testpmd(&self, driver: Driver) -> Result<Forwarder, LabError> {
        let program = find_in_path("dpdk-testpmd").ok_or_else(|| LabError::Unavailable {
            what: "dpdk-testpmd is not installed".to_owned(),
            remedy: "run `hw-tests/setup.sh`".to_owned(),
        })?;
        let mut command = self.forwarder.command(program);
        // Nothing shared, and what files it makes all the same go with the lab.
        command.env("RUNTIME_DIRECTORY", self.lab.directory());
        command.args(["--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--no-shconf"]);
        for (index, device) in ["in0", "out0"].iter().enumerate() {
            command.arg(format!("--vdev={}{index},iface={device}", driver.testpmd));
        }
        command.args(["--", "--forward-mode=io", "--auto-start", "--total-num-mbufs=32768", "--stats-period=1"]);
        let locks = LibxdpLocks::new();
        let mut process = Process::spawn(command)?;
        until("testpmd to forward", Duration::from_secs(20), || {
            if let Some(status) = process.ended()? {
                let output = format!("{}{}", process.stdout(), process.stderr());
                return Err(LabError::Command { command: process.command().to_owned(), status, output });
            }
            Ok(process.stdout().contains("Port statistics").then_some(()))
        })?;
        Ok(Forwarder::Testpmd { _process: process, _locks: locks })
    }
}

/// UDP frames of this size from 10.1.0.2 to 10.2.0.2, one for each flow.
fn frames(size: usize) -> Result<Vec<Vec<u8>>, LabError> {
    const HEADERS: usize = 14 + 20 + 8;
    let payload = vec![0; size.saturating_sub(HEADERS)];
    let source = [2, 0, 0, 0, 0, 0x11];
    let destination = [2, 0, 0, 0, 0, 1];
    (0..FLOWS)
        .map(|flow| {
            let mut frame = Vec::with_capacity(size);
            PacketBuilder::ethernet2(source, destination)
                .ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64)
                .udp(10_000 + flow, 4000)
                .write(&mut frame, &payload)
                .map_err(|error| LabError::Violated(format!("build a frame: {error}")))?;
            Ok(frame)
        })
        .collect()
}

/// Packets that a device of the calling thread's namespace has received.
fn received_packets(device: &str) -> Result<u64, LabError> {
    // Not /proc/net, which is that of the process's first thread.
    const TABLE: &str = "/proc/thread-self/net/dev";
    let text = std::fs::read_to_string(TABLE).map_err(LabError::io(format!("read {TABLE}")))?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|columns| columns.split_whitespace().nth(1)).and_then(|packets| packets.parse().ok());
    packets.ok_or_else(|| LabError::Violated(format!("{TABLE} does not show {device}")))
}
