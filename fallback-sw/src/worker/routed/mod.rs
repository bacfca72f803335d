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
    flow::Program,
    forwarding::Snapshot,
};

use super::{
    ProgramId, Worker,
    context::{Context, Path},
    counters::{Ledger, Traffic},
    env::{BATCH, Env},
    exit::exit_received,
    flow_state::FlowState,
    hit::SlowPath,
    outcome::Outcome,
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

/// Whether decisions for packets without flows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They are.
    Kept,
    /// Each packet is walked.
    Walked,
}

/// What a walk has ended in.
#[derive(Debug, Clone, Copy)]
struct Walked<'a> {
    program: &'a Program,
    fixed: &'a [classify::FixedRoute],
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

    /// May this packet go by a decision that others share? Then where its walk begins.
    #[inline]
    fn start(&self, context: &Context) -> Option<Start> {
        let Path::Walk(start) = context.path else { return None };
        let ip = &context.ip;
        let ordinary = ip.fragment == FragmentInfo::None && !ip.is_icmp_error && self.mode == Mode::Kept;
        (ordinary && !classify::is_of_link(&context.key) && !self.addresses.touch(&context.key)).then_some(start)
    }
}

impl Worker {
    /// From now on each packet without a flow is walked: what decisions that are kept are compared with.
    pub fn walk_each_packet(&mut self) {
        self.routed.mode = Mode::Walked;
    }

    /// Decisions kept for packets without flows, with all that leads to them.
    #[must_use]
    pub const fn routed_len(&self) -> usize {
        self.routed.cache.len()
    }
}

impl Routed {
    /// Second stage of a batch, for packets without flows: routes of all of them, then decisions.
    #[inline(never)]
    pub(super) fn find_decisions(
        &mut self,
        env: &Env,
        state: &mut FlowState,
        contexts: &[Context],
        decisions: &mut [Found],
    ) {
        let mut asked = [None; BATCH];
        for (context, asked) in contexts.iter().zip(&mut asked) {
            *asked = self.look_up_addresses(env, context);
        }
        for ((context, asked), decision) in contexts.iter().zip(&asked).zip(decisions) {
            *decision = asked.as_ref().map_or(Found::NONE, |asked| self.take_decision(env, state, asked, context));
        }
    }

    /// The decision for a packet without a flow, when one is kept that holds for it.
    fn find_decision(&mut self, env: &Env, state: &mut FlowState, context: &Context) -> Found {
        self.look_up_addresses(env, context)
            .map_or(Found::NONE, |asked| self.take_decision(env, state, &asked, context))
    }

    /// Looks up the addresses of a packet without a flow.
    #[inline]
    fn look_up_addresses(&self, env: &Env, context: &Context) -> Option<Asked> {
        let start = self.start(context)?;
        let matches = Matches::of(&env.snapshot, &context.key, start);
        let (arrival, departure) = (Key::arrival(context, matches), Key::departure(context, start, matches));
        let cache = &self.cache;
        let (arrival, departure) = ((cache.hash(&arrival), arrival), (cache.hash(&departure), departure));
        cache.prefetch(arrival.0);
        cache.prefetch(departure.0);
        Some(Asked { arrival, departure })
    }

    #[inline]
    fn take_decision(&mut self, env: &Env, state: &mut FlowState, asked: &Asked, context: &Context) -> Found {
        if self.descend(env, state, asked.arrival, context).is_none() {
            return Found::NONE;
        }
        match self.descend(env, state, asked.departure, context) {
            Some(program) => Found { program, epoch: self.cache.epoch },
            None => Found::NONE,
        }
    }

    /// The program at the end of a way through a tree.
    #[inline]
    fn descend(
        &mut self,
        env: &Env,
        state: &mut FlowState,
        (mut hash, mut key): (u64, Key),
        context: &Context,
    ) -> Option<ProgramId> {
        let (cache, Env { snapshot, version, .. }) = (&mut self.cache, env);
        for _ in 0..=DEPTH {
            let place = cache.find(hash, &key)?;
            if !cache.is_current(place, *version, snapshot, &mut state.programs) {
                if let Some(program) = cache.remove(place) {
                    state.release_program(program);
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
        env: &Env,
        state: &mut FlowState,
        ledger: &mut Ledger,
        found: Found,
        context: &mut Context,
        packet: &mut Packet,
    ) -> Result<Outcome, SlowPath> {
        let found = if found.epoch == self.cache.epoch { found } else { self.find_decision(env, state, context) };
        let Some(entry) = state.programs.get_mut(found.program) else { return Err(SlowPath::StaleProgram) };
        let plan = &entry.plan;
        exec::admit(plan, &context.ip, packet.is_reassembled())?;
        entry.packets += 1;
        entry.routed.add(Traffic { packets: 1, bytes: packet.len() as u64 });
        ledger.route();
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
        if self.start(context) != Some(inquiry.start) {
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
        let Trace { arrival, departure, fixed } = trace;
        if arrival.len().max(departure.len()) > DEPTH {
            return;
        }
        let matches = Matches::of(&env.snapshot, &context.key, start);
        let further = |reads: Vec<PacketRead>, of| {
            reads.into_iter().filter(move |read| !key::is_first(read, &context.key, start, of))
        };
        let walked = Walked { program, fixed: &fixed };
        let first = Key::arrival(context, matches);
        self.keep_tree(env, state, context, first, further(arrival, Side::Source), walked);
        let first = Key::departure(context, start, matches);
        self.keep_tree(env, state, context, first, further(departure, Side::Destination), walked);
    }

    fn keep_tree(
        &mut self,
        env: &Env,
        state: &mut FlowState,
        context: &Context,
        first: Key,
        reads: impl Iterator<Item = PacketRead>,
        walked: Walked<'_>,
    ) {
        let snapshot = Arc::clone(&env.snapshot);
        let (mut key, mut lost) = (first, Vec::new());
        for next in reads.map(Next::Read).chain(std::iter::once(Next::End)) {
            let value = match &next {
                Next::Read(read) => Some(key::value(read, &snapshot, &context.key)),
                Next::End => None,
            };
            let id = state.programs.intern(walked.program.clone(), context.key.vrf, &snapshot);
            let new = NewNode {
                next,
                program: id,
                fixed: walked.fixed.into(),
                tenant: context.tenant(),
                version: env.version,
            };
            let number = self.cache.insert(key, new, &mut lost);
            if let Some(value) = value {
                key = Key::below(number, value);
            }
        }
        release_all(lost, state);
    }

    /// Takes out some of the decisions that no longer hold.
    pub(super) fn sweep(&mut self, env: &Env, state: &mut FlowState) {
        let mut lost = Vec::new();
        self.cache.sweep(STEP, env.version, &env.snapshot, &mut state.programs, &mut lost);
        release_all(lost, state);
    }
}

fn release_all(programs: Vec<ProgramId>, state: &mut FlowState) {
    for program in programs {
        state.release_program(program);
    }
}
