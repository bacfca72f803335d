//! Fields of the IP header.

use offload_rules::DropReason;

use crate::packet::{checksum, ecn::Ecn};

/// Takes `by` off the TTL or hop limit of the IP packet at the start of `l3` and returns what is left, at least 1.
///
/// # Errors
/// [`DropReason::TtlExceeded`] when nothing would be left (the packet is unchanged, as an ICMP error has to quote it);
/// [`DropReason::Truncated`], [`DropReason::InvalidPacket`] when there is no IP header.
#[inline]
pub fn decrement_ttl(l3: &mut [u8], by: u8) -> Result<u8, DropReason> {
    match l3.first().map(|first| first >> 4) {
        Some(4) => {
            let Some(h) = l3.first_chunk_mut::<20>() else { return Err(DropReason::Truncated) };
            if h[8] <= by {
                return Err(DropReason::TtlExceeded);
            }
            h[8] -= by;
            // The TTL is the upper half of its 16-bit word; the protocol beside it stays, so `~m + m'` is a constant.
            let old = u16::from_be_bytes([h[10], h[11]]);
            let [high, low] = checksum::update16(old, u16::from(by) << 8, 0).to_be_bytes();
            (h[10], h[11]) = (high, low);
            Ok(h[8])
        }
        Some(6) => {
            let Some(h) = l3.first_chunk_mut::<40>() else { return Err(DropReason::Truncated) };
            if h[7] <= by {
                return Err(DropReason::TtlExceeded);
            }
            h[7] -= by;
            Ok(h[7])
        }
        Some(_) => Err(DropReason::InvalidPacket),
        None => Err(DropReason::Truncated),
    }
}

/// Sets the type of service or traffic class octet. Does nothing to what is no IP packet.
#[inline]
pub fn set_tos(l3: &mut [u8], tos: u8) {
    match l3.first().map(|first| first >> 4) {
        Some(4) => {
            if let Some(h) = l3.first_chunk_mut::<20>() {
                let old = u16::from_be_bytes([h[10], h[11]]);
                let [high, low] = checksum::update16(old, u16::from(h[1]), u16::from(tos)).to_be_bytes();
                h[1] = tos;
                (h[10], h[11]) = (high, low);
            }
        }
        Some(6) => {
            if let [first, second, ..] = l3 {
                *first = *first & 0xf0 | tos >> 4;
                *second = *second & 0x0f | tos << 4;
            }
        }
        _ => {}
    }
}

/// Sets the ECN field and keeps the DSCP.
#[inline]
pub fn set_ecn(l3: &mut [u8], ecn: Ecn) {
    let old = tos(l3);
    if old & 3 != ecn as u8 {
        set_tos(l3, ecn.with_dscp_of(old));
    }
}

fn tos(l3: &[u8]) -> u8 {
    match *l3 {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [_, second, ..] => second,
        _ => 0,
    }
}
