//! A backend whose ports do not start or stop while it talks to their drivers.

use offload_rules::{
    VifId,
    forwarding::Sa,
    lower::{Rule, Session},
};

use crate::port::Gate;
use offload_engine::{Backend, Completion, Failure, Hits, SessionCounts, SessionKind, SessionSpec, Token};

/// Passes each call on through the gate of the ports.
#[derive(Debug)]
pub struct Gated<B> {
    gate: Gate,
    backend: B,
}

impl<B: Backend> Gated<B> {
    /// `gate` is that of the backend's ports.
    #[must_use]
    pub fn new(backend: B, gate: Gate) -> Self {
        Self { gate, backend }
    }
}

impl<B: Backend> Backend for Gated<B> {
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

    fn query(&mut self, token: Token) -> Result<Hits, Failure> {
        let _inside = self.gate.pass();
        self.backend.query(token)
    }

    fn left(&mut self, port: VifId) -> Option<u64> {
        let _inside = self.gate.pass();
        self.backend.left(port)
    }

    fn aged(&mut self, into: &mut Vec<Token>) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.aged(into)
    }

    fn session_kinds(&mut self, port: VifId, sa: &Sa) -> Vec<SessionKind> {
        let _inside = self.gate.pass();
        self.backend.session_kinds(port, sa)
    }

    fn open_session(&mut self, session: Session, spec: &SessionSpec) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.open_session(session, spec)
    }

    fn close_session(&mut self, session: Session) -> Result<(), Failure> {
        let _inside = self.gate.pass();
        self.backend.close_session(session)
    }

    fn session_counts(&mut self, session: Session) -> Result<SessionCounts, Failure> {
        let _inside = self.gate.pass();
        self.backend.session_counts(session)
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
