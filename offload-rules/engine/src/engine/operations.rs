//! Operations of the NIC: begun, completed, overdue, lost in a reset.

use offload_rules::lower::FailureClass;

use super::{
    Engine, Timer,
    flow::{Flow, PENDING, Phase},
    rules::{Owner, Stage},
};
use crate::{Completion, Failure, Lowering, RuleBackend, Token, config::backoff, errno};
use offload_rules::lower::NotOffloaded;

/// Attempts to read the last counter of a rule.
const LAST_READS: u32 = 3;

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// Detects a reset of the NIC, and flushes the NIC where it may hold rules that are not known.
    pub(super) fn check_reset(&mut self, now: u64) {
        if !self.backend.alive() {
            tracing::warn!("the NIC has been reset: all its rules are lost");
            self.flush_sessions();
            self.start_over(now);
        }
        if self.unclean && !self.timers.iter().any(|(_, timer)| *timer == Timer::Flush) {
            match self.flush() {
                Ok(()) => {
                    // Of operations that the flush has overtaken.
                    self.completions.clear();
                    let _ = self.backend.pull(&mut self.completions);
                    self.completions.clear();
                    (self.unclean, self.flush_attempts, self.flush_failure) = (false, 0, None);
                    self.proactive.dirty = true;
                }
                Err(failure) => {
                    tracing::error!(%failure, "the NIC cannot be flushed: nothing is offloaded until it can");
                    self.flush_attempts += 1;
                    self.flush_failure = Some(failure.class);
                    let wait = backoff(&self.config, self.flush_attempts, 0);
                    self.timers.insert((now + wait, Timer::Flush));
                }
            }
            self.unblock();
            self.advance_scheduled(now);
        }
    }

    /// Removes every rule, then every session. While a rule may be left no session is destroyed, but none is sent with.
    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.backend.flush();
        let Some(sessions) = &mut self.session_backend else { return flushed };
        match flushed {
            Ok(()) => sessions.flush_sessions(),
            Err(failure) => {
                sessions.suspend_sessions();
                Err(failure)
            }
        }
    }

    /// After a reset: errors about sessions that no longer exist are ignored.
    fn flush_sessions(&mut self) {
        if let Some(sessions) = &mut self.session_backend {
            let _ = sessions.flush_sessions();
        }
    }

    /// All rules are lost, or must be: what is desired is installed anew.
    fn start_over(&mut self, now: u64) {
        self.totals.resets += 1;
        self.unclean = true;
        self.rules.clear();
        for queue in [&mut self.begun, &mut self.overdue, &mut self.sweep] {
            queue.clear();
        }
        self.timers.clear();
        self.placement.clear();
        self.full_until = 0;
        self.probe.interrupted();
        self.proactive.lost();
        self.transit.lost();
        self.egress_check.forget();
        self.sessions_lost();
        self.update_blocked();
        for id in self.ids(|_| true) {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            flow.restart();
            if matches!(flow.phase, Phase::Due) && self.enabled {
                self.set_state(id, PENDING, false);
            }
            self.schedule(id);
        }
        self.advance_scheduled(now);
    }

    /// Takes the completions of operations.
    pub(super) fn take_completions(&mut self, now: u64) {
        let mut completions = std::mem::take(&mut self.completions);
        if let Err(failure) = self.backend.pull(&mut completions) {
            tracing::debug!(%failure, "no completions");
        }
        for completion in completions.drain(..) {
            let (Completion::Created(token)
            | Completion::Destroyed(token)
            | Completion::CreateFailed(token, _)
            | Completion::DestroyFailed(token, _)) = completion;
            let late = self.rules.get(token).is_some_and(|entry| entry.late);
            if !self.rules.complete(token) {
                tracing::warn!(token, ?completion, "completion of an operation that is not in flight");
                continue;
            }
            self.totals.late += u64::from(late);
            match completion {
                Completion::Created(token) => self.created(token, now),
                Completion::CreateFailed(token, failure) => self.create_failed(token, &failure, now),
                Completion::Destroyed(token) => self.destroyed(token),
                Completion::DestroyFailed(token, failure) => self.destroy_failed(token, &failure, now),
            }
        }
        self.completions = completions;
    }

    fn created(&mut self, token: Token, now: u64) {
        let interval = self.query_interval();
        let Some(entry) = self.rules.get_mut(token) else { return };
        let wanted = entry.wanted();
        entry.stage = Stage::Live;
        entry.read_at = now;
        self.totals.created += 1;
        self.latencies.record(now.saturating_sub(entry.since));
        self.inserts.record(now);
        let mut readmitted = false;
        if let Some(shape) = entry.shape.and_then(|shape| self.shapes.get_mut(shape)) {
            shape.created += 1;
            let refused_shape = Some(NotOffloaded::Failed(FailureClass::Shape));
            readmitted = shape.refused == refused_shape;
            if readmitted {
                shape.refused = None;
            }
        }
        let owner = entry.owner;
        if wanted && entry.counted {
            self.sweep.push_back((now + interval, token));
        }
        if readmitted {
            self.readmit_shape();
        }
        match owner {
            _ if !wanted => {
                self.rules.unwant(token);
            }
            Owner::Flow(id, _) => self.flow_created(id, now),
            Owner::Shared => self.prerequisite_created(token),
            Owner::Proactive => self.proactive.dirty = true,
            Owner::Transit => self.transit_created(),
            Owner::Session(offer) => self.session_rule_created(offer),
            Owner::Canary(_) => {
                self.rules.unwant(token);
            }
        }
    }

    /// A rule that was in flight shows that its shape was refused wrongly: flows that were put into software for that are tried again.
    fn readmit_shape(&mut self) {
        let refused_shape = Some(NotOffloaded::Failed(FailureClass::Shape));
        let turned_away = |flow: &Flow| {
            let marked = flow.phase.coming().is_some_and(|set| set.why == refused_shape);
            !flow.leaving() && (marked || flow.state.1 == refused_shape)
        };
        for id in self.ids(turned_away) {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            let marked = flow.phase.coming().is_some_and(|set| set.why == refused_shape);
            let marks = if marked { flow.phase.take_coming() } else { None };
            self.retire(marks);
            self.make_due(id);
            self.schedule(id);
        }
    }

    /// Also where the driver refused at once.
    fn create_failed(&mut self, token: Token, failure: &Failure, now: u64) {
        self.totals.failed.count(failure.class);
        tracing::debug!(token, %failure, "the NIC has not taken a rule");
        self.rule_failed(token, failure, now);
    }

    /// A rule is not in the NIC, and will not be: itself refused, or what it needs.
    pub(super) fn rule_failed(&mut self, token: Token, failure: &Failure, now: u64) {
        let Some(entry) = self.rules.get(token) else { return };
        let (owner, wanted, shape) = (entry.owner, entry.wanted(), entry.shape);
        match owner {
            // The failure first: the end of the last rule of a flow must not look as if it had never been tried.
            Owner::Flow(id, _) if wanted => self.flow_failed(id, shape, failure, now),
            Owner::Shared => self.prerequisite_failed(token, failure, now),
            Owner::Canary(shape) => self.canary_failed(token, shape, failure),
            Owner::Proactive if wanted => self.proactive_failed(failure, now),
            Owner::Transit if wanted => self.transit_failed(token, failure, now),
            Owner::Session(offer) => self.session_rule_failed(offer, failure, now),
            Owner::Flow(..) | Owner::Proactive | Owner::Transit => {}
        }
        self.ended(token);
    }

    fn destroyed(&mut self, token: Token) {
        self.totals.destroyed += 1;
        self.ended(token);
    }

    fn destroy_failed(&mut self, token: Token, failure: &Failure, now: u64) {
        self.totals.destroy_failed += 1;
        if failure.errno == errno::ENOENT {
            // Removed by another than this engine.
            return self.ended(token);
        }
        let Some(entry) = self.rules.get_mut(token) else { return };
        entry.stage = Stage::Draining;
        entry.refusals = entry.refusals.saturating_add(1);
        let wait = backoff(&self.config, entry.refusals, token);
        if let Owner::Canary(shape) = entry.owner {
            self.canary_failed(token, shape, failure);
        }
        self.timers.insert((now + wait, Timer::Destroy(token)));
    }

    /// A rule is not in the NIC (any more).
    pub(super) fn ended(&mut self, token: Token) {
        let Some(entry) = self.rules.remove(token) else { return };
        let more_follows = self.release_prerequisites(token, &entry);
        // Switched off, they have waited for this.
        self.proactive.dirty |= !self.enabled && self.rules.of_flows == 0;
        self.transit.other_ended(token);
        match entry.owner {
            Owner::Flow(id, _) => {
                if let Some(flow) = self.flows.get_mut(&id) {
                    flow.rules.retain(|rule| *rule != token);
                }
                self.schedule(id);
            }
            Owner::Shared => {}
            Owner::Proactive => self.proactive.ended(token),
            Owner::Transit => self.transit_ended(token),
            Owner::Session(offer) => self.session_rule_ended(offer, token),
            Owner::Canary(shape) => self.canary_ended(token, shape),
        }
        if entry.waiters.is_empty() {
            if entry.stage == Stage::Destroying && !entry.half && !more_follows {
                self.offer_room();
            }
        } else {
            self.full_until = 0;
            entry.waiters.into_iter().for_each(|id| self.schedule(id));
        }
    }

    /// Begins as many operations as fit into the queue of the NIC: removals first, since they make room.
    pub(super) fn issue(&mut self, now: u64) {
        let depth = self.backend.depth().max(1);
        for _ in 0..self.config.operations_per_poll {
            if self.rules.in_flight >= depth || !self.backend.ready() {
                break;
            }
            if let Some(token) = self.rules.destroys.pop_front() {
                self.begin_destroy(token, now);
            } else if let Some(token) = self.rules.creates.pop_front() {
                self.begin_create(token, now);
            } else {
                break;
            }
        }
        if self.unpushed {
            // What could not be pushed goes with the next push.
            self.unpushed = self.backend.push().is_err();
        }
    }

    fn begin_create(&mut self, token: Token, now: u64) {
        let Some(entry) = self.rules.get(token) else { return };
        match self.backend.create(token, &entry.rule) {
            Ok(()) => {
                self.rules.begin(token, Stage::Creating, now);
                self.begun.push_back((now, token));
                self.unpushed = true;
            }
            Err(failure) => self.create_failed(token, &failure, now),
        }
    }

    fn begin_destroy(&mut self, token: Token, now: u64) {
        let Some(entry) = self.rules.get(token).filter(|entry| entry.stage == Stage::Draining) else { return };
        if entry.counted {
            // Packets between this reading and the removal itself are not counted by anyone: the handle and its counter die together.
            match self.query_one(token) {
                Ok(hits) => self.report_hits(token, hits, now),
                Err(failure) => {
                    let Some(entry) = self.rules.get_mut(token) else { return };
                    if failure.errno != errno::ENOENT && entry.refusals < LAST_READS {
                        entry.refusals += 1;
                        let wait = backoff(&self.config, entry.refusals, token);
                        self.timers.insert((now + wait, Timer::Destroy(token)));
                        return;
                    }
                    self.totals.uncounted += 1;
                }
            }
        }
        match self.backend.destroy(token) {
            Ok(()) => {
                self.rules.begin(token, Stage::Destroying, now);
                self.begun.push_back((now, token));
                self.unpushed = true;
            }
            Err(failure) => self.destroy_failed(token, &failure, now),
        }
    }

    /// Operations without a completion in time: what waits for them goes on without them.
    pub(super) fn check_overdue(&mut self, now: u64) {
        while let Some((since, token)) = self.begun.front().copied() {
            let under_way =
                self.rules.get(token).is_some_and(|entry| entry.in_flight() && entry.since == since && !entry.late);
            if under_way && since + self.config.timeout > now {
                break;
            }
            self.begun.pop_front();
            let Some(entry) = self.rules.get_mut(token).filter(|_| under_way) else { continue };
            entry.late = true;
            let stage = entry.stage;
            self.rules.late += 1;
            self.overdue.push_back((since, token));
            if matches!(stage, Stage::Creating | Stage::Abandoned) {
                self.timed_out(token, now);
            }
        }
        while let Some((since, token)) = self.overdue.front().copied() {
            let still =
                self.rules.get(token).is_some_and(|entry| entry.in_flight() && entry.since == since && entry.late);
            if !still {
                self.overdue.pop_front();
                continue;
            }
            let stuck = self.rules.in_flight >= self.backend.depth() && self.rules.late == self.rules.in_flight;
            let patience = if stuck { self.config.give_up.min(self.config.timeout * 5) } else { self.config.give_up };
            if since + patience <= now {
                tracing::error!(token, "an operation never completed: the NIC is flushed and filled anew");
                self.start_over(now);
            }
            break;
        }
    }

    fn timed_out(&mut self, token: Token, now: u64) {
        let failure = Failure { class: FailureClass::Timeout, errno: 0, message: "no completion in time".to_owned() };
        self.totals.failed.count(FailureClass::Timeout);
        let Some(entry) = self.rules.get_mut(token) else { return };
        let wanted = entry.wanted();
        entry.stage = Stage::Abandoned;
        let (owner, shape) = (entry.owner, entry.shape);
        match owner {
            Owner::Flow(id, _) if wanted => self.flow_failed(id, shape, &failure, now),
            Owner::Shared => self.prerequisite_failed(token, &failure, now),
            Owner::Proactive if wanted => self.proactive_failed(&failure, now),
            Owner::Canary(shape) => self.canary_failed(token, shape, &failure),
            Owner::Session(offer) if wanted => self.session_rule_failed(offer, &failure, now),
            Owner::Transit if wanted => self.transit_failed(token, &failure, now),
            Owner::Flow(..) | Owner::Proactive | Owner::Transit | Owner::Session(_) => {}
        }
    }

    /// Handles the timers that are due.
    pub(super) fn fire_timers(&mut self, now: u64) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Flow(id) => {
                    self.wait_is_over(id, now);
                    self.schedule(id);
                }
                Timer::Destroy(token) => self.rules.destroys.push_back(token),
                Timer::Proactive => {
                    self.proactive.retry_at = None;
                    self.proactive.dirty = true;
                }
                Timer::Flush => {}
            }
        }
    }
}
