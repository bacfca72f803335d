//! Rates that an attacker must not exceed.

use std::collections::HashMap;

use offload_rules::VifId;

/// A token bucket that holds one second's worth. Time comes from outside, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of a token.
    level: u64,
    at: u64,
}

/// One rate for each vif.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    buckets: HashMap<VifId, Bucket>,
}

impl RateLimit {
    /// Takes a token of a vif whose rate is `per_second`, if there is one.
    pub(super) fn allow(&mut self, vif: VifId, per_second: u32, now_ms: u64) -> bool {
        let full = u64::from(per_second) * 1000;
        let bucket = self.buckets.entry(vif).or_insert(Bucket { level: full, at: now_ms });
        let earned = now_ms.saturating_sub(bucket.at).saturating_mul(u64::from(per_second));
        bucket.level = bucket.level.saturating_add(earned).min(full);
        bucket.at = bucket.at.max(now_ms);
        match bucket.level.checked_sub(1000) {
            Some(rest) => {
                bucket.level = rest;
                true
            }
            None => false,
        }
    }

    /// Forgets vifs that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(VifId) -> bool) {
        self.buckets.retain(|vif, _| keep(*vif));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_burst_then_the_rate_and_no_vif_eats_another_ones_share() {
        let mut limit = RateLimit::default();
        let (a, b) = (VifId::new(1).unwrap(), VifId::new(2).unwrap());
        assert_eq!((0..50).filter(|_| limit.allow(a, 10, 5000)).count(), 10);
        assert_eq!((0..50).filter(|_| limit.allow(a, 10, 5500)).count(), 5);
        assert_eq!((0..50).filter(|_| limit.allow(b, 10, 5500)).count(), 10);
        // A clock that jumps back gives nothing.
        assert!(!limit.allow(a, 10, 100));
    }
}
