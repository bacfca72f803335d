//! The synchronous API: every driver with rte_flow has it.

use std::{
    collections::HashMap,
    ptr::NonNull,
    time::{Duration, Instant},
};

use dpdk_sys::rte_flow_error;
use offload_engine::{Completion, Failure, Hits, RuleBackend, Token, hash::Quick};
use offload_rules::{VifId, lower::Rule};

use super::{
    error::{check, failure},
    nic::{Handle, Installed, Nic},
    style::Style,
};
use crate::{port::PortRegistry, security::Sessions};

/// The longest that one round of the engine may take, since inspections wait for it.
const SLICE: Duration = Duration::from_millis(20);

/// Rules by `rte_flow_create` and `rte_flow_destroy`. A call returns when the NIC has done it, so it takes as long as the NIC does, and
/// the engine's thread is the only one that waits. Completions are reported by the next `pull`.
#[derive(Debug)]
pub struct Synchronous {
    nic: Nic,
    depth: usize,
    /// Spent in the driver since completions were pulled.
    spent: Duration,
    rules: HashMap<Token, Installed, Quick>,
    completed: Vec<Completion>,
    /// The rule whose query tells whether the NIC still has its rules.
    sentinel: Option<Token>,
}

impl Synchronous {
    /// A backend of these ports, which are started. `depth` operations are done before completions have to be pulled: what one
    /// round of the engine may spend.
    #[must_use]
    pub fn new(ports: PortRegistry, style: Style, depth: usize) -> Self {
        Self {
            nic: Nic::new(ports, style),
            depth: depth.max(1),
            spent: Duration::ZERO,
            rules: HashMap::default(),
            completed: Vec::new(),
            sentinel: None,
        }
    }

    /// With a session table that is shared with the workers that send with sessions.
    #[must_use]
    pub fn with_sessions(mut self, sessions: Sessions) -> Self {
        self.nic.sessions = sessions;
        self
    }

    fn forget(&mut self) {
        self.rules.clear();
        self.completed.clear();
        self.sentinel = None;
    }

    /// Nothing, if it went with its port.
    fn take_out(&mut self, rule: &Installed) -> Result<(), Failure> {
        if !self.nic.holds(rule) {
            return Ok(());
        }
        let mut error = rte_flow_error::default();
        let begun = Instant::now();
        // SAFETY: the handle is of a rule on this port that has not been destroyed, and the port has not stopped since.
        let code = unsafe { dpdk_sys::rte_flow_destroy(rule.port, rule.handle.0.as_ptr(), &raw mut error) };
        self.spent += begun.elapsed();
        check(code, &error)
    }

    fn rule(&self, token: Token) -> Result<Installed, Failure> {
        self.rules.get(&token).copied().ok_or_else(|| Failure::from_errno(libc::ENOENT, "there is no such rule"))
    }
}

impl Drop for Synchronous {
    /// Takes its rules away, the newest first: none stays without those that it relies on, which are older. A flush takes them in the
    /// driver's order. What is left, and what was lost with its port, is for the next one's flush.
    fn drop(&mut self) {
        let gate = self.nic.gate();
        let _inside = gate.pass();
        let sentinel = self.sentinel.and_then(|token| self.rules.get(&token).copied());
        if self.nic.lost(sentinel) {
            return;
        }
        let mut tokens: Vec<Token> = self.rules.keys().copied().collect();
        tokens.sort_unstable_by(|a, b| b.cmp(a));
        for token in tokens {
            if let Err(failure) = self.destroy(token) {
                tracing::debug!(token, %failure, "a rule stays until the next flush");
            }
        }
    }
}

impl RuleBackend for Synchronous {
    fn depth(&self) -> usize {
        self.depth
    }

    fn ready(&self) -> bool {
        self.spent < SLICE
    }

    fn validate(&mut self, rule: &Rule) -> Result<(), Failure> {
        let (port, rule) = self.nic.translate(rule)?;
        if self.nic.ends_with(rule.session) {
            return Ok(());
        }
        let (attr, items, actions) = (rule.place.attr(), rule.pattern.raw(), rule.actions.raw());
        let mut error = rte_flow_error::default();
        // SAFETY: both arrays end in END; they and what they point to live until after the call.
        let code = unsafe {
            dpdk_sys::rte_flow_validate(port, &raw const attr, items.as_ptr(), actions.as_ptr(), &raw mut error)
        };
        check(code, &error)
    }

    fn create(&mut self, token: Token, rule: &Rule) -> Result<(), Failure> {
        let (port, rule) = self.nic.translate(rule)?;
        let (attr, items, actions) = (rule.place.attr(), rule.pattern.raw(), rule.actions.raw());
        let mut error = rte_flow_error::default();
        let begun = Instant::now();
        // SAFETY: both arrays end in END; they and what they point to live until after the call, and drivers copy what they keep.
        let flow = unsafe {
            dpdk_sys::rte_flow_create(port, &raw const attr, items.as_ptr(), actions.as_ptr(), &raw mut error)
        };
        self.spent += begun.elapsed();
        let handle = Handle(NonNull::new(flow).ok_or_else(|| failure(0, &error))?);
        let rule = self.nic.done(port, handle, rule);
        self.rules.insert(token, rule);
        if rule.counts {
            self.sentinel = Some(token);
        }
        self.completed.push(Completion::Created(token));
        Ok(())
    }

    fn destroy(&mut self, token: Token) -> Result<(), Failure> {
        let rule = self.rule(token)?;
        match self.take_out(&rule) {
            // Gone already, in a reset that has not been found out yet.
            Err(failure) if failure.errno == libc::ENOENT => {}
            // ixgbe_flow.c of 22.11, `ixgbe_flow_destroy`: a rule of IPsec is of no type that it knows. It is no rule of the NIC, but an
            // entry in a table of SAs, which goes with the session.
            Err(failure) if failure.errno == libc::EINVAL && self.nic.ends_with(rule.session) => {}
            result => result?,
        }
        self.rules.remove(&token);
        self.nic.gone(rule);
        if self.sentinel == Some(token) {
            self.sentinel = self.rules.iter().find(|(_, rule)| rule.counts).map(|(token, _)| *token);
        }
        self.completed.push(Completion::Destroyed(token));
        Ok(())
    }

    fn push(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure> {
        self.spent = Duration::ZERO;
        into.append(&mut self.completed);
        Ok(())
    }

    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>) {
        into.extend(tokens.iter().map(|token| self.rule(*token).and_then(|rule| self.nic.query(rule))));
    }

    fn transmitted(&mut self, port: VifId) -> Option<u64> {
        self.nic.transmitted(port)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.forget();
        self.nic.flush()
    }

    fn alive(&mut self) -> bool {
        let sentinel = self.sentinel.and_then(|token| self.rules.get(&token).copied());
        if !self.nic.lost(sentinel) {
            return true;
        }
        self.forget();
        // The driver's handles of rules that are no more; what it says about them does not matter.
        let _ = self.nic.flush();
        false
    }
}
