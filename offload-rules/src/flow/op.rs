//! The closed set of operations that a program is made of.

use std::net::Ipv4Addr;

use crate::{
    DropReason, Label, VifId,
    forwarding::{DfPolicy, DscpMap, IpsecTunnel, L2Rewrite},
};

/// One operation: the external form of a program is a list of them, in the order of this enum, each at most once. What reads programs
/// reads their normal form, [`Operations`](super::Operations), which has a slot for each operation.
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
    /// IPv6 packets that [`Op::LimitSize`] does not let through, but that are no larger than [`IPV6_MIN_MTU`], go on whole: their
    /// outer packet leaves in fragments of at most `mtu` octets (RFC 8200 §5, RFC 2473 §7.1). The MPLS-over-UDP packet if there is
    /// one, before ESP; else the ESP packet.
    FragmentOuter {
        /// Octets of the outer packet.
        mtu: u16,
    },
    /// Push label, UDP and IPv4 (RFC 7510).
    EncapMplsOUdp(Box<TunnelHeader>),
    /// Seal with ESP in tunnel mode (RFC 4303), by the outbound SA of the tunnel; the outer IPv4 packet goes on.
    Seal(Box<SealHeader>),
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// Outer headers of an IPsec tunnel. Constant: TTL 64, UDP checksum 0 (RFC 3948 §2.1). Per packet: length, DSCP unless it is given,
/// ECN as the packet inside has it (RFC 6040 §4.1), identification. SPI and sequence number are those of the SA that the tunnel
/// uses at that time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealHeader {
    /// The tunnel.
    pub vif: VifId,
    /// Outer source.
    pub source: Ipv4Addr,
    /// Outer destination.
    pub destination: Ipv4Addr,
    /// In UDP: source and destination port.
    pub udp: Option<(u16, u16)>,
    /// Outer DSCP; `None` copies.
    pub dscp: Option<u8>,
    /// Outer don't-fragment bit.
    pub df: DfPolicy,
}

impl SealHeader {
    /// Of a tunnel vif.
    #[must_use]
    pub fn new(vif: VifId, tunnel: &IpsecTunnel) -> Self {
        Self {
            vif,
            source: tunnel.source,
            destination: tunnel.destination,
            udp: tunnel.nat_t.map(|nat_t| (nat_t.source_port, nat_t.destination_port)),
            dscp: tunnel.dscp,
            df: tunnel.df,
        }
    }
}

/// No IPv6 link is narrower, and no host sends smaller packets because it is told to (RFC 8200 §5, RFC 8201 §4).
pub const IPV6_MIN_MTU: u16 = 1280;

/// Octets of the outer packet that ESP with AES-GCM makes of an IP packet: the inverse of [`largest_sealed`].
#[must_use]
pub const fn sealed_len(inner: u16, nat_t: bool) -> u16 {
    let headers = if nat_t { 28 } else { 20 };
    let text = (inner as u32 + 2).next_multiple_of(4);
    let len = headers + 8 + 8 + text + 16;
    if len > u16::MAX as u32 { u16::MAX } else { len as u16 }
}

/// Largest IP packet that ESP with AES-GCM makes into an outer packet of at most `mtu` octets: without the outer headers, SPI and
/// sequence number (8), initialisation vector (8) and check value (16), a multiple of four of which two are the trailer
/// (RFC 4303 §2, RFC 4106 §6).
#[must_use]
pub const fn largest_sealed(mtu: u16, nat_t: bool) -> u16 {
    let headers = if nat_t { 28 } else { 20 };
    let text = mtu.saturating_sub(headers + 8 + 8 + 16);
    (text - text % 4).saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::{largest_sealed, sealed_len};

    #[test]
    fn what_fits_is_sealed_to_at_most_the_mtu_and_one_octet_more_is_not() {
        for mtu in 576..=9216 {
            for (nat_t, headers) in [(false, 20), (true, 28)] {
                let outer = |inner: u16| headers + 8 + 8 + (inner + 2).next_multiple_of(4) + 16;
                let inner = largest_sealed(mtu, nat_t);
                assert_eq!((sealed_len(inner, nat_t), sealed_len(mtu, nat_t)), (outer(inner), outer(mtu)));
                assert!(outer(inner) <= mtu && outer(inner + 1) > mtu, "mtu {mtu}");
            }
        }
    }
}
