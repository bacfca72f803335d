//! The packet that an ICMP error quotes (RFC 792, RFC 4443 §2.4c, RFC 5508 §4).

use offload_rules::{DropReason, VifId, VrfId, flow::FlowKey};

use super::{
    FragmentInfo, Ip, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, be16,
    l4::{L4, icmp_key, is_echo},
    v6, widen,
};
use crate::packet::icmp::checksum_holds;

/// Octets of an ICMP header before the quote.
const ICMP_HEADER_LEN: usize = 8;

/// The quoted packet, reversed: the error travels in the direction opposite to it, so the fields make the key of the packets
/// that flow the way of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// Destination of the quoted packet.
    pub src: [u8; 16],
    /// Source of the quoted packet.
    pub dst: [u8; 16],
    /// Destination port of the quoted packet; ICMP: as in the quoted packet, not swapped.
    pub sport: u16,
    /// Source port of the quoted packet; ICMP: as in the quoted packet, not swapped.
    pub dport: u16,
    /// Protocol of the quoted packet.
    pub proto: u8,
    /// 4 or 6: that of the error.
    pub version: u8,
    /// Fragmentation of the quoted packet. Behind the first the ports are 0: match on {addresses, protocol, id}.
    pub fragment: FragmentInfo,
    /// Where the quoted IP header begins, from the start of the error's IP header.
    pub offset: u16,
    /// Octets of the quoted IP header with its extension headers.
    pub header_len: u16,
    /// Octets quoted behind the header.
    pub l4_len: u16,
    /// Octets of the quoted packet, as its header says.
    pub total_len: u16,
    /// Don't fragment; true for IPv6, where routers never do.
    pub df: bool,
}

impl Embedded {
    /// The key of the packets that flow the way the error travels.
    #[must_use]
    pub const fn flow_key(&self, vrf: VrfId, vif: VifId) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            vrf,
            vif,
            proto: self.proto,
            version: self.version,
        }
    }

    /// What is quoted behind the header, of the error that this was parsed from.
    #[must_use]
    pub fn l4<'a>(&self, l3: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.offset) + usize::from(self.header_len);
        l3.get(start..start + usize::from(self.l4_len)).unwrap_or(&[])
    }

    /// A fragment behind the first was quoted: there are no ports.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        matches!(self.fragment, FragmentInfo::Later { .. })
    }
}

/// Parses the packet quoted in an ICMP or ICMPv6 error. `ip` was parsed from `l3`.
///
/// The quote may be cut off behind its first eight transport octets, its IPv4 checksum need not hold and its total length
/// may exceed what is there: routers on the way have changed and cut it.
///
/// # Errors
/// - [`DropReason::IcmpErrorUnmatched`]: not an error, or an error about an error (RFC 1122 §3.2.2, RFC 4443 §2.4e).
/// - [`DropReason::FragmentErr`]: the error itself is fragmented.
/// - [`DropReason::ChecksumErr`]: the ICMP checksum of the error is wrong (RFC 5508 §4, REQ-3a).
/// - [`DropReason::Truncated`], [`DropReason::InvalidPacket`], [`DropReason::ExtensionHeaders`]: so is the quoted header.
pub fn embedded(ip: &Ip, l3: &[u8]) -> Result<Embedded, DropReason> {
    if !ip.is_icmp_error {
        return Err(DropReason::IcmpErrorUnmatched);
    }
    if ip.fragment != FragmentInfo::None {
        return Err(DropReason::FragmentErr);
    }
    let message = ip.payload(l3);
    if !checksum_holds(ip, message) {
        return Err(DropReason::ChecksumErr);
    }
    let Some((header, quote)) = message.split_first_chunk::<ICMP_HEADER_LEN>() else {
        return Err(DropReason::Truncated);
    };
    let quote = without_extensions(ip.version, header, quote);
    let offset = ip.header_len + ICMP_HEADER_LEN as u16;
    if ip.version == 4 { quoted_v4(quote, offset) } else { quoted_v6(quote, offset) }
}

/// The quote without the multi-part extensions behind it: RFC 4884 §4 puts its length into octet 5 (32-bit words) or, in
/// ICMPv6, octet 4 (64-bit words). 0 means that there are none.
fn without_extensions<'a>(version: u8, header: &[u8; ICMP_HEADER_LEN], quote: &'a [u8]) -> &'a [u8] {
    let len = match (version, header[0]) {
        (4, 3 | 11 | 12) => usize::from(header[5]) * 4,
        (6, 1 | 3) => usize::from(header[4]) * 8,
        _ => 0,
    };
    if len == 0 { quote } else { quote.get(..len).unwrap_or(quote) }
}

fn quoted_v4(quote: &[u8], offset: u16) -> Result<Embedded, DropReason> {
    let Some(h) = quote.first_chunk::<20>() else { return Err(DropReason::Truncated) };
    let header_len = u16::from(h[0] & 0x0f) * 4;
    if h[0] >> 4 != 4 || header_len < 20 {
        return Err(DropReason::InvalidPacket);
    }
    let Some(segment) = quote.get(usize::from(header_len)..) else { return Err(DropReason::Truncated) };
    let (flags, id) = (be16(h[6], h[7]), u32::from(be16(h[4], h[5])));
    let (fragment_offset, more) = ((flags & 0x1fff) << 3, flags & 0x2000 != 0);
    let fragment = match (fragment_offset, more) {
        (0, false) => FragmentInfo::None,
        (0, true) => FragmentInfo::First { id },
        (offset, more) => FragmentInfo::Later { id, offset, more },
    };
    reverse(Quoted {
        source: widen([h[12], h[13], h[14], h[15]]),
        destination: widen([h[16], h[17], h[18], h[19]]),
        version: 4,
        proto: h[9],
        fragment,
        offset,
        header_len,
        total_len: be16(h[2], h[3]),
        df: flags & 0x4000 != 0,
        segment,
    })
}

fn quoted_v6(quote: &[u8], offset: u16) -> Result<Embedded, DropReason> {
    let Some(h) = quote.first_chunk::<40>() else { return Err(DropReason::Truncated) };
    if h[0] >> 4 != 6 {
        return Err(DropReason::InvalidPacket);
    }
    let chain = v6::quoted_chain(quote, h[6])?;
    let Some(segment) = quote.get(usize::from(chain.header_len)..) else { return Err(DropReason::Truncated) };
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    for (to, from) in source.iter_mut().zip(h.iter().skip(8)) {
        *to = *from;
    }
    for (to, from) in destination.iter_mut().zip(h.iter().skip(24)) {
        *to = *from;
    }
    reverse(Quoted {
        source,
        destination,
        version: 6,
        proto: chain.proto,
        fragment: chain.fragment,
        offset,
        header_len: chain.header_len,
        total_len: be16(h[4], h[5]).saturating_add(40),
        df: true,
        segment,
    })
}

/// The quoted packet as it was sent.
struct Quoted<'a> {
    source: [u8; 16],
    destination: [u8; 16],
    version: u8,
    proto: u8,
    fragment: FragmentInfo,
    offset: u16,
    header_len: u16,
    total_len: u16,
    df: bool,
    segment: &'a [u8],
}

fn reverse(quoted: Quoted<'_>) -> Result<Embedded, DropReason> {
    let l4 = if matches!(quoted.fragment, FragmentInfo::Later { .. }) { L4::default() } else { quoted_l4(&quoted)? };
    if l4.is_icmp_error {
        return Err(DropReason::IcmpErrorUnmatched);
    }
    let is_icmp = matches!((quoted.version, quoted.proto), (4, PROTO_ICMP) | (6, PROTO_ICMPV6));
    let (sport, dport) = if is_icmp { (l4.sport, l4.dport) } else { (l4.dport, l4.sport) };
    Ok(Embedded {
        src: quoted.destination,
        dst: quoted.source,
        sport,
        dport,
        proto: quoted.proto,
        version: quoted.version,
        fragment: quoted.fragment,
        offset: quoted.offset,
        header_len: quoted.header_len,
        l4_len: u16::try_from(quoted.segment.len()).map_err(|_| DropReason::InvalidPacket)?,
        total_len: quoted.total_len,
        df: quoted.df,
    })
}

/// The first octets of the quoted transport header: all that RFC 792 promises is eight.
fn quoted_l4(quoted: &Quoted<'_>) -> Result<L4, DropReason> {
    match (quoted.proto, quoted.version) {
        (PROTO_TCP | PROTO_UDP | PROTO_SCTP, _) => match quoted.segment.first_chunk::<4>() {
            Some(&[a, b, c, d]) => Ok(L4 { sport: be16(a, b), dport: be16(c, d), ..L4::default() }),
            None => Err(DropReason::Truncated),
        },
        (PROTO_ICMP, 4) | (PROTO_ICMPV6, 6) => match *quoted.segment {
            [icmp_type, code, _, _, a, b, ..] => Ok(icmp(quoted.version, icmp_type, code, be16(a, b))),
            [icmp_type, code, ..] if !is_echo(quoted.version, icmp_type) => {
                Ok(icmp(quoted.version, icmp_type, code, 0))
            }
            _ => Err(DropReason::Truncated),
        },
        _ => Ok(L4::default()),
    }
}

fn icmp(version: u8, icmp_type: u8, code: u8, identifier: u16) -> L4 {
    let mut l4 = L4::default();
    icmp_key(version, icmp_type, code, identifier, &mut l4);
    l4
}
