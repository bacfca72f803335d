//! Transit: what the NIC can forward without flows, by prefix.
//!
//! A packet that no policy asks to look up is decided on by its addresses alone. Whether it may come from where it came from depends on its
//! source, where it goes on its destination ([`Trace`](crate::classify::Trace)); so a [`Plan`] has two kinds of rules for each
//! ingress: one for each prefix that packets may come from, and one for each prefix that they may go to. Sites add up, they do not
//! multiply.
//!
//! A plan is derived from a snapshot alone. Of a prefix that the routes know, the walk is asked with a packet of it; its decision is taken
//! for the whole prefix only where the trace says that nothing else of the packet was read. Everything else stays in software, for a
//! [`Reason`].

mod ask;
mod ingress;
mod plan;
mod prefixes;
#[cfg(test)]
mod tests;

use std::{net::Ipv4Addr, sync::Arc};

use ipnet::IpNet;

pub use ingress::IngressKey;
pub use plan::{Limits, Plan, Summary};

use crate::{
    DropReason,
    flow::Family,
    lower::{Arrival, Direction, L4},
};

/// A rule for transit, by what tells it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleKey {
    /// Packets of these sources may come in here.
    Source {
        /// Where they come in.
        ingress: IngressKey,
        /// The sources.
        net: IpNet,
        /// The other end of the tunnel that they come out of.
        outer: Option<Ipv4Addr>,
    },
    /// Packets to these destinations go on.
    Destination {
        /// Where they came in.
        ingress: IngressKey,
        /// The destinations.
        net: IpNet,
        /// Their transport header: TCP or UDP.
        l4: L4,
        /// TTL or hop limit as they come in, where the rule holds for one alone; 0: for any that is not at its end.
        ttl: u8,
    },
}

impl RuleKey {
    /// Where the packets of the rule come in.
    #[must_use]
    pub const fn ingress(&self) -> IngressKey {
        match self {
            Self::Source { ingress, .. } | Self::Destination { ingress, .. } => *ingress,
        }
    }

    /// The prefix that it is for.
    #[must_use]
    pub const fn net(&self) -> IpNet {
        match self {
            Self::Source { net, .. } | Self::Destination { net, .. } => *net,
        }
    }
}

/// What a rule for transit is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitRule {
    /// Admits packets by their source.
    Source(Admission),
    /// Forwards what was admitted.
    Destination(Departure),
}

impl TransitRule {
    /// How its packets come in.
    #[must_use]
    pub fn arrival(&self) -> &Arrival {
        match self {
            Self::Source(admission) => &admission.arrival,
            Self::Destination(departure) => &departure.direction.arrival,
        }
    }
}

/// Packets that may come from where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// How they come in; a tunnel's source is that of these packets. Type of service, TTL and label TTL mean nothing.
    pub arrival: Arrival,
    /// Their sources.
    pub net: IpNet,
}

/// Packets that go one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Their destinations.
    pub net: IpNet,
    /// What they have in common: addresses, ports and the source of a tunnel are not set. Shared by all prefixes that go the same way.
    pub direction: Arc<Direction>,
    /// What of a packet's TTL and type of service the rule holds for.
    pub scope: Scope,
}

/// Which packets of a prefix one rule holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// With any type of service, and any TTL that is not at its end.
    Any,
    /// With the type of service and the TTL of the direction's arrival: both are written into an outer header.
    Exact,
}

/// Why transit to a prefix stays in software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    /// Longer prefixes have routes of their own.
    #[error("longer prefixes in it have routes of their own")]
    Covers,
    /// Addresses that are no host's on a way: the node's own, those of one link, groups, and what nobody may use.
    #[error("addresses in it are the node's, of one link, or none of hosts")]
    Special,
    /// Which neighbour a packet goes to depends on its address.
    #[error("each of its addresses has a neighbour of its own")]
    Connected,
    /// The neighbour that it leads to is not known.
    #[error("the neighbour that it leads to is not resolved")]
    Unresolved,
    /// Several ways, among which the packet's hash chooses.
    #[error("it spreads over several ways (ECMP)")]
    Spread,
    /// Lists or listeners read more of a packet than its addresses.
    #[error("lists or listeners decide by more than addresses")]
    Packet,
    /// Another VRF's routes are asked, too.
    #[error("the routes of another VRF are asked, too")]
    OtherVrf,
    /// It leads to the host or into IPsec.
    #[error("packets go to the host, or into an IPsec tunnel")]
    Egress,
    /// All are dropped.
    #[error("software drops what goes there: {}", .0.name())]
    Dropped(DropReason),
    /// There is no room for more rules.
    #[error("the places for transit are taken by shorter prefixes")]
    Budget,
}

/// Family of a prefix.
pub(crate) const fn family(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::Inet,
        IpNet::V6(_) => Family::Inet6,
    }
}
