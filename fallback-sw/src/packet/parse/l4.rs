//! Transport headers, as far as flow keys, TCP tracking and ICMP need them.

use offload_rules::DropReason;

use super::be16;

/// Protocol number of ICMP.
pub const PROTO_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTO_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTO_UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;
/// Protocol number of SCTP.
pub const PROTO_SCTP: u8 = 132;

/// Bits of the flags octet of a TCP header (RFC 9293 §3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// What flow keys and tracking need of a transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct L4 {
    pub(super) sport: u16,
    pub(super) dport: u16,
    pub(super) tcp_flags: u8,
    pub(super) icmp_type: u8,
    pub(super) icmp_code: u8,
    pub(super) is_icmp_error: bool,
}

/// The octets end before the transport header does: of a whole packet that is truncation; of a first fragment it is what
/// RFC 1858 §3.2 and RFC 7112 §5 tell routers to drop.
#[inline(always)]
const fn short(first_fragment: bool) -> DropReason {
    if first_fragment { DropReason::FragmentErr } else { DropReason::Truncated }
}

/// Parses the transport header at the start of `segment`, which ends where the IP packet ends, into `out`.
///
/// Inlined with all it calls, and `out` is no return value: as one, it would be packed into one register by way of the stack,
/// which costs a failed store forwarding, half as much as the rest of the parser.
#[inline(always)]
pub(super) fn l4(version: u8, proto: u8, segment: &[u8], first_fragment: bool, out: &mut L4) -> Result<(), DropReason> {
    match (proto, version) {
        (PROTO_TCP, _) => tcp(segment, first_fragment, out),
        (PROTO_UDP, _) => udp(segment, first_fragment, out),
        (PROTO_ICMP, 4) | (PROTO_ICMPV6, 6) => icmp(version, segment, first_fragment, out),
        (PROTO_SCTP, _) => sctp(segment, first_fragment, out),
        _ => Ok(()),
    }
}

#[inline(always)]
fn tcp(segment: &[u8], first_fragment: bool, out: &mut L4) -> Result<(), DropReason> {
    let Some(h) = segment.first_chunk::<20>() else { return Err(short(first_fragment)) };
    let header_len = usize::from(h[12] >> 4) * 4;
    if header_len < 20 {
        return Err(DropReason::InvalidPacket);
    }
    if header_len > segment.len() {
        return Err(short(first_fragment));
    }
    out.sport = be16(h[0], h[1]);
    out.dport = be16(h[2], h[3]);
    out.tcp_flags = h[13];
    Ok(())
}

#[inline(always)]
fn udp(segment: &[u8], first_fragment: bool, out: &mut L4) -> Result<(), DropReason> {
    let Some(h) = segment.first_chunk::<8>() else { return Err(short(first_fragment)) };
    let len = usize::from(be16(h[4], h[5]));
    if len < 8 {
        return Err(DropReason::InvalidPacket);
    }
    // The length of a fragmented datagram is that of the whole.
    if len > segment.len() && !first_fragment {
        return Err(DropReason::Truncated);
    }
    out.sport = be16(h[0], h[1]);
    out.dport = be16(h[2], h[3]);
    Ok(())
}

#[inline(always)]
fn sctp(segment: &[u8], first_fragment: bool, out: &mut L4) -> Result<(), DropReason> {
    let Some(h) = segment.first_chunk::<12>() else { return Err(short(first_fragment)) };
    out.sport = be16(h[0], h[1]);
    out.dport = be16(h[2], h[3]);
    Ok(())
}

#[inline(always)]
fn icmp(version: u8, segment: &[u8], first_fragment: bool, out: &mut L4) -> Result<(), DropReason> {
    // Every message of RFC 792 and RFC 4443 has at least eight octets.
    let Some(h) = segment.first_chunk::<8>() else { return Err(short(first_fragment)) };
    icmp_key(version, h[0], h[1], be16(h[4], h[5]), out);
    Ok(())
}

/// The fields of an ICMP message: echo has (identifier, 0) for ports, everything else (0, type).
#[inline(always)]
pub(super) const fn icmp_key(version: u8, icmp_type: u8, icmp_code: u8, identifier: u16, out: &mut L4) {
    if is_echo(version, icmp_type) {
        out.sport = identifier;
    } else {
        out.dport = icmp_type as u16;
    }
    out.icmp_type = icmp_type;
    out.icmp_code = icmp_code;
    out.is_icmp_error = is_icmp_error(version, icmp_type);
}

/// Echo request or reply.
pub(super) const fn is_echo(version: u8, icmp_type: u8) -> bool {
    if version == 4 { matches!(icmp_type, 0 | 8) } else { matches!(icmp_type, 128 | 129) }
}

/// A message about another packet: RFC 792's unreachable, source quench, redirect, time exceeded and parameter problem;
/// RFC 4443 §2.1's types below 128.
#[must_use]
pub const fn is_icmp_error(version: u8, icmp_type: u8) -> bool {
    if version == 4 { matches!(icmp_type, 3 | 4 | 5 | 11 | 12) } else { icmp_type < 128 }
}
