//! What rules name, and what it is called in the NIC.

use offload_rules::{VifId, lower::Session};

use super::stages::Stages;
use crate::{
    port::{PortSet, UnknownPort},
    security::Sessions,
};

/// What items and actions name is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
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

/// Where names are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) ports: &'a PortSet,
    pub(super) sessions: &'a Sessions,
    pub(super) stages: &'a Stages,
}
