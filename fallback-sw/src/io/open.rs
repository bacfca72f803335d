//! Which driver serves a vif, and why.

use std::fmt;

use offload_rules::forwarding::{IoDriver, Vif, VifKind};

use super::{
    Port, PortError, af_packet,
    af_xdp::{self, Mode},
    device::{Device, Link},
    tap,
};

/// The driver that serves a vif, and the reason, to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// As [`Port::driver`] says it.
    pub driver: &'static str,
    /// Why this one, in words.
    pub reason: String,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.driver, self.reason)
    }
}

/// The ports of a vif.
pub struct Opened {
    /// One for each worker.
    pub ports: Vec<Box<dyn Port>>,
    /// Their driver.
    pub chosen: Chosen,
    /// The device as it was when it was opened; its MAC, MTU and index.
    pub device: Device,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("ports", &self.ports.len())
            .field("chosen", &self.chosen)
            .field("device", &self.device)
            .finish()
    }
}

/// Opens the devices of vifs and looks after them.
pub trait OpenPorts: Send {
    /// Opens the device of a vif for `workers` workers (at least one). Called again, at intervals, as long as it fails.
    ///
    /// # Errors
    /// [`PortError`]; the vif stays down.
    fn open(&mut self, vif: &Vif, workers: usize) -> Result<Opened, PortError>;

    /// Devices with a lower number are opened before those with a higher one, which work only while those do.
    fn order(&self, _device: &str) -> u8 {
        0
    }

    /// A device as it is now. Another `index` than when it was opened: it is another device by now.
    ///
    /// # Errors
    /// [`PortError`]: the ports of the device are given up.
    fn look(&mut self, device: &str) -> Result<Device, PortError>;
}

/// The devices that the kernel drives.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelPorts;

impl OpenPorts for KernelPorts {
    fn open(&mut self, vif: &Vif, workers: usize) -> Result<Opened, PortError> {
        open(vif, workers)
    }

    fn look(&mut self, device: &str) -> Result<Device, PortError> {
        Device::read(device)
    }
}

/// Kernel drivers whose other side is a network stack of this machine: it leaves checksums, segmentation and VLAN tags to an
/// offload that XDP does not see (see [`af_xdp`]).
const BESIDE_A_STACK: [&str; 6] = ["veth", "tun", "netkit", "bridge", "macvlan", "dummy"];

/// Opens the device of a vif for `workers` workers (at least one), each with a port of its own.
///
/// `Auto` is TAP for Host and Agent vifs whose device does not exist yet, AF_XDP where the driver has it and the device is not
/// beside a stack of this machine, else AF_PACKET. AF_XDP that is asked for and impossible is an error, never a silent fallback.
///
/// # Errors
/// [`PortError`] of the driver; [`PortError::Unsupported`] for a sub-interface, which has no device of its own.
pub fn open(vif: &Vif, workers: usize) -> Result<Opened, PortError> {
    let Some(port) = vif.kind.port() else {
        return Err(PortError::Unsupported {
            device: vif.name.clone(),
            driver: af_packet::DRIVER,
            why: "a VLAN sub-interface uses its parent's port: open the parent".to_owned(),
        });
    };
    let device = port.device.as_str();
    match port.driver {
        IoDriver::Tap => open_tap(vif, device, workers, "asked for".to_owned()),
        IoDriver::AfPacket => open_af_packet(device, workers, "asked for".to_owned()),
        IoDriver::AfXdp => {
            let (ports, mode) = af_xdp::open(device, workers)?;
            opened(device, ports, af_xdp::DRIVER, format!("asked for; {}", describe(mode)))
        }
        IoDriver::Auto => open_auto(vif, device, workers),
    }
}

fn open_auto(vif: &Vif, device: &str, workers: usize) -> Result<Opened, PortError> {
    let found = match Device::read(device) {
        Ok(found) => found,
        Err(PortError::NoDevice { .. }) if vif.kind.is_punt() => {
            let kind = if matches!(vif.kind, VifKind::Host { .. }) { "host" } else { "agent" };
            return open_tap(vif, device, workers, format!("{kind} vif, and the device does not exist yet"));
        }
        Err(error) => return Err(error),
    };
    if let Some(reason) = against_af_xdp(&found) {
        return open_af_packet(device, workers, reason);
    }
    match af_xdp::open(device, workers) {
        Ok((ports, mode)) => {
            let reason = format!("driver '{}' has XDP; {}", found.kernel_driver, describe(mode));
            opened(device, ports, af_xdp::DRIVER, reason)
        }
        // The device may have vanished in between: then AF_PACKET fails in the same way.
        Err(error) => open_af_packet(device, workers, format!("AF_XDP is not possible: {error}")),
    }
}

/// Why `Auto` leaves AF_XDP for this device.
fn against_af_xdp(device: &Device) -> Option<String> {
    let driver = device.kernel_driver.as_str();
    if BESIDE_A_STACK.contains(&driver) {
        return Some(format!(
            "'{driver}' is beside a network stack of this machine, which leaves checksums, segmentation and VLAN tags to \
             offloads that AF_XDP does not see"
        ));
    }
    if device.link != Link::Ethernet {
        return Some("the device does not carry Ethernet".to_owned());
    }
    if !af_xdp::ability(device).native {
        return Some(format!("driver '{driver}' has no native XDP"));
    }
    None
}

const fn describe(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native mode",
        Mode::Generic => "generic mode, the driver has no native XDP for it",
    }
}

fn open_af_packet(device: &str, workers: usize, reason: String) -> Result<Opened, PortError> {
    opened(device, af_packet::open(device, workers)?, af_packet::DRIVER, reason)
}

fn open_tap(vif: &Vif, device: &str, workers: usize, reason: String) -> Result<Opened, PortError> {
    let link = if vif.flags.raw_ip { Link::RawIp } else { Link::Ethernet };
    opened(device, tap::open(device, link, vif.mtu, workers)?, tap::DRIVER, reason)
}

fn opened(device: &str, ports: Vec<Box<dyn Port>>, driver: &'static str, reason: String) -> Result<Opened, PortError> {
    Ok(Opened { ports, chosen: Chosen { driver, reason }, device: Device::read(device)? })
}
