//! What flows hold of what there is little of, and give back when they go: ports of a NAT's address, places with a member of a load
//! balancer, SAs.
//!
//! A flow names its leases by one number ([`Binding::leases`]) and may have any number of them. They are kept in one slab for all
//! flows, so that a flow with leases costs no allocation of its own. A pair's leases are held by the direction that made it.
//!
//! ```text
//!            add                       flow removed
//!   (none) ───────► held, by its flow ─────────────► given back, once
//!                    │          ▲
//!                    └──────────┘ derived anew: choices are kept
//! ```
//!
//! [`Binding::leases`]: crate::flow_table::Binding::leases

/// No leases.
pub const NONE: u32 = 0;

#[derive(Debug)]
enum Place<L> {
    /// Held; the number of the flow's next lease.
    Held { lease: L, next: u32 },
    /// The number of the place that was freed before.
    Free { next: u32 },
}

/// The leases of all flows of one worker. `L` says what each is of.
#[derive(Debug)]
pub struct Leases<L> {
    /// By number, less one.
    places: Vec<Place<L>>,
    /// The place that was freed last.
    freed: u32,
    held: u32,
}

impl<L> Default for Leases<L> {
    fn default() -> Self {
        Self { places: Vec::new(), freed: NONE, held: 0 }
    }
}

impl<L> Leases<L> {
    /// Adds one to those of a flow whose first one is `first` ([`NONE`]: it has none). Returns the number of its first one from
    /// now on.
    #[must_use]
    pub fn add(&mut self, first: u32, lease: L) -> u32 {
        let held = Place::Held { lease, next: first };
        self.held += 1;
        let number = self.freed;
        let Some(place) = self.places.get_mut(at(number)) else {
            self.places.push(held);
            return self.places.len() as u32;
        };
        if let Place::Free { next } = std::mem::replace(place, held) {
            self.freed = next;
        }
        number
    }

    /// Takes those of a flow from it, the last one first, and hands each to its owner.
    pub fn give_back(&mut self, first: u32, mut owner: impl FnMut(L)) {
        let mut number = first;
        while let Some(place @ Place::Held { .. }) = self.places.get_mut(at(number)) {
            let Place::Held { lease, next } = std::mem::replace(place, Place::Free { next: self.freed }) else {
                return;
            };
            self.freed = number;
            self.held -= 1;
            number = next;
            owner(lease);
        }
    }

    /// Octets of memory for those that were ever held at the same time.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.places.len() * size_of::<Place<L>>()
    }

    /// How many are held.
    #[must_use]
    pub const fn held(&self) -> u32 {
        self.held
    }
}

/// Where a number's place is; [`NONE`] is beyond all.
const fn at(number: u32) -> usize {
    (number as usize).wrapping_sub(1)
}

/// What a worker's flows can hold.
#[derive(Debug)]
pub enum Lease {
    /// Counted by a test when it comes back.
    #[cfg(test)]
    Counted(std::sync::Arc<std::sync::atomic::AtomicU32>),
}

impl Lease {
    /// Returns it to whom it belongs.
    pub(super) fn give_back(self) {
        match self {
            #[cfg(test)]
            Self::Counted(count) => _ = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use offload_rules::{VifId, VrfId, flow::FlowKey, forwarding::Snapshot};

    use super::*;
    use crate::{
        flow_table::{Binding, Class, FlowTable, Holdings, Times},
        worker::{Worker, WorkerConfig},
    };

    #[test]
    fn each_lease_comes_back_once_and_its_place_is_used_again() {
        let mut leases = Leases::default();
        let mut flows = [NONE; 3];
        for round in 0..3 {
            for (flow, first) in flows.iter_mut().enumerate() {
                *first = leases.add(*first, (flow, round));
            }
        }
        assert_eq!((leases.held(), leases.places.len()), (9, 9));
        let mut back = Vec::new();
        leases.give_back(flows[1], |lease| back.push(lease));
        assert_eq!(back, [(1, 2), (1, 1), (1, 0)]);
        leases.give_back(flows[1], |lease| back.push(lease));
        assert_eq!((back.len(), leases.held()), (3, 6), "not twice");
        flows[1] = leases.add(NONE, (1, 9));
        leases.give_back(flows[0], |lease| back.push(lease));
        leases.give_back(flows[2], |lease| back.push(lease));
        assert_eq!((back.len(), leases.held(), leases.places.len()), (9, 1, 9));
    }

    /// Both directions have a binding and were derived anew since they were made, and two leases are held: a port, and a place with a member.
    #[test]
    fn a_pair_with_all_operands_of_a_nat_costs_at_most_320_octets() {
        const PAIRS: u32 = 100_000;
        let mut flows = FlowTable::with_seed(2 * PAIRS, 7).unwrap();
        let (mut holdings, mut leases) = (Holdings::new(2 * PAIRS).unwrap(), Leases::default());
        let (vrf, vif, holder) = (VrfId::new(1).unwrap(), VifId::new(1).unwrap(), holdings.holder(1));
        for number in 0..PAIRS {
            let src = Ipv4Addr::from_bits(0x0a00_0000 | number >> 8).into();
            let forward = FlowKey::new(vrf, vif, src, Ipv4Addr::LOCALHOST.into(), 17, number as u16 & 0xff, 53);
            let (slot, _) = flows.insert_pair(forward, forward.reversed(vrf, vif)).unwrap();
            holdings.file(slot, holder, Class::Unanswered, 0);
            let port = leases.add(NONE, u64::from(number));
            flows.binding_mut(slot).unwrap().leases = leases.add(port, u64::from(number));
        }
        let beside = 2 * PAIRS as usize * (size_of::<Binding>() + size_of_val(&Times::default().changed));
        let octets = flows.memory_bytes() + holdings.memory_bytes(flows.len()) + leases.memory_bytes() + beside;
        assert!(octets <= 320 * PAIRS as usize, "{octets} octets");
    }

    #[test]
    fn a_flow_that_is_removed_gives_its_leases_back() {
        let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: false };
        let mut worker = Worker::new(config, Arc::new(Snapshot::empty())).unwrap();
        let (vrf, vif) = (VrfId::new(1).unwrap(), VifId::new(1).unwrap());
        let [src, dst] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(std::net::IpAddr::from);
        let forward = FlowKey::new(vrf, vif, src, dst, 17, 1000, 53);
        let back = Arc::new(AtomicU32::new(0));
        for expected in [2, 4] {
            let (slot, other) = worker.state.flows.insert_pair(forward, forward.reversed(vrf, vif)).unwrap();
            assert_eq!(worker.state.flows.binding(slot).leases, NONE, "nothing is left from the flow before");
            for _ in 0..2 {
                let first =
                    worker.state.leases.add(worker.state.flows.binding(slot).leases, Lease::Counted(Arc::clone(&back)));
                worker.state.flows.binding_mut(slot).unwrap().leases = first;
            }
            worker.state.remove_flow(other);
            assert_eq!((back.load(Ordering::Relaxed), worker.state.leases.held()), (expected, 0));
        }
    }
}
