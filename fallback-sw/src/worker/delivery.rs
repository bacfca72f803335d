//! Packets that a worker has received, and that wait, or go to another worker.

use offload_rules::{VifId, VrfId};

use super::{
    context::Head,
    ipsec::{EspQuote, Sealing},
};
use crate::packet::Packet;

/// A packet on its way through a worker.
#[derive(Debug)]
pub struct Delivery {
    /// A frame as received; only the IP packet when the node made it.
    pub packet: Packet,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a packet is from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// Received on a port: it enters at the first stage.
    Port(Arrived),
    /// Made by the node, to be routed in this VRF.
    Own(VrfId),
    /// Finished by another worker but for ESP: to be sealed by an SA of this one.
    Sealing(Sealing),
    /// An ICMP error that quotes ESP of an SA of this worker.
    Quoting(EspQuote),
}

/// How a packet arrived that enters at the first stage.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// The vif of the device, or the IPsec tunnel that it came out of.
    pub port: VifId,
    /// What the first fragment of its datagram has told, when it is a fragment that has found that one.
    pub head: Option<Head>,
    /// It is in the vif's counters already.
    pub counted: bool,
}

impl Arrived {
    /// Just received on a port.
    pub(super) const fn new(port: VifId) -> Self {
        Self { port, head: None, counted: false }
    }

    /// Received on a port before, and counted there.
    pub(super) const fn again(port: VifId, head: Option<Head>) -> Self {
        Self { port, head, counted: true }
    }
}

impl Delivery {
    /// Made by the node.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self.origin, Origin::Own(_))
    }
}
