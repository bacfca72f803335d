//! `dpu-fastpath replay --nic PROFILE`: a replay with the NIC twin in front of the node, behind DPDK's own interface.
//!
//! Each device of the forwarding state is a port of the twin, whose wire is in memory. The engine, the rte_flow backend and the
//! driver are those of the daemon; only time and threads are missing, so the outcome is the same each time.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use fallback_sw::{
    io::{KernelPorts, OpenPorts, Port},
    node::machine::Machine,
    offload::Report,
    packet::Packet,
    replay::{self, Front, Met},
};
use offload_rules::{VifId, forwarding::Snapshot, lower::NicProfile};

use crate::{
    nic::{self, NicLowering, NicPorts},
    offload::{Backend, Config, Engine, EngineStatus, Mismatch},
    port::{DpdkPorts, Eal, EalArgs, Memory, PortMap, Wire},
};

/// File name of the twin's driver.
const TWIN: &str = "libnic_twin.so";
/// Where packages put it.
const INSTALLED: &str = "/usr/lib/sluicegate";
/// MiB for DPDK itself, and for each port with frames of up to 2,000 octets.
const MEMORY: (u32, u32) = (64, 32);
/// Rounds of requests and answers after which the engine is given up on.
const ROUNDS: u32 = 100_000;

/// What is replayed, and behind which NIC.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Put the twin of this NIC in front: mlx5-hws, mlx5-sws, bnxt, sfc, nfp, cnxk, ice, ixgbe, twin. Without it the outcome is that
    /// of `fallback-sw replay`.
    #[arg(long, value_name = "PROFILE")]
    pub nic: Option<String>,
    /// The twin's driver; by default libnic_twin.so beside this program, or in /usr/lib/sluicegate.
    #[arg(long, value_name = "LIB.so", env = "SLUICEGATE_NIC_TWIN")]
    pub twin: Option<PathBuf>,
    /// A fault of the twin, as its device arguments name it: fail_every=2, full_at=10, dead=1. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "nic")]
    pub fault: Vec<String>,
    /// As for every replay.
    #[command(flatten)]
    pub replay: replay::Args,
}

/// Replays.
///
/// # Errors
/// As for every replay; no such profile, no driver, DPDK that does not start.
pub fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let Some(name) = &args.nic else { return Ok(args.replay.run()?) };
    let profile = nic::profile(name)?;
    let driver = driver(args.twin)?;
    let fault = args.fault;
    Ok(args.replay.run_behind(|snapshot| {
        let front = TwinFront::new(snapshot, profile, &driver, &fault).map_err(|error| error.to_string())?;
        Ok(Some(Box::new(front) as Box<dyn Front>))
    })?)
}

/// The file of the twin's driver.
fn driver(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named);
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().unwrap_or(Path::new(".")).to_owned();
    let folders = [beside.clone(), beside.join(".."), PathBuf::from(INSTALLED)];
    let file = folders.iter().map(|folder| folder.join(TWIN)).find(|file| file.is_file());
    file.ok_or_else(|| {
        anyhow::anyhow!(
            "the NIC twin's driver is not there: {TWIN} is looked for in {} and {INSTALLED}; build it with \
             `cargo build -p nic-twin`, or name it by --twin",
            beside.display()
        )
    })
}

/// The counters' refresh interval in milliseconds, where the faults name one.
fn refresh_ms(faults: &[String]) -> Option<u64> {
    faults.iter().rev().find_map(|fault| fault.strip_prefix("refresh=")?.parse().ok())
}

/// A device of the state on the twin.
struct TwinPort {
    vif: VifId,
    wire: Wire,
    port: Box<dyn Port>,
}

/// The twin in front of a node, with the engine that gives it rules.
pub struct TwinFront {
    // `None` only between two nodes: the old engine takes its rules with it.
    engine: Option<Engine<Box<dyn Backend>, NicLowering>>,
    ports: Vec<TwinPort>,
    nic_ports: NicPorts,
    profile: NicProfile,
    refresh: Duration,
    adopted: u64,
    reports: Vec<Report>,
    // After the ports: devices hold on to it.
    _eal: Arc<Eal>,
}

impl TwinFront {
    /// Starts DPDK, with a port of the twin for each device of the state that carries Ethernet. Once in a process.
    ///
    /// # Errors
    /// Whatever DPDK, the driver or the engine say.
    pub fn new(
        snapshot: &Arc<Snapshot>,
        profile: NicProfile,
        driver: &Path,
        faults: &[String],
    ) -> anyhow::Result<Self> {
        let vifs: Vec<_> = snapshot
            .vifs()
            .filter(|vif| vif.kind.port().is_some() && !vif.kind.is_punt() && !vif.flags.raw_ip)
            .collect();
        let (base, each) = MEMORY;
        let ports = vifs.iter().map(|vif| each * u32::from(vif.mtu).div_ceil(2000).max(1));
        let mib = ports.fold(base, u32::saturating_add);
        let eal = EalArgs { memory: Memory::Ordinary { mib }, ..EalArgs::default() };
        let eal = Arc::new(Eal::start(&eal, &[driver.to_owned()])?);
        let mut wires = Vec::new();
        let mut map = Vec::new();
        for (index, vif) in vifs.iter().enumerate() {
            let wire = Wire::new(&eal, &format!("wire{index}"))?;
            let twin = format!("net_twin{index}");
            let mut arguments = format!("port={},profile={}", wire.ethdev(), profile.name);
            for fault in faults {
                arguments.push(',');
                arguments.push_str(fault);
            }
            eal.add_vdev(&twin, &arguments)?;
            let device = vif.kind.port().map(|port| port.device.clone()).unwrap_or_default();
            map.push(PortMap { device, ethdev: twin });
            wires.push(wire);
        }
        let nic_ports = NicPorts::new(nic::by_templates(&profile));
        let mut opener =
            DpdkPorts::new(Arc::clone(&eal), &map, Box::new(KernelPorts))?.prepared_by(Box::new(nic_ports.clone()));
        let mut ports = Vec::new();
        for (vif, wire) in vifs.iter().zip(wires) {
            let opened = opener.open(vif, 1)?;
            let port = opened.ports.into_iter().next();
            ports.extend(port.map(|port| TwinPort { vif: vif.id, wire, port }));
        }
        let refresh = refresh_ms(faults).unwrap_or(profile.limits.counter_refresh_ms.value.into());
        let mut front = Self {
            engine: None,
            ports,
            nic_ports,
            profile,
            refresh: Duration::from_millis(refresh),
            adopted: 0,
            reports: Vec::new(),
            _eal: eal,
        };
        let lowering = NicLowering::new(front.profile.clone(), front.nic_ports.clone());
        front.start(lowering, snapshot)?;
        Ok(front)
    }

    /// Stands in front of another node: the rules of the one before are gone. Its state's devices are those of the first one, or
    /// fewer, by the same vif numbers. The NIC is not tried again.
    ///
    /// # Errors
    /// Whatever the driver or the engine say.
    pub fn renew(&mut self, snapshot: &Arc<Snapshot>) -> anyhow::Result<()> {
        let lowering = NicLowering::new(self.profile.clone(), self.nic_ports.clone()).tried();
        self.start(lowering, snapshot)
    }

    fn start(&mut self, lowering: NicLowering, snapshot: &Arc<Snapshot>) -> anyhow::Result<()> {
        self.engine = None;
        let backend = nic::connect(&self.profile, &self.nic_ports)?;
        self.engine = Some(Engine::new(Config::default(), lowering, backend, Arc::clone(snapshot)));
        self.adopted = snapshot.version();
        self.reports.clear();
        self.quiesce(None, 0)
    }

    /// `host-ctl offload on|off` of this NIC and its node.
    ///
    /// # Errors
    /// The engine does not come to rest.
    pub fn set_enabled(&mut self, machine: &mut Machine, enabled: bool, now: u64) -> anyhow::Result<()> {
        if let Some(engine) = &mut self.engine {
            engine.set_enabled(enabled, now);
        }
        machine.offload_enabled(enabled);
        self.quiesce(Some(machine), now)
    }

    /// What the engine knows of itself.
    #[must_use]
    pub fn status(&self, now: u64) -> Option<EngineStatus> {
        self.engine.as_ref().map(|engine| engine.status(now))
    }

    /// Where what the NIC holds is not what it should hold.
    #[must_use]
    pub fn diff(&mut self) -> Vec<Mismatch> {
        self.engine.as_mut().map(Engine::diff).unwrap_or_default()
    }

    /// Lets engine, NIC and node talk until nobody has anything to say.
    fn quiesce(&mut self, mut machine: Option<&mut Machine>, now: u64) -> anyhow::Result<()> {
        let Some(engine) = &mut self.engine else { anyhow::bail!("there is no offload engine") };
        for _ in 0..ROUNDS {
            if let Some(machine) = machine.as_deref_mut() {
                let snapshot = machine.control().snapshot();
                if snapshot.version() != self.adopted {
                    self.adopted = snapshot.version();
                    let snapshot = Arc::clone(snapshot);
                    engine.adopt(&snapshot, now);
                }
                for request in machine.take_offload_requests() {
                    engine.request(request, now);
                }
            }
            engine.poll(now, &mut self.reports);
            let told = !self.reports.is_empty();
            if let Some(machine) = machine.as_deref_mut()
                && told
            {
                machine.offload_reports(&self.reports, now);
            }
            self.reports.clear();
            if !told && engine.idle() {
                return Ok(());
            }
        }
        anyhow::bail!("the offload engine does not come to rest")
    }
}

impl Front for TwinFront {
    fn meet(&mut self, port: VifId, frame: &[u8], _now: u64) -> Result<Met, String> {
        let mut met = Met::default();
        let Some(at) = self.ports.iter().position(|twin| twin.vif == port) else {
            // Not on the NIC.
            met.software.push(Packet::from_frame(frame));
            return Ok(met);
        };
        if let Some(twin) = self.ports.get_mut(at) {
            if !twin.wire.arrive(frame) {
                return Err(format!("a frame of {} octets does not fit the wire of vif {port}", frame.len()));
            }
            let mut received = Vec::new();
            twin.port.receive(&mut received, &mut Vec::new(), 32).map_err(|error| error.to_string())?;
            // Packets may wait in the node: not in the NIC's memory, of which there is little here.
            met.software.extend(received.into_iter().map(|packet| {
                let mut copy = Packet::from_frame(packet.data());
                copy.set_mark(packet.mark());
                copy
            }));
        }
        for twin in &self.ports {
            met.sent.extend(std::iter::from_fn(|| twin.wire.sent()).map(|packet| (twin.vif, packet)));
        }
        Ok(met)
    }

    fn settle(&mut self, machine: &mut Machine, now: u64) -> Result<(), String> {
        self.quiesce(Some(machine), now).map_err(|error| error.to_string())
    }

    fn finish(&mut self, machine: &mut Machine, now: u64) -> Result<(), String> {
        // The NIC's counters are as old as its refresh interval: the one thing here that takes real time.
        std::thread::sleep(self.refresh + self.refresh / 4);
        if let Some(engine) = &mut self.engine {
            engine.count_all(now, &mut self.reports);
        }
        machine.offload_reports(&self.reports, now);
        self.reports.clear();
        self.settle(machine, now)
    }
}
