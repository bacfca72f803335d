//! A batch in stages: sort all frames, look all of them up, run each to completion, seal what is to be sealed.
//!
//! Budget of the hot path: no allocation, no lock, no formatting; flow records are prefetched while others are worked on.

use offload_rules::{DropReason, VifId, flow::VrfCounter};

use super::{
    Worker,
    context::{Context, Path},
    counters::Traffic,
    decider::{Decider, LookedUp},
    delivery::{Arrived, Delivery, Origin},
    env::{BATCH, Env},
    flow_state::FlowState,
    hit::{Found, SlowPath},
    ingress::{EspFrame, FrameKind, Refused},
    ipsec::{self, SealRequest, Sealed, Sealer},
    outbox::Outbox,
    outcome::{Outcome, OwnNext, OwnPath},
    respond::Responder,
    routed,
};
use crate::{
    flow_table,
    packet::{NicNote, Packet, parse},
};

/// In the place of the hash of a packet that was not hashed: the NIC's mark has told its slot, or it has no flow. A packet whose hash it
/// is by chance is hashed twice.
const MARKED: u64 = 0;

/// Memory of one batch, kept from one to the next.
pub(super) struct Batch {
    packets: Vec<Packet>,
    /// ESP packets that came behind them, to be opened together: what was inside goes behind them, too.
    sealed: Vec<Sealed>,
    /// Those are being opened.
    opening: bool,
    /// What is known of each; those behind are left from earlier batches and mean nothing.
    contexts: [Context; BATCH],
    hashes: [u64; BATCH],
    /// Slots of their flows; before the look-up only of those that a NIC has marked.
    slots: [u32; BATCH],
    /// How many are marked.
    marked: usize,
    /// How many have no flow to look up.
    flowless: usize,
    /// What was found for those; means nothing while there are none.
    decisions: [routed::Found; BATCH],
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            packets: Vec::with_capacity(BATCH),
            sealed: Vec::with_capacity(BATCH),
            opening: false,
            contexts: std::array::from_fn(|_| Context::blank()),
            hashes: [0; BATCH],
            slots: [flow_table::NONE; BATCH],
            marked: 0,
            flowless: 0,
            decisions: [routed::Found::NONE; BATCH],
        }
    }
}

impl Batch {
    /// It is to be worked off before the next packet.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.packets.len() + self.sealed.len() >= BATCH
    }
}

impl Worker {
    /// Takes in frames received on the device of `port` and empties `frames`. `now` is in milliseconds of the node's clock.
    pub fn receive(&mut self, port: VifId, frames: &mut Vec<Packet>, now: u64, out: &mut Outbox) {
        self.env.clock = now;
        let mut batch = self.batch.take().unwrap_or_default();
        if self.lane_takes(port) {
            self.receive_in_lane(port, frames, &mut batch, out);
        } else {
            self.receive_in_general(port, frames, &mut batch, out);
        }
        self.batch = Some(batch);
        self.finish(out);
    }

    /// Takes in frames one by one.
    #[inline(never)]
    fn receive_in_general(&mut self, port: VifId, frames: &mut Vec<Packet>, batch: &mut Batch, out: &mut Outbox) {
        // Not those that a NIC has forwarded, and counted, up to a tunnel that software seals.
        let mut received = Traffic::default();
        for packet in frames.iter().filter(|packet| !matches!(packet.note(), NicNote::ToSeal(_))) {
            received.add(Traffic { packets: 1, bytes: packet.len() as u64 });
        }
        self.counters.count_received(port, received);
        for packet in frames.drain(..) {
            self.take_in(batch, packet, Arrived::new(port), out);
            if batch.is_full() {
                self.work_off(batch, out);
            }
        }
        self.work_off(batch, out);
    }

    /// Takes in packets that were received already: handed over by another worker, or waited for something.
    pub fn deliver_all(&mut self, deliveries: Vec<Delivery>, now: u64, out: &mut Outbox) {
        self.env.advance_clock(now);
        let mut batch = self.batch.take().unwrap_or_default();
        for Delivery { packet, origin } in deliveries {
            match origin {
                Origin::Port(arrived) => self.take_in(&mut batch, packet, arrived, out),
                Origin::Own(vrf) => self.send_own(packet, OwnNext::Path(OwnPath::Route(vrf)), out),
                Origin::Sealing(sealing) => {
                    self.settle(packet, Outcome::Seal(SealRequest::of_other(sealing)), out);
                }
                Origin::Quoting(quote) => {
                    let outcome = self.decider(out).outer_error_of_other(&quote);
                    self.settle(packet, outcome, out);
                }
            }
            if batch.is_full() {
                self.work_off(&mut batch, out);
            }
        }
        self.work_off(&mut batch, out);
        self.batch = Some(batch);
        self.finish(out);
    }

    /// First stage: fills the batch's next place, or does at once what needs no look-up.
    #[inline]
    pub(super) fn take_in(&mut self, batch: &mut Batch, mut packet: Packet, arrived: Arrived, out: &mut Outbox) {
        let at = batch.packets.len() + batch.sealed.len();
        let Some(context) = batch.contexts.get_mut(at) else {
            // Invariant: a full batch is worked off before the next packet.
            return self.settle(packet, Outcome::drop(arrived.port, DropReason::InvalidPacket), out);
        };
        match self.interfaces.sort(&self.env.snapshot, &packet, arrived.port, arrived.head.as_ref(), context) {
            // The usual case, apart from the others for speed.
            Ok(FrameKind::Ip) => {
                if self.env.config.workers > 1
                    && let Some(worker) = other_owner(&self.env, context)
                {
                    let origin = Origin::Port(arrived);
                    return self.settle(packet, Outcome::HandOver { worker, origin }, out);
                }
                match context.sealed_on {
                    None => self.counters.count_in(context.vif, packet.len(), arrived.counted),
                    Some(link) => self.count_opened(link, context.vif, packet.data(), arrived.counted),
                }
            }
            Ok(FrameKind::Esp(frame)) if packet.note() == NicNote::None && !batch.opening => {
                if let Err(outcome) = self.count_sealed(&packet, frame, context.vif, arrived) {
                    return self.settle(packet, outcome, out);
                }
                return batch.sealed.push(Sealed::new(packet, frame, context.vif));
            }
            sorted => {
                if let Some(outcome) = self.sort_on(sorted, &mut packet, arrived, context, out) {
                    return self.settle(packet, outcome, out);
                }
            }
        }
        if !batch.sealed.is_empty() {
            let known = *context;
            self.open_sealed(batch, out);
            if let Some(context) = batch.contexts.get_mut(batch.packets.len()) {
                *context = known;
            }
        }
        self.file(batch, packet);
    }

    /// The packet, whose context is in the batch's next place, takes that place.
    #[inline]
    fn file(&mut self, batch: &mut Batch, packet: Packet) {
        let at = batch.packets.len();
        let (Some(context), Some(hash), Some(slot)) =
            (batch.contexts.get(at), batch.hashes.get_mut(at), batch.slots.get_mut(at))
        else {
            return;
        };
        *slot = flow_table::NONE;
        if matches!(context.path, Path::Walk(_) | Path::Resume) {
            *hash = MARKED;
            batch.flowless += 1;
        } else if let Some(known) = packet.mark().and_then(|mark| self.state.marked(mark, &context.key)) {
            (*slot, *hash) = (known, MARKED);
            self.state.flows.prefetch_record(known);
            batch.marked += 1;
        } else {
            *hash = self.state.flows.hash(&context.key);
            self.state.flows.prefetch(*hash);
        }
        batch.packets.push(packet);
    }

    /// Goes on with a frame that was sorted once. `None`: its context is that of a packet to be looked up; else what becomes of it. What
    /// is taken out of ESP is sorted once more.
    #[inline(never)]
    fn sort_on(
        &mut self,
        mut sorted: Result<FrameKind, Refused>,
        packet: &mut Packet,
        mut arrived: Arrived,
        context: &mut Context,
        out: &mut Outbox,
    ) -> Option<Outcome> {
        while let Ok(FrameKind::Esp(frame)) = sorted {
            if let Err(outcome) = self.count_sealed(packet, frame, context.vif, arrived) {
                return Some(outcome);
            }
            match self.ipsec.open(&self.env, packet, frame, context.vif, &mut out.events) {
                Outcome::Again(inside) => arrived = inside,
                other => return Some(other),
            }
            sorted = self.interfaces.sort(&self.env.snapshot, packet, arrived.port, arrived.head.as_ref(), context);
        }
        match sorted {
            Ok(FrameKind::Ip) => {
                if self.env.config.workers > 1
                    && let Some(worker) = other_owner(&self.env, context)
                {
                    return Some(Outcome::HandOver { worker, origin: Origin::Port(arrived) });
                }
                match context.sealed_on {
                    None => self.counters.count_in(context.vif, packet.len(), arrived.counted),
                    Some(link) => self.count_opened(link, context.vif, packet.data(), arrived.counted),
                }
                None
            }
            Ok(FrameKind::Resume) => None,
            other => Some(self.sorted_out(other, context, packet, arrived, out)),
        }
    }

    /// The stage that opens ESP, for what was collected: the packets inside take their places in the batch, in the same order.
    #[inline(never)]
    fn open_sealed(&mut self, batch: &mut Batch, out: &mut Outbox) {
        let mut sealed = std::mem::take(&mut batch.sealed);
        self.ipsec.open_together(&self.env, &mut sealed, &mut out.events);
        // ESP inside ESP is opened by itself.
        batch.opening = true;
        for each in sealed.drain(..) {
            match each.inside() {
                Some(tunnel) => self.take_in(batch, each.packet, Arrived::new(tunnel), out),
                None => {
                    let outcome = each.outcome();
                    self.settle(each.packet, outcome, out);
                }
            }
        }
        batch.opening = false;
        batch.sealed = sealed;
    }

    /// Counts an ESP packet that this worker opens.
    ///
    /// # Errors
    /// Another one does.
    #[inline]
    fn count_sealed(&mut self, packet: &Packet, frame: EspFrame, vif: VifId, arrived: Arrived) -> Result<(), Outcome> {
        if self.env.config.workers > 1
            && let Some(worker) = ipsec::other_opener(&self.env, packet.data(), frame)
        {
            return Err(Outcome::HandOver { worker, origin: Origin::Port(arrived) });
        }
        self.counters.count_in(vif, packet.len(), arrived.counted);
        Ok(())
    }

    /// What is no IP packet to forward.
    #[cold]
    fn sorted_out(
        &mut self,
        sorted: Result<FrameKind, Refused>,
        context: &Context,
        packet: &Packet,
        arrived: Arrived,
        out: &mut Outbox,
    ) -> Outcome {
        let vif = match sorted {
            Ok(FrameKind::Arp { vif, .. }) | Err((vif, _)) => vif,
            Ok(_) => context.vif,
        };
        self.counters.count_in(vif, packet.len(), arrived.counted);
        match sorted {
            Ok(FrameKind::Arp { vif, at }) => self.responder(out).arp(vif, at, packet),
            Ok(FrameKind::Nd) => self.responder(out).neighbour_discovery(context, packet),
            Ok(FrameKind::Keepalive) => Outcome::Consume,
            // Invariant: these have been sorted.
            Ok(FrameKind::Ip | FrameKind::Esp(_) | FrameKind::Resume) => Outcome::drop(vif, DropReason::InvalidPacket),
            Err((_, reason)) => {
                if let Some(interface) = self.interfaces.get(vif) {
                    self.counters.pass(interface.vrf, VrfCounter::Discard, 1);
                }
                Outcome::drop(vif, reason)
            }
        }
    }

    /// Counts a packet that the NIC has opened: on the tunnel, and on the vif that it came in on, as small as it is now.
    fn count_opened(&mut self, link: VifId, tunnel: VifId, frame: &[u8], counted: bool) {
        let ethernet = parse::ethernet(frame).map_or(0, |ethernet| ethernet.len);
        self.counters.count_in(link, frame.len(), counted);
        self.counters.count_in(tunnel, frame.len() - ethernet.min(frame.len()), counted);
    }

    /// The stages behind the first one.
    pub(super) fn work_off(&mut self, batch: &mut Batch, out: &mut Outbox) {
        if !batch.sealed.is_empty() {
            self.open_sealed(batch, out);
        }
        let Batch { packets, contexts, hashes, slots, marked, flowless, decisions, .. } = batch;
        let count = packets.len();
        if count == 0 {
            return;
        }
        let (Some(contexts), Some(hashes), Some(slots), Some(decisions)) =
            (contexts.get_mut(..count), hashes.get(..count), slots.get_mut(..count), decisions.get_mut(..count))
        else {
            return;
        };
        let (marked, flowless) = (std::mem::take(marked), std::mem::take(flowless));
        if marked > 0 {
            self.state.look_up_others(contexts, hashes, slots);
        } else if flowless < count {
            self.state.flows.lookup_asked(contexts, |context| &context.key, hashes, slots);
        }
        if flowless > 0 {
            self.routed.find_decisions(&self.env, &self.state, contexts, decisions);
        }
        let looked_up = packets.drain(..).zip(contexts).zip(hashes).zip(slots).zip(decisions);
        for ((((mut packet, context), hash), slot), decision) in looked_up {
            let why = match context.path {
                Path::Flow if *slot == flow_table::NONE => SlowPath::Miss,
                Path::Flow if !context.special => {
                    let found = Found { slot: *slot, marked: *hash == MARKED };
                    match self.state.hit(&self.env, &mut self.counters.account, found, context, &mut packet) {
                        Ok(outcome) => {
                            self.settle_hit(packet, outcome, out);
                            continue;
                        }
                        Err(why) => why,
                    }
                }
                Path::Walk(_) if decision.is_some() => {
                    let Self { env, state, routed, counters, .. } = &mut *self;
                    let ran = routed.route(env, state, &mut counters.account, *decision, context, &mut packet);
                    if let Ok(outcome) = ran {
                        self.settle_hit(packet, outcome, out);
                        continue;
                    }
                    // What its plan cannot do, a walk says again.
                    SlowPath::Special
                }
                Path::Resume => {
                    let outcome = ipsec::resume(&self.env.snapshot, &mut packet, context);
                    self.settle(packet, outcome, out);
                    continue;
                }
                Path::Flow | Path::Walk(_) | Path::Reassemble => SlowPath::Special,
            };
            let hash = if *hash == MARKED { self.state.flows.hash(&context.key) } else { *hash };
            self.decide_and_settle(packet, context, LookedUp { why, slot: *slot, hash }, out);
        }
        self.seal_pending(out);
    }

    /// The slow path of one packet, and all that comes of it, before the next one.
    #[inline(never)]
    fn decide_and_settle(&mut self, mut packet: Packet, context: &Context, found: LookedUp, out: &mut Outbox) {
        let outcome = self.decider(out).decide(&mut packet, context, found);
        self.settle(packet, outcome, out);
        self.run_pending(out);
    }

    /// A packet enters at the first stage again, by itself: it was put together, or its first fragment has told the ports.
    pub(super) fn take_in_again(&mut self, mut packet: Packet, arrived: Arrived, out: &mut Outbox) {
        let mut context = Context::blank();
        let sorted =
            self.interfaces.sort(&self.env.snapshot, &packet, arrived.port, arrived.head.as_ref(), &mut context);
        let outcome = match self.sort_on(sorted, &mut packet, arrived, &mut context, out) {
            Some(outcome) => outcome,
            None => {
                let hash = self.state.flows.hash(&context.key);
                let found = LookedUp { why: SlowPath::Special, slot: flow_table::NONE, hash };
                self.decider(out).decide(&mut packet, &context, found)
            }
        };
        self.settle(packet, outcome, out);
    }

    /// The stage that seals, for all that was left for it.
    #[inline]
    fn seal_pending(&mut self, out: &mut Outbox) {
        while !self.pending.seal.is_empty() {
            self.seal_all(out);
        }
    }

    #[inline(never)]
    fn seal_all(&mut self, out: &mut Outbox) {
        let mut queue = std::mem::take(&mut self.pending.seal);
        while !queue.is_empty() {
            let steps = self.sealer(out).seal_together(&mut queue);
            if let Some((port, meta)) = steps.all_sent(&queue) {
                self.transmit_all(port, meta, queue.drain(..steps.count).map(|(packet, _)| packet), out);
                continue;
            }
            // What has to be sealed by itself is the first one now.
            for (at, (mut packet, request)) in queue.drain(..steps.count.max(1)).enumerate() {
                let outcome = match steps.outcome(at, &request) {
                    Some(outcome) => outcome,
                    None => self.sealer(out).seal(&mut packet, &request),
                };
                self.settle_hit(packet, outcome, out);
                // Other fragments of it.
                self.run_pending(out);
            }
        }
        if self.pending.seal.is_empty() {
            self.pending.seal = queue;
        }
    }

    /// The stage that seals.
    fn sealer<'a>(&'a mut self, out: &'a mut Outbox) -> Sealer<'a> {
        Sealer {
            env: &self.env,
            ipsec: &mut self.ipsec,
            ip_ids: &mut self.state.ip_ids,
            counters: &mut self.counters,
            emit: self.pending.emit(&mut out.events, &mut out.spare),
        }
    }

    /// Sees to all that the stages have left, and hands over what the engine is asked.
    pub(super) fn finish(&mut self, out: &mut Outbox) {
        self.run_pending(out);
        self.seal_pending(out);
        self.ask_engine(out);
    }

    /// The stage that decides.
    pub(super) fn decider<'a>(&'a mut self, out: &'a mut Outbox) -> Decider<'a> {
        Decider {
            env: &self.env,
            state: &mut self.state,
            routed: &mut self.routed,
            ipsec: &self.ipsec,
            limits: &mut self.limits,
            counters: &mut self.counters,
            emit: self.pending.emit(&mut out.events, &mut out.spare),
        }
    }

    /// The stage that answers.
    pub(super) fn responder<'a>(&'a mut self, out: &'a mut Outbox) -> Responder<'a> {
        Responder {
            env: &self.env,
            limits: &mut self.limits,
            counters: &mut self.counters,
            emit: self.pending.emit(&mut out.events, &mut out.spare),
        }
    }

    /// The context of a packet that waits; `None` when it is no IP packet to forward any more.
    pub(super) fn context_of(&self, delivery: &Delivery) -> Option<Context> {
        let Origin::Port(arrived) = delivery.origin else { return None };
        let mut context = Context::blank();
        let sorted = self.interfaces.sort(
            &self.env.snapshot,
            &delivery.packet,
            arrived.port,
            arrived.head.as_ref(),
            &mut context,
        );
        matches!(sorted, Ok(FrameKind::Ip)).then_some(context)
    }
}

impl FlowState {
    /// Looks up those that no mark has told the slot of.
    fn look_up_others(&self, contexts: &[Context], hashes: &[u64], slots: &mut [u32]) {
        for ((context, hash), slot) in contexts.iter().zip(hashes).zip(slots) {
            if *slot == flow_table::NONE && matches!(context.path, Path::Flow) {
                *slot = self.flows.find(*hash, &context.key).unwrap_or(flow_table::NONE);
            }
        }
    }
}

/// The worker that owns the packet's flow, when it is another one. Fragments whose head has not told yet belong to the owner of their
/// addresses. A packet that is walked by itself has no flow: whole, or once its head has told, it stays where it is.
#[inline]
fn other_owner(env: &Env, context: &Context) -> Option<usize> {
    if matches!(context.path, Path::Walk(_)) && !context.lacks_head() {
        return None;
    }
    let spread = u128::from(context.key.owner_hash()) * env.config.workers as u128;
    let owner = (spread >> 64) as usize;
    (owner != env.config.id).then_some(owner)
}
