//! A consistent state with its lookup tables.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::{
    Acl, Delta, Fib, Neighbour, NeighbourTable, Nexthop, PathMtuTable, Route, Settings, State, StateErrors, Vif,
    VlanTag,
};
use crate::{
    AclId, Label, MacAddr, NexthopId, VifId, VrfId,
    flow::{DependencyKind, Family},
};

/// A validated state. Cheap to clone and to share; never changes.
///
/// Three counters of change: the state's own `generation` (from the controller), and `version`, which grows with every
/// snapshot that a node publishes, whether a new state or a learnt neighbour made it. Dependencies are stamped with
/// versions.
#[derive(Debug, Clone)]
pub struct Snapshot {
    _p: std::marker::PhantomData<HashMap<u8, Arc<(Fib, Neighbour)>>>,
}

#[allow(unused_variables, dead_code)]
impl Snapshot {
    /// A node without any configuration.
    pub fn empty() -> Self {
        todo!()
    }
    /// Validates a state. Objects that are equal to those of `self` keep the version of their last change; neighbours on vifs
    /// that stay and path MTUs are kept.
    ///
    /// # Errors
    /// Everything that is wrong with it: `self` stays as it was.
    pub fn with_state(&self, state: State) -> Result<Self, StateErrors> {
        todo!()
    }
    /// Applies a change to the state of this snapshot (cost grows with the change, not with the tables).
    ///
    /// # Errors
    /// A wrong base generation, a removal of what is not there, and everything that is wrong with the result.
    pub fn with_delta(&self, delta: Delta) -> Result<Self, StateErrors> {
        todo!()
    }
    /// With this neighbour added or changed (the version of `DependencyKind::Neighbour` grows only when the MAC differs).
    /// `None` when the table is at its limit.
    pub fn with_neighbour(&self, vif: VifId, address: IpAddr, mac: MacAddr) -> Option<Self> {
        todo!()
    }
    /// Without that neighbour.
    pub fn without_neighbour(&self, vif: VifId, address: IpAddr) -> Self {
        todo!()
    }
    /// With this path MTU (octets of the outer packet) toward an outer destination; `None` removes it.
    pub fn with_path_mtu(&self, destination: IpAddr, mtu: Option<u16>) -> Self {
        todo!()
    }
    /// With the MAC of the device under a vif that has none configured (also its sub-interfaces).
    pub fn with_device_mac(&self, vif: VifId, mac: MacAddr) -> Self {
        todo!()
    }

    /// Version of this snapshot, grows by one with each derived snapshot.
    pub fn version(&self) -> u64 {
        todo!()
    }
    /// Generation of the state.
    pub fn generation(&self) -> u64 {
        todo!()
    }
    /// Version of the last change of what a program depends on; 0 when it is not there.
    pub fn version_of(&self, what: DependencyKind) -> u64 {
        todo!()
    }

    /// Limits and timers.
    pub fn settings(&self) -> &Settings {
        todo!()
    }
    /// The state as applied (for persistence and for the API); clones everything.
    pub fn to_state(&self) -> State {
        todo!()
    }
    /// A vif.
    pub fn vif(&self, id: VifId) -> Option<&Arc<Vif>> {
        todo!()
    }
    /// All vifs by id.
    pub fn vifs(&self) -> impl Iterator<Item = &Arc<Vif>> {
        std::iter::empty()
    }
    /// The sub-interface of `parent` for frames with these tags.
    pub fn vlan_vif(&self, parent: VifId, outer: VlanTag, inner: Option<VlanTag>) -> Option<VifId> {
        todo!()
    }
    /// The vif whose device carries this vif's frames: itself or its parent.
    pub fn port_of(&self, vif: VifId) -> VifId {
        todo!()
    }
    /// All VRFs by id.
    pub fn vrfs(&self) -> impl Iterator<Item = &Arc<super::Vrf>> {
        std::iter::empty()
    }
    /// A VRF.
    pub fn vrf(&self, id: VrfId) -> Option<&Arc<super::Vrf>> {
        todo!()
    }
    /// Longest match.
    pub fn route(&self, vrf: VrfId, destination: IpAddr) -> Option<&Arc<Route>> {
        todo!()
    }
    /// Routes of a VRF and family in order of prefix.
    pub fn routes(&self, vrf: VrfId, family: Family) -> Vec<Arc<Route>> {
        todo!()
    }
    /// A nexthop.
    pub fn nexthop(&self, id: NexthopId) -> Option<&Arc<Nexthop>> {
        todo!()
    }
    /// All nexthops by id.
    pub fn nexthops(&self) -> impl Iterator<Item = &Arc<Nexthop>> {
        std::iter::empty()
    }
    /// Nexthop of an incoming label.
    pub fn label(&self, label: Label) -> Option<NexthopId> {
        todo!()
    }
    /// All labels by number.
    pub fn labels(&self) -> impl Iterator<Item = (Label, NexthopId)> {
        std::iter::empty()
    }
    /// An access list.
    pub fn acl(&self, id: AclId) -> Option<&Arc<Acl>> {
        todo!()
    }
    /// All access lists by id.
    pub fn acls(&self) -> impl Iterator<Item = &Arc<Acl>> {
        std::iter::empty()
    }
    /// A neighbour.
    pub fn neighbour(&self, vif: VifId, address: IpAddr) -> Option<&Neighbour> {
        todo!()
    }
    /// All neighbours.
    pub fn neighbours(&self) -> &NeighbourTable {
        todo!()
    }
    /// Path MTU toward an outer destination.
    pub fn path_mtu(&self, destination: IpAddr) -> Option<u16> {
        todo!()
    }
    /// All path MTUs.
    pub fn path_mtus(&self) -> &PathMtuTable {
        todo!()
    }
    /// Is this UDP packet's destination an address where MPLS over UDP is opened: a host route to a Receive nexthop
    /// that terminates it? Precomputed: called for each packet on port 6635 or 51234.
    pub fn terminates_mpls_o_udp(&self, vrf: VrfId, destination: IpAddr) -> bool {
        todo!()
    }
    /// Is the address one of the node's own tunnel sources or terminations? (A packet that claims it from outside is forged.)
    pub fn is_own_tunnel_source(&self, address: IpAddr) -> bool {
        todo!()
    }
}
