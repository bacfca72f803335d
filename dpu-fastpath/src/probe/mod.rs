//! `dpu-fastpath probe`: which rules a NIC takes, asked of its driver.
//!
//! Ports open as the daemon opens them, and every rule that a profile allows - one for each shape, with the rules that it needs, and
//! the proactive ones - is validated, created and destroyed. Nothing is forwarded: rules have documentation addresses.
#![forbid(unsafe_code)]

mod ask;
mod questions;
mod report;
mod state;

use std::sync::Arc;

use crate::{
    daemon::DpdkArgs,
    nic::{self, NicLowering},
    port::{self, DpdkPorts, Eal},
};
use anyhow::{Context as _, bail};
use clap::Args;
use fallback_sw::io::{KernelPorts, OpenPorts as _};
use offload_rules::lower::Layout;

/// What is asked, and how it is reported.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ProbeArgs {
    /// Arguments for DPDK. The first port is taken for the way to the network, the others for tenants'; DEVICE is any name.
    #[command(flatten)]
    pub dpdk: DpdkArgs,
    /// The NIC's profile: `auto` asks the driver of the first port.
    #[arg(long, value_name = "PROFILE", default_value = "auto")]
    pub nic: String,
    /// Ask about rules as another profile makes them, said as this driver wants them said: what it refuses of those, and whether that
    /// profile's NIC is told from this one.
    #[arg(long, value_name = "PROFILE")]
    pub rules_of: Option<String>,
    /// Ask about rules that lead from port to port by hairpin queues. An mlx5 port says by itself whether it has a switch.
    #[arg(long)]
    pub hairpin: bool,
    /// Ask about one shape for each origin, outcome and family, as the daemon does at start: a moment.
    #[arg(long)]
    pub typical: bool,
    /// Tell every answer, and the rules; without it, those that are refused.
    #[arg(long, short)]
    pub verbose: bool,
    /// One JSON object a line: before each question, and with its answer.
    #[arg(long)]
    pub json: bool,
}

/// Asks, and prints what the driver says.
///
/// # Errors
/// No port, no profile, a driver that doesn't start; a rule that the profile allows is refused.
pub fn run(args: &ProbeArgs) -> anyhow::Result<()> {
    let dpdk = &args.dpdk;
    if dpdk.ports.is_empty() {
        bail!("no port to ask: add --port, and --pci or --vdev");
    }
    let eal = Arc::new(Eal::start(&dpdk.eal(), &dpdk.drivers)?);
    let map = port::resolve(&eal, &dpdk.ports)?;
    let named = if args.nic == "auto" { None } else { Some(nic::profile(&args.nic)?) };
    let Some(mut identity) = nic::identify(&eal, &map, named)? else {
        bail!("nothing is known of this driver: name a profile by --nic");
    };
    if args.hairpin {
        identity.profile = identity.profile.with_layout(Layout::Hairpin);
    }
    let profile = identity.profile.clone();
    let snapshot = Arc::new(state::of(&map).context("the state that is asked about")?);
    let nic_ports = identity.ports();
    let mut opener =
        DpdkPorts::new(Arc::clone(&eal), &map, Box::new(KernelPorts))?.prepared_by(Box::new(nic_ports.clone()));
    let mut open = Vec::new();
    for vif in snapshot.vifs().filter(|vif| vif.kind.port().is_some()) {
        open.push(opener.open(vif, 1)?);
    }
    let mut backend = nic::connect(&profile, &nic_ports)?.rules;
    let made_by = match &args.rules_of {
        Some(name) => nic::profile(name)?.with_layout(profile.layout),
        None => profile.clone(),
    };
    let questions = questions::all(&snapshot, &NicLowering::new(made_by, nic_ports), args.typical);
    let mut report = report::Report::new(args.json, args.verbose);
    report.begin(profile.name, &identity.about());
    for question in questions {
        report.asks(&question);
        let answer = match &question.chain {
            Ok(chain) => ask::ask(&mut *backend, chain),
            Err(reason) => ask::Answer::Unsupported(*reason),
        };
        report.answer(&question, &answer);
    }
    let refused = report.end();
    // Rules before ports, ports before their driver.
    drop(backend);
    drop(open);
    if refused > 0 {
        bail!("{refused} rules that profile '{}' allows are refused", profile.name);
    }
    Ok(())
}
