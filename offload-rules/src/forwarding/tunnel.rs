//! IPsec tunnels: what a tunnel vif has besides that which every vif has.

use std::net::Ipv4Addr;

use crate::{SaId, VrfId};

/// UDP port of ESP and IKE behind NAT (RFC 3948 §2.1).
pub const NAT_T_PORT: u16 = 4500;
/// Seconds between two keepalives when nothing is said (RFC 3948 §4).
pub const DEFAULT_KEEPALIVE_SECS: u32 = 20;

/// The outside of an IPsec tunnel, and what protects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpsecTunnel {
    /// Outer source, an address of this node.
    pub source: Ipv4Addr,
    /// Outer destination. With `ike` unspecified until someone has authenticated, if any may.
    pub destination: Ipv4Addr,
    /// In UDP (RFC 3948); `None`: ESP is IP protocol 50.
    pub nat_t: Option<NatT>,
    /// SAs for sending: each worker takes the first that is of use and its own, else hands its packets to the worker of the first
    /// that is of use.
    pub outbound: Vec<SaId>,
    /// SAs for receiving: all are accepted, the old beside the new.
    pub inbound: Vec<SaId>,
    /// VRF that the outer packets are routed in.
    pub vrf: VrfId,
    /// Outer don't-fragment bit.
    pub df: DfPolicy,
    /// Outer DSCP, 0..=63; `None`: that of the packet inside (RFC 4301 §5.1.2.1).
    pub dscp: Option<u8>,
    /// IKE negotiates its SAs: the state lists none.
    pub ike: bool,
}

/// ESP in UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatT {
    /// Source port.
    pub source_port: u16,
    /// Destination port: of an end behind a NAT, the one that the NAT has given it.
    pub destination_port: u16,
    /// Seconds without a packet after which a keepalive is sent; 0: never.
    pub keepalive_secs: u32,
}

/// The outer don't-fragment bit (RFC 4301 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DfPolicy {
    /// That of the packet inside; IPv6 counts as set.
    #[default]
    Copy,
    /// Set.
    Set,
    /// Clear.
    Clear,
}
