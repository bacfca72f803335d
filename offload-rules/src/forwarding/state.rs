//! A state as asked for, and changes to it.

use ipnet::IpNet;

use super::{Acl, MplsLabel, Nexthop, Route, Sa, Settings, Vif, Vrf};
use crate::{AclId, Label, NexthopId, SaId, VifId, VrfId};

/// A forwarding state as asked for: fields are typed, but references have not been checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Grows with every change.
    pub generation: u64,
    /// Name of the node.
    pub node: String,
    /// Limits and timers.
    pub settings: Settings,
    /// Interfaces.
    pub vifs: Vec<Vif>,
    /// VRFs.
    pub vrfs: Vec<Vrf>,
    /// Nexthops.
    pub nexthops: Vec<Nexthop>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Incoming labels.
    pub labels: Vec<MplsLabel>,
    /// Access lists.
    pub acls: Vec<Acl>,
    /// Security associations.
    pub sas: Vec<Sa>,
}

/// A change: removals first, then upserts by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// Generation that it was computed from.
    pub base_generation: u64,
    /// Generation after it.
    pub generation: u64,
    /// Vifs that go.
    pub remove_vifs: Vec<VifId>,
    /// VRFs that go.
    pub remove_vrfs: Vec<VrfId>,
    /// Nexthops that go.
    pub remove_nexthops: Vec<NexthopId>,
    /// Routes that go.
    pub remove_routes: Vec<(VrfId, IpNet)>,
    /// Labels that go.
    pub remove_labels: Vec<Label>,
    /// Access lists that go.
    pub remove_acls: Vec<AclId>,
    /// Security associations that go.
    pub remove_sas: Vec<SaId>,
    /// New limits and timers.
    pub settings: Option<Settings>,
    /// Added or replaced.
    pub vifs: Vec<Vif>,
    /// Added or replaced.
    pub vrfs: Vec<Vrf>,
    /// Added or replaced.
    pub nexthops: Vec<Nexthop>,
    /// Added or replaced.
    pub routes: Vec<Route>,
    /// Added or replaced.
    pub labels: Vec<MplsLabel>,
    /// Added or replaced.
    pub acls: Vec<Acl>,
    /// Added or replaced.
    pub sas: Vec<Sa>,
}
