//! The change log of snapshots: state derived from a snapshot is updated at the cost of what has changed.
//!
//! Each snapshot carries a log: one entry for each version, with the objects and the prefixes that the version changed. Whatever
//! derives a snapshot notes there what it touches. The log is a persistent list that is trimmed by weight; whoever comes from a
//! snapshot that it no longer reaches has to take it that everything has changed.

mod diff;
mod lists;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{Acl, Selector, Snapshot};
use crate::{AclId, VrfId, flow::Dependency};

/// Objects and prefixes that the log keeps at least; it is trimmed to that when there are twice as many.
const REACH: usize = 1 << 16;
/// What an entry weighs, besides what it holds: about as much memory as that many prefixes.
const ENTRY: usize = 16;

/// What one version changed. It may name more than has changed, never less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    everything: bool,
    ends: bool,
    vrfs: bool,
    objects: BTreeSet<Dependency>,
    /// Access lists, with the packets that they may judge otherwise. A list with too many of those is among the objects.
    lists: BTreeMap<AclId, Vec<Selector>>,
    routes: Vec<(VrfId, IpNet)>,
    /// What the routes cover, in order and apart, once they are known to be all.
    spans: Vec<Span>,
}

/// Addresses of a VRF, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    vrf: VrfId,
    first: IpAddr,
    last: IpAddr,
}

impl Changes {
    /// Everything that a flow can depend on may have changed: the settings have, or the changes are not known.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.everything
    }

    /// What is looked at before a packet has a key has changed: vifs and their devices, labels and where they lead, where tunnels
    /// end and begin.
    #[must_use]
    pub fn touches_arrivals(&self) -> bool {
        let is_read =
            |object: &Dependency| matches!(object, Dependency::Vif(_) | Dependency::Oper(_) | Dependency::Label(_));
        self.touches_ends() || self.touches(is_read)
    }

    /// Where tunnels end and begin, where labels lead, or how large packets are that devices take, has changed.
    #[must_use]
    pub const fn touches_ends(&self) -> bool {
        self.everything || self.ends
    }

    /// VRFs have come or gone.
    #[must_use]
    pub const fn touches_vrfs(&self) -> bool {
        self.everything || self.vrfs
    }

    /// Does an object that `of` chooses belong to it?
    #[must_use]
    pub fn touches(&self, of: impl Fn(&Dependency) -> bool) -> bool {
        self.everything || self.objects.iter().any(of)
    }

    /// The objects: no routes, and no lists of which it is told what packets they judge otherwise.
    #[must_use]
    pub const fn objects(&self) -> &BTreeSet<Dependency> {
        &self.objects
    }

    /// Access lists that are others, each with selectors of all packets that it may judge otherwise, or by another entry. A list of which
    /// that is too much to tell is an [object](Self::objects).
    #[must_use]
    pub const fn lists(&self) -> &BTreeMap<AclId, Vec<Selector>> {
        &self.lists
    }

    /// Prefixes that routes were added, replaced or removed for.
    #[must_use]
    pub fn routes(&self) -> &[(VrfId, IpNet)] {
        &self.routes
    }

    /// Does one of the prefixes cover this address?
    #[must_use]
    pub fn covers(&self, vrf: VrfId, address: IpAddr) -> bool {
        if self.everything || self.spans.is_empty() {
            return self.everything || self.routes.iter().any(|(of, prefix)| *of == vrf && prefix.contains(&address));
        }
        let behind = self.spans.partition_point(|span| (span.vrf, span.first) <= (vrf, address));
        let span = behind.checked_sub(1).and_then(|at| self.spans.get(at));
        span.is_some_and(|span| span.vrf == vrf && address <= span.last)
    }

    /// All routes are noted: puts them in order.
    pub(super) fn settle_routes(&mut self) {
        self.routes.sort_unstable();
        self.routes.dedup();
        self.spans.clear();
        for (vrf, prefix) in &self.routes {
            let span = Span { vrf: *vrf, first: prefix.network(), last: prefix.broadcast() };
            // Of two prefixes, one contains the other or they are apart.
            match self.spans.last() {
                Some(before) if before.vrf == span.vrf && span.first <= before.last => {}
                _ => self.spans.push(span),
            }
        }
    }

    /// Nothing has changed that a flow could depend on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything
            && !self.ends
            && !self.vrfs
            && self.objects.is_empty()
            && self.lists.is_empty()
            && self.routes.is_empty()
    }

    /// Everything.
    fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Notes an object. Of routes, see [`Self::note_route`].
    pub(super) fn note(&mut self, object: Dependency) {
        self.objects.insert(object);
    }

    /// Notes a list that is put in the place of another one; `None`: there is none.
    pub(super) fn note_list(&mut self, id: AclId, old: Option<&Acl>, new: Option<&Acl>) {
        match lists::judged_otherwise(old, new) {
            Some(selectors) => self.lists.entry(id).or_default().extend(selectors),
            None => self.note(Dependency::Acl(id)),
        }
    }

    /// Notes a prefix whose route comes, goes or is another one.
    pub(super) fn note_route(&mut self, vrf: VrfId, prefix: IpNet) {
        self.routes.push((vrf, prefix.trunc()));
    }

    pub(super) fn note_everything(&mut self) {
        self.everything = true;
    }

    pub(super) fn note_ends(&mut self) {
        self.ends = true;
    }

    pub(super) fn note_vrfs(&mut self) {
        self.vrfs = true;
    }

    fn weight(&self) -> usize {
        ENTRY + self.objects.len() + self.routes.len() + self.lists.values().map(|list| 1 + list.len()).sum::<usize>()
    }
}

/// What one version changed, and what those before it did.
#[derive(Debug, Clone)]
struct Entry {
    changes: Changes,
    before: Option<Arc<Entry>>,
}

/// What one version changed: shared with the log.
#[derive(Debug, Clone)]
pub struct VersionChanges(Arc<Entry>);

impl std::ops::Deref for VersionChanges {
    type Target = Changes;

    fn deref(&self) -> &Changes {
        &self.0.changes
    }
}

impl Drop for Entry {
    /// One by one: a list that drops itself recursively would need as much stack as it is long.
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(mut entry) = next.and_then(Arc::into_inner) {
            next = entry.before.take();
        }
    }
}

/// The log of a snapshot. A clone shares it.
///
/// It is kept in two halves. When the newer one has become heavy it takes the place of the older one, so that what goes, goes whole:
/// no entry is copied, and all but the last are shared between the snapshots.
#[derive(Debug, Clone)]
pub(super) struct ChangeLog {
    /// The entry of the snapshot's own version; identifies the snapshot.
    head: Arc<Entry>,
    /// Weight of what is in the newer half, without the head.
    weight: usize,
    /// Last entry of the older half.
    older: Option<Arc<Entry>>,
}

impl Default for ChangeLog {
    fn default() -> Self {
        Self { head: Arc::new(Entry { changes: Changes::default(), before: None }), weight: 0, older: None }
    }
}

impl ChangeLog {
    /// The log of the next version, which has changed nothing so far.
    pub(super) fn next(&self) -> Self {
        let weight = self.weight + self.head.changes.weight();
        let (before, weight, older) = if weight > REACH {
            (None, 0, Some(Arc::clone(&self.head)))
        } else {
            (Some(Arc::clone(&self.head)), weight, self.older.clone())
        };
        Self { head: Arc::new(Entry { changes: Changes::default(), before }), weight, older }
    }

    /// What the snapshot's own version changed, to add to it. Of a log that is shared already a copy is changed: to those who have
    /// seen the other one, this snapshot comes from elsewhere.
    pub(super) fn changes(&mut self) -> &mut Changes {
        &mut Arc::make_mut(&mut self.head).changes
    }

    fn since(&self, old: &Self) -> Option<Vec<VersionChanges>> {
        let mut all = Vec::new();
        let mut halves = [Some(&self.head), self.older.as_ref()].into_iter().flatten();
        let mut next = halves.next();
        while let Some(entry) = next {
            if Arc::ptr_eq(entry, &old.head) {
                all.reverse();
                return Some(all);
            }
            all.push(VersionChanges(Arc::clone(entry)));
            next = entry.before.as_ref().or_else(|| halves.next());
        }
        None
    }
}

impl Snapshot {
    /// What each version has changed since an earlier snapshot, in order. When the log does not reach back to it, or it is none of
    /// those that this snapshot was derived from: one that has changed everything.
    #[must_use]
    pub fn changes_since(&self, old: &Self) -> Vec<VersionChanges> {
        let everything = || VersionChanges(Arc::new(Entry { changes: Changes::everything(), before: None }));
        self.log.since(&old.log).unwrap_or_else(|| vec![everything()])
    }
}
