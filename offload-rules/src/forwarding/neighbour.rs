//! What the node has learnt: neighbours and path MTUs. Kept beside the state, so that a new state does not lose them.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{MacAddr, VifId};

/// A resolved neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC.
    pub mac: MacAddr,
    /// Slot: the number of its learned nexthop, see [`crate::NexthopId::learned`].
    pub slot: u32,
    /// Snapshot generation in which the MAC last changed.
    pub generation: u64,
}

/// Resolved neighbours by vif and address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NeighbourTable {
    /// The entries.
    pub entries: BTreeMap<(VifId, IpAddr), Neighbour>,
}

/// Path MTU (whole outer packet, octets) by outer destination, with the generation in which it last changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathMtuTable {
    /// The entries.
    pub entries: BTreeMap<IpAddr, (u16, u64)>,
}
