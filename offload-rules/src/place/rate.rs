//! The smoothed rate of a flow.

/// Octets a second, smoothed exponentially over time: a sample counts by how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    value: u64,
    at: u64,
}

impl Rate {
    /// A first sample.
    #[must_use]
    pub const fn new(octets_per_second: u64, now_ms: u64) -> Self {
        Self { value: octets_per_second, at: now_ms }
    }

    /// Takes in what was measured since the last sample. `window_ms`: a sample that took as long counts a half.
    pub fn update(&mut self, octets_per_second: u64, now_ms: u64, window_ms: u64) {
        let took = u128::from(now_ms.saturating_sub(self.at));
        let window = u128::from(window_ms);
        self.at = self.at.max(now_ms);
        let gap = u128::from(self.value.abs_diff(octets_per_second));
        // Without time, nothing was measured; without a window, nothing is remembered. Rounded up, so that it arrives.
        let Some(part) = (gap * took + (window + took).saturating_sub(1)).checked_div(window + took) else { return };
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        self.value = if octets_per_second > self.value {
            self.value.saturating_add(part)
        } else {
            self.value.saturating_sub(part)
        };
    }

    /// Octets a second.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_as_long_as_the_window_counts_a_half_and_a_longer_one_more() {
        let mut rate = Rate::new(1000, 0);
        rate.update(0, 100, 100);
        assert_eq!(rate.value(), 500);
        rate.update(0, 400, 100);
        assert_eq!(rate.value(), 125);
    }

    #[test]
    fn a_flow_that_stopped_comes_to_nothing() {
        let mut rate = Rate::new(3, 0);
        (1..10).for_each(|i| rate.update(0, i * 10, 1000));
        assert_eq!(rate.value(), 0);
    }

    #[test]
    fn a_sample_that_took_no_time_and_a_clock_that_jumps_back_change_nothing() {
        let mut rate = Rate::new(1000, 500);
        rate.update(9_000_000, 500, 100);
        rate.update(9_000_000, 100, 100);
        assert_eq!(rate.value(), 1000);
    }

    #[test]
    fn without_a_window_the_last_sample_counts_and_nothing_overflows() {
        let mut rate = Rate::new(u64::MAX, 0);
        rate.update(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(rate.value(), u64::MAX);
        let mut rate = Rate::new(7, 0);
        rate.update(9, 1, 0);
        assert_eq!(rate.value(), 9);
        rate.update(11, 1, 0);
        assert_eq!(rate.value(), 9);
    }
}
