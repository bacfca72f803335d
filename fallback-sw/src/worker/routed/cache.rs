//! Decisions for packets without flows, kept as long as they are current: a table of bounded size, each tenant with its share.
//!
//! Decisions are the leaves of trees whose inner nodes say what else of the packet to look at; see [`Key`]. A node is kept alive by the
//! program of the walk that made it, and holds while that program is current: who takes it looks at that. A tenant's scan takes the
//! places of its own nodes once the table is full.

use std::hash::{BuildHasher, RandomState};

use offload_rules::classify::PacketRead;

use super::key::Key;
use crate::{
    shares::{Rank, Shares, Ticket},
    worker::{ProgramId, Programs, Tenant},
};

/// Nodes at most. Routes that lead to one nexthop with one label share theirs, so that this is plenty for nexthops, not routes.
const MOST: usize = 16_384;
/// Entries of the index before anything is in it; a power of two.
const SMALLEST: usize = 256;
/// In the place of a node's: there is none.
const NOWHERE: u32 = u32::MAX;

/// An entry of the index: all that is asked of a leaf, in half a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Entry {
    key: Key,
    /// Of the node.
    place: u32,
    /// Of a leaf; [`TO_BE_DERIVED`](crate::worker::TO_BE_DERIVED) of an inner node.
    program: ProgramId,
}

impl Entry {
    const VACANT: Self = Self { key: Key::NONE, place: NOWHERE, program: crate::worker::TO_BE_DERIVED };
}

/// What was found for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    /// The decision is this program.
    Leaf(ProgramId),
    /// It goes on at the node in this place.
    Inner(u32),
}

/// How a decision goes on at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// It is the one of the node's program.
    End,
    /// By the value of this.
    Read(PacketRead),
}

/// A node of a tree of decisions.
#[derive(Debug)]
pub(super) struct Node {
    hash: u64,
    /// Never used again: keys of nodes below hold it.
    pub(super) number: u32,
    pub(super) program: ProgramId,
    pub(super) next: Next,
    tenant: Tenant,
    ticket: Ticket,
}

/// What a new node holds.
pub(super) struct NewNode {
    pub(super) next: Next,
    /// With one more user, which is this node.
    pub(super) program: ProgramId,
    pub(super) tenant: Tenant,
}

impl NewNode {
    /// As the index has it.
    const fn leaf(&self) -> ProgramId {
        match self.next {
            Next::End => self.program,
            Next::Read(_) => crate::worker::TO_BE_DERIVED,
        }
    }
}

/// The table of one worker.
pub(super) struct Cache {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    /// By hash, linear probing, at most half full.
    index: Box<[Entry]>,
    shares: Shares<Tenant, u32>,
    seed: [u64; 3],
    next_number: u32,
    /// Changes whenever a node or its program goes: what was found before may be another's now.
    pub(super) epoch: u32,
    /// Where looking for stale nodes goes on.
    sweep_at: usize,
}

impl Default for Cache {
    fn default() -> Self {
        // Destinations are chosen by senders: they cannot tell which collide.
        let state = RandomState::new();
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            index: vec![Entry::VACANT; SMALLEST].into_boxed_slice(),
            shares: Shares::default(),
            seed: std::array::from_fn(|i| state.hash_one(i)),
            next_number: 0,
            epoch: 0,
            sweep_at: 0,
        }
    }
}

impl Cache {
    /// Nodes in use.
    pub(super) const fn len(&self) -> usize {
        self.shares.len()
    }

    #[inline]
    pub(super) fn hash(&self, key: &Key) -> u64 {
        let ([a, b, c], [s, t, u]) = (key.0, self.seed);
        let low = fold(a.wrapping_add(s), b.wrapping_add(t));
        fold(low ^ c.rotate_left(32), c.wrapping_add(u))
    }

    /// Where the entry with this key is in the index.
    #[inline]
    fn entry(&self, key: &Key) -> Option<&Entry> {
        let mask = self.index.len() - 1;
        let mut at = self.hash(key) as usize & mask;
        loop {
            // Invariant: half of the index is vacant.
            let entry = self.index.get(at)?;
            if entry.key == *key {
                return Some(entry);
            }
            if entry.place == NOWHERE {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// What there is for this key.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Hit> {
        let entry = self.entry(key)?;
        Some(match entry.program {
            crate::worker::TO_BE_DERIVED => Hit::Inner(entry.place),
            program => Hit::Leaf(program),
        })
    }

    #[inline]
    pub(super) fn node(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)?.as_ref()
    }

    /// The node with this key, or a new one; its number, and the programs that lost a user.
    pub(super) fn insert(&mut self, key: Key, new: NewNode, lost: &mut Vec<ProgramId>) -> u32 {
        let hash = self.hash(&key);
        if let Some(place) = self.entry(&key).map(|entry| entry.place) {
            if let Some(Some(node)) = self.nodes.get_mut(place as usize)
                && node.next == new.next
            {
                // The nodes below stay; the last walk vouches for it.
                let number = node.number;
                if node.program != new.program {
                    self.epoch = self.epoch.wrapping_add(1);
                    let at = self.at(hash, place);
                    if let Some(entry) = self.index.get_mut(at) {
                        entry.program = new.leaf();
                    }
                }
                if let Some(Some(node)) = self.nodes.get_mut(place as usize) {
                    lost.push(std::mem::replace(&mut node.program, new.program));
                }
                return number;
            }
            lost.extend(self.remove(place));
        }
        if self.shares.len() >= MOST
            && let Some(victim) = self.shares.victim(new.tenant)
        {
            lost.extend(self.remove(victim.key));
        }
        if (self.shares.len() + 1) * 2 > self.index.len() {
            self.grow();
        }
        self.put(key, hash, new)
    }

    fn put(&mut self, key: Key, hash: u64, new: NewNode) -> u32 {
        let leaf = new.leaf();
        let NewNode { next, program, tenant } = new;
        let place = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.nodes.len() as u32 - 1
        });
        let number = self.next_number;
        // After four thousand million nodes the first ones are long gone.
        self.next_number = self.next_number.wrapping_add(1);
        let ticket = self.shares.enter(tenant, Rank::Low, place);
        if let Some(slot) = self.nodes.get_mut(place as usize) {
            *slot = Some(Node { hash, number, program, next, tenant, ticket });
        }
        self.enter(hash, Entry { key, place, program: leaf });
        number
    }

    fn enter(&mut self, hash: u64, new: Entry) {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(entry) = self.index.get_mut(at) {
            if entry.place == NOWHERE {
                *entry = new;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let larger = vec![Entry::VACANT; self.index.len() * 2].into_boxed_slice();
        for entry in std::mem::replace(&mut self.index, larger) {
            if let Some(hash) = self.node(entry.place).map(|node| node.hash) {
                self.enter(hash, entry);
            }
        }
    }

    /// Where the entry of the node in this place is, which has this hash.
    fn at(&self, hash: u64, place: u32) -> usize {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index.get(at).is_some_and(|entry| entry.place != place && entry.place != NOWHERE) {
            at = (at + 1) & mask;
        }
        at
    }

    /// Takes a node out; the program that loses a user.
    pub(super) fn remove(&mut self, place: u32) -> Option<ProgramId> {
        let node = self.nodes.get_mut(place as usize)?.take()?;
        self.epoch = self.epoch.wrapping_add(1);
        self.shares.leave(node.tenant, node.ticket);
        self.free.push(place);
        self.close(self.at(node.hash, place));
        Some(node.program)
    }

    /// Vacates an entry of the index and moves up those behind it that would not be found any more.
    fn close(&mut self, mut gap: usize) {
        let mask = self.index.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let Some(&moved) = self.index.get(at) else { break };
            let Some(home) = self.node(moved.place).map(|node| node.hash as usize & mask) else { break };
            // Does the gap lie between its home and where it is?
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                if let Some(entry) = self.index.get_mut(gap) {
                    *entry = moved;
                }
                gap = at;
            }
        }
        if let Some(entry) = self.index.get_mut(gap) {
            *entry = Entry::VACANT;
        }
    }

    /// Looks at some nodes and takes out those that are no longer current; their programs.
    pub(super) fn sweep(&mut self, step: usize, programs: &Programs, lost: &mut Vec<ProgramId>) {
        for _ in 0..step.min(self.nodes.len()) {
            self.sweep_at = if self.sweep_at < self.nodes.len() { self.sweep_at } else { 0 };
            let place = self.sweep_at as u32;
            self.sweep_at += 1;
            if self.node(place).is_some_and(|node| !programs.is_current(node.program)) {
                lost.extend(self.remove(place));
            }
        }
    }
}

/// Both halves of the product, folded together.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests;
