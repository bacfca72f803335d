//! Whether a state is consistent: every reference, range, overlap and cycle.
//!
//! The rules are written once, for one object seen in a candidate snapshot. A state is judged by applying them to all
//! objects ([`whole`]), a change by applying them to what it touched and what refers to that ([`changed`]): what refers to an
//! object is all that can become wrong when the object changes.
//!
//! Not found here: loops through route look-ups of several VRFs. The walk counts its look-ups.

mod acl;
mod chain;
mod nexthop;
mod route;
mod sa;
mod settings;
mod vif;

use std::{collections::BTreeSet, sync::Arc};

use super::{Route, Snapshot, error::Findings, tables::Tables};
use crate::{AclId, Label, NexthopId, VifId, VrfId};
use chain::Chains;

/// What a change added, replaced or removed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) settings: bool,
    /// Some SA was added, replaced or removed.
    pub(super) sas: bool,
    /// Added, replaced or removed.
    pub(super) vifs: Vec<VifId>,
    /// Parents of sub-interfaces that were added or replaced.
    pub(super) parents: Vec<VifId>,
    pub(super) vrfs: Vec<VrfId>,
    pub(super) vrfs_removed: Vec<VrfId>,
    /// Added, replaced or removed.
    pub(super) nexthops: Vec<NexthopId>,
    pub(super) labels: Vec<Label>,
    /// Added, replaced or removed.
    pub(super) acls: Vec<AclId>,
    /// Added or replaced.
    pub(super) routes: Vec<Arc<Route>>,
}

/// A candidate under judgement.
struct Check<'a> {
    tables: &'a Tables,
    found: &'a mut Findings,
    chains: Chains<'a>,
}

/// Finds everything that is wrong with a candidate.
pub(super) fn whole(candidate: &Snapshot, found: &mut Findings) {
    let tables = &candidate.tables;
    settings::check(candidate.settings(), found);
    let mut check = Check { tables, found, chains: Chains::new(tables) };
    tables.acls.values().for_each(|acl| check.acl(acl));
    tables.vrfs.values().for_each(|vrf| check.vrf(vrf.id));
    check.all_vifs();
    check.all_sas();
    check.nexthops(&tables.nexthops.values().map(|nexthop| nexthop.id).collect());
    tables.labels.values().for_each(|label| check.label(label.label.get(), label.nexthop));
    tables.routes.values().flat_map(|table| table.fib.iter()).for_each(|route| check.route(route));
}

/// Finds whether a change to a consistent state has made it inconsistent. What is found is true, but may not be all.
pub(super) fn changed(candidate: &Snapshot, touched: &Touched, found: &mut Findings) {
    let tables = &candidate.tables;
    if touched.settings {
        settings::check(candidate.settings(), found);
    }
    let mut check = Check { tables, found, chains: Chains::new(tables) };
    for acl in touched.acls.iter().filter_map(|id| tables.acls.get(id.get())) {
        check.acl(acl);
    }
    touched.vrfs.iter().for_each(|id| check.vrf(*id));
    for vrf in touched.vrfs_removed.iter().filter(|id| !tables.has_vrf(**id)) {
        let nexthops = tables.vrf_nexthops.get(u32::from(vrf.get())).copied().unwrap_or(0);
        if nexthops > 0 || tables.routes_in(*vrf) > 0 {
            check.found.push(format_args!("vrf {vrf}"), "id", "is still in use");
        }
    }
    let vrf_gone = touched.vrfs_removed.iter().any(|id| !tables.has_vrf(*id));
    let acl_gone = touched.acls.iter().any(|id| !tables.acls.contains(id.get()));
    if !touched.vifs.is_empty() || vrf_gone || acl_gone {
        check.all_vifs();
    }
    if touched.sas || !touched.vifs.is_empty() || vrf_gone {
        check.all_sas();
    }
    let affected = affected_nexthops(tables, touched);
    check.nexthops(&affected);
    for id in &affected {
        match tables.nexthop(*id) {
            Some(nexthop) => check.demands_of_users(nexthop),
            None => check.users_of_gone_nexthop(*id),
        }
    }
    for label in &touched.labels {
        if let Some(label) = tables.labels.get(label.get()) {
            check.label(label.label.get(), label.nexthop);
        }
    }
    touched.routes.iter().for_each(|route| check.route(route));
}

/// The nexthops that a change can have made wrong: those it touched, those that send on a vif that it touched, and all
/// that lead to one of them.
fn affected_nexthops(tables: &Tables, touched: &Touched) -> BTreeSet<NexthopId> {
    let mut todo: Vec<NexthopId> = touched.nexthops.clone();
    for vif in touched.vifs.iter().chain(&touched.parents) {
        let senders = tables.senders.get(u32::from(vif.get()));
        todo.extend(senders.iter().flat_map(|s| s.iter()).filter_map(|(id, ..)| NexthopId::new(id).ok()));
    }
    let mut affected = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if affected.insert(id) {
            let parents = tables.parents.get(id.get());
            todo.extend(parents.iter().flat_map(|p| p.iter()).filter_map(|(id, ..)| NexthopId::new(id).ok()));
        }
    }
    affected
}

impl Check<'_> {
    fn vrf(&mut self, id: VrfId) {
        if id.get() == 0 {
            self.found.push("vrf 0", "id", "0 is no VRF; use 1..=65535");
        }
    }

    /// Does the VRF exist?
    fn vrf_reference(&mut self, object: impl std::fmt::Display, field: &str, vrf: VrfId) {
        if !self.tables.has_vrf(vrf) {
            let problem = format_args!("vrf {vrf} does not exist; define it or name another");
            self.found.push(object, field, problem);
        }
    }
}

#[cfg(test)]
mod tests;
