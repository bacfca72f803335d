//! The decisions of the last packets by their whole addresses: traffic between the same hosts needs no longest match.
//!
//! An entry holds for the version of the snapshot and the epoch of the decisions that it was found in; a change of either, and all are
//! looked up again. Two places for each hash, the newer one first. It speeds up, and decides nothing: what is not found here is looked
//! up.

use super::key::Key;
use crate::worker::{ProgramId, TO_BE_DERIVED};

/// Sets of two: 256 KiB in all.
const SETS: usize = 2048;

/// What a decision depends on that takes no more of a packet than its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// The first two words of [`Key::departure`]: ingress, VRF, family, where it begins, whether it is TCP.
    place: [u64; 2],
    source: [u8; 16],
    destination: [u8; 16],
}

impl Question {
    #[inline]
    pub(super) const fn new(departure: &Key, source: [u8; 16], destination: [u8; 16]) -> Self {
        let Key([place, begin, _]) = *departure;
        Self { place: [place, begin], source, destination }
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
pub(super) struct Recent {
    sets: Box<[[Entry; 2]]>,
    seed: u64,
}

impl Recent {
    pub(super) fn new(seed: u64) -> Self {
        let question = Question { place: [0; 2], source: [0; 16], destination: [0; 16] };
        let vacant = Entry { question, stamp: (0, 0), program: TO_BE_DERIVED };
        Self { sets: vec![[vacant; 2]; SETS].into_boxed_slice(), seed: seed | 1 }
    }

    #[inline]
    fn set(&self, question: &Question) -> usize {
        let half = |octets: &[u8; 16]| {
            let both = u128::from_le_bytes(*octets);
            both as u64 ^ (both >> 64) as u64
        };
        let [place, begin] = question.place;
        let mixed =
            half(&question.source).rotate_left(32) ^ half(&question.destination) ^ place.rotate_left(17) ^ begin;
        let product = u128::from(mixed ^ self.seed) * u128::from(self.seed.rotate_left(23) | 1);
        ((product >> 64) as u64 ^ product as u64) as usize % SETS
    }

    /// The decision for this, found in the same version and epoch.
    #[inline]
    pub(super) fn find(&self, question: &Question, stamp: (u32, u32)) -> Option<ProgramId> {
        let [first, second] = self.sets.get(self.set(question))?;
        let holds = |entry: &Entry| entry.stamp == stamp && entry.question == *question;
        if holds(first) && first.program != TO_BE_DERIVED {
            return Some(first.program);
        }
        (holds(second) && second.program != TO_BE_DERIVED).then_some(second.program)
    }

    /// Keeps a decision that was looked up.
    #[inline]
    pub(super) fn keep(&mut self, question: Question, stamp: (u32, u32), program: ProgramId) {
        let set = self.set(&question);
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
        Question::new(&Key([2, 3, 4]), [n; 16], [7; 16])
    }

    #[test]
    fn a_decision_is_found_by_the_whole_question_in_its_version() {
        let mut recent = Recent::new(5);
        assert_eq!(recent.find(&question(1), (0, 0)), None);
        recent.keep(question(1), (4, 9), 12);
        assert_eq!(recent.find(&question(1), (4, 9)), Some(12));
        assert_eq!(recent.find(&question(1), (5, 9)), None);
        assert_eq!(recent.find(&question(1), (4, 8)), None);
        assert_eq!(recent.find(&Question::new(&Key([2, 4, 4]), [1; 16], [7; 16]), (4, 9)), None);
        assert_eq!(recent.find(&Question::new(&Key([2, 3, 4]), [1; 16], [8; 16]), (4, 9)), None);
        // Of three in one set, the two newest are there.
        let same = |n: u8| recent.set(&question(n)) == recent.set(&question(1));
        let others: Vec<u8> = (2..=255).filter(|n| same(*n)).collect();
        for (n, program) in others.iter().zip(20..) {
            recent.keep(question(*n), (4, 9), program);
        }
        assert_eq!(recent.find(&question(1), (4, 9)), (others.len() < 2).then_some(12));
    }
}
