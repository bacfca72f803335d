//! Which vifs are on devices of DPDK, and opening them.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Weak, atomic::AtomicBool},
};

use fallback_sw::io::{Chosen, OpenPorts, Opened, PortError, device::Device};
use offload_rules::forwarding::Vif;

use super::{
    device::{Ethdev, Wanted},
    eal::Eal,
    manager::{self, SwitchManagers, Use},
    names::{self, Unresolved},
    prepare::Prepare,
    queue,
};

/// A vif's device, and the device of DPDK that serves it: `eth0=net_af_packet0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMap {
    /// As the vif names it.
    pub device: String,
    /// As DPDK names it: a PCI address, or the name of a virtual device. A representor may also be named `pf0vf3` or `0000:08:00.0/vf3`.
    pub ethdev: String,
}

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((device, ethdev)) if !device.is_empty() && !ethdev.is_empty() => {
                Ok(Self { device: device.to_owned(), ethdev: ethdev.to_owned() })
            }
            _ => Err("give a vif's device and an Ethernet device of DPDK: eth0=net_af_packet0".to_owned()),
        }
    }
}

/// A device that is mapped, and not there or mapped twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownEthdev {
    /// DPDK has no device of this name.
    #[error("DPDK has no Ethernet device '{ethdev}' for '{device}'; it has {}{}", known(.there), advice(.ethdev))]
    Missing {
        /// What was asked for.
        ethdev: String,
        /// For which vifs.
        device: String,
        /// What there is.
        there: Vec<String>,
    },
    /// Several NICs have a port that is called so.
    #[error("'{ethdev}' for '{device}' may be {}: say which", .there.join(" or "))]
    Ambiguous {
        /// What was asked for.
        ethdev: String,
        /// For which vifs.
        device: String,
        /// What it may be.
        there: Vec<String>,
    },
    /// A device can serve one vif.
    #[error("'{name}' is mapped twice: give each device one Ethernet device of DPDK")]
    Twice {
        /// A vif's device, or an Ethernet device.
        name: String,
    },
}

fn known(names: &[String]) -> String {
    if names.is_empty() { "none: add one by --vdev or --pci".to_owned() } else { names.join(", ") }
}

/// What makes representors of a NIC's functions.
fn advice(ethdev: &str) -> String {
    let Some(address) = names::function_of(ethdev) else { return String::new() };
    let address = address.unwrap_or("ADDRESS");
    format!(
        ". For representors make virtual functions (echo 4 > /sys/bus/pci/devices/{address}/sriov_numvfs), switch the NIC over (devlink dev \
         eswitch set pci/{address} mode switchdev), and name them: --pci {address},representor=vf[0-3]"
    )
}

/// The map by DPDK's own names.
///
/// # Errors
/// [`UnknownEthdev`]: no device has such a name, or several have.
pub fn resolve(eal: &Eal, map: &[PortMap]) -> Result<Vec<PortMap>, UnknownEthdev> {
    let there = eal.ethdevs();
    map.iter()
        .map(|PortMap { device, ethdev }| {
            let (device, asked) = (device.clone(), ethdev.clone());
            match names::resolve(ethdev, &there) {
                Ok(ethdev) => Ok(PortMap { device, ethdev }),
                Err(Unresolved::Missing) => Err(UnknownEthdev::Missing { ethdev: asked, device, there: there.clone() }),
                Err(Unresolved::Ambiguous(there)) => Err(UnknownEthdev::Ambiguous { ethdev: asked, device, there }),
            }
        })
        .collect()
}

/// Opens mapped devices with DPDK, and leaves the others to another.
pub struct DpdkPorts {
    eal: Arc<Eal>,
    /// By the vif's device.
    mapped: BTreeMap<String, Mapped>,
    managers: SwitchManagers,
    others: Box<dyn OpenPorts>,
    prepare: Option<Box<dyn Prepare>>,
}

struct Mapped {
    ethdev: String,
    /// The device is still in use.
    used: Arc<AtomicBool>,
    open: Weak<Ethdev>,
    /// The kernel's device that the driver is on, by its name when it was opened first.
    below: Option<String>,
    /// It has been open before.
    known: bool,
}

impl Mapped {
    /// The error of a device that has been open and cannot be opened again: where its driver stays on what is gone, only another
    /// start of the node helps.
    fn replaced(&self, error: PortError) -> PortError {
        match error {
            PortError::NoDevice { device } if self.known => PortError::Replaced { device },
            other => other,
        }
    }

    /// While the kernel's device is away there is nothing to open.
    fn is_there(&self) -> Result<(), PortError> {
        self.below.as_deref().map_or(Ok(()), |below| Device::read(below).map(drop))
    }
}

impl DpdkPorts {
    /// Opens by DPDK what `map` says.
    ///
    /// # Errors
    /// [`UnknownEthdev`].
    pub fn new(eal: Arc<Eal>, map: &[PortMap], others: Box<dyn OpenPorts>) -> Result<Self, UnknownEthdev> {
        let mut mapped = BTreeMap::<String, Mapped>::new();
        for PortMap { device, ethdev } in &resolve(&eal, map)? {
            if mapped.values().any(|other| other.ethdev == *ethdev) {
                return Err(UnknownEthdev::Twice { name: ethdev.clone() });
            }
            let entry =
                Mapped { ethdev: ethdev.clone(), used: Arc::default(), open: Weak::new(), below: None, known: false };
            if mapped.insert(device.clone(), entry).is_some() {
                return Err(UnknownEthdev::Twice { name: device.clone() });
            }
        }
        Ok(Self { eal, mapped, managers: SwitchManagers::default(), others, prepare: None })
    }

    /// Registers hooks into the opening of each device.
    #[must_use]
    pub fn prepared_by(mut self, prepare: Box<dyn Prepare>) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// The device that manages the switch of a vif's device, where that is another; with its use, where vifs may be on it.
    fn manager(&self, device: &str) -> Option<(String, Option<Use>)> {
        let name = manager::of(&self.eal, self.eal.port_id(&self.mapped.get(device)?.ethdev)?)?;
        let known = self.mapped.values().find(|mapped| mapped.ethdev == name);
        let known = known.map(|mapped| Use { used: Arc::clone(&mapped.used), open: mapped.open.clone() });
        Some((name, known))
    }
}

impl OpenPorts for DpdkPorts {
    fn open(&mut self, vif: &Vif, workers: usize) -> Result<Opened, PortError> {
        let device = vif.kind.port().map(|port| port.device.as_str());
        let manager = device.and_then(|device| self.manager(device));
        let Some(mapped) = device.and_then(|device| self.mapped.get_mut(device)) else {
            return self.others.open(vif, workers);
        };
        if vif.flags.raw_ip {
            return Err(PortError::Unsupported {
                device: mapped.ethdev.clone(),
                driver: "DPDK",
                why: "its frames have an Ethernet header: take raw_ip off the vif".to_owned(),
            });
        }
        mapped.is_there()?;
        let manager = match &manager {
            Some((name, known)) => {
                let wanted = Wanted { name, mtu: vif.mtu, workers: 1, below: None, manager: None };
                let (device, prepare) = (mapped.ethdev.as_str(), self.prepare.as_deref());
                Some(self.managers.of(&self.eal, device, &wanted, known.clone(), prepare)?)
            }
            None => None,
        };
        let below = mapped.below.as_deref();
        let wanted = Wanted { name: &mapped.ethdev, mtu: vif.mtu, workers, below, manager };
        let ethdev = Ethdev::start(&self.eal, &wanted, &mapped.used, self.prepare.as_deref());
        self.managers.start_attempted(&mapped.ethdev, ethdev.as_ref().map(drop));
        let ethdev = Arc::new(ethdev.map_err(|error| mapped.replaced(error))?);
        let found = ethdev.look().map_err(|error| mapped.replaced(error))?;
        if mapped.known
            && let Some(prepare) = &self.prepare
        {
            // It was stopped in between, be it to take larger packets.
            prepare.stopped();
        }
        (mapped.below, mapped.known) = (ethdev.below().map(str::to_owned), true);
        mapped.open = Arc::downgrade(&ethdev);
        if let Some(prepare) = &self.prepare {
            prepare.started(vif.id, ethdev.port_id(), ethdev.rx_queues());
        }
        let reason = format!(
            "DPDK port {}, {} receive and {} transmit queues",
            ethdev.port_id(),
            ethdev.rx_queues(),
            ethdev.tx_queues()
        );
        let chosen = Chosen { driver: ethdev.driver(), reason };
        let sessions = self.prepare.as_ref().and_then(|prepare| prepare.sessions());
        Ok(Opened { ports: queue::ports(&ethdev, workers, sessions.as_ref()), chosen, device: found })
    }

    fn order(&self, device: &str) -> u8 {
        u8::from(self.manager(device).is_some())
    }

    fn look(&mut self, device: &str) -> Result<Device, PortError> {
        match self.mapped.get(device) {
            Some(mapped) => {
                let gone = || PortError::NoDevice { device: mapped.ethdev.clone() };
                let found = mapped.open.upgrade().ok_or_else(gone).and_then(|open| {
                    self.managers.check_may_run(&open)?;
                    open.look()
                });
                if found.is_err()
                    && let Some(prepare) = &self.prepare
                {
                    prepare.stopped();
                }
                found
            }
            None => self.others.look(device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_has_two_names() {
        let map = PortMap { device: "eth0".to_owned(), ethdev: "0000:01:00.0".to_owned() };
        assert_eq!("eth0=0000:01:00.0".parse(), Ok(map));
        for text in ["eth0", "eth0=", "=net_null0", ""] {
            assert!(text.parse::<PortMap>().unwrap_err().contains("eth0=net_af_packet0"), "{text}");
        }
    }

    #[test]
    fn a_device_that_is_missing_is_told_with_those_that_are_there() {
        let there = vec!["net_ring0".to_owned(), "net_null0".to_owned()];
        let missing = UnknownEthdev::Missing { ethdev: "eth9".to_owned(), device: "wan".to_owned(), there };
        assert_eq!(missing.to_string(), "DPDK has no Ethernet device 'eth9' for 'wan'; it has net_ring0, net_null0");
        let missing = UnknownEthdev::Missing { ethdev: "eth9".to_owned(), device: "wan".to_owned(), there: vec![] };
        assert!(missing.to_string().ends_with("none: add one by --vdev or --pci"));
    }
}
