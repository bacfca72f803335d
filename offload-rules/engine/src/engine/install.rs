//! Installs flows: lowering, room in the table, conflicts with other rules, and what follows when a rule is created or refused.

use std::sync::Arc;

use offload_rules::{
    lower::{Action, Chain, FailureClass, NotOffloaded, Rule, Unsupported, priority},
    place::Rate,
};

use super::{
    Engine, Timer,
    flow::{PENDING, Phase, RuleSet, seed},
    prerequisites::Claim,
    rules::{NewRule, Owner, ShapeIndex},
};
use crate::{
    Failure, Lowering, RuleBackend,
    config::backoff,
    protocol::{OffloadId, Report, Tier},
};

/// Priorities of flows. A flow is replaced at the other one, so that old and new rules can be in the NIC together.
const PRIORITIES: [u32; 2] = [priority::FLOW, priority::FLOW_ALTERNATE];
/// Milliseconds until a flow whose rules the NIC did not honour is tried again.
const NOT_HONOURED_WAIT: u64 = 10_000;
/// Milliseconds for which the table counts as full without asking again.
const FULL: u64 = 1_000;

/// The rules that a flow is to have.
pub(super) struct Lowered {
    pub(super) rules: [Option<(Chain, ShapeIndex)>; 2],
    pub(super) tier: Tier,
    pub(super) why: Option<NotOffloaded>,
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// Advances all flows that an event has concerned.
    pub(super) fn advance_scheduled(&mut self, now: u64) {
        while let Some(id) = self.scheduled.pop_front() {
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.scheduled = false;
                self.advance(id, now);
            }
        }
    }

    /// Advances a flow to its next phase, if nothing is in the way.
    fn advance(&mut self, id: OffloadId, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        match flow.phase {
            Phase::Leaving => {
                if flow.rules.is_empty() {
                    self.forget(id);
                }
                return;
            }
            Phase::Due | Phase::Stale(_) if self.enabled => {}
            _ => return,
        }
        if let Some(reason) = self.blocked {
            self.blocked_flows.insert(id);
            if reason == NotOffloaded::Pending {
                if flow.phase.active().is_none() {
                    self.set_state(id, PENDING, false);
                }
            } else {
                self.withdraw(id);
                self.set_state(id, (Tier::Software, Some(reason)), false);
            }
            return;
        }
        flow.awaits.retain(|token| self.rules.get(*token).is_some());
        let in_use = |priority: u32| {
            flow.rules.iter().any(|token| self.rules.get(*token).is_some_and(|entry| entry.rule.priority == priority))
        };
        let Some(priority) = PRIORITIES.into_iter().find(|priority| !in_use(*priority)) else { return };
        if !flow.awaits.is_empty() {
            return;
        }
        match self.lower(id, priority) {
            Ok(lowered) => self.start(id, lowered, priority, now),
            Err(reason) => {
                self.withdraw(id);
                // Only another request, or another probe of the NIC, changes it.
                self.stay_in_software(id);
                self.set_state(id, (Tier::Software, Some(reason)), true);
            }
        }
    }

    /// Lowers all directions of a flow: to rules that forward, or else to rules that mark.
    pub(super) fn lower(&mut self, id: OffloadId, priority: u32) -> Result<Lowered, NotOffloaded> {
        let Some(flow) = self.flows.get(&id) else { return Err(NotOffloaded::Pending) };
        let full = flow.directions.each_ref().map(|direction| {
            direction.as_ref().map(|direction| self.lowering.full(&self.snapshot, direction, priority))
        });
        let mut why = None;
        let mut rules = [None, None];
        for (rule, full) in rules.iter_mut().zip(full) {
            let Some(full) = full else { continue };
            match full {
                Ok((chain, shape)) => {
                    let shape = self.shape(&shape);
                    why = why.or(self.shapes.get(shape).and_then(|shape| shape.refused));
                    *rule = Some((chain, shape));
                }
                Err(reason) => why = why.or(Some(reason.into())),
            }
        }
        let Some(why) = why else { return Ok(Lowered { rules, tier: Tier::Hardware, why: None }) };
        if why == NotOffloaded::NotHonoured {
            // What ignores a rule may ignore a mark, too.
            return Err(why);
        }
        // A mark is a hint: one direction's is worth having without the other's.
        let Some(flow) = self.flows.get(&id) else { return Err(why) };
        let directions = Arc::clone(&flow.directions);
        for (rule, direction) in rules.iter_mut().zip(directions.iter()) {
            *rule = None;
            let Some(direction) = direction else { continue };
            let marked = self.lowering.partial(&self.snapshot, direction, priority, id.entry, id.worker);
            let Ok((chain, shape)) = marked else { continue };
            let shape = self.shape(&shape);
            if self.shapes.get(shape).is_none_or(|shape| shape.refused.is_none()) {
                *rule = Some((chain, shape));
            }
        }
        if rules.iter().all(Option::is_none) {
            return Err(why);
        }
        Ok(Lowered { rules, tier: Tier::Partial, why: Some(why) })
    }

    /// Queues the rules of a flow, where nothing is in the way.
    fn start(&mut self, id: OffloadId, lowered: Lowered, priority: u32, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if let Some(active) = flow.phase.active() {
            let as_before = lowered.tier == active.tier
                && lowered.rules.iter().zip(active.tokens).all(|(rule, token)| match (rule, token) {
                    (Some((chain, _)), Some(token)) => self.rules.is(token, chain),
                    (None, None) => true,
                    _ => false,
                });
            if as_before {
                flow.phase = Phase::Installed(active);
                // The worker may count for another program from the answer on.
                self.count_set(Some(active), now);
                return self.set_state(id, (active.tier, lowered.why), true);
            }
        }
        let (mut conflict, mut own) = (false, false);
        let mut fresh: Vec<&Rule> = Vec::new();
        for need in lowered.rules.iter().flatten().flat_map(|(chain, _)| &chain.needs) {
            match self.rules.claim(need) {
                Claim::New if fresh.contains(&need) => {}
                Claim::New => fresh.push(need),
                Claim::Shared(_) => {}
                Claim::Leaving(token) => {
                    if let Some(entry) = self.rules.get_mut(token) {
                        entry.waiters.push(id);
                        flow.awaits.push(token);
                    }
                }
                Claim::Taken(_) => conflict = true,
            }
        }
        for (chain, _) in lowered.rules.iter().flatten() {
            let Some(token) = self.rules.holder(&chain.rule) else { continue };
            let Some(entry) = self.rules.get_mut(token) else { continue };
            let is_own = matches!(entry.owner, Owner::Flow(holder, _) if holder == id);
            if entry.wanted() && !is_own {
                conflict = true;
            } else {
                // Marks have one priority: the old one leaves first, and software needs no mark.
                own |= entry.wanted();
                entry.waiters.push(id);
                flow.awaits.push(token);
            }
        }
        if conflict {
            self.withdraw(id);
            self.totals.failed.count(FailureClass::Duplicate);
            return self.back_off(id, NotOffloaded::Failed(FailureClass::Duplicate), now);
        }
        if own {
            let stale = flow.phase.take_stale();
            self.placement.forget(id);
            self.retire(stale);
            return self.set_state(id, PENDING, false);
        }
        if !flow.awaits.is_empty() {
            return;
        }
        let count = lowered.rules.iter().flatten().count();
        let need = count + fresh.len();
        if self.full_until > now || self.lowering.capacity().is_some_and(|most| self.rules.len() + need > most) {
            return self.no_room(id, need, now);
        }
        let mut tokens = [None, None];
        for ((slot, rule), direction) in tokens.iter_mut().zip(lowered.rules).zip(0..) {
            let Some((chain, shape)) = rule else { continue };
            let uncounted = chain.uncounted();
            let Chain { needs, rule } = chain;
            let counted = lowered.tier == Tier::Hardware && rule.actions.contains(&Action::Count);
            let prerequisites = self.rules.acquire(needs);
            let new = NewRule {
                shape: Some(shape),
                counted,
                uncounted,
                prerequisites,
                ..NewRule::of(Owner::Flow(id, direction))
            };
            let token = self.rules.insert(Arc::new(rule), new);
            flow.rules.push(token);
            *slot = Some(token);
        }
        let coming =
            RuleSet { tokens, priority, tier: lowered.tier, why: lowered.why, missing: count.try_into().unwrap_or(2) };
        flow.phase = match flow.phase.active() {
            Some(active) => Phase::Replacing { active, coming },
            None => Phase::Installing(coming),
        };
        if flow.phase.active().is_none() {
            self.set_state(id, PENDING, false);
        }
    }

    /// The NIC is full: a flow that carries clearly less makes room, or this one waits.
    fn no_room(&mut self, id: OffloadId, need: usize, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if let Some(stale) = flow.phase.take_stale() {
            // Its own old rules make room.
            for token in stale.tokens() {
                if let Some(entry) = self.rules.get_mut(token) {
                    entry.waiters.push(id);
                    flow.awaits.push(token);
                }
            }
            self.placement.forget(id);
            self.full_until = 0;
            self.retire(Some(stale));
            self.set_state(id, PENDING, false);
            return self.schedule(id);
        }
        let rate = flow.rate;
        let mut freed = 0;
        while freed < need {
            let Some(victim) = self.placement.victim(rate, now) else { break };
            freed += self.evict(victim, id, now);
        }
        if freed > 0 {
            self.full_until = 0;
            return self.set_state(id, PENDING, false);
        }
        if self.placement.placed() == 0 {
            // Whatever fills it is not ours.
            return self.back_off(id, NotOffloaded::Failed(FailureClass::Capacity), now);
        }
        self.wait_for_room(id, now);
    }

    fn wait_for_room(&mut self, id: OffloadId, now: u64) {
        self.back_off(id, NotOffloaded::Placement, now);
        if let Some(flow) = self.flows.get_mut(&id)
            && let Phase::Backoff { until } = flow.phase
        {
            flow.phase = Phase::AwaitingRoom { until };
            self.placement.wait(id, flow.rate, now);
        }
    }

    /// Takes a flow out of the NIC for another. Returns the number of rules that leave.
    fn evict(&mut self, victim: OffloadId, beneficiary: OffloadId, now: u64) -> usize {
        let Some(flow) = self.flows.get_mut(&victim) else { return 0 };
        let tokens: Vec<_> = flow.phase.active().iter().flat_map(RuleSet::tokens).collect();
        let going = self.rules.going_with(tokens.iter().copied());
        self.totals.evicted += 1;
        self.withdraw(victim);
        self.wait_for_room(victim, now);
        for token in &tokens {
            if let Some(entry) = self.rules.get_mut(*token) {
                entry.waiters.push(beneficiary);
                if let Some(flow) = self.flows.get_mut(&beneficiary) {
                    flow.awaits.push(*token);
                }
            }
        }
        going
    }

    /// A rule has left the NIC and no flow waited for its end: the flow with the highest rate of those that await room is next.
    pub(super) fn offer_room(&mut self) {
        self.full_until = 0;
        if let Some(id) = self.placement.next() {
            self.make_due(id);
            self.schedule(id);
        }
    }

    /// Puts a flow into software until a later time; the wait doubles with each attempt.
    pub(super) fn back_off(&mut self, id: OffloadId, reason: NotOffloaded, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.attempts = flow.attempts.saturating_add(1);
        let mut wait = backoff(&self.config, flow.attempts, seed(id));
        if reason == NotOffloaded::NotHonoured {
            wait = wait.max(NOT_HONOURED_WAIT);
        }
        let at = now.saturating_add(wait);
        self.make_due(id);
        if let Some(flow) = self.flows.get_mut(&id).filter(|flow| !flow.leaving()) {
            flow.phase = Phase::Backoff { until: at };
            self.timers.insert((at, Timer::Flow(id)));
        }
        self.set_state(id, (Tier::Software, Some(reason)), true);
    }

    /// A creation has completed.
    pub(super) fn flow_created(&mut self, id: OffloadId, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let (Phase::Installing(coming) | Phase::Replacing { coming, .. }) = &mut flow.phase else { return };
        coming.missing = coming.missing.saturating_sub(1);
        if coming.missing > 0 {
            return;
        }
        let set = *coming;
        let old = flow.phase.active();
        flow.phase = Phase::Installed(set);
        // Until the NIC has counted, what was asked for is believed.
        flow.counted_rate = [flow.rate.div_ceil(2), flow.rate / 2].map(|rate| Rate::new(rate, now));
        flow.attempts = 0;
        self.placement.place(id, flow.rate, now);
        self.totals.activated += 1;
        // What the old rules have counted went the old way: it is reported before the worker learns of the new one.
        self.count_set(old, now);
        self.retire(old);
        self.set_state(id, (set.tier, set.why), true);
    }

    /// A creation of a set that is wanted has failed: the other half goes, and so does what it should have replaced, which is stale.
    pub(super) fn flow_failed(&mut self, id: OffloadId, shape: Option<ShapeIndex>, failure: &Failure, now: u64) {
        let need = self
            .flows
            .get(&id)
            .and_then(|flow| flow.phase.coming())
            .map_or(1, |set| self.rules.going_with(set.tokens()));
        let had_active = self.flows.get(&id).is_some_and(|flow| flow.phase.active().is_some());
        match failure.class {
            FailureClass::Shape => {
                self.withdraw(id);
                let shape = shape.and_then(|shape| self.shapes.get_mut(shape));
                // Some drivers say "not supported" when they are full: a shape that has worked is not condemned.
                match shape.filter(|shape| shape.created == 0) {
                    Some(shape) => {
                        tracing::warn!(shape = %shape.shape, %failure, "the NIC refuses rules of this shape");
                        shape.refused = Some(NotOffloaded::Failed(FailureClass::Shape));
                        self.reinstall(id);
                    }
                    None => self.back_off(id, NotOffloaded::Failed(FailureClass::Shape), now),
                }
            }
            // Some drivers answer "no room" for rules that they never take: no flow is evicted for a shape that was never installed.
            FailureClass::Capacity
                if shape.and_then(|shape| self.shapes.get(shape)).is_some_and(|shape| shape.created == 0) =>
            {
                self.withdraw(id);
                self.back_off(id, NotOffloaded::Failed(FailureClass::Capacity), now);
            }
            FailureClass::Capacity => {
                let half = self.flows.get_mut(&id).and_then(|flow| flow.phase.take_coming());
                for token in half.iter().flat_map(RuleSet::tokens) {
                    if let Some(entry) = self.rules.get_mut(token) {
                        entry.half = true;
                    }
                }
                self.retire(half);
                self.full_until = now + FULL;
                if had_active {
                    // Whatever is stale leaves before room is asked for again.
                    self.no_room(id, need, now);
                } else {
                    self.withdraw(id);
                    self.no_room(id, need, now);
                }
            }
            class => {
                self.withdraw(id);
                self.back_off(id, NotOffloaded::Failed(class), now);
            }
        }
    }

    /// The end of a flow.
    fn forget(&mut self, id: OffloadId) {
        if let Some(flow) = self.flows.remove(&id) {
            self.count_state(flow.state, -1);
            self.blocked_flows.remove(&id);
            self.outbox.push(Report::Gone { id });
        }
    }
}

/// A refusal at the probe, as lowering would say it.
pub(super) const PROBE: NotOffloaded = NotOffloaded::Unsupported(Unsupported::Probe);
