//! Programs of one worker, each kept once however many flows run it.
//!
//! Flows of one site share a handful of programs, so the hot path finds the plan in the first-level cache. A program also
//! remembers whether what it depends on is still as it was: one look serves all its flows.

use std::{collections::HashMap, sync::Arc};

use offload_rules::{
    VrfId,
    flow::{Op, Program},
    forwarding::Snapshot,
};

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
    /// Packets without a flow that ran it without a walk; not part of `bytes`.
    pub routed: Traffic,
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
            let hits = Traffic { packets: self.packets - self.walked - self.routed.packets, bytes: self.bytes };
            let tiers = counters.tier(self.vrf);
            if matches!(self.plan.target, Target::Punt { .. }) {
                tiers.punt.add(hits);
                return tiers.punt.add(self.routed);
            }
            tiers.partial.add(self.partial);
            tiers.software.add(hits.less(self.partial));
            tiers.routed.add(self.routed);
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
            routed: Traffic::default(),
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

/// What tells programs apart most often; equality is compared in full. Programs come from the forwarding state, so nobody outside
/// chooses what collides.
fn hash(program: &Program) -> u64 {
    let op_word = |op: &Op| match op {
        Op::EncapMplsOUdp(header) => u64::from(u32::from(header.dip)) << 32 | u64::from(header.label.get()),
        Op::Output(vif) | Op::Punt(vif) => u64::from(vif.get()),
        _ => 0,
    };
    let begin = u64::from(program.nexthop.get()) << 16 | u64::from(program.vrf.get());
    program.ops.iter().fold(begin, |hash, op| (hash.rotate_left(13) ^ op_word(op)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
