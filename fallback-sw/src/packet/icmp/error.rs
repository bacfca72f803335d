//! Errors about a packet (RFC 792, RFC 1812 §4.3, RFC 4443).

use std::net::IpAddr;

use super::pseudo;
use crate::packet::{
    Packet, checksum,
    parse::{FragmentInfo, Ip, PROTO_ICMP, PROTO_ICMPV6, widen},
};

/// Largest ICMP error, with its IPv4 header (RFC 1812 §4.3.2.3).
pub const MAX_V4: usize = 576;
/// Largest ICMPv6 error, with its IPv6 header: the minimum MTU (RFC 4443 §2.4c).
pub const MAX_V6: usize = 1280;
/// Octets of an ICMP header.
const ICMP_LEN: usize = 8;

/// What is wrong with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpError {
    /// TTL or hop limit used up in transit.
    TimeExceeded,
    /// "Fragmentation needed and DF set" (RFC 1191 §4) or "packet too big".
    TooBig {
        /// Largest packet that the next hop takes, in octets.
        mtu: u16,
    },
    /// Network unreachable, or no route to destination.
    NoRoute,
    /// Host unreachable, or address unreachable: the neighbour does not answer.
    HostUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// Protocol unreachable; ICMPv6: parameter problem, unrecognised next header, with the offset of that field.
    ProtocolUnreachable {
        /// Offset of the octet that names the protocol, from the start of the packet. Only ICMPv6 sends it.
        pointer: u16,
    },
    /// Communication administratively prohibited.
    AdminProhibited,
    /// Beyond scope of source address (RFC 4443 §3.1). In IPv4, which has no scopes, network unreachable.
    BeyondScope,
}

impl IcmpError {
    /// Type, code, and the second word of the ICMP header.
    const fn header(self, version: u8) -> (u8, u8, u32) {
        match (self, version) {
            (Self::TimeExceeded, 4) => (11, 0, 0),
            (Self::TooBig { mtu }, 4) => (3, 4, mtu as u32),
            (Self::NoRoute | Self::BeyondScope, 4) => (3, 0, 0),
            (Self::HostUnreachable, 4) => (3, 1, 0),
            (Self::ProtocolUnreachable { .. }, 4) => (3, 2, 0),
            (Self::PortUnreachable, 4) => (3, 3, 0),
            (Self::AdminProhibited, 4) => (3, 13, 0),
            (Self::NoRoute, _) => (1, 0, 0),
            (Self::AdminProhibited, _) => (1, 1, 0),
            (Self::BeyondScope, _) => (1, 2, 0),
            (Self::HostUnreachable, _) => (1, 3, 0),
            (Self::PortUnreachable, _) => (1, 4, 0),
            (Self::TooBig { mtu }, _) => (2, 0, mtu as u32),
            (Self::TimeExceeded, _) => (3, 0, 0),
            (Self::ProtocolUnreachable { pointer }, _) => (4, 1, pointer as u32),
        }
    }
}

/// Builds the error about the packet `l3`, which `ip` was parsed from, to its source. The result begins at its IP header.
///
/// `from` is the node's address on the vif that the packet came in on, of the packet's family. The quote is the packet as it
/// is in `l3`: call this before anything is rewritten.
///
/// `None` when no error may be sent: about an ICMP error or redirect, neighbour discovery, a fragment behind the first, a
/// packet to a group or broadcast, or from an address that is no single host's (RFC 1122 §3.2.2, RFC 4443 §2.4e); also when
/// `from` is of the other family. A link-layer broadcast and the rate limit (RFC 1812 §4.3.2.8) are the caller's to see to.
#[must_use]
pub fn error(kind: IcmpError, ip: &Ip, l3: &[u8], from: IpAddr) -> Option<Packet> {
    if !may_answer(ip) {
        return None;
    }
    let (source, header_len, max) = match (from, ip.version) {
        (IpAddr::V4(v4), 4) => (widen(v4.octets()), 20, MAX_V4),
        (IpAddr::V6(v6), 6) => (v6.octets(), 40, MAX_V6),
        _ => return None,
    };
    let original = l3.get(..usize::from(ip.total_len))?;
    let quote = original.get(..original.len().min(max - header_len - ICMP_LEN))?;

    let (icmp_type, code, word) = kind.header(ip.version);
    let mut header = [icmp_type, code, 0, 0, 0, 0, 0, 0];
    [header[4], header[5], header[6], header[7]] = word.to_be_bytes();
    let len = ICMP_LEN + quote.len();
    let sum = checksum::add(checksum::sum(&header), checksum::sum(quote));
    let sum = checksum::add(sum, pseudo(ip.version, &source, &ip.src, len));
    [header[2], header[3]] = (!sum).to_be_bytes();

    let mut packet = Packet::with_capacity(len);
    let (to_header, to_quote) = packet.extend(len).ok()?.split_first_chunk_mut::<ICMP_LEN>()?;
    *to_header = header;
    to_quote.copy_from_slice(quote);
    if ip.version == 4 {
        ipv4(&mut packet, &source, &ip.src, len)?;
    } else {
        ipv6(&mut packet, &source, &ip.src, len)?;
    }
    Some(packet)
}

/// The rules that RFC 1122 §3.2.2 and RFC 4443 §2.4e share. Sources that are no host's never get past the parser, except the
/// unspecified one.
fn may_answer(ip: &Ip) -> bool {
    const REDIRECT_V6: u8 = 137;
    const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=REDIRECT_V6;
    let silent_icmp = ip.is_icmp()
        && ip.has_l4()
        && (ip.is_icmp_error || ip.version == 6 && NEIGHBOUR_DISCOVERY.contains(&ip.icmp_type));
    !silent_icmp && !ip.multicast && ip.src != [0; 16] && !matches!(ip.fragment, FragmentInfo::Later { .. })
}

/// Precedence 6 (internetwork control), as RFC 1812 §4.3.2.5 asks. An atomic datagram: DF set, so the identification
/// means nothing (RFC 6864 §4.1).
fn ipv4(packet: &mut Packet, src: &[u8; 16], dst: &[u8; 16], len: usize) -> Option<()> {
    let [high, low] = u16::try_from(len + 20).ok()?.to_be_bytes();
    let [s0, s1, s2, s3, ..] = *src;
    let [d0, d1, d2, d3, ..] = *dst;
    let mut header = [0x45, 0xc0, high, low, 0, 0, 0x40, 0, 64, PROTO_ICMP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    [header[10], header[11]] = checksum::checksum(&header).to_be_bytes();
    packet.prepend(header.len()).ok()?.copy_from_slice(&header);
    Some(())
}

fn ipv6(packet: &mut Packet, src: &[u8; 16], dst: &[u8; 16], len: usize) -> Option<()> {
    let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
    let out = packet.prepend(40).ok()?;
    let (fixed, addresses) = out.split_first_chunk_mut::<8>()?;
    *fixed = [0x60, 0, 0, 0, high, low, PROTO_ICMPV6, 64];
    let (to_src, to_dst) = addresses.split_first_chunk_mut::<16>()?;
    *to_src = *src;
    to_dst.copy_from_slice(dst);
    Some(())
}
