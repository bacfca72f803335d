//! Packets that wait for a neighbour.
//!
//! Bounded for each neighbour and in all, and shared among tenants: when the queue is full, a packet of the tenant that holds most gives
//! way, so that a scan by one tenant costs the others nothing (RFC 6583 §7). Of a tenant's packets, the latest for each neighbour is kept
//! longest (RFC 1122 §2.3.2.2). Control asks for the neighbours, see [`crate::node::neighbours`], and tells when one is given up; what control
//! does not tell of in time is given up here.

use std::collections::{BTreeMap, btree_map::Entry};

use offload_rules::DropReason;

use super::{
    delivery::Delivery,
    tenant::{NeighbourKey, Tenant},
};
use crate::shares::{Rank, Shares, Ticket};

/// Milliseconds that a packet waits at most: longer than control asks.
const LONGEST_MS: u64 = 4000;

/// Why packets wait no longer for a neighbour that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// It did not answer.
    Unresolved,
    /// The neighbour table has no room for it.
    TableFull,
    /// Too many are being asked for.
    QueueFull,
}

impl GiveUp {
    /// What its packets are dropped for.
    #[must_use]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Unresolved => DropReason::NeighbourUnresolved,
            Self::TableFull => DropReason::NeighbourTableFull,
            Self::QueueFull => DropReason::HeldQueueFull,
        }
    }
}

/// One neighbour that is waited for.
#[derive(Debug)]
struct Waiting {
    /// In order of arrival.
    packets: BTreeMap<Ticket, (Tenant, Delivery)>,
    since: u64,
}

/// The queue of one worker.
#[derive(Debug, Default)]
pub struct HoldQueue {
    waiting: BTreeMap<NeighbourKey, Waiting>,
    shares: Shares<Tenant, NeighbourKey>,
}

/// How many packets may wait.
#[derive(Debug, Clone, Copy)]
pub struct HoldLimits {
    /// For one neighbour.
    pub per_neighbour: usize,
    /// In all.
    pub in_all: usize,
}

impl HoldQueue {
    /// Does anything wait for this neighbour?
    #[must_use]
    pub fn waits_for(&self, neighbour: NeighbourKey) -> bool {
        self.waiting.contains_key(&neighbour)
    }

    /// Holds a packet; those that give way to it come back. A full queue of one neighbour drops its oldest packet (RFC 4861 §7.2.2).
    pub fn hold(
        &mut self,
        neighbour: NeighbourKey,
        tenant: Tenant,
        packet: Delivery,
        limits: HoldLimits,
        now: u64,
    ) -> Vec<Delivery> {
        let mut dropped = Vec::new();
        // What gives way may be all that waits for it: it has been waited for all the same.
        let since = self.waiting.get(&neighbour).map_or(now, |waiting| waiting.since);
        while let Some(waiting) = self.waiting.get(&neighbour)
            && waiting.packets.len() >= limits.per_neighbour.max(1)
            && let Some((ticket, (tenant, _))) = waiting.packets.first_key_value()
        {
            let (ticket, tenant) = (*ticket, *tenant);
            dropped.extend(self.take(neighbour, tenant, ticket));
        }
        while self.shares.len() >= limits.in_all.max(1)
            && let Some(victim) = self.shares.victim(tenant)
        {
            dropped.extend(self.take(victim.key, victim.owner, victim.ticket));
        }
        let ticket = self.shares.enter(tenant, Rank::High, neighbour);
        let waiting = self.waiting.entry(neighbour).or_insert_with(|| Waiting { packets: BTreeMap::new(), since });
        if let Some((before, (tenant, packet))) = waiting.packets.pop_last() {
            self.shares.leave(tenant, before);
            self.shares.put_back(tenant, before.lowered(), neighbour);
            waiting.packets.insert(before.lowered(), (tenant, packet));
        }
        waiting.packets.insert(ticket, (tenant, packet));
        dropped
    }

    /// Takes one packet out. A neighbour that nothing waits for is not waited for.
    fn take(&mut self, neighbour: NeighbourKey, tenant: Tenant, ticket: Ticket) -> Option<Delivery> {
        self.shares.leave(tenant, ticket);
        let Entry::Occupied(mut waiting) = self.waiting.entry(neighbour) else { return None };
        let packet = waiting.get_mut().packets.remove(&ticket);
        if waiting.get().packets.is_empty() {
            waiting.remove();
        }
        packet.map(|(_, packet)| packet)
    }

    /// Packets held that were received (not made by the node).
    #[must_use]
    pub fn held_received(&self) -> u64 {
        let packets = self.waiting.values().flat_map(|waiting| waiting.packets.values());
        packets.filter(|(_, packet)| !packet.is_own()).count() as u64
    }

    /// All packets held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.shares.len()
    }

    /// No packets held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Neighbours that are waited for, with how many packets wait for each.
    pub fn neighbours(&self) -> impl Iterator<Item = (NeighbourKey, usize)> + '_ {
        self.waiting.iter().map(|(key, waiting)| (*key, waiting.packets.len()))
    }

    /// Lets go of the packets whose neighbour is there or need not be waited for any more.
    pub fn release(&mut self, ready: impl Fn(NeighbourKey) -> bool) -> Vec<Delivery> {
        let keys: Vec<_> = self.waiting.keys().copied().filter(|key| ready(*key)).collect();
        keys.into_iter().flat_map(|key| self.release_one(key)).collect()
    }

    /// Lets go of the packets of one neighbour, in order of arrival.
    pub fn release_one(&mut self, neighbour: NeighbourKey) -> Vec<Delivery> {
        let packets = self.waiting.remove(&neighbour).map(|waiting| waiting.packets).unwrap_or_default();
        let let_go = packets.into_iter().map(|(ticket, (tenant, packet))| {
            self.shares.leave(tenant, ticket);
            packet
        });
        let_go.collect()
    }

    /// Neighbours that have been waited for too long.
    pub fn overdue(&self, now: u64) -> Vec<NeighbourKey> {
        let late = |waiting: &Waiting| now >= waiting.since.saturating_add(LONGEST_MS);
        self.waiting.iter().filter(|(_, waiting)| late(waiting)).map(|(key, _)| *key).collect()
    }
}

#[cfg(test)]
mod tests {
    use offload_rules::{VifId, VrfId};

    use super::*;
    use crate::{packet::Packet, worker::Origin};

    #[test]
    fn packets_that_replace_each_other_wait_no_longer_than_one_would() {
        let (vif, vrf) = (VifId::new(1).unwrap(), VrfId::new(1).unwrap());
        let (neighbour, limits) = ((vif, "192.0.2.1".parse().unwrap()), HoldLimits { per_neighbour: 1, in_all: 16 });
        let mut queue = HoldQueue::default();
        for now in (0..LONGEST_MS).step_by(100) {
            let packet = Delivery { packet: Packet::with_capacity(0), origin: Origin::Own(vrf) };
            assert_eq!(queue.hold(neighbour, Tenant::Vrf(vrf), packet, limits, now).len(), usize::from(now > 0));
            assert!(queue.overdue(now).is_empty());
        }
        assert_eq!(queue.overdue(LONGEST_MS), [neighbour]);
    }
}
