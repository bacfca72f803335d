//! What becomes of a packet on which a plan was carried out.

use offload_rules::{DropReason, VifId};

use super::{
    ipsec::SealRequest,
    outcome::{Blame, Outcome},
    tx::TxKind,
};
use crate::exec::{Plan, Target};

/// How a packet that leaves by a plan is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    pub(super) kind: TxKind,
    /// The vif on which a received packet is counted when it is dropped after all.
    pub(super) blame: VifId,
}

impl Exit {
    pub(super) const fn drop(self, reason: DropReason) -> Outcome {
        Outcome::Drop { blame: Blame::of(self.kind, self.blame), reason }
    }
}

/// What becomes of a packet on which a plan was carried out.
#[inline]
pub(super) fn exit(plan: &Plan, Exit { kind, blame }: Exit) -> Outcome {
    match (plan.target, plan.seal.as_deref()) {
        (Target::Output { vif, port } | Target::Punt { vif, port }, _) => Outcome::Send { vif, port, kind },
        (Target::Seal, Some(egress)) => Outcome::Seal(SealRequest::new(*egress, kind, blame)),
        (Target::Seal | Target::Drop(_), _) => Exit { kind, blame }.drop(DropReason::InvalidNh),
    }
}

/// What becomes of a received packet on which a plan was carried out. `blame`: as in [`Exit`].
#[inline(always)]
pub(super) fn exit_received(plan: &Plan, blame: VifId) -> Outcome {
    match (plan.target, plan.seal.as_deref()) {
        (Target::Output { vif, port }, _) => Outcome::Send { vif, port, kind: TxKind::Forwarded },
        (Target::Punt { vif, port }, _) => Outcome::Send { vif, port, kind: TxKind::Punted },
        (Target::Seal, Some(egress)) => Outcome::Seal(SealRequest::new(*egress, TxKind::Forwarded, blame)),
        (Target::Seal | Target::Drop(_), _) => Outcome::drop(blame, DropReason::InvalidNh),
    }
}
