//! Admission to a finite table: which flows have a place, which wait for one, and which is evicted for which.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// What keeps flows from taking turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    /// A candidate takes a place only when it carries more than this many per cent of what its holder does.
    pub factor_percent: u32,
    /// And only when the holder has had the place for as long, in milliseconds.
    pub residence_ms: u64,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { factor_percent: 125, residence_ms: 1000 }
    }
}

impl Hysteresis {
    /// Carries so much more that moving is worth it. At equal rates, zero among them, the holder stays.
    #[must_use]
    pub fn outweighs(&self, candidate: u64, holder: u64) -> bool {
        u128::from(candidate) * 100 > u128::from(holder) * u128::from(self.factor_percent.max(100))
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    rate: u64,
    placed: bool,
    since: u64,
}

/// Flows that have a place in a finite table, and those that wait for one, by what they carry. How many places there are, the NIC
/// tells by refusing. Each operation takes time that grows with the logarithm of the number of flows.
#[derive(Debug, Clone)]
pub struct Placement<Id> {
    hysteresis: Hysteresis,
    entries: HashMap<Id, Entry>,
    /// Coldest first.
    placed: BTreeSet<(u64, Id)>,
    /// Hottest last.
    waiting: BTreeSet<(u64, Id)>,
}

impl<Id: Copy + Eq + Hash + Ord> Placement<Id> {
    /// No flow is tracked.
    #[must_use]
    pub fn new(hysteresis: Hysteresis) -> Self {
        Self { hysteresis, entries: HashMap::new(), placed: BTreeSet::new(), waiting: BTreeSet::new() }
    }

    /// A flow that carries so many octets a second has a place from now on.
    pub fn place(&mut self, id: Id, octets_per_second: u64, now_ms: u64) {
        self.insert(id, Entry { rate: octets_per_second, placed: true, since: now_ms });
    }

    /// A flow that carries so many octets a second waits from now on.
    pub fn wait(&mut self, id: Id, octets_per_second: u64, now_ms: u64) {
        self.insert(id, Entry { rate: octets_per_second, placed: false, since: now_ms });
    }

    /// A flow carries so many octets a second now. Nothing for one that is not known.
    pub fn update(&mut self, id: Id, octets_per_second: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.rate, octets_per_second);
        if before == octets_per_second {
            return;
        }
        let placed = entry.placed;
        let ranked = self.set(placed);
        ranked.remove(&(before, id));
        ranked.insert((octets_per_second, id));
    }

    /// A flow neither has a place nor waits for one.
    pub fn forget(&mut self, id: Id) {
        self.remove(id);
    }

    /// Everybody is forgotten.
    pub fn clear(&mut self) {
        *self = Self::new(self.hysteresis);
    }

    /// Whose place a candidate takes: the coldest flow's, when that carries clearly less and has had the place long enough.
    #[must_use]
    pub fn victim(&self, octets_per_second: u64, now_ms: u64) -> Option<Id> {
        let (cold, id) = *self.placed.first()?;
        let since = self.entries.get(&id)?.since;
        let settled = since.saturating_add(self.hysteresis.residence_ms) <= now_ms;
        (settled && self.hysteresis.outweighs(octets_per_second, cold)).then_some(id)
    }

    /// Does a flow that carries so much outweigh the coldest one that has a place?
    #[must_use]
    pub fn is_hot(&self, octets_per_second: u64) -> bool {
        self.placed.first().is_some_and(|(cold, _)| self.hysteresis.outweighs(octets_per_second, *cold))
    }

    /// The hottest flow that waits.
    #[must_use]
    pub fn next(&self) -> Option<Id> {
        self.waiting.last().map(|(_, id)| *id)
    }

    /// Number of flows with a place.
    #[must_use]
    pub fn placed(&self) -> usize {
        self.placed.len()
    }

    /// Number of flows that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn insert(&mut self, id: Id, entry: Entry) {
        self.remove(id);
        self.entries.insert(id, entry);
        self.set(entry.placed).insert((entry.rate, id));
    }

    fn remove(&mut self, id: Id) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.set(entry.placed).remove(&(entry.rate, id));
        Some(entry)
    }

    const fn set(&mut self, placed: bool) -> &mut BTreeSet<(u64, Id)> {
        if placed { &mut self.placed } else { &mut self.waiting }
    }
}

#[cfg(test)]
mod tests;
