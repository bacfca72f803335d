//! Rates that an attacker must not exceed.

use std::{collections::HashMap, hash::Hash};

use offload_rules::{VifId, forwarding::Snapshot};

use super::{
    event::Event,
    tenant::{NeighbourKey, Tenant},
};

/// A token bucket that holds one second's worth. Time comes from outside, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of a token.
    level: u64,
    at: u64,
}

/// One rate for each vif, or whatever else there is one for.
#[derive(Debug)]
pub(super) struct RateLimit<K = VifId> {
    buckets: HashMap<K, Bucket>,
}

impl<K> Default for RateLimit<K> {
    fn default() -> Self {
        Self { buckets: HashMap::new() }
    }
}

/// What a bucket holds at most.
fn full(per_second: u32) -> u64 {
    u64::from(per_second) * 1000
}

impl Bucket {
    /// With what it has earned since. A clock that jumps back gives nothing.
    fn filled(self, per_second: u32, now_ms: u64) -> Self {
        let earned = now_ms.saturating_sub(self.at).saturating_mul(u64::from(per_second));
        Self { level: self.level.saturating_add(earned).min(full(per_second)), at: self.at.max(now_ms) }
    }
}

impl<K: Copy + Eq + Hash> RateLimit<K> {
    /// Is there a token? Takes none: for asking before work that may turn out to need none.
    pub(super) fn has(&self, whose: K, per_second: u32, now_ms: u64) -> bool {
        let level = self.buckets.get(&whose).map_or(full(per_second), |bucket| bucket.filled(per_second, now_ms).level);
        level >= 1000
    }

    /// Takes a token of one whose rate is `per_second`, if there is one.
    pub(super) fn allow(&mut self, whose: K, per_second: u32, now_ms: u64) -> bool {
        let fresh = Bucket { level: full(per_second), at: now_ms };
        let bucket = self.buckets.entry(whose).or_insert(fresh);
        *bucket = bucket.filled(per_second, now_ms);
        match bucket.level.checked_sub(1000) {
            Some(rest) => {
                bucket.level = rest;
                true
            }
            None => false,
        }
    }

    /// Forgets those that are gone.
    fn retain(&mut self, keep: impl Fn(K) -> bool) {
        self.buckets.retain(|whose, _| keep(*whose));
    }
}

/// Events of one class that the packets of one vif (or tenant) may cause in a second: a flood of ARP must neither fill the queue to
/// control nor keep the forwarding state changing.
const MAX_EVENTS: u32 = 1000;

/// Classes of events, each with a rate of its own: a storm of announcements must not drown what a gateway answers, or it would be
/// taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum EventClass {
    /// Answers to questions of the node.
    Solicited,
    /// All others.
    Unsolicited,
}

impl EventClass {
    const fn of(event: &Event) -> Self {
        match event {
            Event::Neighbour { claim, .. } if claim.is_answer() => Self::Solicited,
            _ => Self::Unsolicited,
        }
    }
}

/// What the packets of a vif or tenant may make a worker do in a second.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) icmp_errors: RateLimit<Tenant>,
    pub(super) new_flows: RateLimit<Tenant>,
    events: RateLimit<(VifId, EventClass)>,
    /// Neighbours that are asked for.
    neighbours: RateLimit<Tenant>,
}

impl Limits {
    /// Tells the rest of the node what a packet of this vif has said, unless the vif says more than can be listened to.
    pub(super) fn tell(&mut self, vif: VifId, event: Event, now: u64, events: &mut Vec<Event>) {
        if self.events.allow((vif, EventClass::of(&event)), MAX_EVENTS, now) {
            events.push(event);
        }
    }

    /// Asks control for a neighbour, unless the tenant asks for more than can be looked for.
    pub(super) fn need(&mut self, neighbour: NeighbourKey, tenant: Tenant, now: u64, events: &mut Vec<Event>) -> bool {
        let allowed = self.neighbours.allow(tenant, MAX_EVENTS, now);
        if allowed {
            events.push(Event::Needed { neighbour, tenant });
        }
        allowed
    }

    /// Forgets vifs and VRFs that are gone.
    pub(super) fn retain(&mut self, snapshot: &Snapshot) {
        self.icmp_errors.retain(|tenant| tenant.exists(snapshot));
        self.new_flows.retain(|tenant| tenant.exists(snapshot));
        self.events.retain(|(vif, _)| snapshot.vif(vif).is_some());
        self.neighbours.retain(|tenant| tenant.exists(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_burst_then_the_rate_and_no_vif_eats_another_ones_share() {
        let mut limit = RateLimit::<VifId>::default();
        let (a, b) = (VifId::new(1).unwrap(), VifId::new(2).unwrap());
        assert_eq!((0..50).filter(|_| limit.allow(a, 10, 5000)).count(), 10);
        assert_eq!((0..50).filter(|_| limit.allow(a, 10, 5500)).count(), 5);
        assert_eq!((0..50).filter(|_| limit.allow(b, 10, 5500)).count(), 10);
        // A clock that jumps back gives nothing.
        assert!(!limit.allow(a, 10, 100));
    }

    #[test]
    fn to_ask_for_a_token_says_what_taking_one_would_and_takes_none() {
        let mut limit = RateLimit::<VifId>::default();
        let vif = VifId::new(1).unwrap();
        assert!(!limit.has(vif, 0, 5000));
        for now in [5000, 5000, 5000, 5100, 5400, 5500, 6000, 100] {
            for _ in 0..2 {
                let has = (limit.has(vif, 2, now), limit.has(vif, 2, now));
                assert_eq!(has, (has.0, limit.allow(vif, 2, now)), "{now}");
            }
        }
    }
}
