//! Decisions for packets without flows, kept as long as they are current: a table of bounded size, each tenant with its share.
//!
//! Decisions are the leaves of trees whose inner nodes say what else of the packet to look at; see [`Key`]. A node is kept alive by the
//! program of the walk that made it: it holds while that program is current, and while the routes to tunnel ends that the walk
//! looked up have the same answers. A tenant's scan takes the places of its own nodes once the table is full.

use std::hash::{BuildHasher, RandomState};

use offload_rules::{
    classify::{FixedRoute, PacketRead},
    forwarding::Snapshot,
};

use super::key::Key;
use crate::{
    prefetch,
    shares::{Rank, Shares, Ticket},
    worker::{ProgramId, Programs, Tenant},
};

/// Nodes at most. Routes that lead to one nexthop with one label share theirs, so that this is plenty for nexthops, not routes.
const MOST: usize = 16_384;
/// Entries of the index before anything is in it; a power of two.
const SMALLEST: usize = 256;
/// An entry of the index that refers to no node.
const VACANT: u32 = u32::MAX;

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
    key: Key,
    hash: u64,
    /// Never used again: keys of nodes below hold it.
    pub(super) number: u32,
    /// Low bits of the version of the snapshot in which it was last found current.
    version: u32,
    pub(super) program: ProgramId,
    pub(super) next: Next,
    fixed: Box<[FixedRoute]>,
    tenant: Tenant,
    ticket: Ticket,
}

/// What a new node holds.
pub(super) struct NewNode {
    pub(super) next: Next,
    /// With one more user, which is this node.
    pub(super) program: ProgramId,
    pub(super) fixed: Box<[FixedRoute]>,
    pub(super) tenant: Tenant,
    /// Low bits of the snapshot's version.
    pub(super) version: u32,
}

/// The table of one worker.
pub(super) struct Cache {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    /// By hash, linear probing, at most half full: places in `nodes`.
    index: Box<[u32]>,
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
            index: vec![VACANT; SMALLEST].into_boxed_slice(),
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

    /// Asks for the line of the index that a key is found by.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(entry) = self.index.get(hash as usize & (self.index.len() - 1)) {
            prefetch::read(entry);
        }
    }

    /// The place of the node with this key.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            // Invariant: half of the index is vacant.
            let place = *self.index.get(at)?;
            let node = self.nodes.get(place as usize)?.as_ref()?;
            if node.key == *key {
                return Some(place);
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    pub(super) fn node(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)?.as_ref()
    }

    /// Is the node current? It is stamped if it is.
    #[inline]
    pub(super) fn is_current(
        &mut self,
        place: u32,
        version: u32,
        snapshot: &Snapshot,
        programs: &mut Programs,
    ) -> bool {
        match self.node(place) {
            Some(node) if node.version == version => true,
            Some(_) => self.renew(place, version, snapshot, programs),
            None => false,
        }
    }

    #[inline(never)]
    fn renew(&mut self, place: u32, version: u32, snapshot: &Snapshot, programs: &mut Programs) -> bool {
        let Some(Some(node)) = self.nodes.get_mut(place as usize) else { return false };
        let current = programs.is_current(node.program) && node.fixed.iter().all(|route| route.holds(snapshot));
        if current {
            node.version = version;
        }
        current
    }

    /// The node with this key, or a new one; its number, and the programs that lost a user.
    pub(super) fn insert(&mut self, key: Key, new: NewNode, lost: &mut Vec<ProgramId>) -> u32 {
        let hash = self.hash(&key);
        if let Some(place) = self.find(hash, &key) {
            if let Some(Some(node)) = self.nodes.get_mut(place as usize)
                && node.next == new.next
            {
                // The nodes below stay; the last walk vouches for it.
                if node.program != new.program {
                    self.epoch = self.epoch.wrapping_add(1);
                }
                lost.push(std::mem::replace(&mut node.program, new.program));
                node.fixed = new.fixed;
                node.version = new.version;
                return node.number;
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
        let NewNode { next, program, fixed, tenant, version } = new;
        let place = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.nodes.len() as u32 - 1
        });
        let number = self.next_number;
        // After four thousand million nodes the first ones are long gone.
        self.next_number = self.next_number.wrapping_add(1);
        let ticket = self.shares.enter(tenant, Rank::Low, place);
        if let Some(slot) = self.nodes.get_mut(place as usize) {
            *slot = Some(Node { key, hash, number, version, program, next, fixed, tenant, ticket });
        }
        self.enter(hash, place);
        number
    }

    fn enter(&mut self, hash: u64, place: u32) {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(entry) = self.index.get_mut(at) {
            if *entry == VACANT {
                *entry = place;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        self.index = vec![VACANT; self.index.len() * 2].into_boxed_slice();
        for place in 0..self.nodes.len() as u32 {
            if let Some(hash) = self.node(place).map(|node| node.hash) {
                self.enter(hash, place);
            }
        }
    }

    /// Takes a node out; the program that loses a user.
    pub(super) fn remove(&mut self, place: u32) -> Option<ProgramId> {
        let node = self.nodes.get_mut(place as usize)?.take()?;
        self.epoch = self.epoch.wrapping_add(1);
        self.shares.leave(node.tenant, node.ticket);
        self.free.push(place);
        let mask = self.index.len() - 1;
        let mut at = node.hash as usize & mask;
        while self.index.get(at).is_some_and(|entry| *entry != place && *entry != VACANT) {
            at = (at + 1) & mask;
        }
        self.close(at);
        Some(node.program)
    }

    /// Vacates an entry of the index and moves up those behind it that would not be found any more.
    fn close(&mut self, mut gap: usize) {
        let mask = self.index.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let Some(&place) = self.index.get(at) else { break };
            let Some(home) = self.node(place).map(|node| node.hash as usize & mask) else { break };
            // Does the gap lie between its home and where it is?
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                if let Some(entry) = self.index.get_mut(gap) {
                    *entry = place;
                }
                gap = at;
            }
        }
        if let Some(entry) = self.index.get_mut(gap) {
            *entry = VACANT;
        }
    }

    /// Looks at some nodes and takes out those that are no longer current; their programs.
    pub(super) fn sweep(
        &mut self,
        step: usize,
        version: u32,
        snapshot: &Snapshot,
        programs: &mut Programs,
        lost: &mut Vec<ProgramId>,
    ) {
        for _ in 0..step.min(self.nodes.len()) {
            self.sweep_at = if self.sweep_at < self.nodes.len() { self.sweep_at } else { 0 };
            let place = self.sweep_at as u32;
            self.sweep_at += 1;
            if self.node(place).is_some() && !self.is_current(place, version, snapshot, programs) {
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
