//! What operators may see of the engine, and the comparison of what is desired with what is installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use offload_rules::{
    lower::{NotOffloaded, Rule},
    place::{self, Difference},
};

use super::{
    Engine,
    flow::Phase,
    prerequisites::Claim,
    rules::{Entry, Owner, Stage},
};
use crate::{
    EngineStatus, InstalledRule, Lowering, Mismatch, MismatchKind, RuleBackend, ShapeStatus, Token,
    protocol::{OffloadId, Tier},
};

const fn flow_of(owner: Owner) -> Option<(OffloadId, u8)> {
    match owner {
        Owner::Flow(id, direction) => Some((id, direction)),
        Owner::Shared | Owner::Proactive | Owner::Transit | Owner::Session(_) | Owner::Canary(_) => None,
    }
}

/// What of the desired rules was found in the NIC, and what was not.
#[derive(Default)]
pub(super) struct Comparison {
    expected: BTreeSet<Token>,
    found: Vec<Mismatch>,
}

impl Comparison {
    /// A rule that belongs to no flow is there, and what it needs.
    pub(super) fn is_there(&mut self, token: Token, needs: BTreeSet<Token>) {
        self.expected.insert(token);
        self.expected.extend(needs);
    }

    /// A rule that belongs to no flow is not.
    pub(super) fn is_missing(&mut self, rule: Arc<Rule>) {
        self.found.push(Mismatch { kind: MismatchKind::Missing, flow: None, rule });
    }
}

fn installed(token: Token, flow: Option<(OffloadId, u8)>, entry: &Entry) -> InstalledRule {
    InstalledRule {
        token,
        flow,
        rule: Arc::clone(&entry.rule),
        hits: entry.told,
        live: entry.live(),
        needed_by: entry.dependents,
    }
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// Its state.
    #[must_use]
    pub fn status(&self, now: u64) -> EngineStatus {
        let tier = |tier: Tier| self.tiers.get(tier as usize).copied().unwrap_or(0);
        let shapes = self.shape_index.values().filter_map(|index| self.shapes.get(*index));
        EngineStatus {
            profile: self.lowering.name().to_owned(),
            enabled: self.enabled,
            blocked: self.blocked,
            shapes: shapes
                .map(|shape| ShapeStatus {
                    shape: shape.shape.to_string(),
                    probe: shape.probe.clone(),
                    refused: shape.refused,
                    created: shape.created,
                    proven: shape.proven,
                    doubts: shape.doubts,
                })
                .collect(),
            sessions: self.sessions.in_force(),
            rules: self.rules.len(),
            capacity: self.lowering.capacity(),
            full: self.full_until > now || self.placement.waiting() > 0,
            flows: self.flows.len(),
            hardware: tier(Tier::Hardware),
            partial: tier(Tier::Partial),
            pending: tier(Tier::Pending),
            software: tier(Tier::Software),
            in_flight: self.rules.in_flight,
            depth: self.backend.depth(),
            queued: self.rules.queued(),
            insert_rate: self.inserts.per_second(now),
            latency_p50: self.latencies.percentile(50),
            latency_p99: self.latencies.percentile(99),
            totals: self.totals,
            transit: self.transit_status(),
        }
    }

    /// Why flows are not in hardware, and how many for each reason.
    #[must_use]
    pub const fn reasons(&self) -> &BTreeMap<NotOffloaded, usize> {
        &self.reasons
    }

    /// The rules of a flow, those that come or go included, each behind those that it needs. What both directions need is listed with
    /// each.
    #[must_use]
    pub fn rules_of(&self, id: OffloadId) -> Vec<InstalledRule> {
        let mut listed = BTreeSet::new();
        let mut rules = Vec::new();
        for own in self.flows.get(&id).map_or(&[][..], |flow| &flow.rules) {
            let Some(flow) = self.rules.get(*own).and_then(|entry| flow_of(entry.owner)) else { continue };
            for token in self.rules.all_prerequisites(*own).into_iter().chain([*own]) {
                if let Some(entry) = self.rules.get(token)
                    && listed.insert((flow, token))
                {
                    rules.push(installed(token, Some(flow), entry));
                }
            }
        }
        rules
    }

    /// All rules, those of no flow included.
    pub fn rules(&self) -> impl Iterator<Item = InstalledRule> {
        self.rules.iter().map(|(token, entry)| installed(token, flow_of(entry.owner), entry))
    }

    /// Differences between what is desired and what is in the NIC as the engine knows it; empty where nothing is on its way and nothing
    /// has failed. Looks at every rule: for operators and tests.
    ///
    /// A flow is desired unless it waits for room, is switched off, or cannot be in the NIC. What the NIC has lost without an event
    /// shows at the next reading of its counter.
    pub fn diff(&mut self) -> Vec<Mismatch> {
        let mut comparison = Comparison::default();
        self.diff_transit(&mut comparison);
        let Comparison { mut expected, mut found } = comparison;
        for id in self.ids(|_| true) {
            self.diff_flow(id, &mut expected, &mut found);
        }
        let mut steering: Vec<_> = self.proactive.wanted.clone();
        for token in &self.proactive.tokens {
            let Some(entry) = self.rules.get(*token).filter(|entry| entry.stage == Stage::Live) else {
                continue;
            };
            if let Some(at) = steering.iter().position(|rule| *rule == entry.rule) {
                steering.swap_remove(at);
                expected.insert(*token);
            }
        }
        expected.extend(self.sessions.live_rules(&self.rules));
        found.extend(steering.into_iter().map(|rule| Mismatch { kind: MismatchKind::Missing, flow: None, rule }));
        let extra = self.rules.iter().filter(|(token, entry)| entry.live() && !expected.contains(token));
        found.extend(extra.map(|(_, entry)| Mismatch {
            kind: MismatchKind::Extra,
            flow: flow_of(entry.owner),
            rule: Arc::clone(&entry.rule),
        }));
        found
    }

    fn diff_flow(&mut self, id: OffloadId, expected: &mut BTreeSet<Token>, found: &mut Vec<Mismatch>) {
        let Some(flow) = self.flows.get(&id).filter(|flow| !flow.leaving()) else { return };
        let active = flow.phase.active();
        let absent_by_right = matches!(
            flow.state.1,
            Some(
                NotOffloaded::Placement | NotOffloaded::Off | NotOffloaded::Unsupported(_) | NotOffloaded::NotHonoured
            )
        );
        if active.is_none() && (absent_by_right || matches!(flow.phase, Phase::Software)) {
            return;
        }
        let Ok(lowered) = self.lower(id, active.map_or(2, |set| set.priority)) else { return };
        let (mut desired, mut installed) = (BTreeMap::new(), BTreeMap::new());
        let mut needs = Vec::new();
        for (at, lowered) in (0..).zip(lowered.rules) {
            let Some((chain, _)) = lowered else { continue };
            desired.insert(at, Arc::new(chain.rule));
            needs.extend(chain.needs.into_iter().map(|need| (at, Arc::new(need))));
        }
        for (at, token) in (0..).zip(active.map_or([None, None], |active| active.tokens)) {
            let live = |token| self.rules.get(token).filter(|entry| entry.stage == Stage::Live);
            if let Some((token, entry)) = token.and_then(|token| Some((token, live(token)?))) {
                expected.insert(token);
                expected.extend(self.rules.all_prerequisites(token));
                installed.insert(at, Arc::clone(&entry.rule));
            }
        }
        needs.retain(|(_, need)| {
            let live = |token| self.rules.get(token).is_some_and(|entry| entry.stage == Stage::Live);
            !matches!(self.rules.claim(need), Claim::Shared(token) if expected.contains(&token) && live(token))
        });
        found.extend(needs.into_iter().map(|(at, rule)| {
            let kind = MismatchKind::Missing;
            Mismatch { kind, flow: Some((id, at)), rule }
        }));
        found.extend(place::diff(&desired, &installed).into_iter().map(|(at, difference)| {
            let (kind, rule) = match difference {
                Difference::Missing(rule) => (MismatchKind::Missing, rule),
                Difference::Surplus(rule) => (MismatchKind::Extra, rule),
                Difference::Differs { desired, .. } => (MismatchKind::Different, desired),
            };
            Mismatch { kind, flow: Some((id, at)), rule: Arc::clone(rule) }
        }));
    }
}
