//! EAL and two ports of the twin, opened as the daemon opens them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use dpu_fastpath::{
    nic::NicPorts,
    port::{DpdkPorts, Eal, EalArgs, Memory, PortMap, Wire},
    rte_flow::{Asynchronous, Style, Synchronous},
};
use fallback_sw::io::{KernelPorts, OpenPorts, Opened};
use offload_engine::RuleBackend;
use offload_rules::{forwarding::Snapshot, lower::NicProfile};

/// Memory for packets, in MiB.
const MEMORY: u32 = 512;
/// Operations of the synchronous driver before completions are pulled.
const SYNCHRONOUS_DEPTH: usize = 256;

/// What the rows share: EAL runs once in a process.
pub(crate) struct Bench {
    pub(crate) eal: Arc<Eal>,
    pub(crate) twin: PathBuf,
    pub(crate) core: usize,
    /// Whether other programs are run.
    pub(crate) peers: bool,
    nic: Option<Nic>,
}

/// The open ports of a NIC.
struct Nic {
    ports: NicPorts,
    _open: Vec<Opened>,
    _wires: [Wire; 2],
}

impl Bench {
    /// Starts EAL. An error is the reason why nothing can be measured here.
    pub(crate) fn new(core: usize, peers: bool) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("DPDK needs root".to_owned());
        }
        let twin = library()?;
        let args = EalArgs { memory: Memory::Ordinary { mib: MEMORY }, ..EalArgs::default() };
        let eal = Eal::start(&args, std::slice::from_ref(&twin)).map_err(|error| error.to_string())?;
        dpu_fastpath::port::eal::register_thread();
        Ok(Self { eal: Arc::new(eal), twin, core, peers, nic: None })
    }

    /// Profile of the NIC.
    pub(crate) fn profile() -> NicProfile {
        let mut profile = NicProfile::by_name("twin").expect("the twin has a profile");
        // Template tables match no ranges, and the site's sizes are such that none is needed.
        profile.matches.length.value = false;
        profile
    }

    fn nic(&mut self) -> &Nic {
        let eal = &self.eal;
        self.nic.get_or_insert_with(|| {
            let wires = ["a", "b"].map(|side| Wire::new(eal, side).expect("a wire"));
            let mut map = Vec::new();
            for (wire, (twin, device)) in wires.iter().zip([("net_twina", "lan"), ("net_twinb", "underlay")]) {
                eal.add_vdev(twin, &format!("port={},profile=twin", wire.ethdev())).expect("a port of the twin");
                map.push(PortMap { device: device.to_owned(), ethdev: twin.to_owned() });
            }
            let ports = NicPorts::new(true);
            let others = Box::new(KernelPorts);
            let mut open =
                DpdkPorts::new(Arc::clone(eal), &map, others).expect("both ports").prepared_by(Box::new(ports.clone()));
            let _open = open_all(&mut open, &crate::site::snapshot(1000));
            Nic { ports, _open, _wires: wires }
        })
    }

    /// The template API on the twin. The NIC is empty.
    pub(crate) fn asynchronous(&mut self) -> Asynchronous {
        let ports = &self.nic().ports;
        let sizes = ports.opened().flatten().expect("the ports are configured for templates");
        let mut backend = Asynchronous::new(ports.registry().clone(), Style::of(&Self::profile()), sizes);
        backend.flush().expect("the twin is flushed");
        backend
    }

    /// The synchronous API on the twin. The NIC is empty.
    pub(crate) fn synchronous(&mut self) -> Synchronous {
        let ports = &self.nic().ports;
        let mut backend = Synchronous::new(ports.registry().clone(), Style::of(&Self::profile()), SYNCHRONOUS_DEPTH);
        backend.flush().expect("the twin is flushed");
        backend
    }
}

/// Opens the devices of a state for one worker.
pub(crate) fn open_all(ports: &mut DpdkPorts, snapshot: &Snapshot) -> Vec<Opened> {
    let vifs = snapshot.vifs().filter(|vif| vif.kind.port().is_some());
    vifs.map(|vif| ports.open(vif, 1).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// The driver of the twin, built if it is not named.
fn library() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("NIC_TWIN") {
        return Ok(path.into());
    }
    let bench = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = bench.parent().and_then(Path::parent).ok_or("the bench is in no target directory")?;
    let target = profile.parent().ok_or("the bench is in no target directory")?;
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--package", "nic-twin", "--target-dir"]).arg(target);
    match build.status() {
        Ok(status) if status.success() => Ok(target.join("release/libnic_twin.so")),
        _ => Err("the NIC twin does not build".to_owned()),
    }
}
