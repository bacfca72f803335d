//! A NIC in front of a node, with the engine that gives it rules.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fallback_sw::{
    io::{KernelPorts, OpenPorts, Port},
    node::machine::Machine,
    packet::{Packet, parse},
    replay::{Front, NicOutcome},
};
use offload_engine::protocol::Report;
use offload_rules::{
    VifId,
    forwarding::{Snapshot, Vif},
    lower::NicProfile,
};

use crate::{
    nic::{self, NicLowering, NicPorts},
    port::{DpdkPorts, Eal, PortMap},
};
use offload_engine::{Config, Engine, EngineStatus, Mismatch, RuleBackend};

/// Rounds of requests and answers after which the engine is given up on.
const ROUNDS: u32 = 100_000;
/// How long the NIC may take for what is in flight before these are counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// The outcome of a frame that arrived.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// What software gets.
    pub(super) software: Vec<Packet>,
    /// What left by itself, with the number of the port.
    pub(super) sent: Vec<(usize, Packet)>,
}

/// The far end of a NIC's ports, which have numbers from 0.
pub(super) trait Wires {
    /// A frame arrives at a port.
    fn arrive(&mut self, at: usize, port: &mut dyn Port, frame: &[u8]) -> Result<Arrival, String>;

    /// Software sends a packet by a port; what leaves.
    fn send(&mut self, at: usize, port: &mut dyn Port, packet: Packet) -> Result<Vec<(usize, Packet)>, String>;
}

/// A NIC that is ready to be opened.
pub(super) struct Nic {
    pub(super) eal: Arc<Eal>,
    /// The devices that are its ports.
    pub(super) vifs: Vec<Arc<Vif>>,
    /// DPDK's device for each of them.
    pub(super) map: Vec<PortMap>,
    /// What they are opened with.
    pub(super) ports: NicPorts,
    pub(super) wires: Box<dyn Wires>,
    /// Age of the counters that software reads.
    pub(super) refresh: Duration,
}

/// The devices of a state that carry Ethernet.
pub(super) fn devices(snapshot: &Snapshot) -> Vec<Arc<Vif>> {
    let ethernet = |vif: &&Arc<Vif>| vif.kind.port().is_some() && !vif.kind.is_punt() && !vif.flags.raw_ip;
    snapshot.vifs().filter(ethernet).cloned().collect()
}

/// Name of a vif's device.
pub(super) fn device_of(vif: &Vif) -> String {
    vif.kind.port().map(|port| port.device.clone()).unwrap_or_default()
}

/// A device of the state on the NIC.
struct NicPort {
    vif: VifId,
    /// The device's MTU.
    mtu: u32,
    /// Octets of the largest IP packet that rules reckon with: the vif's MTU, as far as the device has it.
    takes: u32,
    port: Box<dyn Port>,
}

impl NicPort {
    /// Takes what its vif takes.
    fn follow(&mut self, snapshot: &Snapshot) {
        self.takes = snapshot.vif(self.vif).map_or(self.mtu, |vif| self.mtu.min(vif.mtu.into()));
    }
}

/// Octets of a frame behind Ethernet and its tags.
fn layer3(frame: &[u8]) -> usize {
    frame.len().saturating_sub(parse::ethernet(frame).map_or(14, |ethernet| ethernet.len))
}

/// A NIC in front of a node, with the engine that gives it rules.
pub struct NicFront {
    // `None` only between two nodes: the old engine takes its rules with it.
    engine: Option<Engine<Box<dyn RuleBackend>, NicLowering>>,
    ports: Vec<NicPort>,
    /// What opens them.
    opener: DpdkPorts,
    /// Their devices.
    vifs: Vec<Arc<Vif>>,
    wires: Box<dyn Wires>,
    nic_ports: NicPorts,
    profile: NicProfile,
    refresh: Duration,
    adopted: u64,
    reports: Vec<Report>,
    // After the ports: devices hold on to it.
    _eal: Arc<Eal>,
}

impl NicFront {
    /// Opens the ports and starts the engine.
    pub(super) fn new(snapshot: &Arc<Snapshot>, profile: NicProfile, nic: Nic) -> anyhow::Result<Self> {
        let Nic { eal, vifs, map, ports: nic_ports, wires, refresh } = nic;
        let opener =
            DpdkPorts::new(Arc::clone(&eal), &map, Box::new(KernelPorts))?.prepared_by(Box::new(nic_ports.clone()));
        let mut front = Self {
            engine: None,
            ports: Vec::new(),
            opener,
            vifs,
            wires,
            nic_ports,
            profile,
            refresh,
            adopted: 0,
            reports: Vec::new(),
            _eal: eal,
        };
        front.open()?;
        let lowering = NicLowering::new(front.profile.clone(), front.nic_ports.clone());
        front.start(lowering, snapshot)?;
        Ok(front)
    }

    fn open(&mut self) -> anyhow::Result<()> {
        for vif in &self.vifs {
            let opened = self.opener.open(vif, 1)?;
            let mtu = opened.device.mtu;
            let port = opened.ports.into_iter().next();
            self.ports.extend(port.map(|port| NicPort { vif: vif.id, mtu, takes: mtu, port }));
        }
        Ok(())
    }

    /// Stops all ports and starts them anew, as a node does whose devices have gone and come back: drivers lose their rules by that.
    /// The engine notices it when it settles next.
    ///
    /// # Errors
    /// A port does not open again.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.ports.clear();
        self.open()
    }

    /// Stands in front of another node: the rules of the one before are gone. The first one's devices, by their vif numbers, are on the
    /// NIC, and no others. The NIC is not tried again.
    ///
    /// # Errors
    /// Whatever the driver or the engine say.
    pub fn renew(&mut self, snapshot: &Arc<Snapshot>) -> anyhow::Result<()> {
        let lowering = NicLowering::new(self.profile.clone(), self.nic_ports.clone()).without_canaries();
        self.start(lowering, snapshot)
    }

    /// Closes the ports under the engine, as a node does whose devices go. Nothing comes by the NIC any more.
    pub fn close_ports(&mut self) {
        self.ports.clear();
    }

    fn start(&mut self, lowering: NicLowering, snapshot: &Arc<Snapshot>) -> anyhow::Result<()> {
        self.engine = None;
        let nic = nic::connect(&self.profile, &self.nic_ports)?;
        // Time is the captures' here, and what has left is counted in the machine's.
        let config = Config { egress_checks: 0, ..Config::default() };
        self.engine = Some(Engine::new(config, lowering, nic, Arc::clone(snapshot)));
        self.adopted = snapshot.version();
        self.ports.iter_mut().for_each(|port| port.follow(snapshot));
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

    /// What has left, by vif of the device.
    fn by_vif(&self, sent: Vec<(usize, Packet)>) -> Vec<(VifId, Packet)> {
        sent.into_iter().filter_map(|(at, packet)| Some((self.ports.get(at)?.vif, packet))).collect()
    }

    /// Exchanges messages between engine, NIC and node until none is left.
    fn quiesce(&mut self, mut machine: Option<&mut Machine>, now: u64) -> anyhow::Result<()> {
        if let Some(machine) = machine.as_deref_mut() {
            self.follow(machine);
        }
        let mut rounds = 0;
        let begun = Instant::now();
        while rounds < ROUNDS {
            if self.round(machine.as_deref_mut(), now)? {
                return Ok(());
            }
            // What is in flight takes the NIC's time.
            if self.engine.as_ref().is_some_and(|engine| engine.in_flight() > 0) && begun.elapsed() < PATIENCE {
                std::thread::yield_now();
            } else {
                rounds += 1;
            }
        }
        anyhow::bail!("the offload engine does not come to rest")
    }

    /// One round of messages between engine, NIC and node. True: none was left.
    ///
    /// # Errors
    /// There is no engine.
    pub fn poll(&mut self, machine: &mut Machine, now: u64) -> anyhow::Result<bool> {
        self.follow(machine);
        self.round(Some(machine), now)
    }

    /// Ports take what their vifs take.
    fn follow(&mut self, machine: &mut Machine) {
        self.ports.iter_mut().for_each(|port| port.follow(machine.control().snapshot()));
    }

    fn round(&mut self, mut machine: Option<&mut Machine>, now: u64) -> anyhow::Result<bool> {
        let Some(engine) = &mut self.engine else { anyhow::bail!("there is no offload engine") };
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
        if let Some(machine) = machine
            && told
        {
            machine.offload_reports(&self.reports, now);
        }
        self.reports.clear();
        Ok(!told && engine.idle())
    }
}

impl Front for NicFront {
    fn receive(&mut self, port: VifId, frame: &[u8], _now: u64) -> Result<NicOutcome, String> {
        let tag_room = if self.profile.matches.length.value { NicProfile::TAG_ROOM } else { 0 };
        let takes = |port: &NicPort| layer3(frame) <= port.takes as usize + usize::from(tag_room);
        let found = self.ports.iter_mut().enumerate().find(|(_, on)| on.vif == port && takes(on));
        let Some((at, on)) = found else {
            // Not on the NIC, or larger than its port takes: a replay has no device that would refuse it.
            return Ok(NicOutcome { software: vec![Packet::from_frame(frame)], sent: Vec::new() });
        };
        let Arrival { software, sent } =
            self.wires.arrive(at, on.port.as_mut(), frame).map_err(|why| format!("vif {port}: {why}"))?;
        Ok(NicOutcome { software, sent: self.by_vif(sent) })
    }

    fn send(&mut self, port: VifId, packet: Packet) -> Result<Vec<(VifId, Packet)>, String> {
        let Some((at, on)) = self.ports.iter_mut().enumerate().find(|(_, on)| on.vif == port) else {
            // Not on the NIC: as a port without sessions, which sends nothing in the clear that is to be sealed.
            return Ok(if packet.is_for_session() { Vec::new() } else { vec![(port, packet)] });
        };
        let sent = self.wires.send(at, on.port.as_mut(), packet)?;
        Ok(self.by_vif(sent))
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
