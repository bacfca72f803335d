//! One direction of a flow as lowering sees it.

use std::{net::Ipv4Addr, sync::Arc};

use crate::{
    Label, MacAddr, VifId,
    flow::{FlowKey, Program},
    forwarding::VlanTag,
};

/// How the packets of a direction arrive: what a packet of the flow showed that took its program in software. All of it was read
/// on the way to the flow's key, or is baked into the rule's actions, so all of it is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The vif of the device.
    pub port: VifId,
    /// The ingress vif; the underlay's for what came out of an MPLS-over-UDP tunnel.
    pub vif: VifId,
    /// Set when the NIC has opened an ESP packet: the vif that this one came in on. `vif` is the IPsec tunnel then, and MAC and tags
    /// are those before the ESP packet.
    pub sealed_on: Option<VifId>,
    /// Destination MAC: the ingress vif's own. All zeros where there is no Ethernet header: such flows stay in software.
    pub eth_dst: MacAddr,
    /// Tags of the frame, outermost first. A priority tag is one with VLAN id 0.
    pub tags: [Option<VlanTag>; 2],
    /// 802.1p priority and drop eligibility of the first tag: its upper four bits.
    pub pcp_dei: u8,
    /// Set when it came out of an MPLS-over-UDP tunnel.
    pub tunnel: Option<TunnelArrival>,
    /// Type of service or traffic class of the (inner) IP packet.
    pub tos: u8,
    /// TTL or hop limit of the (inner) IP packet as it arrived.
    pub ttl: u8,
}

/// The outside of packets that come out of an MPLS-over-UDP tunnel. A sample is taken only where the outer UDP checksum is 0: not
/// every NIC can tell, and software verifies the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelArrival {
    /// Outer source: the other end.
    pub source: Ipv4Addr,
    /// Outer destination: an own address.
    pub destination: Ipv4Addr,
    /// UDP destination port: 6635, or 51234.
    pub udp_port: u16,
    /// The label.
    pub label: Label,
    /// TTL of the label.
    pub label_ttl: u8,
}

/// One direction of a flow: all that its rule is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direction {
    /// Key.
    pub key: FlowKey,
    /// How packets arrive.
    pub arrival: Arrival,
    /// What happens to them.
    pub program: Arc<Program>,
    /// The vif of the device that they leave on; `None` for a program that drops.
    pub egress_port: Option<VifId>,
    /// Largest IP packet that can arrive, in octets; see [`ingress_mtu`](super::ingress_mtu).
    pub ingress_mtu: u16,
    /// UDP source port of an outer header.
    pub tunnel_sport: u16,
    /// IPv4 identification of an outer header: one for the whole flow, so that a NIC can write it.
    pub ip_id: u16,
}
