//! Nexthops.

use std::net::{IpAddr, Ipv4Addr};

use super::listener::ListenerTable;
use crate::{Label, NexthopId, VifId, VrfId};

/// A nexthop: one step of the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nexthop {
    /// Number.
    pub id: NexthopId,
    /// VRF it belongs to; a tunnel without direct nexthop is routed in it.
    pub vrf: Option<VrfId>,
    /// Policy: look up flows after it.
    pub policy: bool,
    /// Valid: usable.
    pub valid: bool,
    /// What it does.
    pub kind: NexthopKind,
}

/// What a nexthop does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NexthopKind {
    /// Drop.
    Drop,
    /// Send on a vif.
    Encap {
        /// Egress vif.
        oif: VifId,
        /// Ethernet header; `None` on a raw IP vif.
        rewrite: Option<L2Rewrite>,
    },
    /// MPLS over UDP (RFC 7510).
    Tunnel(Tunnel),
    /// ECMP.
    Composite {
        /// Slots in order; a hole keeps its place.
        members: Vec<Option<Member>>,
    },
    /// Continue in another VRF.
    VrfTranslate {
        /// That VRF.
        vrf: VrfId,
    },
    /// To this node.
    Receive(Receive),
    /// To a neighbour, found by ARP or ND.
    Resolve {
        /// The vif that it is on.
        oif: VifId,
        /// The gateway that takes all packets; `None` on a connected subnet, where it is the destination itself.
        gateway: Option<IpAddr>,
    },
}

/// A tunnel nexthop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Outer source.
    pub sip: Ipv4Addr,
    /// Outer destination.
    pub dip: Ipv4Addr,
    /// Indirect: where the outer packet is handed to; `None` routes it in the nexthop's VRF.
    pub direct: Option<NexthopId>,
    /// UDP destination port: 6635 or 51234.
    pub udp_port: u16,
    /// Outer DSCP for each inner DSCP.
    pub dscp: DscpMap,
}

/// Outer DSCP (0..=63) by inner DSCP. The default copies (RFC 2983 §4.1, uniform model).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DscpMap(pub [u8; 64]);

impl Default for DscpMap {
    fn default() -> Self {
        Self(std::array::from_fn(|i| i as u8))
    }
}

impl std::fmt::Debug for DscpMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.iter().enumerate().filter(|(i, o)| *i != usize::from(**o))).finish()
    }
}

/// A member of a composite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The nexthop.
    pub nexthop: NexthopId,
    /// Share, 1..=65535.
    pub weight: u16,
    /// Replaces the route's label toward this member.
    pub label: Option<Label>,
}

/// A receive nexthop: what is meant for this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receive {
    /// Who gets it.
    pub listeners: ListenerTable,
    /// Open MPLS over UDP that arrives here.
    pub terminate_mpls_o_udp: bool,
}

/// Ethernet header to put before a packet: destination, source, at most two tags, ethertype. The last two octets are
/// replaced by the ethertype of the packet that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct L2Rewrite {
    bytes: [u8; 22],
    len: u8,
}

impl L2Rewrite {
    /// A header of 14, 18 or 22 octets whose tags carry TPID 0x8100, 0x88a8 or 0x9100; `None` otherwise.
    #[must_use]
    pub fn new(header: &[u8]) -> Option<Self> {
        let tags = match header.len() {
            14 => 0,
            18 => 1,
            22 => 2,
            _ => return None,
        };
        for tag in 0..tags {
            let tpid = header.get(12 + tag * 4..14 + tag * 4)?;
            if !matches!(tpid, [0x81 | 0x91, 0x00] | [0x88, 0xa8]) {
                return None;
            }
        }
        let mut bytes = [0; 22];
        bytes.get_mut(..header.len())?.copy_from_slice(header);
        Some(Self { bytes, len: header.len() as u8 })
    }

    /// The header.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // Invariant: len is 14, 18 or 22 by construction.
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// Number of tags, 0..=2.
    #[must_use]
    pub const fn tags(&self) -> u8 {
        (self.len - 14) / 4
    }
}

impl std::fmt::Debug for L2Rewrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl Nexthop {
    /// Name of the type as `nh --get` prints it.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self.kind {
            NexthopKind::Drop => "Drop",
            NexthopKind::Encap { .. } => "Encap",
            NexthopKind::Tunnel(_) => "Tunnel",
            NexthopKind::Composite { .. } => "Composite",
            NexthopKind::VrfTranslate { .. } => "Vrf_Translate",
            NexthopKind::Receive(_) => "Receive",
            NexthopKind::Resolve { .. } => "Resolve",
        }
    }

    /// The nexthops that it leads to directly, with the field that names each.
    pub fn references(&self) -> Vec<(String, NexthopId)> {
        match &self.kind {
            NexthopKind::Tunnel(tunnel) => tunnel.direct.iter().map(|id| ("direct_nexthop".to_owned(), *id)).collect(),
            NexthopKind::Composite { members } => members
                .iter()
                .enumerate()
                .filter_map(|(i, m)| m.map(|m| (format!("members[{i}].nexthop"), m.nexthop)))
                .collect(),
            NexthopKind::Receive(receive) => receive.listeners.references(),
            _ => Vec::new(),
        }
    }
}
