//! Proactive rules: they belong to no flow, and follow the snapshot.
//!
//! A rule that leads to a table is in the NIC only while all rules of these in that table are: on the side of receiving, what meets none is
//! lost (rdma-core, dr_domain.c: the default of a receive domain's tables is `nic_rx_drop_address`).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use offload_rules::{
    VrfId,
    forwarding::{Snapshot, VersionChanges},
    lower::{FailureClass, NotOffloaded, Rule, Table},
};

use super::{
    Engine, Timer,
    rules::{NewRule, Owner, Stage},
};
use crate::{Failure, Lowering, RuleBackend, Token, config::backoff};

#[derive(Debug, Default)]
pub(super) struct Proactive {
    pub(super) wanted: Vec<Arc<Rule>>,
    /// Version of the NIC's ports that these are for.
    ports: Option<u64>,
    /// All that have not ended.
    pub(super) tokens: BTreeSet<Token>,
    /// Something has happened since they were reconciled last.
    pub(super) dirty: bool,
    /// Wanted and not in the NIC.
    missing: usize,
    failed: Option<FailureClass>,
    attempts: u32,
    pub(super) retry_at: Option<u64>,
}

impl Proactive {
    /// Why flows cannot begin: without steering, their rules are never asked.
    pub(super) fn blocks(&self) -> Option<NotOffloaded> {
        (self.missing > 0 || self.dirty).then(|| self.failed.map_or(NotOffloaded::Pending, NotOffloaded::Failed))
    }

    pub(super) fn ended(&mut self, token: Token) {
        self.tokens.remove(&token);
        self.dirty = true;
    }

    /// The NIC has lost all.
    pub(super) fn lost(&mut self) {
        self.tokens.clear();
        self.dirty = true;
        self.missing = self.wanted.len();
        (self.failed, self.attempts, self.retry_at) = (None, 0, None);
    }
}

/// Do the snapshots differ in what steering reads: vifs, and the addresses where tunnels end?
fn steering_differs(before: &Snapshot, after: &Snapshot) -> bool {
    let same_vifs = before.vifs().count() == after.vifs().count()
        && before.vifs().zip(after.vifs()).all(|(before, after)| Arc::ptr_eq(before, after));
    let same_ends = |vrf: VrfId| before.mpls_o_udp_terminations(vrf).eq(after.mpls_o_udp_terminations(vrf));
    !same_vifs || !after.vrfs().all(|vrf| same_ends(vrf.id))
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// After a change of the snapshot: nothing where it concerns neither vifs nor the ends of tunnels, nor the NIC's ports.
    pub(super) fn replan_proactive(&mut self, before: &Snapshot, changes: &[VersionChanges]) {
        let ports = self.lowering.ports_version();
        let touched = || changes.iter().any(|changes| changes.touches_arrivals() || changes.touches_vrfs());
        if self.proactive.ports != Some(ports) || touched() && steering_differs(before, &self.snapshot) {
            self.plan_proactive();
        }
    }

    /// Finds out which rules are wanted now.
    pub(super) fn plan_proactive(&mut self) {
        self.proactive.ports = Some(self.lowering.ports_version());
        let wanted = if self.enabled { self.lowering.proactive(&self.snapshot) } else { Vec::new() };
        if wanted.iter().eq(self.proactive.wanted.iter().map(|rule| &**rule)) {
            return;
        }
        self.proactive.wanted = wanted.into_iter().map(Arc::new).collect();
        (self.proactive.attempts, self.proactive.retry_at) = (0, None);
        self.timers.retain(|(_, timer)| *timer != Timer::Proactive);
        self.proactive.dirty = true;
    }

    /// Moves the proactive rules one step toward the desired set.
    pub(super) fn reconcile_proactive(&mut self, now: u64) {
        if !self.proactive.dirty || self.probe.under_way() {
            return;
        }
        self.proactive.dirty = false;
        if !self.enabled && self.rules.of_flows > 0 {
            // What steers and guards packets of flows leaves after the last of their rules.
            return;
        }
        let mut missing: HashMap<&Rule, bool> = self.proactive.wanted.iter().map(|rule| (&**rule, true)).collect();
        let mut unwanted = Vec::new();
        let mut live = HashSet::new();
        // Tables that rules lead to which leave, or are to.
        let mut left: HashSet<Table> = HashSet::new();
        for token in &self.proactive.tokens {
            let Some(entry) = self.rules.get(*token) else { continue };
            match missing.get_mut(&*entry.rule).filter(|_| entry.wanted()) {
                Some(missing) => {
                    *missing = false;
                    if entry.stage == Stage::Live {
                        live.insert(&*entry.rule);
                    }
                }
                None => {
                    left.extend(entry.rule.leads_to());
                    if entry.wanted() {
                        unwanted.push(*token);
                    }
                }
            }
        }
        unwanted.retain(|token| self.rules.get(*token).is_some_and(|entry| !left.contains(&entry.rule.table)));
        self.proactive.missing = missing.len() - live.len();
        let absent = self.proactive.wanted.iter().filter(|rule| !live.contains(&***rule));
        let unready: HashSet<Table> = absent.map(|rule| rule.table).collect();
        let begin: Vec<Arc<Rule>> = self
            .proactive
            .wanted
            .iter()
            .filter(|rule| {
                // What it takes the place of leaves first.
                missing.insert(&***rule, false) == Some(true)
                    && self.rules.holder(rule).is_none()
                    && rule.leads_to().all(|table| !unready.contains(&table))
            })
            .cloned()
            .collect();
        for token in unwanted {
            if self.rules.unwant(token) {
                self.ended(token);
            }
        }
        if self.proactive.retry_at.is_none_or(|at| at <= now) {
            for rule in begin {
                let token = self.rules.insert(rule, NewRule::of(Owner::Proactive));
                self.proactive.tokens.insert(token);
            }
        }
        if self.proactive.missing == 0 {
            (self.proactive.failed, self.proactive.attempts) = (None, 0);
        }
    }

    /// One could not be created: tried again later.
    pub(super) fn proactive_failed(&mut self, failure: &Failure, now: u64) {
        self.proactive.failed = Some(failure.class);
        if self.proactive.retry_at.is_none() {
            tracing::error!(%failure, "a rule that steers packets to those of flows cannot be installed");
            self.proactive.attempts = self.proactive.attempts.saturating_add(1);
            let at = now + backoff(&self.config, self.proactive.attempts, 1);
            self.proactive.retry_at = Some(at);
            self.timers.insert((at, Timer::Proactive));
        }
    }
}
