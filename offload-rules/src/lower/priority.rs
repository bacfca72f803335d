//! Priorities of rules; 0 is matched first. Flows have two, so that a rule is replaced by one beside it.

/// Steering: to the tunnel group.
pub const TERMINATION: u32 = 0;
/// Marks. Intel's drivers take no other priority.
pub const MARK: u32 = 0;
/// Steering: everything else.
pub const PORT: u32 = 1;
/// Flows.
pub const FLOW: u32 = 2;
/// Flows, the alternate priority.
pub const FLOW_ALTERNATE: u32 = 3;
/// Stages: what flows have in common.
pub const STAGE: u32 = 4;
/// Packets that no flow has matched.
pub const DEFAULT: u32 = 5;
