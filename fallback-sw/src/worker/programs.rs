//! Programs of one worker, each kept once however many flows run it.
//!
//! Flows of one site share a handful of programs, so the hot path finds the plan in the first-level cache. A program also
//! remembers whether what it depends on is still as it was: one look serves all its flows.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use offload_rules::{VrfId, flow::Program, forwarding::Snapshot};

use super::counters::{Counters, Traffic};
use crate::exec::{Plan, Target};

/// Number of a program; 0 is "to be derived".
pub type ProgramId = u32;

/// The flow has no program yet.
pub const TO_BE_DERIVED: ProgramId = 0;

/// A program in use.
#[derive(Debug)]
pub struct Entry {
    /// As decided; an offload engine may have it, too.
    pub program: Arc<Program>,
    /// As executed.
    pub plan: Plan,
    /// VRF that its packets come in.
    pub vrf: VrfId,
    /// Packets that ran it, for `vrfstats`.
    pub packets: u64,
    /// Of those, the ones that were walked, as the first of each flow is.
    pub walked: u64,
    /// Octets of all others.
    pub bytes: u64,
    /// Of those others, the ones whose flow the NIC has found.
    pub partial: Traffic,
    flows: u32,
    /// Snapshot version in which the dependencies were last compared.
    checked: u64,
    current: bool,
}

impl Entry {
    /// Adds its counts.
    pub fn count_into(&self, counters: &mut Counters) {
        for (vrf, what) in &self.program.passes {
            counters.pass(*vrf, *what, self.packets);
        }
        if self.packets > self.walked {
            let hits = Traffic { packets: self.packets - self.walked, bytes: self.bytes };
            let tiers = counters.tier(self.vrf);
            if matches!(self.plan.target, Target::Punt { .. }) {
                return tiers.punt.add(hits);
            }
            tiers.partial.add(self.partial);
            tiers.software.add(hits.less(self.partial));
        }
    }
}

/// All programs of one worker.
#[derive(Debug, Default)]
pub struct Programs {
    entries: Vec<Option<Entry>>,
    free: Vec<ProgramId>,
    by_hash: HashMap<u64, Vec<ProgramId>>,
}

impl Programs {
    /// The number of a program, with one more flow that runs it, whose packets come in a VRF.
    pub fn intern(&mut self, program: Program, vrf: VrfId, snapshot: &Snapshot) -> ProgramId {
        let hash = hash(&program);
        let ids = self.by_hash.entry(hash).or_default();
        for id in ids.iter() {
            if let Some(Some(entry)) = self.entries.get_mut(*id as usize - 1)
                && entry.vrf == vrf
                && *entry.program == program
            {
                entry.flows += 1;
                return *id;
            }
        }
        let plan = Plan::new(&program, snapshot);
        let entry = Entry {
            program: Arc::new(program),
            vrf,
            plan,
            packets: 0,
            walked: 0,
            bytes: 0,
            partial: Traffic::default(),
            flows: 1,
            checked: snapshot.version(),
            current: true,
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.entries.get_mut(id as usize - 1) {
                    *slot = Some(entry);
                }
                id
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() as ProgramId
            }
        };
        ids.push(id);
        id
    }

    /// One flow less runs it. Gives it back when it was the last, for its counts.
    pub fn release(&mut self, id: ProgramId) -> Option<Entry> {
        let slot = self.entries.get_mut((id as usize).checked_sub(1)?)?;
        let entry = slot.as_mut()?;
        entry.flows -= 1;
        if entry.flows > 0 {
            return None;
        }
        let entry = slot.take()?;
        self.free.push(id);
        let hash = hash(&entry.program);
        if let Some(ids) = self.by_hash.get_mut(&hash) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
        Some(entry)
    }

    /// A program.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ProgramId) -> Option<&Entry> {
        self.entries.get((id as usize).wrapping_sub(1))?.as_ref()
    }

    /// A program, to count on.
    #[inline]
    pub fn get_mut(&mut self, id: ProgramId) -> Option<&mut Entry> {
        self.entries.get_mut((id as usize).wrapping_sub(1))?.as_mut()
    }

    /// Is everything that the program depends on as it was when it was derived?
    pub fn is_current(&mut self, id: ProgramId, snapshot: &Snapshot) -> bool {
        let Some(entry) = self.get_mut(id) else { return false };
        if entry.checked != snapshot.version() {
            entry.checked = snapshot.version();
            entry.current = entry.program.dependencies.iter().all(|d| snapshot.version_of(d.kind) == d.generation);
        }
        entry.current
    }

    /// Programs in use.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }
}

/// Hash of all that tells programs apart: what they do and what they depend on. Programs come from the forwarding state, so nobody
/// outside chooses what collides.
fn hash(program: &Program) -> u64 {
    let mut hasher = Fold(Fold::FACTOR);
    program.hash(&mut hasher);
    hasher.finish()
}

/// A hasher for what nobody outside chooses: a multiplication and a fold for each word.
struct Fold(u64);

impl Fold {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn word(&mut self, word: u64) {
        let product = u128::from(self.0.rotate_left(26) ^ word) * u128::from(Self::FACTOR);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.word(rest.iter().fold(0, |word, octet| word << 8 | u64::from(*octet)));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.word(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.word(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.word(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.word(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.word(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use offload_rules::{
        NexthopId, VifId,
        flow::{Decided, Dependency, DependencyKind, Egress, Forward, Operations, Oversize, SizeLimit},
    };

    use super::*;

    fn program(mss: u16, mtu: u16, generation: u64) -> Program {
        let vif = VifId::new(1).unwrap();
        let forward = Forward {
            mss: Some(mss),
            size: Some(SizeLimit { mtu, larger: Oversize::Fragment }),
            ..Forward::unchanged(Egress::Output(vif))
        };
        Program {
            ops: Operations::Forward(forward),
            dependencies: vec![Dependency { kind: DependencyKind::Vif(vif), generation }],
            nexthop: NexthopId::NONE,
            label: None,
            vrf: VrfId::new(1).unwrap(),
            passes: Vec::new(),
            decided: Decided::BY_NONE,
        }
    }

    #[test]
    fn programs_that_differ_in_anything_do_not_share_a_bucket() {
        let mut hashes = BTreeSet::new();
        for n in 0..1000 {
            hashes.extend([program(n, 0, 0), program(0, n + 1, 0), program(0, 0, u64::from(n) + 1)].map(|p| hash(&p)));
        }
        assert_eq!(hashes.len(), 3000);
        assert_eq!(hash(&program(1, 2, 3)), hash(&program(1, 2, 3)));
    }

    #[test]
    fn equal_programs_are_kept_once_until_the_last_flow_has_gone() {
        let (mut programs, snapshot) = (Programs::default(), Snapshot::empty());
        let vrf = VrfId::new(1).unwrap();
        let first = programs.intern(program(1, 2, 3), vrf, &snapshot);
        assert_eq!(programs.intern(program(1, 2, 3), vrf, &snapshot), first);
        assert_ne!(programs.intern(program(2, 2, 3), vrf, &snapshot), first);
        assert!(programs.release(first).is_none());
        assert!(programs.release(first).is_some());
        assert_eq!((programs.iter().count(), programs.by_hash.len()), (1, 1));
    }
}
