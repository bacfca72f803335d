//! What a worker tells the rest of the node.

use std::net::Ipv4Addr;

use offload_rules::{MacAddr, SaId};

use super::{
    ipsec::SaNews,
    tenant::{NeighbourKey, Tenant},
};

/// What a neighbour said of its MAC, and in which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourClaim {
    /// A neighbour advertisement (RFC 4861 §7.2.5). An ARP reply to the node is a solicited one that overrides, every other announcement
    /// by ARP an unsolicited one.
    Advertisement {
        /// Absent where the question was sent to the station alone (RFC 4861 §4.4).
        mac: Option<MacAddr>,
        /// S: it claims to answer a question.
        solicited: bool,
        /// O: it overrides the MAC that is known.
        replace: bool,
    },
    /// A neighbour solicitation for an address that the node answers for (RFC 4861 §7.2.3).
    Solicitation {
        /// Source link-layer address option.
        mac: MacAddr,
    },
    /// An ARP request for an address that the node answers for (RFC 826).
    Request {
        /// Sender hardware address.
        mac: MacAddr,
    },
}

impl NeighbourClaim {
    /// It claims to answer a question of the node's, and was sent to the node alone.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Advertisement { solicited: true, .. })
    }
}

/// What a worker tells the rest of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A neighbour has said where it is.
    Neighbour {
        /// The neighbour.
        neighbour: NeighbourKey,
        /// What it said.
        claim: NeighbourClaim,
    },
    /// Packets wait for a neighbour.
    Needed {
        /// The neighbour.
        neighbour: NeighbourKey,
        /// On whose account.
        tenant: Tenant,
    },
    /// A router on the way to a tunnel's end takes no larger outer packets.
    PathMtu {
        /// The tunnel's end.
        destination: Ipv4Addr,
        /// Octets.
        mtu: u16,
    },
    /// The state of a security association has changed.
    Sa {
        /// The SA.
        sa: SaId,
        /// What has happened to it.
        news: SaNews,
    },
}
