//! A batch in three stages: sort all frames, look all of them up, then run each to completion.
//!
//! Budget of the hot path: no allocation, no lock, no formatting; flow records are prefetched while others are worked on.

use super::{
    Delivery, Origin, Outbox, ProgramId, TxKind, TxMeta, Worker,
    admit::{SlowPath, admit},
    counters::Traffic,
    flows::flag,
    fragments::Head,
    ingress::{Context, Kind, Path, Refused},
    routed::Found,
};
use crate::{
    exec::{self, Framing, Operands, Plan, Target},
    flow_table::{self, BindingAt, Record},
    packet::{NicNote, Packet},
};
use offload_rules::{
    DropReason, VifId,
    flow::{SequenceShift, tcp::Segment},
};

/// Frames that are worked on together: enough loads in flight to hide memory, little enough to stay in the first-level cache.
pub(super) const BATCH: usize = 32;

/// In the place of the hash of a packet that was not hashed: the NIC's mark has told its slot, or it has no flow. A packet whose hash it
/// is by chance is hashed twice.
const MARKED: u64 = 0;

/// Memory of one batch, kept from one to the next.
pub(super) struct Batch {
    packets: Vec<Packet>,
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
    decisions: [Found; BATCH],
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            packets: Vec::with_capacity(BATCH),
            contexts: std::array::from_fn(|_| Context::blank()),
            hashes: [0; BATCH],
            slots: [flow_table::NONE; BATCH],
            marked: 0,
            flowless: 0,
            decisions: [Found::NONE; BATCH],
        }
    }
}

/// What becomes of a packet that has run a program.
pub(super) enum Disposition {
    /// Sent as it is now.
    Transmit {
        vif: VifId,
        port: VifId,
        kind: TxKind,
    },
    /// Sealed, as this program says.
    Seal(ProgramId),
    Drop(DropReason),
}

impl Disposition {
    /// Of what a program sends to its target.
    ///
    /// # Errors
    /// It sends nothing.
    #[inline(always)]
    pub(super) const fn of(target: Target, program: ProgramId) -> Result<Self, SlowPath> {
        match target {
            Target::Output { vif, port } => Ok(Self::Transmit { vif, port, kind: TxKind::Forwarded }),
            Target::Punt { vif, port } => Ok(Self::Transmit { vif, port, kind: TxKind::Punted }),
            Target::Seal => Ok(Self::Seal(program)),
            Target::Drop(_) => Err(SlowPath::Plan(exec::Exception::Denied)),
        }
    }
}

impl Worker {
    /// Takes in frames received on the device of `port` and empties `frames`. `now` is in milliseconds of the node's clock.
    pub fn receive(&mut self, port: VifId, frames: &mut Vec<Packet>, now: u64, out: &mut Outbox) {
        self.clock = now;
        self.count_received(port, frames);
        let mut batch = self.batch.take().unwrap_or_default();
        for packet in frames.drain(..) {
            self.sort_into(&mut batch, packet, (port, None, false), out);
            if batch.packets.len() == BATCH {
                self.work_off(&mut batch, now, out);
            }
        }
        self.work_off(&mut batch, now, out);
        self.batch = Some(batch);
        self.settle_offload(now, out);
    }

    /// Counts frames of a device; not those that a NIC has forwarded, and counted, up to a tunnel that software seals.
    #[inline]
    fn count_received(&mut self, port: VifId, frames: &[Packet]) {
        let new = frames.iter().filter(|packet| !matches!(packet.note(), NicNote::ToSeal(_)));
        let (count, octets) = new.fold((0, 0), |(count, octets), packet| (count + 1, octets + packet.len() as u64));
        self.counters.account.received += count;
        if let Some(counters) = self.counters.port(port) {
            counters.rx_packets += count;
            counters.rx_bytes += octets;
        }
    }

    /// Takes in packets that were received already: handed over by another worker, or waited for something.
    pub fn deliver_all(&mut self, deliveries: Vec<Delivery>, now: u64, out: &mut Outbox) {
        let mut batch = self.batch.take().unwrap_or_default();
        for Delivery { packet, origin } in deliveries {
            match origin {
                Origin::Port { port, head, counted } => {
                    self.sort_into(&mut batch, packet, (port, head, counted), out);
                }
                Origin::Own(vrf) => self.send_own(vrf, packet, now, out),
                Origin::Sealing(sealing) => self.seal_for_other(&sealing, packet, out),
                Origin::Quoting(quote) => self.take_quote_for_other(&quote, packet, out),
            }
            if batch.packets.len() == BATCH {
                self.work_off(&mut batch, now, out);
            }
        }
        self.work_off(&mut batch, now, out);
        self.batch = Some(batch);
        self.settle_offload(now, out);
    }

    /// First stage: fills the batch's next place, or does at once what needs no look-up.
    #[inline]
    fn sort_into(
        &mut self,
        batch: &mut Batch,
        packet: Packet,
        (port, head, counted): (VifId, Option<Head>, bool),
        out: &mut Outbox,
    ) {
        let at = batch.packets.len();
        let (Some(context), Some(hash), Some(slot)) =
            (batch.contexts.get_mut(at), batch.hashes.get_mut(at), batch.slots.get_mut(at))
        else {
            // Invariant: a full batch is worked off before the next packet.
            return self.drop_packet(port, packet, DropReason::InvalidPacket, out);
        };
        if let NicNote::ToSeal(tunnel) = packet.note() {
            return self.seal_for_nic(tunnel, packet, port, out);
        }
        match self.sort_to(&packet, port, head, context) {
            Ok(Kind::Ip) => {
                if self.config.workers > 1
                    && let Some(owner) = self.other_owner(context)
                {
                    out.handoff.push((owner, Delivery { packet, origin: Origin::Port { port, head, counted } }));
                    return;
                }
                match context.sealed_on {
                    None => self.count_in(context.vif, packet.len(), counted),
                    Some(link) => self.count_opened(link, context.vif, packet.data(), counted),
                }
                *slot = flow_table::NONE;
                if matches!(context.path, Path::Walk(_)) {
                    *hash = MARKED;
                    batch.flowless += 1;
                } else if let Some(known) = packet.mark().and_then(|mark| self.marked(mark, &context.key)) {
                    (*slot, *hash) = (known, MARKED);
                    self.flows.prefetch_record(known);
                    batch.marked += 1;
                } else {
                    *hash = self.flows.hash(&context.key);
                    self.flows.prefetch(*hash);
                }
                batch.packets.push(packet);
            }
            Ok(Kind::Esp { at }) => {
                let context = *context;
                self.sort_esp(batch, packet, (&context, at, head, counted), out);
            }
            other => {
                let context = *context;
                self.sorted_out(other, &context, packet, counted, out);
            }
        }
    }

    /// An ESP packet: the packet inside takes its place.
    fn sort_esp(
        &mut self,
        batch: &mut Batch,
        packet: Packet,
        (context, at, head, counted): (&Context, usize, Option<Head>, bool),
        out: &mut Outbox,
    ) {
        if self.config.workers > 1
            && let Some(owner) = self.other_opener(packet.data(), at)
        {
            let origin = Origin::Port { port: context.port, head, counted };
            return out.handoff.push((owner, Delivery { packet, origin }));
        }
        self.count_in(context.vif, packet.len(), counted);
        if let Some((tunnel, packet)) = self.open_esp(packet, context, at, out) {
            self.sort_into(batch, packet, (tunnel, None, false), out);
        }
    }

    /// What is no IP packet to forward.
    #[cold]
    fn sorted_out(
        &mut self,
        sorted: Result<Kind, Refused>,
        context: &Context,
        packet: Packet,
        counted: bool,
        out: &mut Outbox,
    ) {
        match sorted {
            Ok(Kind::Arp { vif, at }) => {
                self.count_in(vif, packet.len(), counted);
                self.arp(vif, at, packet, out);
            }
            Ok(Kind::Keepalive) => {
                self.count_in(context.vif, packet.len(), counted);
                self.consume(packet, out);
            }
            Ok(Kind::Ip | Kind::Nd | Kind::Esp { .. }) => {
                self.count_in(context.vif, packet.len(), counted);
                self.neighbour_discovery(context, packet, out);
            }
            Err((vif, reason)) => {
                self.count_in(vif, packet.len(), counted);
                if let Some(vrf) = self.vif_fast(vif).map(|vif| vif.vrf) {
                    self.discard_in(vrf);
                }
                self.drop_packet(vif, packet, reason, out);
            }
        }
    }

    /// The worker that owns the packet's flow, when it is another one. Fragments whose head has not told yet belong to the
    /// owner of their addresses. A packet that is walked by itself has no flow: whole, or once its head has told, it stays where
    /// it is.
    #[inline]
    pub(super) fn other_owner(&self, context: &Context) -> Option<usize> {
        if matches!(context.path, Path::Walk(_)) && !context.lacks_head() {
            return None;
        }
        let spread = u128::from(context.key.owner_hash()) * self.config.workers as u128;
        let owner = (spread >> 64) as usize;
        (owner != self.config.id).then_some(owner)
    }

    #[inline]
    fn count_in(&mut self, vif: VifId, octets: usize, counted: bool) {
        if counted {
            return;
        }
        if let Some(counters) = self.counters.vif(vif) {
            counters.rx_packets += 1;
            counters.rx_bytes += octets as u64;
        }
    }

    /// Counts a packet that the NIC has opened: on the tunnel, and on the vif that it came in on, as small as it is now.
    fn count_opened(&mut self, link: VifId, tunnel: VifId, frame: &[u8], counted: bool) {
        let ethernet = crate::packet::parse::ethernet(frame).map_or(0, |ethernet| ethernet.len);
        self.count_in(link, frame.len(), counted);
        self.count_in(tunnel, frame.len() - ethernet.min(frame.len()), counted);
    }

    /// Second and third stage.
    fn work_off(&mut self, batch: &mut Batch, now: u64, out: &mut Outbox) {
        let Batch { packets, contexts, hashes, slots, marked, flowless, decisions } = batch;
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
            self.look_up_others(contexts, hashes, slots);
        } else if flowless < count {
            self.flows.lookup_asked(contexts, |context| &context.key, hashes, slots);
        }
        if flowless > 0 {
            self.find_decisions(contexts, decisions);
        }
        let looked_up = packets.drain(..).zip(contexts).zip(hashes).zip(slots).zip(decisions);
        for ((((mut packet, context), hash), slot), decision) in looked_up {
            let outcome = match context.path {
                Path::Flow if *slot == flow_table::NONE => Err(SlowPath::Miss),
                Path::Flow if !context.special => self.hit(*slot, (context, *hash == MARKED), &mut packet, now),
                // What its plan cannot do, a walk says again.
                Path::Walk(_) if decision.is_some() => {
                    self.route(*decision, context, &mut packet).map_err(|_| SlowPath::Special)
                }
                Path::Flow | Path::Walk(_) | Path::Reassemble => Err(SlowPath::Special),
            };
            match outcome {
                Ok(Disposition::Transmit { vif, port, kind }) => self.transmit(vif, port, kind, packet, out),
                Ok(Disposition::Seal(program)) => {
                    let leg = self.programs.get(program).and_then(|entry| entry.plan.seal.as_deref()).copied();
                    match leg {
                        Some(leg) => self.seal(&leg, (TxKind::Forwarded, context.vif), packet, out),
                        None => self.drop_packet(context.vif, packet, DropReason::InvalidNh, out),
                    }
                }
                Ok(Disposition::Drop(reason)) => self.drop_packet(context.vif, packet, reason, out),
                Err(why) => {
                    let hash = if *hash == MARKED { self.flows.hash(&context.key) } else { *hash };
                    match why {
                        SlowPath::Miss | SlowPath::Special => self.slow(packet, context, hash, now, out),
                        SlowPath::StaleProgram | SlowPath::IngressMoved | SlowPath::TcpControl | SlowPath::Plan(_) => {
                            self.slow_flow(*slot, packet, context, hash, now, out)
                        }
                    }
                }
            }
        }
    }

    /// Looks up those that no mark has told the slot of.
    fn look_up_others(&self, contexts: &[Context], hashes: &[u64], slots: &mut [u32]) {
        for ((context, hash), slot) in contexts.iter().zip(hashes).zip(slots) {
            if *slot == flow_table::NONE && matches!(context.path, Path::Flow) {
                *slot = self.flows.find(*hash, &context.key).unwrap_or(flow_table::NONE);
            }
        }
    }

    /// Runs the program of a flow on an ordinary packet.
    ///
    /// # Errors
    /// Why the packet, which is as it was, takes the slow path.
    #[inline]
    fn hit(
        &mut self,
        slot: u32,
        (context, marked): (&mut Context, bool),
        packet: &mut Packet,
        now: u64,
    ) -> Result<Disposition, SlowPath> {
        const TCP: u8 = 6;
        if !self.following.is_done() && self.catches_up(slot) {
            return Err(SlowPath::StaleProgram);
        }
        let Some((record, binding)) = self.flows.record_and_binding(slot) else { return Err(SlowPath::Miss) };
        admit(record, context)?;
        let Some(entry) = self.programs.get_mut(record.program).filter(|entry| entry.is_current()) else {
            return Err(SlowPath::StaleProgram);
        };
        let plan = &entry.plan;
        exec::admit(plan, &context.ip, packet.is_reassembled())?;
        let disposition = Disposition::of(plan.target, record.program)?;
        let operands = operands(plan, record, binding);
        if context.ip.proto == TCP {
            let mut segment = segment(packet.data(), context);
            if plan.shift == Some(SequenceShift::Acknowledgement) {
                segment.ack = segment.ack.wrapping_sub(operands.sequence_shift);
            }
            let mut direction = record.tcp_direction();
            if !direction.on_data(&segment) {
                return Err(SlowPath::TcpControl);
            }
            record.set_tcp_direction(direction);
        }
        record.packets += 1;
        record.bytes += packet.len() as u64;
        record.last_seen = now as u32;
        entry.packets += 1;
        entry.bytes += packet.len() as u64;
        if marked {
            entry.partial.add(Traffic { packets: 1, bytes: packet.len() as u64 });
        }
        if record.flags & flag::SAMPLE != 0 {
            self.offloads.sample(&mut self.flows, &self.snapshot, (slot, context), packet.data(), now);
        }
        self.counters.account.flow_hits += 1;
        let framing = framing(context);
        let ip = &mut context.ip;
        Ok(match exec::execute(plan, packet, ip, &framing, &operands) {
            Ok(()) => disposition,
            Err(reason) => Disposition::Drop(reason),
        })
    }

    /// Hands a finished frame to a port and counts it.
    #[inline]
    pub(super) fn transmit(&mut self, vif: VifId, port: VifId, kind: TxKind, packet: Packet, out: &mut Outbox) {
        match kind {
            TxKind::Forwarded => self.counters.account.forwarded += 1,
            TxKind::Punted => self.counters.account.punted += 1,
            TxKind::Originated => {}
            TxKind::Resumed => return out.send(port, packet, TxMeta { vif, kind }),
        }
        let octets = packet.len() as u64;
        if let Some(counters) = self.counters.vif(vif) {
            counters.tx_packets += 1;
            counters.tx_bytes += octets;
        }
        if let Some(counters) = self.counters.port(port) {
            counters.tx_packets += 1;
            counters.tx_bytes += octets;
        }
        out.send(port, packet, TxMeta { vif, kind });
    }
}

/// How a packet was framed when it came in.
#[inline]
pub(super) fn framing(context: &Context) -> Framing {
    Framing {
        l3: usize::from(context.l3),
        outer_tos: context.outer.map(|outer| outer.tos),
        pcp: (context.tci != 0).then_some((context.tci >> 13) as u8),
    }
}

/// What a plan leaves to a flow.
#[inline]
pub(super) fn operands(plan: &Plan, record: &Record, binding: BindingAt<'_>) -> Operands {
    Operands {
        tunnel_sport: record.tunnel_sport,
        outer_id: record.ip_id,
        sequence_shift: if plan.shift.is_some() { binding.get().sequence_shift } else { 0 },
    }
}

/// The TCP segment of a packet whose header the parser has found whole.
#[inline]
pub(super) fn segment(frame: &[u8], context: &Context) -> Segment {
    let at = usize::from(context.l3) + usize::from(context.ip.header_len);
    let Some(header) = frame.get(at..).and_then(|l4| l4.first_chunk::<20>()) else {
        return Segment { flags: 0, seq: 0, ack: 0, payload_len: 0 };
    };
    let header_len = u32::from(header[12] >> 4) * 4;
    Segment {
        flags: context.ip.tcp_flags,
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        payload_len: u32::from(context.ip.payload_len()).saturating_sub(header_len),
    }
}
