//! What the node has learnt: neighbours and path MTUs. Kept beside the state, so that a new state does not lose them.

use std::{net::IpAddr, sync::Arc};

use super::{addrmap::AddrMap, changes::Changes, idmap::IdMap};
use crate::{MacAddr, VifId, flow::Dependency};

/// A resolved neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC.
    pub mac: MacAddr,
    /// Slot: the number of its learned nexthop, see [`crate::NexthopId::learned`].
    pub slot: u32,
    /// Version of the snapshot in which the MAC last changed.
    pub generation: u64,
}

/// Resolved neighbours by vif and address. A clone is cheap, and a changed clone shares what did not change.
#[derive(Debug, Clone, Default)]
pub struct NeighbourTable {
    vifs: IdMap<AddrMap<Neighbour>>,
    /// Key by slot; the lowest free slot is handed out.
    slots: IdMap<(VifId, IpAddr)>,
    /// A bit for each slot in use.
    used: Arc<Vec<u64>>,
}

impl NeighbourTable {
    /// The neighbour with this address on a vif.
    #[must_use]
    pub fn get(&self, vif: VifId, address: IpAddr) -> Option<&Neighbour> {
        self.vifs.get(u32::from(vif.get()))?.get(address)
    }

    /// In order of vif and address, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = ((VifId, IpAddr), &Neighbour)> {
        self.vifs.values().flat_map(AddrMap::iter).filter_map(|(address, neighbour)| {
            // Invariant: each neighbour holds its slot.
            self.slots.get(neighbour.slot).map(|(vif, _)| ((*vif, address), neighbour))
        })
    }

    /// Number of neighbours.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// No neighbours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds or changes; keeps the slot of one that is there.
    pub(super) fn insert(&mut self, vif: VifId, address: IpAddr, mac: MacAddr, version: u64) {
        let known = self.get(vif, address).map(|n| n.slot);
        let slot = known.unwrap_or_else(|| self.take_slot());
        self.slots.insert(slot, (vif, address));
        self.vifs.update(u32::from(vif.get()), |map| {
            map.insert(address, Neighbour { mac, slot, generation: version });
        });
    }

    /// Removes; false when it is not there.
    pub(super) fn remove(&mut self, vif: VifId, address: IpAddr) -> bool {
        let Some(slot) = self.get(vif, address).map(|n| n.slot) else { return false };
        self.free_slot(slot);
        self.vifs.update(u32::from(vif.get()), |map| {
            map.remove(address);
        });
        true
    }

    /// Removes all of the vifs that `keep` refuses.
    pub(super) fn retain_vifs(&mut self, keep: impl Fn(u32) -> bool, changes: &mut Changes) {
        let gone: Vec<u32> = self.vifs.iter().map(|(vif, _)| vif).filter(|vif| !keep(*vif)).collect();
        for id in gone {
            let (Some(neighbours), Ok(vif)) = (self.vifs.remove(id), VifId::new(id)) else { continue };
            for (address, neighbour) in neighbours.iter() {
                changes.note(Dependency::Neighbour(vif, address));
                self.free_slot(neighbour.slot);
            }
        }
    }

    fn take_slot(&mut self) -> u32 {
        let used = Arc::make_mut(&mut self.used);
        let free = used.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX);
        if let Some((index, word)) = free {
            let bit = word.trailing_ones();
            *word |= 1 << bit;
            return index as u32 * 64 + bit;
        }
        used.push(1);
        (used.len() as u32 - 1) * 64
    }

    fn free_slot(&mut self, slot: u32) {
        self.slots.remove(slot);
        if let Some(word) = Arc::make_mut(&mut self.used).get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }
}

/// Path MTU (whole outer packet, octets) by outer destination, with the version of the snapshot in which it last changed.
#[derive(Debug, Clone, Default)]
pub struct PathMtuTable {
    entries: AddrMap<(u16, u64)>,
}

impl PathMtuTable {
    /// MTU and version toward an outer destination.
    #[must_use]
    pub fn get(&self, destination: IpAddr) -> Option<(u16, u64)> {
        self.entries.get(destination).copied()
    }

    /// In order of address, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, (u16, u64))> {
        self.entries.iter().map(|(address, entry)| (address, *entry))
    }

    /// Number of destinations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No destinations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn set(&mut self, destination: IpAddr, mtu: Option<u16>, version: u64) {
        match mtu {
            Some(mtu) => self.entries.insert(destination, (mtu, version)),
            None => self.entries.remove(destination),
        };
    }
}
