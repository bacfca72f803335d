//! Echo replies (RFC 792, RFC 4443 §4.2).

use std::net::Ipv6Addr;

use offload_rules::DropReason;

use super::checksum_holds;
use crate::packet::{
    checksum,
    parse::{FragmentInfo, Ip},
};

/// TTL and hop limit of a reply.
const TTL: u8 = 64;

/// Turns an echo request into its reply, in place. `ip` was parsed from `l3` and is stale afterwards. The reply is from where the
/// request went to, or from `source`: an IPv6 group or anycast address is no source (RFC 4443 §4.2).
///
/// IPv4 options go back as they came (RFC 1122 §3.2.2.6; source routes were refused by the parser).
///
/// # Errors
/// The packet is unchanged:
/// - [`DropReason::InvalidPacket`]: not an echo request, or code not 0.
/// - [`DropReason::McastUnsupported`]: to a group or broadcast, and no `source`.
/// - [`DropReason::FragmentErr`]: a fragment; the checksum covers the whole.
/// - [`DropReason::ChecksumErr`]: the ICMP checksum is wrong.
pub fn echo_reply(ip: &Ip, l3: &mut [u8], source: Option<Ipv6Addr>) -> Result<(), DropReason> {
    let (request, reply) = if ip.version == 4 { (8, 0) } else { (128, 129) };
    if !ip.is_icmp() || !ip.has_l4() || ip.icmp_type != request || ip.icmp_code != 0 {
        return Err(DropReason::InvalidPacket);
    }
    let source = source.filter(|_| ip.version == 6);
    if ip.multicast && source.is_none() {
        return Err(DropReason::McastUnsupported);
    }
    if ip.fragment != FragmentInfo::None {
        return Err(DropReason::FragmentErr);
    }
    if !checksum_holds(ip, ip.payload(l3)) {
        return Err(DropReason::ChecksumErr);
    }
    let Some((header, message)) = l3.split_at_mut_checked(usize::from(ip.header_len)) else {
        return Err(DropReason::Truncated);
    };
    let Some(icmp) = message.first_chunk_mut::<4>() else { return Err(DropReason::Truncated) };
    if ip.version == 4 {
        swap_v4(header)?;
    } else {
        swap_v6(header)?;
    }
    // Both addresses stay in the pseudo-header: only the type changes the checksum. It is the upper half of its word.
    let old = u16::from_be_bytes([icmp[2], icmp[3]]);
    [icmp[2], icmp[3]] = checksum::update16(old, u16::from(request) << 8, u16::from(reply) << 8).to_be_bytes();
    icmp[0] = reply;
    if let Some(source) = source {
        let place = header.get_mut(8..24).ok_or(DropReason::Truncated)?;
        let octets = source.octets();
        let changed = place.chunks_exact(2).zip(octets.chunks_exact(2));
        let sum = u16::from_be_bytes([icmp[2], icmp[3]]);
        let sum = changed.fold(sum, |sum, (old, new)| checksum::update16(sum, word(old), word(new)));
        [icmp[2], icmp[3]] = sum.to_be_bytes();
        place.copy_from_slice(&source.octets());
    }
    Ok(())
}

fn word(octets: &[u8]) -> u16 {
    octets.first_chunk().map_or(0, |octets| u16::from_be_bytes(*octets))
}

fn swap_v4(header: &mut [u8]) -> Result<(), DropReason> {
    let Some(h) = header.first_chunk_mut::<20>() else { return Err(DropReason::Truncated) };
    for at in 12..16 {
        h.swap(at, at + 4);
    }
    let old = u16::from_be_bytes([h[10], h[11]]);
    [h[10], h[11]] = checksum::update16(old, u16::from(h[8]) << 8, u16::from(TTL) << 8).to_be_bytes();
    h[8] = TTL;
    Ok(())
}

fn swap_v6(header: &mut [u8]) -> Result<(), DropReason> {
    let Some(h) = header.first_chunk_mut::<40>() else { return Err(DropReason::Truncated) };
    for at in 8..24 {
        h.swap(at, at + 16);
    }
    h[7] = TTL;
    Ok(())
}
