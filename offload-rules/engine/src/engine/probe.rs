//! The probe: a passing `validate` promises nothing, so typical shapes are validated, created and destroyed once before flows use
//! them. A slow NIC is not asked for long: any other shape is tried by the first flow that has it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use offload_rules::lower::{Chain, FailureClass};

use super::{
    Engine,
    install::PROBE,
    prerequisites::Claim,
    rules::{NewRule, Owner, ShapeIndex},
};
use crate::{Failure, Lowering, ProbeResult, RuleBackend, Token};

/// Canaries. Two that have the same match are tried one after the other.
#[derive(Debug, Default)]
pub(super) struct Probe {
    queue: VecDeque<(ShapeIndex, Chain)>,
    current: BTreeMap<Token, (ShapeIndex, Chain)>,
    /// Canaries were queued once.
    pub(super) planned: bool,
    /// When what is left is given up; not before it has begun.
    until: Option<u64>,
}

impl Probe {
    pub(super) fn under_way(&self) -> bool {
        !self.current.is_empty() || !self.queue.is_empty()
    }

    /// The NIC has lost the canaries: they are tried again.
    pub(super) fn interrupted(&mut self) {
        self.queue.extend(std::mem::take(&mut self.current).into_values());
    }
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// Forgets what was learned of shapes, and queues the canaries.
    pub(super) fn plan_probe(&mut self) {
        for shape in &mut self.shapes {
            (shape.refused, shape.doubts, shape.proven) = (None, 0, false);
        }
        self.abandon_probe();
        for (shape, chain) in self.lowering.canaries(&self.snapshot) {
            self.probe.planned = true;
            let index = self.shape(&shape);
            if let Some(shape) = self.shapes.get_mut(index) {
                shape.probe = Some(ProbeResult::Waiting);
            }
            self.probe.queue.push_back((index, chain));
        }
    }

    pub(super) fn abandon_probe(&mut self) {
        self.probe.until = None;
        self.probe.queue.clear();
        for shape in &mut self.shapes {
            shape.probe.take_if(|result| *result == ProbeResult::Waiting);
        }
        for token in std::mem::take(&mut self.probe.current).into_keys() {
            if self.rules.unwant(token) {
                self.ended(token);
            }
        }
    }

    /// Starts the canaries whose match is free, while there is time.
    pub(super) fn advance_probe(&mut self, now: u64) {
        if !self.probe.under_way() {
            return;
        }
        if *self.probe.until.get_or_insert(now + self.config.probe) <= now {
            tracing::warn!(
                "the NIC is slow: shapes of rules that have not been tried are left to the flows that have them"
            );
            return self.abandon_probe();
        }
        for (shape, chain) in std::mem::take(&mut self.probe.queue) {
            let mut claims = chain.needs.iter().map(|need| self.rules.claim(need));
            let free = claims.all(|claim| matches!(claim, Claim::New | Claim::Shared(_)));
            if !free || self.rules.holder(&chain.rule).is_some() {
                self.probe.queue.push_back((shape, chain));
                continue;
            }
            let valid = chain.needs.iter().chain([&chain.rule]).try_for_each(|rule| self.backend.validate(rule));
            match valid {
                Ok(()) => {
                    let prerequisites = self.rules.acquire(chain.needs.clone());
                    let new = NewRule { shape: Some(shape), prerequisites, ..NewRule::of(Owner::Canary(shape)) };
                    let token = self.rules.insert(Arc::new(chain.rule.clone()), new);
                    self.probe.current.insert(token, (shape, chain));
                }
                Err(failure) => self.record_result(shape, Some(&failure)),
            }
        }
    }

    /// Several canaries can stand for one shape: the worst result counts.
    fn record_result(&mut self, index: ShapeIndex, failure: Option<&Failure>) {
        let Some(shape) = self.shapes.get_mut(index) else { return };
        let result = match failure {
            None => ProbeResult::Works,
            Some(failure) if failure.class == FailureClass::Shape => {
                shape.refused = Some(PROBE);
                ProbeResult::Refused(failure.to_string())
            }
            Some(failure) => ProbeResult::Unsure(failure.to_string()),
        };
        let worse = match (&shape.probe, &result) {
            (None | Some(ProbeResult::Waiting | ProbeResult::Works), _) | (_, ProbeResult::Refused(_)) => true,
            (Some(ProbeResult::Refused(_) | ProbeResult::Unsure(_)), _) => false,
        };
        if worse {
            shape.probe = Some(result);
        }
    }

    /// The canary was not created, not in time, or cannot be removed: the probe goes on without it.
    pub(super) fn canary_failed(&mut self, token: Token, shape: ShapeIndex, failure: &Failure) {
        if self.probe.current.remove(&token).is_some() {
            self.record_result(shape, Some(failure));
        }
    }

    /// The canary is gone again.
    pub(super) fn canary_ended(&mut self, token: Token, shape: ShapeIndex) {
        if self.probe.current.remove(&token).is_some() {
            self.record_result(shape, None);
        }
    }
}
