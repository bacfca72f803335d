//! The Internet checksum (RFC 1071), its incremental form (RFC 1624), and SCTP's CRC32c (RFC 9260 appendix A).

/// Sum of 16-bit words, not folded; an odd octet at the end is padded with zero.
pub(crate) fn sum(octets: &[u8]) -> u64 {
    let mut words = octets.chunks_exact(2);
    let mut total = 0;
    for word in &mut words {
        if let [high, low] = *word {
            total += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    total + words.remainder().first().map_or(0, |&last| u64::from(last) << 8)
}

/// Folds to 16 bits.
pub(crate) fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The checksum of a header whose own field is zero.
pub(crate) fn of(octets: &[u8]) -> u16 {
    !fold(sum(octets))
}

/// The checksum after words that summed up to `old` became words that sum up to `new`: HC' = ~(~HC + ~m + m'), RFC 1624 equation 3.
pub(crate) fn update(checksum: u16, old: u64, new: u64) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!fold(old)) + new)
}

/// Sum of the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1).
pub(crate) fn pseudo(addresses: &[u8], protocol: u8, len: usize) -> u64 {
    sum(addresses) + u64::from(protocol) + len as u64
}

/// CRC32c over a packet of which octets 8..12 count as zero.
pub(crate) fn sctp(octets: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (at, &octet) in octets.iter().enumerate() {
        crc ^= u32::from(if (8..12).contains(&at) { 0 } else { octet });
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_updated_checksum_equals_one_computed_anew() {
        let mut header = [0x45, 0, 0, 0x6c, 0, 1, 0, 0, 0x40, 0x11, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
        let before = !fold(sum(&header));
        let old = sum(&header[8..10]);
        header[8] = 0x3f;
        assert_eq!(update(before, old, sum(&header[8..10])), !fold(sum(&header)));
        // The golden MPLS-over-UDP packet's inner header has this checksum.
        assert_eq!(!fold(sum(&header)), 0x757b);
    }

    #[test]
    fn the_crc_of_the_check_string_is_the_published_one() {
        // "123456789" has CRC32c e3069283; octet 8 counts as zero here, so it is the CRC of "12345678\0".
        assert_eq!(sctp(b"12345678"), 0x6087_809a);
    }
}
