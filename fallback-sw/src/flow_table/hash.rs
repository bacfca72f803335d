//! The hash of a flow key.

use std::hash::{BuildHasher, RandomState};

use offload_rules::{VifId, VrfId, flow::FlowKey};

/// A multiply-fold hash under a secret seed.
///
/// Every word of the key is added to a secret before it is multiplied, so that whoever chooses addresses and ports cannot
/// tell which keys collide; the products of the two addresses are independent, so that they overlap in the processor. The vif is left out:
/// the same tuple seen on another vif is found in the same place.
#[derive(Clone)]
pub(super) struct Hasher {
    seed: [u64; 5],
}

impl Hasher {
    /// With secrets from the operating system.
    pub(super) fn random() -> Self {
        let state = RandomState::new();
        Self { seed: std::array::from_fn(|i| state.hash_one(i)) }
    }

    /// With secrets expanded from `seed`: reproducible, for replay and tests, and predictable.
    pub(super) fn seeded(seed: u64) -> Self {
        // splitmix64
        let mut state = seed;
        Self {
            seed: std::array::from_fn(|_| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }),
        }
    }

    #[inline(always)]
    pub(super) fn hash(&self, key: &FlowKey) -> u64 {
        let (place, kind) = rest(key);
        self.of_words(halves(&key.src), halves(&key.dst), place, kind)
    }

    /// The same by words: both halves of each address, ports, VRF and vif as [`place`] has them, protocol and version.
    #[inline(always)]
    pub(super) const fn of_words(&self, [a, b]: [u64; 2], [c, d]: [u64; 2], place: u64, kind: u16) -> u64 {
        let e = place & 0x0000_ffff_ffff_ffff | (kind as u64) << 48;
        let [s0, s1, s2, s3, s4] = self.seed;
        let x = fold(a.wrapping_add(s0), b.wrapping_add(s1));
        let y = fold(c.wrapping_add(s2), d.wrapping_add(s3));
        fold(x ^ y.rotate_left(32), e.wrapping_add(s4))
    }
}

/// Both halves of the product, folded together.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
pub(crate) const fn halves(address: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*address);
    [both as u64, (both >> 64) as u64]
}

/// All 42 octets are equal. By words, because the comparison of octets is a call to `memcmp`.
#[inline(always)]
pub(crate) const fn same_key(a: &FlowKey, b: &FlowKey) -> bool {
    let addresses = (u128::from_le_bytes(a.src) ^ u128::from_le_bytes(b.src))
        | (u128::from_le_bytes(a.dst) ^ u128::from_le_bytes(b.dst));
    let (c, d) = (rest(a), rest(b));
    (addresses as u64 | (addresses >> 64) as u64 | (c.0 ^ d.0) | (c.1 ^ d.1) as u64) == 0
}

/// What follows the addresses: ports, VRF and vif; protocol and version.
#[inline(always)]
pub(crate) const fn rest(key: &FlowKey) -> (u64, u16) {
    (place(key.sport, key.dport, key.vrf, key.vif), u16::from_le_bytes([key.proto, key.version]))
}

/// Ports, VRF and vif of a key as one word.
#[inline(always)]
pub(crate) const fn place(sport: u16, dport: u16, vrf: VrfId, vif: VifId) -> u64 {
    sport as u64 | (dport as u64) << 16 | (vrf.get() as u64) << 32 | (vif.get() as u64) << 48
}

/// All is equal except the vif, which differs.
pub(super) fn siblings(a: &FlowKey, b: &FlowKey) -> bool {
    a.vif != b.vif && same_key(&FlowKey { vif: b.vif, ..*a }, b)
}
