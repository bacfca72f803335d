//! What is known of frames that are sent.

use offload_rules::VifId;

/// What a frame that is sent counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxKind {
    /// A received packet, sent on.
    Forwarded,
    /// A received packet, handed to the host or an agent.
    Punted,
    /// Made by the node.
    Originated,
    /// A received packet that the NIC has counted as forwarded, with its tunnel and the way out; all that was left was to seal it.
    Resumed,
}

/// What is known of a frame that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxMeta {
    /// Egress vif.
    pub vif: VifId,
    /// What it counts as.
    pub kind: TxKind,
}
