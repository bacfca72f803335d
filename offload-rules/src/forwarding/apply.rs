//! From one snapshot to the next: a whole state, or a change to it.

use std::{collections::HashSet, fmt::Display, sync::Arc};

use super::{
    Delta, Snapshot, State, StateErrors, VifKind,
    changes::Changes,
    error::Findings,
    tables::{Tables, VifEntry},
    validate::{self, Touched},
};
use crate::flow::Dependency;

const TWICE: &str = "is given twice; keep one of them";

impl Snapshot {
    /// Validates a state. What is equal to what `self` has counts as unchanged; neighbours on vifs that stay and path MTUs are kept. The same state again gives the same snapshot.
    ///
    /// # Errors
    /// A generation that is lower than the one in force (except 0), or the same with another content, and everything
    /// that is wrong with the state: `self` stays as it was.
    pub fn with_state(&self, state: State) -> Result<Self, StateErrors> {
        let mut found = Findings::default();
        if state.generation != 0 && state.generation < self.generation {
            let problem = format!(
                "{} is older than {}, which is in force; send a newer one, or 0 to start again",
                state.generation, self.generation
            );
            found.push("state", "generation", problem);
        }
        let mut next = self.candidate(state, &mut found);
        let mut changes = Changes::between(self, &next);
        changes.settle_routes();
        let changed = !changes.is_empty() || self.node != next.node;
        if next.generation != 0 && next.generation == self.generation && changed {
            let problem =
                format!("{} is in force with another content; give each content a newer generation", self.generation);
            found.push("state", "generation", problem);
        }
        validate::whole(&next, &mut found);
        found.into_result()?;
        if !changed && next.generation == self.generation {
            return Ok(self.clone());
        }
        let vifs = changes.touches(|object| matches!(object, Dependency::Vif(_)));
        *next.log.changes() = changes;
        if vifs {
            next.follow_vifs();
        }
        Ok(next)
    }

    /// The tables of a state. What is equal to what is in force is shared with it.
    fn candidate(&self, state: State, found: &mut Findings) -> Self {
        let mut next = Self { generation: state.generation, tables: Tables::default(), ..self.derived() };
        let (old, tables) = (&self.tables, &mut next.tables);
        // What differs is found by comparing: here everything is put into empty tables.
        let unused = &mut Changes::default();
        if *self.node != *state.node {
            next.node = state.node.into();
        }
        if *self.settings != state.settings {
            next.settings = Arc::new(state.settings);
        }
        for acl in state.acls {
            if tables.acls.contains(acl.id.get()) {
                found.push(format_args!("acl {}", acl.id), "id", TWICE);
                continue;
            }
            let same = old.acls.get(acl.id.get()).filter(|same| ***same == acl);
            tables.put_acl(same.cloned().unwrap_or_else(|| Arc::new(acl)), unused);
        }
        for sa in state.sas {
            if tables.sas.contains(sa.id.get()) {
                found.push(format_args!("sa {}", sa.id), "id", TWICE);
                continue;
            }
            match old.sas.get(sa.id.get()).filter(|entry| *entry.object == sa) {
                Some(same) => tables.put_sa(Arc::clone(&same.object), same.version, unused),
                None => tables.put_sa(Arc::new(sa), next.version, unused),
            }
        }
        for vif in state.vifs {
            let id = u32::from(vif.id.get());
            if tables.vifs.contains(id) {
                found.push(format_args!("vif {id}"), "id", TWICE);
                continue;
            }
            let same = old.vifs.get(id).filter(|entry| *entry.configured == vif);
            tables.put_vif(same.cloned().unwrap_or_else(|| VifEntry::new(vif)), unused);
        }
        for vrf in state.vrfs {
            let id = u32::from(vrf.id.get());
            if tables.vrfs.contains(id) {
                found.push(format_args!("vrf {id}"), "id", TWICE);
                continue;
            }
            let same = old.vrfs.get(id).filter(|same| ***same == vrf);
            tables.put_vrf(same.cloned().unwrap_or_else(|| Arc::new(vrf)), unused);
        }
        for nexthop in state.nexthops {
            let id = nexthop.id.get();
            if tables.nexthops.contains(id) {
                found.push(format_args!("nexthop {id}"), "id", TWICE);
                continue;
            }
            // Before the routes: no route can have to be looked at again.
            let same = old.nexthops.get(id).filter(|same| ***same == nexthop);
            tables.put_nexthop(same.cloned().unwrap_or_else(|| Arc::new(nexthop)), unused);
        }
        for label in state.labels {
            if tables.labels.contains(label.label.get()) {
                found.push(format_args!("label {}", label.label), "label", TWICE);
                continue;
            }
            tables.put_label(label, unused);
        }
        for route in state.routes {
            let id = u32::from(route.vrf.get());
            if tables.routes.get(id).is_some_and(|table| table.fib.get(route.prefix).is_some()) {
                found.push(format_args!("route vrf {} {}", route.vrf, route.prefix), "prefix", TWICE);
                continue;
            }
            let same = old.routes.get(id).and_then(|table| table.fib.get(route.prefix)).filter(|same| ***same == route);
            tables.put_route(same.cloned().unwrap_or_else(|| Arc::new(route)), unused);
        }
        next
    }

    /// Applies a change to the state of this snapshot. The cost grows with the change and with what refers to what it
    /// changes, not with the tables. Three exceptions: a change of vifs looks at all vifs again, a nexthop with routes that
    /// starts or stops opening MPLS over UDP looks at all routes, and a refused change is validated whole for its errors.
    /// What is removed and put back counts as changed.
    ///
    /// # Errors
    /// A wrong base generation, a removal of what is not there, and everything that is wrong with the result.
    pub fn with_delta(&self, delta: Delta) -> Result<Self, StateErrors> {
        // Against another base, nothing else that could be said would be true.
        self.check_base(&delta)?;
        let mut found = Findings::default();
        let mut next = self.derived();
        next.generation = delta.generation;
        let mut touched = Touched::default();
        let mut refresh = next.remove_all(&delta, &mut touched, &mut found);
        refresh |= next.put_all(delta, &mut touched, &mut found);
        if refresh {
            next.tables.refresh_terminations(next.log.changes());
        }
        if found.is_empty() {
            validate::changed(&next, &touched, &mut found);
            if found.is_empty() {
                next.settle(&touched);
                return Ok(next);
            }
            found = Findings::default();
        }
        validate::whole(&next, &mut found);
        found.into_result()?;
        next.settle(&touched);
        Ok(next)
    }

    fn check_base(&self, delta: &Delta) -> Result<(), StateErrors> {
        let mut found = Findings::default();
        if delta.base_generation != self.generation {
            let problem = format!(
                "the change was computed from {}, but {} is in force; compute it again from that",
                delta.base_generation, self.generation
            );
            found.push("delta", "base_generation", problem);
        }
        if delta.generation <= delta.base_generation {
            let problem =
                format!("{} is not newer than {}; use a larger number", delta.generation, delta.base_generation);
            found.push("delta", "generation", problem);
        }
        found.into_result()
    }

    /// Brings what is kept beside the state in line with it.
    fn settle(&mut self, touched: &Touched) {
        self.log.changes().settle_routes();
        self.tables.drop_route_tables(&touched.vrfs_removed);
        if !touched.vifs.is_empty() {
            self.follow_vifs();
        }
    }

    /// Brings what goes with vifs in line with them.
    fn follow_vifs(&mut self) {
        let vifs = self.tables.vifs.clone();
        self.neighbours.retain_vifs(|vif| vifs.contains(vif), self.log.changes());
        self.dead_gateways.retain_vifs(|vif| vifs.contains(vif), self.log.changes());
        self.refresh_devices();
        self.refresh_ike();
        self.refresh_owners();
    }

    /// Removes; true when terminations have to be found anew.
    fn remove_all(&mut self, delta: &Delta, touched: &mut Touched, found: &mut Findings) -> bool {
        fn missing(found: &mut Findings, object: impl Display, list: &str) {
            found.push(object, list, "cannot be removed, it is not there; leave it out");
        }
        let (changes, tables) = (self.log.changes(), &mut self.tables);
        let mut refresh = false;
        // Routes before nexthops, so that those find themselves unused.
        for (vrf, prefix) in &delta.remove_routes {
            let exact = prefix.addr() == prefix.network();
            if !exact || tables.take_route(*vrf, *prefix, changes).is_none() {
                missing(found, format_args!("route vrf {vrf} {prefix}"), "remove_routes");
            }
        }
        for label in &delta.remove_labels {
            if tables.take_label(*label, changes).is_none() {
                missing(found, format_args!("label {label}"), "remove_labels");
            }
        }
        for id in &delta.remove_vifs {
            match tables.take_vif(*id, changes) {
                Some(_) => touched.vifs.push(*id),
                None => missing(found, format_args!("vif {id}"), "remove_vifs"),
            }
        }
        for id in &delta.remove_nexthops {
            match tables.take_nexthop(*id, changes) {
                Some(opened) => {
                    touched.nexthops.push(*id);
                    refresh |= opened;
                }
                None => missing(found, format_args!("nexthop {id}"), "remove_nexthops"),
            }
        }
        for id in &delta.remove_vrfs {
            match tables.take_vrf(*id, changes) {
                Some(_) => touched.vrfs_removed.push(*id),
                None => missing(found, format_args!("vrf {id}"), "remove_vrfs"),
            }
        }
        for id in &delta.remove_sas {
            match tables.take_sa(*id, changes) {
                Some(_) => touched.sas = true,
                None => missing(found, format_args!("sa {id}"), "remove_sas"),
            }
        }
        for id in &delta.remove_acls {
            match tables.take_acl(*id, changes) {
                Some(_) => touched.acls.push(*id),
                None => missing(found, format_args!("acl {id}"), "remove_acls"),
            }
        }
        refresh
    }

    /// Adds and replaces; true when terminations have to be found anew. What is equal to what is there is left alone.
    fn put_all(&mut self, delta: Delta, touched: &mut Touched, found: &mut Findings) -> bool {
        let (version, changes, tables) = (self.version, self.log.changes(), &mut self.tables);
        let mut refresh = false;
        if let Some(settings) = delta.settings.filter(|settings| *self.settings != *settings) {
            self.settings = Arc::new(settings);
            changes.note_everything();
            touched.settings = true;
        }
        let mut seen = HashSet::new();
        for acl in delta.acls {
            if !seen.insert(acl.id.get()) {
                found.push(format_args!("acl {}", acl.id), "id", TWICE);
            } else if tables.acls.get(acl.id.get()).is_none_or(|old| **old != acl) {
                touched.acls.push(acl.id);
                tables.put_acl(Arc::new(acl), changes);
            }
        }
        seen.clear();
        for sa in delta.sas {
            if !seen.insert(sa.id.get()) {
                found.push(format_args!("sa {}", sa.id), "id", TWICE);
            } else if tables.sas.get(sa.id.get()).is_none_or(|entry| *entry.object != sa) {
                touched.sas = true;
                tables.put_sa(Arc::new(sa), version, changes);
            }
        }
        seen.clear();
        for vif in delta.vifs {
            let id = u32::from(vif.id.get());
            if !seen.insert(id) {
                found.push(format_args!("vif {id}"), "id", TWICE);
            } else if tables.vifs.get(id).is_none_or(|entry| *entry.configured != vif) {
                touched.vifs.push(vif.id);
                if let VifKind::PhysicalVlan { parent, .. } = vif.kind {
                    // What sends on the parent with these tags may no longer do so.
                    touched.parents.push(parent);
                }
                tables.put_vif(VifEntry::new(vif), changes);
            }
        }
        seen.clear();
        for vrf in delta.vrfs {
            let id = u32::from(vrf.id.get());
            if !seen.insert(id) {
                found.push(format_args!("vrf {id}"), "id", TWICE);
            } else if tables.vrfs.get(id).is_none_or(|old| **old != vrf) {
                touched.vrfs.push(vrf.id);
                tables.put_vrf(Arc::new(vrf), changes);
            }
        }
        seen.clear();
        for nexthop in delta.nexthops {
            let id = nexthop.id.get();
            if !seen.insert(id) {
                found.push(format_args!("nexthop {id}"), "id", TWICE);
            } else if tables.nexthops.get(id).is_none_or(|old| **old != nexthop) {
                touched.nexthops.push(nexthop.id);
                refresh |= tables.put_nexthop(Arc::new(nexthop), changes);
            }
        }
        seen.clear();
        for label in delta.labels {
            if !seen.insert(label.label.get()) {
                found.push(format_args!("label {}", label.label), "label", TWICE);
            } else if tables.labels.get(label.label.get()).is_none_or(|old| *old != label) {
                touched.labels.push(label.label);
                tables.put_label(label, changes);
            }
        }
        let mut seen = HashSet::new();
        for route in delta.routes {
            let there = tables.routes.get(u32::from(route.vrf.get())).and_then(|table| table.fib.get(route.prefix));
            if !seen.insert((route.vrf, route.prefix.trunc())) {
                found.push(format_args!("route vrf {} {}", route.vrf, route.prefix), "prefix", TWICE);
            } else if there.is_none_or(|old| **old != route) {
                let route = Arc::new(route);
                touched.routes.push(Arc::clone(&route));
                tables.put_route(route, changes);
            }
        }
        refresh
    }
}
