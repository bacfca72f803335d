//! What workers and an offload engine tell each other. Nothing here knows a NIC.
//!
//! A worker asks when both directions of a flow have been seen; the engine answers. The worker owns every decision on a flow, the
//! engine owns rules. All messages name a flow by [`OffloadId`], which is never used twice.

use offload_rules::lower::{Direction, NotOffloaded};

/// One flow pair at the engine. Never used twice in the life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffloadId {
    /// The worker that owns the flow.
    pub worker: u16,
    /// Its entry in that worker's table of offloads: below 2^24, so that a NIC can carry it as a mark.
    pub entry: u32,
    /// Grows with each use of the entry.
    pub generation: u32,
}

/// Where the packets of a pair run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tier {
    /// In software.
    #[default]
    Software,
    /// Asked for.
    Pending,
    /// The NIC marks packets and chooses the queue; software does the rest.
    Partial,
    /// The NIC forwards.
    Hardware,
}

/// What a worker asks of the engine.
#[derive(Debug, Clone)]
pub enum Request {
    /// Install rules for a pair (or for the one direction of a flow that is denied), or replace those that it has: packets are
    /// forwarded by the old rules or in software until the new ones are there, never by neither.
    Install {
        /// The flow.
        id: OffloadId,
        /// The initiator's first. `None`: a direction whose packets stay in software.
        directions: Box<[Option<Direction>; 2]>,
        /// Octets a second that it carries, as far as software has seen.
        rate: u64,
    },
    /// What a waiting flow carries now.
    Rate {
        /// The flow.
        id: OffloadId,
        /// Octets a second.
        rate: u64,
    },
    /// The NIC accepted the rules of this flow and does not honour them.
    NotHonoured {
        /// The flow.
        id: OffloadId,
    },
    /// Remove its rules, tell the last counts, and answer with [`Report::Gone`]. Also for a flow that has none.
    Remove {
        /// The flow.
        id: OffloadId,
    },
}

impl Request {
    /// The flow that it is about.
    #[must_use]
    pub const fn id(&self) -> OffloadId {
        match self {
            Self::Install { id, .. } | Self::Rate { id, .. } | Self::NotHonoured { id } | Self::Remove { id } => *id,
        }
    }
}

/// What the engine tells a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Where a pair runs from now on, and why not in hardware.
    State {
        /// The flow.
        id: OffloadId,
        /// Where.
        tier: Tier,
        /// Why not in hardware.
        reason: Option<NotOffloaded>,
    },
    /// Which directions the NIC marks: comes before a [`Self::State`] of [`Tier::Partial`]. Packets of the other one come as ever.
    Marked {
        /// The flow.
        id: OffloadId,
        /// The initiator's first.
        directions: [bool; 2],
    },
    /// Packets that the NIC has handled since the last report.
    Counted {
        /// The flow.
        id: OffloadId,
        /// 0: the initiator's direction.
        direction: u8,
        /// Packets.
        packets: u64,
        /// Octets of the frames as received.
        bytes: u64,
        /// When the last of them passed, at the latest: milliseconds of the node's clock.
        last_hit: u64,
    },
    /// Its rules are gone and counted: the id is not used any more.
    Gone {
        /// The flow.
        id: OffloadId,
    },
}

impl Report {
    /// The flow that it is about.
    #[must_use]
    pub const fn id(&self) -> OffloadId {
        match self {
            Self::State { id, .. } | Self::Marked { id, .. } | Self::Counted { id, .. } | Self::Gone { id } => *id,
        }
    }
}
