//! Operational state of interfaces: whether they are up, and which vif owns an address.

use std::net::IpAddr;

use super::{Snapshot, VifKind, addrmap::AddrMap, idmap::IdMap};
use crate::{DropReason, SaId, VifId, VrfId, flow::Dependency};

/// An SA that is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndedSa {
    /// Version of the SA that has ended.
    of: u64,
    /// Version of the snapshot since which it has.
    since: u64,
    reason: DropReason,
}

impl Snapshot {
    /// With a vif's operational state; a vif is up until told otherwise. Counts for its sub-interfaces, too.
    #[must_use]
    pub fn with_vif_up(&self, vif: VifId, up: bool) -> Self {
        let mut next = self.derived();
        next.oper.insert(u32::from(vif.get()), up);
        let changes = next.log.changes();
        changes.note(Dependency::Oper(vif));
        for other in self.vifs() {
            if matches!(other.kind, VifKind::PhysicalVlan { parent, .. } if parent == vif) {
                changes.note(Dependency::Oper(other.id));
            }
        }
        next
    }

    /// Is the vif there and up, and the device that carries its frames?
    #[must_use]
    pub fn is_up(&self, vif: VifId) -> bool {
        let up = |id: VifId| self.oper.get(u32::from(id.get())).is_none_or(|up| *up);
        self.vif(vif).is_some() && up(vif) && up(self.port_of(vif))
    }

    /// With an SA at its end, for this reason: its lifetime is over, its sequence numbers are used up, or it is not known which of
    /// them are. Holds until the SA is replaced.
    #[must_use]
    pub fn with_sa_ended(&self, sa: SaId, reason: DropReason) -> Self {
        let Some(of) = self.sa_version(sa) else { return self.clone() };
        if self.end_of(sa).is_some() {
            return self.clone();
        }
        let mut next = self.derived();
        next.ended.insert(sa.get(), EndedSa { of, since: next.version, reason });
        next.log.changes().note(Dependency::Sa(sa));
        next
    }

    /// Version in which an SA came to its end.
    pub(super) fn end_of(&self, sa: SaId) -> Option<u64> {
        self.ended(sa).map(|ended| ended.since)
    }

    /// Why an SA is at its end, if it is.
    #[must_use]
    pub fn why_sa_ended(&self, sa: SaId) -> Option<DropReason> {
        self.ended(sa).map(|ended| ended.reason)
    }

    fn ended(&self, sa: SaId) -> Option<EndedSa> {
        let version = self.sa_version(sa)?;
        self.ended.get(sa.get()).filter(|ended| ended.of == version).copied()
    }

    /// Version in which an SA came, configured or negotiated.
    pub(super) fn sa_version(&self, sa: SaId) -> Option<u64> {
        let configured = self.tables.sas.get(sa.get()).map(|entry| entry.version);
        configured.or_else(|| self.ike.get(sa.get()).map(|entry| entry.version))
    }

    /// Is the SA there, and not at its end?
    #[must_use]
    pub fn is_sa_usable(&self, sa: SaId) -> bool {
        self.sa(sa).is_some() && self.end_of(sa).is_none()
    }

    /// The vif of a VRF that has this address as its own.
    #[must_use]
    pub fn owner(&self, vrf: VrfId, address: IpAddr) -> Option<VifId> {
        self.owners.get(u32::from(vrf.get()))?.get(address).copied()
    }

    /// Lists the own addresses anew.
    pub(super) fn refresh_owners(&mut self) {
        let mut owners: IdMap<AddrMap<VifId>> = IdMap::default();
        for entry in self.tables.vifs.values() {
            let vif = &entry.configured;
            for net in &vif.addresses {
                owners.update(u32::from(vif.vrf.get()), |map| _ = map.insert(net.addr(), vif.id));
            }
        }
        let all = |owners: &IdMap<AddrMap<VifId>>| -> Vec<(u32, IpAddr, VifId)> {
            owners.iter().flat_map(|(vrf, map)| map.iter().map(move |(address, vif)| (vrf, address, *vif))).collect()
        };
        if all(&owners) != all(&self.owners) {
            self.owners = owners;
            self.log.changes().note(Dependency::Addresses);
        }
    }
}
