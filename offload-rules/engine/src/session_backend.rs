//! The interface to a NIC that does IPsec, whichever API drives it.

use std::sync::Arc;

use offload_rules::{
    VifId,
    forwarding::{IpsecTunnel, Lifetime, Sa},
    lower::Session,
};

use crate::Failure;

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

/// The IPsec sessions of one NIC. The rules that name them go by the same NIC's [`RuleBackend`](crate::RuleBackend).
///
/// One thread calls it. Every operation is done when the call returns.
pub trait SessionBackend: Send {
    /// Kinds of sessions that the port of this vif's device offers: AES-GCM of this key length in bits, with ESN or not. None for a
    /// port without IPsec, or a device that is no port of the NIC.
    fn session_kinds(&mut self, port: VifId, sa: &Sa) -> Vec<SessionKind>;

    /// Creates a session. Rules name it by its number from then on.
    ///
    /// # Errors
    /// The driver refuses it.
    fn open_session(&mut self, session: Session, spec: &SessionSpec) -> Result<(), Failure>;

    /// Destroys a session. No rule names it any more, and no worker sends with it.
    ///
    /// # Errors
    /// It is still there; EBUSY while rules use it.
    fn close_session(&mut self, session: Session) -> Result<(), Failure>;

    /// What a session of inline protocol has done.
    ///
    /// # Errors
    /// The driver cannot tell.
    fn session_counts(&mut self, session: Session) -> Result<SessionCounts, Failure>;

    /// Destroys every session of every port, also those of an earlier life of this process. No rule is left that names one, or the
    /// NIC has been reset and has lost them all.
    ///
    /// # Errors
    /// Sessions may be left in the NIC; the backend has released them all the same.
    fn flush_sessions(&mut self) -> Result<(), Failure>;

    /// No worker sends with any session from now on. Rules may be left that name them: they are not destroyed yet.
    fn suspend_sessions(&mut self);
}
