//! The label of an MPLS-over-UDP packet (RFC 7510, RFC 3032).

use offload_rules::{DropReason, Label};

/// Octets of one label stack entry.
pub const MPLS_LEN: usize = 4;

/// The one label stack entry that the node takes, and what is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MplsUdp {
    /// The label, 16..=1048575.
    pub label: Label,
    /// Traffic class, 0..=7 (RFC 5462).
    pub tc: u8,
    /// Bottom of stack; always set, anything else is refused.
    pub bottom: bool,
    /// TTL, 1..=255.
    pub ttl: u8,
    /// 4 or 6, from the first octet behind the label; the inner header itself is not checked yet.
    pub inner_version: u8,
    /// Octets from the start of the UDP payload to the inner packet: [`MPLS_LEN`].
    pub header_len: usize,
}

/// Parses the payload of a UDP datagram that arrived on a MPLS-over-UDP port.
///
/// # Errors
/// [`DropReason::Truncated`]; [`DropReason::InvalidLabel`] for a label that is reserved or not bottom of stack;
/// [`DropReason::TtlExceeded`] for TTL 0; [`DropReason::InvalidPacket`] when neither IPv4 nor IPv6 follows.
#[inline]
pub fn mpls_udp(payload: &[u8]) -> Result<MplsUdp, DropReason> {
    let Some(&[a, b, c, d, next]) = payload.first_chunk::<5>() else { return Err(DropReason::Truncated) };
    let entry = u32::from_be_bytes([a, b, c, d]);
    if entry & 0x100 == 0 {
        return Err(DropReason::InvalidLabel);
    }
    let Ok(label) = Label::new(entry >> 12) else { return Err(DropReason::InvalidLabel) };
    if d == 0 {
        return Err(DropReason::TtlExceeded);
    }
    let inner_version = next >> 4;
    if !matches!(inner_version, 4 | 6) {
        return Err(DropReason::InvalidPacket);
    }
    Ok(MplsUdp { label, tc: (c >> 1) & 7, bottom: true, ttl: d, inner_version, header_len: MPLS_LEN })
}
