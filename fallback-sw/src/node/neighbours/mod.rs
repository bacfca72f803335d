//! The neighbour cache of a node: entries being resolved, entries with a MAC, and their timers.
//!
//! One for all workers. Workers hold packets and tell what is needed ([`Neighbours::need`]) and what they hear
//! ([`Neighbours::told`]); the cache keeps the state of each neighbour ([`nud::State`]), decides which questions leave, and says by
//! [`Effects`] what the snapshot and the workers have to follow. The MAC of a neighbour is in the snapshot exactly while its
//! state [has one](nud::State::has_mac).
//!
//! What others may build on:
//! - [`Neighbours::keep`] watches a neighbour that is needed for good (a gateway): it is asked for before any packet needs it, and
//!   asked on when it does not answer ([`State::Unreachable`]) instead of being forgotten;
//! - [`Neighbours::poll`] asks one out of turn, [`Neighbours::answered_since`] tells whether it answered;
//! - [`Neighbours::state`] returns the state of one, [`Neighbours::iter`] lists all;
//! - [`Neighbours::forget`] drops what was learnt on a link that is gone, [`Neighbours::ask_again`] begins anew when it is back.
//!
//! Bounds. Neighbours with a MAC: `max_neighbours` in all, shared among vifs. Neighbours being asked for: `max_held` in all, shared
//! among those who ask ([`Tenant`]). When a table is full, an entry of whoever holds most gives way ([`Shares`]).

pub mod nud;
pub mod refusals;

use std::collections::{BTreeMap, BTreeSet};

use offload_rules::{MacAddr, VifId};

use crate::{
    shares::{Rank, Shares, Ticket},
    worker::{GiveUp, NeighbourClaim, NeighbourKey, Tenant},
};
use nud::{Cell, Input, Poll, Question, State, Step};

/// How many entries there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// With a MAC.
    pub known: usize,
    /// Without.
    pub asked: usize,
}

/// What follows from a change of the cache.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Questions to send.
    pub ask: Vec<(NeighbourKey, Question)>,
    /// The MAC that a neighbour has from now on; `None`: it has none any more. In order; the last one counts.
    pub macs: Vec<(NeighbourKey, Option<MacAddr>)>,
    /// What waits for these is not waited for any longer.
    pub give_up: Vec<(NeighbourKey, GiveUp)>,
}

/// The share that an entry takes.
#[derive(Debug, Clone, Copy)]
enum Share {
    /// It has a MAC: of its vif's share.
    Known(Ticket),
    /// Without a MAC: counts against the share of the tenant that asked first.
    Asked(Tenant, Ticket),
    /// Watched permanently: never evicted.
    Kept,
}

#[derive(Debug)]
struct Entry {
    cell: Cell,
    share: Share,
}

/// The neighbour cache.
#[derive(Debug, Default)]
pub struct Neighbours {
    entries: BTreeMap<NeighbourKey, Entry>,
    /// Timers that run.
    due: BTreeSet<(u64, NeighbourKey)>,
    known: Shares<VifId, NeighbourKey>,
    asked: Shares<Tenant, NeighbourKey>,
    kept: usize,
}

impl Neighbours {
    /// State of a neighbour; `None`: there is no entry.
    #[must_use]
    pub fn state(&self, neighbour: NeighbourKey) -> Option<State> {
        self.entries.get(&neighbour).map(|entry| entry.cell.state())
    }

    /// All neighbours with their state.
    pub fn iter(&self) -> impl Iterator<Item = (NeighbourKey, State)> + '_ {
        self.entries.iter().map(|(key, entry)| (*key, entry.cell.state()))
    }

    /// Packets of a tenant wait for this neighbour: it is asked for, unless it is already. When too many are, one of the tenant that
    /// asks for most is given up.
    pub fn need(&mut self, neighbour: NeighbourKey, tenant: Tenant, limits: Limits, now: u64) -> Effects {
        let mut effects = Effects::default();
        if self.entries.contains_key(&neighbour) {
            self.step(neighbour, Input::Used, limits, now, &mut effects);
            return effects;
        }
        while self.asked.len() >= limits.asked.max(1)
            && let Some(victim) = self.asked.victim(tenant)
        {
            self.remove(victim.key);
            effects.give_up.push((victim.key, GiveUp::QueueFull));
        }
        let share = Share::Asked(tenant, self.asked.enter(tenant, Rank::Low, neighbour));
        self.begin(neighbour, Cell::wanted(now), share, &mut effects);
        effects
    }

    /// A neighbour has advertised its MAC.
    pub fn told(&mut self, neighbour: NeighbourKey, told: NeighbourClaim, limits: Limits, now: u64) -> Effects {
        let mut effects = Effects::default();
        if self.entries.contains_key(&neighbour) {
            self.step(neighbour, Input::Claim(told), limits, now, &mut effects);
        } else if let Some((mut cell, step)) = Cell::introduced(told, now)
            && self.make_room(neighbour.0, limits, &mut effects)
        {
            cell.step(Input::Used, now);
            let share = Share::Known(self.known.enter(neighbour.0, rank(cell.state()), neighbour));
            self.begin(neighbour, (cell, step), share, &mut effects);
        }
        effects
    }

    /// Lets time pass.
    pub fn tick(&mut self, limits: Limits, now: u64) -> Effects {
        let mut effects = Effects::default();
        let ripe: Vec<_> = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| *key).collect();
        for neighbour in ripe {
            self.step(neighbour, Input::Timeout, limits, now, &mut effects);
        }
        effects
    }

    /// Watches exactly these neighbours for good: they are asked for at once, and asked on as long as they do not answer. One that was
    /// watched before and is not now lives on as any other with a MAC, and is forgotten without.
    pub fn keep(&mut self, wanted: &BTreeSet<NeighbourKey>, limits: Limits, now: u64) -> Effects {
        let mut effects = Effects::default();
        let is_over = |key: &NeighbourKey, entry: &Entry| matches!(entry.share, Share::Kept) && !wanted.contains(key);
        let over: Vec<_> =
            self.entries.iter().filter(|(key, entry)| is_over(key, entry)).map(|(key, _)| *key).collect();
        for neighbour in over {
            let Some(entry) = self.remove(neighbour) else { continue };
            if entry.cell.mac().is_none() {
                effects.give_up.push((neighbour, GiveUp::Unresolved));
            } else if self.make_room(neighbour.0, limits, &mut effects) {
                let share = Share::Known(self.known.enter(neighbour.0, rank(entry.cell.state()), neighbour));
                self.put(neighbour, Entry { share, ..entry });
            } else {
                effects.macs.push((neighbour, None));
            }
        }
        for &neighbour in wanted {
            match self.remove(neighbour) {
                Some(entry) if !entry.cell.is_suspended() => self.put(neighbour, Entry { share: Share::Kept, ..entry }),
                // Not known, or what was known ended with a link that is another one by now.
                _ => self.begin(neighbour, Cell::wanted(now), Share::Kept, &mut effects),
            }
        }
        effects
    }

    /// Asks a neighbour that has a MAC out of turn: the station alone, or everybody, in case it has another one by now.
    pub fn poll(&mut self, neighbour: NeighbourKey, whom: Poll, now: u64) -> Option<Question> {
        self.entries.get_mut(&neighbour)?.cell.poll(whom, now)
    }

    /// Has a neighbour answered at that time or later?
    #[must_use]
    pub fn answered_since(&self, neighbour: NeighbourKey, time: u64) -> bool {
        self.entries.get(&neighbour).is_some_and(|entry| entry.cell.answered_since(time))
    }

    /// Forgets the neighbours that `gone` names: what was learnt on a link ends with it. One that is watched stays, without MAC.
    pub fn forget(&mut self, gone: impl Fn(NeighbourKey) -> bool) -> Effects {
        let mut effects = Effects::default();
        let keys: Vec<_> = self.entries.keys().copied().filter(|key| gone(*key)).collect();
        for neighbour in keys {
            let Some(mut entry) = self.remove(neighbour) else { continue };
            if entry.cell.mac().is_some() {
                effects.macs.push((neighbour, None));
            }
            if matches!(entry.share, Share::Kept) {
                entry.cell.suspend();
                self.put(neighbour, entry);
            }
        }
        effects
    }

    /// The links of these vifs are back: the neighbours that are watched there are asked for at once.
    pub fn ask_again(&mut self, back: impl Fn(VifId) -> bool, now: u64) -> Effects {
        let mut effects = Effects::default();
        let lost = |(key, entry): &(&NeighbourKey, &Entry)| back(key.0) && entry.cell.state() == State::Unreachable;
        let keys: Vec<_> = self.entries.iter().filter(lost).map(|(key, _)| *key).collect();
        for neighbour in keys {
            if let Some(entry) = self.remove(neighbour) {
                self.begin(neighbour, Cell::wanted(now), entry.share, &mut effects);
            }
        }
        effects
    }

    /// Adds an entry with its initial state.
    fn begin(&mut self, neighbour: NeighbourKey, (cell, step): (Cell, Step), share: Share, effects: &mut Effects) {
        effects.ask.extend(step.ask.map(|question| (neighbour, question)));
        if step.mac_changed {
            effects.macs.push((neighbour, cell.mac()));
        }
        self.put(neighbour, Entry { cell, share });
    }

    fn step(&mut self, neighbour: NeighbourKey, input: Input, limits: Limits, now: u64, effects: &mut Effects) {
        // Taken out and put back: its timer and its place among the others may be other ones afterwards.
        let Some(mut entry) = self.remove(neighbour) else { return };
        let step = entry.cell.step(input, now);
        effects.ask.extend(step.ask.map(|question| (neighbour, question)));
        if entry.cell.state() == State::Stale {
            // Taken to be in use, see `nud`.
            entry.cell.step(Input::Used, now);
        }
        if step.failed {
            effects.give_up.push((neighbour, GiveUp::Unresolved));
            if step.mac_changed {
                effects.macs.push((neighbour, None));
            }
            if matches!(entry.share, Share::Kept) {
                entry.cell.keep(now);
                self.put(neighbour, entry);
            }
            return;
        }
        let share = match (entry.share, entry.cell.mac()) {
            (Share::Kept, _) => Share::Kept,
            (Share::Asked(tenant, ticket), None) => {
                self.asked.put_back(tenant, ticket, neighbour);
                entry.share
            }
            (Share::Known(ticket), _) if rank(entry.cell.state()) == Rank::Low && ticket.rank() == Rank::Low => {
                self.known.put_back(neighbour.0, ticket, neighbour);
                entry.share
            }
            (Share::Known(_), _) => Share::Known(self.known.enter(neighbour.0, rank(entry.cell.state()), neighbour)),
            (Share::Asked(..), Some(_)) if self.make_room(neighbour.0, limits, effects) => {
                Share::Known(self.known.enter(neighbour.0, rank(entry.cell.state()), neighbour))
            }
            (Share::Asked(..), Some(_)) => {
                effects.give_up.push((neighbour, GiveUp::TableFull));
                return;
            }
        };
        if step.mac_changed {
            effects.macs.push((neighbour, entry.cell.mac()));
        }
        self.put(neighbour, Entry { share, ..entry });
    }

    /// Room for one more neighbour with a MAC on a vif. The vif that has most gives way; itself only with what is doubtful.
    fn make_room(&mut self, vif: VifId, limits: Limits, effects: &mut Effects) -> bool {
        while self.known.len() + self.kept >= limits.known {
            let Some(victim) = self.known.victim(vif) else { return false };
            if victim.owner == vif && victim.ticket.rank() == Rank::High {
                return false;
            }
            self.remove(victim.key);
            effects.macs.push((victim.key, None));
        }
        true
    }

    fn put(&mut self, neighbour: NeighbourKey, entry: Entry) {
        if entry.cell.due() != u64::MAX {
            self.due.insert((entry.cell.due(), neighbour));
        }
        self.kept += usize::from(matches!(entry.share, Share::Kept));
        self.entries.insert(neighbour, entry);
    }

    /// Takes an entry out, with its timer and the share that it took.
    fn remove(&mut self, neighbour: NeighbourKey) -> Option<Entry> {
        let entry = self.entries.remove(&neighbour)?;
        self.due.remove(&(entry.cell.due(), neighbour));
        match entry.share {
            Share::Known(ticket) => _ = self.known.leave(neighbour.0, ticket),
            Share::Asked(tenant, ticket) => _ = self.asked.leave(tenant, ticket),
            Share::Kept => self.kept -= 1,
        }
        Some(entry)
    }
}

/// What answers is worth more than what has to be asked.
const fn rank(state: State) -> Rank {
    if matches!(state, State::Reachable) { Rank::High } else { Rank::Low }
}

#[cfg(test)]
mod tests;
