//! What a walk is asked.

use std::net::Ipv4Addr;

use crate::{
    NexthopId, VifId,
    flow::{Choices, FlowKey},
};

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingress {
    /// The vif it was received on; for what came out of a tunnel, the underlay's.
    pub vif: VifId,
    /// Outer source, when it came out of a tunnel.
    pub tunnel: Option<Ipv4Addr>,
}

/// Where the walk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the route to the destination in the key's VRF.
    Route,
    /// With a label's nexthop.
    Nexthop(NexthopId),
}

/// Which side of a pair a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It made the pair, or would.
    Initiator,
    /// It answers; holds the initiator's key.
    Responder(FlowKey),
    /// The node itself made the packet: no RPF, no access lists, TTL as it is.
    Own,
}

/// What is asked of the walk.
#[derive(Debug, Clone, Copy)]
pub struct Inquiry<'a> {
    /// Key of the packet.
    pub key: &'a FlowKey,
    /// Destination port as listeners and access lists see it: for ICMP the type.
    pub service_port: u16,
    /// Where it came from.
    pub ingress: Ingress,
    /// Where to begin.
    pub start: Start,
    /// Side of the pair.
    pub role: Role,
    /// Choices of an earlier derivation of this direction, kept while legal.
    pub prior: Choices,
    /// Where the other direction came from, if it was seen: its ECMP member is preferred.
    pub other_ingress: Option<Ingress>,
    /// Value that spreads flows over ECMP members; see [`FlowKey::spread`].
    pub hash: u64,
}
