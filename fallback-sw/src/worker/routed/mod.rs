//! Packets without flows that go where the last ones went: by what the walk read of them, without a walk for each.
//!
//! A packet that no policy asks to look up (transit of a regional edge, vifs and tunnels without flag P) is decided on by a walk once;
//! what the walk [read of the packet](offload_rules::classify::Trace) becomes the key of the decision. Later packets have their
//! addresses looked up in the routes of the snapshot in force, and take the decision that is kept under the answers: a scan over
//! any number of destinations meets few decisions. Whatever is not ordinary (fragments, ICMP errors, addresses of the node or of one
//! link, too large, TTL at its end) and whatever lists or listeners decide is walked, as is the first packet.

mod cache;
mod key;
mod recent;

use std::sync::Arc;

use offload_rules::{
    VrfId,
    classify::{self, Inquiry, PacketRead, Side, Start, Trace, Verdict},
    flow::{FlowKey, Program},
    forwarding::{Fib, Snapshot},
};

use super::{
    ProgramId, Programs, Worker,
    context::{Context, Path},
    counters::{Ledger, Traffic},
    env::{Deciding, Env},
    exit::exit_received,
    flow_state::FlowState,
    hit::SlowPath,
    outcome::Outcome,
};
use crate::{
    exec::{self, Operands},
    packet::{Packet, parse::FragmentInfo, rewrite},
};
use cache::{Cache, Hit, NewNode, Next};
pub(super) use key::Departure;
use key::{Key, Matches};
pub(super) use recent::{Question, Recent};

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

    pub(super) const fn program(self) -> ProgramId {
        self.program
    }

    /// Was one found?
    #[inline]
    pub(super) const fn is_some(self) -> bool {
        self.program != super::TO_BE_DERIVED
    }
}

/// The decisions that one worker has for packets without flows.
pub(super) struct Routed {
    cache: Cache,
    recent: Recent,
}

impl Default for Routed {
    fn default() -> Self {
        let cache = Cache::default();
        let recent = Recent::new(cache.hash(&Key::NONE));
        Self { cache, recent }
    }
}

/// Is it a packet without a flow whose walk reads no more than a trace tells, if its addresses may be shared? Then where its walk begins.
#[inline]
fn ordinary(env: &Env, context: &Context) -> Option<Start> {
    let Path::Walk(start) = context.path else { return None };
    let ip = &context.ip;
    let ordinary = ip.fragment == FragmentInfo::None && !ip.is_icmp_error && env.deciding == Deciding::Shared;
    ordinary.then_some(start)
}

impl Routed {
    /// The decision that is kept for a packet without a flow, when there is one. A leaf may be stale: [`Worker::route`] looks.
    #[inline]
    fn decision<'a>(
        &mut self,
        env: &'a Env,
        programs: &Programs,
        context: &Context,
        last: &mut LastPacket<'a>,
    ) -> Found {
        let Some(start) = ordinary(env, context) else { return Found::NONE };
        let departure = Departure::of(context, start);
        let question = Question::new(departure.words(), &context.key.src, &context.key.dst);
        let (version, epoch) = (env.version, self.cache.epoch);
        match self.recent.find(&question, (version, epoch)) {
            Some(program) => Found { program, epoch },
            None => self.look_up(env, programs, departure, &context.key, last),
        }
    }

    /// The same for an ordinary packet of the lane with this hash of [`Recent`] and these halves of its addresses; `key` tells the rest.
    #[inline(always)]
    pub(super) fn decision_in_lane<'a>(
        &mut self,
        env: &'a Env,
        programs: &Programs,
        (hash, question): (u64, Question),
        packet: impl FnOnce() -> Option<(Departure, FlowKey)>,
        last: &mut LastPacket<'a>,
    ) -> Found {
        let (version, epoch) = (env.version, self.cache.epoch);
        if let Some(program) = self.recent.find_hashed(hash, &question, (version, epoch)) {
            return Found { program, epoch };
        }
        let Some((departure, key)) = packet() else { return Found::NONE };
        self.look_up(env, programs, departure, &key, last)
    }

    /// By the longest matches of its addresses. What is found by them alone is kept among the recent ones.
    fn look_up<'a>(
        &mut self,
        env: &'a Env,
        programs: &Programs,
        departure: Departure,
        key: &FlowKey,
        last: &mut LastPacket<'a>,
    ) -> Found {
        if !env.may_share(key) {
            return Found::NONE;
        }
        let Some((program, by)) = self.match_routes(&env.snapshot, programs, departure, key, last) else {
            return Found::NONE;
        };
        let (version, epoch) = (env.version, self.cache.epoch);
        if by == ReadBy::Addresses {
            self.recent.keep(Question::new(departure.words(), &key.src, &key.dst), (version, epoch), program);
        }
        Found { program, epoch }
    }

    #[inline]
    fn match_routes<'a>(
        &self,
        snapshot: &'a Snapshot,
        programs: &Programs,
        departure: Departure,
        key: &FlowKey,
        last: &mut LastPacket<'a>,
    ) -> Option<(ProgramId, ReadBy)> {
        let vrf = key.vrf;
        if last.vrf != Some(vrf) {
            (last.vrf, last.fib) = (Some(vrf), snapshot.fib(vrf));
        }
        let matches = Matches::of(last.fib, key, departure.start);
        let arrival = Key::arrival(departure, matches);
        let mut by = ReadBy::Addresses;
        if last.arrival != arrival {
            let mut is_first = true;
            let program = self.descend(snapshot, programs, arrival, key, |read| {
                is_first = false;
                by = by.and(read);
            })?;
            if !programs.is_current(program) {
                return None;
            }
            last.arrival = if is_first { arrival } else { Key::NONE };
        }
        let departure = Key::departure(departure).with_match(matches.destination);
        let program = self.descend(snapshot, programs, departure, key, |read| by = by.and(read))?;
        Some((program, by))
    }

    /// The program at the end of a way through a tree; `reads` is told what of the packet led there beside the first key.
    #[inline]
    fn descend(
        &self,
        snapshot: &Snapshot,
        programs: &Programs,
        mut key: Key,
        packet: &FlowKey,
        mut reads: impl FnMut(&PacketRead),
    ) -> Option<ProgramId> {
        for _ in 0..=DEPTH {
            let place = match self.cache.find(&key)? {
                Hit::Leaf(program) => return Some(program),
                Hit::Inner(place) => place,
            };
            let node = self.cache.node(place).filter(|node| programs.is_current(node.program))?;
            let Next::Read(read) = &node.next else { return None };
            reads(read);
            key = Key::below(node.number, key::value(read, snapshot, packet));
        }
        None
    }
}

/// What of a packet has led to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadBy {
    /// Its addresses, beside what keys hold.
    Addresses,
    /// Its hash, which the ports are in.
    Hash,
}

impl ReadBy {
    const fn and(self, read: &PacketRead) -> Self {
        match read {
            PacketRead::Route { .. } | PacketRead::Destination => self,
            PacketRead::Member(_) => Self::Hash,
        }
    }
}

/// What was looked up for the packet before, of the same batch: the next one often asks the same.
#[derive(Debug, Default)]
pub(super) struct LastPacket<'a> {
    vrf: Option<VrfId>,
    /// Of that VRF.
    fib: Option<&'a Fib>,
    /// Packets with this first key may come from where they came from, whatever else they hold.
    arrival: Key,
}

impl Routed {
    /// The decisions of the last packets.
    #[inline]
    pub(super) const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Changes whenever decisions that were found may mean others.
    #[inline]
    pub(super) const fn epoch(&self) -> u32 {
        self.cache.epoch
    }
}

impl Worker {
    /// Decisions kept for packets without flows, with all that leads to them.
    #[must_use]
    pub const fn routed_len(&self) -> usize {
        self.routed.cache.len()
    }
}

impl Routed {
    /// Second stage of a batch, for packets without flows.
    #[inline(never)]
    pub(super) fn find_decisions(
        &mut self,
        env: &Env,
        state: &FlowState,
        contexts: &[Context],
        decisions: &mut [Found],
    ) {
        let mut last = LastPacket::default();
        for (context, decision) in contexts.iter().zip(decisions) {
            *decision = self.decision(env, &state.programs, context, &mut last);
        }
    }

    /// Carries out a decision that was found.
    ///
    /// # Errors
    /// Why the packet, which is as it was, has to be walked.
    #[inline]
    pub(super) fn route(
        &mut self,
        env: &Env,
        state: &mut FlowState,
        ledger: &mut Ledger,
        found: Found,
        context: &mut Context,
        packet: &mut Packet,
    ) -> Result<Outcome, SlowPath> {
        let found = if found.epoch == self.cache.epoch {
            found
        } else {
            // An earlier packet of the batch has changed decisions.
            self.decision(env, &state.programs, context, &mut LastPacket::default())
        };
        let Some(entry) = state.programs.get_mut(found.program).filter(|entry| entry.is_current()) else {
            return Err(SlowPath::StaleProgram);
        };
        let plan = &entry.plan;
        exec::admit(plan, &context.ip, packet.is_reassembled())?;
        entry.packets += 1;
        entry.routed.add(Traffic { packets: 1, bytes: packet.len() as u64 });
        ledger.route(1);
        let mut operands = Operands::default();
        if plan.is_tunnel() {
            // Of no flow: each outer header has an identification of its own.
            operands.outer_id = state.ip_ids.next();
            let entropy = || rewrite::entropy_port(context.key.spread() as u32);
            operands.tunnel_sport = env.config.entropy.unwrap_or_else(entropy);
        }
        let framing = context.framing();
        Ok(match exec::execute(plan, packet, &mut context.ip, &framing, &operands) {
            Ok(()) => exit_received(plan, context.vif),
            Err(reason) => Outcome::drop(context.vif, reason),
        })
    }

    /// Walks for a packet without a flow, and keeps the decision for those that the walk would treat alike.
    pub(super) fn walk_and_keep(
        &mut self,
        env: &Env,
        state: &mut FlowState,
        context: &Context,
        inquiry: &Inquiry<'_>,
    ) -> Verdict {
        let shared = ordinary(env, context).filter(|_| env.may_share(&context.key));
        if shared != Some(inquiry.start) {
            return classify::classify(&env.snapshot, inquiry);
        }
        let traced = classify::classify_traced(&env.snapshot, inquiry);
        if let (Verdict::Forward(decision), Some(trace)) = (&traced.verdict, traced.trace) {
            self.keep(env, state, context, inquiry.start, &decision.program, trace);
        }
        traced.verdict
    }

    fn keep(
        &mut self,
        env: &Env,
        state: &mut FlowState,
        context: &Context,
        start: Start,
        program: &Program,
        trace: Trace,
    ) {
        let Trace { arrival, departure } = trace;
        if arrival.len().max(departure.len()) > DEPTH {
            return;
        }
        let matches = Matches::of(env.snapshot.fib(context.key.vrf), &context.key, start);
        let further = |reads: Vec<PacketRead>, of| {
            reads.into_iter().filter(move |read| !key::is_first(read, &context.key, start, of))
        };
        let way = Departure::of(context, start);
        let first = Key::arrival(way, matches);
        self.keep_tree(env, state, context, first, further(arrival, Side::Source), program);
        let first = Key::departure(way).with_match(matches.destination);
        self.keep_tree(env, state, context, first, further(departure, Side::Destination), program);
    }

    fn keep_tree(
        &mut self,
        env: &Env,
        state: &mut FlowState,
        context: &Context,
        first: Key,
        reads: impl Iterator<Item = PacketRead>,
        program: &Program,
    ) {
        let snapshot = Arc::clone(&env.snapshot);
        let (mut key, mut lost) = (first, Vec::new());
        for next in reads.map(Next::Read).chain(std::iter::once(Next::End)) {
            let value = match &next {
                Next::Read(read) => Some(key::value(read, &snapshot, &context.key)),
                Next::End => None,
            };
            let id = state.programs.intern(program.clone(), context.key.vrf, &snapshot);
            let new = NewNode { next, program: id, tenant: context.tenant() };
            let number = self.cache.insert(key, new, &mut lost);
            if let Some(value) = value {
                key = Key::below(number, value);
            }
        }
        release_all(lost, state);
    }

    /// Takes out some of the decisions that no longer hold.
    pub(super) fn sweep(&mut self, state: &mut FlowState) {
        let mut lost = Vec::new();
        self.cache.sweep(STEP, &state.programs, &mut lost);
        release_all(lost, state);
    }
}

fn release_all(programs: Vec<ProgramId>, state: &mut FlowState) {
    for program in programs {
        state.release_program(program);
    }
}
