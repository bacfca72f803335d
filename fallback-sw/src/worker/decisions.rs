//! Decisions that flows share: what the walk for one flow has come to, kept for flows that it would treat alike.
//!
//! Most new flows of a site go the way of others. For each direction the longest matches of both addresses are looked up, as a walk would
//! begin; when a decision is kept under their answers and all that is not the packet's (where it came from, what is kept of its flow), and
//! what else its walk [read of the packet](FlowTrace) is the same, its program is the one that a walk would end in. What is kept holds for
//! the snapshot in force alone, so nothing here has to follow changes.

use offload_rules::{
    VifId, VrfId,
    classify::{self, Answers, Decision, FlowTrace, Ingress, Inquiry, Role, Start, Verdict},
    flow::{Choices, FlowKey, Program},
    forwarding::Snapshot,
};

use super::{ProgramId, env::Env, flow_state::FlowState};

/// Sets of the table; a power of two.
const SETS: usize = 256;
/// Decisions of a set.
const WAYS: usize = 4;
/// Decisions that are compared with one packet, each in the way that the one before it differed.
const STEPS: usize = 4;

/// A decision that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub(super) program: ProgramId,
    /// Of the program, which is another one when the number is used again.
    serial: u32,
    pub(super) choices: Choices,
    /// VRF and vif of the other direction's key.
    back: (VrfId, VifId),
    /// Where packets of the other direction come in, as far as the program tells.
    pub(super) egress: Option<Ingress>,
}

impl Shared {
    /// The key of the other direction.
    pub(super) fn reverse_key(&self, key: &FlowKey) -> FlowKey {
        key.reversed(self.back.0, self.back.1)
    }
}

/// What a decision is made by, but for what else is read of the packet: the inquiry without addresses, ports and hash, and what the routes
/// in the VRF of its key answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Premise([u64; 6]);

/// Where a decision that was not found is to be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vacancy {
    premise: Premise,
    tag: u64,
}

/// What a decision is kept by.
#[derive(Debug)]
pub(super) struct Basis {
    vacancy: Vacancy,
    trace: FlowTrace,
}

/// A decision for a flow that is to have it.
#[derive(Debug)]
pub(super) enum Made {
    /// It was kept. The program is counted for the flow already.
    Kept(Shared),
    /// By a walk; to be kept by its basis, if that can be told.
    Walked(Box<Decision>, Option<Basis>),
}

#[derive(Debug)]
struct Kept {
    premise: Premise,
    epoch: u32,
    trace: FlowTrace,
    shared: Shared,
}

/// The decisions of one worker.
#[derive(Default)]
pub(super) struct Decisions {
    /// Hash of the premise, and of how a packet differs from decisions that were compared before; empty before the first one is kept.
    tags: Vec<[u64; WAYS]>,
    kept: Vec<[Option<Kept>; WAYS]>,
    answers: Answers,
    /// Of the snapshot in force.
    epoch: u32,
    /// The way that is overwritten next.
    victim: usize,
    /// How often one was found.
    shared: u64,
}

impl Decisions {
    /// Another snapshot is in force.
    pub(super) fn forget(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.answers.forget();
    }

    /// How often one was found.
    pub(super) const fn shared(&self) -> u64 {
        self.shared
    }

    fn keep(&mut self, basis: Basis, shared: Shared) {
        let Basis { vacancy: Vacancy { premise, tag }, trace } = basis;
        if self.tags.is_empty() {
            self.tags.resize(SETS, [0; WAYS]);
            self.kept.resize_with(SETS, Default::default);
        }
        let set = tag as usize % SETS;
        let (Some(tags), Some(ways)) = (self.tags.get_mut(set), self.kept.get_mut(set)) else { return };
        let is_free = |way: &Option<Kept>| way.as_ref().is_none_or(|kept| kept.epoch != self.epoch);
        let same = tags.iter().position(|other| *other == tag);
        self.victim += 1;
        let way = same.or_else(|| ways.iter().position(is_free)).unwrap_or(self.victim % WAYS);
        if let (Some(other), Some(place)) = (tags.get_mut(way), ways.get_mut(way)) {
            *other = tag;
            *place = Some(Kept { premise, epoch: self.epoch, trace, shared });
        }
    }
}

impl Premise {
    /// `None`: the walk may ask for more of the packet than a trace tells, or it is not for a flow.
    fn of(inquiry: &Inquiry<'_>, other: VrfId, answers: [u64; 2]) -> Option<Self> {
        let Inquiry { key, service_port: _, ingress, start, role, prior, other_ingress, hash: _ } = *inquiry;
        let role = match role {
            Role::Initiator => 0,
            Role::Responder(_) => 1,
            Role::Own => return None,
        };
        if start != Start::Route {
            return None;
        }
        let tunnel = |ingress: Option<Ingress>| match ingress.and_then(|ingress| ingress.tunnel) {
            Some(outer) => 1 << 32 | u64::from(outer.to_bits()),
            None => 0,
        };
        let vif = |ingress: Option<Ingress>| ingress.map_or(0, |ingress| 1 << 16 | u64::from(ingress.vif.get()));
        let [one, two] = prior.ecmp.map(|slot| slot.map_or(0, |slot| 1 << 8 | u64::from(slot)));
        let place = u64::from(key.vrf.get()) | u64::from(key.vif.get()) << 16 | u64::from(ingress.vif.get()) << 32;
        let kind = u64::from(key.proto) | u64::from(key.version) << 8;
        let [source, destination] = answers;
        Some(Self([
            place | kind << 48,
            tunnel(Some(ingress)) | role << 33 | vif(other_ingress) << 34,
            tunnel(other_ingress) | one << 33 | two << 42,
            other.get().into(),
            source,
            destination,
        ]))
    }

    fn tag(&self, epoch: u32) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        fold(fold(a ^ u64::from(epoch) << 32, b) ^ fold(c, d), fold(e, f))
    }
}

impl FlowState {
    /// The decision that a walk for this inquiry would come to, when one is kept; its program is counted for one more flow.
    /// `other`: VRF in the key of the flow's other direction, where that is known before the walk.
    ///
    /// # Errors
    /// None is kept: where to keep that of the walk, if it can be.
    pub(super) fn recall(&mut self, env: &Env, inquiry: &Inquiry<'_>, other: VrfId) -> Result<Shared, Option<Vacancy>> {
        // A walk for one address that is both notes it as the destination alone.
        if !env.may_share(inquiry.key) || inquiry.key.src == inquiry.key.dst {
            return Err(None);
        }
        let Self { decisions: Decisions { tags, kept, answers, epoch, shared, .. }, programs, .. } = self;
        let snapshot = &env.snapshot;
        let found = answers.of_key(snapshot, inquiry.key);
        let premise = Premise::of(inquiry, other, found).ok_or(None)?;
        let mut tag = premise.tag(*epoch);
        for _ in 0..STEPS {
            let Some(kept) = find(tags, kept, tag).filter(|kept| (kept.epoch, kept.premise) == (*epoch, premise))
            else {
                break;
            };
            match kept.trace.compare(snapshot, inquiry, answers) {
                Ok(()) if programs.share(kept.shared.program, kept.shared.serial) => {
                    *shared += 1;
                    return Ok(kept.shared);
                }
                Ok(()) => break,
                Err(difference) => tag = fold(tag, difference),
            }
        }
        Err(Some(Vacancy { premise, tag }))
    }

    /// Keeps a decision whose program has this number now.
    pub(super) fn keep_decision(&mut self, basis: Basis, program: ProgramId, choices: Choices, reverse_key: &FlowKey) {
        let Some(entry) = self.programs.get(program) else { return };
        let (serial, egress) = (entry.serial(), expected_ingress(&entry.program));
        let shared = Shared { program, serial, choices, back: (reverse_key.vrf, reverse_key.vif), egress };
        self.decisions.keep(basis, shared);
    }
}

/// Walks for a flow. What is kept of the verdict is kept in the place that [`FlowState::recall`] has found vacant.
pub(super) fn walk_for_flow(
    snapshot: &Snapshot,
    inquiry: &Inquiry<'_>,
    vacancy: Option<Vacancy>,
) -> (Verdict, Option<Basis>) {
    let Some(vacancy) = vacancy else { return (classify::classify(snapshot, inquiry), None) };
    let (verdict, trace) = classify::classify_flow(snapshot, inquiry);
    (verdict, trace.map(|trace| Basis { vacancy, trace }))
}

/// Where the packets of the other direction come in, as far as this direction's program tells.
pub(super) fn expected_ingress(program: &Program) -> Option<Ingress> {
    let forward = program.forward()?;
    Some(Ingress { vif: forward.vif(), tunnel: forward.encap.as_ref().map(|header| header.dip) })
}

#[inline]
fn find<'a>(tags: &[[u64; WAYS]], kept: &'a [[Option<Kept>; WAYS]], tag: u64) -> Option<&'a Kept> {
    let set = tag as usize % SETS;
    let way = tags.get(set)?.iter().position(|other| *other == tag)?;
    kept.get(set)?.get(way)?.as_ref()
}

/// Both halves of the product, folded together.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a ^ 0x9e37_79b9_7f4a_7c15) as u128 * (b ^ 0xe703_7ed1_a0b4_28db) as u128;
    product as u64 ^ (product >> 64) as u64
}
