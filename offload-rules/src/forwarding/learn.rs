//! Snapshots that follow from what the node has learnt: neighbours, path MTUs, MACs of devices.

use std::{net::IpAddr, sync::Arc};

use super::{Snapshot, VifKind};
use crate::{MacAddr, VifId};

impl Snapshot {
    /// With this neighbour added or changed (the version of `DependencyKind::Neighbour` grows only when the MAC differs).
    /// `None` when the vif does not exist, or the neighbour is new and the table at its limit.
    #[must_use]
    pub fn with_neighbour(&self, vif: VifId, address: IpAddr, mac: MacAddr) -> Option<Self> {
        self.vif(vif)?;
        match self.neighbours.get(vif, address) {
            Some(known) if known.mac == mac => return Some(self.clone()),
            None if self.neighbours.len() >= self.settings.max_neighbours as usize => return None,
            _ => {}
        }
        let mut next = self.derived();
        next.neighbours.insert(vif, address, mac, next.version);
        Some(next)
    }

    /// Without that neighbour.
    #[must_use]
    pub fn without_neighbour(&self, vif: VifId, address: IpAddr) -> Self {
        let mut next = self.derived();
        if next.neighbours.remove(vif, address) { next } else { self.clone() }
    }

    /// With this path MTU (octets of the outer packet) toward an outer destination; `None` removes it.
    #[must_use]
    pub fn with_path_mtu(&self, destination: IpAddr, mtu: Option<u16>) -> Self {
        if self.path_mtu(destination) == mtu {
            return self.clone();
        }
        let mut next = self.derived();
        next.path_mtus.set(destination, mtu, next.version);
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
        next.refresh_macs();
        next
    }

    /// A copy with the next version.
    pub(super) fn derived(&self) -> Self {
        Self { version: self.version + 1, ..self.clone() }
    }

    /// Gives each vif the MAC that it has in fact: its own, else that of its device, else that of its parent.
    pub(super) fn refresh_macs(&mut self) {
        let mut changed = Vec::new();
        for (id, entry) in self.tables.vifs.iter() {
            let parent = match entry.configured.kind {
                VifKind::PhysicalVlan { parent, .. } => u32::from(parent.get()),
                _ => id,
            };
            let own = entry.configured.mac.or_else(|| self.port_mac(parent));
            if entry.vif.mac != own {
                changed.push((id, own));
            }
        }
        let version = self.version;
        for (id, mac) in changed {
            if let Some(mut entry) = self.tables.vifs.get(id).cloned() {
                Arc::make_mut(&mut entry.vif).mac = mac;
                entry.version = version;
                self.tables.vifs.insert(id, entry);
            }
        }
    }

    /// MAC of a vif that has a device.
    fn port_mac(&self, vif: u32) -> Option<MacAddr> {
        let configured = &self.tables.vifs.get(vif)?.configured;
        let device = &configured.kind.port()?.device;
        let learnt = || self.device_macs.get(vif).filter(|(name, _)| **name == **device).map(|(_, mac)| *mac);
        configured.mac.or_else(learnt)
    }
}
