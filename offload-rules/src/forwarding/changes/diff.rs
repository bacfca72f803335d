//! What two snapshots differ in, found by comparing them: for whole states, which do not say what they change, and as a yardstick
//! for what is noted elsewhere.

use std::sync::Arc;

use super::Changes;
use crate::{
    VrfId,
    flow::{Dependency, Family},
    forwarding::{Fib, Snapshot, idmap::IdMap, tables::Tables},
};

impl Changes {
    /// What the configured tables differ in, as far as they are the state's: not what is learnt, and not what follows from both. One
    /// pass over both.
    pub(in crate::forwarding) fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let mut changes = Self::default();
        if *old.settings != *new.settings {
            changes.note_everything();
        }
        let (old, new) = (&old.tables, &new.tables);
        by_id(&old.acls, &new.acls, |acl| {
            let in_table = |tables: &'_ Tables| tables.acls.get(acl.id.get()).cloned();
            changes.note_list(acl.id, in_table(old).as_deref(), in_table(new).as_deref());
        });
        differences(
            &old.sas,
            &new.sas,
            |a, b| same(&a.object, &b.object),
            |sa| changes.note(Dependency::Sa(sa.object.id)),
        );
        differences(
            &old.vifs,
            &new.vifs,
            |a, b| same(&a.configured, &b.configured),
            |vif| changes.note(Dependency::Vif(vif.configured.id)),
        );
        by_id(&old.vrfs, &new.vrfs, |_| changes.note_vrfs());
        differences(&old.labels, &new.labels, |a, b| a == b, |label| changes.note(Dependency::Label(label.label)));
        by_id(&old.nexthops, &new.nexthops, |nexthop| changes.note(Dependency::Nexthop(nexthop.id)));
        changes.note_tunnels(old, new);
        changes.note_label_targets(old, new);
        changes.note_routes(old, new);
        changes
    }

    /// Far ends of MPLS-over-UDP tunnels, and the node's own.
    fn note_tunnels(&mut self, old: &Tables, new: &Tables) {
        for (one, other) in [(old, new), (new, old)] {
            for (end, tunnels) in one.ends.iter() {
                if other.ends.get(end) != Some(tunnels) {
                    self.note(Dependency::TunnelsTo(end));
                }
            }
            if one.own.iter().any(|(address, _)| other.own.get(address).is_none()) {
                self.note_ends();
            }
        }
    }

    /// Where labels lead.
    fn note_label_targets(&mut self, old: &Tables, new: &Tables) {
        let mut differs = new.labels.values().filter(|label| {
            let (before, after) = (old.nexthops.get(label.nexthop.get()), new.nexthops.get(label.nexthop.get()));
            before != after
        });
        if differs.next().is_some() {
            self.note_ends();
        }
    }

    fn note_routes(&mut self, old: &Tables, new: &Tables) {
        let empty = Fib::default();
        for (id, table) in new.routes.iter() {
            let Ok(vrf) = VrfId::new(id) else { continue };
            let before = old.routes.get(id);
            self.note_fib(vrf, before.map_or(&empty, |table| &table.fib), &table.fib);
            let opened = |one: &super::super::tables::RouteTable, other: &super::super::tables::RouteTable| {
                one.terminations.iter().any(|(address, ())| other.terminations.get(address).is_none())
            };
            let none = super::super::tables::RouteTable::default();
            let before = before.map_or(&none, |table| table);
            if opened(before, table) || opened(table, before) {
                self.note_ends();
            }
        }
        for (id, table) in old.routes.iter().filter(|(id, _)| !new.routes.contains(*id)) {
            let Ok(vrf) = VrfId::new(id) else { continue };
            self.note_fib(vrf, &table.fib, &empty);
            if table.terminations.len() > 0 {
                self.note_ends();
            }
        }
    }

    /// Both in order of prefix: one step for each of them.
    fn note_fib(&mut self, vrf: VrfId, old: &Fib, new: &Fib) {
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let place = |route: &Arc<super::super::Route>| (Family::of(&route.prefix.addr()), route.prefix.trunc());
            match (old.peek().copied(), new.peek().copied()) {
                (None, None) => return,
                (Some(before), Some(after)) if place(before) == place(after) => {
                    if !same(before, after) {
                        self.note_route(vrf, after.prefix);
                    }
                    old.next();
                    new.next();
                }
                (Some(before), after) if after.is_none_or(|after| place(before) < place(after)) => {
                    self.note_route(vrf, before.prefix);
                    old.next();
                }
                (_, Some(after)) => {
                    self.note_route(vrf, after.prefix);
                    new.next();
                }
                (Some(_), None) => _ = old.next(),
            }
        }
    }
}

fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn by_id<T: PartialEq>(old: &IdMap<Arc<T>>, new: &IdMap<Arc<T>>, mut note: impl FnMut(&T)) {
    differences(old, new, same, |object| note(object));
}

/// Calls `note` with each object that is in one map only, or differs; the new one where there is one.
fn differences<V: Clone>(old: &IdMap<V>, new: &IdMap<V>, same: impl Fn(&V, &V) -> bool, mut note: impl FnMut(&V)) {
    for (id, object) in new.iter() {
        if old.get(id).is_none_or(|before| !same(before, object)) {
            note(object);
        }
    }
    old.iter().filter(|(id, _)| !new.contains(*id)).for_each(|(_, object)| note(object));
}
