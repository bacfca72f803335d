//! Where the flows with a given hash are: a bucketed cuckoo index, one cache line a bucket.
//!
//! An entry is a 16-bit signature and a slot. It sits in one of two buckets: its home, or the one that home and signature
//! name together (so that an entry can move without its key being read). A bucket counts the entries that had to leave it:
//! where there are none, a miss ends after one cache line.

use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::memory::Array;
use crate::prefetch;

/// Entries of a bucket.
pub(super) const LANES: u32 = 10;
/// Buckets that an insertion looks into for room before it gives up.
const SEARCH: usize = 128;
/// Every lane's lowest bit.
const ONES: u64 = 0x0001_0001_0001_0001;
/// Lanes of the bucket's own bookkeeping, behind the signatures.
const AWAY: u32 = LANES;
const OVERFLOW: u32 = LANES + 1;

/// Twelve 16-bit lanes (ten signatures, 0 where the entry is free; a bit for each entry that is away from home; the number
/// of entries at home here that are elsewhere) and ten slots.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    lanes: [u64; 3],
    slots: [u32; LANES as usize],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    #[inline(always)]
    fn lane(&self, lane: u32) -> u16 {
        self.lanes.get(lane as usize / 4).map_or(0, |word| (word >> (lane % 4 * 16)) as u16)
    }

    #[inline(always)]
    fn set_lane(&mut self, lane: u32, value: u16) {
        if let Some(word) = self.lanes.get_mut(lane as usize / 4) {
            let shift = lane % 4 * 16;
            *word = *word & !(0xffff << shift) | u64::from(value) << shift;
        }
    }

    /// The entries with this signature. The first is right; one behind it may have another signature.
    #[inline(always)]
    pub(super) fn matches(&self, signature: u16) -> Matches {
        let wanted = u64::from(signature) * ONES;
        let [a, b, c] = self.lanes.map(|lanes| zero_lanes(lanes ^ wanted));
        // The two lanes of bookkeeping are never equal to anything.
        Matches(a >> 15 | b >> 14 | (c & 0xffff_ffff) >> 13)
    }

    #[inline(always)]
    pub(super) fn slot(&self, lane: u32) -> Option<u32> {
        self.slots.get(lane as usize).copied()
    }

    /// The slot of the first entry with this signature.
    #[inline(always)]
    pub(super) fn first(&self, signature: u16) -> Option<u32> {
        self.matches(signature).next().and_then(|lane| self.slot(lane))
    }

    /// Some entry whose home is here is elsewhere.
    #[inline(always)]
    pub(super) fn overflowed(&self) -> bool {
        self.lane(OVERFLOW) != 0
    }

    fn room(&self) -> Option<u32> {
        self.matches(0).next()
    }

    fn is_away(&self, lane: u32) -> bool {
        self.lane(AWAY) >> lane & 1 == 1
    }

    fn put(&mut self, lane: u32, entry: Entry) {
        self.set_lane(lane, entry.signature);
        if let Some(slot) = self.slots.get_mut(lane as usize) {
            *slot = entry.slot;
        }
        let others = self.lane(AWAY) & !(1 << lane);
        self.set_lane(AWAY, others | u16::from(entry.away) << lane);
    }

    fn take(&mut self, lane: u32) -> Entry {
        let entry =
            Entry { signature: self.lane(lane), slot: self.slot(lane).unwrap_or_default(), away: self.is_away(lane) };
        self.put(lane, Entry { signature: 0, slot: 0, away: false });
        entry
    }

    /// One more entry left. A counter at its limit stays there: it then only costs the second look.
    fn count_left(&mut self) {
        self.set_lane(OVERFLOW, self.lane(OVERFLOW).saturating_add(1));
    }

    fn count_back(&mut self) {
        let count = self.lane(OVERFLOW);
        if count != u16::MAX {
            self.set_lane(OVERFLOW, count.saturating_sub(1));
        }
    }
}

/// The highest bit of each 16-bit lane that is zero. Above a lane that is zero, one that holds 1 may be taken for zero by
/// the borrow; the lowest is always right.
#[inline(always)]
const fn zero_lanes(x: u64) -> u64 {
    x.wrapping_sub(ONES) & !x & (ONES << 15)
}

/// Lanes, as a set of bits: lane 4w + l is bit 16l + w, so that a lane comes behind the lower ones of its word.
pub(super) struct Matches(u64);

impl Iterator for Matches {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some((bit & 15) * 4 + (bit >> 4))
    }
}

#[derive(Clone, Copy)]
struct Entry {
    signature: u16,
    slot: u32,
    away: bool,
}

/// The home bucket of a hash, of this many.
#[inline(always)]
pub(super) const fn home(hash: u64, buckets: u32) -> u32 {
    scale((hash >> 32) as u32, buckets)
}

/// Where a hash belongs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) home: u32,
    pub(super) signature: u16,
}

/// A bucket of the search for room, and how it was reached: by moving entry `lane` of the bucket at `parent`.
#[derive(Clone, Copy, Default)]
struct Step {
    bucket: u32,
    parent: u16,
    lane: u8,
}

pub(super) struct Index {
    buckets: Array<Bucket>,
    count: u32,
}

impl Index {
    /// With room for this many entries at a load of 80 %.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        // The constant keeps small tables, in which two buckets often coincide, far from their limit.
        let count = entries / 8 + 16;
        Ok(Self { buckets: Array::new(count as usize)?, count })
    }

    pub(super) fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    #[inline(always)]
    pub(super) fn buckets(&self) -> &[Bucket] {
        self.buckets.as_slice()
    }

    #[inline(always)]
    pub(super) fn place(&self, hash: u64) -> Place {
        let signature = hash as u16;
        Place { home: home(hash, self.count), signature: if signature == 0 { 1 } else { signature } }
    }

    /// The other bucket of an entry that sits in `bucket`; the other of the other is the first. Rarely the same.
    #[inline(always)]
    pub(super) fn other(&self, bucket: u32, signature: u16) -> u32 {
        let sum = scale(u32::from(signature).wrapping_mul(0x9e37_79b1), self.count);
        if sum >= bucket { sum - bucket } else { sum + (self.count - bucket) }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.place(hash).home) {
            prefetch::read(bucket);
        }
    }

    /// The first slot under this hash that `accept` takes.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let Place { home, signature } = self.place(hash);
        let buckets = self.buckets();
        let bucket = buckets.get(home as usize)?;
        let mut found = bucket.matches(signature).filter_map(|lane| bucket.slot(lane)).find(|slot| accept(*slot));
        if found.is_none() && bucket.overflowed() {
            let bucket = buckets.get(self.other(home, signature) as usize)?;
            found = bucket.matches(signature).filter_map(|lane| bucket.slot(lane)).find(|slot| accept(*slot));
        }
        found
    }

    /// Adds an entry. `false`: no room was found, nothing changed.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) -> bool {
        let Place { home, signature } = self.place(hash);
        let other = self.other(home, signature);
        let room = |index: &Self, at: u32| index.buckets.get(at).is_some_and(|bucket| bucket.room().is_some());
        let at = if room(self, home) {
            home
        } else if room(self, other) {
            other
        } else {
            match self.make_room(home, other) {
                Some(at) => at,
                None => return false,
            }
        };
        let away = at != home;
        let Some(bucket) = self.buckets.get_mut(at) else { return false };
        let Some(lane) = bucket.room() else { return false };
        bucket.put(lane, Entry { signature, slot, away });
        if away && let Some(bucket) = self.buckets.get_mut(home) {
            bucket.count_left();
        }
        true
    }

    /// Removes the entry of this slot. `false`: there is none.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let Place { home, signature } = self.place(hash);
        for at in [home, self.other(home, signature)] {
            let Some(bucket) = self.buckets.get_mut(at) else { return false };
            let is_it = |lane: &u32| bucket.slot(*lane) == Some(slot) && bucket.lane(*lane) == signature;
            let Some(lane) = bucket.matches(signature).find(is_it) else { continue };
            if bucket.take(lane).away
                && let Some(bucket) = self.buckets.get_mut(home)
            {
                bucket.count_back();
            }
            return true;
        }
        false
    }

    /// Moves entries along the shortest chain that ends in a bucket with room, and says in which of the two buckets there
    /// is room now. Breadth first: a bucket that is reached twice adds nothing the second time, so that no chain visits a
    /// bucket twice and every step can be taken from the far end without disturbing the ones before it.
    fn make_room(&mut self, home: u32, other: u32) -> Option<u32> {
        let mut steps = [Step::default(); SEARCH];
        let (mut next, mut end) = (0, 2);
        steps[0].bucket = home;
        steps[1].bucket = other;
        while next < end {
            let step = *steps.get(next)?;
            for lane in 0..LANES {
                let bucket = self.buckets.get(step.bucket)?;
                let target = self.other(step.bucket, bucket.lane(lane));
                if self.buckets.get(target)?.room().is_some() {
                    return self.shift(&steps, next, lane, target);
                }
                if let Some(slot) = steps.get_mut(end) {
                    *slot = Step { bucket: target, parent: next as u16, lane: lane as u8 };
                    end += 1;
                }
            }
            next += 1;
        }
        None
    }

    /// Takes the steps of a chain from its end: entry `lane` of the bucket of step `at` goes to `target`, and so on.
    fn shift(&mut self, steps: &[Step; SEARCH], mut at: usize, mut lane: u32, mut target: u32) -> Option<u32> {
        loop {
            let step = steps.get(at)?;
            self.move_entry(step.bucket, lane, target)?;
            if at < 2 {
                return Some(step.bucket);
            }
            (at, lane, target) = (usize::from(step.parent), u32::from(step.lane), step.bucket);
        }
    }

    fn move_entry(&mut self, from: u32, lane: u32, to: u32) -> Option<()> {
        let free = self.buckets.get(to)?.room()?;
        let bucket = self.buckets.get_mut(from)?;
        let mut entry = bucket.take(lane);
        entry.away = !entry.away;
        if entry.away {
            bucket.count_left();
        }
        let bucket = self.buckets.get_mut(to)?;
        if !entry.away {
            bucket.count_back();
        }
        bucket.put(free, entry);
        Some(())
    }
}

/// Maps 32 random bits to 0..count.
#[inline(always)]
const fn scale(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Bucket;

    proptest! {
        /// Lanes that hold the wanted signature, or one that differs in the lowest bit alone, in every combination.
        #[test]
        fn the_first_match_is_right_and_none_is_missed(near in 0..1024u32, same in 0..1024u32, others: [u16; 12], wanted: u16) {
            let signatures: [u16; 10] = std::array::from_fn(|i| match (same >> i & 1, near >> i & 1) {
                (1, _) => wanted,
                (_, 1) => wanted ^ 1,
                _ => others[i],
            });
            let mut bucket = Bucket { lanes: [0; 3], slots: [0; 10] };
            for (lane, value) in (0..).zip(signatures.into_iter().chain([wanted, wanted])) {
                bucket.set_lane(lane, value);
            }
            let found: Vec<u32> = bucket.matches(wanted).collect();
            let right: Vec<u32> = (0..10).filter(|lane| signatures[*lane as usize] == wanted).collect();
            prop_assert!(right.iter().all(|lane| found.contains(lane)));
            prop_assert!(found.first().is_none_or(|lane| right.contains(lane)));
            prop_assert!(found.iter().all(|lane| *lane < 10));
        }
    }
}
