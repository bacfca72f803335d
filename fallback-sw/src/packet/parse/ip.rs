//! The network layer: one result for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use offload_rules::{
    DropReason, VifId, VrfId,
    flow::{Family, FlowKey},
};

use super::{be16, v4, v6};

/// Whether a packet is a fragment, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FragmentInfo {
    /// A whole packet. So is an IPv6 "atomic fragment" (RFC 6946): a fragment header with offset 0 and no more to come.
    None,
    /// The fragment at offset 0, with more to come: it holds the transport header.
    First {
        /// Identification: 16 bits in IPv4, 32 in IPv6.
        id: u32,
    },
    /// A fragment behind the first.
    Later {
        /// Identification: 16 bits in IPv4, 32 in IPv6.
        id: u32,
        /// Where its data belongs in the whole, in octets; a multiple of 8.
        offset: u16,
        /// More fragments follow (MF).
        more: bool,
    },
}

/// A checked IPv4 or IPv6 packet: fields and offsets. All offsets count from the first octet of the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// Source: IPv6, or IPv4 in the first four octets and zeros (the form of [`FlowKey`]).
    pub src: [u8; 16],
    /// Destination, in the same form.
    pub dst: [u8; 16],
    /// Source port as [`FlowKey`] has it; 0 in fragments behind the first.
    pub sport: u16,
    /// Destination port as [`FlowKey`] has it; 0 in fragments behind the first.
    pub dport: u16,
    /// Octets of the packet, header included. The slice may be longer: Ethernet pads.
    pub total_len: u16,
    /// Octets before the transport header: 20..=60, or 40 and the IPv6 extension headers.
    pub header_len: u16,
    /// Octets of the header without IPv6 extension headers: 20..=60 or 40.
    pub fixed_header_len: u16,
    /// 4 or 6.
    pub version: u8,
    /// Protocol behind `header_len`. In an IPv6 fragment behind the first it is the next header field of the fragment
    /// header, which may name an extension header: the identity of such a datagram is {source, destination, id} (RFC 8200 §4.5).
    pub proto: u8,
    /// Type of service or traffic class: DSCP (6 bits), ECN (2).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Flags octet of TCP, see [`super::tcp_flags`]; which combinations make sense is for TCP tracking to say.
    pub tcp_flags: u8,
    /// ICMP type; 0 when it is not ICMP.
    pub icmp_type: u8,
    /// ICMP code; 0 when it is not ICMP.
    pub icmp_code: u8,
    /// An ICMP message about another packet, see [`fn@super::embedded`].
    pub is_icmp_error: bool,
    /// Don't fragment; true for IPv6, where routers never do.
    pub df: bool,
    /// The destination is a multicast group or 255.255.255.255.
    pub multicast: bool,
    /// Fragmentation.
    pub fragment: FragmentInfo,
}

impl Ip {
    /// Of no packet: to be written over.
    pub(crate) const BLANK: Self = Self {
        src: [0; 16],
        dst: [0; 16],
        sport: 0,
        dport: 0,
        total_len: 0,
        header_len: 0,
        fixed_header_len: 0,
        version: 0,
        proto: 0,
        tos: 0,
        ttl: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        is_icmp_error: false,
        df: false,
        multicast: false,
        fragment: FragmentInfo::None,
    };

    /// Address family.
    #[inline]
    #[must_use]
    pub const fn family(&self) -> Family {
        if self.version == 4 { Family::Inet } else { Family::Inet6 }
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        address(self.version, &self.src)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        address(self.version, &self.dst)
    }

    /// Octets behind the IP header and its extensions.
    #[inline]
    #[must_use]
    pub const fn payload_len(&self) -> u16 {
        self.total_len.saturating_sub(self.header_len)
    }

    /// The payload of the packet that this was parsed from, without Ethernet padding.
    #[inline]
    #[must_use]
    pub fn payload<'a>(&self, l3: &'a [u8]) -> &'a [u8] {
        l3.get(usize::from(self.header_len)..usize::from(self.total_len)).unwrap_or(&[])
    }

    /// What a whole UDP datagram carries, in the packet that this was parsed from. It ends where its own length says, which
    /// may be before the IP packet does: what is behind it is no part of it (RFC 768). Empty for other packets.
    #[inline]
    #[must_use]
    pub fn udp_data<'a>(&self, l3: &'a [u8]) -> &'a [u8] {
        let segment = self.payload(l3);
        let Some(&[_, _, _, _, high, low, ..]) = segment.first_chunk::<8>().filter(|_| self.is_datagram()) else {
            return &[];
        };
        segment.get(8..usize::from(be16(high, low))).unwrap_or(&[])
    }

    /// A UDP datagram that is not fragmented.
    #[inline]
    const fn is_datagram(&self) -> bool {
        self.proto == super::PROTO_UDP && matches!(self.fragment, FragmentInfo::None)
    }

    /// Starts at the transport header: not a fragment behind the first.
    #[inline]
    #[must_use]
    pub const fn has_l4(&self) -> bool {
        !matches!(self.fragment, FragmentInfo::Later { .. })
    }

    /// ICMP (in IPv4) or ICMPv6 (in IPv6).
    #[inline]
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        matches!((self.version, self.proto), (4, super::PROTO_ICMP) | (6, super::PROTO_ICMPV6))
    }
}

fn address(version: u8, octets: &[u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = *octets;
    if version == 4 { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) } else { IpAddr::V6(Ipv6Addr::from(*octets)) }
}

/// Parses and checks the IP packet at the start of `l3`; octets behind its total length are ignored.
///
/// `version` is what the ethertype or the label's payload announced.
///
/// # Errors
/// - [`DropReason::InvalidProtocol`]: `version` is neither 4 nor 6.
/// - [`DropReason::InvalidPacket`]: the version field contradicts `version`, IHL below 5, a total length shorter than the
///   header, a TCP data offset below 5, a UDP length below 8, a destination that no router may forward to (0/8, 127/8, 240/4,
///   `::`, `::1`, ::ffff:0:0/96; RFC 1812 §5.3.7, RFC 4291 §2.5).
/// - [`DropReason::Truncated`]: the octets end before a header or the packet does.
/// - [`DropReason::ChecksumErr`]: IPv4 header checksum.
/// - [`DropReason::IpOptions`], [`DropReason::ExtensionHeaders`]: malformed; source routing.
/// - [`DropReason::InvalidSource`]: a source that no sender may use.
/// - [`DropReason::FragmentErr`]: a fragment that ends behind 65535, has a length that is not a multiple of 8, is too short
///   for the transport header or overlaps it (RFC 1858 §3, RFC 7112 §5).
#[inline(always)]
pub fn ip(l3: &[u8], version: u8) -> Result<Ip, DropReason> {
    let mut ip = Ip::BLANK;
    ip_to(l3, version, &mut ip)?;
    Ok(ip)
}

/// As [`ip`], into a place of the caller's, which is as it was after an error. A result of this size would be copied on its
/// way out.
///
/// # Errors
/// As [`ip`].
#[inline(always)]
pub fn ip_to(l3: &[u8], version: u8, out: &mut Ip) -> Result<(), DropReason> {
    match version {
        4 => v4::parse(l3, out),
        6 => v6::parse(l3, out),
        _ => Err(DropReason::InvalidProtocol),
    }
}

/// The key under which the flow of this packet is looked up.
#[inline]
#[must_use]
pub const fn flow_key(ip: &Ip, vrf: VrfId, vif: VifId) -> FlowKey {
    FlowKey {
        src: ip.src,
        dst: ip.dst,
        sport: ip.sport,
        dport: ip.dport,
        vrf,
        vif,
        proto: ip.proto,
        version: ip.version,
    }
}
