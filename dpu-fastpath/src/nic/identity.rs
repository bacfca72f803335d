//! Identification of a NIC: its profile, the layout of its rules, and what is missing for them, as its driver reports it.

use std::collections::BTreeSet;

use fallback_sw::node::engine_host::{AboutNic, AboutPort};
use offload_rules::lower::{Abilities, Layout, NicProfile, PortFacts, Role};

use super::{
    NicPorts,
    drivers::{by_templates, of_driver},
};
use crate::{
    port::{self, Eal, PortMap, eal, facts},
    rte_flow::takes_templates,
};

/// A port of the NIC that is not open yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As vifs name the device.
    pub device: String,
    /// As DPDK names it.
    pub ethdev: String,
    /// DPDK's number of it.
    pub port: u16,
    /// Its place at a switch.
    pub facts: PortFacts,
    /// There is a switch that takes rules for it.
    pub switched: bool,
}

/// The identity of a NIC.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its profile, laid out as the driver has it.
    pub profile: NicProfile,
    /// Driver of its first port.
    pub driver: &'static str,
    /// All of its ports that are used.
    pub ports: Vec<Seen>,
    /// What is missing for flows to be in the NIC, each with what to do about it.
    pub findings: Vec<String>,
}

fn about_port(seen: &Seen) -> AboutPort {
    AboutPort { device: seen.device.clone(), ethdev: seen.ethdev.clone(), facts: seen.facts }
}

impl Identity {
    /// What the ports are opened with.
    #[must_use]
    pub fn ports(&self) -> NicPorts {
        let ports = NicPorts::new(by_templates(&self.profile)).expecting(self.ports.len());
        if self.profile.layout == Layout::Hairpin {
            ports.with_hairpins(self.ports.iter().map(|seen| seen.port))
        } else {
            ports
        }
    }

    /// What it can do with flows.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        Abilities::of(&self.profile)
    }

    /// The NIC as operators see it.
    #[must_use]
    pub fn about(&self) -> AboutNic {
        let layout = match self.profile.layout {
            Layout::Hairpin => "hairpin queues",
            Layout::Switch => "switch",
            Layout::Receive => "none",
        };
        AboutNic {
            driver: self.driver.to_owned(),
            dpdk: port::dpdk_version(),
            layout: layout.to_owned(),
            engine: if by_templates(&self.profile) { "templates" } else { "rule by rule" }.to_owned(),
            ports: self.ports.iter().map(about_port).collect(),
            findings: self.findings.clone(),
            abilities: self.abilities().to_string(),
        }
    }
}

/// The driver steers in another way than the profile does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongEngine {
    /// The profile is that of hardware steering.
    #[error(
        "mlx5-hws is for hardware steering, and the driver was started without: add dv_flow_en=2 (--pci ADDRESS,dv_flow_en=2), or \
         name --nic mlx5-sws"
    )]
    Software,
    /// The profile is that of software steering.
    #[error(
        "mlx5-sws is for software steering, and the driver steers in hardware: take dv_flow_en=2 out of --pci, or name --nic mlx5-hws"
    )]
    Hardware,
}

/// Drivers of ConnectX and BlueField NICs.
fn is_mlx5(driver: &str) -> bool {
    of_driver(driver).is_some_and(|profile| profile.name.starts_with("mlx5"))
}

/// Asks the driver of these ports. `named`: the profile that an operator wants; without one it goes by the driver, and `None` is
/// returned for one that is not known. Ports are configured to be asked, and not started.
///
/// # Errors
/// [`WrongEngine`].
pub fn identify(eal: &Eal, map: &[PortMap], named: Option<NicProfile>) -> Result<Option<Identity>, WrongEngine> {
    let driver = map.first().and_then(|map| eal.driver(&map.ethdev)).unwrap_or_default();
    let mlx5 = is_mlx5(driver);
    let ports: Vec<Seen> = map
        .iter()
        .filter_map(|PortMap { device, ethdev }| {
            let port = eal.port_id(ethdev)?;
            let switched = port::transfer_proxy(port).is_some();
            Some(Seen { device: device.clone(), ethdev: ethdev.clone(), port, facts: facts(port), switched })
        })
        .collect();
    let hardware = mlx5 && ports.first().is_some_and(|seen| takes_templates(seen.port));
    let profile = match named {
        Some(profile) if mlx5 => match (by_templates(&profile), hardware) {
            (true, false) => return Err(WrongEngine::Software),
            (false, true) => return Err(WrongEngine::Hardware),
            _ => Some(profile),
        },
        Some(profile) => Some(profile),
        // dv_flow_en is not told; only with hardware steering the driver tells what its templates may have.
        None if hardware => NicProfile::of_version("mlx5-hws", eal::version()),
        None => of_driver(driver),
    };
    let Some(profile) = profile else { return Ok(None) };
    // Other drivers have no layout but the one.
    let hairpin = mlx5 && !ports.is_empty() && ports.iter().all(|seen| !seen.switched);
    let findings = if mlx5 { findings(&ports, hairpin, profile.does.wire_to_wire.value) } else { Vec::new() };
    let profile = if hairpin { profile.with_layout(Layout::Hairpin) } else { profile };
    Ok(Some(Identity { profile, driver, ports, findings }))
}

/// PCI address of the physical function.
fn address(seen: &Seen) -> &str {
    seen.ethdev.split_once('_').map_or(seen.ethdev.as_str(), |(address, _)| address)
}

/// What is missing on an mlx5 NIC, by what its driver tells of the ports.
fn findings(ports: &[Seen], hairpin: bool, wire_to_wire: bool) -> Vec<String> {
    let Some(first) = ports.first() else { return Vec::new() };
    if hairpin {
        return Vec::new();
    }
    let mut found = Vec::new();
    for seen in ports.iter().filter(|seen| !seen.switched) {
        let address = address(seen);
        found.push(format!(
            "{}: no rule leads to it or from it, because its NIC is not in switchdev mode and that of others is: devlink dev eswitch set \
             pci/{address} mode switchdev",
            seen.device
        ));
    }
    let switched = || ports.iter().filter(|seen| seen.switched);
    if !wire_to_wire && switched().all(|seen| seen.facts.role == Role::Wire) {
        let address = address(first);
        found.push(format!(
            "no flow is forwarded by the NIC: its switch does not lead from wire to wire, and no port is a virtual function's. Put tenants on \
             functions (--pci {address},representor=vf[0-3] and --port DEVICE=pf0vf0), or leave switchdev for hairpin queues (devlink \
             dev eswitch set pci/{address} mode legacy)"
        ));
    }
    let domains: BTreeSet<u16> = switched().filter_map(|seen| seen.facts.domain).collect();
    if domains.len() > 1 {
        found.push(format!(
            "flows between ports of {} switches stay in software: each uplink has its own. Put the vifs of a flow on one uplink and its \
             functions",
            domains.len()
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ethdev: &str, role: Role, domain: u16, switched: bool) -> Seen {
        let facts = PortFacts { role, domain: Some(domain) };
        Seen { device: format!("to-{ethdev}"), ethdev: ethdev.to_owned(), port: 0, facts, switched }
    }

    #[test]
    fn a_wire_and_functions_of_its_switch_lack_nothing() {
        let ports =
            [seen("0000:08:00.0", Role::Wire, 0, true), seen("0000:08:00.0_representor_vf0", Role::Function, 0, true)];
        assert_eq!(findings(&ports, false, false), Vec::<String>::new());
    }

    #[test]
    fn wires_alone_are_told_of_functions_and_of_hairpins() {
        let ports = [seen("0000:08:00.0", Role::Wire, 0, true)];
        let [found] = findings(&ports, false, false).try_into().unwrap();
        assert!(found.contains("representor=vf[0-3]") && found.contains("pci/0000:08:00.0 mode legacy"), "{found}");
        assert!(findings(&ports, false, true).is_empty(), "a switch that leads from wire to wire");
        let wires = ["0000:08:00.0", "0000:08:00.1"].map(|name| seen(name, Role::Wire, 0, false));
        assert!(findings(&wires, true, false).is_empty(), "hairpin queues do it");
    }

    #[test]
    fn a_port_without_a_switch_beside_one_with_is_told_with_the_command() {
        let ports = [
            seen("0000:08:00.0", Role::Wire, 0, true),
            seen("0000:08:00.0_representor_vf0", Role::Function, 0, true),
            seen("0000:09:00.1", Role::Wire, 1, false),
        ];
        let [found] = findings(&ports, false, false).try_into().unwrap();
        assert!(found.starts_with("to-0000:09:00.1: ") && found.contains("pci/0000:09:00.1 mode switchdev"), "{found}");
    }

    #[test]
    fn two_switches_are_told_to_be_two() {
        let ports = [
            seen("0000:08:00.0", Role::Wire, 0, true),
            seen("0000:08:00.1", Role::Wire, 1, true),
            seen("0000:08:00.1_representor_vf0", Role::Function, 1, true),
        ];
        let [found] = findings(&ports, false, false).try_into().unwrap();
        assert!(found.contains("2 switches"), "{found}");
    }

    #[test]
    fn mlx5_is_known_by_its_drivers_and_the_twin_of_it_is_none() {
        assert!(is_mlx5("mlx5_pci") && is_mlx5("mlx5_auxiliary"));
        assert!(!is_mlx5("net_twin") && !is_mlx5("net_bnxt") && !is_mlx5(""));
    }
}
