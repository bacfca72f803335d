//! Hashing of what is looked up for every rule: a few cycles where the standard library's hash takes a hundred. Deterministic.

use std::hash::{BuildHasherDefault, Hasher};

/// The hasher of the engine's `HashMap`s.
pub type Quick = BuildHasherDefault<QuickHasher>;

/// The golden ratio's fraction, and a number with many ones: folded multiplication spreads every bit over the result.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// Words are mixed by folded multiplication.
#[derive(Debug, Clone, Copy)]
pub struct QuickHasher(u64);

impl Default for QuickHasher {
    fn default() -> Self {
        Self(SEED)
    }
}

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        let (words, rest) = octets.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let word = rest.iter().fold(0, |word, octet| word << 8 | u64::from(*octet));
            // So that octets of zero count, too.
            self.write_u64(word ^ (rest.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * u128::from(FACTOR);
        // Added: so that no value leads to where all others are forgotten.
        self.0 = ((product >> 64) as u64 ^ product as u64).wrapping_add(SEED);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hash(value: impl std::hash::Hash) -> u64 {
        let mut hasher = QuickHasher::default();
        value.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn numbers_in_a_row_spread_over_the_upper_and_the_lower_bits() {
        let lower: HashSet<u64> = (0..1024_u64).map(|n| hash(n) & 0xffff).collect();
        let upper: HashSet<u64> = (0..1024_u64).map(|n| hash(n) >> 48).collect();
        assert!(lower.len() > 980 && upper.len() > 980, "{} {}", lower.len(), upper.len());
    }

    #[test]
    fn octets_that_differ_in_length_or_place_differ() {
        let mut all = HashSet::new();
        for length in 0..20 {
            for at in 0..length {
                let mut octets = vec![0_u8; length];
                octets[at] = 1;
                assert!(all.insert(hash(&octets[..])), "{octets:?}");
            }
            assert!(all.insert(hash(&vec![0_u8; length][..])), "{length} zeros");
        }
    }
}
