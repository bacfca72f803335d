//! What the engine asks of a NIC that takes rules, whichever API drives it.

use offload_rules::{VifId, lower::Rule};

use crate::{Failure, SessionBackend, errno};

/// The engine's number of a rule: never reused while the backend lives, and larger than those of older rules.
pub type Token = u64;

/// How an operation ended that was accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// The rule is in the NIC.
    Created(Token),
    /// The rule is gone.
    Destroyed(Token),
    /// The rule is not in the NIC, and the backend has released its handle: the token is not used any more.
    CreateFailed(Token, Failure),
    /// The rule may still be in the NIC; destroying it can be tried again.
    DestroyFailed(Token, Failure),
}

/// A rule's counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hits {
    /// Packets since the rule was created.
    pub packets: u64,
    /// Octets of frames as received, since the rule was created.
    pub bytes: u64,
}

/// The rules of one NIC: all ports of one switch domain. Rules name ports by the vif of their device.
///
/// One thread calls it. Operations are asynchronous: `create` and `destroy` enqueue, [`RuleBackend::pull`] returns how they ended, in any
/// order. A backend whose driver is synchronous does the work at once and reports it by the next `pull`.
pub trait RuleBackend: Send {
    /// Operations that may be in flight: enqueued and not pulled. At least 1.
    fn depth(&self) -> usize;

    /// Whether there is time for another operation before the next [`RuleBackend::pull`]: a synchronous driver that takes long for
    /// each must not keep its caller from everything else. Always true of one that only enqueues.
    fn ready(&self) -> bool;

    /// Asks the driver about a rule without installing it. A pass promises nothing.
    ///
    /// # Errors
    /// The driver refuses it.
    fn validate(&mut self, rule: &Rule) -> Result<(), Failure>;

    /// Enqueues a new rule.
    ///
    /// # Errors
    /// Refused at once: no completion follows, the token is done with.
    fn create(&mut self, token: Token, rule: &Rule) -> Result<(), Failure>;

    /// Enqueues the removal of a rule whose creation has completed.
    ///
    /// # Errors
    /// Refused at once: no completion follows, and the rule is still there.
    fn destroy(&mut self, token: Token) -> Result<(), Failure>;

    /// Hands what is enqueued to the NIC.
    ///
    /// # Errors
    /// The NIC takes nothing now: to be called again.
    fn push(&mut self) -> Result<(), Failure>;

    /// Appends what has completed to `into`.
    ///
    /// # Errors
    /// The driver cannot tell now.
    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure>;

    /// Reads the counters of rules: appends one result for each token to `into`, in their order. A counter is cumulative since the
    /// rule's creation, and as old as the NIC's refresh interval. A failure is that of its rule: it has no counter, or it cannot be
    /// read now; ENOENT, the rule is not in the NIC.
    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>);

    /// Reads the counter of one rule.
    ///
    /// # Errors
    /// As for each rule of [`RuleBackend::query`].
    fn query_one(&mut self, token: Token) -> Result<Hits, Failure> {
        let mut results = Vec::with_capacity(1);
        self.query(&[token], &mut results);
        results.pop().unwrap_or_else(|| Err(Failure::from_errno(errno::EIO, "the backend has not answered")))
    }

    /// Packets that have left by the port of this vif's device since it began, those that the NIC forwards included. `None`: it does
    /// not tell, or its link is down.
    fn transmitted(&mut self, port: VifId) -> Option<u64>;

    /// Removes every rule of every port, also rules of an earlier life of this process. Completions of what was in flight never come.
    ///
    /// # Errors
    /// Rules may be left.
    fn flush(&mut self) -> Result<(), Failure>;

    /// False once after a reset of the NIC: all rules and sessions, and what was in flight, are lost; tokens are done with.
    fn alive(&mut self) -> bool;
}

/// The backend of one NIC: its rules, and its IPsec sessions where it has any.
pub struct NicBackend<B> {
    /// Its rules.
    pub rules: B,
    /// Its sessions; `None`: SAs stay in software.
    pub sessions: Option<Box<dyn SessionBackend>>,
}

impl<B: RuleBackend> NicBackend<B> {
    /// A NIC that takes rules and does no IPsec.
    pub fn without_sessions(rules: B) -> Self {
        Self { rules, sessions: None }
    }

    /// A NIC that does IPsec, too.
    pub fn with_sessions(rules: B, sessions: impl SessionBackend + 'static) -> Self {
        Self { rules, sessions: Some(Box::new(sessions)) }
    }
}

/// One of several backends, chosen when the process starts.
impl<B: RuleBackend + ?Sized> RuleBackend for Box<B> {
    fn depth(&self) -> usize {
        (**self).depth()
    }

    fn ready(&self) -> bool {
        (**self).ready()
    }

    fn validate(&mut self, rule: &Rule) -> Result<(), Failure> {
        (**self).validate(rule)
    }

    fn create(&mut self, token: Token, rule: &Rule) -> Result<(), Failure> {
        (**self).create(token, rule)
    }

    fn destroy(&mut self, token: Token) -> Result<(), Failure> {
        (**self).destroy(token)
    }

    fn push(&mut self) -> Result<(), Failure> {
        (**self).push()
    }

    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure> {
        (**self).pull(into)
    }

    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>) {
        (**self).query(tokens, into);
    }

    fn transmitted(&mut self, port: VifId) -> Option<u64> {
        (**self).transmitted(port)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        (**self).flush()
    }

    fn alive(&mut self) -> bool {
        (**self).alive()
    }
}
