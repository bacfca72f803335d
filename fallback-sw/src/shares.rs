//! Shares of a bounded table: entries by owner, and whose entry is evicted when the table is full.
//!
//! No owner can keep another one out: a full table takes the newcomer's entry in place of one of the owner that holds most, the
//! newcomer counted in (RFC 6583 §7: the resolution of others goes on under a scan). Within an owner, entries of the lower
//! [`Rank`] give way first, and of those the oldest. Every operation is O(log n).

use std::collections::{BTreeMap, BTreeSet};

/// Priority of an entry among its owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Gives way before all that are worth more.
    Low,
    /// Gives way last.
    High,
}

/// Place of an entry among those of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    rank: Rank,
    number: u64,
}

impl Ticket {
    /// How much the entry is worth to its owner.
    #[must_use]
    pub const fn rank(self) -> Rank {
        self.rank
    }

    /// The place that the entry has when it is worth less.
    #[must_use]
    pub const fn lowered(self) -> Self {
        Self { rank: Rank::Low, number: self.number }
    }
}

/// The entry to evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim<O, K> {
    /// Whose it is.
    pub owner: O,
    /// Its place.
    pub ticket: Ticket,
    /// What it is.
    pub key: K,
}

/// Entries by owner, in the order in which they are evicted.
#[derive(Debug)]
pub struct Shares<O, K> {
    owners: BTreeMap<O, BTreeMap<Ticket, K>>,
    /// Number of entries and owner, the largest last.
    sizes: BTreeSet<(usize, O)>,
    len: usize,
    next: u64,
}

impl<O, K> Default for Shares<O, K> {
    fn default() -> Self {
        Self { owners: BTreeMap::new(), sizes: BTreeSet::new(), len: 0, next: 0 }
    }
}

impl<O: Ord + Copy, K: Copy> Shares<O, K> {
    /// Entries of all owners.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No entries.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries of an owner.
    pub fn of(&self, owner: O) -> usize {
        self.owners.get(&owner).map_or(0, BTreeMap::len)
    }

    /// Adds an entry as the youngest of its rank.
    pub fn enter(&mut self, owner: O, rank: Rank, key: K) -> Ticket {
        let ticket = Ticket { rank, number: self.next };
        self.next += 1;
        self.put_back(owner, ticket, key);
        ticket
    }

    /// Adds an entry at the place that it has had before.
    pub fn put_back(&mut self, owner: O, ticket: Ticket, key: K) {
        let held = self.owners.entry(owner).or_default();
        self.sizes.remove(&(held.len(), owner));
        self.len += usize::from(held.insert(ticket, key).is_none());
        self.sizes.insert((held.len(), owner));
    }

    /// Takes an entry out.
    pub fn leave(&mut self, owner: O, ticket: Ticket) -> Option<K> {
        let held = self.owners.get_mut(&owner)?;
        let before = held.len();
        let key = held.remove(&ticket)?;
        self.sizes.remove(&(before, owner));
        if held.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.sizes.insert((held.len(), owner));
        }
        self.len -= 1;
        Some(key)
    }

    /// The entry that gives way to a new one of `newcomer`: the first of the owner that would hold most; of several, the
    /// newcomer's own. `None`: the table is empty.
    pub fn victim(&self, newcomer: O) -> Option<Victim<O, K>> {
        let (most, largest) = *self.sizes.last()?;
        let owner = if self.of(newcomer) + 1 >= most && self.of(newcomer) > 0 { newcomer } else { largest };
        let (ticket, key) = self.owners.get(&owner)?.first_key_value()?;
        Some(Victim { owner, ticket: *ticket, key: *key })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_owner_that_holds_most_gives_way_with_its_oldest_entry() {
        let mut shares = Shares::default();
        (0..7).for_each(|key| _ = shares.enter('a', Rank::Low, key));
        shares.enter('b', Rank::Low, 100);
        assert_eq!(shares.victim('c').map(|v| (v.owner, v.key)), Some(('a', 0)));
        assert_eq!(shares.victim('b').map(|v| (v.owner, v.key)), Some(('a', 0)));
        assert_eq!(shares.victim('a').map(|v| (v.owner, v.key)), Some(('a', 0)));
    }

    #[test]
    fn equal_owners_give_way_to_themselves() {
        let mut shares = Shares::default();
        for (owner, key) in [('a', 1), ('b', 2), ('a', 3), ('b', 4)] {
            shares.enter(owner, Rank::Low, key);
        }
        assert_eq!(shares.victim('a').map(|v| v.key), Some(1));
        assert_eq!(shares.victim('b').map(|v| v.key), Some(2));
    }

    #[test]
    fn what_is_worth_more_gives_way_last() {
        let mut shares = Shares::default();
        shares.enter('a', Rank::High, 1);
        shares.enter('a', Rank::Low, 2);
        assert_eq!(shares.victim('b').map(|v| (v.key, v.ticket.rank())), Some((2, Rank::Low)));
    }

    proptest! {
        #[test]
        fn no_owner_is_kept_below_an_equal_share_by_another_one(
            arrivals in prop::collection::vec(0u8..4, 1..300), room in 4usize..24,
        ) {
            let mut shares: Shares<u8, usize> = Shares::default();
            let mut asked = [0usize; 4];
            for (key, owner) in arrivals.into_iter().enumerate() {
                if shares.len() >= room {
                    let victim = shares.victim(owner).unwrap();
                    prop_assert_eq!(shares.leave(victim.owner, victim.ticket), Some(victim.key));
                }
                shares.enter(owner, Rank::Low, key);
                asked[usize::from(owner)] += 1;
                prop_assert!(shares.len() <= room);
                let sizes: usize = (0..4).map(|owner| shares.of(owner)).sum();
                prop_assert_eq!(sizes, shares.len());
                for owner in 0..4u8 {
                    let fair = asked[usize::from(owner)].min(room / 4);
                    prop_assert!(shares.of(owner) >= fair, "{} of {}", shares.of(owner), fair);
                }
            }
        }
    }
}
