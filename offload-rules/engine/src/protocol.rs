//! What workers and an offload engine tell each other. Nothing here knows a NIC.
//!
//! A worker asks when both directions of a flow have been seen; the engine answers. The worker owns every decision on a flow, the
//! engine owns rules. Messages about a flow name it by [`OffloadId`], those about an SA by [`OfferId`]; neither is ever used twice. No worker
//! asks for rules for transit: what they count is told all the same ([`Report::Transit`]).

use std::{ops::Range, sync::Arc};

use offload_rules::{
    VifId,
    forwarding::{Lifetime, Sa},
    lower::{Direction, FailureClass, NotOffloaded},
};

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

/// Both directions of a flow, the initiator's first; `None`: packets of that direction stay in software. The worker and the engine
/// share them.
pub type Directions = Arc<[Option<Direction>; 2]>;

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

/// An SA as it was offered to the engine. Never used twice in the life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OfferId {
    /// The worker that owns the SA.
    pub worker: u16,
    /// Grows with each offer of that worker.
    pub serial: u32,
}

/// How a NIC holds an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaMode {
    /// It enciphers and deciphers; the worker builds and reads ESP, and keeps numbers and window.
    Crypto,
    /// It does all of ESP, with numbers and window of its own.
    Protocol,
}

/// Why a NIC does not hold an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// Nothing was asked for.
    #[error("no hardware: this node seals and opens in software")]
    NoHardware,
    /// `host-ctl offload off`.
    #[error("offload is switched off")]
    Off,
    /// Asked for, not answered yet.
    #[error("waiting for the NIC")]
    Pending,
    /// The NIC has no IPsec of its own, or not for such an SA.
    #[error("the NIC has no session for such an SA")]
    Unsupported,
    /// The outer packets' VRF has no vif, or several, or one that is no port of the NIC.
    #[error("the tunnel's packets do not come and go by one port of the NIC")]
    Underlay,
    /// The NIC refused it.
    #[error(transparent)]
    Failed(#[from] FailureClass),
    /// The NIC was reset, or its engine died.
    #[error("the NIC has lost its sessions")]
    Lost,
}

/// A request of a worker to the engine.
#[derive(Debug, Clone)]
pub enum Request {
    /// The NIC may have this SA of the worker's.
    Offer {
        /// The offer.
        offer: OfferId,
        /// The SA.
        sa: Arc<Sa>,
        /// Its tunnel.
        vif: VifId,
        /// Outbound: the sequence numbers that are reserved for the NIC. Inbound: from the lowest one that it may take.
        numbers: Range<u64>,
        /// What is left of the hard lifetime; 0: not limited.
        left: Lifetime,
    },
    /// After [`Report::SaHeld`] of an outbound SA: from now on the worker sends with the session, too, and with no lower number.
    Confirm {
        /// The offer.
        offer: OfferId,
    },
    /// The worker has released the session: it neither sends with it, nor relies on it. Answered by [`Report::SaGone`].
    Return {
        /// The offer.
        offer: OfferId,
        /// It must not be used any more; else it may be, until the tunnel's next one is in the NIC.
        at_once: bool,
    },
    /// Install rules for a pair (or for the one direction of a flow that is denied), or replace those that it has: packets are
    /// forwarded by the old rules or in software until the new ones are there, never by neither.
    Install {
        /// The flow.
        id: OffloadId,
        /// What shall be in the NIC.
        directions: Directions,
        /// Octets a second that it carries, as far as software has seen.
        rate: u64,
    },
    /// What a flow carries now that waits for room.
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
    /// The flow that it is about, if it is about one.
    #[must_use]
    pub const fn id(&self) -> Option<OffloadId> {
        match self {
            Self::Install { id, .. } | Self::Rate { id, .. } | Self::NotHonoured { id } | Self::Remove { id } => {
                Some(*id)
            }
            Self::Offer { .. } | Self::Confirm { .. } | Self::Return { .. } => None,
        }
    }

    /// The worker that asks.
    #[must_use]
    pub const fn worker(&self) -> u16 {
        match self {
            Self::Install { id, .. } | Self::Rate { id, .. } | Self::NotHonoured { id } | Self::Remove { id } => {
                id.worker
            }
            Self::Offer { offer, .. } | Self::Confirm { offer } | Self::Return { offer, .. } => offer.worker,
        }
    }
}

/// A report of the engine to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Packets without flows that the NIC has forwarded since the last report.
    Transit {
        /// The worker that is told: one counts for all.
        worker: u16,
        /// What they have in common.
        direction: Arc<Direction>,
        /// Packets.
        packets: u64,
        /// Octets of the frames as received.
        bytes: u64,
    },
    /// Its rules are gone and counted: the id is not used any more.
    Gone {
        /// The flow.
        id: OffloadId,
    },
    /// The NIC holds an SA from now on.
    SaHeld {
        /// The offer.
        offer: OfferId,
        /// How.
        mode: SaMode,
        /// The session, as packets that are sent name it.
        session: u32,
        /// The vif of the device that the session belongs to.
        port: VifId,
    },
    /// What a session of [`SaMode::Protocol`] has done since the last report.
    SaCounted {
        /// The offer.
        offer: OfferId,
        /// Packets sealed, or opened and authentic.
        packets: u64,
        /// Octets of the packets inside.
        bytes: u64,
        /// Packets refused.
        refused: u64,
    },
    /// The worker is to release the session.
    SaLeave {
        /// The offer.
        offer: OfferId,
    },
    /// The NIC does not hold an SA (any more); with its last counts.
    SaGone {
        /// The offer.
        offer: OfferId,
        /// Why.
        reason: NotHeld,
    },
    /// Whether the NIC seals what its rules forward into a tunnel; reported to every worker.
    Tunnel {
        /// The worker that is told.
        worker: u16,
        /// The tunnel.
        vif: VifId,
        /// Does the NIC seal?
        sealed: bool,
    },
}

impl Report {
    /// The worker that is told.
    #[must_use]
    pub const fn worker(&self) -> u16 {
        match self {
            Self::State { id, .. } | Self::Marked { id, .. } | Self::Counted { id, .. } | Self::Gone { id } => {
                id.worker
            }
            Self::SaHeld { offer, .. }
            | Self::SaCounted { offer, .. }
            | Self::SaLeave { offer }
            | Self::SaGone { offer, .. } => offer.worker,
            Self::Tunnel { worker, .. } | Self::Transit { worker, .. } => *worker,
        }
    }
}
