//! What is asked of the stage that seals.

use offload_rules::VifId;

use crate::{exec::EspEgress, worker::tx::TxKind};

/// A packet on its way to the worker that seals it.
#[derive(Debug, Clone, Copy)]
pub struct Sealing {
    pub(in crate::worker) egress: EspEgress,
    pub(in crate::worker) kind: TxKind,
}

/// What is asked of the stage for one packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct SealRequest {
    pub(super) egress: EspEgress,
    pub(super) kind: TxKind,
    /// The vif on which a received packet is counted when it is dropped after all.
    pub(super) blame: VifId,
    pub(super) handed: Handed,
}

/// Whether another worker has handed a packet over to be sealed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handed {
    No,
    Over,
}

impl SealRequest {
    pub(in crate::worker) const fn new(egress: EspEgress, kind: TxKind, blame: VifId) -> Self {
        Self { egress, kind, blame, handed: Handed::No }
    }

    /// Of a packet that another worker hands over.
    pub(in crate::worker) const fn of_other(Sealing { egress, kind }: Sealing) -> Self {
        Self { egress, kind, blame: egress.tunnel, handed: Handed::Over }
    }
}
