//! Counters of the NIC: read in turn, told as differences, each packet once.

use crate::protocol::{OffloadId, Report, Tier};
use offload_rules::lower::NotOffloaded;

use super::{
    Engine,
    flow::Set,
    rules::{Owner, Stage},
};
use crate::{Backend, Hits, Lowering, Token, errno};

impl<B: Backend, L: Lowering> Engine<B, L> {
    /// Milliseconds between two readings of one counter.
    pub(super) fn query_interval(&self) -> u64 {
        self.config.query_interval.max(self.lowering.refresh_ms()).max(1)
    }

    /// Reads the counters that are due.
    pub(super) fn sweep(&mut self, now: u64) {
        let interval = self.query_interval();
        let mut read = false;
        for _ in 0..self.config.queries_per_poll {
            let Some((due, token)) = self.sweep.front().copied() else { break };
            if due > now {
                self.totals.sweeps += u64::from(read);
                break;
            }
            self.sweep.pop_front();
            if self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live) {
                read = true;
                self.read(token, now);
                self.sweep.push_back((now + interval, token));
            }
        }
        self.look_at_departures(now);
        if self.aged_at <= now {
            self.aged_at = now + interval;
            self.look_at_aged(now);
        }
    }

    /// Reads every counter now: for an account that has to be complete. The NIC must have refreshed them.
    pub fn count_all(&mut self, now: u64, reports: &mut Vec<Report>) {
        let live: Vec<Token> = self.sweep.iter().map(|(_, token)| *token).collect();
        for token in live {
            if self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live) {
                self.read(token, now);
            }
        }
        reports.append(&mut self.outbox);
    }

    /// Reads the counters of a set that is being replaced.
    pub(super) fn count_set(&mut self, set: Option<Set>, now: u64) {
        for token in set.iter().flat_map(Set::tokens) {
            let counted = self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live && entry.counted);
            if counted && let Ok(hits) = self.backend.query(token) {
                self.tell_hits(token, hits, now);
            }
        }
    }

    fn read(&mut self, token: Token, now: u64) {
        match self.backend.query(token) {
            Ok(hits) => self.tell_hits(token, hits, now),
            Err(failure) if failure.errno == errno::ENOENT => self.lost(token),
            Err(failure) => tracing::debug!(token, %failure, "counter not read"),
        }
    }

    /// The NIC's word that rules are idle is only a reason to read their counters: software decides what is idle.
    fn look_at_aged(&mut self, now: u64) {
        let mut idle = Vec::new();
        if self.backend.aged(&mut idle).is_err() {
            return;
        }
        for token in idle {
            if self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live && entry.counted) {
                self.totals.aged += 1;
                self.read(token, now);
            }
        }
    }

    /// A rule that is not in the NIC any more, without our doing: its flow is installed again.
    fn lost(&mut self, token: Token) {
        let Some(entry) = self.rules.get(token) else { return };
        self.totals.lost += 1;
        if let Owner::Flow(id, _) = entry.owner {
            tracing::warn!(token, "a rule has vanished from the NIC");
            self.withdraw(id);
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.wants = true;
            }
            self.set_state(id, (Tier::Pending, Some(NotOffloaded::Pending)), false);
            self.touch(id);
        }
    }

    /// Tells what a counter has grown by. A counter that has gone back is an old reading: nothing is told twice.
    pub(super) fn tell_hits(&mut self, token: Token, hits: Hits, now: u64) {
        let Some(entry) = self.rules.get_mut(token) else { return };
        let packets = hits.packets.saturating_sub(entry.told.packets);
        let bytes = hits.bytes.saturating_sub(entry.told.bytes);
        let elapsed = now.saturating_sub(std::mem::replace(&mut entry.read_at, now));
        entry.told = Hits { packets: entry.told.packets + packets, bytes: entry.told.bytes + bytes };
        // Software counts the frame as it came.
        let bytes = bytes.saturating_add(packets.saturating_mul(entry.uncounted.into()));
        let Owner::Flow(id, direction) = entry.owner else { return };
        self.departures.counted(&entry.rule, entry.shape, packets);
        if packets > 0 || bytes > 0 {
            if let Some(shape) = entry.shape.and_then(|shape| self.shapes.get_mut(shape)) {
                (shape.proven, shape.doubts) = (true, 0);
            }
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
        if flow.active.is_none() {
            return;
        }
        let Some(known) = flow.counted_rate.get_mut(usize::from(direction)) else { return };
        known.update(sample, now, window);
        let [out, back] = flow.counted_rate.map(|rate| rate.value());
        let (rate, ranked) = (out.saturating_add(back), flow.rate);
        // Within an eighth the order of flows matters to nobody.
        if rate.abs_diff(ranked) > ranked / 8 {
            self.set_rate(id, rate);
        }
    }
}
