//! What changed from snapshot to snapshot, so that whoever keeps something derived from one pays for what a change touches.
//!
//! Each snapshot carries a log: one entry for each version, with the objects and the prefixes that the version changed. Whatever
//! derives a snapshot notes there what it touches. The log is a persistent list that is trimmed by weight; whoever comes from a
//! snapshot that it no longer reaches has to take it that everything has changed.

mod diff;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;

use super::Snapshot;
use crate::{VrfId, flow::Dependency};

/// Objects and prefixes that the log keeps at least; it is trimmed to that when there are twice as many.
const REACH: usize = 1 << 16;
/// What an entry weighs, besides what it holds: about as much memory as that many prefixes.
const ENTRY: usize = 16;

/// What one version, or several, changed. It may name more than has changed, never less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    everything: bool,
    arrivals: bool,
    vrfs: bool,
    objects: BTreeSet<Dependency>,
    routes: Vec<(VrfId, IpNet)>,
}

impl Changes {
    /// Everything that a flow can depend on may have changed: the settings have, or nobody knows what has.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.everything
    }

    /// What is looked at before a packet has a key has changed: vifs and their devices, labels and where they lead, where tunnels
    /// end and begin.
    #[must_use]
    pub const fn touches_arrivals(&self) -> bool {
        self.everything || self.arrivals
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

    /// The objects: no routes.
    #[must_use]
    pub const fn objects(&self) -> &BTreeSet<Dependency> {
        &self.objects
    }

    /// Prefixes that routes were added, replaced or removed for, perhaps more than once.
    #[must_use]
    pub fn routes(&self) -> &[(VrfId, IpNet)] {
        &self.routes
    }

    /// Nothing has changed that a flow could depend on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && !self.arrivals && !self.vrfs && self.objects.is_empty() && self.routes.is_empty()
    }

    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Notes an object. Of routes, see [`Self::note_route`].
    pub(super) fn note(&mut self, object: Dependency) {
        // What a frame is sorted by.
        self.arrivals |= matches!(object, Dependency::Vif(_) | Dependency::Label(_));
        self.objects.insert(object);
    }

    /// Notes a prefix whose route comes, goes or is another one.
    pub(super) fn note_route(&mut self, vrf: VrfId, prefix: IpNet) {
        self.routes.push((vrf, prefix.trunc()));
    }

    pub(super) fn note_everything(&mut self) {
        self.everything = true;
    }

    pub(super) fn note_arrivals(&mut self) {
        self.arrivals = true;
    }

    pub(super) fn note_vrfs(&mut self) {
        self.vrfs = true;
    }

    /// Adds what another version changed.
    fn add(&mut self, other: &Self) {
        self.everything |= other.everything;
        self.arrivals |= other.arrivals;
        self.vrfs |= other.vrfs;
        self.objects.extend(&other.objects);
        self.routes.extend(&other.routes);
    }

    fn weight(&self) -> usize {
        ENTRY + self.objects.len() + self.routes.len()
    }
}

/// What one version changed, and what those before it did.
#[derive(Debug, Clone)]
struct Entry {
    changes: Changes,
    before: Option<Arc<Entry>>,
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

    fn since(&self, old: &Self) -> Option<Changes> {
        let mut all = Changes::default();
        let mut halves = [Some(&self.head), self.older.as_ref()].into_iter().flatten();
        let mut next = halves.next();
        while let Some(entry) = next {
            if Arc::ptr_eq(entry, &old.head) {
                return Some(all);
            }
            all.add(&entry.changes);
            next = entry.before.as_ref().or_else(|| halves.next());
        }
        None
    }
}

impl Snapshot {
    /// What has changed since an earlier snapshot: the union of what the versions in between have changed. [`Changes::everything`]
    /// when the log does not reach back to it, or it is none of those that this snapshot was derived from.
    #[must_use]
    pub fn changes_since(&self, old: &Self) -> Changes {
        self.log.since(&old.log).unwrap_or_else(Changes::everything)
    }
}
