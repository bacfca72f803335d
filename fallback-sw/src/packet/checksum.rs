//! The Internet checksum: computed (RFC 1071), changed in place (RFC 1624), with pseudo-headers.
//!
//! Sums and checksums are in host order, as numbers: `0xdd2f` is sent as the octets `dd 2f`. A *sum* is the folded one's
//! complement sum; a *checksum* is its complement, as it stands in a header.
#![forbid(unsafe_code)]

/// Folded one's complement sum of the octets as 16-bit words; an odd last octet is the high half of a word (RFC 1071 §1).
#[inline]
#[must_use]
pub fn sum(data: &[u8]) -> u16 {
    // The sum does not depend on byte order (RFC 1071 §2B): add in the machine's, four octets at a time, swap once.
    let (words, rest) = data.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let tail = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    total += u64::from(u32::from_ne_bytes(tail));
    u16::from_be(fold(total))
}

/// Folds carries back in until 16 bits are left.
#[inline]
const fn fold(total: u64) -> u16 {
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff) + ((total >> 16) & 0xffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16);
    ((total & 0xffff) + (total >> 16)) as u16
}

/// One's complement addition of two sums.
#[inline]
#[must_use]
pub const fn add(a: u16, b: u16) -> u16 {
    fold(a as u64 + b as u64)
}

/// One's complement addition of four sums.
#[inline]
#[must_use]
pub const fn add4(a: u16, b: u16, c: u16, d: u16) -> u16 {
    fold(a as u64 + b as u64 + c as u64 + d as u64)
}

/// Checksum of the octets: the complement of [`sum`].
#[inline]
#[must_use]
pub fn checksum(data: &[u8]) -> u16 {
    !sum(data)
}

/// Whether an IPv4 header of exactly 20 octets carries the right checksum.
#[inline]
#[must_use]
pub const fn ipv4_header_20(header: &[u8; 20]) -> bool {
    let h = header;
    let first = u64::from_ne_bytes([h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]]);
    let second = u64::from_ne_bytes([h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15]]);
    let third = u32::from_ne_bytes([h[16], h[17], h[18], h[19]]) as u64;
    // 2^64 - 1 is a multiple of 2^16 - 1, so 64-bit one's complement addition keeps the sum modulo 0xffff; a right header adds
    // up to a multiple of it that is not 0. The division is by a constant: one multiplication.
    let (total, carry) = first.overflowing_add(second);
    let (total, again) = total.overflowing_add(third + carry as u64);
    let total = total + again as u64;
    total != 0 && total.is_multiple_of(0xffff)
}

/// Whether an IPv4 header (with options; the whole slice) carries the right checksum.
#[inline]
#[must_use]
pub fn verify_ipv4_header(header: &[u8]) -> bool {
    sum(header) == 0xffff
}

/// The checksum after one 16-bit field changed from `old` to `new` (RFC 1624 §3, equation 3).
#[inline]
#[must_use]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    !fold((!checksum) as u64 + (!old) as u64 + new as u64)
}

/// The checksum after one 32-bit field at an even offset changed (RFC 1624 §3, equation 3).
#[inline]
#[must_use]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    !fold((!checksum) as u64 + (!old) as u64 + new as u64)
}

/// Sum of the pseudo-header of TCP and UDP over IPv4 (RFC 768, RFC 9293 §3.1). `len`: octets of the transport segment.
#[inline]
#[must_use]
pub const fn pseudo_v4(source: [u8; 4], destination: [u8; 4], proto: u8, len: u16) -> u16 {
    fold(u32::from_be_bytes(source) as u64 + u32::from_be_bytes(destination) as u64 + proto as u64 + len as u64)
}

/// Sum of the pseudo-header over IPv6 (RFC 8200 §8.1). `len`: octets of the upper-layer packet.
#[inline]
#[must_use]
pub fn pseudo_v6(source: &[u8; 16], destination: &[u8; 16], proto: u8, len: u32) -> u16 {
    fold(u64::from(sum(source)) + u64::from(sum(destination)) + u64::from(proto) + u64::from(len))
}

/// A UDP checksum as it is sent: a computed 0 becomes all ones, because 0 says "none" (RFC 768).
#[inline]
#[must_use]
pub const fn udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, word by word.
    fn oracle(data: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in data.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_gives_zero_and_not_minus_zero() {
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
        assert_eq!(update32(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn udp_never_sends_a_computed_zero() {
        assert_eq!(udp(0), 0xffff);
        assert_eq!(udp(1), 1);
    }

    #[test]
    fn a_header_of_zeros_is_not_right() {
        assert!(!ipv4_header_20(&[0; 20]));
        assert!(ipv4_header_20(&[0xff; 20]));
    }

    proptest! {
        #[test]
        fn the_quick_check_of_a_header_is_the_slow_one(mut header in any::<[u8; 20]>(), right in any::<bool>(), ones in any::<u32>()) {
            // Some octets all ones, where carries ripple.
            for (i, octet) in header.iter_mut().enumerate() {
                if ones >> i & 1 == 1 {
                    *octet = 0xff;
                }
            }
            header[0] = 0x45;
            if right {
                header[10..12].fill(0);
                let checksum = checksum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            prop_assert_eq!(ipv4_header_20(&header), oracle(&header) == 0xffff);
            prop_assert_eq!(verify_ipv4_header(&header), oracle(&header) == 0xffff);
        }

        #[test]
        fn the_sum_is_that_of_the_rfc_at_every_length(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sum(&data), oracle(&data));
        }

        #[test]
        fn an_update_equals_a_fresh_computation(
            mut data in proptest::collection::vec(any::<u8>(), 14..64),
            at in 0usize..4,
            new in any::<u32>(),
        ) {
            data[0] |= 1; // a packet is never all zeros
            let before = checksum(&data);
            let at = 4 + at * 2;
            let old = u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
            data[at..at + 4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update32(before, old, new), checksum(&data));
            let (old_high, new_high) = ((old >> 16) as u16, (new >> 16) as u16);
            let high = update16(before, old_high, new_high);
            prop_assert_eq!(update16(high, old as u16, new as u16), checksum(&data));
        }

        #[test]
        fn pseudo_headers_match_etherparse(
            a in any::<[u8; 4]>(), b in any::<[u8; 4]>(), c in any::<[u8; 16]>(), d in any::<[u8; 16]>(),
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let header = etherparse::UdpHeader { source_port: 7, destination_port: 9, length: 8 + payload.len() as u16, checksum: 0 };
            let mut segment = header.to_bytes().to_vec();
            segment.extend_from_slice(&payload);
            let v4 = add(sum(&segment), pseudo_v4(a, b, 17, segment.len() as u16));
            prop_assert_eq!(udp(!v4), header.calc_checksum_ipv4_raw(a, b, &payload).unwrap());
            let v6 = add(sum(&segment), pseudo_v6(&c, &d, 17, segment.len() as u32));
            prop_assert_eq!(udp(!v6), header.calc_checksum_ipv6_raw(c, d, &payload).unwrap());
        }
    }
}
