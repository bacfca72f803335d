//! Rules that belong to no flow: kept as the snapshot wants them.
//!
//! A rule that leads to a table is in the NIC only while all rules of these in that table are: on the side of receiving, what meets none is
//! lost (rdma-core, dr_domain.c: the default of a receive domain's tables is `nic_rx_drop_address`).

use std::collections::{BTreeSet, HashMap, HashSet};

use offload_rules::lower::{FailureClass, NotOffloaded, Rule, Table};

use super::{
    Engine, Timer,
    rules::{Owner, Stage},
};
use crate::{Backend, Failure, Lowering, Token, config::backoff};

#[derive(Debug, Default)]
pub(super) struct Proactive {
    pub(super) wanted: Vec<Rule>,
    /// All that have not ended.
    pub(super) tokens: BTreeSet<Token>,
    /// Something has happened since the last look.
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

impl<B: Backend, L: Lowering> Engine<B, L> {
    /// What is wanted now.
    pub(super) fn plan_proactive(&mut self) {
        let wanted = if self.enabled { self.lowering.proactive(&self.snapshot) } else { Vec::new() };
        if wanted != self.proactive.wanted {
            self.proactive.wanted = wanted;
            (self.proactive.attempts, self.proactive.retry_at) = (0, None);
            self.timers.retain(|(_, timer)| *timer != Timer::Proactive);
        }
        self.proactive.dirty = true;
    }

    /// Brings the NIC nearer to it.
    pub(super) fn reconcile_proactive(&mut self, now: u64) {
        if !self.proactive.dirty || self.probe.under_way() {
            return;
        }
        self.proactive.dirty = false;
        if !self.enabled && self.rules.of_flows > 0 {
            // What steers and guards packets of flows leaves after the last of their rules.
            return;
        }
        let mut missing: HashMap<&Rule, bool> = self.proactive.wanted.iter().map(|rule| (rule, true)).collect();
        let mut unwanted = Vec::new();
        let mut live = HashSet::new();
        // Tables that rules lead to which leave, or are to.
        let mut left: HashSet<Table> = HashSet::new();
        for token in &self.proactive.tokens {
            let Some(entry) = self.rules.get(*token) else { continue };
            match missing.get_mut(&entry.rule).filter(|_| entry.wanted) {
                Some(missing) => {
                    *missing = false;
                    if entry.stage == Stage::Live {
                        live.insert(&entry.rule);
                    }
                }
                None => {
                    left.extend(entry.rule.leads_to());
                    if entry.wanted {
                        unwanted.push(*token);
                    }
                }
            }
        }
        unwanted.retain(|token| self.rules.get(*token).is_some_and(|entry| !left.contains(&entry.rule.table)));
        self.proactive.missing = missing.len() - live.len();
        let absent = self.proactive.wanted.iter().filter(|rule| !live.contains(rule));
        let unready: HashSet<Table> = absent.map(|rule| rule.table).collect();
        let begin: Vec<Rule> = self
            .proactive
            .wanted
            .iter()
            .filter(|rule| {
                // What it takes the place of leaves first.
                missing.insert(*rule, false) == Some(true)
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
                let token = self.rules.insert(Owner::Proactive, rule, None, false, Vec::new());
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
