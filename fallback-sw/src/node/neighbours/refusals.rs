//! Log lines about neighbours that there was no room for: at most one a second.

use crate::worker::{GiveUp, NeighbourKey};

/// Milliseconds between two lines.
const INTERVAL_MS: u64 = 1000;

/// Refusals since the last line.
#[derive(Debug, Default)]
pub struct Refusals {
    said_at: Option<u64>,
    count: u64,
}

impl Refusals {
    /// Counts some; with the number to be said, when it is time for a line.
    pub fn count(&mut self, more: u64, now: u64) -> Option<u64> {
        self.count += more;
        if self.said_at.is_some_and(|at| now < at.saturating_add(INTERVAL_MS)) {
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.count))
    }

    /// Takes note of a neighbour that is given up.
    pub fn note(&mut self, (vif, address): NeighbourKey, why: GiveUp, now: u64) {
        if why != GiveUp::Unresolved
            && let Some(count) = self.count(1, now)
        {
            tracing::warn!(%vif, %address, reason = why.reason().name(), count, "neighbours refused; the last of them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_line_a_second_that_counts_them() {
        let mut refusals = Refusals::default();
        let said: Vec<_> = (0..2500).filter_map(|ms| refusals.count(1, 5000 + ms)).collect();
        assert_eq!(said, [1, 1000, 1000]);
    }
}
