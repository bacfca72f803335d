//! Counters of the NIC: read round robin, reported as differences, so that each packet is reported once.

use super::{
    Engine,
    flow::RuleSet,
    rules::{Owner, Stage},
};
use crate::{
    Failure, Hits, Lowering, RuleBackend, Token, errno,
    protocol::{OffloadId, Report},
};

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// Milliseconds between two readings of one counter.
    pub(super) fn query_interval(&self) -> u64 {
        self.config.query_interval.max(self.lowering.refresh_ms()).max(1)
    }

    /// Reads the counters that are due, in one batch.
    pub(super) fn sweep(&mut self, now: u64) {
        let interval = self.query_interval();
        let mut batch = std::mem::take(&mut self.query_batch);
        batch.clear();
        for _ in 0..self.config.queries_per_poll {
            let Some((due, token)) = self.sweep.front().copied() else { break };
            if due > now {
                self.totals.sweeps += u64::from(!batch.is_empty());
                break;
            }
            self.sweep.pop_front();
            if self.is_live(token) {
                batch.push(token);
                self.sweep.push_back((now + interval, token));
            }
        }
        self.read_counters(&batch, now);
        self.query_batch = batch;
        self.check_egress(now);
    }

    /// Reads every counter now: for an account that has to be complete. The NIC must have refreshed them.
    pub fn count_all(&mut self, now: u64, reports: &mut Vec<Report>) {
        let live: Vec<Token> = self.sweep.iter().map(|(_, token)| *token).collect();
        for batch in live.chunks(self.config.queries_per_poll.max(1)) {
            self.read_counters(batch, now);
        }
        reports.append(&mut self.outbox);
    }

    /// Reads the counters of a set that is being replaced.
    pub(super) fn count_set(&mut self, set: Option<RuleSet>, now: u64) {
        for token in set.iter().flat_map(RuleSet::tokens) {
            let counted = self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live && entry.counted);
            if counted && let Ok(hits) = self.query_one(token) {
                self.report_hits(token, hits, now);
            }
        }
    }

    fn is_live(&self, token: Token) -> bool {
        self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live)
    }

    /// Reads the counters of these rules at once, and reports what they have counted.
    fn read_counters(&mut self, tokens: &[Token], now: u64) {
        if tokens.is_empty() {
            return;
        }
        let mut results = std::mem::take(&mut self.query_results);
        results.clear();
        self.backend.query(tokens, &mut results);
        for (token, result) in tokens.iter().copied().zip(results.drain(..)) {
            match result {
                // Also of a rule that an earlier result of this batch has sent on its way out: what was read is reported.
                Ok(hits) => self.report_hits(token, hits, now),
                Err(failure) if failure.errno == errno::ENOENT && self.is_live(token) => self.lost(token),
                Err(failure) => tracing::debug!(token, %failure, "counter not read"),
            }
        }
        self.query_results = results;
    }

    /// Reads one counter.
    pub(super) fn query_one(&mut self, token: Token) -> Result<Hits, Failure> {
        let mut results = std::mem::take(&mut self.query_results);
        results.clear();
        self.backend.query(&[token], &mut results);
        let result = results.pop();
        self.query_results = results;
        result.unwrap_or_else(|| Err(Failure::from_errno(errno::EIO, "the backend has not answered")))
    }

    /// A rule that is not in the NIC any more, without our doing: its flow is installed again.
    fn lost(&mut self, token: Token) {
        let Some(entry) = self.rules.get(token) else { return };
        self.totals.lost += 1;
        match entry.owner {
            Owner::Flow(id, _) => {
                tracing::warn!(token, "a rule has vanished from the NIC");
                self.reinstall(id);
            }
            Owner::Transit => self.transit_lost(token),
            Owner::Shared | Owner::Proactive | Owner::Session(_) | Owner::Canary(_) => {}
        }
    }

    /// Reports what a counter has grown by. A counter that has gone back is an old reading: nothing is reported twice.
    pub(super) fn report_hits(&mut self, token: Token, hits: Hits, now: u64) {
        let Some(entry) = self.rules.get_mut(token) else { return };
        let packets = hits.packets.saturating_sub(entry.told.packets);
        let bytes = hits.bytes.saturating_sub(entry.told.bytes);
        let elapsed = now.saturating_sub(std::mem::replace(&mut entry.read_at, now));
        entry.told = Hits { packets: entry.told.packets + packets, bytes: entry.told.bytes + bytes };
        // Software counts the frame as it came.
        let bytes = bytes.saturating_add(packets.saturating_mul(entry.uncounted.into()));
        let owner = entry.owner;
        if !matches!(owner, Owner::Flow(..) | Owner::Transit) {
            return;
        }
        self.egress_check.counted(entry.egress, entry.shape, packets);
        let shape = entry.shape.filter(|_| packets > 0 || bytes > 0);
        if let Some(shape) = shape.and_then(|shape| self.shapes.get_mut(shape)) {
            (shape.proven, shape.doubts) = (true, 0);
        }
        let Owner::Flow(id, direction) = owner else { return self.report_transit(token, Hits { packets, bytes }) };
        if packets > 0 || bytes > 0 {
            self.outbox.push(Report::Counted { id, direction, packets, bytes, last_hit: now });
        }
        if let Some(rate) = bytes.saturating_mul(1000).checked_div(elapsed) {
            self.rated(id, direction, rate, now);
        }
    }

    /// A fresh sample of what a direction carries.
    fn rated(&mut self, id: OffloadId, direction: u8, sample: u64, now: u64) {
        let window = self.query_interval();
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if flow.phase.active().is_none() {
            return;
        }
        let Some(known) = flow.counted_rate.get_mut(usize::from(direction)) else { return };
        known.update(sample, now, window);
        let [out, back] = flow.counted_rate.map(|rate| rate.value());
        let (rate, ranked) = (out.saturating_add(back), flow.rate);
        // A difference below an eighth does not change the order of flows enough to matter.
        if rate.abs_diff(ranked) > ranked / 8 {
            self.set_rate(id, rate);
        }
    }
}
