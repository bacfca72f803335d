//! Programs of one worker, each kept once however many flows run it.
//!
//! Flows of one site share a handful of programs, so the hot path finds the plan in the first-level cache. When something that a
//! program depends on changes, it is stale from then on: all its flows find that beside the plan, and no flow of another program is
//! looked at.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{Hash, Hasher},
    sync::Arc,
};

use offload_rules::{
    AclId, VrfId,
    flow::{Dependency, Program},
    forwarding::{Changes, Snapshot},
};

use super::{
    counters::{Counters, Traffic},
    lane::{LaneExit, LanePlan},
    readers::Readers,
};
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
    /// Tells programs apart that have had the same number.
    serial: u32,
    currency: Currency,
    /// Entries on offloading whose flows have, or had, rules asked for by it.
    asked: Vec<u32>,
}

/// Whether a program is what its flows should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Currency {
    /// As far as it does not depend on a flow's own addresses.
    Current,
    /// Something that it depends on has changed: each of its flows is to be derived anew. No flow gets it any more.
    Stale,
}

impl Entry {
    /// Has nothing changed that all its flows depend on?
    #[inline]
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.currency == Currency::Current
    }

    /// Tells it apart from programs that have had its number before.
    #[inline]
    #[must_use]
    pub(super) const fn serial(&self) -> u32 {
        self.serial
    }

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

/// Entries of [`Entry::asked`] that are kept without a look at whether they are still of use.
const KEPT: usize = 64;

/// All programs of one worker.
#[derive(Debug, Default)]
pub struct Programs {
    entries: Vec<Option<Entry>>,
    /// By number, from 0: as the lane runs those that are current; [`LanePlan::NONE`] of all others.
    lane: Vec<LanePlan>,
    free: Vec<ProgramId>,
    next_serial: u32,
    /// Those that are current.
    by_hash: HashMap<u64, Vec<ProgramId>>,
    readers: Readers,
    /// Of those that have become stale.
    asked: Vec<Vec<u32>>,
    /// VRF in which flows have looked up one of their ends, and another VRF that is in the key of one of their directions. Never
    /// forgotten: there are few, and one too many costs a look.
    elsewhere: BTreeSet<(VrfId, VrfId)>,
    /// Access list, and a VRF that is in the key of a direction of a flow that it has judged. Forgotten when the list has changed and no
    /// program depends on it.
    judged_in: BTreeSet<(AclId, VrfId)>,
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
        let program = Arc::new(program);
        let entry = Entry {
            program: Arc::clone(&program),
            vrf,
            plan,
            packets: 0,
            walked: 0,
            bytes: 0,
            partial: Traffic::default(),
            routed: Traffic::default(),
            flows: 1,
            serial: self.next_serial,
            currency: Currency::Current,
            asked: Vec::new(),
        };
        self.next_serial = self.next_serial.wrapping_add(1);
        let lane = LanePlan::of(&entry.plan);
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
        self.set_lane(id, lane);
        self.readers.add(id, &program.dependencies);
        id
    }

    /// One flow more runs it, if it is the program that had this serial number, and current.
    #[inline]
    pub(super) fn share(&mut self, id: ProgramId, serial: u32) -> bool {
        let Some(entry) = self.get_mut(id).filter(|entry| entry.serial == serial && entry.is_current()) else {
            return false;
        };
        entry.flows += 1;
        true
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
        self.set_lane(id, LanePlan::NONE);
        if entry.is_current() {
            self.leave_index(id, &entry.program);
        }
        Some(entry)
    }

    /// No flow finds it any more, and no change.
    fn leave_index(&mut self, id: ProgramId, program: &Program) {
        self.readers.remove(id, &program.dependencies);
        let hash = hash(program);
        if let Some(ids) = self.by_hash.get_mut(&hash) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
    }

    /// Makes those stale that changes concern, whatever the addresses of their flows are. `snapshot` is the one after them.
    pub fn follow(&mut self, changes: &Changes, snapshot: &Snapshot) {
        for id in self.readers.concerned(changes, snapshot) {
            self.make_stale(id);
        }
    }

    /// Makes those stale that have read the route to a flow's own end in this VRF.
    pub fn follow_ends(&mut self, vrf: VrfId) {
        self.follow_object(Dependency::Destination(vrf));
        self.follow_object(Dependency::Source(vrf));
    }

    /// Makes those stale that depend on this.
    pub(super) fn follow_object(&mut self, what: Dependency) {
        let concerned: Vec<ProgramId> = self.readers.of(what).collect();
        concerned.into_iter().for_each(|id| self.make_stale(id));
    }

    /// A list has changed: the VRFs in the keys of flows that it has judged.
    pub(super) fn judged_by(&mut self, list: AclId) -> Vec<VrfId> {
        let of_list = (list, VrfId::default())..;
        let vrfs = self.judged_in.range(of_list).take_while(|(of, _)| *of == list).map(|(_, vrf)| *vrf).collect();
        if self.readers.of(Dependency::Acl(list)).next().is_some() {
            return vrfs;
        }
        vrfs.into_iter().for_each(|vrf| _ = self.judged_in.remove(&(list, vrf)));
        Vec::new()
    }

    fn make_stale(&mut self, id: ProgramId) {
        let Some(entry) = self.get_mut(id).filter(|entry| entry.is_current()) else { return };
        entry.currency = Currency::Stale;
        let asked = std::mem::take(&mut entry.asked);
        self.set_lane(id, LanePlan::NONE);
        if !asked.is_empty() {
            self.asked.push(asked);
        }
        let Some(entry) = self.get(id) else { return };
        let program = Arc::clone(&entry.program);
        self.leave_index(id, &program);
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

    /// Is everything that the program depends on as it was when it was derived, but for the routes to a flow's own ends? Those are
    /// told flow by flow.
    #[must_use]
    pub fn is_current(&self, id: ProgramId) -> bool {
        self.get(id).is_some_and(Entry::is_current)
    }

    /// Rules were asked for by a program, for a flow with this entry on offloading. `stays` tells which of the others still are.
    pub(super) fn asked_by(&mut self, id: ProgramId, index: u32, stays: impl Fn(u32, &Arc<Program>) -> bool) {
        let Some(entry) = self.get_mut(id) else { return };
        if entry.asked.len() == entry.asked.capacity() && entry.asked.len() >= KEPT {
            let program = Arc::clone(&entry.program);
            entry.asked.retain(|other| stays(*other, &program));
        }
        entry.asked.push(index);
        if !entry.is_current() {
            self.asked.push(vec![index]);
        }
    }

    /// Entries on offloading of flows whose programs have become stale since the last time.
    pub(super) fn take_asked(&mut self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.asked)
    }

    /// A flow with keys in these VRFs runs a program.
    pub fn used_by(&mut self, id: ProgramId, keys: [VrfId; 2]) {
        let Some(Some(entry)) = self.entries.get((id as usize).wrapping_sub(1)) else { return };
        for read in &entry.program.dependencies {
            match *read {
                Dependency::Destination(vrf) | Dependency::Source(vrf) => {
                    self.elsewhere.extend(keys.into_iter().filter(|key| *key != vrf).map(|key| (vrf, key)));
                }
                Dependency::Acl(list) => self.judged_in.extend(keys.map(|key| (list, key))),
                _ => {}
            }
        }
    }

    /// The VRFs in the keys of flows that have looked up one of their ends in this VRF.
    pub fn key_vrfs_of(&self, vrf: VrfId) -> impl Iterator<Item = VrfId> {
        let elsewhere = self.elsewhere.range((vrf, VrfId::default())..).take_while(move |(read, _)| *read == vrf);
        std::iter::once(vrf).chain(elsewhere.map(|(_, key)| *key))
    }

    /// Does the program depend on this?
    #[must_use]
    pub fn depends_on(&self, id: ProgramId, what: Dependency) -> bool {
        self.get(id).is_some_and(|entry| entry.program.dependencies.contains(&what))
    }

    fn set_lane(&mut self, id: ProgramId, plan: LanePlan) {
        if self.lane.len() <= id as usize {
            self.lane.resize(id as usize + 1, LanePlan::NONE);
        }
        if let Some(lane) = self.lane.get_mut(id as usize) {
            *lane = plan;
        }
    }

    /// Plans of the lane by number, and the entries to count on, from number 1.
    #[inline]
    pub(super) fn lane(&mut self) -> (&[LanePlan], &mut [Option<Entry>]) {
        (&self.lane, &mut self.entries)
    }

    /// Where packets go that have run a program in the lane.
    #[inline]
    pub(super) fn lane_exit(&self, id: ProgramId) -> LaneExit {
        self.lane.get(id as usize).map_or(LaneExit::Seal, |plan| plan.exit())
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
        flow::{Decided, Dependency, Egress, Forward, Operations, Oversize, SizeLimit},
    };

    use super::*;

    fn program(mss: u16, mtu: u16, read: u16) -> Program {
        let vif = VifId::new(1).unwrap();
        let forward = Forward {
            mss: Some(mss),
            size: Some(SizeLimit { mtu, larger: Oversize::Fragment }),
            ..Forward::unchanged(Egress::Output(vif))
        };
        Program {
            ops: Operations::Forward(forward),
            dependencies: vec![Dependency::Vif(VifId::new(u32::from(read) + 1).unwrap())],
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
            hashes.extend([program(n, 0, 0), program(0, n + 1, 0), program(0, 0, n + 1)].map(|p| hash(&p)));
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
