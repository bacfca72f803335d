//! How many, and how long: fixed size, no allocation.

/// Times in milliseconds, in buckets of powers of two: 0, 1, 2–3, 4–7 …
#[derive(Debug, Default)]
pub(super) struct Latencies {
    buckets: [u64; 24],
    total: u64,
}

impl Latencies {
    pub(super) fn record(&mut self, milliseconds: u64) {
        let bucket = (u64::BITS - milliseconds.leading_zeros()) as usize;
        let last = self.buckets.len() - 1;
        if let Some(count) = self.buckets.get_mut(bucket.min(last)) {
            *count += 1;
        }
        self.total += 1;
    }

    /// The largest time of the bucket that this share of all is in.
    pub(super) fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (1 << bucket) - 1;
            }
        }
        u64::MAX
    }
}

const SECONDS: usize = 8;

/// Events a second, over the last full seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    counts: [u64; SECONDS],
    second: u64,
}

impl Rate {
    pub(super) fn record(&mut self, now: u64) {
        self.advance(now);
        if let Some(count) = self.counts.get_mut(self.second as usize % SECONDS) {
            *count += 1;
        }
    }

    fn advance(&mut self, now: u64) {
        let second = now / 1000;
        for passed in (self.second + 1..=second).take(SECONDS) {
            if let Some(count) = self.counts.get_mut(passed as usize % SECONDS) {
                *count = 0;
            }
        }
        // More than a full turn: every bucket has been cleared, whichever it was.
        self.second = self.second.max(second);
    }

    /// Over the full seconds that are kept.
    pub(super) fn per_second(&self, now: u64) -> u64 {
        let second = now / 1000;
        let kept = (1..SECONDS as u64).filter_map(|ago| {
            let then = second.checked_sub(ago)?;
            let kept = then <= self.second && then + SECONDS as u64 > self.second;
            Some(if kept { self.counts.get(then as usize % SECONDS).copied().unwrap_or(0) } else { 0 })
        });
        let (seconds, sum) = kept.fold((0, 0), |(seconds, sum), count| (seconds + 1, sum + count));
        sum.checked_div(seconds).unwrap_or_else(|| self.counts.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_name_the_upper_end_of_their_bucket() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50), 0);
        (0..98).for_each(|_| latencies.record(1));
        latencies.record(500);
        latencies.record(u64::MAX);
        assert_eq!(latencies.percentile(50), 1);
        assert_eq!(latencies.percentile(99), 511);
    }

    #[test]
    fn the_rate_forgets_what_is_long_ago() {
        let mut rate = Rate::default();
        (0..700).for_each(|n| rate.record(10_000 + n));
        assert_eq!(rate.per_second(11_000), 100);
        assert_eq!(rate.per_second(40_000), 0);
        rate.record(100_000);
        assert_eq!(rate.per_second(101_000), 0, "one in seven seconds");
    }
}
