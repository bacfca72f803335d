//! The sessions of a NIC's ports, as the offload engine asks for them.

use offload_engine::{Failure, SessionBackend, SessionCounts, SessionKind, SessionSpec};
use offload_rules::{VifId, forwarding::Sa, lower::Session};

use super::Sessions;
use crate::port::{PortRegistry, UnknownPort};

/// Sessions of rte_security on the ports of one NIC. No port starts or stops during a call.
#[derive(Debug)]
pub struct PortSessions {
    ports: PortRegistry,
    sessions: Sessions,
}

impl PortSessions {
    /// Sessions that are found by those who send with them, on these ports.
    #[must_use]
    pub const fn new(ports: PortRegistry, sessions: Sessions) -> Self {
        Self { ports, sessions }
    }

    /// Number of the ethdev of a vif's device.
    fn port(&self, vif: VifId) -> Result<u16, UnknownPort> {
        self.ports.with(|ports| ports.get(vif)).map(|port| port.ethdev)
    }
}

impl SessionBackend for PortSessions {
    fn session_kinds(&mut self, port: VifId, sa: &Sa) -> Vec<SessionKind> {
        let gate = self.ports.gate();
        let _inside = gate.pass();
        self.port(port).map(|port| Sessions::kinds(port, sa)).unwrap_or_default()
    }

    fn open_session(&mut self, session: Session, spec: &SessionSpec) -> Result<(), Failure> {
        let gate = self.ports.gate();
        let _inside = gate.pass();
        let port = self.port(spec.port).map_err(|error| Failure::from_errno(libc::ENODEV, error.to_string()))?;
        self.sessions.open(session, port, spec)
    }

    fn close_session(&mut self, session: Session) -> Result<(), Failure> {
        let gate = self.ports.gate();
        let _inside = gate.pass();
        self.sessions.close(session)
    }

    fn session_counts(&mut self, session: Session) -> Result<SessionCounts, Failure> {
        let gate = self.ports.gate();
        let _inside = gate.pass();
        self.sessions.counts(session)
    }

    fn flush_sessions(&mut self) -> Result<(), Failure> {
        let gate = self.ports.gate();
        let _inside = gate.pass();
        self.sessions.close_all()
    }

    fn suspend_sessions(&mut self) {
        self.sessions.hide_all();
    }
}
