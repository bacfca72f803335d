//! Rules for transit: what the NIC forwards without flows, by prefix ([`Plan`]).
//!
//! ```text
//! (wanted) ──► dirty ──► in the NIC ──► on its way out ──► (end, or dirty again)
//!               │ ▲
//!               ▼ │ time, or the end of what is in the way
//!             waiting, or refused until the NIC is looked at anew
//! ```
//!
//! They follow the snapshot by themselves, as steering does; a change costs what it touches. A rule that is to be another one leaves first: its packets
//! are software's meanwhile. They have a share of the table, and take no flow's place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use offload_rules::{
    forwarding::{Changes, Snapshot, VersionChanges},
    lower::{Action, Chain, Direction, FailureClass, NotOffloaded},
    transit::{Limits, Plan, RuleKey, TransitRule},
};

use super::{
    Engine,
    inspect::Comparison,
    prerequisites::Claim,
    rules::{NewRule, Owner, ShapeIndex, Stage},
};
use crate::{Failure, Hits, Lowering, RuleBackend, Token, TransitStatus, config::backoff, protocol::Report};

/// Of a table, the part that transit may have: one of so many.
const SHARE: usize = 4;

/// A rule that has not ended.
#[derive(Debug)]
struct Held {
    key: RuleKey,
    /// What its packets are counted by; `None`: it does not count.
    direction: Option<Arc<Direction>>,
}

/// What is known of the rules for transit.
#[derive(Debug, Default)]
pub(super) struct Transit {
    plan: Plan,
    /// Version of the NIC's ports that these are for.
    ports: u64,
    held: BTreeMap<Token, Held>,
    tokens: BTreeMap<RuleKey, Token>,
    /// To be compared with what is wanted.
    dirty: BTreeSet<RuleKey>,
    /// Wanted, and not in the NIC until it is looked at anew.
    refused: BTreeMap<RuleKey, NotOffloaded>,
    /// Wanted, and tried again later.
    waiting: BTreeSet<RuleKey>,
    retry_at: u64,
    attempts: u32,
    /// Rules that wait for the end of others.
    behind: BTreeMap<Token, Vec<RuleKey>>,
}

impl Transit {
    /// Something is to be done at once.
    pub(super) fn busy(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The NIC has lost all.
    pub(super) fn lost(&mut self) {
        let plan = std::mem::take(&mut self.plan);
        let dirty = plan.rules().map(|(key, _)| *key).collect();
        *self = Self { plan, dirty, ports: self.ports, ..Self::default() };
    }

    /// A rule has ended: what waited for that goes on.
    pub(super) fn other_ended(&mut self, token: Token) {
        if !self.behind.is_empty() {
            self.dirty.extend(self.behind.remove(&token).into_iter().flatten());
        }
    }

    fn ended(&mut self, token: Token) {
        let Some(held) = self.held.remove(&token) else { return };
        if self.tokens.get(&held.key) == Some(&token) {
            self.tokens.remove(&held.key);
            let rests = self.waiting.contains(&held.key) || self.refused.contains_key(&held.key);
            if self.plan.rule(&held.key).is_some() && !rests {
                self.dirty.insert(held.key);
            }
        }
    }
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    fn transit_limits(&self) -> Limits {
        let share = self.lowering.capacity().map_or(usize::MAX, |most| most / SHARE);
        Limits { rules: self.config.transit_rules.min(share), entropy: self.config.entropy }
    }

    /// Finds out anew which rules are wanted, and tries all of them.
    pub(super) fn plan_transit(&mut self) {
        self.transit.ports = self.lowering.ports_version();
        let limits = self.transit_limits();
        let changed = if self.enabled && limits.rules > 0 {
            self.transit.plan.derive(&self.snapshot, &limits)
        } else {
            self.transit.plan.clear()
        };
        self.transit.refused.clear();
        self.transit.waiting.clear();
        self.transit.dirty.extend(changed);
        self.transit.dirty.extend(self.transit.plan.rules().map(|(key, _)| *key));
        if !self.enabled {
            self.retire_transit();
        }
    }

    /// After a change of the snapshot.
    pub(super) fn replan_transit(&mut self, changes: &[VersionChanges]) {
        let limits = self.transit_limits();
        if !self.enabled || limits.rules == 0 {
            return;
        }
        if self.transit.ports != self.lowering.ports_version() {
            return self.plan_transit();
        }
        let changes = changes.iter().map(|changes| -> &Changes { changes });
        let changed = self.transit.plan.follow(&self.snapshot, changes, &limits);
        for key in &changed {
            self.transit.refused.remove(key);
            self.transit.waiting.remove(key);
        }
        self.transit.dirty.extend(changed);
    }

    /// Switched off: all of them leave.
    fn retire_transit(&mut self) {
        self.transit.dirty.clear();
        self.transit.behind.clear();
        let tokens: Vec<Token> = self.transit.held.keys().copied().collect();
        self.unwant_transit(tokens);
    }

    fn unwant_transit(&mut self, tokens: impl IntoIterator<Item = Token>) {
        for token in tokens {
            if self.rules.unwant(token) {
                self.ended(token);
            }
        }
    }

    /// Rules of shapes that are not trusted any more leave.
    pub(super) fn withdraw_transit(&mut self, dead: &[ShapeIndex]) {
        let relies = |token: &Token| {
            self.rules.get(*token).and_then(|entry| entry.shape).is_some_and(|shape| dead.contains(&shape))
        };
        let tokens: Vec<Token> = self.transit.held.keys().copied().filter(relies).collect();
        self.unwant_transit(tokens);
    }

    /// Brings what is in the NIC toward what is wanted.
    pub(super) fn advance_transit(&mut self, now: u64) {
        if !self.transit.waiting.is_empty() && self.transit.retry_at <= now {
            self.transit.dirty.append(&mut self.transit.waiting);
        }
        if self.blocked.is_some() || self.transit.dirty.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.transit.dirty) {
            match self.lowered_transit(&key) {
                None => self.unwant_transit(self.transit.tokens.get(&key).copied()),
                Some(Err(reason)) => {
                    self.transit.refused.insert(key, reason);
                    self.unwant_transit(self.transit.tokens.get(&key).copied());
                }
                Some(Ok((chain, shape))) => self.install_transit(key, chain, shape, now),
            }
        }
    }

    /// The rule of a key; `None`: it is not wanted.
    fn lowered_transit(&mut self, key: &RuleKey) -> Option<Result<(Chain, Option<ShapeIndex>), NotOffloaded>> {
        let rule = self.transit.plan.rule(key)?;
        let (chain, shape) = match self.lowering.transit(&self.snapshot, rule) {
            Ok(lowered) => lowered,
            Err(reason) => return Some(Err(reason.into())),
        };
        let shape = shape.map(|shape| self.shape(&shape));
        let refused = shape.and_then(|shape| self.shapes.get(shape)).and_then(|shape| shape.refused);
        Some(refused.map_or(Ok((chain, shape)), Err))
    }

    /// What the packets of a rule are counted by.
    fn counted_by(&self, key: &RuleKey) -> Option<Arc<Direction>> {
        match self.transit.plan.rule(key)? {
            TransitRule::Destination(departure) => Some(Arc::clone(&departure.direction)),
            TransitRule::Source(_) => None,
        }
    }

    fn install_transit(&mut self, key: RuleKey, chain: Chain, shape: Option<ShapeIndex>, now: u64) {
        let direction = self.counted_by(&key);
        if let Some(token) = self.transit.tokens.get(&key).copied() {
            if !self.rules.is(token, &chain) {
                return self.unwant_transit([token]);
            }
            // The rule is the same, but what it counts may belong elsewhere from now on.
            if self.transit.held.get(&token).is_some_and(|held| held.direction != direction) {
                self.count_transit(token, now);
                if let Some(held) = self.transit.held.get_mut(&token) {
                    held.direction = direction;
                }
            }
            return;
        }
        if let Some(token) = self.rules.holder(&chain.rule) {
            return self.go_behind(key, token);
        }
        let mut fresh = 1;
        for need in &chain.needs {
            match self.rules.claim(need) {
                Claim::Shared(_) => {}
                Claim::New => fresh += 1,
                Claim::Leaving(token) | Claim::Taken(token) => return self.go_behind(key, token),
            }
        }
        if self.lowering.capacity().is_some_and(|most| self.rules.len() + fresh > most) {
            return self.delay_transit(key, now);
        }
        let (uncounted, counted) = (chain.uncounted(), chain.rule.actions.contains(&Action::Count));
        let prerequisites = self.rules.acquire(chain.needs);
        let new = NewRule { shape, counted, uncounted, prerequisites, ..NewRule::of(Owner::Transit) };
        let token = self.rules.insert(Arc::new(chain.rule), new);
        self.transit.held.insert(token, Held { key, direction });
        self.transit.tokens.insert(key, token);
    }

    /// It is tried again when another rule has ended.
    fn go_behind(&mut self, key: RuleKey, token: Token) {
        self.transit.behind.entry(token).or_default().push(key);
    }

    fn delay_transit(&mut self, key: RuleKey, now: u64) {
        if self.transit.waiting.is_empty() {
            self.transit.attempts = self.transit.attempts.saturating_add(1);
            self.transit.retry_at = now + backoff(&self.config, self.transit.attempts, 2);
        }
        self.transit.waiting.insert(key);
    }

    /// One is in the NIC.
    pub(super) fn transit_created(&mut self) {
        if self.transit.waiting.is_empty() {
            self.transit.attempts = 0;
        }
    }

    /// One that is wanted could not be created.
    pub(super) fn transit_failed(&mut self, token: Token, failure: &Failure, now: u64) {
        let Some(key) = self.transit.held.get(&token).map(|held| held.key) else { return };
        if failure.class == FailureClass::Shape {
            tracing::warn!(%failure, "the NIC refuses a rule for transit: its packets stay in software");
            self.transit.refused.insert(key, NotOffloaded::Failed(failure.class));
        } else {
            self.delay_transit(key, now);
        }
    }

    /// One is not in the NIC (any more).
    pub(super) fn transit_ended(&mut self, token: Token) {
        self.transit.ended(token);
    }

    /// One has vanished from the NIC.
    pub(super) fn transit_lost(&mut self, token: Token) {
        tracing::warn!(token, "a rule for transit has vanished from the NIC");
        self.unwant_transit([token]);
    }

    fn count_transit(&mut self, token: Token, now: u64) {
        let counted = self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live && entry.counted);
        if counted && let Ok(hits) = self.query_one(token) {
            self.report_hits(token, hits, now);
        }
    }

    /// Tells a worker what one has counted.
    pub(super) fn report_transit(&mut self, token: Token, hits: Hits) {
        if let Some(direction) = self.transit.held.get(&token).and_then(|held| held.direction.clone())
            && hits.packets > 0
        {
            let Hits { packets, bytes } = hits;
            self.outbox.push(Report::Transit { worker: 0, direction, packets, bytes });
        }
    }

    /// What operators see.
    pub(super) fn transit_status(&self) -> TransitStatus {
        let summary = self.transit.plan.summary();
        let live = |token: &&Token| self.rules.get(**token).is_some_and(|entry| entry.stage == Stage::Live);
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for (reason, count) in summary.reasons {
            *reasons.entry(reason.to_string()).or_default() += count;
        }
        let mut refused: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
        for (key, reason) in &self.transit.refused {
            refused.entry(reason.to_string()).or_default().insert((key.ingress(), key.net()));
        }
        for (reason, prefixes) in refused {
            *reasons.entry(reason).or_default() += prefixes.len();
        }
        TransitStatus {
            rules: self.transit.tokens.values().filter(live).count(),
            wanted: self.transit.plan.rules().count(),
            most: self.transit_limits().rules,
            ingresses: summary.ingresses,
            prefixes: summary.prefixes,
            reasons: reasons.into_iter().collect(),
        }
    }

    /// Compares what is wanted with what is in the NIC.
    pub(super) fn diff_transit(&mut self, comparison: &mut Comparison) {
        let rests = |key: &RuleKey| self.transit.waiting.contains(key) || self.transit.refused.contains_key(key);
        let keys: Vec<RuleKey> = self.transit.plan.rules().map(|(key, _)| *key).filter(|key| !rests(key)).collect();
        for key in keys {
            let Some(Ok((chain, _))) = self.lowered_transit(&key) else { continue };
            let token = self.transit.tokens.get(&key).copied();
            let live = |token: &Token| self.rules.get(*token).is_some_and(|entry| entry.stage == Stage::Live);
            match token.filter(|token| live(token) && self.rules.is(*token, &chain)) {
                Some(token) => comparison.is_there(token, self.rules.all_prerequisites(token)),
                None => comparison.is_missing(Arc::new(chain.rule)),
            }
        }
    }

    /// Plans proactive rules, transit and sessions anew as far as a change concerns them.
    pub(super) fn follow_changes(&mut self, before: &Snapshot) {
        let snapshot = Arc::clone(&self.snapshot);
        let changes = snapshot.changes_since(before);
        self.replan_proactive(before, &changes);
        self.replan_transit(&changes);
        self.recheck_sessions(&changes);
    }
}
