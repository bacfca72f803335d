//! Why a name in a rule has no counterpart in the NIC.

use offload_rules::{VifId, lower::Session};

use crate::port::UnknownPort;

/// A port, session or stage that items and actions name does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    /// A port.
    #[error(transparent)]
    Port(#[from] UnknownPort),
    /// A session of IPsec.
    #[error("there is no session {}", .0.0)]
    Session(Session),
    /// A stage without a number.
    #[error("a stage of the rule has no number")]
    Stage,
    /// The hairpin queues of a port.
    #[error("the port has no hairpin queue to that of vif {0}")]
    Hairpin(VifId),
}
