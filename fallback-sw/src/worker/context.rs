//! What is known of a packet once its headers are parsed.

use std::net::Ipv4Addr;

use offload_rules::{
    VifId,
    classify::{Ingress, Start},
    flow::FlowKey,
};
use zerocopy::FromZeros;

use super::tenant::Tenant;
use crate::{
    exec::Framing,
    packet::parse::{FragmentInfo, Ip},
};

pub(super) const ICMP6: u8 = 58;

/// The outside of a packet that came out of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outer {
    pub(super) source: Ipv4Addr,
    pub(super) tos: u8,
}

/// What the head told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Protocol behind the IP headers.
    pub proto: u8,
    /// Source port as flow keys have it.
    pub sport: u16,
    /// Destination port as flow keys have it.
    pub dport: u16,
    /// ICMP type; 0 otherwise.
    pub icmp_type: u8,
}

/// How a packet is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// By its flow.
    Flow,
    /// By a walk of its own, beginning here: neither vif nor nexthop has Policy.
    Walk(Start),
    /// A fragment of what is for the node itself: whole first.
    Reassemble,
    /// Decided on by the NIC, which leaves it to be sealed: [`Context::vif`] is the tunnel.
    Resume,
}

/// What is known of a packet after the first stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Ingress vif; the underlay's for what came out of an MPLS-over-UDP tunnel.
    pub(super) vif: VifId,
    /// The vif that the ESP packet came in on, when the NIC has opened one; `vif` is the IPsec tunnel then.
    pub(super) sealed_on: Option<VifId>,
    /// The vif of the device.
    pub(super) port: VifId,
    /// Where the (inner) IP header begins in the frame.
    pub(super) l3: u16,
    /// First tag's control information, for its priority.
    pub(super) tci: u16,
    /// Key of the lookup.
    pub(super) key: FlowKey,
    /// The (inner) IP packet.
    pub(super) ip: Ip,
    /// Set when it came out of a tunnel.
    pub(super) outer: Option<Outer>,
    pub(super) path: Path,
    /// Needs more than its flow's program: TCP flags, a fragment, an ICMP error.
    pub(super) special: bool,
    /// What the first fragment of its datagram has told, for a fragment that has found that one.
    pub(super) head: Option<Head>,
}

impl Context {
    /// Nothing is known yet.
    pub(super) fn blank() -> Self {
        Self {
            vif: VifId::TUNNEL,
            sealed_on: None,
            port: VifId::TUNNEL,
            l3: 0,
            tci: 0,
            key: FlowKey::new_zeroed(),
            ip: Ip::BLANK,
            outer: None,
            path: Path::Flow,
            special: false,
            head: None,
        }
    }

    /// A fragment for which the first one of its datagram has not told the ports yet.
    pub(super) fn lacks_head(&self) -> bool {
        self.ip.fragment != FragmentInfo::None && self.head.is_none()
    }

    /// On whose account it waits, when it has to.
    pub(super) fn tenant(&self) -> Tenant {
        self.outer.map_or(Tenant::Vif(self.vif), |_| Tenant::Vrf(self.key.vrf))
    }

    /// Where it came from, as the walk sees it.
    pub(super) fn ingress(&self) -> Ingress {
        Ingress { vif: self.vif, tunnel: self.outer.map(|outer| outer.source) }
    }

    /// Destination port as listeners and access lists see it.
    pub(super) fn service_port(&self) -> u16 {
        if matches!((self.key.version, self.key.proto), (4, 1) | (6, ICMP6)) {
            u16::from(self.head.map_or(self.ip.icmp_type, |head| head.icmp_type))
        } else {
            self.key.dport
        }
    }

    /// How the packet is framed as it came in.
    #[inline]
    pub(super) fn framing(&self) -> Framing {
        Framing {
            l3: usize::from(self.l3),
            outer_tos: self.outer.map(|outer| outer.tos),
            pcp: (self.tci != 0).then_some((self.tci >> 13) as u8),
        }
    }
}
