//! A backend whose ports do not start or stop while it talks to their drivers.

use offload_engine::{Completion, Failure, Hits, RuleBackend, Token};
use offload_rules::{VifId, lower::Rule};

use crate::port::Gate;

/// Passes each call on through the gate of the ports.
#[derive(Debug)]
pub struct Gated<B> {
    gate: Gate,
    backend: B,
}

impl<B: RuleBackend> Gated<B> {
    /// `gate` is that of the backend's ports.
    #[must_use]
    pub fn new(backend: B, gate: Gate) -> Self {
        Self { gate, backend }
    }
}

impl<B: RuleBackend> RuleBackend for Gated<B> {
    fn depth(&self) -> usize {
        self.backend.depth()
    }

    fn ready(&self) -> bool {
        self.backend.ready()
    }

    fn validate(&mut self, rule: &Rule) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.validate(rule)
    }

    fn create(&mut self, token: Token, rule: &Rule) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.create(token, rule)
    }

    fn destroy(&mut self, token: Token) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.destroy(token)
    }

    fn push(&mut self) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.push()
    }

    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.pull(into)
    }

    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>) {
        let _inside = self.gate.pass();
        self.backend.query(tokens, into);
    }

    fn transmitted(&mut self, port: VifId) -> Option<u64> {
        let _inside = self.gate.pass();
        self.backend.transmitted(port)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.flush()
    }

    fn alive(&mut self) -> bool {
        let _inside = self.gate.pass();
        self.backend.alive()
    }
}
