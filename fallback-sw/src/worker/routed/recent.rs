//! The decisions of the last packets by their whole addresses: traffic between the same hosts needs no longest match.
//!
//! An entry holds for the version of the snapshot and the epoch of the decisions that it was found in; a change of either, and all are
//! looked up again. Two places for each hash, the newer one first. It speeds up, and decides nothing: what is not found here is looked
//! up.

use crate::{
    flow_table::halves,
    prefetch,
    worker::{ProgramId, TO_BE_DERIVED},
};

/// Sets of two: 256 KiB in all.
const SETS: usize = 2048;

/// What a decision depends on that takes no more of a packet than its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) struct Question {
    /// [`Departure::words`](super::Departure::words): ingress, VRF, family, where it begins, whether it is TCP.
    pub(in crate::worker) place: [u64; 2],
    /// Halves of the address.
    pub(in crate::worker) source: [u64; 2],
    pub(in crate::worker) destination: [u64; 2],
}

impl Question {
    #[inline]
    pub(super) const fn new(place: [u64; 2], source: &[u8; 16], destination: &[u8; 16]) -> Self {
        Self { place, source: halves(source), destination: halves(destination) }
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    question: Question,
    /// Version of the snapshot, epoch of the decisions.
    stamp: (u32, u32),
    program: ProgramId,
}

/// See the module.
pub(in crate::worker) struct Recent {
    sets: Box<[[Entry; 2]]>,
    seed: u64,
}

impl Recent {
    pub(super) fn new(seed: u64) -> Self {
        let question = Question { place: [0; 2], source: [0; 2], destination: [0; 2] };
        let vacant = Entry { question, stamp: (0, 0), program: TO_BE_DERIVED };
        Self { sets: vec![[vacant; 2]; SETS].into_boxed_slice(), seed: seed | 1 }
    }

    /// Names the set that a question belongs to.
    #[inline(always)]
    pub(in crate::worker) fn hash(&self, [place, begin]: [u64; 2], [a, b]: [u64; 2], [c, d]: [u64; 2]) -> u64 {
        let mixed = (a ^ b).rotate_left(32) ^ c ^ d ^ place.rotate_left(17) ^ begin;
        let product = u128::from(mixed ^ self.seed) * u128::from(self.seed.rotate_left(23) | 1);
        (product >> 64) as u64 ^ product as u64
    }

    #[inline]
    fn hash_of(&self, question: &Question) -> u64 {
        self.hash(question.place, question.source, question.destination)
    }

    /// Asks for the set of this hash.
    #[inline(always)]
    pub(in crate::worker) fn prefetch(&self, hash: u64) {
        if let Some([first, second]) = self.sets.get(hash as usize % SETS) {
            prefetch::read(first);
            prefetch::read(second);
        }
    }

    /// The decision for this, found in the same version and epoch.
    #[inline]
    pub(super) fn find(&self, question: &Question, stamp: (u32, u32)) -> Option<ProgramId> {
        self.find_hashed(self.hash_of(question), question, stamp)
    }

    /// The same, when the hash is known.
    #[inline(always)]
    pub(in crate::worker) fn find_hashed(
        &self,
        hash: u64,
        question: &Question,
        stamp: (u32, u32),
    ) -> Option<ProgramId> {
        let [first, second] = self.sets.get(hash as usize % SETS)?;
        let holds = |entry: &Entry| entry.stamp == stamp && entry.question == *question;
        if holds(first) && first.program != TO_BE_DERIVED {
            return Some(first.program);
        }
        (holds(second) && second.program != TO_BE_DERIVED).then_some(second.program)
    }

    /// Keeps a decision that was looked up.
    #[inline]
    pub(super) fn keep(&mut self, question: Question, stamp: (u32, u32), program: ProgramId) {
        let set = self.hash_of(&question) as usize % SETS;
        if let Some([first, second]) = self.sets.get_mut(set) {
            *second = *first;
            *first = Entry { question, stamp, program };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(n: u8) -> Question {
        Question::new([2, 3], &[n; 16], &[7; 16])
    }

    #[test]
    fn a_decision_is_found_by_the_whole_question_in_its_version() {
        let mut recent = Recent::new(5);
        assert_eq!(recent.find(&question(1), (0, 0)), None);
        recent.keep(question(1), (4, 9), 12);
        assert_eq!(recent.find(&question(1), (4, 9)), Some(12));
        assert_eq!(recent.find(&question(1), (5, 9)), None);
        assert_eq!(recent.find(&question(1), (4, 8)), None);
        assert_eq!(recent.find(&Question::new([2, 4], &[1; 16], &[7; 16]), (4, 9)), None);
        assert_eq!(recent.find(&Question::new([2, 3], &[1; 16], &[8; 16]), (4, 9)), None);
        // Of three in one set, the two newest are there.
        let same = |n: u8| recent.hash_of(&question(n)) as usize % SETS == recent.hash_of(&question(1)) as usize % SETS;
        let others: Vec<u8> = (2..=255).filter(|n| same(*n)).collect();
        for (n, program) in others.iter().zip(20..) {
            recent.keep(question(*n), (4, 9), program);
        }
        assert_eq!(recent.find(&question(1), (4, 9)), (others.len() < 2).then_some(12));
    }
}
