//! The probe: a passing `validate` promises nothing, so each shape is validated, created and destroyed once before flows use it.

use std::collections::VecDeque;

use offload_rules::lower::{FailureClass, Rule};

use super::{
    Engine,
    install::PROBE,
    rules::{Owner, ShapeIndex},
};
use crate::offload::{Backend, Failure, Finding, Lowering, Token};

/// Canaries, one at a time: two may have the same match.
#[derive(Debug, Default)]
pub(super) struct Probe {
    queue: VecDeque<(ShapeIndex, Rule)>,
    current: Option<(Token, ShapeIndex, Rule)>,
}

impl Probe {
    pub(super) fn under_way(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    /// The NIC has lost the canary: it is tried again.
    pub(super) fn interrupted(&mut self) {
        if let Some((_, shape, rule)) = self.current.take() {
            self.queue.push_front((shape, rule));
        }
    }
}

impl<B: Backend, L: Lowering> Engine<B, L> {
    /// All that was learned is forgotten and found out anew.
    pub(super) fn plan_probe(&mut self) {
        for shape in &mut self.shapes {
            (shape.refused, shape.doubts, shape.proven) = (None, 0, false);
        }
        self.abandon_probe();
        for (shape, rule) in self.lowering.canaries() {
            let index = self.shape(&shape);
            if let Some(shape) = self.shapes.get_mut(index) {
                shape.probe = Some(Finding::Waiting);
            }
            self.probe.queue.push_back((index, rule));
        }
    }

    pub(super) fn abandon_probe(&mut self) {
        self.probe.queue.clear();
        if let Some((token, ..)) = self.probe.current.take()
            && self.rules.unwant(token)
        {
            self.ended(token);
        }
    }

    /// Starts the next canary, unless one is out.
    pub(super) fn go_on_probing(&mut self) {
        while self.probe.current.is_none()
            && let Some((shape, rule)) = self.probe.queue.front()
        {
            // An earlier canary with the same match may still be on its way out.
            if self.rules.holder(rule).is_some() {
                return;
            }
            let shape = *shape;
            let valid = self.backend.validate(rule);
            let Some((_, rule)) = self.probe.queue.pop_front() else { return };
            match valid {
                Ok(()) => {
                    let token = self.rules.insert(Owner::Canary(shape), rule.clone(), Some(shape), false);
                    self.probe.current = Some((token, shape, rule));
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
        if self.probe.current.as_ref().is_some_and(|(current, ..)| *current == token) {
            self.probe.current = None;
            self.found(shape, Some(failure));
        }
    }

    /// The canary is gone again.
    pub(super) fn canary_ended(&mut self, token: Token, shape: ShapeIndex) {
        if self.probe.current.as_ref().is_some_and(|(current, ..)| *current == token) {
            self.probe.current = None;
            self.found(shape, None);
        }
    }
}
