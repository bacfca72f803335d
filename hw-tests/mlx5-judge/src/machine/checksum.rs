//! The Internet checksum (RFC 1071), and how it follows a change (RFC 1624).

/// The one's complement sum of octets, as of big-endian words; an odd one is padded.
fn sum(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<2>();
    let words: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    words + rest.first().map_or(0, |octet| u64::from(*octet) << 8)
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum over octets, of which those of the checksum itself are 0. Over octets with a right one it is 0.
pub(super) fn of(octets: &[u8]) -> u16 {
    !folded(sum(octets))
}

/// Of a TCP or UDP segment, with its pseudo header (RFC 793 §3.1, RFC 8200 §8.1); 0 when the one in it is right.
pub(super) fn with_addresses(addresses: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    !folded(sum(addresses) + u64::from(protocol) + segment.len() as u64 + sum(segment))
}

/// What a checksum becomes when octets that it covers change (RFC 1624 §3, equation 3). Both are as long, of whole words.
pub(super) fn follow(checksum: u16, before: &[u8], after: &[u8]) -> u16 {
    let (before, _) = before.as_chunks::<2>();
    let gone: u64 = before.iter().map(|word| u64::from(!u16::from_be_bytes(*word))).sum();
    !folded(u64::from(!checksum) + gone + sum(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §3, the example.
    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    /// RFC 1624 §4, the example: header checksum 0xdd2f, a field goes from 0x5555 to 0x3285.
    #[test]
    fn the_example_of_rfc_1624_is_followed() {
        assert_eq!(follow(0xdd2f, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
    }
}
