//! The probe: a passing `validate` promises nothing, so typical shapes are validated, created and destroyed once before flows use
//! them. A slow NIC is not asked for long: any other shape is tried by the first flow that has it.

use std::collections::{BTreeMap, VecDeque};

use offload_rules::lower::{Chain, FailureClass};

use super::{
    Engine,
    install::PROBE,
    needs::Claim,
    rules::{Owner, ShapeIndex},
};
use crate::{Backend, Failure, Finding, Lowering, Token};

/// Canaries. Two that have the same match are tried one after the other.
#[derive(Debug, Default)]
pub(super) struct Probe {
    queue: VecDeque<(ShapeIndex, Chain)>,
    current: BTreeMap<Token, (ShapeIndex, Chain)>,
    /// There was something to probe.
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

impl<B: Backend, L: Lowering> Engine<B, L> {
    /// All that was learned is forgotten and found out anew.
    pub(super) fn plan_probe(&mut self) {
        for shape in &mut self.shapes {
            (shape.refused, shape.doubts, shape.proven) = (None, 0, false);
        }
        self.abandon_probe();
        for (shape, chain) in self.lowering.canaries(&self.snapshot) {
            self.probe.planned = true;
            let index = self.shape(&shape);
            if let Some(shape) = self.shapes.get_mut(index) {
                shape.probe = Some(Finding::Waiting);
            }
            self.probe.queue.push_back((index, chain));
        }
    }

    pub(super) fn abandon_probe(&mut self) {
        self.probe.until = None;
        self.probe.queue.clear();
        for shape in &mut self.shapes {
            shape.probe.take_if(|finding| *finding == Finding::Waiting);
        }
        for token in std::mem::take(&mut self.probe.current).into_keys() {
            if self.rules.unwant(token) {
                self.ended(token);
            }
        }
    }

    /// Starts the canaries whose match is free, while there is time.
    pub(super) fn go_on_probing(&mut self, now: u64) {
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
                    let needs = self.rules.secure(chain.needs.clone());
                    let rule = chain.rule.clone();
                    let token = self.rules.insert(Owner::Canary(shape), rule, Some(shape), false, needs);
                    self.probe.current.insert(token, (shape, chain));
                }
                Err(failure) => self.found(shape, Some(&failure)),
            }
        }
    }

    /// Several canaries can stand for one shape: the worst finding counts.
    fn found(&mut self, index: ShapeIndex, failure: Option<&Failure>) {
        let Some(shape) = self.shapes.get_mut(index) else { return };
        let finding = match failure {
            None => Finding::Works,
            Some(failure) if failure.class == FailureClass::Shape => {
                shape.refused = Some(PROBE);
                Finding::Refused(failure.to_string())
            }
            Some(failure) => Finding::Unsure(failure.to_string()),
        };
        let worse = match (&shape.probe, &finding) {
            (None | Some(Finding::Waiting | Finding::Works), _) | (_, Finding::Refused(_)) => true,
            (Some(Finding::Refused(_) | Finding::Unsure(_)), _) => false,
        };
        if worse {
            shape.probe = Some(finding);
        }
    }

    /// The canary was not created, not in time, or cannot be removed: the probe goes on without it.
    pub(super) fn canary_failed(&mut self, token: Token, shape: ShapeIndex, failure: &Failure) {
        if self.probe.current.remove(&token).is_some() {
            self.found(shape, Some(failure));
        }
    }

    /// The canary is gone again.
    pub(super) fn canary_ended(&mut self, token: Token, shape: ShapeIndex) {
        if self.probe.current.remove(&token).is_some() {
            self.found(shape, None);
        }
    }
}
