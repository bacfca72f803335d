//! The node's own addresses, for asking about both addresses of each packet.

use std::{collections::HashSet, net::IpAddr};

use offload_rules::{flow::FlowKey, forwarding::Snapshot};

/// Bits of the filter, as a power of two: 4 KiB, of which some hundred addresses set less than 1 %.
const BITS: u32 = 15;

/// The addresses that a walk compares with those of packets; see [`Snapshot::node_addresses`].
pub(super) struct NodeAddresses {
    /// A bit for the hash of each: most other addresses are told apart by it.
    filter: Box<[u64; 1 << (BITS - 6)]>,
    /// In the form that keys hold.
    all: HashSet<[u8; 16]>,
}

impl NodeAddresses {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let all: HashSet<[u8; 16]> = snapshot.node_addresses().map(octets).collect();
        let mut filter = Box::new([0; 1 << (BITS - 6)]);
        for address in &all {
            let bit = bit_of(address);
            if let Some(word) = filter.get_mut(bit >> 6) {
                *word |= 1 << (bit & 63);
            }
        }
        Self { filter, all }
    }

    /// Is the source or the destination of this key one of them?
    #[inline]
    pub(super) fn touch(&self, key: &FlowKey) -> bool {
        self.may_hold(&key.src) && self.all.contains(&key.src) || self.may_hold(&key.dst) && self.all.contains(&key.dst)
    }

    #[inline]
    fn may_hold(&self, address: &[u8; 16]) -> bool {
        let bit = bit_of(address);
        self.filter.get(bit >> 6).is_some_and(|word| word >> (bit & 63) & 1 == 1)
    }
}

#[inline]
const fn bit_of(address: &[u8; 16]) -> usize {
    let both = u128::from_le_bytes(*address);
    let folded = both as u64 ^ ((both >> 64) as u64).rotate_left(29);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as usize
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}
