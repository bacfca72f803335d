//! What own SAs have sent lately, as far as ICMP errors may quote it.

use std::ops::Range;

use offload_rules::VifId;

use super::outbound::Outbound;

/// Milliseconds of a span: what was sent in this one and in the last one was sent lately. Longer than an error takes to come
/// back, and short enough that what was recorded once is of no use.
pub(super) const SPAN_MS: u64 = 10_000;
/// SAs of a worker that are gone, and may still be quoted.
pub(super) const MAX_FORMER: usize = 64;
/// The same of a tunnel.
pub(super) const MAX_FORMER_OF_TUNNEL: usize = 8;

/// An SA whose packets an ICMP error may quote: a tunnel seals with it, or did lately.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotableSa {
    pub(super) spi: u32,
    /// The worker that owns it.
    pub(super) owner: usize,
    /// Milliseconds of the node's clock after which it is quoted no more.
    pub(super) until: u64,
}

/// The sequence numbers that a removed SA has sent lately.
#[derive(Debug)]
pub(super) struct RetiredSa {
    pub(super) tunnel: VifId,
    pub(super) spi: u32,
    pub(super) sent: [Range<u64>; 2],
    pub(super) until: u64,
}

/// Timer of the spans for which sent numbers are kept.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// `None` before the first look.
    next: Option<u64>,
}

impl Spans {
    /// How many spans have begun since the last look; no more than are kept.
    pub(super) fn begun(&mut self, now: u64) -> u64 {
        let begun = match self.next {
            Some(next) if now < next => return 0,
            Some(next) => 1 + (now - next) / SPAN_MS,
            None => 0,
        };
        self.next = Some(now + SPAN_MS);
        begun.min(2)
    }
}

impl Outbound {
    /// Numbers sent lately: here, and by the NIC.
    pub(super) fn sent_lately(&self) -> [Range<u64>; 2] {
        [self.sa.sent_lately(), self.nic.sent_lately()]
    }
}

#[cfg(test)]
mod tests {
    use super::{SPAN_MS, Spans};

    #[test]
    fn after_a_long_silence_both_spans_are_over() {
        let mut spans = Spans::default();
        // Whatever the clock says at first.
        let start = 1_700_000_000_000;
        assert_eq!(spans.begun(start), 0);
        assert_eq!(spans.begun(start + SPAN_MS - 1), 0);
        assert_eq!(spans.begun(start + SPAN_MS), 1);
        assert_eq!(spans.begun(start + 10 * SPAN_MS), 2);
    }
}
