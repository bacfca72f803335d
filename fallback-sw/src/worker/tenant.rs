//! On whose account things are kept, and neighbours by name.

use std::net::IpAddr;

use offload_rules::{VifId, VrfId, forwarding::Snapshot};

/// A neighbour as the outside names it.
pub type NeighbourKey = (VifId, IpAddr);

/// On whose account a packet waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tenant {
    /// It was received on this vif.
    Vif(VifId),
    /// It came out of a tunnel into this VRF, or the node made it there.
    Vrf(VrfId),
}

impl Tenant {
    /// Is it still configured?
    #[must_use]
    pub fn exists(self, snapshot: &Snapshot) -> bool {
        match self {
            Self::Vif(vif) => snapshot.vif(vif).is_some(),
            Self::Vrf(vrf) => snapshot.vrf(vrf).is_some(),
        }
    }
}
