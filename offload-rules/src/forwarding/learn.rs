//! Snapshots that follow from what the node has learnt: neighbours, path MTUs, MACs and MTUs of devices.

use std::{net::IpAddr, sync::Arc};

use super::{Snapshot, VifKind};
use crate::{MacAddr, VifId, flow::Dependency};

impl Snapshot {
    /// With these neighbours added, changed, or (`None`) removed, in order; those of vifs that are not there are left out. How many there
    /// may be is for the caller to see to.
    #[must_use]
    pub fn with_neighbours(&self, changes: &[((VifId, IpAddr), Option<MacAddr>)]) -> Self {
        let mut next = self.derived();
        for &((vif, address), mac) in changes {
            let Some(mac) = mac else {
                next.take_neighbour(vif, address);
                continue;
            };
            let known = next.neighbours.get(vif, address).map(|known| known.mac);
            if known != Some(mac) && self.vif(vif).is_some() {
                next.put_neighbour(vif, address, mac);
            }
        }
        next
    }

    /// With this path MTU (octets of the outer packet) toward an outer destination; `None` removes it.
    #[must_use]
    pub fn with_path_mtu(&self, destination: IpAddr, mtu: Option<u16>) -> Self {
        if self.path_mtu(destination) == mtu {
            return self.clone();
        }
        let mut next = self.derived();
        next.path_mtus.set(destination, mtu, next.version);
        next.log.changes().note(Dependency::PathMtu(destination));
        next
    }

    /// With the MAC of the device under a vif that has none configured (also its sub-interfaces). Kept for as long as the
    /// vif has that device.
    #[must_use]
    pub fn with_device_mac(&self, vif: VifId, mac: MacAddr) -> Self {
        let port = self.port_of(vif);
        let Some(device) = self.vif(port).and_then(|vif| vif.kind.port()).map(|port| port.device.as_str()) else {
            return self.clone();
        };
        let known = self.device_macs.get(u32::from(port.get()));
        if known.is_some_and(|(name, old)| **name == *device && *old == mac) {
            return self.clone();
        }
        let mut next = self.derived();
        next.device_macs.insert(u32::from(port.get()), (device.into(), mac));
        next.refresh_devices();
        next
    }

    /// With the MTU of the device under a vif, in octets of an IP packet: the vif, and each sub-interface, takes no more than that
    /// (RFC 1191 §4: the MTU of the next hop is that of the link). Kept for as long as the vif has that device.
    #[must_use]
    pub fn with_device_mtu(&self, vif: VifId, mtu: u32) -> Self {
        let port = self.port_of(vif);
        let Some(device) = self.vif(port).and_then(|vif| vif.kind.port()).map(|port| port.device.as_str()) else {
            return self.clone();
        };
        if self.device_mtu(port) == Some(mtu) {
            return self.clone();
        }
        let mut next = self.derived();
        next.device_mtus.insert(u32::from(port.get()), (device.into(), mtu));
        // How large packets may be that arrive there, whatever the vifs take.
        next.log.changes().note_ends();
        next.refresh_devices();
        next
    }

    /// MTU of the device that carries a vif's frames, as far as it is known.
    #[must_use]
    pub fn device_mtu(&self, vif: VifId) -> Option<u32> {
        self.learnt_mtu(u32::from(self.port_of(vif).get()))
    }

    /// The MTU that a vif is configured with; what is in force is [`Vif::mtu`](super::Vif::mtu), which the device may make smaller.
    #[must_use]
    pub fn configured_mtu(&self, vif: VifId) -> Option<u16> {
        self.tables.vifs.get(u32::from(vif.get())).map(|entry| entry.configured.mtu)
    }

    /// A copy with the next version, which has changed nothing so far: whoever changes it notes in its log what.
    pub(super) fn derived(&self) -> Self {
        Self { version: self.version + 1, log: self.log.next(), ..self.clone() }
    }

    fn put_neighbour(&mut self, vif: VifId, address: IpAddr, mac: MacAddr) {
        self.neighbours.insert(vif, address, mac, self.version);
        self.log.changes().note(Dependency::Neighbour(vif, address));
    }

    fn take_neighbour(&mut self, vif: VifId, address: IpAddr) {
        if self.neighbours.remove(vif, address) {
            self.log.changes().note(Dependency::Neighbour(vif, address));
        }
    }

    /// Gives each vif what it has in fact: its own MAC, else that of its device, else that of its parent; and no larger an MTU than
    /// the device that carries its frames.
    pub(super) fn refresh_devices(&mut self) {
        let mut changed = Vec::new();
        for (id, entry) in self.tables.vifs.iter() {
            let port = match entry.configured.kind {
                VifKind::PhysicalVlan { parent, .. } => u32::from(parent.get()),
                _ => id,
            };
            let mac = entry.configured.mac.or_else(|| self.port_mac(port));
            let most = self.learnt_mtu(port).and_then(|mtu| u16::try_from(mtu).ok());
            let mtu = entry.configured.mtu.min(most.unwrap_or(u16::MAX));
            if (entry.vif.mac, entry.vif.mtu) != (mac, mtu) {
                changed.push((id, mac, mtu));
            }
        }
        for (id, mac, mtu) in changed {
            if let Some(mut entry) = self.tables.vifs.get(id).cloned() {
                let vif = Arc::make_mut(&mut entry.vif);
                (vif.mac, vif.mtu) = (mac, mtu);
                self.log.changes().note(Dependency::Vif(vif.id));
                self.tables.vifs.insert(id, entry);
            }
        }
    }

    fn learnt_mtu(&self, port: u32) -> Option<u32> {
        let device = &self.tables.vifs.get(port)?.configured.kind.port()?.device;
        self.device_mtus.get(port).filter(|(name, _)| **name == **device).map(|(_, mtu)| *mtu)
    }

    /// MAC of a vif that has a device.
    fn port_mac(&self, vif: u32) -> Option<MacAddr> {
        let configured = &self.tables.vifs.get(vif)?.configured;
        let device = &configured.kind.port()?.device;
        let learnt = || self.device_macs.get(vif).filter(|(name, _)| **name == **device).map(|(_, mac)| *mac);
        configured.mac.or_else(learnt)
    }
}
