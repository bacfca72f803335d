//! `dpu-fastpath run`: the node of `fallback-sw run`, with devices that DPDK drives.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::bail;
use clap::Args;
use fallback_sw::{
    io::KernelPorts,
    node::{
        daemon::{self, AeadChoice, Equipment},
        engine_host::{Offload, Start},
    },
};

use offload_rules::{forwarding::Snapshot, lower::Ability};

use crate::{
    nic::{self, Identity, NicLowering},
    port::{self, DpdkPorts, Eal, EalArgs, Memory, PortMap, eal},
};

/// How long one attempt to drive the NIC waits for its ports to open.
const PORTS: Duration = Duration::from_millis(500);

/// How the daemon runs.
#[derive(Debug, Args)]
// Its name is that of the flattened one.
#[group(skip)]
pub struct RunArgs {
    /// What every node has.
    #[command(flatten)]
    pub node: daemon::RunArgs,
    /// Arguments for DPDK.
    #[command(flatten)]
    pub dpdk: DpdkArgs,
    /// The NIC's profile, for rules in hardware: `auto` asks the driver of the first port, `none` forwards in software.
    #[arg(long, value_name = "PROFILE", default_value = "auto")]
    pub nic: String,
    /// Leave flows in software for whose packets the NIC does not check IP headers (checksum, length). Without it such a NIC forwards
    /// them, wrong headers included.
    #[arg(long)]
    pub strict_offload: bool,
}

/// Arguments for DPDK.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "DPDK")]
pub struct DpdkArgs {
    /// Vifs on DEVICE use this Ethernet device of DPDK: a PCI address, the name of a virtual device, or a representor as pf0vf3 or
    /// 0000:08:00.0/vf3. May be repeated; the kernel drives all other devices.
    #[arg(long = "port", value_name = "DEVICE=ETHDEV")]
    pub ports: Vec<PortMap>,
    /// Make a virtual device: `net_af_packet0,iface=eth0`. May be repeated.
    #[arg(long = "vdev", value_name = "NAME,ARGS")]
    pub vdevs: Vec<String>,
    /// Use this PCI device, with arguments of its driver if need be. May be repeated; without it the PCI bus is left alone.
    #[arg(long, value_name = "ADDRESS")]
    pub pci: Vec<String>,
    /// Load a driver from this library. May be repeated.
    #[arg(long = "driver", value_name = "LIB.so")]
    pub drivers: Vec<PathBuf>,
    /// Use this much ordinary memory, in MiB, instead of hugepages.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    pub no_huge: Option<u32>,
    /// A further argument for DPDK (EAL), `--eal-arg=--log-level=lib.eal:debug`. May be repeated.
    #[arg(long = "eal-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub eal_args: Vec<String>,
}

impl DpdkArgs {
    /// Nothing asks for DPDK.
    fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.vdevs.is_empty() && self.pci.is_empty() && self.drivers.is_empty()
    }

    pub(crate) fn eal(&self) -> EalArgs {
        EalArgs {
            memory: self.no_huge.map_or(Memory::Hugepages, |mib| Memory::Ordinary { mib }),
            pci: self.pci.clone(),
            vdevs: self.vdevs.clone(),
            extra: self.eal_args.clone(),
        }
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// As for every node, and what DPDK refuses.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    daemon::run(&args.node, |workers, snapshot| {
        let equipment = equip(args, workers, snapshot)?;
        Ok(Equipment { aead: AeadChoice::Auto, ..equipment })
    })
}

/// Starts DPDK, if something asks for it, and the offload engine, if there is a NIC.
fn equip(args: &RunArgs, workers: usize, snapshot: &Snapshot) -> anyhow::Result<Equipment> {
    let dpdk = &args.dpdk;
    let named = match args.nic.as_str() {
        "none" | "auto" => None,
        name => Some(nic::profile(name)?),
    };
    if dpdk.is_empty() {
        if let Some(profile) = named {
            bail!("--nic {}: no device is driven by DPDK: add --port, and --pci or --vdev", profile.name);
        }
        tracing::info!("no device for DPDK: the kernel drives all of them");
        return Ok(Equipment::default());
    }
    let eal = Arc::new(Eal::start(&dpdk.eal(), &dpdk.drivers)?);
    tracing::info!(devices = eal.ethdevs().join(" "), "DPDK started");
    let map = port::resolve(&eal, &dpdk.ports)?;
    let mut nic = if args.nic == "none" { None } else { nic::identify(&eal, &map, named)? };
    if let Some(nic) = &mut nic {
        nic.profile.strict = args.strict_offload;
    }
    let mut ports = DpdkPorts::new(Arc::clone(&eal), &map, Box::new(KernelPorts))?;
    let mut equipment = Equipment {
        on_worker_start: Some(Arc::new(|_worker| eal::register_thread())),
        keep: Box::new(eal),
        ..Equipment::default()
    };
    match nic {
        Some(nic) => {
            let about = nic.about();
            let Identity { profile, driver, .. } = &nic;
            tracing::info!(profile = profile.name, driver, layout = about.layout, "rules go to the NIC");
            for finding in &about.findings {
                tracing::warn!("{finding}");
            }
            tell_abilities(&nic);
            let nic_ports = nic.ports();
            ports = ports.prepared_by(Box::new(nic_ports.clone()));
            let profile = nic.profile;
            let start = Start {
                lowering: NicLowering::new(profile.clone(), nic_ports.clone()),
                connect: move || {
                    nic_ports.wait(PORTS);
                    nic::connect(&profile, &nic_ports)
                },
                workers,
                snapshot: Arc::new(snapshot.clone()),
                epoch: equipment.epoch,
                about,
            };
            let (offload, link) = Offload::start(start)?;
            equipment.offload = Some(link);
            equipment.attachment = Some(Box::new(offload));
        }
        None => tracing::info!("no rules for this NIC: all packets are forwarded in software"),
    }
    equipment.ports = Box::new(ports);
    Ok(equipment)
}

/// What an operator should know before flows wait for it in vain.
fn tell_abilities(nic: &Identity) {
    let abilities = nic.abilities();
    if abilities.can(Ability::Forwards) {
        tracing::info!(%abilities, "what the NIC can do");
    } else {
        tracing::warn!(%abilities, "the NIC forwards no flow: software does");
    }
}
