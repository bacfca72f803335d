//! The closed set of operations that a program is made of.

use std::net::Ipv4Addr;

use crate::{
    DropReason, Label, VifId,
    forwarding::{DscpMap, L2Rewrite},
};

/// One operation. Programs hold them in the order of this enum; each at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Remove outer IPv4, UDP and the one label; combine ECN by RFC 6040 §4.2.
    DecapMplsOUdp,
    /// Drop every packet of the flow.
    Drop(DropReason),
    /// Take this much off TTL or hop limit (one for each route lookup); at 0 answer with ICMP time exceeded.
    DecrementTtl(u8),
    /// TCP SYN and SYN-ACK: lower the MSS option to at most this.
    ClampMss(u16),
    /// TCP: subtract the flow's distance from the acknowledgement. Client to server, where the client was answered with a SYN
    /// cookie and so knows other numbers of the server than the server itself. Quoted by an ICMP error: the sequence number.
    ShiftAck,
    /// TCP: add the flow's distance to the sequence number. Server to client, likewise; quoted: the acknowledgement.
    ShiftSeq,
    /// Largest IP packet (before encapsulation) that the path takes. What is larger is fragmented when `fragment` allows it
    /// and DF is clear, else answered with ICMP "fragmentation needed" or "packet too big".
    LimitSize {
        /// Octets.
        mtu: u16,
        /// Cleared by the egress vif's flag Nf.
        fragment: bool,
    },
    /// Push label, UDP and IPv4 (RFC 7510).
    EncapMplsOUdp(Box<TunnelHeader>),
    /// Put this Ethernet header before the packet, with the packet's ethertype; the 802.1p priority that the packet came in
    /// with is kept on the outermost tag.
    RewriteL2(L2Rewrite),
    /// Send on this vif.
    Output(VifId),
    /// Hand to the host or agent behind this vif.
    Punt(VifId),
}

/// Outer headers of MPLS over UDP. Constant: TTL 64, DF 0, checksum 0. Per packet: IP-ID, length, DSCP and ECN, UDP source
/// port 49152 + 14 bits of the inner flow's hash, label TTL = TTL of the inner packet as it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelHeader {
    /// Outer source.
    pub sip: Ipv4Addr,
    /// Outer destination.
    pub dip: Ipv4Addr,
    /// UDP destination port.
    pub udp_port: u16,
    /// The one label, bottom of stack.
    pub label: Label,
    /// Outer DSCP by inner DSCP; its upper three bits become the label's traffic class (RFC 5462).
    pub dscp: DscpMap,
}

impl TunnelHeader {
    /// Octets added before the inner packet: IPv4 20, UDP 8, label 4.
    pub const OVERHEAD: u16 = 32;
}
