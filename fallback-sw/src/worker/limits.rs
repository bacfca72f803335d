//! Rates that an attacker must not exceed.

use std::{collections::HashMap, hash::Hash};

use offload_rules::VifId;

use super::Event;

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
    pub(super) fn retain(&mut self, keep: impl Fn(K) -> bool) {
        self.buckets.retain(|whose, _| keep(*whose));
    }
}

/// What an event is about, each with a rate of its own: a storm of announcements must not drown what a gateway answers, or it would
/// be taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// Answers to the node.
    Answer,
    /// All else.
    Hearsay,
}

impl Topic {
    pub(super) const fn of(event: &Event) -> Self {
        match event {
            Event::Neighbour { told, .. } if told.is_answer() => Self::Answer,
            _ => Self::Hearsay,
        }
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
