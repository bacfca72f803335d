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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        parse::{FragmentInfo, ip},
        samples,
    };

    /// ESP of 40 octets from 192.0.2.1 to 198.51.100.7, bare or in UDP, with Ethernet's padding.
    fn packet(udp: bool, tos: u8) -> Vec<u8> {
        let at = if udp { 28 } else { 20 };
        let total = at + 40;
        let mut l3 = vec![0x45, tos, 0, total, 0, 7, 0x40, 0, 64, if udp { 17 } else { 50 }, 0, 0];
        l3.extend([192, 0, 2, 1, 198, 51, 100, 7]);
        if udp {
            l3.extend([0xc0, 1, 0x11, 0x94, 0, 48, 0, 0]);
        }
        l3.extend([0, 0, 16, 1]);
        l3.resize(usize::from(total) + 6, 0x5a);
        samples::fix4(&mut l3);
        l3
    }

    #[test]
    fn the_outside_of_plain_esp_is_read_at_once() {
        for (udp, at) in [(false, 20), (true, 28)] {
            let read = PlainEsp { destination: [198, 51, 100, 7], tos: 0xb9, at, len: 40 };
            assert_eq!(plain_esp(&packet(udp, 0xb9)), Some(read));
        }
    }

    #[test]
    fn ike_is_no_esp() {
        let mut l3 = packet(true, 0);
        l3[28..32].fill(0);
        assert_eq!(plain_esp(&l3), None);
    }

    proptest! {
        /// What is read at once, the parser finds, too, and in the same place.
        #[test]
        fn what_is_read_at_once_is_what_the_parser_says(
            udp in any::<bool>(),
            changes in prop::collection::vec((0_usize..32, any::<u8>()), 0..3),
            len in 0_usize..80,
            fixed in prop::bool::weighted(0.9),
        ) {
            let mut l3 = packet(udp, 0);
            for (at, value) in changes {
                l3[at] = value;
            }
            if fixed && l3[0] == 0x45 {
                samples::fix4(&mut l3);
            }
            l3.truncate(len.max(16));
            if let Some(esp) = plain_esp(&l3) {
                let parsed = ip(&l3, 4).unwrap();
                prop_assert!(parsed.fragment == FragmentInfo::None && !parsed.multicast);
                let data = if parsed.proto == 17 { parsed.udp_data(&l3) } else { parsed.payload(&l3) };
                let at = parsed.header_len + if parsed.proto == 17 { 8 } else { 0 };
                prop_assert_eq!((esp.at, usize::from(esp.len), esp.tos), (at, data.len(), parsed.tos));
                prop_assert_eq!(&esp.destination[..], &parsed.dst[..4]);
            }
        }
    }
}
