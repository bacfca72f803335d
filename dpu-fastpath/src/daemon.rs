//! `dpu-fastpath run`: the node of `fallback-sw run`, with devices that DPDK drives.

use std::{path::PathBuf, sync::Arc};

use anyhow::bail;
use clap::Args;
use fallback_sw::{
    io::KernelPorts,
    node::daemon::{self, Equipment},
};

use crate::port::{DpdkPorts, Eal, EalArgs, Memory, PortMap, eal};

/// How the daemon runs.
#[derive(Debug, Args)]
// Its name is that of the flattened one.
#[group(skip)]
pub struct RunArgs {
    /// What every node has.
    #[command(flatten)]
    pub node: daemon::RunArgs,
    /// What DPDK is told.
    #[command(flatten)]
    pub dpdk: DpdkArgs,
    /// The NIC's profile, for rules in hardware. Not implemented yet: only `none`.
    #[arg(long, value_name = "PROFILE", default_value = "none")]
    pub nic: String,
}

/// What DPDK is told.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "DPDK")]
pub struct DpdkArgs {
    /// Vifs on DEVICE use this Ethernet device of DPDK: a PCI address or the name of a virtual device. May be repeated; the
    /// kernel drives all other devices.
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

    fn eal(&self) -> EalArgs {
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
    if args.nic != "none" {
        bail!("rules in hardware are not implemented yet; leave out `--nic {}` to forward in software", args.nic);
    }
    daemon::run(&args.node, |_workers| equip(&args.dpdk))
}

/// Starts DPDK, if something asks for it.
fn equip(args: &DpdkArgs) -> anyhow::Result<Equipment> {
    if args.is_empty() {
        tracing::info!("no device for DPDK: the kernel drives all of them");
        return Ok(Equipment::default());
    }
    let eal = Arc::new(Eal::start(&args.eal(), &args.drivers)?);
    tracing::info!(devices = eal.ethdevs().join(" "), "DPDK started");
    let ports = DpdkPorts::new(Arc::clone(&eal), &args.ports, Box::new(KernelPorts))?;
    Ok(Equipment {
        ports: Box::new(ports),
        on_worker_start: Some(Arc::new(|_worker| eal::register_thread())),
        keep: Box::new(eal),
    })
}
