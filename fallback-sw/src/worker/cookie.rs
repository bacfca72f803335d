//! SYN cookies (RFC 4987 §3.6): what would be remembered of a SYN, in the sequence number that answers it.
//!
//! ```text
//!  31 30 29  27 26                      0
//! +-----+------+-------------------------+
//! | t   | MSS  | keyed hash              |   t: time slot modulo 4
//! +-----+------+-------------------------+
//! ```
//!
//! The hash (SipHash-2-4 under a secret of the node) is over the five-tuple and VRF, the client's sequence number, the time slot
//! and the MSS. Whoever does not see the answer guesses it once in 2²⁸ tries.

use offload_rules::flow::FlowKey;

/// Milliseconds of a time slot, as a power of two: 65.5 seconds. A cookie is taken in its slot and the next.
const SLOT_SHIFT: u32 = 16;
/// Milliseconds for which a cookie may be taken, at most.
pub(super) const VALID_MS: u64 = 2 << SLOT_SHIFT;
const HASH_BITS: u32 = 27;
const HASH: u32 = (1 << HASH_BITS) - 1;
/// What is left of a client's MSS: the largest of these that is not larger. IPv4 and IPv6 over Ethernet, both over the usual
/// tunnels, the defaults of both (RFC 9293 §3.7.1), and less.
const MSS: [u16; 8] = [88, 256, 536, 1220, 1300, 1360, 1440, 1460];

/// What a valid cookie brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie {
    /// The sequence number that the client was shown: the cookie itself.
    pub(super) shown: u32,
    /// The client's initial sequence number.
    pub(super) isn: u32,
    /// The client's MSS, rounded down.
    pub(super) mss: u16,
}

/// The sequence number that answers a SYN.
pub(super) fn make(secret: [u64; 2], key: &FlowKey, isn: u32, mss: u16, now: u64) -> u32 {
    let index = MSS.iter().rposition(|known| *known <= mss).unwrap_or(0) as u32;
    assemble(secret, key, isn, index, now >> SLOT_SHIFT)
}

/// Reads the cookie back out of the client's ACK: `seq` and `ack` are the segment's. `None`: it is not one of ours, or too old.
pub(super) fn check(secret: [u64; 2], key: &FlowKey, seq: u32, ack: u32, now: u64) -> Option<Cookie> {
    let (isn, shown) = (seq.wrapping_sub(1), ack.wrapping_sub(1));
    let slot = now >> SLOT_SHIFT;
    let age = (slot as u32).wrapping_sub(shown >> 30) & 3;
    if age > 1 {
        return None;
    }
    let index = shown >> HASH_BITS & 7;
    let expected = assemble(secret, key, isn, index, slot.checked_sub(u64::from(age))?);
    let mss = MSS.get(index as usize).copied()?;
    (expected == shown).then_some(Cookie { shown, isn, mss })
}

fn assemble(secret: [u64; 2], key: &FlowKey, isn: u32, index: u32, slot: u64) -> u32 {
    let [a, b] = halves(&key.src);
    let [c, d] = halves(&key.dst);
    let ports = u64::from(key.sport) | u64::from(key.dport) << 16 | u64::from(key.vrf.get()) << 32;
    let rest = u64::from(isn) | u64::from(index) << 32 | u64::from(key.version) << 40;
    let hash = siphash(secret, &[a, b, c, d, ports, rest, slot]);
    (slot as u32 & 3) << 30 | index << HASH_BITS | hash as u32 & HASH
}

const fn halves(address: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*address);
    [both as u64, (both >> 64) as u64]
}

/// SipHash-2-4 of whole words.
fn siphash([k0, k1]: [u64; 2], words: &[u64]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let last = (words.len() as u64 * 8) << 56;
    for word in words.iter().chain(std::iter::once(&last)) {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use offload_rules::{VifId, VrfId};
    use proptest::prelude::*;

    use super::*;

    fn key(port: u16) -> FlowKey {
        let (src, dst) = ("192.168.0.9".parse().unwrap(), "192.168.1.1".parse().unwrap());
        FlowKey::new(VrfId::new(2).unwrap(), VifId::new(1).unwrap(), src, dst, 6, port, 80)
    }

    #[test]
    #[allow(deprecated)]
    fn the_hash_is_that_of_the_standard_library() {
        use std::hash::{Hasher, SipHasher};
        let words = [1u64, 0x0123_4567_89ab_cdef, u64::MAX];
        let mut theirs = SipHasher::new_with_keys(7, 9);
        words.iter().for_each(|word| theirs.write(&word.to_le_bytes()));
        assert_eq!(siphash([7, 9], &words), theirs.finish());
    }

    proptest! {
        #[test]
        fn a_cookie_comes_back_in_its_time_and_not_later(isn: u32, mss in 88u16.., at in 0u64..1 << 40, later in 0u64..1 << 20) {
            let shown = make([1, 2], &key(5), isn, mss, at);
            let back = check([1, 2], &key(5), isn.wrapping_add(1), shown.wrapping_add(1), at + later);
            let slots = ((at + later) >> SLOT_SHIFT) - (at >> SLOT_SHIFT);
            if slots <= 1 {
                let back = back.unwrap();
                prop_assert_eq!((back.shown, back.isn), (shown, isn));
                prop_assert!(back.mss <= mss && (back.mss == 1460 || MSS.iter().all(|m| *m <= back.mss || *m > mss)));
            } else {
                prop_assert_eq!(back, None);
            }
        }

        #[test]
        fn what_was_changed_is_not_taken(isn: u32, bit in 0u32..32) {
            let shown = make([1, 2], &key(5), isn, 1460, 70_000);
            let (seq, ack) = (isn.wrapping_add(1), shown.wrapping_add(1));
            let forged = (shown ^ 1 << bit).wrapping_add(1);
            prop_assert_eq!(check([1, 2], &key(5), seq, forged, 70_000), None);
            prop_assert_eq!(check([1, 2], &key(5), (isn ^ 1 << bit).wrapping_add(1), ack, 70_000), None);
            prop_assert_eq!(check([1, 2], &key(6), seq, ack, 70_000), None);
            prop_assert_eq!(check([1, 3], &key(5), seq, ack, 70_000), None);
        }
    }
}
