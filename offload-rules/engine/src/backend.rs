//! What the engine asks of a NIC, whichever API drives it.

use std::sync::Arc;

use offload_rules::{
    VifId,
    forwarding::{IpsecTunnel, Lifetime, Sa},
    lower::{FailureClass, Rule, Session},
};

use crate::errno;

/// The engine's number of a rule: never reused while the backend lives.
pub type Token = u64;

/// Why a NIC, or its driver, did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class} (errno {errno}): {message}")]
pub struct Failure {
    /// What to do about it.
    pub class: FailureClass,
    /// As the driver gave it, positive; 0 where there was none.
    pub errno: i32,
    /// The driver's words, for operators.
    pub message: String,
}

impl Failure {
    /// A failure with the class that [`classify`] finds. The sign of `errno` does not matter: drivers use both.
    #[must_use]
    pub fn from_errno(errno: i32, message: impl Into<String>) -> Self {
        Self { class: classify(errno), errno: errno.saturating_abs(), message: message.into() }
    }
}

/// How an operation ended that was accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// The rule is in the NIC.
    Created(Token),
    /// The rule is gone.
    Destroyed(Token),
    /// The rule is not in the NIC, and the backend has let go of its handle: the token is done with.
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

/// How much of ESP a session does in the NIC (rte_security guide).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionKind {
    /// The NIC ciphers; software builds ESP, keeps the sequence and the replay window.
    InlineCrypto,
    /// The NIC does all of it.
    InlineProtocol,
}

/// A session of IPsec as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// The vif of the device that ESP leaves or comes in on: a session belongs to a port.
    pub port: VifId,
    /// How much the NIC does.
    pub kind: SessionKind,
    /// Key, index, window.
    pub sa: Arc<Sa>,
    /// Outer headers.
    pub tunnel: IpsecTunnel,
    /// Inline protocol. Outbound: the first sequence number. Inbound: the lowest one that the window takes.
    pub first: u64,
    /// Inline protocol, what the NIC may do before it stops: of an outbound SA never more packets than numbers are reserved.
    pub most: Lifetime,
    /// What comes back with each packet that the session has opened (rte_security's user data): [`Meta::Opened`] of the tunnel.
    ///
    /// [`Meta::Opened`]: offload_rules::lower::Meta::Opened
    pub told: u32,
}

/// What a session has done since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// Packets sealed, or opened and authentic.
    pub packets: u64,
    /// Octets of the packets inside.
    pub bytes: u64,
    /// Packets refused: check value, replay, padding, or the end of what it may do.
    pub refused: u64,
}

/// One NIC: all ports of one switch domain. Rules name ports by the vif of their device.
///
/// One thread calls it. Operations are asynchronous: `create` and `destroy` enqueue, [`Backend::pull`] tells how they ended, in any
/// order. A backend whose driver is synchronous does the work at once and tells in the next `pull`.
pub trait Backend: Send {
    /// Operations that may be in flight: enqueued and not pulled. At least 1.
    fn depth(&self) -> usize;

    /// Whether there is time for another operation before the next [`Backend::pull`]: a synchronous driver that takes long for each
    /// must not keep its caller from everything else.
    fn ready(&self) -> bool {
        true
    }

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

    /// Reads the counter of a rule: cumulative since its creation, and as old as the NIC's refresh interval.
    ///
    /// # Errors
    /// The rule has no counter, or it cannot be read now.
    fn query(&mut self, token: Token) -> Result<Hits, Failure>;

    /// Packets that have left by the port of this vif's device since it began, those that the NIC forwards included. `None`: it does not
    /// tell, or its link is down.
    fn left(&mut self, _port: VifId) -> Option<u64> {
        None
    }

    /// Appends rules to `into` that have seen no packet for the time of their AGE action.
    ///
    /// # Errors
    /// The driver cannot tell now.
    fn aged(&mut self, into: &mut Vec<Token>) -> Result<(), Failure>;

    /// Kinds of sessions that the port of this vif's device offers: AES-GCM of this key length in bits, with ESN or not.
    fn session_kinds(&mut self, _port: VifId, _sa: &Sa) -> Vec<SessionKind> {
        Vec::new()
    }

    /// Creates a session, at once. Rules name it by its number from then on.
    ///
    /// # Errors
    /// The driver refuses it.
    fn open_session(&mut self, _session: Session, _spec: &SessionSpec) -> Result<(), Failure> {
        Err(Failure::from_errno(errno::ENOTSUP, "this NIC has no IPsec of its own"))
    }

    /// Destroys a session. No rule names it any more, and nobody sends with it.
    ///
    /// # Errors
    /// It is still there; EBUSY while rules use it.
    fn close_session(&mut self, session: Session) -> Result<(), Failure> {
        let _ = session;
        Err(Failure::from_errno(errno::ENOENT, "there is no such session"))
    }

    /// What a session of inline protocol has done.
    ///
    /// # Errors
    /// The driver cannot tell.
    fn session_counts(&mut self, session: Session) -> Result<SessionCounts, Failure> {
        let _ = session;
        Err(Failure::from_errno(errno::ENOENT, "there is no such session"))
    }

    /// Removes every rule and every session of every port, also rules of an earlier life of this process. Completions of what was in
    /// flight never come.
    ///
    /// # Errors
    /// Rules may be left.
    fn flush(&mut self) -> Result<(), Failure>;

    /// False once after a reset of the NIC: all rules and sessions, and what was in flight, are lost; tokens and sessions are done
    /// with.
    fn alive(&mut self) -> bool;
}

/// One of several backends, chosen when the process starts.
impl<B: Backend + ?Sized> Backend for Box<B> {
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

    fn query(&mut self, token: Token) -> Result<Hits, Failure> {
        (**self).query(token)
    }

    fn left(&mut self, port: VifId) -> Option<u64> {
        (**self).left(port)
    }

    fn aged(&mut self, into: &mut Vec<Token>) -> Result<(), Failure> {
        (**self).aged(into)
    }

    fn session_kinds(&mut self, port: VifId, sa: &Sa) -> Vec<SessionKind> {
        (**self).session_kinds(port, sa)
    }

    fn open_session(&mut self, session: Session, spec: &SessionSpec) -> Result<(), Failure> {
        (**self).open_session(session, spec)
    }

    fn close_session(&mut self, session: Session) -> Result<(), Failure> {
        (**self).close_session(session)
    }

    fn session_counts(&mut self, session: Session) -> Result<SessionCounts, Failure> {
        (**self).session_counts(session)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        (**self).flush()
    }

    fn alive(&mut self) -> bool {
        (**self).alive()
    }
}

/// The class of an errno (either sign). Drivers disagree on errnos, so a class only decides when to try again, never whether the
/// flow is safe in software: it always is.
#[must_use]
pub fn classify(errno: i32) -> FailureClass {
    match errno.saturating_abs() {
        errno::ENOTSUP | errno::EINVAL | errno::ENOSYS => FailureClass::Shape,
        // ENODATA: mlx5 has no counters left (mlx5_flow_dv.c, `flow_dv_counter_pool_prepare`).
        errno::ENOSPC | errno::ENOMEM | errno::ENOENT | errno::ENODATA => FailureClass::Capacity,
        errno::EAGAIN | errno::EBUSY => FailureClass::Busy,
        errno::EEXIST => FailureClass::Duplicate,
        errno::ETIMEDOUT => FailureClass::Timeout,
        _ => FailureClass::Device,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_have_the_classes_that_drivers_mean_whatever_their_sign() {
        for (errnos, class) in [
            (&[errno::ENOTSUP, libc::EOPNOTSUPP, errno::EINVAL, errno::ENOSYS][..], FailureClass::Shape),
            (&[errno::ENOSPC, errno::ENOMEM, errno::ENOENT, errno::ENODATA], FailureClass::Capacity),
            (&[errno::EAGAIN, libc::EWOULDBLOCK, errno::EBUSY], FailureClass::Busy),
            (&[errno::EEXIST], FailureClass::Duplicate),
            (&[errno::EIO, errno::ENODEV, 0, i32::MIN], FailureClass::Device),
        ] {
            for errno in errnos {
                assert_eq!(classify(*errno), class, "{errno}");
                assert_eq!(classify(errno.wrapping_neg()), class, "-{errno}");
            }
        }
    }
}
