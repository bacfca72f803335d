//! The clock of a replay.

use std::time::Duration;

/// What the node's clock follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockMode {
    /// One millisecond a frame, whatever the captures say: nothing ages.
    #[default]
    Steady,
    /// The captures' timestamps.
    Pcap,
}

/// Ticks between two frames at the most; a longer gap is crossed in longer steps.
const MAX_TICKS: u64 = 2000;
/// Milliseconds between two ticks.
const TICK_MS: u64 = 100;

/// Milliseconds of the node's clock, from 0.
#[derive(Debug)]
pub(super) struct Clock {
    mode: ClockMode,
    first: Option<Duration>,
    last: Duration,
    now: u64,
}

impl Clock {
    pub(super) const fn new(mode: ClockMode) -> Self {
        Self { mode, first: None, last: Duration::ZERO, now: 0 }
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// Timestamp of the last frame.
    pub(super) const fn last(&self) -> Duration {
        self.last
    }

    /// Goes on to the time of a frame; the moments to tick at on the way.
    pub(super) fn advance_to(&mut self, time: Duration) -> Vec<u64> {
        let first = *self.first.get_or_insert(time);
        self.last = time;
        let target = match self.mode {
            ClockMode::Steady => self.now + 1,
            ClockMode::Pcap => u64::try_from(time.saturating_sub(first).as_millis()).unwrap_or(u64::MAX),
        };
        self.ticks_to(target)
    }

    /// Lets time pass after the last frame.
    pub(super) fn drain(&mut self, seconds: u32) -> Vec<u64> {
        self.ticks_to(self.now + u64::from(seconds) * 1000)
    }

    fn ticks_to(&mut self, target: u64) -> Vec<u64> {
        let from = self.now;
        // A capture may hold frames that are older than those before them: the clock never goes back.
        self.now = target.max(from);
        let step = ((self.now - from) / MAX_TICKS).max(TICK_MS);
        let first = (from / step + 1) * step;
        (first..=self.now).step_by(step as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captures_clock_ticks_each_tenth_of_a_second_and_never_goes_back() {
        let mut clock = Clock::new(ClockMode::Pcap);
        assert!(clock.advance_to(Duration::from_secs(1000)).is_empty());
        assert_eq!(clock.advance_to(Duration::from_millis(1_000_250)), [100, 200]);
        assert!(clock.advance_to(Duration::from_secs(999)).is_empty());
        assert_eq!(clock.now(), 250);
        assert_eq!(clock.advance_to(Duration::from_secs(1_000_000)).len(), 2000);
    }
}
