//! Who gets a place: the hottest candidates, and the coldest goes when one is clearly hotter.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use super::Rate;

/// What keeps flows from taking turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    /// A candidate takes a place only when it carries at least this many per cent of what its holder does.
    pub factor_percent: u32,
    /// And only when the holder has had the place for as long, in milliseconds.
    pub residence_ms: u64,
    /// A sample of a rate that took as long counts a half, in milliseconds.
    pub window_ms: u64,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { factor_percent: 150, residence_ms: 2000, window_ms: 1000 }
    }
}

/// What a flow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Waiting for a place.
    Waiting,
    /// A place.
    Placed,
}

/// A candidate that gets a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission<Id> {
    /// Who.
    pub admit: Id,
    /// Whose place it is: that one waits from now on.
    pub evict: Option<Id>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    rate: Rate,
    standing: Standing,
    /// When it got where it is.
    since: u64,
}

/// Flows and the places of a finite table. Each operation takes time that grows with the logarithm of the number of flows.
#[derive(Debug, Clone)]
pub struct Placement<Id> {
    capacity: usize,
    hysteresis: Hysteresis,
    entries: HashMap<Id, Entry>,
    /// Coldest first.
    placed: BTreeSet<(u64, Id)>,
    /// Hottest last.
    waiting: BTreeSet<(u64, Id)>,
}

impl<Id: Copy + Eq + Hash + Ord> Placement<Id> {
    /// A table with so many places.
    #[must_use]
    pub fn new(capacity: usize, hysteresis: Hysteresis) -> Self {
        Self { capacity, hysteresis, entries: HashMap::new(), placed: BTreeSet::new(), waiting: BTreeSet::new() }
    }

    /// A flow asks for a place, carrying so many octets a second. One that is known is updated.
    pub fn offer(&mut self, id: Id, octets_per_second: u64, now_ms: u64) {
        if self.entries.contains_key(&id) {
            return self.update(id, octets_per_second, now_ms);
        }
        let entry = Entry { rate: Rate::new(octets_per_second, now_ms), standing: Standing::Waiting, since: now_ms };
        self.entries.insert(id, entry);
        self.waiting.insert((octets_per_second, id));
    }

    /// A flow carries so many octets a second, measured since the last time. Nothing for one that is not known.
    pub fn update(&mut self, id: Id, octets_per_second: u64, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let old = entry.rate.value();
        entry.rate.update(octets_per_second, now_ms, self.hysteresis.window_ms);
        let (new, standing) = (entry.rate.value(), entry.standing);
        if new != old {
            let set = self.set(standing);
            set.remove(&(old, id));
            set.insert((new, id));
        }
    }

    /// The next candidate that may have a place now, if there is one; it has it from here on. To be asked until there is none.
    pub fn admit(&mut self, now_ms: u64) -> Option<Admission<Id>> {
        let (hot, candidate) = *self.waiting.last()?;
        let evict = if self.placed.len() < self.capacity {
            None
        } else {
            let (cold, holder) = *self.placed.first()?;
            let beats = u128::from(hot) * 100 >= u128::from(cold) * u128::from(self.hysteresis.factor_percent);
            let since = self.entries.get(&holder).map_or(0, |entry| entry.since);
            // At equal rates, zero among them, the holder stays.
            if !beats || hot <= cold || now_ms.saturating_sub(since) < self.hysteresis.residence_ms {
                return None;
            }
            Some(holder)
        };
        if let Some(holder) = evict {
            self.place(holder, Standing::Waiting, now_ms);
        }
        self.place(candidate, Standing::Placed, now_ms);
        Some(Admission { admit: candidate, evict })
    }

    /// A flow that has a place gives it back and waits: the NIC would not take it.
    pub fn give_back(&mut self, id: Id, now_ms: u64) {
        self.place(id, Standing::Waiting, now_ms);
    }

    /// Forgets a flow; true when it had a place.
    pub fn remove(&mut self, id: Id) -> bool {
        let Some(entry) = self.entries.remove(&id) else { return false };
        self.set(entry.standing).remove(&(entry.rate.value(), id));
        entry.standing == Standing::Placed
    }

    /// Changes the number of places: a NIC that is full has fewer than it was thought to have. Those who have one keep it until
    /// [`Self::surplus`] names them.
    pub const fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// The coldest flow with a place, if there are more of them than places; it waits from here on.
    pub fn surplus(&mut self, now_ms: u64) -> Option<Id> {
        if self.placed.len() <= self.capacity {
            return None;
        }
        let (_, id) = *self.placed.first()?;
        self.place(id, Standing::Waiting, now_ms);
        Some(id)
    }

    /// The coldest flow with a place, and octets a second.
    #[must_use]
    pub fn coldest(&self) -> Option<(Id, u64)> {
        self.placed.first().map(|(rate, id)| (*id, *rate))
    }

    /// The hottest flow without a place, and octets a second.
    #[must_use]
    pub fn hottest_waiting(&self) -> Option<(Id, u64)> {
        self.waiting.last().map(|(rate, id)| (*id, *rate))
    }

    /// What a flow has, and its octets a second; `None` for one that is not known.
    #[must_use]
    pub fn standing(&self, id: Id) -> Option<(Standing, u64)> {
        self.entries.get(&id).map(|entry| (entry.standing, entry.rate.value()))
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

    /// Number of places.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    fn place(&mut self, id: Id, standing: Standing, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.standing != standing) else { return };
        let (old, rate) = (entry.standing, entry.rate.value());
        entry.standing = standing;
        entry.since = now_ms;
        self.set(old).remove(&(rate, id));
        self.set(standing).insert((rate, id));
    }

    const fn set(&mut self, standing: Standing) -> &mut BTreeSet<(u64, Id)> {
        match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Placed => &mut self.placed,
        }
    }
}

#[cfg(test)]
mod tests;
