//! Incoming MPLS labels.

use crate::{Label, NexthopId};

/// An incoming label, local to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MplsLabel {
    /// The label.
    pub label: Label,
    /// Where its packets continue.
    pub nexthop: NexthopId,
}
