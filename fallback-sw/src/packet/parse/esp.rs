//! The outside of ESP packets, read at once where nothing about it is unusual.

use super::{NAT_T_PORT, PROTO_ESP, PROTO_UDP, be16, v4};
use crate::packet::checksum;

/// Where an ESP packet is, and what is said before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainEsp {
    /// Outer destination.
    pub destination: [u8; 4],
    /// Outer type of service.
    pub tos: u8,
    /// Octets from the outer IPv4 header to the ESP header: 20 or 28.
    pub at: u16,
    /// Octets of the ESP packet, check value included.
    pub len: u16,
}

/// Reads the outer headers of what is ESP without a doubt, bare (RFC 4303) or in UDP to port 4500 (RFC 3948): whole, without IPv4 options.
/// `None`: [`ip`](super::ip()) tells what it is, or why it is nothing.
#[inline(always)]
#[must_use]
pub fn plain_esp(l3: &[u8]) -> Option<PlainEsp> {
    let h = l3.first_chunk::<32>()?;
    let (proto, total_len) = (h[9], be16(h[2], h[3]));
    let (at, len) = match proto {
        PROTO_ESP => (20, total_len.checked_sub(20)?),
        // What begins with four zeroes is IKE (RFC 3948 §2.2).
        PROTO_UDP if be16(h[22], h[23]) == NAT_T_PORT && h[28..] != [0; 4] => {
            let datagram = be16(h[24], h[25]);
            // In UDP it ends with the datagram, which may be before the IP packet does (RFC 768).
            if total_len < 20 + 12 || datagram > total_len - 20 {
                return None;
            }
            (28, datagram.checked_sub(8)?)
        }
        _ => return None,
    };
    let whole = be16(h[6], h[7]) & 0x3fff == 0 && usize::from(total_len) <= l3.len();
    let fit = v4::is_unicast([h[12], h[13], h[14], h[15]], [h[16], h[17], h[18], h[19]]);
    let right = h[0] == 0x45 && checksum::ipv4_header_20(h.first_chunk()?);
    // A shorter one has no index.
    (whole && fit && right && len >= 4).then(|| PlainEsp {
        destination: [h[16], h[17], h[18], h[19]],
        tos: h[1],
        at,
        len,
    })
}
