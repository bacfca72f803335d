//! VRFs.

use crate::VrfId;

/// A tenant network (segment) or the underlay. Its routes are kept in the snapshot's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vrf {
    /// Number.
    pub id: VrfId,
    /// Name, for people.
    pub name: String,
}
