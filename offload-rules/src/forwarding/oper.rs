//! Whether interfaces are up, as the node sees it.

use super::{Snapshot, VifKind};
use crate::VifId;

impl Snapshot {
    /// With a vif's operational state; a vif is up until told otherwise. Counts as a change of the vif and of its
    /// sub-interfaces.
    #[must_use]
    pub fn with_vif_up(&self, vif: VifId, up: bool) -> Self {
        let mut next = self.derived();
        next.oper.insert(u32::from(vif.get()), (up, next.version));
        next
    }

    /// Is the vif there and up, and the device that carries its frames?
    #[must_use]
    pub fn is_up(&self, vif: VifId) -> bool {
        let up = |id: VifId| self.oper.get(u32::from(id.get())).is_none_or(|(up, _)| *up);
        self.vif(vif).is_some() && up(vif) && up(self.port_of(vif))
    }

    /// Version in which a vif last came or went.
    pub(super) fn oper_version(&self, vif: VifId) -> u64 {
        let version = |id: VifId| self.oper.get(u32::from(id.get())).map_or(0, |(_, version)| *version);
        let parent = match self.vif(vif).map(|vif| &vif.kind) {
            Some(VifKind::PhysicalVlan { parent, .. }) => version(*parent),
            _ => 0,
        };
        version(vif).max(parent)
    }
}
