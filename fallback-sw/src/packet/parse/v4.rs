//! IPv4 (RFC 791).

use offload_rules::DropReason;

use super::{
    FragmentInfo, Ip, be16,
    l4::{self, L4},
    widen,
};
use crate::packet::checksum;

/// Parses and checks an IPv4 packet. Budget: 30 cycles for TCP and UDP without options.
#[inline(always)]
pub(super) fn parse(l3: &[u8], out: &mut Ip) -> Result<(), DropReason> {
    let Some(h) = l3.first_chunk::<20>() else { return Err(DropReason::Truncated) };
    let total_len = be16(h[2], h[3]);
    let header_len = if h[0] == 0x45 {
        if !checksum::ipv4_header_20(h) {
            return Err(DropReason::ChecksumErr);
        }
        20
    } else {
        long_header(l3, h[0])?
    };
    if total_len < header_len {
        return Err(DropReason::InvalidPacket);
    }
    let Some(segment) = l3.get(usize::from(header_len)..usize::from(total_len)) else {
        return Err(DropReason::Truncated);
    };
    let source = [h[12], h[13], h[14], h[15]];
    let destination = [h[16], h[17], h[18], h[19]];
    if invalid_source(source) {
        return Err(DropReason::InvalidSource);
    }
    if invalid_destination(destination) {
        return Err(DropReason::InvalidPacket);
    }
    let proto = h[9];
    let flags = be16(h[6], h[7]);
    // MF and the offset; the reserved bit is ignored.
    let fragment = if flags & 0x3fff == 0 {
        FragmentInfo::None
    } else {
        fragmented(flags, be16(h[4], h[5]), proto, segment.len())?
    };
    let mut l4 = L4::default();
    if !matches!(fragment, FragmentInfo::Later { .. }) {
        let first_fragment = matches!(fragment, FragmentInfo::First { .. });
        l4::l4(4, proto, segment, first_fragment, &mut l4)?;
    }
    *out = Ip {
        src: widen(source),
        dst: widen(destination),
        sport: l4.sport,
        dport: l4.dport,
        total_len,
        header_len,
        fixed_header_len: header_len,
        version: 4,
        proto,
        tos: h[1],
        ttl: h[8],
        tcp_flags: l4.tcp_flags,
        icmp_type: l4.icmp_type,
        icmp_code: l4.icmp_code,
        is_icmp_error: l4.is_icmp_error,
        df: flags & 0x4000 != 0,
        multicast: is_multicast(destination),
        fragment,
    };
    Ok(())
}

/// 0/8 ("this network"), 127/8 (loopback), 224/4 (multicast), 240/4 (class E) and the limited broadcast are no sources (RFC 1812
/// §5.3.7, RFC 6890 §2.2.2).
#[inline(always)]
const fn invalid_source(source: [u8; 4]) -> bool {
    // Compared as numbers and without short cuts: one branch, never taken.
    let number = u32::from_be_bytes(source);
    let first = number >> 24;
    (first == 0) | (first == 127) | (first >= 224)
}

/// 0/8, 127/8 and 240/4 but for the limited broadcast are no destinations (RFC 1812 §5.3.7, RFC 6890 §2.2.2).
#[inline(always)]
const fn invalid_destination(destination: [u8; 4]) -> bool {
    let number = u32::from_be_bytes(destination);
    let first = number >> 24;
    (first == 0) | (first == 127) | ((first >= 240) & (number != u32::MAX))
}

/// A source that may be, and one host as the destination.
#[inline(always)]
pub(super) const fn is_unicast(source: [u8; 4], destination: [u8; 4]) -> bool {
    !(invalid_source(source) | invalid_destination(destination) | is_multicast(destination))
}

#[inline(always)]
const fn is_multicast(destination: [u8; 4]) -> bool {
    let number = u32::from_be_bytes(destination);
    (number >> 28 == 0xe) | (number == u32::MAX)
}

/// Checks a header that does not begin with 0x45: usually one with options. Returns its length.
#[cold]
fn long_header(l3: &[u8], first: u8) -> Result<u16, DropReason> {
    let header_len = u16::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_len < 20 {
        return Err(DropReason::InvalidPacket);
    }
    let Some(header) = l3.get(..usize::from(header_len)) else { return Err(DropReason::Truncated) };
    if !checksum::verify_ipv4_header(header) {
        return Err(DropReason::ChecksumErr);
    }
    options(header.get(20..).unwrap_or(&[]))?;
    Ok(header_len)
}

/// Walks the options (RFC 791 §3.1). Loose and strict source routes are refused (RFC 7126 §4.3, §4.4).
fn options(mut options: &[u8]) -> Result<(), DropReason> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    loop {
        options = match *options {
            [] | [END, ..] => return Ok(()),
            [NOP, ref rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] | [_] => return Err(DropReason::IpOptions),
            [_, len, ..] => match options.get(usize::from(len)..) {
                Some(rest) if len >= 2 => rest,
                _ => return Err(DropReason::IpOptions),
            },
        }
    }
}

/// A fragment: the checks of RFC 791 §3.2 and RFC 1858 §3.
#[cold]
fn fragmented(flags: u16, id: u16, proto: u8, len: usize) -> Result<FragmentInfo, DropReason> {
    let id = u32::from(id);
    let more = flags & 0x2000 != 0;
    let offset = (flags & 0x1fff) << 3;
    check_fragment(offset, more, len)?;
    if offset == 0 {
        return Ok(FragmentInfo::First { id });
    }
    // RFC 1858 §3.2.2: it would overlay the flags of the TCP header.
    if offset == 8 && proto == l4::PROTO_TCP {
        return Err(DropReason::FragmentErr);
    }
    Ok(FragmentInfo::Later { id, offset, more })
}

/// What no fragment of either family may do: hold nothing, end behind 65535 octets, or have more to come without ending on
/// a multiple of 8.
pub(super) const fn check_fragment(offset: u16, more: bool, len: usize) -> Result<(), DropReason> {
    if len == 0 || offset as usize + len > 0xffff || (more && !len.is_multiple_of(8)) {
        return Err(DropReason::FragmentErr);
    }
    Ok(())
}
