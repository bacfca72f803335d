//! Packets without flows that go where the last ones went: by what the walk read of them, without a walk for each.
//!
//! A packet that no policy asks to look up (transit of a regional edge, vifs and tunnels without flag P) is decided on by a walk once;
//! what the walk [read of the packet](offload_rules::classify::Trace) becomes the key of the decision. Later packets have their
//! addresses looked up in the routes of the snapshot in force, and take the decision that is kept under the answers: a scan over
//! any number of destinations meets few decisions. Whatever is not ordinary (fragments, ICMP errors, addresses of the node or of one
//! link, too large, TTL at its end) and whatever lists or listeners decide is walked, as is the first packet.

mod addresses;
mod cache;
mod key;

use std::sync::Arc;

use offload_rules::{
    classify::{self, Inquiry, PacketRead, Side, Start, Trace, Verdict},
    flow::{FlowKey, Program},
    forwarding::Snapshot,
};

use super::{
    ProgramId, Worker,
    admit::SlowPath,
    batch::{BATCH, Disposition, framing},
    counters::Traffic,
    ingress::{Context, Path},
};
use crate::{
    exec::{self, Operands},
    packet::{Packet, parse::FragmentInfo, rewrite},
};
use addresses::NodeAddresses;
use cache::{Cache, NewNode, Next};
use key::{Key, Matches};

/// Nodes that a decision lies below, at most; what reads more of a packet is walked.
const DEPTH: usize = 8;
/// Nodes looked at in one tick.
const STEP: usize = 256;

/// A decision that has been found for a packet of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    program: ProgramId,
    /// Of the cache, when it was found.
    epoch: u32,
}

impl Found {
    /// None was found.
    pub(super) const NONE: Self = Self { program: super::TO_BE_DERIVED, epoch: 0 };

    /// Was one found?
    #[inline]
    pub(super) const fn is_some(self) -> bool {
        self.program != super::TO_BE_DERIVED
    }
}

/// The first keys of a packet's decision, with their hashes.
#[derive(Debug, Clone, Copy)]
struct Asked {
    arrival: (u64, Key),
    departure: (u64, Key),
}

/// Whether decisions that packets share are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They are.
    Kept,
    /// Each packet is walked.
    Walked,
}

/// The decisions that one worker has for packets without flows.
pub(super) struct Routed {
    cache: Cache,
    addresses: NodeAddresses,
    mode: Mode,
}

impl Routed {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self { cache: Cache::default(), addresses: NodeAddresses::of(snapshot), mode: Mode::Kept }
    }

    /// The node's own addresses may be others.
    pub(super) fn read_addresses(&mut self, snapshot: &Snapshot) {
        self.addresses = NodeAddresses::of(snapshot);
    }

    /// May a packet with this key, if it is the first of a flow, go by a decision that others share?
    #[inline]
    pub(super) fn shares(&self, key: &FlowKey) -> bool {
        self.mode == Mode::Kept && !classify::is_of_link(key) && !self.addresses.touch(key)
    }

    /// May this packet go by a decision that others share? Then where its walk begins.
    #[inline]
    fn start(&self, context: &Context) -> Option<Start> {
        let Path::Walk(start) = context.path else { return None };
        let ip = &context.ip;
        let ordinary = ip.fragment == FragmentInfo::None && !ip.is_icmp_error;
        (ordinary && self.shares(&context.key)).then_some(start)
    }
}

impl Worker {
    /// From now on each packet without a flow, and for each flow, is walked: what decisions that are kept are compared with.
    pub fn walk_each_packet(&mut self) {
        self.routed.mode = Mode::Walked;
    }

    /// Decisions kept for packets without flows, with all that leads to them.
    #[must_use]
    pub const fn routed_len(&self) -> usize {
        self.routed.cache.len()
    }

    /// Second stage of a batch, for packets without flows: routes of all of them, then decisions.
    #[inline(never)]
    pub(super) fn find_decisions(&mut self, contexts: &[Context], decisions: &mut [Found]) {
        let mut asked = [None; BATCH];
        for (context, asked) in contexts.iter().zip(&mut asked) {
            *asked = self.look_up_addresses(context);
        }
        for ((context, asked), decision) in contexts.iter().zip(&asked).zip(decisions) {
            *decision = asked.as_ref().map_or(Found::NONE, |asked| self.take_decision(asked, context));
        }
    }

    /// The decision for a packet without a flow, when one is kept that holds for it.
    fn find_decision(&mut self, context: &Context) -> Found {
        self.look_up_addresses(context).map_or(Found::NONE, |asked| self.take_decision(&asked, context))
    }

    /// Looks up the addresses of a packet without a flow.
    #[inline]
    fn look_up_addresses(&self, context: &Context) -> Option<Asked> {
        let start = self.routed.start(context)?;
        let matches = Matches::of(&self.snapshot, &context.key, start);
        let (arrival, departure) = (Key::arrival(context, matches), Key::departure(context, start, matches));
        let cache = &self.routed.cache;
        let (arrival, departure) = ((cache.hash(&arrival), arrival), (cache.hash(&departure), departure));
        cache.prefetch(arrival.0);
        cache.prefetch(departure.0);
        Some(Asked { arrival, departure })
    }

    #[inline]
    fn take_decision(&mut self, asked: &Asked, context: &Context) -> Found {
        if self.descend(asked.arrival, context).is_none() {
            return Found::NONE;
        }
        match self.descend(asked.departure, context) {
            Some(program) => Found { program, epoch: self.routed.cache.epoch },
            None => Found::NONE,
        }
    }

    /// The program at the end of a way through a tree.
    #[inline]
    fn descend(&mut self, (mut hash, mut key): (u64, Key), context: &Context) -> Option<ProgramId> {
        let Self { routed: Routed { cache, .. }, programs, snapshot, version, .. } = self;
        for _ in 0..=DEPTH {
            let place = cache.find(hash, &key)?;
            if !cache.is_current(place, *version, snapshot, programs) {
                if let Some(program) = cache.remove(place) {
                    self.release_program(program);
                }
                return None;
            }
            let node = cache.node(place)?;
            match &node.next {
                Next::End => return Some(node.program),
                Next::Read(read) => {
                    key = Key::below(node.number, key::value(read, snapshot, &context.key));
                    hash = cache.hash(&key);
                }
            }
        }
        None
    }

    /// Carries out a decision that was found.
    ///
    /// # Errors
    /// Why the packet, which is as it was, has to be walked.
    #[inline]
    pub(super) fn route(
        &mut self,
        found: Found,
        context: &mut Context,
        packet: &mut Packet,
    ) -> Result<Disposition, SlowPath> {
        let found = if found.epoch == self.routed.cache.epoch { found } else { self.find_decision(context) };
        let Some(entry) = self.programs.get_mut(found.program) else { return Err(SlowPath::StaleProgram) };
        let plan = &entry.plan;
        exec::admit(plan, &context.ip, packet.is_reassembled())?;
        let disposition = Disposition::of(plan.target, found.program)?;
        entry.packets += 1;
        entry.routed.add(Traffic { packets: 1, bytes: packet.len() as u64 });
        self.counters.account.routed += 1;
        let mut operands = Operands::default();
        if plan.is_tunnel() {
            // Of no flow: each outer header has an identification of its own.
            operands.outer_id = self.ip_id;
            self.ip_id = self.ip_id.wrapping_add(1);
            let entropy = || rewrite::entropy_port(context.key.spread() as u32);
            operands.tunnel_sport = self.config.entropy.unwrap_or_else(entropy);
        }
        let framing = framing(context);
        Ok(match exec::execute(plan, packet, &mut context.ip, &framing, &operands) {
            Ok(()) => disposition,
            Err(reason) => Disposition::Drop(reason),
        })
    }

    /// Walks for a packet without a flow, and keeps the decision for those that the walk would treat alike.
    pub(super) fn walk_and_keep(&mut self, context: &Context, inquiry: &Inquiry<'_>) -> Verdict {
        if self.routed.start(context) != Some(inquiry.start) {
            return classify::classify(&self.snapshot, inquiry);
        }
        let traced = classify::classify_traced(&self.snapshot, inquiry);
        if let (Verdict::Forward(decision), Some(trace)) = (&traced.verdict, traced.trace) {
            self.keep(context, inquiry.start, &decision.program, trace);
        }
        traced.verdict
    }

    fn keep(&mut self, context: &Context, start: Start, program: &Program, trace: Trace) {
        let Trace { arrival, departure, fixed } = trace;
        if arrival.len().max(departure.len()) > DEPTH {
            return;
        }
        let matches = Matches::of(&self.snapshot, &context.key, start);
        let further = |reads: Vec<PacketRead>, of| {
            reads.into_iter().filter(move |read| !key::is_first(read, &context.key, start, of))
        };
        let first = Key::arrival(context, matches);
        self.keep_tree(context, first, further(arrival, Side::Source), program, &fixed);
        let first = Key::departure(context, start, matches);
        self.keep_tree(context, first, further(departure, Side::Destination), program, &fixed);
    }

    fn keep_tree(
        &mut self,
        context: &Context,
        first: Key,
        reads: impl Iterator<Item = PacketRead>,
        program: &Program,
        fixed: &[classify::FixedRoute],
    ) {
        let snapshot = Arc::clone(&self.snapshot);
        let (mut key, mut lost) = (first, Vec::new());
        for next in reads.map(Next::Read).chain(std::iter::once(Next::End)) {
            let value = match &next {
                Next::Read(read) => Some(key::value(read, &snapshot, &context.key)),
                Next::End => None,
            };
            let id = self.programs.intern(program.clone(), context.key.vrf, &snapshot);
            let new =
                NewNode { next, program: id, fixed: fixed.into(), tenant: context.tenant(), version: self.version };
            let number = self.routed.cache.insert(key, new, &mut lost);
            if let Some(value) = value {
                key = Key::below(number, value);
            }
        }
        self.release_all(lost);
    }

    /// Takes out some of the decisions that no longer hold.
    pub(super) fn sweep_routed(&mut self) {
        let Self { routed: Routed { cache, .. }, programs, snapshot, version, .. } = self;
        let mut lost = Vec::new();
        cache.sweep(STEP, *version, snapshot, programs, &mut lost);
        self.release_all(lost);
    }

    fn release_all(&mut self, programs: Vec<ProgramId>) {
        for program in programs {
            self.release_program(program);
        }
    }
}
