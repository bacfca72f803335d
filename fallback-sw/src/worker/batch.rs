//! A batch in three stages: sort all frames, look all of them up, then run each to completion.
//!
//! Budget of the hot path: no allocation, no lock, no formatting; flow records are prefetched while others are worked on.

use super::{
    Delivery, Origin, Outbox, TxKind, TxMeta, Worker,
    ingress::{Context, Path, Sorted},
};
use crate::{
    exec::{self, Target, Varying},
    flow_table,
    packet::{Packet, tcp::Number},
};
use offload_rules::{
    VifId,
    flow::{FlowKey, tcp::Segment},
};

/// Frames that are worked on together: enough loads in flight to hide memory, little enough to stay in the first-level cache.
pub(super) const BATCH: usize = 32;

/// Memory of one batch, kept from one to the next.
pub(super) struct Batch {
    packets: Vec<Packet>,
    contexts: Vec<Context>,
    keys: Vec<FlowKey>,
    hashes: Vec<u64>,
    slots: Vec<u32>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            packets: Vec::with_capacity(BATCH),
            contexts: Vec::with_capacity(BATCH),
            keys: Vec::with_capacity(BATCH),
            hashes: Vec::with_capacity(BATCH),
            slots: vec![flow_table::NONE; BATCH],
        }
    }
}

impl Worker {
    /// Takes in frames received on the device of `port` and empties `frames`. `now` is in milliseconds of the node's clock.
    pub fn receive(&mut self, port: VifId, frames: &mut Vec<Packet>, now: u64, out: &mut Outbox) {
        self.clock = now;
        self.counters.account.received += frames.len() as u64;
        let octets: usize = frames.iter().map(Packet::len).sum();
        if let Some(counters) = self.counters.port(port) {
            counters.rx_packets += frames.len() as u64;
            counters.rx_bytes += octets as u64;
        }
        let origin = Origin::Port { port, head: None, counted: false };
        self.run(frames.drain(..).map(|packet| Delivery { packet, origin }), now, out);
    }

    /// Takes in packets that were received already: handed over by another worker, or waited for something.
    pub fn deliver_all(&mut self, deliveries: Vec<Delivery>, now: u64, out: &mut Outbox) {
        self.run(deliveries.into_iter(), now, out);
    }

    fn run(&mut self, deliveries: impl Iterator<Item = Delivery>, now: u64, out: &mut Outbox) {
        let mut batch = self.batch.take().unwrap_or_default();
        for delivery in deliveries {
            self.sort_into(&mut batch, delivery, now, out);
            if batch.packets.len() == BATCH {
                self.work_off(&mut batch, now, out);
            }
        }
        self.work_off(&mut batch, now, out);
        self.batch = Some(batch);
    }

    /// First stage.
    #[inline]
    fn sort_into(&mut self, batch: &mut Batch, delivery: Delivery, now: u64, out: &mut Outbox) {
        let (port, head, counted) = match delivery.origin {
            Origin::Port { port, head, counted } => (port, head, counted),
            Origin::Own(vrf) => return self.send_own(vrf, delivery.packet, now, out),
        };
        match self.sort(delivery.packet.data(), port, head) {
            Ok(Sorted::Ip(context)) => {
                if self.config.workers > 1
                    && let Some(owner) = self.other_owner(&context)
                {
                    out.handoff.push((owner, delivery));
                    return;
                }
                self.count_in(context.vif, delivery.packet.len(), counted);
                batch.packets.push(delivery.packet);
                batch.keys.push(context.key);
                let hash = self.flows.hash(&context.key);
                self.flows.prefetch(hash);
                batch.hashes.push(hash);
                batch.contexts.push(context);
            }
            Ok(Sorted::Arp { vif, at }) => {
                self.count_in(vif, delivery.packet.len(), counted);
                self.arp(vif, at, delivery.packet, out);
            }
            Ok(Sorted::Nd(context)) => {
                self.count_in(context.vif, delivery.packet.len(), counted);
                self.neighbour_discovery(&context, delivery.packet, out);
            }
            Err((vif, reason)) => {
                self.count_in(vif, delivery.packet.len(), counted);
                if let Some(vrf) = self.vif_fast(vif).map(|vif| vif.vrf) {
                    self.discard_in(vrf);
                }
                self.drop_packet(vif, delivery.packet, reason, out);
            }
        }
    }

    /// The worker that owns the packet's flow, when it is another one. Fragments whose head has not told yet belong to the
    /// owner of their addresses.
    #[inline]
    pub(super) fn other_owner(&self, context: &Context) -> Option<usize> {
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

    /// Second and third stage.
    fn work_off(&mut self, batch: &mut Batch, now: u64, out: &mut Outbox) {
        let Batch { packets, contexts, keys, hashes, slots } = batch;
        self.flows.lookup_batch(keys, hashes, slots);
        for (((packet, context), hash), slot) in
            packets.drain(..).zip(contexts.iter()).zip(hashes.iter()).zip(slots.iter())
        {
            if *slot != flow_table::NONE && !context.special && context.path == Path::Flow {
                if let Some(packet) = self.hit(*slot, context, packet, now, out) {
                    self.slow(packet, context, *hash, now, out);
                }
            } else {
                self.slow(packet, context, *hash, now, out);
            }
        }
        contexts.clear();
        keys.clear();
        hashes.clear();
    }

    /// The program of a flow on an ordinary packet. The packet comes back, unchanged, when it needs more than that.
    #[inline]
    fn hit(&mut self, slot: u32, context: &Context, mut packet: Packet, now: u64, out: &mut Outbox) -> Option<Packet> {
        const TCP: u8 = 6;
        let Some(record) = self.flows.record_mut(slot) else { return Some(packet) };
        // An earlier packet of the batch may have changed the table.
        if record.version != self.version || record.key != context.key {
            return Some(packet);
        }
        let Some(entry) = self.programs.get_mut(record.program) else { return Some(packet) };
        let plan = &entry.plan;
        let ip = &context.ip;
        if ip.total_len > plan.limit || ip.ttl <= plan.ttl {
            return Some(packet);
        }
        if let Some(outer) = context.outer
            && (record.rpf_source != outer.source.octets() || record.underlay_vif != context.vif.get())
        {
            return Some(packet);
        }
        let (target, port, kind) = match plan.target {
            Target::Output { vif, port } => (vif, port, TxKind::Forwarded),
            Target::Punt { vif, port } => (vif, port, TxKind::Punted),
            Target::Drop(_) => return Some(packet),
        };
        if ip.proto == TCP {
            let mut segment = segment(packet.data(), context);
            if plan.shift == Some(Number::Ack) {
                segment.ack = segment.ack.wrapping_sub(record.mark);
            }
            let mut direction = record.tcp_direction();
            if !direction.on_data(&segment) {
                return Some(packet);
            }
            record.set_tcp_direction(direction);
        }
        let varying = Varying { shift: record.mark, ..varying(context, self.ip_id, record.tunnel_sport) };
        let octets = packet.len();
        let mut ip = *ip;
        let done =
            exec::strip(&mut packet, &mut ip, &varying).and_then(|()| exec::run(plan, &mut packet, &ip, &varying));
        record.packets += 1;
        record.bytes += octets as u64;
        record.last_seen = now as u32;
        entry.packets += 1;
        if plan.encap.is_some() {
            self.ip_id = self.ip_id.wrapping_add(1);
        }
        self.counters.account.flow_hits += 1;
        match done {
            Ok(()) => self.transmit(target, port, kind, packet, out),
            Err(reason) => self.drop_packet(context.vif, packet, reason, out),
        }
        None
    }

    /// Hands a finished frame to a port and counts it.
    #[inline]
    pub(super) fn transmit(&mut self, vif: VifId, port: VifId, kind: TxKind, packet: Packet, out: &mut Outbox) {
        match kind {
            TxKind::Forwarded => self.counters.account.forwarded += 1,
            TxKind::Punted => self.counters.account.punted += 1,
            TxKind::Originated => {}
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

/// What differs from packet to packet.
#[inline]
pub(super) fn varying(context: &Context, ip_id: u16, sport: u16) -> Varying {
    Varying {
        l3: usize::from(context.l3),
        outer_tos: context.outer.map(|outer| outer.tos),
        pcp: (context.tci != 0).then_some((context.tci >> 13) as u8),
        ip_id,
        sport,
        shift: 0,
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
